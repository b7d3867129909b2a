"""Brings the database to the present shape, or back: Alembic, and the roles around it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from stageline import roles
from stageline.database import connect
from stageline.errors import StagelineError

FOLDER = Path(__file__).parent / "migrations"


@cache
def head() -> str:
    """The newest revision that this version of Stageline knows."""
    names = sorted(path.name for path in (FOLDER / "versions").glob("[0-9]*.py"))
    return names[-1].split("_")[0]


def current() -> str | None:
    """The revision that the database is at; None where nothing was migrated yet.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("owner") as connection:
        row = connection.execute("select to_regclass('ops.alembic_version') is not null").fetchone()
        if not (row and row[0]):
            return None
        row = connection.execute("select version_num from ops.alembic_version").fetchone()
        return str(row[0]) if row else None


def upgrade(revision: str = "head") -> str | None:
    """Makes roles, schemas and tables that are missing; safe while another does the same.

    Returns:
        The revision that the database was at before.

    Raises:
        StagelineError: the database is newer than this Stageline, cannot be reached, or an
            administrator has to create the roles first.
    """
    before = current()
    if before is not None and before > head():
        raise StagelineError(
            f"The database is at migration {before}, this Stageline knows only {head()}:"
            " it was upgraded by a newer version. Update this checkout."
        )
    make_roles()
    if before != (head() if revision == "head" else revision):
        _alembic("upgrade", revision)
    with _locked() as connection:
        roles.set_rights(connection)
    return before


def make_roles() -> None:
    """Makes the roles that are missing on the server.

    Raises:
        StagelineError: as `stageline.roles.ensure`, or the database cannot be reached.
    """
    with _locked() as connection:
        roles.ensure(connection)


@contextmanager
def _locked() -> Iterator[psycopg.Connection[Any]]:
    """A session in a transaction that waits for every other one that sets this database up."""
    with connect("owner") as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [roles.LOCK])
        yield connection


def is_current() -> bool:
    """Whether migrations, roles and rights on the database are as they should be."""
    if current() != head():
        return False
    with connect("owner") as connection:
        return not roles.missing(connection) and roles.rights_are_set(connection)


def downgrade(revision: str) -> None:
    """Takes migrations back, with the data in their tables. ``base`` takes back all of them.

    Roles stay: they belong to the server, and other databases may use them.

    Raises:
        StagelineError: there is no such revision.
    """
    _alembic("downgrade", revision)


def _alembic(action: str, revision: str) -> None:
    # Imported here: most commands only ask which revision the database is at.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import NullPool, create_engine

    if not re.fullmatch(r"head|base|\d{4}|[+-]\d", revision):
        raise StagelineError(f"There is no migration {revision!r}; the newest is {head()}.")
    config = Config()
    # Alembic takes % for the start of a variable.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect("owner"), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            getattr(command, action)(config, revision)
            connection.commit()
    except CommandError as error:
        raise StagelineError(f"Migration to {revision} failed: {error}.") from None
    finally:
        engine.dispose()
