"""What the commands of this package share: a folder of their own, and an end in order."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

_STOPS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> None:
    """From here on, SIGINT and SIGTERM end the command as Ctrl-C does."""
    for number in _STOPS:
        signal.signal(number, _stop)


def _stop(*_: Any) -> None:
    ignore_stops()
    click.echo("stopping all that runs ...", err=True)
    raise KeyboardInterrupt


def ignore_stops() -> None:
    """From here on all is taken down; a second Ctrl-C would leave some of it behind."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def own_folder(*, keep: bool) -> Iterator[Path]:
    """A folder that every account may enter; it is removed in the end, unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="stageline-crash-", dir="/tmp"))
    folder.chmod(0o755)  # root's PostgreSQL runs under another account
    try:
        yield folder
    finally:
        if keep:
            click.echo(f"logs and data are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
