"""``stageline receiver``: takes webhooks."""

import os

import click

from stageline import config


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port.  [default: 8787]")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes.  [default: 2]")
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Requests that each takes at once.  [default: 8]"
)
def receiver(host: str | None, port: int | None, workers: int | None, threads: int | None) -> None:
    """Take webhooks of CRMs until stopped.

    Who may send is set up with `stageline projects`, also while it runs. A delivery is answered
    with 200 once it is on a disk: in PostgreSQL, or in a file beside it while PostgreSQL is away.
    Put a proxy with TLS before it when it faces the internet. More settings: STAGELINE_RECEIVER_*
    in docs/receive-webhooks.md.

    \b
    Example:
        stageline receiver
        stageline receiver --host 0.0.0.0 --port 8080 --workers 4
    """
    given = {"HOST": host, "PORT": port, "WORKERS": workers, "THREADS": threads}
    for name, value in given.items():
        if value is not None:
            os.environ[f"STAGELINE_RECEIVER_{name}"] = str(value)
    config.settings.cache_clear()

    from webhook_receiver.serve import serve

    serve()
