"""Random reps, calls, items, lists, sales, calendars and targets, the ugly ones in good measure.

Each seed is a project of its own, in a zone of its own choice, so that many of them fit into one
database and what goes wrong can be traced to its seed. Ids are the same in all projects where the
tables allow it: whoever mixes projects up is found out.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from tests.kpi_oracle import Project
from tests.orders_world import Week

T = TypeVar("T")
Row = dict[str, Any]

#: The second of January in New York, the third already elsewhere: a week and a month that lie in
#: two years, with the clocks put back or forward (by half an hour on Lord Howe) since the autumn.
AS_OF = datetime(2025, 1, 2, 22, 30, tzinfo=UTC)

ZONES = (
    "Europe/Kyiv",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "UTC",
)

#: The seed, of twelve, of a project that data alone tell of.
IN_NO_SETTINGS = 8

#: Days before ``as_of`` in which most things happen, unless said otherwise.
DAYS = 100

BEGINNING = date(1900, 1, 1)
WEEKDAYS = range(1, 8)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Target:
    """A row of ``settings.kpi_targets``, from ``since`` to the day before ``until``."""

    kpi: str
    subject_type: str
    subject_id: str | None
    period: str
    target: Decimal
    currency: str | None
    since: date
    until: date | None


@dataclass(frozen=True)
class World:
    """A project with everything that its KPIs are made of.

    Attributes:
        as_of: The instant that they are made for.
        project: Its row of the settings; one in UTC and without a currency has none.
        weeks: Its calendars.
        exceptions: The weekday by which a day is worked; None = not at all.
        targets: What is to be reached.
        records: The rows of each entity, by the field names of ``loaders.entities``.
    """

    as_of: datetime
    project: Project
    weeks: tuple[Week, ...] = ()
    exceptions: dict[date, int | None] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    records: dict[str, list[Row]] = field(default_factory=dict)


class _Dice:
    """Random values of one world."""

    def __init__(self, seed: int, as_of: datetime, days: int = DAYS) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same worlds in every run
        self.days = days
        self.zone = ZONES[seed % len(ZONES)]
        self.as_of = as_of
        self.today = as_of.astimezone(ZoneInfo(self.zone)).date()
        self.edges = self._edges()
        self.has_odd_years = self.chance(0.3)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def choice(self, *values: T) -> T:
        return self.random.choice(values)

    def maybe(self, share: float, value: T) -> T | None:
        """The value in that share of the cases, else nothing."""
        return value if self.chance(share) else None

    def day(self, first: int | None = None, last: int = 20) -> date:
        """A day, that many days from today."""
        first = -self.days if first is None else first
        return self.today + self.random.randint(first, last) * _DAY

    def midnight(self, day: date) -> datetime:
        """When a day begins in the project's zone."""
        return datetime.combine(day, time(), ZoneInfo(self.zone)).astimezone(UTC)

    def _edges(self) -> list[datetime]:
        """When weeks, months and the heatmap's days begin, and clocks change; and now."""
        clock = ZoneInfo(self.zone)
        edges = [self.as_of, self.midnight(self.today), self.midnight(self.today + _DAY)]
        for number in range(-self.days, 21):
            day = self.today + number * _DAY
            start, end = self.midnight(day), self.midnight(day + _DAY)
            if day.weekday() == 0 or day.day == 1 or number in (-90, -89):
                edges.append(start)
            if start.astimezone(clock).utcoffset() != end.astimezone(clock).utcoffset():
                # Around two o'clock, and again an hour later, where most clocks change.
                edges += [start + hours * _HOUR for hours in (1, 2, 3)] * 3
        return edges

    def instant(self) -> datetime:
        """Near an edge, in the last months or next weeks, just now, or nowhere sensible."""
        kind = self.random.random()
        if kind < 0.35:
            near = self.choice(-_HOUR, timedelta(seconds=-1), timedelta(), timedelta(), _HOUR)
            return self.choice(*self.edges) + near
        if kind < 0.8:
            return self.as_of + self.seconds(-self.days * 86_400, 12 * 86_400)
        if kind < 0.96:
            return self.as_of + self.seconds(-9 * 86_400, 9 * 86_400)
        if kind < 0.98 or not self.has_odd_years:
            return self.as_of + self.seconds(0, 60 * 86_400)
        return self.choice(
            datetime(1948, 5, 5, 5, 5, tzinfo=UTC), datetime(2100, 1, 1, 12, tzinfo=UTC)
        )

    def seconds(self, least: int, most: int) -> timedelta:
        """Mostly whole seconds, sometimes with a fraction."""
        micros = self.choice(0, 0, 0, 400_000, 999_999)
        return timedelta(seconds=self.random.randint(least, most), microseconds=micros)

    def after(self, start: datetime, days: float) -> datetime:
        """An instant that follows ``start``; at times it is the same, or is none of the sort."""
        kind = self.random.random()
        if kind < 0.72:
            return start + self.seconds(0, int(days * 86_400))
        if kind < 0.84:
            return start
        if kind < 0.92:
            return start - self.seconds(0, int(days * 86_400))
        return self.instant()

    def is_deleted(self) -> bool | None:
        return self.choice(*[None, False] * 5, True)


