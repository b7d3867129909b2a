"""What of a table was written since a resource last looked there.

What is still to be asked for about rows that are loaded is looked up in the database. Were all rows
looked at each time, a load that finds nothing would take the longer, the larger the account is. So
a resource keeps which transactions it has seen, and looks at the rows of later ones alone: each row
carries the transaction that wrote it, in ``loaded_xid``. Times would miss what commits late.
"""

from typing import Any, NamedTuple

import psycopg

from loaders.sources import Position

#: Before any transaction: all rows are looked at.
_EVER = "0"

#: After any transaction.
_NEVER = str(2**64 - 1)


class Since(NamedTuple):
    """Where to look.

    Attributes:
        xid: All rows of earlier transactions have been looked at.
        before: Rows of this transaction and later ones came with the dump of another server: they
            were looked at when that was restored.
        position: To be kept, as part of the resource's, once nothing is left to do of what is there
            now.
    """

    xid: str
    before: str
    position: Position


def last_look(
    session: psycopg.Connection[Any], position: Position | None, *, anew: bool = False
) -> Since:
    """Where a resource is to look that was at a position.

    Args:
        session: In autocommit mode; whatever is looked up comes after this.
        position: May come from another server, whose transactions say nothing here.
        anew: All rows are to be looked at.
    """
    row = session.execute(
        "select pg_snapshot_xmin(now)::text, pg_snapshot_xmax(now)::text, system_identifier::text"
        " from pg_control_system(), pg_current_snapshot() as now"
    ).fetchone()
    now, following, server = row or (_EVER, _NEVER, "")
    is_known = not anew and position is not None and position.get("server") == server
    seen = position["seen"] if is_known and position is not None else _EVER
    before = _NEVER if seen == _EVER else following
    return Since(seen, before, {"seen": now, "server": server})
