"""``stageline fake-crm``: a CRM to try a loader on, without an account anywhere."""

import contextlib
import importlib
import sys
import threading
from typing import Any

import click

from loaders.registry import SOURCES, source
from stageline.config import PROJECT_ROOT
from stageline.errors import StagelineError


@click.command("fake-crm", short_help="Serve a made-up CRM on this machine, to try a loader on.")
@click.argument("name", metavar="CRM")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8901,
    show_default=True,
    help="Where it listens.",
)
@click.option(
    "--deals",
    type=click.IntRange(0, 100_000),
    default=300,
    show_default=True,
    help="How many deals or orders it has.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another one, other deals.")
@click.option("--no-limits", is_flag=True, help="It may be called as often as one likes.")
def fake_crm(name: str, port: int, deals: int, seed: int, no_limits: bool) -> None:
    """Serve a made-up CRM on this machine, to try a loader on.

    It answers as the real one does, page by page, and only calls from this machine. It allows what
    the CRM allows its smallest plan: calls in a few seconds, searches, and those of a day, which
    begins when it does. Ctrl-C ends it.

    \b
    Example:
        stageline fake-crm hubspot
        stageline fake-crm keycrm --port 8902 --deals 1000
    """
    source(name)
    title = SOURCES[name].title
    fake = _fake(name)
    fake.port = port
    try:
        server = fake(seed)
    except OSError:
        raise StagelineError(f"Port {port} is taken. Choose another one with --port.") from None
    server.populate(deals=deals)
    if no_limits:
        server.limit = None
    else:
        server.keep_limits()
    with server:
        server.be_still()
        click.echo(
            f"A made-up {title} with {deals} deals answers at {server.base_url}. In another"
            " terminal:\n\n"
            f"  export SALES_PIPELINE_SOURCE={name} SALES_PIPELINE_API_KEY={server.token}"
            f" SALES_PIPELINE_ENDPOINT={server.base_url}\n"
            f"  stageline load {name}\n"
            "  stageline build\n\n"
            "Ctrl-C ends it."
        )
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    click.echo("\nIt has ended; nothing of it stays but what was loaded.")


def _fake(name: str) -> Any:
    """The class of a fake; they are kept with the tests, which use them, too."""
    sys.path.insert(0, str(PROJECT_ROOT))
    try:
        base = importlib.import_module("tests.fakes.crm_server").CrmServer
        module = importlib.import_module(f"tests.fakes.{name}")
    except ModuleNotFoundError:
        raise StagelineError(
            "The made-up CRMs come with the checkout, not with the package: run it there."
        ) from None
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    )