def random_world(
    seed: int,
    as_of: datetime = AS_OF,
    project_id: str | None = None,
    size: int = 40,
    days: int = DAYS,
) -> World:
    """A project with some ten reps, ``3 * size`` activities, ``size`` items, sales, in ``days``."""
    dice = _Dice(seed, as_of, days)
    is_set = seed % 12 != IN_NO_SETTINGS
    project = Project(
        "file" if dice.chance(0.8) else "another-crm",
        project_id or f"p{seed}",
        *((dice.zone, dice.choice("UAH", "USD", "EUR")) if is_set else ()),
        is_active=seed % 12 != 11,
    )
    records: dict[str, list[Row]] = defaultdict(list)

    def add(entity: str, id_field: str, make: Callable[[], Row]) -> None:
        number = len(records[entity]) + 1
        records[entity].append(
            {"facility_id": None, "is_deleted": dice.is_deleted(), id_field: str(number), **make()}
        )

    records["reps"] = _reps(dice)
    ids = ["ann", "bob", "cid", "dee", "eve", "fay", "gus", "hal", "ida", "jon", None]

    def rep() -> str | None:
        return dice.choice(*ids)

    def activity() -> Row:
        scheduled_at = dice.maybe(0.85, dice.instant())
        completed_at = (
            dice.maybe(0.65, dice.after(scheduled_at, dice.choice(0.05, 0.05, 8)))
            if scheduled_at
            else dice.maybe(0.9, dice.instant())
        )
        known_at = scheduled_at or completed_at or dice.instant()
        return {
            "rep_id": rep(),
            "lead_id": None,
            "opportunity_id": None,
            "activity_type": dice.choice(*["call"] * 5, "meeting", "email"),
            "channel": dice.choice(None, "phone", "video"),
            "scheduled_at": scheduled_at,
            "completed_at": completed_at,
            "outcome": dice.choice(None, "no answer", "reached"),
            "item_id": dice.maybe(0.5, str(dice.random.randint(1, size + 2))),
            "created_at": dice.maybe(0.7, known_at - dice.seconds(-43_200, 9 * 86_400)),
            "updated_at": dice.maybe(0.5, known_at),
        }

    def item() -> Row:
        created_at = dice.instant() - dice.seconds(0, 20 * 86_400)
        at: dict[str, datetime | None] = {}
        instant = created_at
        for step, days in (
            ("call_booked_at", 3),
            ("call_conducted_at", 6),
            ("proposal_at", 3),
            ("agreement_at", 14),
            ("partner_list_due_at", 12),
            ("partner_list_sent_at", 4),
            ("first_sale_at", 20),
        ):
            step_at = dice.after(instant, days)
            # Some steps are left out, and most items end early.
            at[step] = dice.maybe(0.78, step_at)
            if at[step] is not None and instant <= step_at < as_of + 60 * _DAY:
                instant = step_at
            if dice.chance(0.06):
                break
        return {
            "lead_id": None,
            "rep_id": rep(),
            "sublist_id": dice.maybe(0.3, str(dice.random.randint(1, 6))),
            "stage": dice.choice(
                *("LEAD", "CALL_BOOKED", "call conducted", "PROPOSAL_SENT", "Proposal"),
                *("AGREEMENT_SIGNED", "PARTNER_LIST_SENT", "SOLD", "LIST_OUT_NOT_SOLD"),
                *("FREE-QA-OFFERED", "something else"),
            ),
            "created_at": created_at,
            **{
                step: at.get(step)
                for step in (
                    *("call_booked_at", "call_conducted_at", "proposal_at", "agreement_at"),
                    *("partner_list_due_at", "partner_list_sent_at", "first_sale_at"),
                )
            },
            "partner_list_size": dice.choice(None, 0, 3, 3, 8, 20, dice.random.randint(1, 400)),
            "total_sales_from_list": dice.choice(None, 0, 0, 1, 2, 7),
            "closed_at": dice.maybe(0.2, dice.after(instant, 10)),
            "updated_at": dice.maybe(0.5, instant),
        }

    def sublist() -> Row:
        parent = str(dice.random.randint(1, size + 2))
        return {"item_id": parent, "name": None, "created_at": dice.instant()}

    def sale() -> Row:
        return {
            "item_id": dice.maybe(0.7, str(dice.random.randint(1, size + 2))),
            "lead_id": None,
            "rep_id": dice.maybe(0.5, rep()),
            "sold_at": dice.instant(),
            "amount": dice.choice(
                Decimal(dice.random.randint(1, 50)) * 100,
                Decimal(dice.random.randint(1, 9_999_999)) / 100,
                Decimal(dice.random.randint(1, 99_999)) / 10_000,
                Decimal(0),
                Decimal(dice.random.randint(-9_999, -1)) / 100,
            ),
            "currency": dice.choice(None, None, "USD", "usd", "EUR"),
        }

    def deal() -> Row:
        created_at = dice.instant()
        return {
            "rep_id": rep(),
            "amount": dice.choice(None, Decimal(dice.random.randint(0, 9_999_999)) / 100),
            "currency": dice.choice(None, None, "USD", "EUR"),
            "win_probability": dice.choice(None, Decimal(0), Decimal("0.35"), Decimal(1)),
            "created_at": created_at,
            "updated_at": dice.maybe(0.5, dice.after(created_at, 20)),
        }

    def lead() -> Row:
        at = {f"{stage}_at": None for stage in ("sql", "opportunity", "won", "lost")}
        return {**deal(), **at, "stage": dice.choice("lead", "sql", "opportunity", "won", "lost")}

    def opportunity() -> Row:
        return {
            **deal(),
            "lead_id": dice.maybe(0.7, str(dice.random.randint(1, 10))),
            **dict.fromkeys(("name", "company", "stage", "expected_close_date")),
            "status": dice.choice("open", "open", "won", "lost"),
            "closed_at": dice.maybe(0.5, dice.instant()),
        }

    for _ in range(8):
        add("leads", "lead_id", lead)
        add("opportunities", "opportunity_id", opportunity)
    for _ in range(3 * size):
        add("activities", "activity_id", activity)
    for _ in range(size):
        add("pipeline_items", "item_id", item)
    for _ in range(6):
        add("sublists", "sublist_id", sublist)
    for _ in range(size):
        add("sales", "sale_id", sale)
    _two_sales_of_one_list(dice, records)
    for row in records["sublists"] + records["reps"]:
        row.pop("facility_id", None)
    keyed = {"source_system": project.source_system, "project_id": project.project_id}
    return World(
        as_of,
        project,
        _weeks(dice, seed) if is_set else (),
        _exceptions(dice) if is_set else {},
        _targets(dice, project) if is_set else (),
        {entity: [{**keyed, **row} for row in rows] for entity, rows in records.items()},
    )


