"""``stageline run``: receiver, worker and the embedded PostgreSQL, kept running."""

import signal

import click

from stageline.config import settings

#: Seconds that a part has to end: more than it gives itself.
_SETUP_GRACE, _RECEIVER_GRACE, _WORKER_GRACE = 20.0, 15.0, 25.0


@click.command()
@click.option("--host", help="Address that the receiver listens on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port.  [default: 8787]")
@click.option("--demo", "with_demo", is_flag=True, help="First do what `stageline demo` does.")
@click.pass_context
def run(ctx: click.Context, host: str | None, port: int | None, with_demo: bool) -> None:
    """Keep everything running: PostgreSQL, `stageline receiver` and `stageline worker`.

    Sets up what is not there, as `stageline up` does. What ends is started again, after a pause
    that grows while it ends again and again. Each line of the log says which part it is of.

    SIGTERM or Ctrl-C stops the receiver, then the worker, then PostgreSQL, unless that ran before;
    a second Ctrl-C does not wait for what they are doing. A server of yours
    (STAGELINE_DATABASE_URL) is neither started nor stopped.

    No data come with it: load yours, or add --demo to try it on the sample.

    \b
    Example:
        stageline run
        stageline run --demo
        stageline run --host 0.0.0.0 --port 8080
    """
    from stageline import server
    from stageline.cli.database import up
    from stageline.cli.demo import demo
    from stageline.progress import is_live
    from stageline.supervisor import Part, do_first, only_one, supervise

    listens = [
        *(("--host", host) if host else ()),
        *(("--port", str(port)) if port else ()),
    ]
    parts = [
        Part("receiver", ["receiver", *listens], _RECEIVER_GRACE),
        Part("worker", ["worker"], _WORKER_GRACE, needs_postgres=True),
    ]
    home = server.home()
    is_embedded = settings().database_url is None
    with only_one(home) as lock:
        stops_postgres = is_embedded and not server.runs(home)
        # Until the parts run, it ends as by Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if is_live():  # a person who watches is shown how far it is
                ctx.invoke(demo if with_demo else up)
            else:
                do_first(Part("setup", ["demo" if with_demo else "up"], _SETUP_GRACE), lock)
            supervise(parts, lock, with_postgres=is_embedded)
        finally:
            if stops_postgres:
                server.stop(home)
