"""``stageline settings canonical``, ``versions``, ``map`` and ``unmapped``: what stages mean."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.settings_tables import (
    DRY_RUN,
    FILE,
    FORMAT,
    counted,
    differing,
    show_or_say,
    tell_difference,
    written,
)
from stageline.cli.tables import Column, show
from stageline.errors import StagelineError
from stageline.settings import canonical, report_versions, stage_maps
from stageline.settings.files import Form
from stageline.settings.rule_tables import FIRST_INSTANT
from stageline.settings.stage_maps import Meaning, Project

_PROJECT = click.option(
    "--project",
    nargs=2,
    metavar="SOURCE PROJECT",
    help="Only rows of this project, as in: --project keycrm shop-1.",
)
_OF_PROJECT = click.option(
    "--project", nargs=2, metavar="SOURCE PROJECT", required=True, help="Whose stage it is."
)
_VERSION = click.option(
    "--version", "report_version", type=int, metavar="N", required=True, help="Of which version."
)
_PIPELINE = click.option("--pipeline", metavar="ID", help="In this pipeline; in every one else.")
_NOTE = click.option("--note", help="Why, for people.")


@click.command("canonical")
def list_canonical() -> None:
    """List the sub-stages that stages are mapped to.

    Those marked as entry and exit begin and end their major stage: a version can be published once
    some stage is mapped to each of them.

    \b
    Example:
        stageline settings canonical
    """
    ends = {major.entry_sub_key: "entry" for major in canonical.majors()}
    ends |= {major.exit_sub_key: "exit" for major in canonical.majors()}
    show(
        [Column(title) for title in ("sub-stage", "major stage", "of which", "name")],
        [
            (stage.sub_key, stage.major_key, ends.get(stage.sub_key, ""), stage.display_name)
            for stage in canonical.sub_stages()
        ],
    )


@click.group("versions")
def versions() -> None:
    """Make, publish and retire versions of the stage map.

    A draft is edited, and published once it is whole; all published versions are computed side by
    side. What a published version says about the past stays: it can only be changed from a date on.

    \b
    Example:
        stageline settings versions create "After the redesign"
        stageline settings versions clone 1 "With the new pipeline"
        stageline settings versions publish 2
        stageline settings versions retire 1
    """


@versions.command("list")
def list_versions() -> None:
    """List the versions.

    \b
    Example:
        stageline settings versions list
    """
    require_migrations()
    show_or_say(
        [
            Column("version", is_number=True),
            Column("title"),
            Column("state"),
            Column("rows", is_number=True),
            Column("clone of"),
            Column("published"),
            Column("retired"),
        ],
        [
            (
                str(row.report_version),
                row.title,
                row.state,
                str(row.map_rows),
                "" if row.cloned_from is None else str(row.cloned_from),
                written(row.published_at),
                written(row.retired_at),
            )
            for row in report_versions.versions()
        ],
        "There is no version yet. `stageline settings versions create` makes one.",
    )


@versions.command()
@click.argument("title", default="")
def create(title: str) -> None:
    """Make an empty draft.

    \b
    Example:
        stageline settings versions create "First map"
    """
    require_migrations()
    click.echo(f"Version {report_versions.create(title)} is a draft.")


@versions.command()
@click.argument("version", type=int)
@click.argument("title", default="")
def clone(version: int, title: str) -> None:
    """Make a draft that says what another version says.

    \b
    Example:
        stageline settings versions clone 1 "With the new pipeline"
    """
    require_migrations()
    made = report_versions.clone(version, title)
    click.echo(f"Version {made} is a draft, with the map of version {version}.")


@versions.command()
@click.argument("version", type=int)
def publish(version: int) -> None:
    """Have a draft computed from the next build on.

    \b
    Example:
        stageline settings versions publish 1
    """
    require_migrations()
    report_versions.publish(version)
    click.echo(f"Version {version} is published. Next: `stageline build`.")


@versions.command()
@click.argument("version", type=int)
def retire(version: int) -> None:
    """Take a published version out of the reports; it stays as it is.

    \b
    Example:
        stageline settings versions retire 1
    """
    require_migrations()
    report_versions.retire(version)
    click.echo(f"Version {version} is retired. The next build leaves it out.")


@click.group("map")
def stage_map() -> None:
    """Say which sub-stage a stage means.

    Where several rows fit an event, the one that names more wins: pipeline and stage, then stage,
    then pipeline.

    \b
    Example:
        stageline settings map import 1 map.csv
        stageline settings map list --version 1 --on 2027-03-01
        stageline settings map change 12 QUOTE.SENT --from 2027-03-01
    """


@stage_map.command("list")
@click.option("--version", "report_version", type=int, metavar="N", help="Only of this version.")
@_PROJECT
@click.option("--on", "on", metavar="INSTANT", callback=instant, help="Only what is in force then.")
@click.option("--text", help="Only rows that hold this text.")
def list_map(
    report_version: int | None, project: Project | None, on: datetime | None, text: str | None
) -> None:
    """List rows of the map.

    \b
    Example:
        stageline settings map list --version 1
        stageline settings map list --version 1 --on 2027-03-01 --text quote
    """
    require_migrations()
    show_or_say(
        [
            Column("row", is_number=True),
            Column("version", is_number=True),
            *(
                Column(title)
                for title in (
                    "source",
                    "project",
                    "pipeline",
                    "stage",
                    "sub-stage",
                    "from",
                    "until",
                    "note",
                )
            ),
        ],
        [
            (
                str(row.map_id),
                str(row.report_version),
                row.source_system,
                row.project_id,
                row.pipeline_id or "every",
                row.stage_id or "every",
                row.sub_key,
                "" if row.effective_from == FIRST_INSTANT else written(row.effective_from),
                written(row.effective_to),
                row.change_note or "",
            )
            for row in stage_maps.rows(report_version, project=project, active_on=on, text=text)
        ],
        "No row fits. `stageline settings map add` and `import` make some.",
    )


@stage_map.command("add")
@click.argument("sub_key")
@_VERSION
@_OF_PROJECT
@click.option("--stage", metavar="ID", help="The stage; every one else.")
@_PIPELINE
@click.option("--from", "since", metavar="INSTANT", callback=instant, help="From when on.")
@click.option("--until", metavar="INSTANT", callback=instant, help="Until when; for good else.")
@_NOTE
def add_row(
    sub_key: str,
    report_version: int,
    project: Project,
    stage: str | None,
    pipeline: str | None,
    since: datetime | None,
    until: datetime | None,
    note: str | None,
) -> None:
    """Add a row to a draft: a stage means SUB_KEY.

    \b
    Example:
        stageline settings map add QUOTE.SENT --version 1 --project keycrm shop-1 --stage 20
    """
    require_migrations()
    added = stage_maps.add(
        report_version,
        Meaning(
            source_system=project[0],
            project_id=project[1],
            pipeline_id=pipeline,
            stage_id=stage,
            sub_key=sub_key,
            effective_from=since or FIRST_INSTANT,
            effective_to=until,
            change_note=note,
        ),
    )
    click.echo(f"Added: {added}.")


@stage_map.command("edit")
@click.argument("row", type=int)
@click.option("--sub-key", metavar="KEY", help="What it means.")
@click.option("--from", "since", metavar="INSTANT", callback=instant, help="From when on.")
@click.option("--until", metavar="INSTANT", callback=instant, help="Until when.")
@_NOTE
def edit_row(
    row: int,
    sub_key: str | None,
    since: datetime | None,
    until: datetime | None,
    note: str | None,
) -> None:
    """Correct a row of a draft; what is not given stays as it is.

    \b
    Example:
        stageline settings map edit 12 --sub-key QUOTE.STARTED
    """
    require_migrations()
    edited = stage_maps.edit(
        row, sub_key=sub_key, effective_from=since, effective_to=until, change_note=note
    )
    click.echo(f"Now: {edited}.")


@stage_map.command("change")
@click.argument("row", type=int)
@click.argument("sub_key")
@click.option(
    "--from", "since", metavar="INSTANT", callback=instant, required=True, help="From when on."
)
@_NOTE
def change_row(row: int, sub_key: str, since: datetime, note: str | None) -> None:
    """Give a stage another meaning from a date on, also in a published version.

    ROW ends then and the next one begins; what was before keeps its meaning.

    \b
    Example:
        stageline settings map change 12 QUOTE.SENT --from 2027-03-01 --note "New process"
    """
    require_migrations()
    click.echo(f"Now: {stage_maps.change(row, sub_key, since, change_note=note)}.")


@stage_map.command("remove")
@click.argument("row", type=int)
def remove_row(row: int) -> None:
    """Remove a row from a draft.

    \b
    Example:
        stageline settings map remove 12
    """
    require_migrations()
    click.echo(f"Removed: {stage_maps.remove(row)}.")


@stage_map.command("quick")
@click.argument("sub_key")
@_VERSION
@_OF_PROJECT
@click.option("--stage", metavar="ID", required=True, help="The stage.")
@_PIPELINE
@click.option(
    "--from", "since", metavar="INSTANT", callback=instant, required=True, help="From when on."
)
@_NOTE
def quick_map(
    sub_key: str,
    report_version: int,
    project: Project,
    stage: str,
    pipeline: str | None,
    since: datetime,
    note: str | None,
) -> None:
    """Map one stage that is not mapped, from a date on, also in a published version.

    \b
    Example:
        stageline settings map quick MFG.STARTED --version 1 --project keycrm shop-1 \\
            --stage 31 --from 2027-03-01
    """
    require_migrations()
    added = stage_maps.quick(
        report_version,
        Meaning(
            source_system=project[0],
            project_id=project[1],
            pipeline_id=pipeline,
            stage_id=stage,
            sub_key=sub_key,
            effective_from=since,
            change_note=note,
        ),
    )
    click.echo(f"Added: {added}.")


@stage_map.command("import")
@click.argument("version", type=int)
@FILE
@_PROJECT
@DRY_RUN
def import_map(version: int, path: Path, project: Project | None, dry_run: bool) -> None:
    """Make a draft equal to a CSV or YAML file, and show what changes.

    \b
    Example:
        stageline settings map import 1 map.csv --dry-run
        stageline settings map import 1 map.csv
        stageline settings map import 1 shop-1.yml --project keycrm shop-1
    """
    require_migrations()
    done = stage_maps.import_file(version, path, project=project, dry_run=dry_run)
    tell_difference(
        added=[str(row) for row in done.added],
        changed=[
            f"{before}: {differing(asdict(before), asdict(after), stage_maps.FIELDS)}"
            for before, after in done.changed
        ],
        gone=[str(row) for row in done.removed],
        unchanged=done.unchanged,
        dry_run=dry_run,
    )


@stage_map.command("export")
@click.argument("version", type=int)
@_PROJECT
@FORMAT
def export_map(version: int, project: Project | None, form: Form) -> None:
    """Write a version as a file that `import` takes.

    \b
    Example:
        stageline settings map export 1 > map.csv
        stageline settings map export 1 --format yaml > map.yml
    """
    require_migrations()
    click.echo(stage_maps.export(version, form, project=project), nl=False)


@click.command(short_help="Show the stages that are not mapped; exits with 1 if there are any.")
@click.option("--version", "report_version", type=int, metavar="N", help="Only of this version.")
def unmapped(report_version: int | None) -> None:
    """Show the stages that no row of a published version maps; exits with 1 if there are any.

    It shows what the last build found.

    \b
    Example:
        stageline settings unmapped
        stageline settings unmapped --version 2
    """
    require_migrations()
    found = stage_maps.unmapped(report_version)
    if not found:
        click.echo("Every stage that occurs is mapped.")
        return
    show(
        [
            Column("version", is_number=True),
            *(Column(title) for title in ("source", "project", "pipeline", "stage")),
            Column("events", is_number=True),
            *(Column(title) for title in ("first seen", "last seen", "for example")),
        ],
        [
            (
                str(row.report_version),
                row.source_system,
                row.project_id,
                row.pipeline_id or "",
                row.stage_id,
                str(row.event_count),
                written(row.first_seen_at),
                written(row.last_seen_at),
                row.sample_entities,
            )
            for row in found
        ],
    )
    raise StagelineError(
        f"{counted(len(found), 'stage is', 'stages are')} unmapped. Map each with"
        " `stageline settings map quick`, then run `stageline build`."
    )
