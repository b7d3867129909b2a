"""``stageline settings hours`` and ``days``: when is worked."""

from datetime import date
from pathlib import Path

import click

from stageline.cli.build import require_migrations
from stageline.cli.project_rules import (
    AT_DAY,
    FROM_DAY,
    NOTE,
    add_list,
    group_of,
    of_project,
    when,
)
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.errors import StagelineError
from stageline.settings.rule_tables import ProjectKey, changing_project, listed, written_moment
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
@of_project
@click.argument("week")
@click.option("--group", help="Only of this group of stages (its id or name).")
@FROM_DAY
@NOTE
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
        group = None if group is None else group_of(session, project, group)
        row = WorkingHours(group_id=group, week=worked, note=note)
        now = CALENDARS.set_from(session, project, row, starts)
    whose = f"{project}, group {group}" if group else str(project)
    click.echo(f"Working hours of {whose}: {written_week(now.week)}{when(now)}.")


@hours.command("end")
@of_project
@click.option("--group", help="Of this group of stages (its id or name).")
@AT_DAY
def end_hours(project: ProjectKey, group: str | None, at: date | None) -> None:
    """End working hours: a group has those of the project from then on, a project every hour.

    \b
    Example:
        stageline settings hours end keycrm shop-1 --group production --at 2027-03-01
    """
    require_migrations()
    with changing_project(project) as session:
        group = None if group is None else group_of(session, project, group)
        ended = CALENDARS.end(session, project, {"group_id": group}, at)
    assert ended.effective_to is not None  # noqa: S101 - that is what it is to be ended
    whose = f"{project}, group {group}" if group else str(project)
    click.echo(f"Working hours of {whose} end at {written_moment(ended.effective_to)}.")


add_list(
    hours,
    CALENDARS,
    {
        "group": lambda row: row.group_id or "all others",
        "hours": lambda row: written_week(row.week),
        "note": lambda row: row.note or "",
    },
    """List the working hours.

    \b
    Example:
        stageline settings hours list keycrm shop-1 --all
    """,
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
@of_project
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
@of_project
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
@of_project
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
@of_project
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
@of_project
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
