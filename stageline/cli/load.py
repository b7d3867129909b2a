"""``stageline load``: bring data of the user's in."""

import csv
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stageline.cli.load_crm import add_commands
from stageline.errors import StagelineError
from stageline.settings import projects

if TYPE_CHECKING:
    from loaders.files import FileLoad, Reject

_ENTITY = click.option(
    "--as",
    "entity",
    metavar="ENTITY",
    required=True,
    help="What a row is: leads, opportunities, tickets ... (see `stageline load entities`).",
)


class _Loads(click.Group):
    """Says in one line what can be loaded, where something else is asked for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise StagelineError(
                f"{args[0]!r} is nothing that can be loaded. There are:"
                f" {', '.join(self.list_commands(ctx))}."
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Loads)
def load() -> None:
    """Load data of yours.

    \b
    Example:
        stageline load file deals.csv --as opportunities --mapping deals.yml --dry-run
        stageline load file deals.csv --as opportunities --mapping deals.yml
        stageline load rejects
        stageline load hubspot
    """


add_commands(load)


@load.command()
@click.argument("path", type=click.Path(path_type=Path))
@_ENTITY
@click.option(
    "--mapping",
    type=click.Path(path_type=Path),
    help="Which column feeds which field, and how it is read (docs/load-your-files.md).",
)
@click.option(
    "--project", default="default", show_default=True, help="Project that the rows belong to."
)
@click.option("--dry-run", is_flag=True, help="Check the whole file and show it; load nothing.")
@click.option(
    "--max-rejects",
    type=click.IntRange(min=0),
    help="Load nothing if more rows than this do not fit; by default, load those that fit.",
)
def file(
    path: Path,
    entity: str,
    mapping: Path | None,
    project: str,
    dry_run: bool,
    max_rejects: int | None,
) -> None:
    """Load a CSV, JSON lines or Parquet file.

    Rows that fit are merged by their key: loading a file again changes nothing, a corrected file
    updates its rows. Rows that do not fit are kept with their line and the reason; see them with
    `stageline load rejects`. Text files may be gzipped.

    \b
    Example:
        stageline load file deals.csv --as opportunities
        stageline load file log.csv.gz --as stage_events --mapping log.yml --project shop-1
    """
    from loaders.files import load_file

    done = load_file(
        path,
        entity,
        mapping_path=mapping,
        project_id=project,
        dry_run=dry_run,
        max_rejects=max_rejects,
    )
    console = _console()
    if dry_run:
        _show_plan(console, done)
    _show_counts(console, done, dry_run=dry_run)
    _show_rejects(console, done)
    if done.rejected and not (done.new or done.changed or done.unchanged):
        raise StagelineError(
            f"No row of {path} fits {entity}. The same command with --dry-run shows what is read."
        )
    if not dry_run and projects.find("file", project) is None:
        console.print(_unset(project), highlight=False, soft_wrap=True)
    console.print(_next(done, dry_run=dry_run), highlight=False, soft_wrap=True)


@load.command(short_help="Show the rows that did not fit.")
@click.option("--project", help="Only of this project.")
@click.option("--as", "entity", metavar="ENTITY", help="Only of this entity.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv"]),
    default="table",
    show_default=True,
    help="csv goes well into a spreadsheet or a script.",
)
def rejects(project: str | None, entity: str | None, form: str) -> None:
    """Show the rows of loaded files that did not fit and are still open.

    \b
    Example:
        stageline load rejects --as opportunities
        stageline load rejects --format csv > rejects.csv
    """
    from loaders.files import rejects as find

    found = find(project, entity)
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(
            ["project_id", "entity", "file", "line", "field", "reason", "row", "rejected_at"]
        )
        writer.writerows(row.values() for row in found)
        return
    console = _console()
    count, heading = 0, None
    for row in found:
        about = f"{row['source_file']} as {row['entity']}, project {row['project_id']}"
        if about != heading:
            console.print(Text(about, style="bold"))
            heading = about
        field = f"{row['field']}: " if row["field"] else ""
        console.print(Text(f"  line {row['source_line']}: {field}{row['reason']}"), soft_wrap=True)
        console.print(Text(f"    {_short(row['row'])}", style="dim"), soft_wrap=True)
        count += 1
    console.print("No rejected rows." if not count else f"{count} rejected rows.", highlight=False)


@load.command()
@click.argument("name", required=False)
def entities(name: str | None) -> None:
    """List what can be loaded, or the fields of one entity.

    \b
    Example:
        stageline load entities
        stageline load entities tickets
    """
    from loaders.entities import ENTITIES, entity_named

    console = _console()
    table = Table(box=None, pad_edge=False)
    if name is None:
        table.add_column("entity")
        table.add_column("about")
        for entity in ENTITIES.values():
            table.add_row(entity.name, entity.about)
        console.print(table)
        return
    chosen = entity_named(name)
    for title in ("field", "type", "needed", "about"):
        table.add_column(title)
    for field in chosen.fields:
        about = field.about + (f" One of: {', '.join(field.choices)}." if field.choices else "")
        table.add_row(field.name, field.type, "yes" if field.required else "", about)
    console.print(table)
    console.print(f"Key: project, {', '.join(chosen.key)}.", highlight=False)


def _console() -> Console:
    # a pipe has no width: long lines stay whole there
    return Console() if sys.stdout.isatty() else Console(width=200)


def _show_plan(console: Console, done: "FileLoad") -> None:
    plan = Table(box=None, pad_edge=False)
    for title in ("field", "from", "read as"):
        plan.add_column(title)
    for rule in done.readings:
        origin = f"column {rule.column}" if rule.column is not None else f"always {rule.constant}"
        how = [rule.type]
        if rule.format:
            how.append(f"format {rule.format}")
        if rule.zone is not None and rule.type == "timestamp":
            how.append(f"in {rule.zone.key} where it says no offset")
        if rule.values:
            how.append(f"{len(rule.values)} value{'s' * (len(rule.values) != 1)} translated")
        if rule.scale is not None:
            how.append(f"times {rule.scale}")
        if rule.default is not None and rule.column is not None:
            how.append(f"{rule.default} where empty")
        plan.add_row(rule.name, Text(origin), Text(", ".join(how)))
    console.print(plan)
    fed = {rule.name for rule in done.readings}
    left = [field.name for field in done.entity.fields if field.name not in fed]
    console.print(Text(f"Columns not read: {', '.join(done.unread) or 'none'}"), soft_wrap=True)
    console.print(Text(f"Fields left empty: {', '.join(left) or 'none'}"), soft_wrap=True)
    if done.sample:
        console.print("\nThe first rows as they would land (times in UTC):")
        for row in done.sample:
            values = ", ".join(
                f"{name}={_plain(value)}"
                for name, value in row.items()
                if value is not None and name != "source_line"
            )
            console.print(Text(f"  line {row['source_line']}: {values}"), soft_wrap=True)
    console.print()


def _show_counts(console: Console, done: "FileLoad", *, dry_run: bool) -> None:
    name = f"{done.path.name} as {done.entity.name}, project {done.project_id}"
    console.print(Text(f"{name}: {done.read} rows read in {done.seconds:.1f} s", style="bold"))
    counts = (
        [("would land", done.new)]
        if dry_run
        else [("new", done.new), ("changed", done.changed), ("unchanged", done.unchanged)]
    )
    counts += [("duplicate", done.duplicate), ("rejected", done.rejected)]
    for what, count in counts:
        console.print(f"  {what:<10} {count:>10}", highlight=False)


def _show_rejects(console: Console, done: "FileLoad") -> None:
    if not done.rejected:
        return
    console.print(f"\nThe first rejected rows (of {done.rejected}):", highlight=False)
    for reject in done.first_rejects:
        console.print(Text(f"  line {reject.line}: {_said(reject)}"), soft_wrap=True)
        console.print(Text(f"    {_short(reject.row)}", style="dim"), soft_wrap=True)


def _unset(project: str) -> Text:
    said = (
        f"\nThe settings do not name project {project}: its days are those of UTC, and amounts that"
        " state no currency have none."
    )
    if projects.is_plain_id(project):
        add = f"stageline projects add file {project} --timezone Europe/Kyiv --currency EUR"
        said += f" To say otherwise: `{add}`."
    return Text(said)


def _next(done: "FileLoad", *, dry_run: bool) -> str:
    if dry_run:
        return "\nNothing was loaded. The same command without --dry-run loads it."
    following = "\nNext: `stageline build` brings the KPIs up to date."
    if not done.rejected:
        return following
    return (
        f"\nAll rejected rows: `stageline load rejects --as {done.entity.name}`."
        " Correct the file or the mapping and load it again;"
        f" rows that are there already stay as they are.{following}"
    )


def _said(reject: "Reject") -> str:
    return _short(f"{reject.field}: {reject.reason}" if reject.field else reject.reason, 400)


def _short(text: str, most: int = 160) -> str:
    # what a terminal would take for a command is written out
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
