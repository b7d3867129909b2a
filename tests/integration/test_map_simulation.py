"""A draft of the stage map tried on deals: what it foretells is what publishing it brings."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.rows import dict_row

from jobs.map_simulation import (
    Entity,
    EntityChange,
    Sides,
    Simulation,
    compile_models,
    simulate,
    versions_to_compare,
)
from jobs.temporary_models import Models, sandbox
from stageline import config
from stageline.cli import main, settings_simulation
from stageline.database import Connection, connect
from stageline.errors import StagelineError
from stageline.settings import report_versions, stage_maps
from tests.conftest import DATABASE, Sample, _clone
from tests.flow_worlds import AS_OF, ENTITIES, PROJECTS, STAGES, random_world
from tests.integration.test_flow_oracle import load
from tests.warm_dbt import WarmDbt

SEED = 11
WANTED = ("deal_metrics", "flow_stage_kpis", "unmapped_stage_events")
DRAFT, RETIRED = 3, 4

#: Of the entities of the world every so-manieth is enough here.
EVERY = 6

#: Columns that no draft changes, or that say when a row was built.
NOT_COMPARED = {"updated_at", "excluded_reason", "is_complete"}


@dataclass(frozen=True)
class Built:
    """A database with a world in it that was built, and the models to try drafts with."""

    owner: Connection
    models: Models
    dbt: WarmDbt

    def rows(self, query: str | sql.Composed, *values: object) -> list[dict[str, Any]]:
        with psycopg.connect(**self.owner.libpq(), row_factory=dict_row) as session:
            session.execute("set timezone to 'UTC'")
            text = query if isinstance(query, sql.Composed) else query.encode()
            return session.execute(text, values).fetchall()

    def table(self, name: str, version: int) -> list[dict[str, Any]]:
        query = sql.SQL("select * from {} where report_version = %s")
        return self.rows(query.format(sql.Identifier("kpis", name)), version)

    def build(self, *select: str) -> None:
        self.dbt.run(*select, variables={"as_of": AS_OF.isoformat()})


@pytest.fixture(scope="module")
def built(sample: Sample, dbt: WarmDbt, short_folder: Path) -> Iterator[Built]:
    folder = short_folder / "map_simulation"
    folder.mkdir()
    world = random_world(SEED)
    events = tuple(event for event in world.events if int(event.entity_id) % EVERY == 0)
    # One whose id no other has, so that nothing is left under it.
    gone = next(event for event in events if int(event.entity_id) >= ENTITIES)
    deletion = (gone.project, gone.entity_type, gone.entity_id, "deleted", AS_OF)
    deletions = (*(row for row in world.deletions if int(row[2]) % EVERY == 0), deletion)
    world = replace(world, events=events, deletions=deletions)
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(sample.server, sample.owner.dbname, folder, patch, DATABASE) as owner,
    ):
        # What dbt has parsed there is used by the command and by `compile_models`.
        patch.setenv("DBT_TARGET_PATH", str(sample.target_path))
        load(owner, world)
        found = Built(owner, Models({}, {}, None), dbt)
        found.build(*(f"+{name}" for name in WANTED))
        yield replace(found, models=compile_models(AS_OF))
    config.settings.cache_clear()


def beside(
    built: Built, table: str, key: Sequence[str], versions: Sides
) -> Mapping[tuple[Any, ...], tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Rows of a built table under both versions, by key; an empty one where there is none."""
    sides = [
        {tuple(row[column] for column in key): row for row in built.table(table, version)}
        for version in versions
    ]
    return {
        found: (sides[0].get(found, {}), sides[1].get(found, {}))
        for found in sides[0].keys() | sides[1].keys()
    }


def differing(rows: tuple[Mapping[str, Any], Mapping[str, Any]], key: Sequence[str]) -> Any:
    before, after = rows
    return {
        column: Sides(before.get(column), after.get(column))
        for column in before.keys() | after.keys()
        if column not in (*key, *NOT_COMPARED, "report_version")
        and before.get(column) != after.get(column)
    }


