"""``stageline settings stages`` and ``groups``: what a project's CRM calls them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from stageline.cli.build import require_migrations
from stageline.cli.settings_tables import (
    DRY_RUN,
    FILE,
    FORMAT,
    differing,
    show_or_say,
    shown,
    tell_difference,
)
from stageline.cli.tables import Column
from stageline.settings.dictionaries import GROUPS, KINDS, STAGES, Dictionary, Group, Stage
from stageline.settings.files import Form

_SOURCE = click.argument("source")
_PROJECT = click.argument("project")
_NAME = click.option("--name", help="What the CRM calls it; a new one needs it.")
_POSITION = click.option("--position", type=int, metavar="N", help="Its place in the list.")
_ACTIVE = click.option("--active/--inactive", default=None, help="Whether the CRM still has it.")


@click.group()
def stages() -> None:
    """Name the stages or statuses of a project.

    A file has the columns stage_id and name, and may have pipeline_id, alias, group_id, position,
    is_closing and is_active.

    \b
    Example:
        stageline settings stages import keycrm shop-1 statuses.csv --dry-run
        stageline settings stages list keycrm shop-1
    """


@stages.command("list")
@_SOURCE
@_PROJECT
def list_stages(source: str, project: str) -> None:
    """List the stages of a project; those that the CRM no longer has come last.

    \b
    Example:
        stageline settings stages list keycrm shop-1
    """
    _list(STAGES, source, project)


@stages.command("set")
@_SOURCE
@_PROJECT
@click.argument("stage")
@_NAME
@click.option("--pipeline", metavar="ID", help="Its pipeline.")
@click.option("--alias", help="Another name, for people.")
@click.option("--group", metavar="ID", help="Its group.")
@_POSITION
@click.option("--closing/--not-closing", default=None, help="Whether the CRM closes orders by it.")
@_ACTIVE
def set_stage(
    source: str,
    project: str,
    stage: str,
    name: str | None,
    pipeline: str | None,
    alias: str | None,
    group: str | None,
    position: int | None,
    closing: bool | None,
    active: bool | None,
) -> None:
    """Add a stage, or change what is given of it.

    \b
    Example:
        stageline settings stages set keycrm shop-1 20 --name "In production" --group 3
    """
    _set(
        STAGES,
        source,
        project,
        stage,
        name=name,
        pipeline_id=pipeline,
        alias=alias,
        group_id=group,
        position=position,
        is_closing=closing,
        is_active=active,
    )


@stages.command("import")
@_SOURCE
@_PROJECT
@FILE
@DRY_RUN
def import_stages(source: str, project: str, path: Path, dry_run: bool) -> None:
    """Take over a newer list from CSV or YAML; what it lacks keeps its name, as inactive.

    Columns that it leaves out stay as they are.

    \b
    Example:
        stageline settings stages import keycrm shop-1 statuses.csv --dry-run
    """
    _import(STAGES, source, project, path, dry_run)


@stages.command("export")
@_SOURCE
@_PROJECT
@FORMAT
def export_stages(source: str, project: str, form: Form) -> None:
    """Write the stages as a file that `import` takes.

    \b
    Example:
        stageline settings stages export keycrm shop-1 > statuses.csv
    """
    require_migrations()
    click.echo(STAGES.export(source, project, form), nl=False)


@click.group(short_help="Name the groups of stages, and say which of them end an order.")
def groups() -> None:
    """Name the groups of stages of a project, and say which of them end an order.

    No clock runs in a group that is done or cancelled. A file has the columns group_id and name,
    and may have kind (open, done or cancelled), position and is_active.

    \b
    Example:
        stageline settings groups set keycrm shop-1 6 --name Cancelled --kind cancelled
        stageline settings groups list keycrm shop-1
    """


@groups.command("list")
@_SOURCE
@_PROJECT
def list_groups(source: str, project: str) -> None:
    """List the groups of a project; those that the CRM no longer has come last.

    \b
    Example:
        stageline settings groups list keycrm shop-1
    """
    _list(GROUPS, source, project)


@groups.command("set")
@_SOURCE
@_PROJECT
@click.argument("group")
@_NAME
@click.option("--kind", type=click.Choice(KINDS), help="Whether an order ends in it, and how.")
@_POSITION
@_ACTIVE
def set_group(
    source: str,
    project: str,
    group: str,
    name: str | None,
    kind: str | None,
    position: int | None,
    active: bool | None,
) -> None:
    """Add a group, or change what is given of it.

    \b
    Example:
        stageline settings groups set keycrm shop-1 6 --name Cancelled --kind cancelled
    """
    _set(
        GROUPS,
        source,
        project,
        group,
        name=name,
        kind=kind,
        position=position,
        is_active=active,
    )


@groups.command("import")
@_SOURCE
@_PROJECT
@FILE
@DRY_RUN
def import_groups(source: str, project: str, path: Path, dry_run: bool) -> None:
    """Take over a newer list from CSV or YAML; what it lacks keeps its name, as inactive.

    Columns that it leaves out stay as they are.

    \b
    Example:
        stageline settings groups import keycrm shop-1 groups.csv --dry-run
    """
    _import(GROUPS, source, project, path, dry_run)


@groups.command("export")
@_SOURCE
@_PROJECT
@FORMAT
def export_groups(source: str, project: str, form: Form) -> None:
    """Write the groups as a file that `import` takes.

    \b
    Example:
        stageline settings groups export keycrm shop-1 > groups.csv
    """
    require_migrations()
    click.echo(GROUPS.export(source, project, form), nl=False)


def _list(dictionary: Dictionary[Any], source: str, project: str) -> None:
    require_migrations()
    show_or_say(
        [Column(name) for name in dictionary.fields],
        [
            ["" if value is None else shown(value) for value in asdict(entry).values()]
            for entry in dictionary.entries(source, project)
        ],
        f"Nothing is listed for {source} {project} yet: `set` and `import` do it.",
    )


def _set(
    dictionary: Dictionary[Any], source: str, project: str, key: str, **given: str | int | None
) -> None:
    require_migrations()
    values = {name: value for name, value in given.items() if value is not None}
    click.echo(f"Now: {_described(dictionary.put(source, project, key, values))}.")


def _import(
    dictionary: Dictionary[Any], source: str, project: str, path: Path, dry_run: bool
) -> None:
    require_migrations()
    done = dictionary.import_file(source, project, path, dry_run=dry_run)
    tell_difference(
        added=[_described(entry) for entry in done.added],
        changed=[
            f"{_described(before)}: {differing(asdict(before), asdict(after), dictionary.fields)}"
            for before, after in done.changed
        ],
        gone=[_described(entry) for entry in done.vanished],
        unchanged=done.unchanged,
        went="inactive",
        dry_run=dry_run,
    )


def _described(entry: Stage | Group) -> str:
    return f"{entry.key} ({entry.name})"
