"""The flow tables of deals computed a second time, in plain Python over sorted lists.

From the definitions in ``docs/kpis.md`` and not from the SQL: visits are lists, a stage's meaning
is looked up for each visit among all rows of the map, time is summed visit by visit, and work in
progress is added up deal by deal. Working time is counted quarter of an hour by quarter of an hour
on the clock of the wall, so windows and changes of clocks have to lie on quarters.
"""

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.kpi_oracle import percentage, percentile, quotient, rounded

Row = dict[str, Any]
Table = dict[tuple[Any, ...], Row]

#: Columns that identify a row of each table.
VISIT = ("source_system", "project_id", "entity_type", "entity_id", "visit_number")
ENTITY = ("report_version", "source_system", "project_id", "entity_type", "entity_id")
GRAIN: dict[str, tuple[str, ...]] = {
    "int_stage_intervals": VISIT,
    "deal_stage_timeline": ("report_version", *VISIT),
    "major_stage_durations": (*ENTITY, "major_key"),
    "deal_metrics": ENTITY,
    "flow_stage_kpis": ("report_version", "period", "major_key"),
    "flow_throughput": ("report_version", "source_system", "project_id", "date_day"),
    "unmapped_stage_events": (
        *("report_version", "source_system", "project_id", "pipeline_id", "stage_id"),
    ),
}

FIRST_POSSIBLE = datetime(2000, 1, 1, tzinfo=UTC)
FIRST_IMPOSSIBLE = datetime(2100, 1, 1, tzinfo=UTC)
QUARTER = 900

_REFERENCE = Path(__file__).parents[1] / "seeds" / "reference"


def reference(name: str) -> list[dict[str, str]]:
    """The rows of a reference seed."""
    with (_REFERENCE / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


MAJORS = [row["major_key"] for row in reference("canonical_major_stages")]
BOUNDARIES = {
    row["major_key"]: (row["entry_sub_key"], row["exit_sub_key"])
    for row in reference("canonical_stage_boundaries")
}
MAJOR_OF = {row["sub_key"]: row["major_key"] for row in reference("canonical_substages")}
ACTIVE = {
    row["sub_key"] for row in reference("canonical_substages") if row["is_active_work"] == "true"
}
PERIODS = [
    (row["period"], int(row["days"]), int(row["months"])) for row in reference("flow_periods")
]


@dataclass(frozen=True)
class Calendar:
    """A row of ``settings.calendars`` with its windows: weekday -> (opens, closes) in seconds."""

    effective_from: date
    effective_to: date | None
    windows: Mapping[int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True)
class Stage:
    """A row of ``settings.stage_dictionary``."""

    pipeline_id: str | None
    group_id: str | None


@dataclass(frozen=True)
class MapRow:
    """A row of ``settings.stage_map_scd``."""

    report_version: int
    project: tuple[str, str]
    pipeline_id: str | None
    stage_id: str | None
    sub_key: str
    effective_from: datetime
    effective_to: datetime | None


@dataclass(frozen=True)
class Project:
    """A project with all that is set for it; calendars by group, None = the project's own."""

    key: tuple[str, str]
    timezone: str
    calendars: Mapping[str | None, tuple[Calendar, ...]] = field(default_factory=dict)
    exceptions: Mapping[date, int | None] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, Stage] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """An entry into a stage, as one source tells of it.

    Attributes:
        sequence: Place in its file; None for what a delivery told.
        delivery_id: Delivery that told of it; None for a line of a file.
    """

    project: tuple[str, str]
    entity_type: str
    entity_id: str
    stage_id: str
    entered_at: datetime
    pipeline_id: str | None = None
    group_id: str | None = None
    previous_stage_id: str | None = None
    created_at: datetime | None = None
    ingested_at: datetime | None = None
    sequence: int | None = None
    delivery_id: str | None = None


