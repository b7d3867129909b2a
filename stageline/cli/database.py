"""``stageline up``, ``down`` and ``psql``: the database as a whole."""

import os

import click

from stageline.config import settings
from stageline.database import ROLES, Role, connection
from stageline.errors import StagelineError


@click.command()
@click.option(
    "--print-sql",
    is_flag=True,
    help="Only print what an administrator of your own server has to run first.",
)
def up(print_sql: bool) -> None:
    """Start the database, creating or upgrading it as needed.

    Without STAGELINE_DATABASE_URL this is a PostgreSQL of its own on 127.0.0.1, which keeps running
    until `stageline down`. With it, your server gets Stageline's schemas, tables and roles.
    Running it again changes nothing.

    \b
    Example:
        stageline up
        STAGELINE_DATABASE_URL=postgresql://me:secret@db.example:5432/crm stageline up
    """
    from stageline import dbt_environment, migrate, roles
    from stageline.progress import step

    own_server = settings().database_url is not None
    if print_sql:
        if not own_server:
            raise StagelineError(
                "--print-sql is for a server of yours: set STAGELINE_DATABASE_URL."
                " The embedded PostgreSQL needs no administrator."
            )
        target = connection("owner")
        click.echo(roles.administrator_sql(target.dbname, target.user))
        return
    notes: list[str] = []
    fresh = False
    if not own_server:
        notes, fresh = _start_embedded()
    if not own_server and not fresh and migrate.is_current():
        before: str | None = migrate.head()
    elif own_server and migrate.is_current():
        before = migrate.head()
    else:
        with step("Bring the tables up to date") as current:
            before = migrate.upgrade()
            current.note(migration=migrate.head())
    changed = dbt_environment.write(settings().env_file)
    for note in notes:
        click.echo(note, err=True)
    if changed:
        click.echo(f"What dbt needs to connect is in {settings().env_file}.", err=True)
    target = connection("owner")
    click.echo(f"PostgreSQL listens on {target.host}:{target.port}, database {target.dbname}.")
    if before is None:
        click.echo(
            "Next: `stageline demo` for sample numbers, `stageline load --help` for your own data."
        )


def _start_embedded() -> tuple[list[str], bool]:
    """Starts the embedded server; what to say about it, and whether its database is new."""
    from stageline import server
    from stageline.progress import step

    found = server.find(server.home())
    if found is not None:
        # Repairs what may be missing (logins, server.json); milliseconds where all is well.
        found = server.start(server.home(), settings().port)
        return list(found.notes), False
    with step("Start PostgreSQL") as current:
        running = server.start(server.home(), settings().port)
        current.note(port=running.port)
    return list(running.notes), running.created


@click.command()
def down() -> None:
    """Stop the embedded database. Your own server is left alone.

    \b
    Example:
        stageline down
    """
    from stageline import server, supervisor

    if settings().database_url is not None:
        raise StagelineError(
            "STAGELINE_DATABASE_URL is set: Stageline does not stop a server of yours."
        )
    keeper = supervisor.running(server.home())
    if keeper is not None:
        raise StagelineError(
            f"`stageline run` ({keeper}) would start PostgreSQL again. Stop that instead: it stops"
            " PostgreSQL, too, if it has started it."
        )
    stopped = server.stop(server.home())
    click.echo("PostgreSQL is stopped." if stopped else "PostgreSQL was not running.")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="reader",
    show_default=True,
    help="Whose rights the session has.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(role: Role, arguments: tuple[str, ...]) -> None:
    """Open psql, connected. What follows `--` is psql's own.

    \b
    Example:
        stageline psql
        stageline psql -- -Atc "select count(*) from kpis.fct_leads"
        stageline psql --role owner -- -f script.sql
    """
    from stageline import server

    program = server.program("psql")
    if settings().database_url is None and server.find(server.home()) is None:
        raise StagelineError("The embedded PostgreSQL does not run. Run `stageline up`.")
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    variables |= connection(role).environment()
    os.execve(program, ["psql", *arguments], variables)  # noqa: S606 - the same terminal and exit code
