"""What the commands for the rules of a project share: its name, when a rule counts, lists, ends."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypeVar

import click

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.errors import StagelineError
from stageline.settings.cycle_rules import step_columns
from stageline.settings.dictionaries import meant_group
from stageline.settings.rule_tables import (
    FIRST_DAY,
    FIRST_INSTANT,
    DatedSetting,
    DatedTable,
    ProjectKey,
    Session,
    changing_project,
    listed,
    listed_at,
    written_moment,
)
from stageline.settings.working_hours import read_day

Command = TypeVar("Command", bound=Callable[..., Any])
Dated = TypeVar("Dated", bound=DatedSetting)


def day(_ctx: click.Context, _param: click.Parameter, text: str | None) -> date | None:
    """The value of an option that takes a day (its ``callback``); None if not given."""
    return None if text is None else read_day(text)


def of_project(command: Command) -> Command:
    """The arguments SOURCE and PROJECT, given on as one `ProjectKey`."""

    def given(ctx: click.Context, _param: click.Parameter, text: str) -> str:
        ctx.meta["stageline.source"] = text
        return text

    def project(ctx: click.Context, _param: click.Parameter, text: str) -> ProjectKey:
        return ProjectKey(ctx.meta["stageline.source"], text)

    named = click.argument("project", callback=project)(command)
    return click.argument("source", callback=given, expose_value=False, is_eager=True)(named)


FROM = click.option(
    "--from",
    "starts",
    metavar="INSTANT",
    callback=instant,
    help="From when it counts. Not given: always, if it is the first of its kind, else from now.",
)
FROM_DAY = click.option(
    "--from",
    "starts",
    metavar="DAY",
    callback=day,
    help="First day of it. Not given: always, if it is the first of its kind, else from today.",
)
AT = click.option("--at", metavar="INSTANT", callback=instant, help="When it ends; now by default.")
AT_DAY = click.option("--at", metavar="DAY", callback=day, help="First day without; else today.")
NOTE = click.option("--note", help="Why, for people.")


def in_force(command: Command) -> Command:
    """The options of a list of rules that count for a time."""
    at = click.option(
        "--at", metavar="INSTANT", callback=instant, help="Those in force then; now by default."
    )
    every = click.option("--all", "is_all", is_flag=True, help="Also those of other times.")
    return at(every(command))


def rules_in_force(
    table: DatedTable[Dated], project: ProjectKey, at: datetime | None, is_all: bool
) -> list[Dated]:
    """The rules of a project that are in force at an instant (now where None), or all.

    Raises:
        StagelineError: there is no such project, or both are asked for.
    """
    if is_all and at is not None:
        raise StagelineError("--all lists the rules of all times: leave --at out.")
    require_migrations()
    return listed(table, project) if is_all else listed_at(table, project, at)


def show_rules(
    table: DatedTable[Dated],
    project: ProjectKey,
    at: datetime | None,
    is_all: bool,
    columns: Mapping[str, Callable[[Dated], str]],
) -> None:
    """Lists the rules of a project that are in force at an instant, or all."""
    rows = rules_in_force(table, project, at, is_all)
    show_or_say(
        [Column(title) for title in (*columns, "from", "to")],
        [(*(cell(row) for cell in columns.values()), *times(row)) for row in rows],
        f"{project} has no {table.called}{'' if is_all else ' in force then'}.",
    )


def add_list(
    group: click.Group,
    table: DatedTable[Dated],
    columns: Mapping[str, Callable[[Dated], str]],
    help_text: str,
) -> None:
    """Gives a group the command ``list``: the rules in force at an instant, or all."""

    @group.command("list", help=help_text)
    @of_project
    @in_force
    def list_rules(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
        show_rules(table, project, at, is_all, columns)


def add_end(
    group: click.Group,
    table: DatedTable[Dated],
    parameters: Sequence[Callable[[Command], Command]],
    what: str,
    help_text: str,
) -> None:
    """Gives a group the command ``end``, which ends the rule in force at an instant.

    Args:
        parameters: Arguments and options named as the columns that tell the table's rows apart. A
            group of stages may be given by its name.
        what: What ends, in words; it may name these columns.
    """

    def end_rule(project: ProjectKey, at: date | None, **key: Any) -> None:
        require_migrations()
        with changing_project(project) as session:
            if "group_id" in key:
                key["group_id"] = group_of(session, project, key["group_id"])
            ended = table.end(session, project, key, at)
        assert ended.effective_to is not None  # noqa: S101 - that is what it is to be ended
        click.echo(
            f"{what.format(**key)} of {project} ends at {written_moment(ended.effective_to)}."
        )

    command: Callable[..., None] = (AT if isinstance(table.first, datetime) else AT_DAY)(end_rule)
    for parameter in reversed(parameters):
        command = parameter(command)
    group.command("end", help=help_text)(of_project(command))


def times(row: DatedSetting) -> tuple[str, str]:
    """From and until when a row counts, as tables show it."""
    is_first = row.effective_from in (FIRST_INSTANT, FIRST_DAY)
    return (
        "" if is_first else written_moment(row.effective_from),
        "" if row.effective_to is None else written_moment(row.effective_to),
    )


def when(row: DatedSetting) -> str:
    """From and until when a row counts, as the end of a sentence."""
    begins, ends = times(row)
    return (f" from {begins} on" if begins else " from the beginning on") + (
        f", until {ends}" if ends else ""
    )


def group_of(session: Session, project: ProjectKey, text: str) -> str:
    """The id of the group that is meant; says so where it is doubtful."""
    group, doubt = meant_group(session, project, text)
    if doubt is not None:
        click.echo(f"note: {doubt}", err=True)
    return group


def step_of(session: Session, project: ProjectKey, column: str, text: str) -> dict[str, str]:
    """The column of a step, whose group may be given by its name."""
    columns = step_columns(column, text)
    group = columns.get(f"{column}_group_id")
    return columns if group is None else {f"{column}_group_id": group_of(session, project, group)}
