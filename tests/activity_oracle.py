"""Every KPI of the sales activity computed a second time, from its definition and not from its SQL.

Exact arithmetic throughout: what is divided is a fraction, rounded once, half away from zero. Days,
weeks and months are those of the project's zone. Where the definitions leave a choice, this is what
is read here:

- What was written down after ``as_of`` (``created_at``) and what is deleted counts nowhere; what a
  source does not say the time of writing of counts.
- A rep's periods that end before they begin are none. Who has no period was active, without a team,
  from the first to the last day of their calls (when due or held), items (made, or a step taken)
  and sales; days before 2000 say nothing. They are called as in the latest period with a name.
- Rows begin in the month of the first such thing of the project, days and weeks in the week in
  which that month begins, and end with the period of ``as_of``. Beyond either end, and for
  ``unassigned`` (a rep or a team), there is a row only where something counts: calls planned ahead,
  lists due.
- Held is a due call that has taken place by ``as_of``, on whatever day.
- Steps are dated by their dates alone, not by what the stage is called. A later one implies the
  earlier ones, dated or not: a list out of which a sale came has been sent, and is not waited for.
  A cohort's day is that of the first step, in the order of steps, that has a date.
- Lists are due whether or not an agreement has a date; in time by the instant. On time is of all
  that were due, closed items as well; overdue is only what is not closed.
- A sale of a negative amount is money given back: it lowers the revenue and is no sale.
- Targets are read day by day: a rep's own, else the one of every rep; a team's (or all's) own, else
  the sum over its reps of the day. What of it falls on a working day is the target divided by the
  working days of its week or month. `call_volume` takes targets by week, on a day without one those
  by month. Shares of a target are shares of the figure that is shown.
- Nobody without a name competes: `unassigned` has a score and no rank.
- In a forecast a rep counts for the team that they are in on its day, or were in last; a past day
  is looked back on if its month ended within the last 365.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache, cached_property
from typing import Any
from zoneinfo import ZoneInfo

from tests.activity_worlds import Target, World
from tests.forecast_oracle import NO_CURRENCY, Expected, History, Sale, Waiting, forecast
from tests.kpi_oracle import Record, Row, Table, percentage, percentile, quotient, rounded
from tests.kpi_oracle import World as PipelineWorld
from tests.kpi_oracle import kpis as pipeline_kpis

UNASSIGNED = "unassigned"
Subject = tuple[str, str]
ALL: Subject = ("all", "all")
ONE_DAY = timedelta(days=1)

_GRAIN = ("source_system", "project_id", "subject_type", "subject_id")

#: Columns that identify a row of each table.
GRAIN: dict[str, tuple[str, ...]] = {
    "call_volume": (*_GRAIN, "period_type", "period_start"),
    "call_heatmap": (*_GRAIN, "weekday", "hour"),
    "agreement_kpis": (*_GRAIN, "month"),
    "list_out_kpis": (*_GRAIN, "month"),
    "sales_conversion_rates": (*_GRAIN, "month"),
    "pipeline_health": _GRAIN,
    "revenue_efficiency": (*_GRAIN, "month", "currency"),
    "bdr_leaderboard": (*_GRAIN, "period_type", "period_start"),
    "kpi_target_attainment": (*_GRAIN, "kpi", "currency", "period_type", "period_start"),
    "target_pacing": (*_GRAIN, "kpi", "currency", "period_type", "period_start"),
    "sales_forecast": (*_GRAIN, "kpi", "currency"),
    "sales_forecast_backtest": (*_GRAIN, "kpi", "currency", "made_for_date"),
}

#: Instants that are believed; a duration that begins or ends elsewhere is impossible.
PLAUSIBLE = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))

#: The steps of an item from the call on, in their order, by what a funnel calls them.
STEPS = {
    "calls": "call_conducted_at",
    "proposals": "proposal_at",
    "agreements": "agreement_at",
    "lists_out": "partner_list_sent_at",
    "first_sales": "first_sale_at",
}

#: What a score is made of.
WEIGHTS = {"calls": 1, "agreements": 3, "lists": 2, "sales": 5}

HEATMAP_DAYS = 90

#: Days of a month whose forecast is held against what came, if the month ended that lately.
LOOKED_BACK_ON = (1, 8, 15, 22)
BACKTEST_DAYS = 365

#: What a forecast says of the rest of a month.
ENDS = ("expected", "low", "high")


def kpis(worlds: Iterable[World]) -> dict[str, Table]:
    """Every table of the worlds, by name: its rows by their key, without ``updated_at``."""
    tables: dict[str, Table] = {name: {} for name in GRAIN}
    for world in worlds:
        if not world.project.is_active:
            continue
        project = _Project(world)
        place = (world.project.source_system, world.project.project_id)
        for name in GRAIN:
            compute: Callable[[_Project], _Cells] = _COMPUTE[name]
            for subject, rest, row in compute(project):
                row = {"subject_name": project.name(subject), **row}
                tables[name][*place, *subject, *rest] = row
    return tables


#: Rows of a table: subject, the rest of the key, and the columns.
_Cells = Iterator[tuple[Subject, tuple[Hashable, ...], Row]]


@dataclass(frozen=True)
class Counted:
    """Something that counts for a rep on a day: a call, a step of an item, a sale."""

    rep: str
    day: date
    what: str
    fact: Row


def start_of(period_type: str, day: date) -> date:
    """First day of the day, week or month that a day is in."""
    if period_type == "week":
        return day - day.weekday() * ONE_DAY
    return day.replace(day=1) if period_type == "month" else day


def days_of(period_type: str, start: date) -> list[date]:
    """The days of a day, week or month."""
    days = [start]
    while start_of(period_type, days[-1] + ONE_DAY) == start:
        days.append(days[-1] + ONE_DAY)
    return days


def before(period_type: str, start: date) -> date:
    """The first day of the period before."""
    return start_of(period_type, start - ONE_DAY)


class _Project:
    """What a project's KPIs are computed from."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.as_of = world.as_of
        self.zone = ZoneInfo(world.project.timezone)
        self.today = self.day(world.as_of)
        self.calls = list(self._calls())
        self.items = list(self._items())
        self.sales = list(self._sales())
        listed = self._listed_periods()
        self._unlisted = self._unlisted_periods(listed)
        self._periods = listed | self._unlisted
        self._worked: dict[date, bool] = {}
        self._lengths: dict[tuple[str, date], int] = {}
        self._stated: dict[tuple[Any, ...], list[Target]] = defaultdict(list)
        for row in world.targets:
            key = (row.kpi, row.period, row.currency, row.subject_type, row.subject_id)
            self._stated[key].append(row)
        self._on_day: dict[tuple[Any, ...], tuple[Fraction | None, bool]] = {}

    # Days

    def day(self, instant: datetime) -> date:
        """The local day."""
        return instant.astimezone(self.zone).date()

    def known(self, instant: datetime | None) -> datetime | None:
        """The instant, if it has come."""
        return instant if instant is not None and instant <= self.as_of else None

    def is_worked(self, day: date) -> bool:
        """Whether the project works on a day."""
        if day not in self._worked:
            self._worked[day] = self._is_worked(day)
        return self._worked[day]

    def _is_worked(self, day: date) -> bool:
        weekday = self.world.exceptions.get(day, day.isoweekday())
        for week in self.world.weeks:
            if week.group is None and week.since <= day and (not week.until or day < week.until):
                return weekday is not None and (week.is_always_open or weekday in week.hours)
        return weekday is not None and weekday <= 5

    def worked(self, days: Iterable[date]) -> list[date]:
        """The working days among days."""
        return [day for day in days if self.is_worked(day)]

    def length(self, period_type: str, day: date) -> int:
        """Working days of the week or month of a day."""
        start = start_of(period_type, day)
        if (period_type, start) not in self._lengths:
            self._lengths[period_type, start] = len(self.worked(days_of(period_type, start)))
        return self._lengths[period_type, start]

    # Records

    def _counted(self, entity: str, began: str) -> Iterator[Row]:
        for record in self.world.records[entity]:
            began_at = record[began]
            if not record["is_deleted"] and (began_at is None or began_at <= self.as_of):
                yield {**record, "rep": record["rep_id"] or UNASSIGNED}

    def _calls(self) -> Iterator[Row]:
        for call in self._counted("activities", "created_at"):
            if call["activity_type"] == "call":
                yield call

    def _items(self) -> Iterator[Row]:
        for item in self._counted("pipeline_items", "created_at"):
            dated = {what: self.known(item[column]) for what, column in STEPS.items()}
            steps = list(dated.values())
            yield {
                **item,
                "dated": dated,
                "reached": {what: any(steps[n:]) for n, what in enumerate(dated)},
                "is_closed": self.known(item["closed_at"]) is not None,
            }

    def _sales(self) -> Iterator[Row]:
        owners = {item["item_id"]: item["rep_id"] for item in self.world.records["pipeline_items"]}
        for sale in self._counted("sales", "sold_at"):
            yield {
                **sale,
                "rep": sale["rep_id"] or owners.get(sale["item_id"]) or UNASSIGNED,
                "currency": (sale["currency"] or self.world.project.currency).upper(),
            }

    # Reps

    def _listed_periods(self) -> dict[str, list[Record]]:
        """The active periods of each rep who has some."""
        periods: dict[str, list[Record]] = defaultdict(list)
        for row in self.world.records["reps"]:
            until = row["active_to"]
            if not row["is_deleted"] and (until is None or until >= row["active_from"]):
                periods[row["rep_id"]].append(row)
        return periods

    def _unlisted_periods(self, listed: Container[str]) -> dict[str, list[Record]]:
        """Of who has none: from their first record to the last."""
        seen: dict[str, list[date]] = defaultdict(list)
        for rep, day in self._traces():
            if rep not in listed and rep != UNASSIGNED:
                seen[rep].append(day)
        return {
            rep: [
                {
                    "name": rep,
                    "team_id": None,
                    "active_from": min(days),
                    "active_to": max(days),
                }
            ]
            for rep, days in seen.items()
        }

    def _traces(self) -> Iterator[tuple[str, date]]:
        """Each local day, by ``as_of`` and plausible, on which anything of a rep is recorded."""
        for rows, columns in (
            (self.calls, ("scheduled_at", "completed_at")),
            (self.items, ("created_at", *STEPS.values())),
            (self.sales, ("sold_at",)),
        ):
            for row in rows:
                for column in columns:
                    instant = self.known(row[column])
                    if instant is not None and instant >= PLAUSIBLE[0]:
                        yield row["rep"], self.day(instant)

    @cached_property
    def first_month(self) -> date:
        """The month of the first thing recorded."""
        return start_of("month", min((day for _, day in self._traces()), default=self.today))

    def team_on(self, rep: str, day: date) -> str | None:
        """The team of a rep on a day; None if the rep is not active."""
        found = [
            period
            for period in self._periods.get(rep, [])
            if period["active_from"] <= day <= (period["active_to"] or date.max)
        ]
        if not found:
            return None
        return max(found, key=lambda period: period["active_from"])["team_id"] or UNASSIGNED

    @cached_property
    def active(self) -> dict[date, dict[str, str]]:
        """The reps of each day, with their teams, in whole weeks around the months told of."""
        next_month = days_of("month", start_of("month", self.today))[-1] + ONE_DAY
        last = days_of("week", start_of("week", days_of("month", next_month)[-1]))[-1]
        first = start_of("week", self.first_month)
        days = [first + number * ONE_DAY for number in range((last - first).days + 1)]
        return {
            day: {rep: team for rep in self._periods if (team := self.team_on(rep, day))}
            for day in days
        }

    def active_subjects(self, days: Iterable[date]) -> set[Subject]:
        """Who was active on any of the days: reps, their teams, and all."""
        found: set[Subject] = set()
        for day in days:
            for rep, team in self.active.get(day, {}).items():
                found |= {("rep", rep), ALL}
                if team != UNASSIGNED:
                    found.add(("team", team))
        return found

    def name(self, subject: Subject) -> str:
        """What a subject is called."""
        kind, found = subject
        if kind == "rep":
            named = sorted(self._periods.get(found, []), key=lambda row: row["active_from"])
            return next((row["name"] for row in reversed(named) if row["name"]), found)
        return found

    def subjects(self, rep: str, day: date) -> list[Subject]:
        """Whom something counts for that is a rep's on a day."""
        return [("rep", rep), ("team", self.team_on(rep, day) or UNASSIGNED), ALL]

    def subjects_by(self, rep: str, day: date) -> list[Subject]:
        """Whom a rep counts for on a day, if not active then in the team that they were in last."""
        left = [row["active_to"] for row in self._periods.get(rep, []) if row["active_to"]]
        last = max((until for until in left if until < day), default=day)
        return self.subjects(rep, day if self.team_on(rep, day) else last)

    @cached_property
    def history(self) -> History:
        """What forecasts are made from."""
        dated = [
            {what: at and self.day(at) for what, at in item["dated"].items()} for item in self.items
        ]

        def waiting(
            kpi: str, entry: Callable[[dict[str, date | None]], date | None]
        ) -> Iterator[Waiting]:
            for item, days in zip(self.items, dated, strict=True):
                entered = [day for day in (entry(days), days[kpi]) if day is not None]
                if entered:
                    yield Waiting(
                        item["rep"],
                        kpi,
                        item["sublist_id"] is not None,
                        min(entered),
                        days[kpi],
                        self.day(item["closed_at"]) if item["is_closed"] else None,
                    )

        sent = {
            item["item_id"]: days["lists_out"] for item, days in zip(self.items, dated, strict=True)
        }
        return History(
            [
                *waiting("agreements", lambda days: days["calls"] or days["proposals"]),
                *waiting("lists_out", lambda days: days["agreements"]),
            ],
            [
                Sale(
                    *(sale["rep"], sale["currency"], sale["item_id"], self.day(sale["sold_at"])),
                    *(sent.get(sale["item_id"]), Fraction(sale["amount"])),
                )
                for sale in self.sales
            ],
            lambda day: day in self.active and self.is_worked(day),
            self._is_there,
            self._periods.keys(),
        )

    def _is_there(self, rep: str, day: date) -> bool:
        """Whether a rep is active; that an unlisted one did something last only time will tell."""
        if rep in self._unlisted:
            return day >= self._periods[rep][0]["active_from"]
        return self.team_on(rep, day) is not None

    # Cells

    def starts(self, period_type: str) -> list[date]:
        """The periods from those of the first month to today's."""
        found = {start_of(period_type, day) for day in self.active if day <= self.today}
        if period_type == "month":
            found.discard(before("month", self.first_month))
        return sorted(found)

    def cells(
        self, period_type: str, counted: Iterable[Counted]
    ) -> dict[tuple[Subject, date], dict[str, list[Row]]]:
        """The facts of each subject and period by what they are; none where one was but active."""
        found: dict[tuple[Subject, date], dict[str, list[Row]]] = {}
        for start in self.starts(period_type):
            for subject in self.active_subjects(days_of(period_type, start)):
                found[subject, start] = defaultdict(list)
        for one in counted:
            start = start_of(period_type, one.day)
            for subject in self.subjects(one.rep, one.day):
                found.setdefault((subject, start), defaultdict(list))[one.what].append(one.fact)
        return found

    # What counts

    def counted_calls(self) -> Iterator[Counted]:
        """Calls as booked, due and held on their planned day, as conducted when they were."""
        for call in self.calls:
            scheduled_at, completed_at = call["scheduled_at"], self.known(call["completed_at"])
            if scheduled_at is not None:
                day = self.day(scheduled_at)
                hour = scheduled_at.astimezone(self.zone).hour
                fact = {**call, "hour": hour}
                yield Counted(call["rep"], day, "booked", fact)
                if scheduled_at <= self.as_of:
                    yield Counted(call["rep"], day, "due", fact)
                    if completed_at is not None:
                        yield Counted(call["rep"], day, "held", fact)
            if completed_at is not None:
                hour = completed_at.astimezone(self.zone).hour
                fact = {**call, "hour": hour}
                yield Counted(call["rep"], self.day(completed_at), "conducted", fact)

    def counted_steps(self) -> Iterator[Counted]:
        """Steps of items on the days on which they were taken."""
        for item in self.items:
            for what, instant in item["dated"].items():
                if instant is not None:
                    yield Counted(item["rep"], self.day(instant), what, item)

    def counted_sales(self) -> Iterator[Counted]:
        """Sales on the days on which they were made."""
        for sale in self.sales:
            yield Counted(sale["rep"], self.day(sale["sold_at"]), "sales", sale)

    def open_value(self) -> dict[tuple[Subject, str], Fraction]:
        """What is open in the pipeline, weighted, by who has it and currency."""
        records = defaultdict(list, self.world.records)
        scenarios = pipeline_kpis(PipelineWorld(self.as_of, (self.world.project,), records))
        found: dict[tuple[Subject, str], Fraction] = defaultdict(Fraction)
        for key, row in scenarios["weighted_pipeline_scenarios"].items():
            _, rep, stage, _, scenario, currency = map(str, key)
            if scenario == "weighted" and stage != "won":
                for subject in self.subjects(rep, self.today):
                    found[subject, currency] += Fraction(row["weighted_pipeline_value"])
        return found

    # Targets

    def target(
        self, subject: Subject, kpi: str, period: str, days: Iterable[date], currency: str | None
    ) -> tuple[Fraction | None, str | None]:
        """What a subject is to reach on days, and whether the target is its own."""
        total, own_days, sum_days = Fraction(0), 0, 0
        for day in self.worked(days):
            stated, is_own = self._target_on(subject, (kpi, period, currency), day)
            if stated is not None:
                total += stated
                own_days += is_own
                sum_days += not is_own
        if not own_days + sum_days:
            return None, None
        if own_days and sum_days:
            return total, "own on some days"
        return total, "own" if own_days else "sum of reps"

    def _target_on(
        self, subject: Subject, of: tuple[str, str, str | None], day: date
    ) -> tuple[Fraction | None, bool]:
        key = (subject, of, day)
        if key not in self._on_day:
            stated, is_own = self._compute_target_on(subject, of, day)
            # What a team's reps are to reach is divided already.
            if stated is not None and is_own:
                stated /= self.length(of[1], day)
            self._on_day[key] = stated, is_own
        return self._on_day[key]

    def _compute_target_on(
        self, subject: Subject, of: tuple[str, str, str | None], day: date
    ) -> tuple[Fraction | None, bool]:
        kind, found = subject
        if day not in self.active:
            return None, True

        def stated(subject_type: str, subject_id: str | None) -> Fraction | None:
            for row in self._stated.get((*of, subject_type, subject_id), []):
                if row.since <= day and (row.until is None or day < row.until):
                    return Fraction(row.target)
            return None

        if kind == "rep":
            if found not in self.active.get(day, {}):
                return None, True
            own = stated("rep", found)
            return (stated("rep", None) if own is None else own), True
        own = stated(kind, None if kind == "all" else found)
        if own is not None:
            return own, True
        of_reps = [
            value
            for rep, team in self.active.get(day, {}).items()
            if kind == "all" or team == found
            for value, _ in [self._target_on(("rep", rep), of, day)]
            if value is not None
        ]
        return (sum(of_reps, Fraction(0)) if of_reps else None), False