def _reps(dice: _Dice) -> list[Row]:
    """The periods of the reps; some reps have none, and some that never were."""
    rows: list[Row] = []

    def period(
        rep: str,
        team: str | None,
        since: date,
        until: date | None = None,
        name: str | None = "",
        is_deleted: bool | None = None,
    ) -> None:
        if any((row["rep_id"], row["active_from"]) == (rep, since) for row in rows):
            return
        rows.append(
            {
                "rep_id": rep,
                "name": rep.title() if name == "" else name,
                "team_id": team,
                "active_from": since,
                "active_to": until,
                "is_deleted": is_deleted,
            }
        )

    teams = ("red", "blue", "green", "ann")

    def team() -> str:
        return dice.choice(*teams)

    long_ago = dice.today - dice.choice(400, 120, 60) * _DAY
    period("ann", "red", long_ago)
    # Changes teams in the middle of a week, without a day between.
    changed = dice.day(-80, 5)
    period("bob", "red", long_ago, changed - _DAY, name="Robert")
    period("bob", "blue", changed, name=dice.choice("Bob", None))
    # Leaves in the middle of a week, and comes back in another team, sometimes later in that week.
    left = dice.day(-70, -3)
    back = left + dice.choice(1, 2, 3, 10, 40) * _DAY
    period("cid", "blue", long_ago, left)
    period("cid", dice.choice("blue", "green"), back, dice.maybe(0.3, back + 20 * _DAY))
    # Periods that overlap: the one that began later counts.
    overlap = dice.day(-60, -20)
    period("dee", "red", long_ago, dice.maybe(0.5, overlap + 30 * _DAY))
    period("dee", "green", overlap, dice.maybe(0.7, overlap + dice.random.randint(0, 40) * _DAY))
    if dice.chance(0.5):
        period("eve", None, dice.day(-90, 0), dice.maybe(0.5, dice.day(-30, 10)), name=None)
    if dice.chance(0.7):
        period("fay", team(), dice.day(-5, 25))
    if dice.chance(0.5):
        wrong = dice.day(-50, 0)
        period("gus", team(), wrong, wrong - dice.random.randint(1, 9) * _DAY)
    if dice.chance(0.5):
        period("hal", team(), dice.day(), is_deleted=True)
    if dice.chance(0.5):
        day = dice.day(-60, 0)
        period("ida", team(), day, day)
    # In a team of its own and without any record.
    if dice.chance(0.7):
        period("kim", "new", dice.day(-60, 0), dice.maybe(0.5, dice.day(-30, 30)))
    return rows


