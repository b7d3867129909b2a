"""The KPI tables on random, ugly data, held against a second computation from their definitions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from loaders.entities import ENTITIES
from stageline import config
from stageline.database import Connection, connect
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.kpi_oracle import GRAIN, Table, World, kpis
from tests.kpi_worlds import AS_OF, PROJECTS, Records, history, random_world, together
from tests.warm_dbt import WarmDbt

SEEDS = range(36)

#: Folders of the KPI tables that this oracle computes; flow has its own.
DOMAINS = ("sales", "service", "health")
VARIABLES = {"as_of": AS_OF.isoformat()}

#: How many differences of a table a failure shows.
SHOWN = 12


@dataclass(frozen=True)
class Built:
    """A database in which all worlds are loaded and built, and what was loaded."""

    owner: Connection
    world: World

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table of schema kpis."""
        with psycopg.connect(**self.owner.libpq(), row_factory=dict_row) as session:
            return session.execute(
                sql.SQL("select * from {}").format(sql.Identifier("kpis", name))
            ).fetchall()


def load(records: Records) -> None:
    """Puts the records where the file loader would."""
    with connect("loader") as session, session.cursor() as cursor:
        cursor.executemany(
            "insert into settings.projects"
            " (source_system, project_id, timezone, currency, is_active)"
            " values (%s, %s, %s, %s, %s)",
            [
                (p.source_system, p.project_id, p.timezone, p.currency, p.is_active)
                for p in PROJECTS
            ],
        )
        for entity, rows in records.items():
            columns = ("source_system", "project_id", *(f.name for f in ENTITIES[entity].fields))
            statement = sql.SQL("copy {} ({}) from stdin").format(
                sql.Identifier("raw_files", entity),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
            )
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row([row[column] for column in columns])


@pytest.fixture(scope="module")
def built(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Built]:
    """All worlds in one database, built once."""
    folder = short_folder / "oracle"
    folder.mkdir()
    records = together([*(random_world(seed) for seed in SEEDS), *history(len(SEEDS), AS_OF)])
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE) as owner,
    ):
        load(records)
        dbt.run(*(f"+path:models/kpis/{domain}" for domain in DOMAINS), variables=VARIABLES)
        yield Built(owner, World(AS_OF, PROJECTS, records))
    config.settings.cache_clear()


@pytest.fixture(scope="module")
def expected(built: Built) -> dict[str, Table]:
    """The tables as they should be."""
    return kpis(built.world)


def differences(name: str, expected: Table, found: list[dict[str, Any]]) -> list[str]:
    """Each cell that is not as expected, one line."""
    grain = GRAIN[name]
    rows = {tuple(row[column] for column in grain): row for row in found}
    lines = []
    for key in sorted(expected.keys() | rows.keys(), key=str):
        place = " ".join(str(part) for part in key)
        if key not in rows:
            lines.append(f"{name} [{place}]: row is missing; expected {dict(expected[key])}")
        elif key not in expected:
            lines.append(f"{name} [{place}]: row is not expected; got {rows[key]}")
        else:
            stated = {c: v for c, v in rows[key].items() if c not in (*grain, "updated_at")}
            unknown = stated.keys() ^ expected[key].keys()
            assert not unknown, f"{name}: only one side has {sorted(unknown)}"
            lines += [
                f"{name} [{place}] {column}: expected {expected[key][column]}, got {value}"
                for column, value in stated.items()
                if value != expected[key][column]
            ]
    return lines


@pytest.mark.parametrize("name", GRAIN)
def test_every_cell_is_what_its_definition_says(
    name: str, built: Built, expected: Mapping[str, Table]
) -> None:
    found = differences(name, expected[name], built.table(name))
    assert expected[name]
    if found:
        pytest.fail("\n".join([f"{len(found)} differences", *found[:SHOWN]]), pytrace=False)


@pytest.mark.usefixtures("built")
def test_the_checks_of_the_kpi_tables_hold_on_ugly_data(dbt: WarmDbt) -> None:
    found = dbt.test(
        *(f"path:models/kpis/{domain},resource_type:test" for domain in DOMAINS),
        variables=VARIABLES,
    )
    assert set(found.values()) == {"pass"}
    names = " ".join(found)
    assert "contributions_sum_to_cells_pipeline_kpis" in names
    assert "percentages_in_range_revenue_kpis" in names


@pytest.mark.parametrize("name", [name for name in GRAIN if name != "cohort_retention"])
def test_the_past_is_what_was_known_then(name: str, built: Built) -> None:
    """What was loaded later does not change what ``as_of`` shows."""
    tables: dict[str, Table] = {"whole": {}, "cut": {}}
    for row in built.table(name):
        world, _, facility = row.pop("facility_id").partition("-")
        if world in tables:
            del row["updated_at"]
            key = tuple(row.get(column, facility) for column in GRAIN[name])
            tables[world][key] = row
    assert tables["whole"]
    assert tables["whole"] == tables["cut"]


def test_the_past_of_a_cohort_is_what_was_known_then(built: Built) -> None:
    """Cohorts have no facility, so their leads are compared: how far each was, and when."""
    columns = (
        "stage",
        "stages_reached",
        "months_to_opportunity",
        "months_to_won",
        "months_to_lost",
    )
    leads: dict[str, dict[str, tuple[Any, ...]]] = {"history-whole": {}, "history-cut": {}}
    for row in built.table("fct_leads"):
        if row["project_id"] in leads and row["excluded_reason"] is None:
            leads[row["project_id"]][row["lead_id"]] = tuple(row[column] for column in columns)
    assert leads["history-whole"]
    assert leads["history-whole"] == leads["history-cut"]