# Numbers


def number(value: Fraction | int | None, decimals: int) -> Decimal | None:
    """Rounded."""
    return rounded(value, decimals)


def attainment(actual: Fraction | int, target: Fraction | None) -> Decimal | None:
    """Percentage of a target as it is shown, with four decimals."""
    shown = rounded(target, 4)
    return None if shown is None else percentage(actual, Fraction(shown))


def whole(value: Fraction | None) -> int | None:
    """The nearest whole number."""
    result = rounded(value, 0)
    return None if result is None else int(result)


def between(start: datetime, end: datetime) -> int | None:
    """Completed seconds; None if that cannot be."""
    if end < start or not all(PLAUSIBLE[0] <= at < PLAUSIBLE[1] for at in (start, end)):
        return None
    return (end - start) // timedelta(seconds=1)


def durations(name: str, seconds: Sequence[int]) -> Row:
    """Average and percentiles."""
    return {
        f"avg_{name}_seconds": whole(quotient(sum(seconds), len(seconds))),
        **{
            f"p{share}_{name}_seconds": whole(percentile(seconds, Fraction(share, 100)))
            for share in (50, 85, 95)
        },
    }


def timed(name: str, count: str, pairs: Iterable[tuple[datetime | None, datetime | None]]) -> Row:
    """Durations of what has both ends, with the counts of those that can and cannot be."""
    both = [(start, end) for start, end in pairs if start is not None and end is not None]
    found = [between(start, end) for start, end in both]
    seconds = [value for value in found if value is not None]
    return {
        count: len(seconds),
        "impossible_durations": len(found) - len(seconds),
        **durations(name, seconds),
    }


