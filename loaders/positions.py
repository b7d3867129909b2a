"""How far each resource of an account is loaded (``ops.load_positions``)."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from loaders.pace import Account

Session = psycopg.Connection[Any]


def all_of(session: Session, account: Account) -> dict[str, Mapping[str, Any]]:
    """Resource -> its position, of one account."""
    rows = session.execute(
        "select resource, position from ops.load_positions"
        " where source_system = %s and project_id = %s",
        account,
    )
    return dict(rows.fetchall())


def save(session: Session, account: Account, resource: str, position: Mapping[str, Any]) -> None:
    """Keeps the position of a resource; only after all rows before it are committed."""
    session.execute(
        """
        insert into ops.load_positions (source_system, project_id, resource, position)
        values (%s, %s, %s, %s)
        on conflict (source_system, project_id, resource) do update
        set position = excluded.position, updated_at = excluded.updated_at
        where load_positions.position is distinct from excluded.position
        """,
        [*account, resource, Jsonb(dict(position))],
    )


def begin(session: Session, account: Account, resource: str, position: Mapping[str, Any]) -> None:
    """Forgets all positions of an account, but which one it is, and keeps this one."""
    with session.transaction():
        session.execute(
            "delete from ops.load_positions"
            " where source_system = %s and project_id = %s and resource != 'account'",
            account,
        )
        save(session, account, resource, position)
