"""``stageline settings``: how time is judged - limits, hours, cycles, urgency, metrics."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.errors import StagelineError
from stageline.settings import bundles, defaults
from stageline.settings.cycle_rules import CYCLES, CycleRule, step_columns, written_step
from stageline.settings.durations import read_duration, written_duration
from stageline.settings.flow_metrics import METRICS, FlowMetric, point_columns, written_point
from stageline.settings.order_overrides import OVERRIDES, OrderOverride
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
from stageline.settings.sla_rules import (
    LIMITS,
    THRESHOLDS,
    WAITING,
    NearThreshold,
    SlaLimit,
    WaitingStage,
    read_share,
    written_share,
)
from stageline.settings.stage_groups import GROUPS, STAGES, is_final, meant_group
from stageline.settings.urgent_rules import MATCH_TYPES, URGENT_RULES, UrgentRule
from stageline.settings.working_hours import (
    CALENDARS,
    DAYS,
    DayException,
    WorkingHours,
    read_day,
    read_days,
    set_days,
)
from stageline.settings.working_weeks import DAYS as WEEKDAYS
from stageline.settings.working_weeks import doubts, read_week, read_weekday, written_week

Command = TypeVar("Command", bound=Callable[..., Any])
Dated = TypeVar("Dated", bound=DatedSetting)


def _day(_ctx: click.Context, _param: click.Parameter, text: str | None) -> date | None:
    return None if text is None else read_day(text)


def _of_project(command: Command) -> Command:
    """The arguments SOURCE and PROJECT, given on as one `ProjectKey`."""

    def given(ctx: click.Context, _param: click.Parameter, text: str) -> str:
        ctx.meta["stageline.source"] = text
        return text

    def project(ctx: click.Context, _param: click.Parameter, text: str) -> ProjectKey:
        return ProjectKey(ctx.meta["stageline.source"], text)

    named = click.argument("project", callback=project)(command)
    return click.argument("source", callback=given, expose_value=False, is_eager=True)(named)


_from = click.option(
    "--from",
    "starts",
    metavar="INSTANT",
    callback=instant,
    help="From when it counts. Not given: always, if it is the first of its kind, else from now.",
)
_from_day = click.option(
    "--from",
    "starts",
    metavar="DAY",
    callback=_day,
    help="First day of it. Not given: always, if they are the first, else from today.",
)
_at = click.option(
    "--at", metavar="INSTANT", callback=instant, help="When it ends; now by default."
)
_note = click.option("--note", help="Why, for people.")


def _in_force(command: Command) -> Command:
    """The options of a list of rules that count for a time."""
    at = click.option(
        "--at", metavar="INSTANT", callback=instant, help="Those in force then; now by default."
    )
    every = click.option("--all", "is_all", is_flag=True, help="Also those of other times.")
    return at(every(command))


def _show_rules(
    table: DatedTable[Dated],
    project: ProjectKey,
    at: datetime | None,
    is_all: bool,
    columns: Sequence[str],
    cells: Callable[[Dated], tuple[str, ...]],
) -> None:
    """Lists the rules of a project that are in force at an instant, or all."""
    if is_all and at is not None:
        raise StagelineError("--all lists the rules of all times: leave --at out.")
    require_migrations()
    rows = listed(table, project) if is_all else listed_at(table, project, at)
    show_or_say(
        [Column(title) for title in (*columns, "from", "to")],
        [(*cells(row), *_times(row)) for row in rows],
        f"{project} has no {table.called}{'' if is_all else ' in force then'}.",
    )


def _times(row: DatedSetting) -> tuple[str, str]:
    is_first = row.effective_from in (FIRST_INSTANT, FIRST_DAY)
    return (
        "" if is_first else written_moment(row.effective_from),
        "" if row.effective_to is None else written_moment(row.effective_to),
    )


def _when(row: DatedSetting) -> str:
    begins, ends = _times(row)
    return (f" from {begins} on" if begins else " from the beginning on") + (
        f", until {ends}" if ends else ""
    )


def _end(
    table: DatedTable[Dated],
    project: ProjectKey,
    key: Mapping[str, Any],
    what: str,
    at: datetime | None,
) -> None:
    require_migrations()
    with changing_project(project) as session:
        ended = table.end(session, project, key, at)
    assert ended.effective_to is not None  # noqa: S101 - that is what it is to be ended
    click.echo(f"{what} of {project} ends at {written_moment(ended.effective_to)}.")


def _group_of(session: Session, project: ProjectKey, text: str) -> str:
    """The id of the group that is meant; says so where it is doubtful."""
    group, doubt = meant_group(session, project, text)
    if doubt is not None:
        click.echo(f"note: {doubt}", err=True)
    return group


def _step(session: Session, project: ProjectKey, column: str, text: str) -> dict[str, str]:
    """The column of a step, whose group may be given by its name."""
    columns = step_columns(column, text)
    group = columns.get(f"{column}_group_id")
    return columns if group is None else {f"{column}_group_id": _group_of(session, project, group)}


# SLA


@click.group()
def sla() -> None:
    """Say how long an order may stay in a group of stages.

    A visit is judged by the limit that was in force when it began.

    \b
    Example:
        stageline settings sla set keycrm shop-1 production 24:00
        stageline settings sla list keycrm shop-1
    """


@sla.command("set")
@_of_project
@click.argument("group")
@click.argument("limit")
@click.option("--urgent", is_flag=True, help="In the grid of urgent orders.")
@_from
@_note
def set_limit(
    project: ProjectKey,
    group: str,
    limit: str,
    urgent: bool,
    starts: datetime | None,
    note: str | None,
) -> None:
    """Set the LIMIT of a GROUP (its id or name) in working time, as 24:00, 24h or 90m.

    \b
    Example:
        stageline settings sla set keycrm shop-1 production 24:00
        stageline settings sla set keycrm shop-1 production 16:00 --urgent
        stageline settings sla set keycrm shop-1 production 20:00 --from 2027-03-01
    """
    seconds = read_duration(limit, "The limit")
    require_migrations()
    with changing_project(project) as session:
        group_id = _group_of(session, project, group)
        if is_final(session, project, group_id):
            click.echo(f"note: orders are finished in {group}: no clock runs there.", err=True)
        row = SlaLimit(group_id=group_id, is_urgent=urgent, limit_seconds=seconds, note=note)
        now = LIMITS.set_from(session, project, row, starts)
    grid = "urgent orders" if urgent else "orders"
    click.echo(
        f"Limit of {grid} in group {now.group_id} of {project}:"
        f" {written_duration(now.limit_seconds)}{_when(now)}."
    )


@sla.command("end")
@_of_project
@click.argument("group")
@click.option("--urgent", is_flag=True, help="In the grid of urgent orders.")
@_at
def end_limit(project: ProjectKey, group: str, urgent: bool, at: datetime | None) -> None:
    """End the limit of a GROUP, so that its visits are not judged.

    \b
    Example:
        stageline settings sla end keycrm shop-1 production --urgent --at 2027-03-01
    """
    require_migrations()
    with changing_project(project) as session:
        group = _group_of(session, project, group)
    _end(LIMITS, project, {"group_id": group, "is_urgent": urgent}, f"Limit of group {group}", at)


@sla.command("list")
@_of_project
@_in_force
def list_limits(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the limits.

    \b
    Example:
        stageline settings sla list keycrm shop-1
        stageline settings sla list keycrm shop-1 --all
    """
    require_migrations()
    names = {group.group_id: group.name for group in listed(GROUPS, project)}
    _show_rules(
        LIMITS,
        project,
        at,
        is_all,
        ("group", "name", "grid", "limit", "note"),
        lambda row: (
            row.group_id,
            names.get(row.group_id, ""),
            "urgent" if row.is_urgent else "normal",
            written_duration(row.limit_seconds),
            row.note or "",
        ),
    )


