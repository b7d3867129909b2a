"""Tables of sales activity that are built by what changed hold what they would if built whole."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from psycopg import sql
from psycopg.rows import dict_row

from stageline.database import connect
from tests.activity_database import change, keyed, load
from tests.activity_oracle import GRAIN, kpis
from tests.activity_worlds import AS_OF, World, random_world
from tests.integration.test_activity_oracle import SHOWN, differences
from tests.warm_dbt import WarmDbt

#: The last one of them is of a project that counts nowhere.
SEEDS = range(12)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

#: What becomes of a world: part of it is that of another world.
Morph = Callable[[World, World], World]


def records(entity: str, share: float) -> Morph:
    """Some rows of an entity come, go, or are others."""

    def morph(world: World, other: World) -> World:
        random = Random(f"{entity} {world.project.project_id}")  # noqa: S311 - the same each time
        own, others = (keyed(entity, each.records[entity]) for each in (world, other))
        for key in sorted(own.keys() | others.keys(), key=str):
            if random.random() < share:
                row = others.get(key)
                if row is None:
                    own.pop(key)
                else:
                    own[key] = {**row, "source_system": world.project.source_system}
        return replace(world, records={**world.records, entity: [*own.values()]})

    return morph


def elsewhere(world: World, other: World) -> World:
    """It is in another zone, and has another currency."""
    project = replace(
        world.project, timezone=other.project.timezone, currency=other.project.currency
    )
    return replace(world, project=project)


def open_otherwise(world: World, other: World) -> World:
    """It has other hours and days off."""
    return replace(world, weeks=other.weeks, exceptions=other.exceptions)


def aim_otherwise(world: World, other: World) -> World:
    """Other targets, which the currency of the project has nothing to do with."""
    return replace(world, targets=other.targets)


def stop_or_go_on(world: World, _: World) -> World:
    """It counts no more, or again."""
    return replace(world, project=replace(world.project, is_active=not world.project.is_active))


def nothing(world: World, _: World) -> World:
    return world


MORPHS: tuple[Morph, ...] = (
    records("activities", 0.03),
    records("activities", 1),
    records("pipeline_items", 0.2),
    records("sales", 0.2),
    records("reps", 0.3),
    elsewhere,
    open_otherwise,
    aim_otherwise,
    stop_or_go_on,
    nothing,
    nothing,
    stop_or_go_on,
)

#: The instant of each build, and how far the list of what happens before it has turned.
STEPS = (
    (AS_OF + 3 * HOUR, 0),
    (AS_OF + 3 * HOUR, 5),
    (AS_OF + 34 * DAY, 1),
    (AS_OF - 2 * DAY, 8),
)


def build(dbt: WarmDbt, as_of: datetime, *, is_first: bool = False) -> None:
    """Builds the tables under test, and of what they are made of what depends on the instant."""
    layers = ("",) if is_first else (",path:models/intermediate", ",path:models/kpis")
    dbt.run(
        *(f"+{name}{layer}" for name in GRAIN for layer in layers),
        variables={"as_of": as_of.isoformat()},
    )


def table(name: str) -> list[dict[str, Any]]:
    """The rows of a table of schema kpis."""
    with connect("reader") as session, session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            sql.SQL("select * from {}").format(sql.Identifier("kpis", name))
        ).fetchall()


@pytest.mark.usefixtures("database")
def test_builds_of_what_changed_are_those_of_everything(dbt: WarmDbt) -> None:
    worlds = [random_world(seed) for seed in SEEDS]
    load(worlds)
    build(dbt, AS_OF, is_first=True)
    for step, (as_of, turned) in enumerate(STEPS):
        for number, world in enumerate(worlds):
            morph = MORPHS[(number + turned) % len(MORPHS)]
            other = random_world(100 * (step + 1) + number, as_of, world.project.project_id)
            worlds[number] = replace(morph(world, other), as_of=as_of)
            change(world, worlds[number])
        build(dbt, as_of)

        expected = kpis(worlds)
        for name in GRAIN:
            found = differences(name, expected[name], table(name))
            assert not found, (step, len(found), found[:SHOWN])


@pytest.mark.usefixtures("database")
def test_a_call_has_its_week_built_anew_and_no_other(dbt: WarmDbt) -> None:
    load(random_world(seed) for seed in (0, 1))
    build(dbt, AS_OF, is_first=True)
    before = {tuple(row.values()) for row in table("call_volume")}
    with connect("owner") as session:
        session.execute(
            "update raw_files.activities set rep_id = 'bob' where project_id = 'p1' and activity_id"
            " = (select activity_id from raw_files.activities where project_id = 'p1'"
            " and activity_type = 'call' and rep_id = 'ann' and is_deleted is not true"
            " and %s - completed_at between interval '30 days' and interval '90 days' limit 1)",
            [AS_OF],
        )
    build(dbt, AS_OF)

    anew = [row for row in table("call_volume") if tuple(row.values()) not in before]
    weeks = {row["period_start"] - row["period_start"].weekday() * DAY for row in anew}
    assert {row["project_id"] for row in anew} == {"p1"}
    assert 1 <= len(weeks) <= 2
    assert {"ann", "bob"} <= {row["subject_id"] for row in anew}
