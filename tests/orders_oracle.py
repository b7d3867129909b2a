"""The order KPIs computed a second time, order by order over plain lists, from their definitions.

Working time is counted on a strip of quarter hours, each of which is worked or is not, as the clock
on the wall of the project's zone shows it; the hours of the tests begin and end on quarters.
"""

from bisect import bisect_left
from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from itertools import accumulate, groupby, zip_longest
from typing import Any
from zoneinfo import ZoneInfo

from tests.kpi_oracle import percentage, percentile, quotient, rounded
from tests.orders_world import SOURCE, Event, Order, Project, Setting, Week

Row = dict[str, Any]
Table = dict[tuple[Any, ...], Row]

QUARTER = 900
#: The strip: from the first to the last quarter in which anything plausible happens here.
FIRST = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp()) // QUARTER
LAST = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) // QUARTER
PLAUSIBLE = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@cache
def wall_clock(zone: str) -> list[tuple[date, int]]:
    """Local day and second of the day of each quarter of the strip."""
    clock = ZoneInfo(zone)
    quarters = (datetime.fromtimestamp(q * QUARTER, clock) for q in range(FIRST, LAST))
    return [(at.date(), at.hour * 3_600 + at.minute * 60) for at in quarters]


class Strip:
    """Which quarters are worked."""

    def __init__(self, project: Project, weeks: list[Week]) -> None:
        hours: dict[date, list[tuple[int, int]]] = {}

        def worked_on(day: date) -> list[tuple[int, int]]:
            if day not in hours:
                counts = [w for w in weeks if w.since <= day and (not w.until or day < w.until)]
                week = next((w for w in counts if w.group is not None), counts[0])
                weekday = project.exceptions.get(day, day.isoweekday())
                if weekday is None:
                    hours[day] = []
                elif week.is_always_open:
                    hours[day] = [(0, 86_400)]
                else:
                    hours[day] = week.hours.get(weekday, [])
            return hours[day]

        one_day = timedelta(days=1)
        self.worked = [
            any(opens <= second < closes for opens, closes in worked_on(day))
            or any(opens <= second + 86_400 < closes for opens, closes in worked_on(day - one_day))
            for day, second in wall_clock(project.timezone)
        ]
        self.before = [0, *accumulate(QUARTER if worked else 0 for worked in self.worked)]

    def between(self, start: int, end: int) -> int:
        """Working seconds."""
        return self._until(end) - self._until(start)

    def _until(self, second: int) -> int:
        quarter, rest = second // QUARTER - FIRST, second % QUARTER
        return self.before[quarter] + (rest if self.worked[quarter] else 0)

    def after(self, start: int, seconds: int) -> int | None:
        """The first second by which so much was worked after ``start``."""
        wanted = self._until(start) + seconds
        quarter = bisect_left(self.before, wanted) - 1
        if quarter + 1 >= len(self.before):
            return None
        return (FIRST + quarter) * QUARTER + wanted - self.before[quarter]


class Calendars:
    """The working hours of a project."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._strips: dict[str | None, Strip] = {}
        for group in {week.group for week in project.weeks}:
            weeks = [week for week in project.weeks if week.group in (group, None)]
            self._strips[group] = Strip(project, weeks)

    def scope(self, group: str | None) -> int | None:
        """Number of the first calendar among those that apply to a group."""
        own = group if group in self._strips else None
        return min((w.number for w in self._project.weeks if w.group == own), default=None)

    def strip(self, group: str | None) -> Strip | None:
        """The hours of a group; none = every second counts."""
        return self._strips.get(group, self._strips.get(None))


@dataclass
class Visit:
    """A visit of an order to a status."""

    number: int
    stage: str
    group: str | None
    kind: str
    entered_at: datetime
    left_at: datetime | None
    is_waiting: bool
    is_inferred: bool
    delivery: str | None
    seconds: int | None = None
    working: int | None = None


def second(instant: datetime | None) -> int | None:
    """Whole seconds since 1970, where the instant can be believed."""
    if instant is None or not PLAUSIBLE[0] <= instant < PLAUSIBLE[1]:
        return None
    return int((instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1))


def one(settings: list[Setting]) -> Setting | None:
    """The only one; the tests' settings never hold two for one thing."""
    (found,) = settings or [None]
    return found