# Tables


def _call_volume(project: _Project) -> _Cells:
    for period_type in ("day", "week"):
        for (subject, start), of in project.cells(period_type, project.counted_calls()).items():
            days = days_of(period_type, start)
            # Targets by week; on a day without one, those by month.
            asked = [
                next((t for t in found if t is not None), None)
                for day in project.worked(days)
                for found in [
                    [
                        project.target(subject, "calls", by, [day], None)[0]
                        for by in ("week", "month")
                    ]
                ]
            ]
            stated = [value for value in asked if value is not None]
            target = sum(stated, Fraction(0)) if stated else None
            yield (
                subject,
                (period_type, start),
                {
                    "booked": len(of["booked"]),
                    "due": len(of["due"]),
                    "held": len(of["held"]),
                    "missed": len(of["due"]) - len(of["held"]),
                    "held_rate_pct": percentage(len(of["held"]), len(of["due"])),
                    "conducted": len(of["conducted"]),
                    "target": number(target, 4),
                    "target_working_days": len(stated),
                    "attainment_pct": attainment(len(of["conducted"]), target),
                },
            )


def _call_heatmap(project: _Project) -> _Cells:
    first = project.today - (HEATMAP_DAYS - 1) * ONE_DAY
    cells: dict[tuple[Subject, int, int], dict[str, int]] = {}
    for one in project.counted_calls():
        if first <= one.day <= project.today:
            for subject in project.subjects(one.rep, one.day):
                key = (subject, one.day.isoweekday(), one.fact["hour"])
                cells.setdefault(key, defaultdict(int))[one.what] += 1
    for (subject, weekday, hour), of in cells.items():
        yield (
            subject,
            (weekday, hour),
            {
                **{what: of[what] for what in ("booked", "due", "held", "conducted")},
                "held_rate_pct": percentage(of["held"], of["due"]),
            },
        )


