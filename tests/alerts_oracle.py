"""Which alerts about reps hold at an instant, and their episodes: from raw rows, not from models.

The rules are those of docs/targets-and-alerts.md.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.rows import dict_row

from stageline.database import connect
from stageline.settings.alert_thresholds import alert_rules

Row = dict[str, Any]

#: Rule, project and subject.
Key = tuple[str, str, str]
#: What was measured, and what it is held against.
Numbers = tuple[Fraction, Fraction]

WEIGHTS = {"calls": 1, "agreements": 3, "lists": 2, "sales": 5}
#: Days for which a rep that is not listed counts as there after the last thing recorded.
QUIET_DAYS = 7

_QUERIES = {
    "projects": "select * from settings.projects",
    "calendars": "select * from settings.calendars where group_id is null",
    "windows": "select * from settings.calendar_windows",
    "exceptions": "select * from settings.day_exceptions",
    "thresholds": "select * from settings.alert_thresholds",
    "reps": "select * from raw_files.reps where is_deleted is not true",
    "activities": "select * from raw_files.activities where is_deleted is not true",
    "items": "select * from raw_files.pipeline_items",
    "sales": "select * from raw_files.sales where is_deleted is not true",
}


@dataclass(frozen=True)
class World:
    """Raw rows of some projects, by project."""

    rows: Mapping[str, Mapping[str, list[Row]]]

    @classmethod
    def read(cls, projects: Iterable[str]) -> "World":
        """What the database holds of these projects now."""
        found: dict[str, dict[str, list[Row]]] = {name: defaultdict(list) for name in projects}
        with connect("owner") as session, session.cursor(row_factory=dict_row) as cursor:
            everything = {
                name: cursor.execute(query.encode()).fetchall() for name, query in _QUERIES.items()
            }
        of_calendars = {row["calendar_id"]: row["project_id"] for row in everything["calendars"]}
        for name, rows in everything.items():
            for row in rows:
                project = row.get("project_id") or of_calendars.get(row.get("calendar_id"))
                if project in found:
                    found[project][name].append(row)
        return cls(found)

    def alerts(self, as_of: datetime) -> dict[Key, Numbers]:
        """What holds at an instant."""
        return {
            (rule, name, subject): numbers
            for name, rows in self.rows.items()
            if all(project["is_active"] for project in rows["projects"])
            for (rule, subject), numbers in _Project(rows, as_of).alerts().items()
        }


class _Project:
    """A project at an instant."""

    def __init__(self, rows: Mapping[str, list[Row]], as_of: datetime) -> None:
        self.rows, self.as_of = rows, as_of
        self.zone = ZoneInfo(rows["projects"][0]["timezone"] if rows["projects"] else "UTC")
        self.today = self.day(as_of)
        self.monday = self.today - timedelta(days=self.today.weekday())
        self.items = [
            row
            for row in rows["items"]
            if row["is_deleted"] is not True and row["created_at"] <= as_of
        ]
        self.calls = [row for row in rows["activities"] if row["activity_type"] == "call"]
        self.sales = [row for row in rows["sales"] if row["sold_at"] <= as_of]

    def day(self, instant: datetime) -> date:
        return instant.astimezone(self.zone).date()

    def by_now(self, instant: datetime | None) -> bool:
        return instant is not None and instant <= self.as_of

    def is_working(self, day: date) -> bool:
        weekday = day.isoweekday()
        for row in self.rows["exceptions"]:
            if row["day"] == day:
                if row["as_weekday"] is None:
                    return False
                weekday = row["as_weekday"]
        for row in self.rows["calendars"]:
            if row["effective_from"] <= day and (
                row["effective_to"] is None or day < row["effective_to"]
            ):
                return row["is_always_open"] or any(
                    (window["calendar_id"], window["weekday"]) == (row["calendar_id"], weekday)
                    for window in self.rows["windows"]
                )
        return weekday <= 5

    def working_days(self, monday: date) -> list[date]:
        return [
            day
            for day in (monday + timedelta(days=count) for count in range(7))
            if self.is_working(day)
        ]

    def limit(self, rule: str) -> Decimal:
        for row in self.rows["thresholds"]:
            if (
                row["rule"] == rule
                and row["effective_from"] <= self.today
                and (row["effective_to"] is None or self.today < row["effective_to"])
            ):
                return Decimal(row["threshold"])
        return next(known.threshold for known in alert_rules() if known.rule == rule)

    def times(self) -> dict[str, list[tuple[date, date]]]:
        """When each rep is there, first and last day."""
        found: dict[str, list[tuple[date, date]]] = defaultdict(list)
        for row in self.rows["reps"]:
            if row["active_to"] is None or row["active_from"] <= row["active_to"]:
                found[row["rep_id"]].append((row["active_from"], row["active_to"] or date.max))
        for rep, days in self.recorded_days().items():
            if rep not in found:
                found[rep] = [(min(days), max(days) + timedelta(days=QUIET_DAYS))]
        return found

    def recorded_days(self) -> dict[str, set[date]]:
        """Days on which something is recorded of a rep by now."""
        found: dict[str, set[date]] = defaultdict(set)
        for row in self.calls:
            for column in ("scheduled_at", "completed_at"):
                if row["rep_id"] and self.by_now(row[column]):
                    found[row["rep_id"]].add(self.day(row[column]))
        for row in self.items:
            for column in (
                *("created_at", "call_conducted_at", "proposal_at", "agreement_at"),
                *("partner_list_sent_at", "first_sale_at"),
            ):
                if row["rep_id"] and self.by_now(row[column]):
                    found[row["rep_id"]].add(self.day(row[column]))
        for row in self.sales:
            if rep := self.rep_of_sale(row):
                found[rep].add(self.day(row["sold_at"]))
        return found

    def rep_of_sale(self, sale: Row) -> str | None:
        """Its own, else its item's."""
        if sale["rep_id"]:
            return str(sale["rep_id"])
        reps = {row["item_id"]: row["rep_id"] for row in self.rows["items"]}
        return reps.get(sale["item_id"])

    def this_week(self) -> dict[str, Counter[str]]:
        """What each rep did in the week."""
        found: dict[str, Counter[str]] = defaultdict(Counter)

        def note(kind: str, rep: str | None, instant: datetime | None) -> None:
            if rep and instant is not None and self.by_now(instant):
                day = self.day(instant)
                found[rep][kind] += day - timedelta(days=day.weekday()) == self.monday

        for row in self.calls:
            note("calls", row["rep_id"], row["completed_at"])
        for row in self.items:
            note("agreements", row["rep_id"], row["agreement_at"])
            note("lists", row["rep_id"], row["partner_list_sent_at"])
        for row in self.sales:
            if row["amount"] >= 0:  # else money was given back
                note("sales", self.rep_of_sale(row), row["sold_at"])
        return found

    def alerts(self) -> dict[tuple[str, str], Numbers]:
        found: dict[tuple[str, str], Numbers] = {}
        week = self.working_days(self.monday)
        gone = [day for day in week if day < self.today]
        done = self.this_week()
        is_somebody_there = False
        for rep, times in self.times().items():

            def is_there(day: date, times: list[tuple[date, date]] = times) -> bool:
                return any(first <= day <= last for first, last in times)

            if not is_there(self.today):
                continue
            is_somebody_there = True
            days = sum(map(is_there, gone))
            if not days:
                continue
            calls = Fraction(done[rep]["calls"])
            score = Fraction(sum(done[rep][kind] * weight for kind, weight in WEIGHTS.items()))
            share = Fraction(days, len(week))
            due = Fraction(self.limit("calls_this_week")) * share
            if calls < due:
                found["calls_this_week", rep] = calls, due
            due = Fraction(self.limit("rep_needs_support_score")) * share
            if score < due and calls < Fraction(self.limit("rep_needs_support_calls")) * share:
                found["rep_needs_support", rep] = score, due
        following = self.monday + timedelta(days=7)
        if is_somebody_there and gone and self.working_days(following):
            booked = Fraction(
                sum(
                    following <= self.day(row["scheduled_at"]) < following + timedelta(days=7)
                    for row in self.calls
                    if row["scheduled_at"]
                )
            )
            due = Fraction(self.limit("calls_next_week")) * Fraction(len(gone), len(week))
            if booked < due:
                found["calls_next_week", "all"] = booked, due
        overdue = Counter(
            row["rep_id"] or "unassigned"
            for row in self.items
            if self.by_now(row["partner_list_due_at"])
            and not self.by_now(row["partner_list_sent_at"])
            and not self.by_now(row["closed_at"])
        )
        limit = Fraction(self.limit("partner_lists_overdue"))
        for rep, lists in overdue.items():
            if lists > limit:
                found["partner_lists_overdue", rep] = Fraction(lists), limit
        return found


@dataclass
class Episodes:
    """What alerts have been through: alert and opening, with the resolution."""

    resolved: dict[tuple[Key, datetime], datetime | None] = field(default_factory=dict)
    known_at: datetime | None = None

    def follow(self, alerts: Iterable[Key], as_of: datetime) -> None:
        """A build."""
        if self.known_at and as_of < self.known_at:
            return
        self.known_at = as_of
        now = set(alerts)
        running = self.running()
        for key, opened_at in running.items():
            if key not in now:
                self.resolved[key, opened_at] = as_of
        for key in now - running.keys():
            self.resolved[key, as_of] = None

    def running(self) -> dict[Key, datetime]:
        """Since when each of those that hold does."""
        return {key: opened for (key, opened), resolved in self.resolved.items() if not resolved}

    def at(self, as_of: datetime) -> dict[Key, datetime]:
        """The same at an earlier instant."""
        return {
            key: opened
            for (key, opened), resolved in self.resolved.items()
            if opened <= as_of and (resolved is None or resolved > as_of)
        }