def visits_of(project: Project, order: Order, calendars: Calendars) -> list[Visit]:
    """The visits of an order, in their order."""
    entries: dict[tuple[str, datetime], Event] = {}
    for event in order.events:
        key = (event.stage, event.entered_at)
        if key not in entries or event.delivery:
            entries[key] = event
    late = datetime.max.replace(tzinfo=UTC)
    events = sorted(
        entries.values(),
        key=lambda e: (e.entered_at, e.landed_at or late, e.delivery or "~", e.stage),
    )
    first = events[0]
    created = first.created_at if second(first.created_at) is not None else None
    places = [(n, e.stage, e.group, e.entered_at, e) for n, e in enumerate(events, 1)]
    if first.came_from is None:
        if created:
            places[0] = (1, first.stage, first.group, min(created, first.entered_at), first)
    elif created and created < first.entered_at:
        places.insert(0, (0, first.came_from, None, created, first))
    visits = []
    for at, (number, stage, stated, entered_at, event) in enumerate(places):
        group = stated or project.stages.get(stage)
        left_at = places[at + 1][3] if at + 1 < len(places) else None
        waits = project.in_force("waiting_stages", entered_at, stage_id=stage)
        visit = Visit(
            number,
            stage,
            group,
            project.groups.get(group or "", "open"),
            entered_at,
            left_at,
            bool(waits),
            number == 0,
            event.delivery or None,
        )
        start, end = second(entered_at), second(left_at)
        if start is not None and end is not None:
            strip = calendars.strip(group)
            visit.seconds = end - start
            visit.working = strip.between(start, end) if strip else end - start
        visits.append(visit)
    return visits


def known(visits: list[Visit], as_of: datetime) -> list[Visit]:
    """The visits as they stood at an instant; what cannot be believed is not waited for."""
    begun = [v for v in visits if second(v.entered_at) is None or v.entered_at <= as_of]
    for visit, next_visit in zip_longest(begun, begun[1:]):
        left_at = next_visit and next_visit.entered_at
        if visit.left_at != left_at:
            visit.left_at, visit.seconds, visit.working = left_at, None, None
    return begun


def urgency(project: Project, order: Order, started_at: datetime) -> str | None:
    """The oldest rule that makes an order urgent."""
    matching = [
        rule
        for rule in project.in_force("urgent_rules", started_at)
        if any(
            item[str(rule.values["match_type"])] == rule.values["match_value"]
            for item in order.items
        )
    ]
    oldest = min(matching, key=lambda rule: rule.number, default=None)
    return str(oldest.values["rule_name"]) if oldest else None


def state(seconds: int | None, limit: int | None, near: int) -> str | None:
    """How much of the limit is used."""
    if seconds is None or limit is None:
        return None
    if seconds >= limit:
        return "over"
    return "near" if seconds * 100 >= limit * near else "ok"


@dataclass
class Stay:
    """A visit of an order to a group: statuses of one group that follow each other."""

    visits: list[Visit]
    rule_name: str | None
    override: Setting | None
    rule: Setting | None
    near: int

    @property
    def is_urgent(self) -> bool:
        """What the override says, else whether a rule made it so."""
        if self.override and self.override.values["is_urgent"] is not None:
            return bool(self.override.values["is_urgent"])
        return self.rule_name is not None

    @property
    def limit(self) -> int | None:
        """Seconds that the order may stay."""
        return int(str(self.rule.values["limit_seconds"])) if self.rule else None

    def total(self, form: str, waiting: bool | None = None) -> int | None:
        """Seconds of all visits, or of those that wait or do not; None if one has none."""
        found = [getattr(v, form) for v in self.visits]
        if None in found:
            return None
        return sum(getattr(v, form) for v in self.visits if waiting in (None, v.is_waiting))


