"""What Alembic runs for each command: everything in one transaction, under one lock.

The connection comes from `stageline.migrate`; there is no alembic.ini.
"""

from alembic import context
from sqlalchemy import Connection, text

from stageline.roles import LOCK


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=None,
        version_table="alembic_version",
        version_table_schema="ops",
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        # Held until the commit: a second `stageline up` waits here, then finds all done.
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        # `create schema if not exists` asks for the right to create even where the schema exists.
        if connection.scalar(text("select to_regnamespace('ops') is null")):
            connection.execute(text("create schema ops"))
        context.run_migrations()


_run(context.config.attributes["connection"])