@dataclass(frozen=True)
class World:
    """Everything that the flow tables are made of.

    Attributes:
        deletions: (project, entity type, entity id, event, when) of ``raw.lifecycle_events``.
        days: First and last UTC day between which the working calendars are walked.
    """

    as_of: datetime
    projects: tuple[Project, ...]
    versions: tuple[int, ...]
    stage_map: tuple[MapRow, ...]
    events: tuple[Event, ...]
    deletions: tuple[tuple[tuple[str, str], str, str, str, datetime], ...]
    days: tuple[date, date]


@dataclass
class Visit:
    """A visit of a stage; ``second`` and ``left_second`` are None where impossible or open."""

    number: int
    pipeline_id: str | None
    stage_id: str
    group_id: str | None
    group_kind: str
    entered_at: datetime
    left_at: datetime | None
    seconds: int | None
    working_seconds: int | None
    sub_key: str | None = None


Entity = tuple[tuple[str, str], str, str]


def is_possible(instant: datetime) -> bool:
    """Whether a CRM could have noted it."""
    return FIRST_POSSIBLE <= instant < FIRST_IMPOSSIBLE


def second(instant: datetime) -> int:
    """Whole seconds since 1970."""
    return int((instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1))


class Clock:
    """Walks a zone quarter by quarter, once, and answers from what it saw.

    Attributes:
        day_starts: First second of each local day that begins within the walk.
    """

    def __init__(self, project: Project, days: tuple[date, date]) -> None:
        zone = ZoneInfo(project.timezone)
        first = second(datetime(days[0].year, days[0].month, days[0].day, tzinfo=UTC))
        last = second(datetime(days[1].year, days[1].month, days[1].day, tzinfo=UTC))
        self._first = first
        self._project = project
        self.walls = [
            datetime.fromtimestamp(at, zone).replace(tzinfo=None)
            for at in range(first, last, QUARTER)
        ]
        self.day_starts: dict[date, int] = {}
        for place, wall in enumerate(self.walls):
            self.day_starts.setdefault(wall.date(), first + place * QUARTER)
        self._open: dict[str | None, tuple[list[bool], list[int]]] = {}

    def working_seconds(self, group: str | None, start: int, end: int) -> int:
        """Working seconds of a group from one second to another."""
        calendars = self._project.calendars
        if group not in calendars:
            group = None
        if group not in calendars:
            return end - start
        if group not in self._open:
            is_open = self._walk(group)
            before = [0]
            for quarter in is_open:
                before.append(before[-1] + (QUARTER if quarter else 0))
            self._open[group] = (is_open, before)
        return self._position(group, end) - self._position(group, start)

    def _position(self, group: str | None, at: int) -> int:
        is_open, before = self._open[group]
        quarter, rest = divmod(at - self._first, QUARTER)
        assert quarter >= 0
        return before[quarter] + (rest if rest and is_open[quarter] else 0)

    def _walk(self, group: str | None) -> list[bool]:
        windows: dict[date, tuple[tuple[int, int], ...]] = {}
        answers = []
        for wall in self.walls:
            today, passed = wall.date(), wall.hour * 3600 + wall.minute * 60
            yesterday = today - timedelta(days=1)
            for day in (yesterday, today):
                if day not in windows:
                    windows[day] = self._windows(group, day)
            answers.append(
                any(opens <= passed < closes for opens, closes in windows[today])
                or any(opens <= passed + 86400 < closes for opens, closes in windows[yesterday])
            )
        return answers

    def _windows(self, group: str | None, day: date) -> tuple[tuple[int, int], ...]:
        weekday: int | None = day.isoweekday()
        if day in self._project.exceptions:
            weekday = self._project.exceptions[day]
        for owner in (group, None):
            for calendar in self._project.calendars.get(owner, ()):
                if calendar.effective_from <= day and (
                    calendar.effective_to is None or day < calendar.effective_to
                ):
                    return calendar.windows.get(weekday, ()) if weekday else ()
        return ((0, 86400),)