def stays_of(project: Project, order: Order, visits: list[Visit]) -> list[Stay]:
    """The visits to groups, with what judges them."""
    rule_name = urgency(project, order, visits[0].entered_at)
    stays = []
    for _, group_visits in groupby(visits, key=lambda visit: visit.group):
        members = list(group_visits)
        began = members[0].entered_at
        stay = Stay(members, rule_name, None, None, 80)
        stay.override = one([row for row in order.overrides if row.counts_at(began)])
        profile = stay.override.values["sla_profile"] if stay.override else None
        urgent_grid = profile == "urgent" if profile else stay.is_urgent
        if members[0].kind == "open":
            group = members[0].group
            found = project.in_force(
                "sla_stage_rules", began, group_id=group, is_urgent=urgent_grid
            )
            stay.rule = one(found)
        threshold = one(project.in_force("sla_thresholds", began))
        if threshold:
            stay.near = int(str(threshold.values["near_pct"]))
        stays.append(stay)
    return stays


def due_at(stay: Stay, calendars: Calendars) -> int | None:
    """When the limit of the last stay is used up, walking through its visits."""
    left = stay.limit
    strip = calendars.strip(stay.visits[0].group)
    if left is None:
        return None
    for visit in stay.visits:
        if visit.is_waiting:
            continue
        start = second(visit.entered_at)
        if visit.left_at is None or (visit.working is not None and visit.working >= left):
            if start is None:
                return None
            return strip.after(start, left) if strip else start + left
        left -= visit.working or 0
    return None


def cycles_of(project: Project, visits: list[Visit], stays: list[Stay]) -> list[Row]:
    """Each cycle that applies to an order."""
    override = stays[-1].override.values if stays[-1].override else {}
    own_start = (override.get("cycle_start_group_id"), override.get("cycle_start_stage_id"))
    own_end = (override.get("cycle_end_group_id"), override.get("cycle_end_stage_id"))
    cycles = []
    for rule in project.in_force("cycle_rules", visits[0].entered_at):
        start = (rule.values["start_group_id"], rule.values["start_stage_id"])
        end = (rule.values["end_group_id"], rule.values["end_stage_id"])
        if rule.values["is_default"]:
            start, end = (own_start if any(own_start) else start, own_end if any(own_end) else end)
        cycles.append((rule.number, rule.values["title"], rule.values["is_default"], start, end))
    if any(own_start) and any(own_end) and not any(cycle[2] for cycle in cycles):
        cycles.append((0, "override", True, own_start, own_end))
    group_entries = {stay.visits[0].number for stay in stays}
    rows = []
    for number, title, is_default, start, end in cycles:

        def enters(visit: Visit, place: tuple[Any, Any]) -> bool:
            group, stage = place
            if stage is not None:
                return visit.stage == stage
            return visit.group == group and visit.number in group_entries

        starts = [at for at, visit in enumerate(visits) if enters(visit, start)]
        ends = [at for at, visit in enumerate(visits) if enters(visit, end)]
        start_at = visits[starts[0]].entered_at if starts else None
        reached = [at for at in ends if start_at and visits[at].entered_at >= start_at]
        end_at = visits[reached[0]].entered_at if reached else None
        seconds = working = None
        first, last = second(start_at), second(end_at)
        if first is not None and last is not None:
            seconds = last - first
            working = sum(visit.working or 0 for visit in visits[starts[0] : reached[0]])
        entered = end_at or (visits[ends[0]].entered_at if ends and not starts else None)
        rows.append(
            {
                "cycle_rule_id": number,
                "cycle_title": title,
                "is_default": is_default,
                "is_overridden": bool(is_default and (any(own_start) or any(own_end))),
                "start_group_id": start[0],
                "start_stage_id": start[1],
                "end_group_id": end[0],
                "end_stage_id": end[1],
                "start_at": start_at,
                "end_at": end_at,
                "duration_seconds": seconds,
                "duration_working_seconds": working,
                "has_impossible_duration": int(end_at is not None and seconds is None),
                "entered": entered,
            }
        )
    return rows


def name(stage: str | None, known: Iterable[str], word: str, project: Project) -> str | None:
    """What the dictionaries of the tests call it."""
    return f"{word} {stage} of {project.project_id}" if stage in known else None


