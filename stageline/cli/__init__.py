"""The ``stageline`` command. Each subcommand's module is imported when it is called, not before."""

import errno
import importlib
import sys
from typing import Any

import click

from stageline.errors import StagelineError

#: Subcommand -> module and attribute, in the order in which the help lists them.
_COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("stageline.cli.database", "up"),
    "down": ("stageline.cli.database", "down"),
    "status": ("stageline.cli.status", "status"),
    "run": ("stageline.cli.run", "run"),
    "demo": ("stageline.cli.demo", "demo"),
    "generate": ("stageline.cli.generate", "generate"),
    "load": ("stageline.cli.load", "load"),
    "fake-crm": ("stageline.cli.fake_crm", "fake_crm"),
    "projects": ("stageline.cli.projects", "projects"),
    "settings": ("stageline.cli.settings", "settings"),
    "receiver": ("stageline.cli.receiver", "receiver"),
    "deliveries": ("stageline.cli.deliveries", "deliveries"),
    "replay": ("stageline.cli.deliveries", "replay"),
    "archive": ("stageline.cli.archive", "archive"),
    "worker": ("stageline.cli.worker", "worker"),
    "jobs": ("stageline.cli.jobs", "jobs"),
    "follow-ups": ("stageline.cli.worker", "follow_ups"),
    "notify": ("stageline.cli.notify", "notify"),
    "check": ("stageline.cli.quality", "check"),
    "build": ("stageline.cli.build", "build"),
    "export": ("stageline.cli.export", "export"),
    "plot": ("stageline.cli.plot", "plot"),
    "explain": ("stageline.cli.explain", "explain"),
    "psql": ("stageline.cli.database", "psql"),
    "backup": ("stageline.cli.backup", "backup"),
    "restore": ("stageline.cli.backup", "restore"),
    "prune": ("stageline.cli.prune", "prune"),
    "doctor": ("stageline.cli.doctor", "doctor"),
}

#: One line each, so that the list of commands imports none of them.
_ABOUT = {
    "up": "Start the database, creating or upgrading it as needed.",
    "down": "Stop the embedded database.",
    "status": "Show the database, what is loaded, and the last build.",
    "run": "Keep everything running: database, receiver and worker.",
    "demo": "Run everything on sample data and show the numbers.",
    "generate": "Make data up, to try reports on.",
    "load": "Load data of yours.",
    "fake-crm": "Serve a made-up CRM on this machine, to try a loader on.",
    "projects": "Set up accounts of CRMs: who may send, and the key of the API.",
    "settings": "Say what stages mean, and how time is judged.",
    "receiver": "Take webhooks of CRMs.",
    "deliveries": "Show what the receiver took, and what it refused.",
    "replay": "Read landed deliveries again, after a fix.",
    "archive": "Move what old deliveries said to files, and back.",
    "worker": "Refresh what is due, and ask CRMs for what their webhooks leave out.",
    "jobs": "Refresh tables on time, and see whether they are.",
    "follow-ups": "Show what the worker has still to ask for, and what failed.",
    "notify": "Show what needs somebody, and tell it to channels.",
    "check": "Check the raw data, and show what is wrong with it.",
    "build": "Check the data, then build and test the models.",
    "export": "Write numbers as files.",
    "plot": "Draw numbers.",
    "explain": "Show what a number is made of.",
    "psql": "Open psql, connected.",
    "backup": "Write everything in the database into one file.",
    "restore": "Make an empty database what it was when a backup was made.",
    "prune": "Remove what is older than it is kept.",
    "doctor": "Say what is wrong with this machine or configuration.",
}


#: A folder of another user, a read-only or a full disk: the user's to mend.
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


class _Lazy(click.Group):
    """Imports a subcommand when it is asked for, and shows a user's mistake as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise StagelineError(
                f"`stageline {cmd_name}` is not part of this installation."
            ) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, _ABOUT[name]) for name in _COMMANDS])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StagelineError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("\nerror: stopped. Nothing is left half done: run it again.", err=True)
            sys.exit(130)  # as a shell does for a program that Ctrl-C ends
        except BrokenPipeError:  # the reader of our output (head, less) has left
            sys.stderr.close()
            sys.exit(0)
        except Exception as error:
            told = _told(error)
            if told is None:
                raise
            click.echo(f"error: {told}", err=True)
            sys.exit(1)


def _told(error: Exception) -> str | None:
    """A disk or a database that failed under a command, as a line; None for a fault of ours."""
    driver = sys.modules.get("psycopg")  # who has a session has imported it
    if driver is not None and isinstance(error, driver.OperationalError):
        from stageline.database import cut_short

        return f"{cut_short(error)}. Run it again; `stageline status` says how it is."
    cause: BaseException | None = error
    while cause is not None:  # a library may have put it into an error of its own
        if isinstance(cause, OSError) and cause.errno in _NOT_WRITABLE:
            where = f" {cause.filename}" if cause.filename else ""
            return (
                f"Cannot write{where}: {cause.strerror}. Mend that, or name another folder"
                " with STAGELINE_OUTPUT, STAGELINE_HOME, DBT_TARGET_PATH or DBT_LOG_PATH."
            )
        cause = cause.__cause__ or cause.__context__
    return None


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stageline", message="%(version)s")
def main() -> None:
    """CRM events in, trusted KPI tables out.

    \b
    Example:
        stageline up
        stageline demo
        stageline build
        stageline psql
    """
