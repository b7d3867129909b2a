"""How settings, and what was changed of them, are shown; and options that commands share."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stageline.cli.tables import Column, show

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "yaml"]),
    default="csv",
    show_default=True,
    help="How it is written.",
)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path))


def show_or_say(columns: Sequence[Column], rows: Sequence[Sequence[str]], if_none: str) -> None:
    """Shows a table, or one line where it would be empty."""
    if rows:
        show(columns, rows)
    else:
        click.echo(if_none)


def written(at: datetime | None) -> str:
    """An instant as the tables show it, in UTC; nothing where there is none."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def shown(value: Any) -> str:
    """A value of a setting, which may have none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def differing(before: Mapping[str, Any], after: Mapping[str, Any], names: Iterable[str]) -> str:
    """What differs between two rows, as ``name: old -> new``."""
    return ", ".join(
        f"{name}: {shown(before[name])} -> {shown(after[name])}"
        for name in names
        if before[name] != after[name]
    )


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun: ``1 row``, ``2 rows``."""
    return f"{count} {one if count == 1 else many}"


def tell_difference(
    *,
    added: Collection[str],
    changed: Collection[str],
    gone: Collection[str],
    unchanged: int,
    went: str = "removed",
    dry_run: bool,
) -> None:
    """Shows what an import changes, a row a line, and counts it.

    Args:
        went: What became of those that are not in the file.
        dry_run: Whether it only would.
    """
    for sign, lines in (("-", gone), ("~", changed), ("+", added)):
        for line in lines:
            click.echo(f"{sign} {line}")
    click.echo(
        f"{len(added)} added, {len(changed)} changed, {len(gone)} {went}, {unchanged} unchanged."
    )
    if dry_run:
        click.echo("Nothing was changed: the same command without --dry-run does it.")
