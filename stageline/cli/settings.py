"""``stageline settings``: what stages mean, and who changed what."""

from datetime import datetime

import click

from stageline.cli import (
    settings_dictionaries,
    settings_maps,
    settings_rules,
    settings_simulation,
)
from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.settings_tables import differing, show_or_say, shown, written
from stageline.cli.tables import Column
from stageline.settings import changes


@click.group()
def settings() -> None:
    """Say what stages mean, how time is judged, and what is to be reached.

    Every change is kept with its time and who made it (STAGELINE_CHANGED_BY, or your login); see
    `stageline settings audit`.

    \b
    Example:
        stageline settings canonical
        stageline settings versions create "First map"
        stageline settings map import 1 map.csv --dry-run
        stageline settings versions publish 1
        stageline settings unmapped
    """


for _command in (
    settings_maps.list_canonical,
    settings_maps.versions,
    settings_maps.stage_map,
    settings_maps.unmapped,
    settings_simulation.simulate,
    settings_dictionaries.stages,
    settings_dictionaries.groups,
    *settings_rules.COMMANDS,
):
    settings.add_command(_command)


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


def _what_changed(change: changes.Change) -> str:
    """The row, its key first; of one that was changed the key, and what differs."""
    before, after = change.before or {}, change.after or {}
    row = after or before
    others = sorted(row.keys() - set(change.key))
    if before and after:
        key = ", ".join(f"{name}: {shown(row[name])}" for name in change.key)
        return f"{key}, {differing(before, after, others)}"
    return ", ".join(
        f"{name}: {shown(row[name])}" for name in [*change.key, *others] if row[name] is not None
    )