@sla.command()
@_of_project
@click.argument("percent", required=False)
@_from
def near(project: ProjectKey, percent: str | None, starts: datetime | None) -> None:
    """Set from which share of a limit on a visit is near it; show it, if PERCENT is left out.

    \b
    Example:
        stageline settings sla near keycrm shop-1
        stageline settings sla near keycrm shop-1 75 --from 2027-03-01
    """
    require_migrations()
    if percent is None:
        rows = listed(THRESHOLDS, project)
        show_or_say(
            [Column("near from %", is_number=True), Column("from"), Column("to")],
            [(written_share(row.near_pct), *_times(row)) for row in rows],
            f"{project} has no near threshold of its own: it is 80 %.",
        )
        return
    row = NearThreshold(near_pct=read_share(percent))
    with changing_project(project) as session:
        now = THRESHOLDS.set_from(session, project, row, starts)
    click.echo(
        f"Visits of {project} are near from {written_share(now.near_pct)} % of a limit{_when(now)}."
    )


# Waiting


@click.group()
def waiting() -> None:
    """Say in which statuses the clock of the SLA pauses.

    \b
    Example:
        stageline settings waiting add keycrm shop-1 15 --for payment
    """


@waiting.command("add")
@_of_project
@click.argument("stage")
@click.option("--for", "waits_for", default="", help="What is waited for.")
@_from
def add_waiting(project: ProjectKey, stage: str, waits_for: str, starts: datetime | None) -> None:
    """Have the clock pause in a STAGE (the id of a status).

    \b
    Example:
        stageline settings waiting add keycrm shop-1 15 --for payment
    """
    require_migrations()
    with changing_project(project) as session:
        stages = STAGES.rows(session, project)
        if stages and stage not in {row.stage_id for row in stages}:
            click.echo(f"note: {project} has no stage {stage} yet.", err=True)
        now = WAITING.set_from(
            session, project, WaitingStage(stage_id=stage, waits_for=waits_for), starts
        )
    click.echo(f"The clock pauses in stage {stage} of {project}{_when(now)}.")