def tables(projects: list[Project], as_of: datetime) -> dict[str, Table]:
    """Every table, by its key."""
    found: dict[str, Table] = defaultdict(dict)
    ended: dict[tuple[Any, ...], list[tuple[str, Stay]]] = defaultdict(list)
    for project in projects:
        if not project.is_active:
            continue
        calendars = Calendars(project)
        histories = [
            (order, known(visits_of(project, order, calendars), as_of))
            for order in project.orders
            if not order.is_gone
        ]
        for order, visits in histories:
            if visits:
                _order(project, order, visits, calendars, as_of, found, ended)
        for metric in project.metrics:
            if metric.values["is_on"]:
                past = [[v for v in visits if v.entered_at <= as_of] for _, visits in histories]
                _metric(project, metric, past, as_of, found["flow_metric_values"])
    for key, stays in ended.items():
        found["stage_time_by_period"][key] = _period(projects, key, stays)
    return found


def _order(
    project: Project,
    order: Order,
    visits: list[Visit],
    calendars: Calendars,
    as_of: datetime,
    found: dict[str, Table],
    ended: dict[tuple[Any, ...], list[tuple[str, Stay]]],
) -> None:
    key = (SOURCE, project.project_id, order.order_id)
    stays = stays_of(project, order, visits)
    cycles = cycles_of(project, visits, stays)
    zone = ZoneInfo(project.timezone)

    def stage_name(stage: str | None) -> str | None:
        return name(stage, project.stages, "Status", project)

    def group_name(group: str | None) -> str | None:
        return name(group, project.groups, "Group", project)

    for number, stay in enumerate(stays, 1):
        for visit in stay.visits:
            found["order_status_intervals"][*key, visit.number] = {
                "status_id": visit.stage,
                "status_name": stage_name(visit.stage),
                "status_group_id": visit.group,
                "status_group_name": group_name(visit.group),
                "status_group_kind": visit.kind,
                "group_visit_number": number,
                "is_current": visit.left_at is None,
                "is_waiting": visit.is_waiting,
                "is_unknown_status": visit.stage not in project.stages,
                "is_inferred": visit.is_inferred,
                "entered_at": visit.entered_at,
                "left_at": visit.left_at,
                "duration_seconds": visit.seconds,
                "duration_working_seconds": visit.working,
                "paused_seconds": visit.seconds and visit.seconds * visit.is_waiting,
                "paused_working_seconds": visit.working and visit.working * visit.is_waiting,
                "calendar_scope_id": calendars.scope(visit.group),
                "delivery_id": visit.delivery,
            }
        left_at = stay.visits[-1].left_at
        if left_at and left_at <= as_of:
            day = left_at.astimezone(zone).date()
            starts = {
                "day": day,
                "week": day - timedelta(days=day.weekday()),
                "month": day.replace(day=1),
            }
            group = stay.visits[0].group or "unassigned"
            for period, start in starts.items():
                cell = (*key[:2], period, start, group, stay.is_urgent)
                ended[cell].append((order.order_id, stay))
    for cycle in cycles:
        row = {column: value for column, value in cycle.items() if column != "entered"}
        found["order_cycle_metrics"][*key, row.pop("cycle_rule_id")] = row
    default = next((cycle for cycle in cycles if cycle["is_default"]), None)
    found["orders_current"][key] = {
        **_current(visits, stays, calendars, as_of),
        "last_status_name": stage_name(visits[-1].stage),
        "last_status_group_name": group_name(visits[-1].group),
        "is_unknown_status": visits[-1].stage not in project.stages,
        "delivery_entered_at": default and default["entered"],
        "cycle_duration_to_delivery": default and default["duration_seconds"],
        "cycle_working_duration_to_delivery": default and default["duration_working_seconds"],
        "cycle_rule_id_applied": default and default["cycle_rule_id"],
    }
    if visits[-1].kind == "cancelled":
        at = max((n for n, visit in enumerate(visits) if visit.kind != "cancelled"), default=-1)
        source, goal = visits[at] if at >= 0 else None, visits[at + 1]
        start, end = second(visits[0].entered_at), second(goal.entered_at)
        is_possible = start is not None and end is not None
        found["order_cancellations"][key] = {
            "cancelled_status_id": goal.stage,
            "cancelled_status_name": stage_name(goal.stage),
            "from_status_id": source and source.stage,
            "from_status_name": stage_name(source and source.stage),
            "from_group_id": source and source.group,
            "from_group_name": group_name(source and source.group),
            "is_urgent": stays[-1].is_urgent,
            "started_at": visits[0].entered_at,
            "cancelled_at": goal.entered_at,
            "seconds_until_cancelled": end - start if is_possible else None,  # type: ignore[operator]
            "working_seconds_until_cancelled": (
                sum(visit.working or 0 for visit in visits[: at + 1]) if is_possible else None
            ),
            "has_impossible_duration": int(not is_possible),
        }