class Flow:
    """The flow tables of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.projects = {project.key: project for project in world.projects}
        self.clocks = {project.key: Clock(project, world.days) for project in world.projects}
        self.visits = {
            entity: self._visits(entity, events) for entity, events in self._histories().items()
        }
        gone = self._deleted()
        self.known = {
            entity: known
            for entity, visits in self.visits.items()
            if entity not in gone and (known := self._known(visits))
        }
        self._maps: dict[tuple[int, tuple[str, str]], list[MapRow]] = defaultdict(list)
        for row in world.stage_map:
            self._maps[row.report_version, row.project].append(row)

    def _histories(self) -> dict[Entity, list[Event]]:
        """The events of each entity in order; what is told twice is one, filled from both."""
        told: dict[Entity, dict[tuple[str, datetime], list[Event]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for event in self.world.events:
            at = event.entered_at
            if event.project[0] == "pipedrive":
                at = at.replace(microsecond=0)
            entity = (event.project, event.entity_type, event.entity_id)
            told[entity][event.stage_id, at].append(replace(event, entered_at=at))
        late = datetime.max.replace(tzinfo=UTC)
        histories = {}
        for entity, entries in told.items():
            events = []
            for same in entries.values():
                same.sort(
                    key=lambda e: (
                        e.delivery_id is None,
                        e.ingested_at or late,
                        e.delivery_id or "",
                    )
                )
                best = same[0]
                for column in (
                    *("pipeline_id", "group_id", "previous_stage_id", "created_at", "sequence"),
                ):
                    if getattr(best, column) is None:
                        others = [
                            getattr(e, column) for e in same if getattr(e, column) is not None
                        ]
                        if others:
                            best = replace(best, **{column: max(others)})
                ingested = [e.ingested_at for e in same if e.ingested_at]
                events.append(replace(best, ingested_at=min(ingested, default=None)))
            events.sort(
                key=lambda e: (
                    e.entered_at,
                    (e.sequence is None, e.sequence or 0),
                    e.ingested_at or late,
                    (e.delivery_id is None, e.delivery_id or ""),
                    e.stage_id,
                )
            )
            histories[entity] = events
        return histories

    def _visits(self, entity: Entity, events: list[Event]) -> list[Visit]:
        first = events[0]
        created = first.created_at
        if created is not None and not is_possible(created):
            created = None
        entries: list[tuple[int, str | None, str, str | None, datetime]] = []
        if first.previous_stage_id and created and created < first.entered_at:
            entries.append((0, None, first.previous_stage_id, None, created))
        for number, event in enumerate(events, start=1):
            at = event.entered_at
            if number == 1 and not event.previous_stage_id and created:
                at = min(at, created)
            entries.append((number, event.pipeline_id, event.stage_id, event.group_id, at))
        visits = []
        for place, (number, pipeline, stage, group, at) in enumerate(entries):
            left = entries[place + 1][4] if place + 1 < len(entries) else None
            known = self.projects[entity[0]].stages.get(stage, Stage(None, None))
            group = group or known.group_id
            seconds = working = None
            if left is not None and is_possible(at) and is_possible(left):
                seconds = second(left) - second(at)
                working = self.clocks[entity[0]].working_seconds(group, second(at), second(left))
            visits.append(
                Visit(
                    number,
                    pipeline or known.pipeline_id,
                    stage,
                    group,
                    self.projects[entity[0]].groups.get(group or "", "open"),
                    at,
                    left,
                    seconds,
                    working,
                )
            )
        return visits

    def _deleted(self) -> set[Entity]:
        last: dict[Entity, tuple[datetime, str]] = {}
        for project, entity_type, entity_id, event, at in self.world.deletions:
            entity = (project, entity_type, entity_id)
            if event != "created" and at <= self.world.as_of:
                last[entity] = max(last.get(entity, (at, event)), (at, event))
        return {entity for entity, (_, event) in last.items() if event in ("deleted", "merged")}

    def _is_known(self, instant: datetime) -> bool:
        return instant <= self.world.as_of or not is_possible(instant)

    def _known(self, visits: list[Visit]) -> list[Visit]:
        entered = [visit for visit in visits if self._is_known(visit.entered_at)]
        known = []
        for visit, following in zip(entered, [*entered[1:], None], strict=False):
            if visit.left_at is not None and not self._is_known(visit.left_at):
                # What is known of later shows all the same where it is impossible, and ends it.
                left_at = following.entered_at if following else None
                visit = replace(visit, left_at=left_at, seconds=None, working_seconds=None)
            known.append(visit)
        return known

    def _meaning(self, version: int, project: tuple[str, str], visit: Visit) -> str | None:
        matching = [
            row
            for row in self._maps[version, project]
            if row.pipeline_id in (None, visit.pipeline_id)
            and row.stage_id in (None, visit.stage_id)
            and row.effective_from <= visit.entered_at
            and (row.effective_to is None or visit.entered_at < row.effective_to)
        ]
        matching.sort(key=lambda row: (row.stage_id is not None, row.pipeline_id is not None))
        return matching[-1].sub_key if matching else None

    def tables(self) -> dict[str, Table]:
        """Every table by its name."""
        result: dict[str, Table] = {name: {} for name in GRAIN}
        for (project, kind, entity_id), visits in self.visits.items():
            for v in visits:
                result["int_stage_intervals"][*project, kind, entity_id, v.number] = {
                    "pipeline_id": v.pipeline_id,
                    "stage_id": v.stage_id,
                    "stage_group_id": v.group_id,
                    "group_kind": v.group_kind,
                    "entered_at": v.entered_at,
                    "left_at": v.left_at,
                    "is_current": v.left_at is None,
                    "is_inferred": v.number == 0,
                    "seconds": v.seconds,
                    "working_seconds": v.working_seconds,
                }
        for version in self.world.versions:
            for entity, known in self.known.items():
                mapped = [replace(v, sub_key=self._meaning(version, entity[0], v)) for v in known]
                self._entity(result, version, entity, mapped)
            self._unmapped(result, version)
            self._stage_kpis(result, version)
            self._throughput(result, version)
        return result

    def _entity(
        self, result: dict[str, Table], version: int, entity: Entity, visits: list[Visit]
    ) -> None:
        project, kind, entity_id = entity
        key = (version, *project, kind, entity_id)

        def between(start: datetime, end: datetime, column: str, subs: set[str] | None) -> int:
            return sum(
                getattr(v, column)
                for v in visits
                if start <= v.entered_at < end and (subs is None or v.sub_key in subs)
            )

        def age(at: datetime, column: str) -> int | None:
            return (
                between(
                    min(v.entered_at for v in visits if is_possible(v.entered_at)), at, column, None
                )
                if is_possible(at)
                else None
            )

        for v in visits:
            result["deal_stage_timeline"][*key[:-2], kind, entity_id, v.number] = {
                "pipeline_id": v.pipeline_id,
                "stage_id": v.stage_id,
                "stage_group_id": v.group_id,
                "group_kind": v.group_kind,
                "sub_key": v.sub_key,
                "major_key": MAJOR_OF[v.sub_key] if v.sub_key else None,
                "is_entry": any(v.sub_key == entry for entry, _ in BOUNDARIES.values()),
                "is_exit": any(v.sub_key == end for _, end in BOUNDARIES.values()),
                "is_current": v.left_at is None,
                "is_inferred": v.number == 0,
                "seconds": v.seconds,
                "working_seconds": v.working_seconds,
                "age_seconds": age(v.entered_at, "seconds"),
                "age_working_seconds": age(v.entered_at, "working_seconds"),
                "entered_at": v.entered_at,
                "left_at": v.left_at,
            }
        spans: dict[str, Row] = {}
        for major, (entry_sub, exit_sub) in BOUNDARIES.items():
            entries = [v.entered_at for v in visits if v.sub_key == entry_sub]
            if not entries:
                continue
            entry = min(entries)
            exits = [v.entered_at for v in visits if v.sub_key == exit_sub]
            exit_at = min((at for at in exits if at >= entry), default=None)
            subs = [None, *(v.sub_key for v in visits)]
            reason = "open" if exit_at is None else None
            if not is_possible(entry) or (exit_at and not is_possible(exit_at)):
                reason = "impossible duration"
            spans[major] = {
                "excluded_reason": reason,
                "entry_count": sum(a != b == entry_sub for a, b in pairwise(subs)),
                "age_at_entry_seconds": age(entry, "seconds"),
                "age_at_entry_working_seconds": age(entry, "working_seconds"),
                "duration_seconds": None
                if reason or exit_at is None
                else second(exit_at) - second(entry),
                "duration_working_seconds": None
                if reason or exit_at is None
                else between(entry, exit_at, "working_seconds", None),
                "entry_at": entry,
                "exit_at": exit_at,
            }
            result["major_stage_durations"][*key, major] = spans[major]
        result["deal_metrics"][key] = self._journey(visits, spans, between, age)

    def _journey(
        self,
        visits: list[Visit],
        spans: Mapping[str, Row],
        between: Callable[[datetime, datetime, str, set[str] | None], int],
        age: Callable[[datetime, str], int | None],
    ) -> Row:
        start = spans.get(MAJORS[0], {}).get("entry_at")
        end = spans.get(MAJORS[-1], {}).get("exit_at")
        finished = [s for s in spans.values() if s["duration_seconds"] is not None]
        row: Row = {
            "visits": len(visits),
            "unmapped_visits": sum(v.sub_key is None for v in visits),
            "finished_stages": len(finished),
            "is_complete": start is not None and end is not None,
            "total_stage_seconds": None,
            "total_stage_working_seconds": None,
            "first_entry_at": start,
            "last_exit_at": end,
        }
        if finished:
            row["total_stage_seconds"] = sum(s["duration_seconds"] for s in finished)
            row["total_stage_working_seconds"] = sum(
                s["duration_working_seconds"] for s in finished
            )
        if start is None or end is None:
            row["excluded_reason"] = "not complete"
        elif (
            not is_possible(start)
            or spans[MAJORS[-1]]["duration_seconds"] is None
            or second(end) < second(start)
        ):
            row["excluded_reason"] = "impossible duration"
        else:
            row["excluded_reason"] = None
        for column in (
            *("e2e_seconds", "e2e_working_seconds", "covered_seconds", "covered_working_seconds"),
            *("active_working_seconds", "flow_efficiency_pct", "covered_pct", "active_pct"),
        ):
            row[column] = None
        if row["excluded_reason"] is None:
            assert start is not None and end is not None
            inside = [
                v
                for v in visits
                if start <= v.entered_at < end
                and any(s["entry_at"] <= v.entered_at < s["exit_at"] for s in finished)
            ]
            e2e = max(second(end) - second(start), 0)
            working = between(start, end, "working_seconds", None)
            active = between(start, end, "working_seconds", ACTIVE)
            covered = sum(v.seconds or 0 for v in inside)
            row |= {
                "e2e_seconds": e2e,
                "e2e_working_seconds": working,
                "covered_seconds": covered,
                "covered_working_seconds": sum(v.working_seconds or 0 for v in inside),
                "active_working_seconds": active,
                "flow_efficiency_pct": percentage(row["total_stage_seconds"], e2e),
                "covered_pct": percentage(covered, e2e),
                "active_pct": percentage(active, working),
            }
        ended = [v.entered_at for v in visits if v.group_kind != "open"]
        finished_at = min([*ended, *([end] if end else [])], default=None)
        row["started_at"] = min(v.entered_at for v in visits)
        row["finished_at"] = finished_at
        for column in ("seconds", "working_seconds"):
            known = finished_at if is_possible(row["started_at"]) else None
            row[f"age_at_finish_{column}"] = age(known, column) if known else None
        return row

    def _unmapped(self, result: dict[str, Table], version: int) -> None:
        found: dict[tuple[Any, ...], list[tuple[datetime, str, str]]] = defaultdict(list)
        for key, row in result["deal_stage_timeline"].items():
            if key[0] == version and row["sub_key"] is None:
                stage = (*key[:3], row["pipeline_id"], row["stage_id"])
                found[stage].append((row["entered_at"], key[3], key[4]))
        for stage, visits in found.items():
            latest: dict[tuple[str, str], datetime] = {}
            for at, kind, entity_id in visits:
                latest[kind, entity_id] = max(at, latest.get((kind, entity_id), at))
            sample = sorted(latest, key=lambda entity: (-latest[entity].timestamp(), entity[1]))
            result["unmapped_stage_events"][stage] = {
                "unmapped_stage_key": "|".join(
                    "*" if part is None else str(part) for part in stage
                ),
                "sample_entities": ", ".join(entity_id for _, entity_id in sample[:5]),
                "event_count": len(visits),
                "first_seen_at": min(visits)[0],
                "last_seen_at": max(visits)[0],
            }

    def _local_date(self, project: tuple[str, str], instant: datetime) -> date:
        return instant.astimezone(ZoneInfo(self.projects[project].timezone)).date()

    def _stage_kpis(self, result: dict[str, Table], version: int) -> None:
        exits: dict[str, list[tuple[tuple[str, str], date, Row]]] = defaultdict(list)
        for key, row in result["major_stage_durations"].items():
            if key[0] == version and row["exit_at"] and is_possible(row["exit_at"]):
                project = (key[1], key[2])
                exits[key[-1]].append((project, self._local_date(project, row["exit_at"]), row))
        todays = {p: self._local_date(p, self.world.as_of) for p in self.projects}
        for period, days, months in PERIODS:
            edges = {
                p: [
                    _months_before(today, months * times) - timedelta(days=days * times)
                    for times in (0, 1, 2)
                ]
                for p, today in todays.items()
            }
            for major in MAJORS:
                now = [r for p, day, r in exits[major] if edges[p][1] < day <= edges[p][0]]
                before = [r for p, day, r in exits[major] if edges[p][2] < day <= edges[p][1]]
                result["flow_stage_kpis"][version, period, major] = self._cell(now, before)

    def _cell(self, now: list[Row], before: list[Row]) -> Row:
        row: Row = {}
        for prefix, rows in (("", now), ("before_", before)):
            row[f"{prefix}deals"] = sum(r["duration_seconds"] is not None for r in rows)
            row[f"{prefix}impossible_durations"] = sum(r["duration_seconds"] is None for r in rows)
        for clock in ("seconds", "working_seconds"):
            means = []
            for prefix, rows in (("", now), ("before_", before)):
                possible = [r for r in rows if r["duration_seconds"] is not None]
                times = [r[f"duration_{clock}"] for r in possible]
                means.append(quotient(sum(times), len(times)))
                row[f"{prefix}avg_{clock}"] = rounded(means[-1], 0)
                row[f"{prefix}best_{clock}"] = min(times, default=None)
                row[f"{prefix}worst_{clock}"] = max(times, default=None)
                for share in (50, 85, 95):
                    row[f"{prefix}p{share}_{clock}"] = _percentile(times, share)
                if not prefix:
                    ages = [r[f"age_at_entry_{clock}"] + r[f"duration_{clock}"] for r in possible]
                    for share in (50, 70, 85, 95):
                        row[f"p{share}_age_at_exit_{clock}"] = _percentile(ages, share)
            trend = "trend_pct" if clock == "seconds" else "working_trend_pct"
            both = means[0] is not None and means[1] is not None
            row[trend] = percentage(means[0] - means[1], means[1]) if both else None
        return row

    def _throughput(self, result: dict[str, Table], version: int) -> None:
        for project in self.projects:
            self._project_throughput(result, version, project)

    def _project_throughput(
        self, result: dict[str, Table], version: int, project: tuple[str, str]
    ) -> None:
        deals = {
            key: row
            for key, row in result["deal_metrics"].items()
            if key[:3] == (version, *project)
        }
        impossible = {
            key
            for key, row in deals.items()
            if not is_possible(row["started_at"])
            or (row["finished_at"] and not is_possible(row["finished_at"]))
        }
        counted = {key: row for key, row in deals.items() if key not in impossible}
        if not counted:
            return
        starts = self.clocks[project].day_starts
        today = self._local_date(project, self.world.as_of)
        day = min(self._local_date(project, row["started_at"]) for row in counted.values())
        days = []
        while day <= today:
            days.append(day)
            day += timedelta(days=1)
        edges = [starts[day] for day in days] + [second(self.world.as_of)]
        rows = [
            {"started": 0, "finished": 0, "wip": 0, "wip_seconds": 0, "ages": [], "done": []}
            | dict.fromkeys(MAJORS, 0)
            for _ in days
        ]
        for key, deal in counted.items():
            start = second(deal["started_at"])
            end = second(deal["finished_at"]) if deal["finished_at"] else None
            first = bisect_right(edges, start, hi=len(days)) - 1
            last = bisect_right(edges, end, hi=len(days)) - 1 if end is not None else len(days) - 1
            rows[first]["started"] += 1
            if end is not None:
                rows[last]["finished"] += 1
                rows[last]["done"].append(deal)
            for place in range(first, last + 1):
                upto = edges[place + 1] if end is None else min(end, edges[place + 1])
                rows[place]["wip_seconds"] += upto - max(start, edges[place])
                if end is None or place < last:
                    rows[place]["wip"] += 1
                    rows[place]["ages"].append(edges[place + 1] - start)
            for major in MAJORS:
                span = result["major_stage_durations"].get((*key, major))
                if span and is_possible(span["entry_at"]):
                    entry = second(span["entry_at"])
                    rows[bisect_right(edges, entry, hi=len(days)) - 1][major] += 1
        totals: dict[str, int] = defaultdict(int)
        for place, (day, row) in enumerate(zip(days, rows, strict=True)):
            for column in ("started", "finished", *MAJORS):
                totals[f"cumulative_{column.lower()}"] += row[column]
            cell = {
                **{column: row[column] for column in ("started", "finished", "wip", "wip_seconds")},
                **totals,
                "impossible_durations": len(impossible),
                "avg_wip_age_seconds": rounded(quotient(sum(row["ages"]), row["wip"]), 0),
                **_stability(rows[max(0, place - 89) : place + 1]),
            }
            for clock in ("seconds", "working_seconds"):
                ages = [deal[f"age_at_finish_{clock}"] for deal in row["done"]]
                cell[f"avg_age_at_finish_{clock}"] = rounded(quotient(sum(ages), len(ages)), 0)
                for share in (50, 70, 85, 95):
                    cell[f"p{share}_age_at_finish_{clock}"] = _percentile(ages, share)
            result["flow_throughput"][version, *project, day] = cell


def _stability(days: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether as much comes as goes: Little's law, by its means over the days."""
    arrivals, departures = (sum(day[name] for day in days) for name in ("started", "finished"))
    done = [
        second(deal["finished_at"]) - second(deal["started_at"]) for d in days for deal in d["done"]
    ]
    wip = Fraction(sum(day["wip_seconds"] for day in days), len(days))
    gap = None
    if wip:
        throughput, lead_time = Fraction(departures, len(days)), quotient(sum(done), departures)
        gap = throughput * (lead_time or 0) / wip - 1
    ratio = quotient(arrivals, departures)
    return {
        "arrivals_per_departure": rounded(ratio, 2),
        "balance_gap_pct": None if gap is None else rounded(100 * gap, 2),
        "is_stable": None
        if ratio is None or gap is None
        else Fraction(4, 5) <= ratio <= Fraction(5, 4) and abs(gap) <= Fraction(1, 5),
    }


def _percentile(values: Iterable[int], share: int) -> Any:
    return rounded(percentile(values, Fraction(share, 100)), 0)


def _months_before(day: date, months: int) -> date:
    """The same day of an earlier month, or its last one."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    for number in range(day.day, 0, -1):
        try:
            return date(year, month + 1, number)
        except ValueError:
            continue
    raise AssertionError("every month has a first day")