def _two_sales_of_one_list(dice: _Dice, records: dict[str, list[Row]]) -> None:
    """The same list sold twice in one month, in two currencies."""
    sold_at = dice.as_of - dice.seconds(0, 50 * 86_400)
    for currency in ("EUR", "GBP"):
        records["sales"].append(
            {
                **records["sales"][0],
                "sale_id": f"{currency}-twin",
                "item_id": "1",
                "sold_at": sold_at,
                "amount": Decimal(1000),
                "currency": currency,
                "is_deleted": False,
            }
        )


def _weeks(dice: _Dice, seed: int) -> tuple[Week, ...]:
    """Calendars of the project, and at times of a stage group, which has nothing to do with it."""
    first_id = 10 * (100 + seed)  # of ids that the database gives there are fewer
    office = {weekday: [(32_400, 64_800)] for weekday in range(1, 6)}
    saturdays = {weekday: [(32_400, 46_800), (50_400, 64_800)] for weekday in range(1, 7)}
    nights = {weekday: [(72_000, 108_000)] for weekday in (1, 2, 3, 4, 7)}
    odd = {weekday: [(0, 3_600)] for weekday in WEEKDAYS if dice.chance(0.5)}
    changed = dice.day(-60, 5)

    def week(
        number: int, hours: dict[int, list[tuple[int, int]]], since: date, until: date | None = None
    ) -> Week:
        return Week(first_id + number, None, hours, since, until)

    kinds: tuple[tuple[Week, ...], ...] = (
        (),
        (week(1, office, BEGINNING),),
        (week(1, saturdays, BEGINNING),),
        (week(1, nights, BEGINNING),),
        (week(1, odd, BEGINNING),),
        (Week(first_id + 1, None, {}, is_always_open=True),),
        (week(1, office, BEGINNING, changed), week(2, saturdays, changed)),
        # Between the two no calendar is in force.
        (week(1, saturdays, BEGINNING, changed), week(2, odd, changed + 9 * _DAY)),
    )
    found = kinds[seed % len(kinds)]
    if dice.chance(0.3):
        found += (Week(first_id + 3, "production", {6: [(0, 3_600)], 7: [(0, 3_600)]}),)
    return found


def _exceptions(dice: _Dice) -> dict[date, int | None]:
    found: dict[date, int | None] = {}
    if dice.chance(0.4):
        return found
    for _ in range(12):
        found[dice.day(last=40)] = dice.choice(None, None, dice.choice(*WEEKDAYS))
    monday = dice.day(-40, 7)
    monday -= monday.weekday() * _DAY
    if dice.chance(0.5):
        found |= {monday + number * _DAY: None for number in range(7)}
    return found


def _targets(dice: _Dice, project: Project) -> tuple[Target, ...]:
    """Targets of some reps, of every rep, of teams and of all, that change on any day."""
    found: list[Target] = []
    for kpi, periods in (
        ("calls", ("week", "month")),
        ("proposals", ("month",)),
        ("agreements", ("month",)),
        ("lists_out", ("month",)),
        ("sales", ("month",)),
        ("revenue", ("month",)),
    ):
        currencies = (project.currency, "USD", "CHF") if kpi == "revenue" else (None,)
        for period in periods:
            for currency in dict.fromkeys(currencies):
                for subject_type, subject_id in (
                    ("rep", None),
                    *(("rep", rep) for rep in ("ann", "bob", "cid", "dee", "jon", "nobody")),
                    *(("team", team) for team in ("red", "blue", "ann", "unassigned", "none")),
                    ("all", None),
                ):
                    if dice.chance(0.6):
                        continue
                    days = sorted({dice.day(last=30) for _ in range(dice.choice(0, 1, 2, 3))})
                    starts = [dice.choice(BEGINNING, dice.day(last=40 - dice.days)), *days]
                    for since, until in zip(starts, [*starts[1:], None], strict=True):
                        # At times none is in force for a while.
                        if dice.chance(0.85) and (until is None or since < until):
                            found.append(
                                Target(
                                    *(kpi, subject_type, subject_id, period),
                                    dice.choice(
                                        Decimal(dice.random.randint(1, 40)),
                                        Decimal(dice.random.randint(1, 400)) / 8,
                                        Decimal("0.333"),
                                    ),
                                    *(currency, since, until),
                                )
                            )
    return tuple(found)
