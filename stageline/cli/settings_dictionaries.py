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


def _share(group: click.Group, dictionary: Dictionary[Any], file: str) -> None:
    """Gives a group the commands that both dictionaries have.

    Args:
        file: What a file of it is called in examples.
    """
    what = group.name
    example = "\n\n\b\nExample:\n    stageline settings"

    @group.command(
        "list",
        help=f"List the {what} of a project; those that the CRM no longer has come last."
        f"{example} {what} list keycrm shop-1",
    )
    @_SOURCE
    @_PROJECT
    def list_entries(source: str, project: str) -> None:
        require_migrations()
        show_or_say(
            [Column(name) for name in dictionary.fields],
            [
                ["" if value is None else shown(value) for value in asdict(entry).values()]
                for entry in dictionary.entries(source, project)
            ],
            f"Nothing is listed for {source} {project} yet: `set` and `import` do it.",
        )

    @group.command(
        "import",
        help="Take over a newer list from CSV or YAML; what it lacks keeps its name, as inactive."
        "\n\nColumns that it leaves out stay as they are."
        f"{example} {what} import keycrm shop-1 {file} --dry-run",
    )
    @_SOURCE
    @_PROJECT
    @FILE
    @DRY_RUN
    def import_entries(source: str, project: str, path: Path, dry_run: bool) -> None:
        require_migrations()
        done = dictionary.import_file(source, project, path, dry_run=dry_run)
        tell_difference(
            added=[_described(entry) for entry in done.added],
            changed=[
                f"{_described(old)}: {differing(asdict(old), asdict(new), dictionary.fields)}"
                for old, new in done.changed
            ],
            gone=[_described(entry) for entry in done.vanished],
            unchanged=done.unchanged,
            went="inactive",
            dry_run=dry_run,
        )

    @group.command(
        "export",
        help=f"Write the {what} as a file that `import` takes."
        f"{example} {what} export keycrm shop-1 > {file}",
    )
    @_SOURCE
    @_PROJECT
    @FORMAT
    def export_entries(source: str, project: str, form: Form) -> None:
        require_migrations()
        click.echo(dictionary.export(source, project, form), nl=False)


def _set(
    dictionary: Dictionary[Any], source: str, project: str, key: str, **given: str | int | None
) -> None:
    require_migrations()
    values = {name: value for name, value in given.items() if value is not None}
    click.echo(f"Now: {_described(dictionary.put(source, project, key, values))}.")


def _described(entry: Stage | Group) -> str:
    return f"{entry.key} ({entry.name})"


_share(stages, STAGES, "statuses.csv")
_share(groups, GROUPS, "groups.csv")
