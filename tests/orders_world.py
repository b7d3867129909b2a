"""Random orders and settings: every ugly thing that a log of statuses can hold."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

AS_OF = datetime(2024, 11, 20, 12, 34, 56, 700_000, tzinfo=UTC)
SOURCE = "keycrm"
#: Rules change here: in the middle of many orders.
CHANGE = datetime(2024, 7, 3, 10, 20, 30, tzinfo=UTC)
START = datetime(1900, 1, 1, tzinfo=UTC)
BEGINNING = START.date()
KINDS = {"1": "open", "2": "open", "3": "open", "4": "open", "5": "done", "6": "cancelled"}
KINDS_ELSEWHERE = {
    "1": "cancelled",
    "2": "open",
    "3": "done",
    "4": "open",
    "6": "open",
    "7": "open",
}


@dataclass(frozen=True)
class Event:
    """An entry as a delivery told of it; ``delivery`` is empty for a line of a file."""

    stage: str
    group: str | None
    entered_at: datetime
    came_from: str | None = None
    created_at: datetime | None = None
    delivery: str = ""
    landed_at: datetime | None = None


@dataclass(frozen=True)
class Setting:
    """A row of a table of settings that counts for a time.

    Attributes:
        number: Its identity, in the order in which it was written.
        values: Its other columns.
    """

    number: int
    values: dict[str, str | int | bool | None]
    since: datetime = START
    until: datetime | None = None

    def counts_at(self, instant: datetime) -> bool:
        """Whether it was in force."""
        return self.since <= instant and (self.until is None or instant < self.until)


@dataclass
class Order:
    """A case: what the log says of an order, in the order in which it landed."""

    order_id: str
    events: list[Event] = field(default_factory=list)
    items: list[dict[str, str | None]] = field(default_factory=list)
    overrides: list[Setting] = field(default_factory=list)
    is_gone: bool = False


@dataclass(frozen=True)
class Week:
    """Working hours from a day on: weekday (1 = Monday) -> stretches in seconds since midnight."""

    number: int
    group: str | None
    hours: dict[int, list[tuple[int, int]]]
    since: date = BEGINNING
    until: date | None = None
    is_always_open: bool = False


@dataclass
class Project:
    """A project, its settings and its orders."""

    project_id: str
    timezone: str
    is_active: bool = True
    groups: dict[str, str] = field(default_factory=dict)
    stages: dict[str, str | None] = field(default_factory=dict)
    weeks: list[Week] = field(default_factory=list)
    exceptions: dict[date, int | None] = field(default_factory=dict)
    rules: dict[str, list[Setting]] = field(default_factory=dict)
    metrics: list[Setting] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    def in_force(
        self, table: str, instant: datetime, **values: str | int | bool | None
    ) -> list[Setting]:
        """Rows of a table of settings that counted at an instant and have these values."""
        return [
            row
            for row in self.rules.get(table, [])
            if row.counts_at(instant)
            and all(row.values[column] == value for column, value in values.items())
        ]


OFFICE = {day: [(32_400, 46_800), (50_400, 64_800)] for day in range(1, 6)}
NIGHTS = {day: [(79_200, 108_000)] for day in (1, 2, 3, 5, 7)}
SHORT = {1: [(28_800, 86_400)], 3: [(0, 21_600), (36_000, 45_900)], 6: [(5_400, 14_400)]}
NEVER: dict[int, list[tuple[int, int]]] = {}


def world(seed: int, orders: int) -> list[Project]:
    """Projects in which the same ids mean different things, and their orders."""
    chance = random.Random(seed)  # noqa: S311 - the same histories in every run
    numbers = iter(range(1, 10**9))
    projects = [
        Project("kyiv", "Europe/Kyiv"),
        Project("york", "America/New_York"),
        Project("howe", "Australia/Lord_Howe"),
        Project("bare", "UTC"),
        Project("off", "UTC", is_active=False),
    ]
    for project in projects[:3]:
        _dictionaries(project, chance)
        _calendars(project, numbers)
        _rules(project, chance, numbers)
    for at in range(orders):
        project = chance.choice(projects[:3]) if at % 12 else chance.choice(projects[3:])
        # The same ids stand for another order in each project.
        order = _order(project, f"{len(project.orders)}", chance)
        project.orders.append(order)
        if project.rules and chance.random() < 0.15:
            _override(order, chance, numbers)
    _around_limits(projects[2], numbers)
    return projects


def _around_limits(project: Project, numbers: Iterator[int]) -> None:
    """Orders a second before, at and after each share of a limit, running and ended."""
    group, limit = "no hours of its own", 36_000
    assert not any(week.group in (None, group) for week in project.weeks)
    assert "sla_thresholds" not in project.rules  # so that 80 % are near
    values: dict[str, str | int | bool | None] = {
        "group_id": group,
        "is_urgent": False,
        "limit_seconds": limit,
    }
    project.rules["sla_stage_rules"].append(Setting(next(numbers), values))
    for seconds in (near + on for near in (limit * 8 // 10, limit) for on in (-1, 0, 1)):
        running, ended = (Order(f"{name}-{seconds}") for name in ("running", "ended"))
        entered_at = AS_OF.replace(microsecond=0) - timedelta(seconds=seconds)
        for order in (running, ended):
            order.events.append(Event("90", group, entered_at))
        ended.events.append(Event("91", "77", AS_OF.replace(microsecond=0)))
        project.orders += [running, ended]


def _dictionaries(project: Project, chance: random.Random) -> None:
    project.groups = KINDS if project.project_id != "york" else KINDS_ELSEWHERE
    for stage in range(1, 15):
        group = chance.choice([*project.groups, *project.groups, "77", None])
        project.stages[str(stage)] = group


def _calendars(project: Project, numbers: Iterator[int]) -> None:
    def week(
        group: str | None,
        hours: dict[int, list[tuple[int, int]]],
        since: date = BEGINNING,
        until: date | None = None,
        is_always_open: bool = False,
    ) -> None:
        project.weeks.append(Week(next(numbers), group, hours, since, until, is_always_open))

    if project.project_id == "kyiv":
        week(None, OFFICE)
        week("2", NIGHTS)
        week("3", NEVER)
        week("4", NEVER, is_always_open=True)
    elif project.project_id == "york":
        week(None, OFFICE, until=date(2024, 6, 10))
        week(None, SHORT, since=date(2024, 6, 10))
        week("2", SHORT, until=date(2024, 9, 1))
        week("4", NIGHTS, since=date(2024, 5, 2))
    else:
        week("2", NIGHTS)
        week("4", NIGHTS, until=date(2024, 10, 1))
        week("4", OFFICE, since=date(2024, 10, 1))
        week("1", NEVER, since=date(2024, 11, 1))
        week("1", OFFICE, until=date(2024, 11, 1))
    project.exceptions = {
        date(2024, 3, 29): None,
        date(2024, 3, 31): 1,
        date(2024, 5, 1): None,
        date(2024, 6, 1): 5,
        date(2024, 11, 3): 2,
    }


def _rules(project: Project, chance: random.Random, numbers: Iterator[int]) -> None:
    """Rules of all kinds; some change in the middle, some have a gap, some begin or end."""

    def add(table: str, **values: str | int | bool | None) -> None:
        shape = chance.randrange(5)
        later = CHANGE + timedelta(days=chance.choice([0, 0, 20]))
        changed = {
            key: value * 2 if key in ("limit_seconds", "near_pct") and shape == 1 else value
            for key, value in values.items()
        }
        rows = project.rules.setdefault(table, [])
        if shape > 1:
            rows.append(Setting(next(numbers), values))
        if shape <= 1:
            rows.append(Setting(next(numbers), values, until=CHANGE))
        if shape == 1:
            rows.append(Setting(next(numbers), changed, since=later))

    for group in (*project.groups, "77"):
        for is_urgent in (False, True):
            if chance.random() < 0.85:
                limit = chance.choice([3_600, 14_400, 28_800, 86_400, 259_200, 1_000_003])
                add("sla_stage_rules", group_id=group, is_urgent=is_urgent, limit_seconds=limit)
    if project.project_id != "howe":
        add("sla_thresholds", near_pct=chance.choice([33, 47, 50]))
    for stage in chance.sample(list(project.stages), 3):
        add("waiting_stages", stage_id=stage)
    for name, match, value in (
        ("Termin", "sku", "Термінове виготовлення"),
        ("Offer 16", "offer_id", "16"),
        ("Product 2", "product_id", "2"),
        ("Express", "sku", "EXPRESS"),
    ):
        add("urgent_rules", rule_name=name, match_type=match, match_value=value)
    groups = list(project.groups)
    cycles = [
        ("to delivery", groups[0], None, groups[3], None),
        ("whole", groups[0], None, None, "9"),
        ("nested", None, "3", None, "5"),
        ("within a group", None, "3", project.stages["3"] or "1", None),
        ("same", groups[1], None, groups[1], None),
    ]
    for at, (title, start_group, start_stage, end_group, end_stage) in enumerate(cycles):
        add(
            "cycle_rules",
            title=title,
            start_group_id=start_group,
            start_stage_id=start_stage,
            end_group_id=end_group,
            end_stage_id=end_stage,
            is_default=at == 0 and project.project_id != "york",
        )
    for title, first, last, limits in (
        ("fast", "3", "5", (40_000, 300_000)),
        ("same end", "1", "5", (None, 90_000)),
        ("back", "5", "3", (50_000, None)),
        ("off", "1", "2", (None, None)),
    ):
        values: dict[str, str | int | bool | None] = {
            "title": f"{title} in {project.project_id}",
            "start_stage_id": first,
            "end_stage_id": last,
            "is_working_time": title == "back",
            "green_limit_seconds": limits[0],
            "red_limit_seconds": limits[1],
            "is_on": title != "off",
        }
        project.metrics.append(Setting(next(numbers), values))


def _override(order: Order, chance: random.Random, numbers: Iterator[int]) -> None:
    """What a person decided about an order: some of it, for all time or from a day on."""
    start = chance.choice([(None, None), ("2", None), (None, "4")])
    end = chance.choice([(None, None), ("3", None), (None, "7")])
    values: dict[str, str | int | bool | None] = {
        "order_id": order.order_id,
        "is_urgent": chance.choice([None, True, False]),
        "sla_profile": chance.choice([None, None, "normal", "urgent"]),
        "cycle_start_group_id": start[0],
        "cycle_start_stage_id": start[1],
        "cycle_end_group_id": end[0],
        "cycle_end_stage_id": end[1],
    }
    rows = order.overrides
    day = AS_OF - timedelta(days=chance.randrange(120))
    if chance.random() < 0.7:
        rows.append(Setting(next(numbers), values))
    else:
        rows.append(Setting(next(numbers), values, until=day))
        if chance.random() < 0.5:
            again = {**values, "is_urgent": True, "sla_profile": None}
            rows.append(Setting(next(numbers), again, since=day))


def _order(project: Project, order_id: str, chance: random.Random) -> Order:
    order = Order(order_id, is_gone=chance.random() < 0.03)
    at = datetime(2024, 3, 26, tzinfo=UTC) + timedelta(seconds=chance.randrange(20_500_000))
    at += timedelta(microseconds=chance.choice([0, 0, 1, 999_999, 500_000]))
    created = chance.choice(
        [None, at, at - timedelta(minutes=7), at - timedelta(days=3), at + timedelta(hours=1)]
    )
    if chance.random() < 0.02:
        created = datetime(1948, 1, 1, tzinfo=UTC)
    known = list(project.stages) or ["1", "2", "3"]
    before: str | None = chance.choice([None, None, *known[:4]])
    events: list[Event] = []
    for _ in range(chance.choice([1, 1, 2, 3, 5, 8, 13])):
        stage = chance.choice([*known, *known, "90", "91"])
        group = chance.choice([project.stages.get(stage), project.stages.get(stage), None, "2"])
        landed = at + timedelta(seconds=chance.choice([1, 60, 0, 400_000]))
        events.append(
            Event(
                stage,
                group,
                at,
                came_from=before,
                created_at=created if chance.random() < 0.8 else None,
                delivery=str(uuid.UUID(int=chance.getrandbits(128))),
                landed_at=landed,
            )
        )
        before = stage
        at += timedelta(
            seconds=chance.choice([0, 0, 1, 59, 900, 3_600, 30_000, 86_400, 604_800, 1_209_600])
            * chance.choice([1, 1, chance.random()])
        )
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    if chance.random() < 0.02:
        events[-1] = replace(events[-1], entered_at=datetime(2150, 1, 1, tzinfo=UTC))
    if chance.random() < 0.01:
        events[0] = replace(events[0], entered_at=datetime(1970, 1, 1, 3, tzinfo=UTC))
    entries: dict[tuple[str, datetime], Event] = {}
    for event in events:
        entries.setdefault((event.stage, event.entered_at), event)
    # What a file tells again changes nothing; what it alone tells is an entry, too.
    again = [
        replace(event, came_from=None, created_at=None, delivery="", landed_at=None)
        for event in entries.values()
        if chance.random() < 0.1
    ]
    alone = [event for event in again if chance.random() < 0.3]
    for event in alone:
        del entries[event.stage, event.entered_at]
    order.events = [*entries.values(), *again]
    chance.shuffle(order.events)
    for _ in range(chance.choice([0, 1, 1, 2])):
        order.items.append(
            {
                "sku": chance.choice([None, "Термінове виготовлення", "EXPRESS", "A-1", "B-2"]),
                "offer_id": chance.choice([None, "16", "17", "18", "19"]),
                "product_id": chance.choice([None, "2", "3", "4", "5", "6"]),
            }
        )
    return order