def entities_of(built: Built, versions: Sides) -> dict[Entity, EntityChange]:
    """What differs between two published versions, read from the tables that were built."""
    found: dict[Entity, EntityChange] = {}
    for key, rows in beside(built, "deal_metrics", Entity._fields, versions).items():
        found[Entity(*key)] = EntityChange(journey=differing(rows, Entity._fields))
    majors = (*Entity._fields, "major_key")
    for key, rows in beside(built, "major_stage_durations", majors, versions).items():
        if figures := differing(rows, majors):
            found[Entity(*key[:-1])].major_stages[key[-1]] = figures
    visits = (*Entity._fields, "visit_number")
    for key, (before, after) in beside(built, "deal_stage_timeline", visits, versions).items():
        found[Entity(*key[:-1])].event_count += before["sub_key"] != after["sub_key"]
    return {key: change for key, change in found.items() if change != EntityChange()}


def stages_of(built: Built, versions: Sides) -> dict[tuple[Any, ...], list[datetime]]:
    """Instants of the events that mean something else, by stage and both meanings."""
    found: dict[tuple[Any, ...], list[datetime]] = {}
    visits = (*Entity._fields, "visit_number")
    for before, after in beside(built, "deal_stage_timeline", visits, versions).values():
        if before["sub_key"] != after["sub_key"]:
            stage = [after[name] for name in ("source_system", "project_id")]
            stage += [after["pipeline_id"], after["stage_id"], before["sub_key"], after["sub_key"]]
            found.setdefault(tuple(stage), []).append(after["entered_at"])
    return found


def percentile(values: Sequence[int], share: int) -> int | None:
    """Between the two nearest of the sorted values, by its place; a half is rounded up."""
    if not values:
        return None
    whole, rest = divmod((len(values) - 1) * share, 100)
    low, high = (sorted(values)[min(place, len(values) - 1)] for place in (whole, whole + 1))
    return math.floor(low + Fraction((high - low) * rest, 100) + Fraction(1, 2))


def pct(part: int, whole: int) -> Decimal | None:
    if not whole:
        return None
    return Decimal(math.floor(Fraction(10000 * part, whole) + Fraction(1, 2))) / 100


def journeys_of(built: Built, version: int) -> dict[str, Any]:
    rows = built.table("deal_metrics", version)
    complete = [row for row in rows if row["excluded_reason"] is None]
    figures: dict[str, Any] = {
        "entities": len(rows),
        "finished": sum(row["finished_at"] is not None for row in rows),
        "complete": len(complete),
        "impossible_durations": sum(
            row["excluded_reason"] == "impossible duration" for row in rows
        ),
        "unmapped_pct": pct(
            sum(row["unmapped_visits"] for row in rows), sum(row["visits"] for row in rows)
        ),
        "unmapped_stages": len(built.table("unmapped_stage_events", version)),
    }
    for clock in ("seconds", "working_seconds"):
        values = [row[f"e2e_{clock}"] for row in complete]
        mean = Fraction(sum(values), len(values))
        figures[f"avg_{clock}"] = math.floor(mean + Fraction(1, 2))
        for share in (50, 85, 95):
            figures[f"p{share}_{clock}"] = percentile(values, share)
    for name, part, whole in (
        ("flow_efficiency_pct", "total_stage_seconds", "e2e_seconds"),
        ("covered_pct", "covered_seconds", "e2e_seconds"),
        ("active_pct", "active_working_seconds", "e2e_working_seconds"),
    ):
        some = [row for row in complete if row[whole] > 0]
        figures[name] = pct(sum(row[part] for row in some), sum(row[whole] for row in some))
    return figures


def what_remains(built: Built) -> list[list[dict[str, Any]]]:
    """What a simulation must leave as it is."""
    return [
        built.rows(query)
        for query in (
            "select * from settings.audit_log order by audit_id",
            "select * from settings.report_versions order by report_version",
            "select * from settings.stage_map_scd order by map_id",
            "select oid, relname, relfilenode from pg_class order by oid",
            "select * from ops.builds order by build_id",
        )
    ]