def _agreement_kpis(project: _Project) -> _Cells:
    steps = (one for one in project.counted_steps() if one.what in ("proposals", "agreements"))
    cells = project.cells("month", steps)
    for (subject, month), of in cells.items():
        target, _ = project.target(subject, "agreements", "month", days_of("month", month), None)
        earlier = cells.get((subject, before("month", month)))
        agreements = of["agreements"]
        count_before = None if earlier is None else len(earlier["agreements"])
        yield (
            subject,
            (month,),
            {
                "proposals": len(of["proposals"]),
                "agreements": len(agreements),
                "target": number(target, 4),
                "attainment_pct": attainment(len(agreements), target),
                "agreements_previous_month": count_before,
                "agreements_change": None
                if count_before is None
                else len(agreements) - count_before,
                **timed(
                    "proposal_to_agreement",
                    "timed_agreements",
                    ((i["dated"]["proposals"], i["dated"]["agreements"]) for i in agreements),
                ),
            },
        )


def _list_out_kpis(project: _Project) -> _Cells:
    def counted() -> Iterator[Counted]:
        for item in project.items:
            due_at = item["partner_list_due_at"]
            if due_at is not None:
                yield Counted(item["rep"], project.day(due_at), "due", item)
        yield from (one for one in project.counted_steps() if one.what == "lists_out")

    for (subject, month), of in project.cells("month", counted()).items():
        # Nothing is asked yet of months ahead, in which lists are due.
        days = days_of("month", month) if month <= project.today else []
        target, _ = project.target(subject, "lists_out", "month", days, None)
        due = [item for item in of["due"] if item["partner_list_due_at"] <= project.as_of]
        on_time = [
            item
            for item in due
            if item["dated"]["lists_out"] is not None
            and item["dated"]["lists_out"] <= item["partner_list_due_at"]
        ]
        sent = of["lists_out"]
        sizes = [
            item["partner_list_size"] for item in sent if item["partner_list_size"] is not None
        ]
        sold = [item for item in sent if item["dated"]["first_sales"] is not None]
        yield (
            subject,
            (month,),
            {
                "lists_due": len(of["due"]),
                "lists_due_by_now": len(due),
                "lists_overdue": sum(_is_waiting(item) for item in due),
                "sent_on_time": len(on_time),
                "on_time_pct": percentage(len(on_time), len(due)),
                "lists_out": len(sent),
                "target": number(target, 4),
                "attainment_pct": attainment(len(sent), target),
                "lists_with_size": len(sizes),
                "total_list_size": sum(sizes),
                "avg_list_size": number(quotient(sum(sizes), len(sizes)), 2),
                **{
                    f"p{share}_list_size": number(percentile(sizes, Fraction(share, 100)), 2)
                    for share in (50, 85, 95)
                },
                "lists_with_sale": len(sold),
                "first_sale_conversion_pct": percentage(len(sold), len(sent)),
                "sales_from_lists": sum(item["total_sales_from_list"] or 0 for item in sent),
                **timed(
                    "agreement_to_list",
                    "timed_lists",
                    ((i["dated"]["agreements"], i["dated"]["lists_out"]) for i in sent),
                ),
            },
        )


