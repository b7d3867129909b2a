"""When is worked: weeks of working hours, holidays and extra working days of a project."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from psycopg import sql

from stageline.errors import StagelineError
from stageline.settings import files
from stageline.settings.names import require_one_line, require_text
from stageline.settings.rule_tables import (
    FIRST_DAY,
    DatedSetting,
    DatedTable,
    ProjectKey,
    Session,
    Setting,
    SettingTable,
)
from stageline.settings.working_weeks import Week, Window, read_weekday


@dataclass(frozen=True, kw_only=True)
class WorkingHours(DatedSetting):
    """The hours of a group of stages; where that is None, of all groups without hours of their own.

    They count from a day of the project on, that included, until another, that excluded.
    """

    effective_from: date = FIRST_DAY
    group_id: str | None = None
    week: Week
    note: str | None = None

    def require_valid(self) -> None:
        if self.group_id is not None:
            require_text(self.group_id, "The group")
        if self.note is not None:
            require_one_line(self.note, "The note")


class _Calendars(DatedTable[WorkingHours]):
    """Calendars with their windows, which stand in a table of their own."""

    def insert(self, session: Session, project: ProjectKey, row: WorkingHours) -> WorkingHours:
        return self._with_windows(session, super().insert(session, project, row), row)

    def update(self, session: Session, project: ProjectKey, row: WorkingHours) -> WorkingHours:
        written = super().update(session, project, row)
        if written.week == row.week:
            return written
        session.execute(
            "delete from settings.calendar_windows where calendar_id = %s", [row.row_id]
        )
        return self._with_windows(session, written, row)

    def to_columns(self, row: WorkingHours) -> dict[str, Any]:
        columns = super().to_columns(row)
        del columns["week"]
        return {**columns, "is_always_open": row.week.is_always_open}

    def from_columns(self, record: Mapping[str, Any]) -> WorkingHours:
        columns = dict(record)
        windows = tuple(Window(*window) for window in columns.pop("windows"))
        week = Week(windows, columns.pop("is_always_open"))
        return WorkingHours(**columns, week=week)

    def _selected(self) -> list[sql.Composable]:
        return [
            sql.SQL("calendar_id as row_id"),
            *(sql.Identifier(name) for name in self._columns() if name != "week"),
            sql.Identifier("is_always_open"),
            sql.SQL(
                "array(select array[weekday, opens_second, closes_second]"
                " from settings.calendar_windows as w where w.calendar_id = calendars.calendar_id"
                " order by weekday, opens_second) as windows"
            ),
        ]

    def _with_windows(
        self, session: Session, written: WorkingHours, row: WorkingHours
    ) -> WorkingHours:
        with session.cursor() as cursor:
            cursor.executemany(
                "insert into settings.calendar_windows"
                " (calendar_id, weekday, opens_second, closes_second) values (%s, %s, %s, %s)",
                [(written.row_id, w.weekday, w.opens, w.closes) for w in row.week.windows],
            )
        return WorkingHours(**{**vars(written), "week": row.week})


CALENDARS = _Calendars(
    WorkingHours, "calendars", "working hours", ["group_id"], "calendar_id", FIRST_DAY
)


@dataclass(frozen=True, kw_only=True)
class DayException(Setting):
    """A holiday, or a day worked as another weekday (1 = Monday) is, in all calendars."""

    day: date
    as_weekday: int | None = None
    name: str = ""

    def require_valid(self) -> None:
        if self.name:
            require_one_line(self.name, "The name of a day")


DAYS = SettingTable(DayException, "day_exceptions", "day", ["day"])


def set_days(session: Session, project: ProjectKey, days: Sequence[DayException]) -> int:
    """Sets holidays and working days, in place of what was said of them; gives how many changed.

    Raises:
        StagelineError: one is not as it has to be.
    """
    there = {row.day: row for row in DAYS.rows(session, project)}
    changed = [row for row in days if there.get(row.day) != row]
    for row in changed:
        write = DAYS.update if row.day in there else DAYS.insert
        write(session, project, row)
    return len(changed)


def read_day(text: str) -> date:
    """A day as operators write it.

    Raises:
        StagelineError: it is not written so, or there is no such day.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise StagelineError(f"{text!r} is no day. Write it as 2027-01-01.") from None


def read_days(file: Path) -> list[DayException]:
    """The days of a CSV with the columns day, name and as (a weekday; empty = a day off).

    Raises:
        StagelineError: it cannot be read, with the line.
    """
    found: dict[date, DayException] = {}
    for row in files.read(file, ("day", "name", "as"), ("day",)):
        as_day = row.cells.get("as")
        try:
            day = DayException(
                day=read_day(row.needed("day")),
                as_weekday=None if as_day is None else read_weekday(as_day),
                name=row.cells.get("name") or "",
            )
            day.require_valid()
        except StagelineError as error:
            raise row.error(error) from None
        if day.day in found:
            raise row.error(f"{day.day} stands in an earlier line, too.")
        found[day.day] = day
    return list(found.values())