def test_what_is_foretold_of_a_draft_is_what_publishing_it_brings(built: Built) -> None:
    remains = what_remains(built)
    foretold = [
        simulate(versions_to_compare(DRAFT, against), built.models, sample=None)
        for against in (None, 1)
    ]
    assert what_remains(built) == remains

    report_versions.publish(DRAFT)
    built.build(*(f"base_settings__report_versions+,+{name}" for name in WANTED))
    for found, against in zip(foretold, (2, 1), strict=True):
        assert_came_true(built, found, Sides(against, DRAFT))


def assert_came_true(built: Built, found: Simulation, versions: Sides) -> None:
    assert found.versions == versions
    assert found.as_of == AS_OF

    entities = entities_of(built, versions)
    assert len(entities) > 100
    assert any(change.journey.get("e2e_seconds") for change in entities.values())
    assert dict(found.entities) == entities
    sizes = [change.size for change in found.entities.values()]
    assert sizes == sorted(sizes, reverse=True)

    stages = stages_of(built, versions)
    assert {stage.kind for stage in found.stages} == {"mapped", "unmapped", "changed"}
    assert {
        (
            *(stage.source_system, stage.project_id, stage.pipeline_id, stage.stage_id),
            *(stage.before, stage.after),
        ): (stage.event_count, stage.first_seen_at, stage.last_seen_at)
        for stage in found.stages
    } == {key: (len(instants), min(instants), max(instants)) for key, instants in stages.items()}

    before, after = (journeys_of(built, version) for version in versions)
    assert found.journeys == {name: Sides(before[name], after[name]) for name in after}

    cards = beside(built, "flow_stage_kpis", ("period", "major_key"), versions)
    assert len(found.cards) == len(cards)
    assert any(card.figures["avg_seconds"].after for card in found.cards)
    for card in found.cards:
        old, new = cards[card.period, card.major_key]
        assert card.figures == {name: Sides(old[name], new[name]) for name in card.figures}
        assert {"deals", "avg_working_seconds", "trend_pct", "before_p95_seconds"} <= set(
            card.figures
        )


def test_a_sample_is_the_same_each_time_and_a_larger_one_holds_it(built: Built) -> None:
    """Under an empty draft each deal differs, so that those that differ are the sample."""
    versions = versions_to_compare(report_versions.create("empty"))
    first, again, larger, everything = (
        simulate(versions, built.models, sample=sample) for sample in (40, 40, 80, None)
    )
    assert first == again
    assert set(first.entities) < set(larger.entities) < set(everything.entities)
    assert 30 < first.compared_entities <= 40
    assert first.known_entities == everything.known_entities > everything.compared_entities > 300
    assert len(everything.missing) == 14

    some = [entity.entity_id for entity in first.entities][:2]
    chosen = simulate(versions, built.models, entity_ids=some)
    assert dict(chosen.entities) == {
        entity: change for entity, change in everything.entities.items() if entity[3] in some
    }

    project = PROJECTS[0].key
    of_project = simulate(versions, built.models, project=project, sample=None)
    assert dict(of_project.entities) == {
        entity: change for entity, change in everything.entities.items() if entity[:2] == project
    }


def test_a_draft_that_says_the_same_changes_nothing(built: Built) -> None:
    versions = versions_to_compare(report_versions.clone(1))
    assert versions.before == 1
    found = simulate(versions, built.models, sample=None)
    assert not found.entities
    assert not found.stages
    assert found.as_of == AS_OF
    assert all(sides.before == sides.after for sides in found.journeys.values())


def test_figures_are_for_now_where_no_instant_is_given(built: Built) -> None:
    """The rows say when dbt compiled them; its manifest may tell of an earlier run."""
    versions = versions_to_compare(report_versions.clone(1))
    found = simulate(versions, replace(built.models, as_of=None), sample=1)
    assert timedelta() < datetime.now(UTC) - found.as_of < timedelta(hours=1)


def test_only_temporary_tables_can_be_written_to(built: Built) -> None:
    with sandbox(built.models) as session, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        session.execute("delete from kpis.deal_metrics")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["settings", "simulate", *arguments])