def _is_waiting(item: Row) -> bool:
    """Whether a list is still to be sent."""
    return not item["reached"]["lists_out"] and not item["is_closed"]


def _sales_conversion_rates(project: _Project) -> _Cells:
    def cohorts() -> Iterator[Counted]:
        for item in project.items:
            first = next((at for at in item["dated"].values() if at is not None), None)
            if first is not None:
                yield Counted(item["rep"], project.day(first), "cohort", item)

    for (subject, month), of in project.cells("month", cohorts()).items():
        counts = {what: sum(item["reached"][what] for item in of["cohort"]) for what in STEPS}
        calls, proposals, agreements, lists, sales = counts.values()
        yield (
            subject,
            (month,),
            {
                **counts,
                "call_to_proposal_pct": percentage(proposals, calls),
                "proposal_to_agreement_pct": percentage(agreements, proposals),
                "agreement_to_list_pct": percentage(lists, agreements),
                "list_to_first_sale_pct": percentage(sales, lists),
                "call_to_first_sale_pct": percentage(sales, calls),
            },
        )


def _pipeline_health(project: _Project) -> _Cells:
    this_week = start_of("week", project.today)
    next_week = this_week + 7 * ONE_DAY
    cells: dict[Subject, dict[str, list[Any]]] = {
        subject: defaultdict(list)
        for subject in project.active_subjects(days_of("week", this_week))
    }

    def add(rep: str, what: str, value: Any) -> None:
        for subject in project.subjects(rep, project.today):
            cells.setdefault(subject, defaultdict(list))[what].append(value)

    def age(since: datetime) -> int | None:
        return between(since, project.as_of)

    for call in project.calls:
        if call["scheduled_at"] is not None:
            week = start_of("week", project.day(call["scheduled_at"]))
            if week == this_week:
                add(call["rep"], "calls_this_week", call)
                if call["scheduled_at"] > project.as_of:
                    add(call["rep"], "calls_left_this_week", call)
            if week == next_week:
                add(call["rep"], "calls_next_week", call)
    for item in project.items:
        if item["is_closed"] or item["reached"]["lists_out"]:
            continue
        proposed_at, due_at = item["dated"]["proposals"], item["partner_list_due_at"]
        if proposed_at is not None and not item["reached"]["agreements"]:
            add(item["rep"], "outstanding_proposals", age(proposed_at))
        if item["reached"]["agreements"]:
            add(item["rep"], "lists_waiting", item)
            if due_at is None:
                add(item["rep"], "lists_without_due_date", item)
        if due_at is not None:
            if start_of("week", project.day(due_at)) == this_week:
                add(item["rep"], "lists_due_this_week", item)
            if due_at <= project.as_of:
                add(item["rep"], "lists_overdue", age(due_at))
    for subject, of in cells.items():
        ages = [value for value in of["outstanding_proposals"] if value is not None]
        late = [value for value in of["lists_overdue"] if value is not None]
        yield (
            subject,
            (),
            {
                **{
                    what: len(of[what])
                    for what in (
                        *("calls_this_week", "calls_left_this_week", "calls_next_week"),
                        *("outstanding_proposals", "lists_waiting", "lists_due_this_week"),
                        *("lists_overdue", "lists_without_due_date"),
                    )
                },
                "aged_proposals": len(ages),
                **durations("proposal_age", ages),
                "oldest_proposal_age_seconds": max(ages, default=None),
                "oldest_overdue_seconds": max(late, default=None),
            },
        )