def _current(visits: list[Visit], stays: list[Stay], calendars: Calendars, as_of: datetime) -> Row:
    last, stay = visits[-1], stays[-1]
    open_at = max((n for n, visit in enumerate(visits) if visit.kind == "open"), default=-1)
    closed_at = visits[open_at + 1].entered_at if open_at + 1 < len(visits) else None
    is_open = last.kind == "open"
    entered, now = second(last.entered_at), second(as_of)
    clock = working = paused = paused_working = elapsed = None
    assert now is not None
    if is_open and entered is not None:
        strip = calendars.strip(last.group)
        running = max(0, now - entered)
        running_working = strip.between(entered, max(now, entered)) if strip else running
        before = stay.visits[:-1]
        clock = sum(visit.seconds or 0 for visit in before) + running
        working = sum(visit.working or 0 for visit in before) + running_working
        paused = sum(visit.seconds or 0 for visit in before if visit.is_waiting)
        paused_working = sum(visit.working or 0 for visit in before if visit.is_waiting)
        if last.is_waiting:
            paused, paused_working = paused + running, paused_working + running_working
        elapsed = working - paused_working
    due = due_at(stay, calendars)
    override = stay.override.values["is_urgent"] if stay.override else None
    return {
        "last_status_id": last.stage,
        "last_status_group_id": last.group,
        "last_status_group_kind": last.kind,
        "sla_state": state(elapsed, stay.limit, stay.near),
        "urgent_rule_name": stay.rule_name if override is None else None,
        "is_urgent": stay.is_urgent,
        "is_urgency_overridden": override is not None,
        "is_clock_running": is_open and not last.is_waiting,
        "started_at": visits[0].entered_at,
        "last_changed_at": last.entered_at,
        "group_entered_at": stay.visits[0].entered_at,
        "closed_at": closed_at,
        "sla_due_at": datetime.fromtimestamp(due, UTC) if due is not None else None,
        "stage_seconds": clock,
        "stage_working_seconds": working,
        "sla_elapsed_seconds": elapsed,
        "sla_paused_seconds": paused,
        "sla_paused_working_seconds": paused_working,
        "sla_limit_seconds": stay.limit,
        "sla_near_pct": stay.near if stay.rule else None,
        "sla_rule_id_applied": stay.rule and stay.rule.number,
        "calendar_scope_id_applied": calendars.scope(last.group),
    }


def _whole(number: Fraction | None) -> int | None:
    result = rounded(number, 0)
    return None if result is None else int(result)


def _period(projects: list[Project], key: tuple[Any, ...], members: list[tuple[str, Stay]]) -> Row:
    project = next(project for project in projects if project.project_id == key[1])
    judged = [
        state(
            stay.total("working", waiting=False) if stay.total("seconds") is not None else None,
            stay.limit,
            stay.near,
        )
        for _, stay in members
    ]
    count = {which: judged.count(which) for which in ("ok", "near", "over", None)}
    known = len(judged) - count[None]
    paused = [
        sum((visit.seconds or 0) for visit in stay.visits if visit.is_waiting)
        for _, stay in members
    ]
    row: Row = {
        "group_name": name(key[4], project.groups, "Group", project),
        "orders": len({order_id for order_id, _ in members}),
        "visits": len(members),
        "impossible_durations": sum(stay.total("seconds") is None for _, stay in members),
        "judged_visits": known,
        "unjudged_visits": count[None],
        "ok_visits": count["ok"],
        "near_visits": count["near"],
        "over_visits": count["over"],
        "total_paused_seconds": sum(paused),
        "ok_pct": percentage(count["ok"], known),
        "near_pct": percentage(count["near"], known),
        "over_pct": percentage(count["over"], known),
    }
    for form, column in (("seconds", "seconds"), ("working", "working_seconds")):
        values = [value for _, stay in members if (value := stay.total(form)) is not None]
        row[f"total_{column}"] = sum(values) if values else None
        row[f"avg_{column}"] = _whole(quotient(sum(values), len(values)))
        for share in (50, 85, 95):
            row[f"p{share}_{column}"] = _whole(percentile(values, Fraction(share, 100)))
    return row


