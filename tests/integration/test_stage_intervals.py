"""Visits to stages on random histories, held against a computation over sorted lists."""

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from stageline import config
from stageline.database import connect
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.flow_database import store_schedule
from tests.stage_intervals_oracle import Dictionary, Place, Told, visits
from tests.warm_dbt import WarmDbt
from tests.working_time_oracle import Calendar, Schedule, Walk

ENTITIES = 3_000

#: Clocks change on 10 March in New York, and on 31 March in Kyiv.
FIRST = datetime(2024, 2, 20, tzinfo=UTC)
DAYS = 60

OFFICE = {weekday: [(32400, 46800), (50400, 64800)] for weekday in range(1, 6)}
NIGHTS = {weekday: [(79200, 108000)] for weekday in range(1, 8)}
EASTER = {date(2024, 4, 1): None, date(2024, 4, 6): 1}
SCHEDULES: dict[Place, Schedule] = {
    ("keycrm", "kyiv"): Schedule(
        "Europe/Kyiv", [Calendar(OFFICE), Calendar(NIGHTS, group_id="2")], EASTER
    ),
    ("pipedrive", "new-york"): Schedule(
        "America/New_York",
        # Nothing for the project; a group that is in no dictionary works from a day on.
        [Calendar(OFFICE, date(2024, 3, 5), None, "unlisted")],
    ),
    ("file", "plain"): Schedule("UTC", []),
}
GROUP_KINDS = {"1": "open", "2": "open", "3": "done", "4": "cancelled"}
#: One of them is in no dictionary, and one has a group that is in none.
STAGES = {
    "10": ("100", "1"),
    "11": ("100", "2"),
    "12": (None, "3"),
    "13": ("200", "4"),
    "14": ("200", None),
    "15": (None, "unlisted"),
}
UNKNOWN_STAGE = "99"
IMPLAUSIBLE = (datetime(1948, 5, 5, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def history(dice: random.Random, place: Place, number: int) -> list[Told]:
    """What is told of one deal or order, by webhooks and files, in any order."""
    source_system, project_id = place
    # The same ids stand for another deal and another order in each project.
    entity_id, kind = divmod(number // len(SCHEDULES), 2)
    entity_type = ("deal", "order")[kind]
    told: list[Told] = []
    at = FIRST + timedelta(seconds=dice.randint(10 * 86400, 20 * 86400))
    created_at = dice.choice(
        (None, at - timedelta(seconds=dice.randint(0, 5 * 86400)), at, at + timedelta(hours=1))
    )
    if dice.random() < 0.02:
        created_at = dice.choice(IMPLAUSIBLE)
    previous = dice.choice((None, *STAGES, UNKNOWN_STAGE))
    has_sequence = dice.random() < 0.5
    for turn in range(dice.randint(1, 9)):
        step = dice.choice((0, 0, 1, dice.randint(1, 7200), dice.randint(1, 3 * 86400)))
        at += timedelta(seconds=step, microseconds=dice.choice((0, 0, 250_000, 999_999)))
        entered_at = dice.choice(IMPLAUSIBLE) if dice.random() < 0.01 else at
        stage = dice.choice((*STAGES, UNKNOWN_STAGE))
        entry = {
            "source_system": source_system,
            "project_id": project_id,
            "entity_type": entity_type,
            "entity_id": str(entity_id),
            "stage_id": stage,
            "entered_at": entered_at,
        }
        by_webhook = dice.random() < 0.7
        if by_webhook:
            delivery = str(uuid.UUID(int=dice.getrandbits(128)))
            told.append(
                Told(
                    **entry,
                    pipeline_id=dice.choice((None, "100", "300")),
                    stage_group_id=dice.choice((None, None, "1", "2", "3", "unlisted")),
                    previous_stage_id=dice.choice((None, previous)),
                    delivery_id=delivery,
                    entity_created_at=dice.choice((created_at, created_at, None)),
                    ingested_at=at + timedelta(seconds=dice.choice((1, 2, 5 * 86400))),
                    record_origin=f"delivery {delivery}",
                )
            )
        if not by_webhook or dice.random() < 0.3:
            line = len(told) + 2
            told.append(
                Told(
                    **entry,
                    pipeline_id=dice.choice((None, "100", "300")),
                    stage_group_id=dice.choice((None, "2", "unlisted")),
                    sequence=turn if has_sequence or dice.random() < 0.3 else None,
                    record_origin=f"{number}.csv line {line}",
                )
            )
        previous = stage
    dice.shuffle(told)
    kept: dict[tuple[Any, ...], Told] = {}
    for one in told:  # each table has an entry once
        kept[one.stage_id, one.entered_at, one.delivery_id is None] = one
    return list(kept.values())


def store(told: list[Told]) -> None:
    """Puts settings and events where operators, the receiver and the file loader would."""
    with connect("owner") as session, session.cursor() as cursor:
        for (source_system, project_id), schedule in SCHEDULES.items():
            place = (source_system, project_id)
            store_schedule(cursor, *place, schedule)
            cursor.executemany(
                "insert into settings.stage_group_dictionary"
                " (source_system, project_id, group_id, name, kind) values (%s, %s, %s, '', %s)",
                [(*place, *group) for group in GROUP_KINDS.items()],
            )
            cursor.executemany(
                "insert into settings.stage_dictionary"
                " (source_system, project_id, stage_id, name, pipeline_id, group_id)"
                " values (%s, %s, %s, '', %s, %s)",
                [(*place, stage, *rest) for stage, rest in STAGES.items()],
            )
        entry = (
            *("source_system", "project_id", "entity_type", "entity_id", "stage_id", "entered_at"),
            *("pipeline_id", "stage_group_id"),
        )
        tables = {
            ("raw", "stage_events"): (
                *("previous_stage_id", "delivery_id", "entity_created_at", "ingested_at"),
            ),
            ("raw_files", "stage_events"): ("sequence", "source_file", "source_line"),
        }
        for table, more in tables.items():
            columns = (*entry, *more)
            statement = sql.SQL("copy {} ({}) from stdin").format(
                sql.Identifier(*table), sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with cursor.copy(statement) as copy:
                for one in told:
                    if (one.delivery_id is None) != (table[0] == "raw_files"):
                        continue
                    file, _, line = one.record_origin.partition(" line ")
                    values = {**vars(one), "source_file": file, "source_line": line}
                    copy.write_row([values[column] for column in columns])


@dataclass(frozen=True)
class Built:
    """The rows of the model, and those that should be there."""

    found: list[dict[str, Any]]
    expected: list[dict[str, Any]]


def dictionaries(owner: psycopg.Connection[Any]) -> dict[Place, Dictionary]:
    """What the settings say; scopes have the number of their first calendar."""
    first, last = (int(t.timestamp()) for t in (FIRST, FIRST + timedelta(days=DAYS)))
    walks: dict[int, Walk] = {}

    def worked(scope: int, start: int, end: int) -> int:
        return walks[scope].until(end) - walks[scope].until(start)

    found = {}
    for place, schedule in SCHEDULES.items():
        scopes = dict(
            owner.execute(
                "select group_id, min(calendar_id) from settings.calendars"
                " where (source_system, project_id) = (%s, %s) group by group_id",
                place,
            ).fetchall()
        )
        walks |= {scope: Walk(schedule, group, first, last) for group, scope in scopes.items()}
        found[place] = Dictionary(STAGES, GROUP_KINDS, scopes, worked)
    return found


@pytest.fixture(scope="module")
def built(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Built]:
    """All histories in one database, built once, of the models that it takes."""
    folder = short_folder / "stage_intervals"
    folder.mkdir()
    dice = random.Random(4)  # noqa: S311 - the same histories in every run
    told = [
        one
        for number in range(ENTITIES)
        for one in history(dice, list(SCHEDULES)[number % len(SCHEDULES)], number)
    ]
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE) as owner,
    ):
        store(told)
        dbt.run("+int_stage_intervals")
        with psycopg.connect(**owner.libpq()) as session:
            known = dictionaries(session)
            session.row_factory = dict_row
            found = session.execute("select * from intermediate.int_stage_intervals").fetchall()
        yield Built(found, visits(told, known))
    config.settings.cache_clear()


def keyed(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    key = ("source_system", "project_id", "entity_type", "entity_id", "visit_number")
    return {tuple(row[column] for column in key): row for row in rows}


def test_every_column_of_every_visit_is_as_the_sorted_lists_say(built: Built) -> None:
    found, expected = keyed(built.found), keyed(built.expected)
    assert len(found) == len(built.found) > ENTITIES * 3
    assert found.keys() == expected.keys()
    wrong = [
        f"{key} {column}: {found[key][column]}, not {row[column]}"
        for key, row in expected.items()
        for column in row
        if found[key][column] != row[column]
    ]
    assert wrong == []
    assert set(built.found[0]) == set(built.expected[0])


def test_the_histories_have_what_breaks_intervals(built: Built) -> None:
    seen: Counter[str] = Counter()
    for row in built.expected:
        seen["no time at all"] += row["seconds"] == 0
        seen["inferred"] += row["is_inferred"]
        seen["implausible"] += row["seconds"] is None and row["left_at"] is not None
        seen["other than by the clock"] += row["seconds"] != row["working_seconds"]
        seen["unknown stage"] += row["stage_id"] == UNKNOWN_STAGE
        seen["closed"] += row["group_kind"] != "open"
        seen["by a file"] += row["delivery_id"] is None
    assert min(seen.values()) > 50, seen


def test_visits_of_an_entity_add_up_to_its_whole_time(built: Built) -> None:
    by_entity: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for key, row in keyed(built.found).items():
        by_entity.setdefault(key[:4], []).append(row)
    for entity, rows in by_entity.items():
        if any(row["seconds"] is None and not row["is_current"] for row in rows):
            continue
        first, last = (pick(rows, key=lambda row: row["visit_number"]) for pick in (min, max))
        whole = int(last["entered_at"].timestamp()) - int(first["entered_at"].timestamp())
        assert sum(row["seconds"] or 0 for row in rows) == whole, entity