def _revenue_efficiency(project: _Project) -> _Cells:
    def counted() -> Iterator[Counted]:
        yield from (one for one in project.counted_calls() if one.what == "conducted")
        yield from (one for one in project.counted_steps() if one.what == "lists_out")
        yield from project.counted_sales()

    for (subject, month), of in project.cells("month", counted()).items():
        kind, found = subject
        reps = {
            rep
            for day in days_of("month", month)
            for rep, team in project.active.get(day, {}).items()
            if kind == "all" or found == (rep if kind == "rep" else team)
            if subject != ("team", UNASSIGNED)
        }
        by_currency: dict[str, list[Fraction]] = defaultdict(list)
        for sale in of["sales"]:
            by_currency[sale["currency"]].append(Fraction(sale["amount"]))
        for currency, amounts in (by_currency or {project.world.project.currency: []}).items():
            revenue = sum(amounts, Fraction(0))
            # What is negative was given back: it lowers the revenue and is no sale.
            sold = sum(amount >= 0 for amount in amounts)
            yield (
                subject,
                (month, currency),
                {
                    "sales": sold,
                    "revenue": number(revenue, 4),
                    "calls": len(of["conducted"]),
                    "lists_out": len(of["lists_out"]),
                    "active_reps": len(reps),
                    "revenue_per_call": number(quotient(revenue, len(of["conducted"])), 4),
                    "revenue_per_list": number(quotient(revenue, len(of["lists_out"])), 4),
                    "revenue_per_rep": number(quotient(revenue, len(reps)), 4),
                    "avg_sale": number(quotient(revenue, sold), 4),
                },
            )


