"""``stageline settings``: what stages mean, and who changed what."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.tables import Column, show
from stageline.settings import changes


@click.group()
def settings() -> None:
    """Say what stages mean, and how time is judged.

    Every change is kept with its time and who made it (STAGELINE_CHANGED_BY, or your login); see
    `stageline settings audit`.
    """


@settings.command()
@click.option("--table", metavar="NAME", help="Only of this table.")
@click.option("--since", metavar="INSTANT", callback=instant, help="Only from then on.")
def audit(table: str | None, since: datetime | None) -> None:
    """Show who changed which setting, when, and how it was before.

    \b
    Example:
        stageline settings audit
        stageline settings audit --table stage_map_scd --since 2027-03-01
    """
    require_migrations()
    rows = [
        (written(row.changed_at), row.changed_by, row.action, row.table_name, _what_changed(row))
        for row in changes.audit(table, since)
    ]
    show_or_say(
        [Column(title) for title in ("at", "by", "action", "table", "what")],
        rows,
        "Nothing was changed.",
    )


def show_or_say(columns: Sequence[Column], rows: Sequence[Sequence[str]], if_none: str) -> None:
    """Shows a table, or one line where it would be empty."""
    if rows:
        show(columns, rows)
    else:
        click.echo(if_none)


def written(at: datetime | None) -> str:
    """An instant as the tables show it, in UTC; nothing where there is none."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _what_changed(change: changes.Change) -> str:
    """The row, its key first; of one that was changed only what differs: ``name=old -> new``."""
    before, after = change.before or {}, change.after or {}
    row = after or before
    names = [*change.key, *sorted(row.keys() - set(change.key))]
    if before and after:
        return ", ".join(
            f"{name}={_shown(after[name])}"
            if before[name] == after[name]
            else f"{name}={_shown(before[name])} -> {_shown(after[name])}"
            for name in names
            if name in change.key or before[name] != after[name]
        )
    return ", ".join(f"{name}={_shown(row[name])}" for name in names if row[name] is not None)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
