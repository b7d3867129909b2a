"""The KPIs of sales activity on ugly and on generated data, held against a second computation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loaders.generate_sales import Plan, generate
from stageline import config
from tests.activity_database import load, read, table
from tests.activity_oracle import GRAIN, ONE_DAY, kpis
from tests.activity_worlds import AS_OF, World, random_world
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.kpi_oracle import Table
from tests.warm_dbt import WarmDbt

SEEDS = range(12)

#: One that goes back for longer than forecasts learn from and are looked back on.
LONG = {"seed": 12, "size": 160, "days": 480}

#: Departments as `stageline generate sales` makes them up; of the last some has yet to come.
GENERATED = {
    f"department-{seed}": Plan(AS_OF + later * ONE_DAY, leads=40, days_back=150, seed=seed)
    for seed, later in ((1, 0), (2, 0), (3, 40))
}
VARIABLES = {"as_of": AS_OF.isoformat()}

#: Columns that tell of the build.
ASIDE = {"updated_at"}

#: How many differences of a table a failure shows.
SHOWN = 12


@pytest.fixture(scope="module")
def built(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Sequence[World]]:
    """All worlds in one database, built once."""
    folder = short_folder / "activity_oracle"
    folder.mkdir()
    random_ones = [*(random_world(seed) for seed in SEEDS), random_world(**LONG)]
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE),
    ):
        load(random_ones)
        for project, plan in GENERATED.items():
            generate(plan, project)
        worlds = [*random_ones, *(read(AS_OF, "file", project) for project in GENERATED)]
        dbt.run(*(f"+{name}" for name in GRAIN), variables=VARIABLES)
        yield worlds
    config.settings.cache_clear()


@pytest.fixture(scope="module")
def expected(built: Sequence[World]) -> dict[str, Table]:
    """The tables as they should be."""
    return kpis(built)


def differences(name: str, expected: Table, found: list[dict[str, Any]]) -> list[str]:
    """Each cell that is not as expected, one line."""
    grain = GRAIN[name]
    rows = {tuple(row[column] for column in grain): row for row in found}
    assert len(rows) == len(found)
    lines = []
    for key in sorted(expected.keys() | rows.keys(), key=str):
        place = " ".join(str(part) for part in key)
        if key not in rows:
            lines.append(f"{name} [{place}]: row is missing; expected {dict(expected[key])}")
        elif key not in expected:
            lines.append(f"{name} [{place}]: row is not expected; got {rows[key]}")
        else:
            stated = {c: v for c, v in rows[key].items() if c not in {*grain, *ASIDE}}
            unknown = stated.keys() ^ expected[key].keys()
            assert not unknown, f"{name}: only one side has {sorted(unknown)}"
            lines += [
                f"{name} [{place}] {column}: expected {expected[key][column]}, got {value}"
                for column, value in stated.items()
                if value != expected[key][column]
            ]
    return lines


@pytest.mark.parametrize("name", GRAIN)
def test_every_cell_is_what_its_definition_says(name: str, expected: dict[str, Table]) -> None:
    found = differences(name, expected[name], table(name))
    assert expected[name]
    if found:
        pytest.fail("\n".join([f"{len(found)} differences", *found[:SHOWN]]), pytrace=False)