@cache
def _counts(project: _Project, period_type: str) -> dict[tuple[Subject, date], dict[str, Any]]:
    """Calls, proposals, agreements, lists, sales and revenue of each subject and period."""

    def counted() -> Iterator[Counted]:
        yield from (one for one in project.counted_calls() if one.what == "conducted")
        steps = ("proposals", "agreements", "lists_out")
        yield from (one for one in project.counted_steps() if one.what in steps)
        yield from project.counted_sales()

    found: dict[tuple[Subject, date], dict[str, Any]] = {}
    for key, of in project.cells(period_type, counted()).items():
        revenue: dict[str, Fraction] = defaultdict(Fraction)
        for sale in of["sales"]:
            revenue[sale["currency"]] += Fraction(sale["amount"])
        found[key] = {
            "calls": len(of["conducted"]),
            "proposals": len(of["proposals"]),
            "agreements": len(of["agreements"]),
            "lists_out": len(of["lists_out"]),
            "sales": sum(sale["amount"] >= 0 for sale in of["sales"]),
            "revenue": revenue,
        }
    return found


def _bdr_leaderboard(project: _Project) -> _Cells:
    for period_type in ("week", "month"):
        counts = {}
        for (subject, start), of in _counts(project, period_type).items():
            done = {
                "calls": of["calls"],
                "agreements": of["agreements"],
                "lists": of["lists_out"],
                "sales": of["sales"],
            }
            is_active = subject in project.active_subjects(days_of(period_type, start))
            if any(done.values()) or (is_active and start in project.starts(period_type)):
                counts[subject, start] = done
        scores = {
            key: sum(WEIGHTS[what] * count for what, count in of.items())
            for key, of in counts.items()
        }
        ranks = {
            (subject, start): 1
            + sum(
                other > score
                for ((kind, found), other_start), other in scores.items()
                if kind == subject[0] and other_start == start and found != UNASSIGNED
            )
            for (subject, start), score in scores.items()
            if subject[1] != UNASSIGNED
        }
        for (subject, start), of in counts.items():
            earlier = (subject, before(period_type, start))
            rank, rank_before = ranks.get((subject, start)), ranks.get(earlier)
            score, score_before = scores[subject, start], scores.get(earlier)
            yield (
                subject,
                (period_type, start),
                {
                    **of,
                    "score": score,
                    "rank": rank,
                    "previous_score": score_before,
                    "score_change": None if score_before is None else score - score_before,
                    "previous_rank": rank_before,
                    "rank_change": None
                    if rank is None or rank_before is None
                    else rank_before - rank,
                },
            )


def _kpis_with_targets(project: _Project) -> list[tuple[str, str, str | None]]:
    """KPI, period and currency of all targets."""
    return sorted({(row.kpi, row.period, row.currency) for row in project.world.targets}, key=str)


#: What somebody did who did nothing.
NOTHING: dict[str, Any] = {
    **dict.fromkeys(("calls", "proposals", "agreements", "lists_out", "sales"), 0),
    "revenue": {},
}


def _actual(of: Mapping[str, Any], kpi: str, currency: str | None) -> Fraction:
    return Fraction(of["revenue"].get(currency, 0) if kpi == "revenue" else of[kpi])


@dataclass(frozen=True)
class Pace:
    """A target of a subject for a period, what is due of it before today, and what was done."""

    key: tuple[Subject, str, str, date, str | None]
    days: list[date]
    target: Fraction
    origin: str | None
    to_date: Fraction
    actual: Fraction


def _paces(project: _Project) -> Iterator[Pace]:
    teams = {
        ("team", str(row.subject_id)) for row in project.world.targets if row.subject_type == "team"
    }
    for kpi, period, currency in _kpis_with_targets(project):
        counts = _counts(project, period)
        subjects = {subject for subject, _ in counts} | teams | {ALL}
        # Of a team that has a target something is asked, whether or not anybody is in it.
        for subject, start in itertools.product(sorted(subjects), project.starts(period)):
            of = counts.get((subject, start), NOTHING)
            days = days_of(period, start)
            gone = [day for day in days if day < project.today]
            target, origin = project.target(subject, kpi, period, days, currency)
            to_date, _ = project.target(subject, kpi, period, gone, currency)
            if target is not None:
                yield Pace(
                    (subject, kpi, period, start, currency),
                    days,
                    target,
                    origin,
                    to_date or Fraction(0),
                    _actual(of, kpi, currency),
                )


def _kpi_target_attainment(project: _Project) -> _Cells:
    for pace in _paces(project):
        subject, kpi, period, start, currency = pace.key
        share = quotient(100 * pace.actual, Fraction(_shown(pace.to_date)))
        yield (
            subject,
            (kpi, currency or NO_CURRENCY, period, start),
            {
                "target_origin": pace.origin,
                "is_running": int(project.today in pace.days),
                "actual": _shown(pace.actual),
                "target": _shown(pace.target),
                "target_to_date": _shown(pace.to_date),
                "attainment_pct": attainment(pace.actual, pace.target),
                "status": None
                if share is None
                else "met"
                if share >= 100
                else "near"
                if share >= 80
                else "missed",
            },
        )