def test_the_command_shows_a_table_or_everything(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = report_versions.clone(2)
    for row in stage_maps.rows(draft, project=PROJECTS[0].key):
        if row.stage_id in STAGES[:2]:
            stage_maps.remove(row.map_id)
    found = simulate(versions_to_compare(draft), built.models, sample=None)
    assert len(found.entities) > 20

    at = ("--version", str(draft), "--as-of", AS_OF.isoformat())
    result = invoke(*at, "--all", "--format", "json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert (content["version"], content["against"]) == (draft, 2)
    assert content["as_of"] == AS_OF.isoformat()
    assert content["compared_entities"] == found.compared_entities
    assert [list(row.values())[:4] for row in content["entities"]] == [
        list(entity) for entity in found.entities
    ]
    assert content["journeys"]["avg_seconds"] == found.journeys["avg_seconds"]._asdict()

    settings_simulation.show_simulation(found, "12m")
    shown = capsys.readouterr().out
    assert f"Version {draft} beside version 2, as of 2026-06-15T09:17:23Z: " in shown
    assert next(iter(found.entities)).entity_id in shown
    assert f"... and {len(found.entities) - 20:,} more: --format json has all of them." in shown
    assert "Nothing was changed." in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version", "99"], "There is no version 99."),
        (["--version", "1"], "Version 1 is published: only a draft is tried."),
        (["--version", str(RETIRED)], "Version 4 is retired: only a draft is tried."),
        (["--version", "3", "--against", "99"], "There is no version 99."),
        (["--version", "3", "--all", "--sample", "5"], "Give one of --entity, --sample and --all."),
        (["--version", "3", "--period", "2w"], "There is no period '2w'. There are: 7d, 14d, 1m"),
    ],
)
@pytest.mark.usefixtures("built")
def test_a_mistake_is_told_in_one_line(arguments: list[str], said: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code in (1, 2)
    assert result.output.startswith(f"error: {said}")
    assert result.output.count("\n") == 1


@pytest.mark.usefixtures("built")
def test_a_draft_is_compared_with_a_published_version_only() -> None:
    draft, other = report_versions.create("one"), report_versions.create("another")
    with pytest.raises(StagelineError, match=f"Version {other} is draft: a draft is compared"):
        versions_to_compare(draft, other)


@pytest.mark.usefixtures("database")
def test_without_a_published_version_there_is_nothing_to_compare_with() -> None:
    draft = report_versions.create("first")
    with pytest.raises(StagelineError, match="No version is published"):
        versions_to_compare(draft)


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        (None, "The models are not built yet: .*int_stage_intervals.* Run `stageline build` first"),
        (
            "create table intermediate.int_stage_intervals as select source_system, stage_id"
            " from intermediate.the_visits",
            "built by an older version of the models: .* Run `stageline build` first",
        ),
        (
            "create table intermediate.int_stage_intervals as table intermediate.the_visits"
            " with no data",
            "There are no events to try a draft on, as of the last build",
        ),
    ],
)
def test_without_visits_there_is_nothing_to_try_a_draft_on(
    built: Built, instead: str | None, said: str
) -> None:
    versions = versions_to_compare(report_versions.clone(1))
    with connect("transformer") as session:
        session.execute("alter table intermediate.int_stage_intervals rename to the_visits")
        if instead:
            session.execute(instead.encode())
        session.commit()
        try:
            with pytest.raises(StagelineError, match=said):
                simulate(versions, built.models)
        finally:
            session.execute("drop table if exists intermediate.int_stage_intervals")
            session.execute("alter table intermediate.the_visits rename to int_stage_intervals")


def test_deals_that_cannot_be_shown_are_named(built: Built) -> None:
    versions = versions_to_compare(report_versions.clone(1))
    (deleted, *_) = built.rows(
        "select entity_id from intermediate.int_stage_intervals"
        " except select entity_id from kpis.deal_metrics"
    )
    for entity_id, said in (
        ("nobody", "'nobody' is no deal or order of the last build."),
        (deleted["entity_id"], "is deleted or yet to begin, so that no report shows it."),
    ):
        with pytest.raises(StagelineError, match=said):
            simulate(versions, built.models, entity_ids=[entity_id])
    with pytest.raises(StagelineError, match="no events of file nowhere to try a draft on"):
        simulate(versions, built.models, project=("file", "nowhere"))
