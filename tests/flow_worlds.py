"""Random histories of deals and orders, with maps and calendars, as ugly as CRMs make them."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from tests.flow_oracle import (
    MAJOR_OF,
    Calendar,
    Event,
    MapRow,
    Project,
    Stage,
    World,
)

AS_OF = datetime(2026, 6, 15, 9, 17, 23, 400000, tzinfo=UTC)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
#: Nothing that is possible happens later.
LAST = datetime(2026, 6, 25, tzinfo=UTC)
DAYS = (date(2024, 1, 1), date(2026, 7, 1))
ENTITIES = 2400
#: Each of these versions is published; beside them stand a draft and a retired one.
PUBLISHED = (1, 2)

SUBS = list(MAJOR_OF)
STAGES = [str(number) for number in range(1, 19)]
GROUPS = {"sales": "open", "production": "open", "finished": "done", "lost": "cancelled"}

_HOUR = 3600
_WEEK = dict.fromkeys(range(1, 6), ((9 * _HOUR, 13 * _HOUR), (14 * _HOUR, 18 * _HOUR)))
_LONG_WEEK = dict.fromkeys(range(1, 7), ((8 * _HOUR, 20 * _HOUR),))
_NIGHTS = dict.fromkeys(range(1, 6), ((22 * _HOUR, 30 * _HOUR),)) | {6: ((10 * _HOUR, 12 * _HOUR),)}
_QUARTERS = dict.fromkeys((1, 2, 3, 4, 7), ((9 * _HOUR + 900, 17 * _HOUR + 1800),))
_CHANGE = date(2025, 3, 1)
_LONG_AGO = date(1900, 1, 1)

_STAGES_OF_GROUPS = {
    "15": Stage(None, "finished"),
    "16": Stage("p2", "production"),
    "17": Stage("p1", "lost"),
}

#: Clocks change on Sundays at night; at midnight, so that one day begins twice; on Sundays in the
#: other half of the year; on Fridays; never, and 5:45 h ahead.
PROJECTS = (
    Project(
        ("keycrm", "warsaw"),
        "Europe/Warsaw",
        calendars={
            None: (Calendar(_LONG_AGO, _CHANGE, _WEEK), Calendar(_CHANGE, None, _LONG_WEEK)),
            "production": (Calendar(date(2024, 10, 1), None, _NIGHTS),),
        },
        exceptions={date(2025, 12, 25): None, date(2025, 12, 27): 1, date(2026, 3, 29): 1},
        groups=GROUPS,
        stages=_STAGES_OF_GROUPS,
    ),
    Project(("keycrm", "havana"), "America/Havana", groups=GROUPS, stages=_STAGES_OF_GROUPS),
    Project(
        ("pipedrive", "sydney"),
        "Australia/Sydney",
        calendars={None: (Calendar(_LONG_AGO, None, _WEEK),)},
        groups={"sales": "open", "finished": "done"},
        stages=_STAGES_OF_GROUPS,
    ),
    Project(
        ("file", "cairo"),
        "Africa/Cairo",
        calendars={"sales": (Calendar(_LONG_AGO, None, _QUARTERS),)},
        exceptions={date(2026, 1, 7): None},
        groups=GROUPS,
    ),
    Project(
        ("file", "kathmandu"),
        "Asia/Kathmandu",
        calendars={None: (Calendar(_LONG_AGO, None, _NIGHTS),)},
        groups=GROUPS,
    ),
)


def random_world(seed: int) -> World:
    """Histories of all projects under two published maps."""
    chance = random.Random(seed)  # noqa: S311 - the same histories in every run
    events: list[Event] = []
    deletions = []
    for number in range(ENTITIES):
        # The same ids stand for another deal and another order in each project.
        rest, place = divmod(number, len(PROJECTS))
        entity_id, kind = divmod(rest, 2)
        history = _history(chance, PROJECTS[place], ("deal", "order")[kind], f"{entity_id:05}")
        events += history
        if chance.random() < 0.06:
            event = history[-1]
            at = LAST - timedelta(days=chance.randrange(1, 60))
            for what in chance.sample(["deleted", "restored", "merged", "created"], 2):
                entity = (event.project, event.entity_type, event.entity_id)
                deletions.append((*entity, what, at))
                at += timedelta(hours=chance.randrange(1, 200))
    chance.shuffle(events)
    stage_map = [
        row
        for version in (*PUBLISHED, 3, 4)
        for project in PROJECTS
        for row in _map(chance, version, project)
    ]
    events += _around_changes(stage_map)
    return World(
        AS_OF, PROJECTS, PUBLISHED, tuple(stage_map), tuple(events), tuple(deletions), DAYS
    )


def _map(chance: random.Random, version: int, project: Project) -> list[MapRow]:
    start = datetime(1900, 1, 1, tzinfo=UTC)

    def row(
        pipeline: str | None,
        stage: str | None,
        sub: str,
        since: datetime = start,
        until: datetime | None = None,
    ) -> MapRow:
        return MapRow(version, project.key, pipeline, stage, sub, since, until)

    rows = []
    for place, stage in enumerate(STAGES[: len(SUBS)]):
        sub = SUBS[(place + version - 1) % len(SUBS)]
        if chance.random() < 0.25:
            cut = FIRST + timedelta(seconds=chance.randrange(500 * 86400))
            rows.append(row(None, stage, sub, until=cut))
            later = cut + timedelta(days=chance.choice((0, 0, 30)))
            rows.append(row(None, stage, SUBS[max(place - 1, 0)], since=later))
        elif chance.random() < 0.93:
            rows.append(row(None, stage, sub))
    for stage in chance.sample(STAGES, 4):
        since = datetime(2025, 1, 1, 7, 30, tzinfo=UTC)
        until = datetime(2025, 9, 1, tzinfo=UTC)
        rows.append(row(chance.choice(("p1", "p2")), stage, chance.choice(SUBS), since, until))
    rows.append(row("p2", None, "LEAD.QUALIFIED", since=datetime(2025, 6, 1, tzinfo=UTC)))
    rows.append(
        row(
            None,
            None,
            "QUOTE.STARTED",
            datetime(2024, 9, 1, tzinfo=UTC),
            datetime(2024, 9, 15, tzinfo=UTC),
        )
    )
    return rows


def _around_changes(stage_map: list[MapRow]) -> list[Event]:
    """Deals that enter a stage when its meaning changes, and in the seconds before and after."""
    changes = {
        (row.project, row.pipeline_id, row.stage_id or STAGES[0], instant)
        for row in stage_map
        for instant in (row.effective_from, row.effective_to)
        if instant is not None and instant >= FIRST
    }
    return [
        Event(
            project,
            "deal",
            f"{ENTITIES + number:05}",
            stage,
            instant + timedelta(seconds=seconds),
            pipeline_id=pipeline,
            sequence=seconds + 1,
        )
        for number, (project, pipeline, stage, instant) in enumerate(sorted(changes, key=str))
        for seconds in (-1, 0, 1)
    ]


def _history(chance: random.Random, project: Project, kind: str, entity_id: str) -> list[Event]:
    """The events of an entity: forward, over stages, back, to and fro, and several at once."""
    by_file = project.key[0] == "file" or chance.random() < 0.3
    at = FIRST + timedelta(seconds=chance.randrange(int((LAST - FIRST).total_seconds())))
    if chance.random() < 0.4:
        at = LAST - timedelta(days=chance.randrange(1, 160), seconds=chance.randrange(86400))
    created = None
    if not by_file and chance.random() < 0.5:
        created = at + timedelta(seconds=chance.choice((-200000, -3600, -1, 0, 5)))
        created = chance.choice((created, created, datetime(1948, 5, 1, tzinfo=UTC)))
    # Of two lines that tell of one entry, the first in its file counts, and here are no files.
    is_fine = project.key[0] != "pipedrive" or not by_file
    if not is_fine:
        at = at.replace(microsecond=0)
    place, pipeline = 0, chance.choice((None, "p1", "p2"))
    pace = chance.choice((60, 40000, 400000))
    events: list[Event] = []
    for sequence in range(chance.choice((1, 2, 5, 9, 16, 24))):
        stage = STAGES[place]
        events.append(
            Event(
                project.key,
                kind,
                entity_id,
                stage,
                at,
                pipeline_id=pipeline if chance.random() < 0.9 else None,
                group_id=_group(chance, stage),
                previous_stage_id=STAGES[chance.randrange(18)]
                if not by_file and chance.random() < 0.4
                else None,
                created_at=created,
                sequence=sequence if chance.random() < 0.8 else None,
            )
        )
        step = chance.choice((1, 1, 1, 1, 1, 1, 1, 2, 3, -1, -3, 0))
        if chance.random() < 0.06:
            step = chance.randrange(18) - place
        place = min(max(place + step, 0), len(STAGES) - 1)
        at += timedelta(
            seconds=chance.choice((0, 1, chance.randrange(pace), chance.randrange(pace))),
            microseconds=chance.choice((0, 0, chance.randrange(10**6))) if is_fine else 0,
        )
        if at > LAST:
            break
    if chance.random() < 0.04:
        year = chance.choice((1948, 2150))
        strange = chance.randrange(len(events))
        moved = events[strange].entered_at.replace(year=year, day=1)
        events[strange] = replace(events[strange], entered_at=moved)
    may_be_doubled = by_file or project.key[0] != "pipedrive"
    told: dict[tuple[str, datetime], Event] = {
        (event.stage_id, event.entered_at): event for event in events
    }
    return [
        copy
        for event in told.values()
        for copy in _as_told(chance, event, by_file, chance.random() < 0.05 and may_be_doubled)
    ]


def _group(chance: random.Random, stage: str) -> str | None:
    if stage == "15" and chance.random() < 0.5:
        return "finished"
    if stage == "18":
        return chance.choice(("lost", "finished", None))
    return chance.choice((None, None, "sales", "production", "heard-of-nowhere"))


def _as_told(chance: random.Random, event: Event, by_file: bool, is_doubled: bool) -> list[Event]:
    """The event by a file, or by a delivery that may be late, or by both."""
    line = replace(event, previous_stage_id=None, created_at=None)
    late = chance.choice((1, 1, 30, 9 * 86400))
    delivery = replace(
        event,
        sequence=None,
        delivery_id=str(UUID(int=chance.getrandbits(128))),
        ingested_at=min(max(event.entered_at, FIRST), LAST)
        + timedelta(seconds=late * chance.random()),
    )
    if is_doubled:
        return [replace(line, pipeline_id=event.pipeline_id or "p1"), delivery]
    return [line] if by_file else [delivery]