def _target_pacing(project: _Project) -> _Cells:
    open_value = project.open_value()
    told = {(subject, *rest): row for subject, rest, row in _sales_forecast(project)}
    for pace in _paces(project):
        subject, kpi, period, start, currency = pace.key
        if project.today not in pace.days:
            continue
        worked = project.worked(pace.days)
        gone = [day for day in worked if day < project.today]
        speed = quotient(pace.actual, len(gone))
        missing = max(Fraction(_shown(pace.target)) - pace.actual, Fraction(0))
        value = None if currency is None else open_value.get((subject, currency), Fraction(0))
        cover = None if value is None else quotient(value, missing)
        month = told.get((subject, kpi, currency or NO_CURRENCY)) if period == "month" else None
        more = None if month is None else month["expected"] - month["so_far"]
        yield (
            subject,
            (kpi, currency or NO_CURRENCY, period, start),
            {
                "working_days": len(worked),
                "working_days_gone": len(gone),
                "actual": _shown(pace.actual),
                "target": _shown(pace.target),
                "target_to_date": _shown(pace.to_date),
                "to_date_pct": attainment(pace.actual, pace.to_date),
                "missing": _shown(missing),
                "projected": number(None if speed is None else speed * len(worked), 4),
                "open_weighted_value": number(value, 4),
                "coverage": number(cover, 2),
                "expected_more": more,
                "forecast_coverage": None
                if more is None
                else number(quotient(Fraction(more), missing), 2),
            },
        )


def _forecasts_of(project: _Project, day: date) -> _Cells:
    """What the rest of a month is to bring from a day on, as shown, and what the month brought."""
    month = days_of("month", start_of("month", day))
    history = project.history
    expected: dict[tuple[Subject, str, str], Expected] = defaultdict(Expected)
    for (rep, *what), of_rep in forecast(history, day, month[-1]).items():
        for subject in project.subjects_by(rep, day):
            expected[subject, *what] += of_rep
    came: dict[tuple[Subject, str, str], list[Fraction]] = defaultdict(lambda: [Fraction(0)] * 2)
    for rep, *what, at, value in history.outcomes:
        if at in month:
            for subject in project.subjects_by(rep, day):
                came[subject, *what][at >= day] += value
    for cell in {*expected, *came}:
        subject, kpi, currency = cell
        before_day, from_day_on = came[cell]
        of = expected[cell]
        yield (
            subject,
            (kpi, currency),
            {
                "before_day": _shown(before_day),
                "from_day_on": _shown(from_day_on),
                "expected_of_in_flight": _shown(of.of_in_flight),
                "expected_of_arrivals": _shown(of.of_arrivals),
                "expected": _shown(of.total),
                "low": number(of.bound(-1), 2 if kpi == "revenue" else 0),
                "high": number(of.bound(1), 2 if kpi == "revenue" else 0),
            },
        )


@cache
def _backtests(project: _Project) -> list[tuple[Subject, tuple[Hashable, ...], Row]]:
    """The forecasts of the days of past months that are looked back on, and what came."""
    months = [
        (month, days)
        for month in project.starts("month")
        for days in [days_of("month", month)]
        if 0 < (project.today - days[-1]).days <= BACKTEST_DAYS
    ]
    rows = []
    for month, days in months:
        for day in days:
            if day.day in LOOKED_BACK_ON and project.history.is_full_by(day):
                for subject, what, row in _forecasts_of(project, day):
                    actual = row["from_day_on"]
                    told = {
                        "month": month,
                        "is_inside": int(row["low"] <= actual <= row["high"]),
                        **{f"{end}_more": row[end] for end in ENDS},
                        "actual_more": actual,
                    }
                    rows.append((subject, (*what, day), told))
    return rows


def _sales_forecast_backtest(project: _Project) -> _Cells:
    yield from _backtests(project)


def _sales_forecast(project: _Project) -> _Cells:
    if not project.history.waiting:
        return
    tested: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for subject, (kpi, currency, _), row in _backtests(project):
        tested[subject, kpi, currency].append(row["is_inside"])
    for subject, what, row in _forecasts_of(project, project.today):
        so_far = row["before_day"] + row["from_day_on"]
        inside = tested[subject, *what]
        yield (
            subject,
            what,
            {
                "month": start_of("month", project.today),
                "made_for_date": project.today,
                "so_far": so_far,
                **{end: max(row["before_day"] + row[end], so_far) for end in ENDS},
                "expected_of_in_flight": row["expected_of_in_flight"],
                "expected_of_arrivals": row["expected_of_arrivals"],
                "backtests": len(inside),
                "backtests_inside": sum(inside),
                "inside_pct": percentage(sum(inside), len(inside)),
            },
        )


def _shown(value: Fraction) -> Decimal:
    """With four decimals."""
    result = rounded(value, 4)
    assert result is not None
    return result


_COMPUTE: dict[str, Callable[[_Project], _Cells]] = {
    "call_volume": _call_volume,
    "call_heatmap": _call_heatmap,
    "agreement_kpis": _agreement_kpis,
    "list_out_kpis": _list_out_kpis,
    "sales_conversion_rates": _sales_conversion_rates,
    "pipeline_health": _pipeline_health,
    "revenue_efficiency": _revenue_efficiency,
    "bdr_leaderboard": _bdr_leaderboard,
    "kpi_target_attainment": _kpi_target_attainment,
    "target_pacing": _target_pacing,
    "sales_forecast": _sales_forecast,
    "sales_forecast_backtest": _sales_forecast_backtest,
}