@waiting.command("end")
@_of_project
@click.argument("stage")
@_at
def end_waiting(project: ProjectKey, stage: str, at: datetime | None) -> None:
    """Have the clock run in a STAGE again.

    \b
    Example:
        stageline settings waiting end keycrm shop-1 15
    """
    _end(WAITING, project, {"stage_id": stage}, f"Waiting in stage {stage}", at)


@waiting.command("list")
@_of_project
@_in_force
def list_waiting(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the statuses in which the clock pauses.

    \b
    Example:
        stageline settings waiting list keycrm shop-1
    """
    _show_rules(
        WAITING, project, at, is_all, ("stage", "for"), lambda row: (row.stage_id, row.waits_for)
    )


# Working hours


@click.group()
def hours() -> None:
    """Say when is worked, in a project or in a group of stages.

    Without any, every hour counts. A group without hours of its own has those of the project.

    \b
    Example:
        stageline settings hours set keycrm shop-1 mon-fri-9-18
        stageline settings hours set keycrm shop-1 24/7 --group production
    """


@hours.command("set")
@_of_project
@click.argument("week")
@click.option("--group", help="Only of this group of stages (its id or name).")
@_from_day
@_note
def set_hours(
    project: ProjectKey, week: str, group: str | None, starts: date | None, note: str | None
) -> None:
    """Set the working hours: windows by day, in the time zone of the project.

    WEEK is 24/7, mon-fri-9-18, closed, or windows (three a day at most). Days that are not named
    are off. Windows without days are those of every day; 22:00-06:00 runs over midnight.

    \b
    Example:
        stageline settings hours set keycrm shop-1 mon-fri-9-18
        stageline settings hours set keycrm shop-1 "mon-fri 09:00-13:00 14:00-18:00; sat 9:00-14:00"
        stageline settings hours set keycrm shop-1 22:00-06:00 --group 3 --from 2027-03-01
    """
    worked = read_week(week)
    require_migrations()
    for doubt in doubts(worked):
        click.echo(f"warning: {doubt}", err=True)
    with changing_project(project) as session:
        group = None if group is None else _group_of(session, project, group)
        row = WorkingHours(group_id=group, week=worked, note=note)
        now = CALENDARS.set_from(session, project, row, starts)
    whose = f"{project}, group {group}" if group else str(project)
    click.echo(f"Working hours of {whose}: {written_week(now.week)}{_when(now)}.")


@hours.command("end")
@_of_project
@click.option("--group", help="Of this group of stages (its id or name).")
@click.option("--at", metavar="DAY", callback=_day, help="First day without them; else today.")
def end_hours(project: ProjectKey, group: str | None, at: date | None) -> None:
    """End working hours: a group has those of the project from then on, a project every hour.

    \b
    Example:
        stageline settings hours end keycrm shop-1 --group production --at 2027-03-01
    """
    require_migrations()
    with changing_project(project) as session:
        group = None if group is None else _group_of(session, project, group)
        ended = CALENDARS.end(session, project, {"group_id": group}, at)
    assert ended.effective_to is not None  # noqa: S101 - that is what it is to be ended
    whose = f"{project}, group {group}" if group else str(project)
    click.echo(f"Working hours of {whose} end at {written_moment(ended.effective_to)}.")


@hours.command("list")
@_of_project
@_in_force
def list_hours(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the working hours.

    \b
    Example:
        stageline settings hours list keycrm shop-1 --all
    """
    _show_rules(
        CALENDARS,
        project,
        at,
        is_all,
        ("group", "hours", "note"),
        lambda row: (row.group_id or "all others", written_week(row.week), row.note or ""),
    )


# Holidays and extra working days


@click.group()
def days() -> None:
    """Say which days are off, or worked though their weekday is off.

    \b
    Example:
        stageline settings days off keycrm shop-1 2027-01-01 --name "New Year"
        stageline settings days on keycrm shop-1 2027-01-09 --as mon
    """


@days.command()
@_of_project
@click.argument("day")
@click.option("--name", default="", help="What the day is called.")
def off(project: ProjectKey, day: str, name: str) -> None:
    """Take a DAY off.

    \b
    Example:
        stageline settings days off keycrm shop-1 2027-01-01 --name "New Year"
    """
    _set_day(project, DayException(day=read_day(day), name=name))


@days.command()
@_of_project
@click.argument("day")
@click.option("--as", "weekday", required=True, metavar="WEEKDAY", help="Whose hours: mon ... sun.")
@click.option("--name", default="", help="What the day is called.")
def on(project: ProjectKey, day: str, weekday: str, name: str) -> None:
    """Work on a DAY as on another weekday.

    \b
    Example:
        stageline settings days on keycrm shop-1 2027-01-09 --as mon
    """
    row = DayException(day=read_day(day), as_weekday=read_weekday(weekday), name=name)
    _set_day(project, row)


def _set_day(project: ProjectKey, row: DayException) -> None:
    require_migrations()
    with changing_project(project) as session:
        set_days(session, project, [row])
    how = "off" if row.as_weekday is None else f"worked as {WEEKDAYS[row.as_weekday - 1]}"
    click.echo(f"{row.day} is {how} in {project}.")


@days.command("clear")
@_of_project
@click.argument("day")
def clear_day(project: ProjectKey, day: str) -> None:
    """Have a DAY be as its weekday is.

    \b
    Example:
        stageline settings days clear keycrm shop-1 2027-01-09
    """
    wanted = read_day(day)
    require_migrations()
    with changing_project(project) as session:
        rows = DAYS.rows(session, project, {"day": wanted})
        if not rows:
            raise StagelineError(f"{wanted} is as its weekday is in {project} already.")
        DAYS.delete(session, project, rows[0])
    click.echo(f"{wanted} is as its weekday is in {project}.")


@days.command("import")
@_of_project
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only read it, and say what would change.")
def import_days(project: ProjectKey, file: Path, dry_run: bool) -> None:
    """Set the days of a CSV with the columns day, name and as (a weekday; empty = off).

    Days that it does not name stay as they are.

    \b
    Example:
        stageline settings days import keycrm shop-1 holidays.csv --dry-run
    """
    rows = read_days(file)
    require_migrations()
    with changing_project(project) as session:
        changed = set_days(session, project, rows)
        if dry_run:
            session.rollback()
    would = " would change" if dry_run else " changed"
    click.echo(f"{len(rows)} days read, {changed} of them{would} in {project}.")


@days.command("list")
@_of_project
def list_days(project: ProjectKey) -> None:
    """List the days that are not as their weekday is.

    \b
    Example:
        stageline settings days list keycrm shop-1
    """
    require_migrations()
    show_or_say(
        [Column("day"), Column("worked as"), Column("name")],
        [
            (
                row.day.isoformat(),
                "off" if row.as_weekday is None else WEEKDAYS[row.as_weekday - 1],
                row.name,
            )
            for row in listed(DAYS, project)
        ],
        f"In {project} every day is as its weekday is.",
    )


# Cycles


@click.group()
def cycles() -> None:
    """Say which cycles are measured: from entering one group or status to entering another.

    \b
    Example:
        stageline settings cycles set keycrm shop-1 "full cycle" group:new group:done
    """


@cycles.command("set")
@_of_project
@click.argument("title")
@click.argument("start")
@click.argument("end")
@click.option(
    "--default/--no-default",
    "is_default",
    default=None,
    help="Whether orders show this one; as before, if not given.",
)
@_from
def set_cycle(
    project: ProjectKey,
    title: str,
    start: str,
    end: str,
    is_default: bool | None,
    starts: datetime | None,
) -> None:
    """Set the START and END of a cycle: group:ID (or its name), or stage:ID.

    \b
    Example:
        stageline settings cycles set keycrm shop-1 "to delivery" group:new group:delivery --default
        stageline settings cycles set keycrm shop-1 "full cycle" group:new stage:20
    """
    require_migrations()
    with changing_project(project) as session:
        if is_default is None:
            rows = CYCLES.rows(session, project, {"title": title})
            is_default = bool(rows) and rows[-1].is_default
        steps: dict[str, Any] = {
            **_step(session, project, "start", start),
            **_step(session, project, "end", end),
        }
        row = CycleRule(title=title, is_default=is_default, **steps)
        now = CYCLES.set_from(session, project, row, starts)
    kind = "Default cycle" if now.is_default else "Cycle"
    click.echo(
        f"{kind} {title!r} of {project}:"
        f" {written_step(now.start_group_id, now.start_stage_id)} to"
        f" {written_step(now.end_group_id, now.end_stage_id)}{_when(now)}."
    )


@cycles.command("end")
@_of_project
@click.argument("title")
@_at
def end_cycle(project: ProjectKey, title: str, at: datetime | None) -> None:
    """End a cycle.

    \b
    Example:
        stageline settings cycles end keycrm shop-1 "full cycle"
    """
    _end(CYCLES, project, {"title": title}, f"Cycle {title!r}", at)


@cycles.command("list")
@_of_project
@_in_force
def list_cycles(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the cycles.

    \b
    Example:
        stageline settings cycles list keycrm shop-1
    """
    _show_rules(
        CYCLES,
        project,
        at,
        is_all,
        ("title", "start", "end", "default"),
        lambda row: (
            row.title,
            written_step(row.start_group_id, row.start_stage_id) or "",
            written_step(row.end_group_id, row.end_stage_id) or "",
            "yes" if row.is_default else "",
        ),
    )


# Urgency


@click.group()
def urgent() -> None:
    """Say which items make an order urgent.

    \b
    Example:
        stageline settings urgent add keycrm shop-1 offer_id 16
    """


@urgent.command("add")
@_of_project
@click.argument("item", type=click.Choice(MATCH_TYPES))
@click.argument("value")
@click.option("--name", help="What people call the rule; the item, if not given.")
@_from
def add_urgent(
    project: ProjectKey, item: str, value: str, name: str | None, starts: datetime | None
) -> None:
    """Have orders be urgent that hold an item with this VALUE.

    \b
    Example:
        stageline settings urgent add keycrm shop-1 sku "Термінове виготовлення"
        stageline settings urgent add keycrm shop-1 offer_id 16 --name "Made at once"
    """
    require_migrations()
    row = UrgentRule(match_type=item, match_value=value, rule_name=name or f"{item} {value}")
    with changing_project(project) as session:
        now = URGENT_RULES.set_from(session, project, row, starts)
    click.echo(f"Orders of {project} with {item} {value} are urgent ({now.rule_name}){_when(now)}.")


@urgent.command("end")
@_of_project
@click.argument("item", type=click.Choice(MATCH_TYPES))
@click.argument("value")
@_at
def end_urgent(project: ProjectKey, item: str, value: str, at: datetime | None) -> None:
    """End an urgent rule.

    \b
    Example:
        stageline settings urgent end keycrm shop-1 offer_id 16
    """
    key = {"match_type": item, "match_value": value}
    _end(URGENT_RULES, project, key, f"Urgency by {item} {value}", at)


@urgent.command("list")
@_of_project
@_in_force
def list_urgent(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the urgent rules.

    \b
    Example:
        stageline settings urgent list keycrm shop-1
    """
    _show_rules(
        URGENT_RULES,
        project,
        at,
        is_all,
        ("item", "value", "name"),
        lambda row: (row.match_type, row.match_value, row.rule_name),
    )


# Orders judged by hand


@click.group()
def orders() -> None:
    """Judge single orders otherwise than the rules do; no webhook or rule changes that.

    \b
    Example:
        stageline settings orders set keycrm shop-1 4021 --urgent --note "promised by phone"
    """


@orders.command("set")
@_of_project
@click.argument("order")
@click.option("--urgent/--not-urgent", "is_urgent", default=None, help="Whatever its items.")
@click.option("--sla", "profile", metavar="GRID", help="Grid of limits: normal or urgent.")
@click.option("--start", metavar="STEP", help="Start of its cycle: group:ID or stage:ID.")
@click.option("--end", metavar="STEP", help="End of its cycle.")
@_from
@_note
def set_order(
    project: ProjectKey,
    order: str,
    is_urgent: bool | None,
    profile: str | None,
    start: str | None,
    end: str | None,
    starts: datetime | None,
    note: str | None,
) -> None:
    """Say how an ORDER is judged. What is not given is left to the rules.

    \b
    Example:
        stageline settings orders set keycrm shop-1 4021 --urgent --note "promised by phone"
        stageline settings orders set keycrm shop-1 4022 --sla normal --end stage:20
    """
    require_migrations()
    with changing_project(project) as session:
        steps: dict[str, Any] = {}
        for column, text in (("cycle_start", start), ("cycle_end", end)):
            if text is not None:
                steps |= _step(session, project, column, text)
        row = OrderOverride(
            order_id=order, is_urgent=is_urgent, sla_profile=profile, note=note, **steps
        )
        now = OVERRIDES.set_from(session, project, row, starts)
    click.echo(f"Order {order} of {project}: {', '.join(_said_of_order(now))}{_when(now)}.")


def _said_of_order(row: OrderOverride) -> list[str]:
    start = written_step(row.cycle_start_group_id, row.cycle_start_stage_id)
    end = written_step(row.cycle_end_group_id, row.cycle_end_stage_id)
    said = [
        {True: "urgent", False: "not urgent", None: None}[row.is_urgent],
        row.sla_profile and f"{row.sla_profile} limits",
        start and f"cycle from {start}",
        end and f"cycle to {end}",
    ]
    return [text for text in said if text]


@orders.command("end")
@_of_project
@click.argument("order")
@_at
def end_order(project: ProjectKey, order: str, at: datetime | None) -> None:
    """Leave an ORDER to the rules again.

    \b
    Example:
        stageline settings orders end keycrm shop-1 4021
    """
    _end(OVERRIDES, project, {"order_id": order}, f"What is said of order {order}", at)


@orders.command("list")
@_of_project
@_in_force
def list_orders(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the orders that are judged by hand.

    \b
    Example:
        stageline settings orders list keycrm shop-1
    """
    _show_rules(
        OVERRIDES,
        project,
        at,
        is_all,
        ("order", "judged", "note"),
        lambda row: (row.order_id, ", ".join(_said_of_order(row)), row.note or ""),
    )


# Metrics


@click.group()
def metrics() -> None:
    """Define metrics of your own: from entering one stage or sub-stage to entering another.

    \b
    Example:
        stageline settings metrics set pipedrive main "Won" --start stage:3 --end stage:7
    """


@metrics.command("set")
@_of_project
@click.argument("title")
@click.option("--start", metavar="END", help="stage:ID, pipeline:ID/stage:ID or sub:KEY.")
@click.option("--end", metavar="END", help="The same.")
@click.option("--green", metavar="H:MM", help="Green up to this.")
@click.option("--red", metavar="H:MM", help="Red beyond this.")
@click.option("--working/--clock", "is_working_time", default=None, help="Which time counts.")
@click.option("--comment", help="Kept with the number.")
@click.option("--position", type=int, help="Its place among the others.")
@click.option("--on/--off", "is_on", default=None, help="Whether it is computed.")
def set_metric(
    project: ProjectKey,
    title: str,
    start: str | None,
    end: str | None,
    green: str | None,
    red: str | None,
    **given: Any,
) -> None:
    """Make a metric, or change what is given of it.

    \b
    Example:
        stageline settings metrics set pipedrive main "Offer sent" --start stage:3 \\
            --end sub:QUOTE.SENT --green 8:00 --red 24:00 --working
        stageline settings metrics set pipedrive main "Offer sent" --off
    """
    said = {name: value for name, value in given.items() if value is not None}
    for column, text in (("start", start), ("end", end)):
        if text is not None:
            said |= point_columns(column, text)
    for column, text in (("green", green), ("red", red)):
        if text is not None:
            said[f"{column}_limit_seconds"] = read_duration(text, f"The {column} limit")
    require_migrations()
    with changing_project(project) as session:
        before = METRICS.rows(session, project, {"title": title})
        row = FlowMetric(**{**(vars(before[0]) if before else {}), "title": title, **said})
        now = (METRICS.update if before else METRICS.insert)(session, project, row)
    click.echo(f"Metric {title!r} of {project}: {_start(now)} to {_finish(now)}.")


def _start(row: FlowMetric) -> str:
    return written_point(row.start_pipeline_id, row.start_stage_id, row.start_sub_key)


def _finish(row: FlowMetric) -> str:
    return written_point(row.end_pipeline_id, row.end_stage_id, row.end_sub_key)


@metrics.command("remove")
@_of_project
@click.argument("title")
def remove_metric(project: ProjectKey, title: str) -> None:
    """Remove a metric; --off of `set` keeps it, without computing it.

    \b
    Example:
        stageline settings metrics remove pipedrive main "Offer sent"
    """
    require_migrations()
    with changing_project(project) as session:
        rows = METRICS.rows(session, project, {"title": title})
        if not rows:
            raise StagelineError(
                f"{project} has no metric {title!r}."
                f" `stageline settings metrics list {project}` lists them."
            )
        METRICS.delete(session, project, rows[0])
    click.echo(f"Metric {title!r} of {project} is removed.")


@metrics.command("list")
@_of_project
def list_metrics(project: ProjectKey) -> None:
    """List the metrics, in their order.

    \b
    Example:
        stageline settings metrics list pipedrive main
    """
    require_migrations()
    rows = sorted(
        listed(METRICS, project), key=lambda row: (row.position is None, row.position, row.title)
    )
    titles = ("title", "start", "end", "time", "green", "red", "on", "comment")
    show_or_say(
        [Column(title, is_number=title in ("green", "red")) for title in titles],
        [
            (
                row.title,
                _start(row),
                _finish(row),
                "working" if row.is_working_time else "clock",
                written_duration(row.green_limit_seconds) if row.green_limit_seconds else "",
                written_duration(row.red_limit_seconds) if row.red_limit_seconds else "",
                "yes" if row.is_on else "no",
                row.comment or "",
            )
            for row in rows
        ],
        f"{project} has no metric of its own.",
    )


# All of them


@click.command("defaults")
@_of_project
@click.option("--dry-run", is_flag=True, help="Only show what would be set.")
def set_defaults(project: ProjectKey, dry_run: bool) -> None:
    """Set the groups and rules that users of KeyCRM know, where nothing is set yet.

    \b
    Example:
        stageline settings defaults keycrm shop-1 --dry-run
        stageline settings defaults keycrm shop-1
    """
    require_migrations()
    found = defaults.set_defaults(project, dry_run=dry_run)
    for default in found:
        click.echo(default.said)
    what = f"{len(found)} {'would be' if dry_run else 'were'} set for {project}"
    click.echo(f"{what}; {len(defaults.DEFAULTS) - len(found)} were there or left to you.")


@click.command("export")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--project", "only", metavar="SOURCE/PROJECT", help="Only of this project.")
def export_settings(file: Path | None, only: str | None) -> None:
    """Write all settings of projects as YAML, to FILE or stdout.

    \b
    Example:
        stageline settings export settings.yml
        stageline settings export --project keycrm/shop-1
    """
    key = None
    if only is not None:
        source, _, project = only.partition("/")
        if not project:
            raise StagelineError(f"--project {only!r} is no project. Write keycrm/shop-1.")
        key = ProjectKey(source, project)
    require_migrations()
    text = bundles.export(key)
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StagelineError(f"Cannot write {file}: {error.strerror}.") from None
    click.echo(f"Settings written to {file}.")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
def import_settings(file: Path, dry_run: bool) -> None:
    """Make the settings equal to FILE, all or nothing, and show what that changes.

    Projects and sections that it does not name are left alone. Within a section, what the file
    leaves out is removed.

    \b
    Example:
        stageline settings import settings.yml --dry-run
        stageline settings import settings.yml
    """
    require_migrations()
    found = bundles.import_file(file, dry_run=dry_run)
    for change in found:
        where = f"{change.project} {change.section}:"
        if change.before is not None:
            click.echo(f"- {where} {_written(change.before)}")
        if change.after is not None:
            click.echo(f"+ {where} {_written(change.after)}")
    done = "would change" if dry_run else "changed"
    click.echo(f"{len(found)} rows {done}." if found else "Nothing changes: all is as in the file.")


def _written(entry: bundles.Entry) -> str:
    return ", ".join(f"{name}={cell}" for name, cell in entry.items())


#: What `stageline settings` takes from here.
COMMANDS: tuple[click.Command, ...] = (
    sla,
    waiting,
    hours,
    days,
    cycles,
    urgent,
    orders,
    metrics,
    set_defaults,
    export_settings,
    import_settings,
)