#: Period -> calendar months and days that it spans.
PERIODS = {"7d": (0, 7), "14d": (0, 14), "1m": (1, 0), "3m": (3, 0), "6m": (6, 0), "12m": (12, 0)}


def earlier(day: date, months: int, days: int) -> date:
    """The same day of an earlier month, or its last one, and so many days before that."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return day.replace(
        year=year, month=month + 1, day=min(day.day, monthrange(year, month + 1)[1])
    ) - timedelta(days=days)


def _metric(
    project: Project, metric: Setting, histories: list[list[Visit]], as_of: datetime, table: Table
) -> None:
    clock = ZoneInfo(project.timezone)
    today = as_of.astimezone(clock).date()
    journeys: list[tuple[date, int | None, int | None]] = []
    for visits in histories:
        start = next(
            (n for n, v in enumerate(visits) if v.stage == metric.values["start_stage_id"]), None
        )
        if start is None:
            continue
        goals = [
            n
            for n, v in enumerate(visits)
            if v.stage == metric.values["end_stage_id"] and v.entered_at >= visits[start].entered_at
        ]
        first = second(visits[start].entered_at)
        last = second(visits[goals[0]].entered_at) if goals else None
        if last is not None:
            day = visits[goals[0]].entered_at.astimezone(clock).date()
            working = sum(visit.working or 0 for visit in visits[start : goals[0]])
            whole = None if first is None else last - first
            journeys.append((day, whole, None if first is None else working))
    counted = 2 if metric.values["is_working_time"] else 1
    green, red = metric.values["green_limit_seconds"], metric.values["red_limit_seconds"]
    for period, (months, days) in PERIODS.items():
        begins, before_begins = earlier(today, months, days), earlier(today, 2 * months, 2 * days)
        now = [j for j in journeys if begins < j[0] <= today]
        before = [j for j in journeys if before_begins < j[0] <= begins]
        row: Row = {
            "source_system": SOURCE,
            "project_id": project.project_id,
            "title": metric.values["title"],
            "comment": None,
            "is_working_time": metric.values["is_working_time"],
            "position": None,
            "deals": sum(j[1] is not None for j in now),
            "impossible_durations": sum(j[1] is None for j in now),
            "before_deals": sum(j[1] is not None for j in before),
            "green_limit_seconds": green,
            "red_limit_seconds": red,
        }
        means = {}
        for at, column in ((1, "seconds"), (2, "working_seconds")):
            values = [j[at] for j in now if j[at] is not None]
            past = [j[at] for j in before if j[at] is not None]
            means[at] = quotient(sum(values), len(values)), quotient(sum(past), len(past))
            row[f"avg_{column}"] = _whole(means[at][0])
            row[f"before_avg_{column}"] = _whole(means[at][1])
            row[f"best_{column}"] = min(values, default=None)
            row[f"worst_{column}"] = max(values, default=None)
            for share in (50, 85, 95):
                row[f"p{share}_{column}"] = _whole(percentile(values, Fraction(share, 100)))
        mean, past_mean = means[counted]
        no_trend = mean is None or past_mean is None
        row["trend_pct"] = None if no_trend else percentage(mean - past_mean, past_mean)
        row["colour"] = _colour(mean, green, red)
        table[metric.number, 0, period] = row


def _colour(mean: Fraction | None, green: Any, red: Any) -> str | None:
    if mean is None or (green is None and red is None):
        return None
    if mean <= (red if green is None else green):
        return "green"
    return "red" if red is None or mean > red else "amber"
