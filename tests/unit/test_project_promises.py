"""What every table of the dbt project owes its readers, held for all of them at once."""

import csv
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from loaders.entities import ENTITIES
from stageline.config import PROJECT_ROOT
from stageline.explain import models

KPIS = sorted(name for name in models() if not name.startswith("fct_"))


@cache
def content(path: Path) -> dict[str, Any]:
    """What a YAML file says: read by libyaml, as each process of a test run reads all of them."""
    found: dict[str, Any] = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return found


def read(pattern: str, section: str) -> list[dict[str, Any]]:
    """All entries of ``section`` in the YAML files that match."""
    return [
        entry
        for path in sorted(PROJECT_ROOT.glob(pattern))
        for entry in content(path).get(section, [])
    ]


NODES = {node["name"]: node for node in read("models/kpis/**/*.yml", "models")}
VIEWS = {
    path.stem
    for path in PROJECT_ROOT.glob("models/kpis/**/*.sql")
    if re.search(r"live_materialized\(\)|materialized='view'", path.read_text())
}
EXPOSURES = read("models/**/*.yml", "exposures")
UNIT_TESTS = read("models/**/*.yml", "unit_tests")
SELECTORS = {selector["name"] for selector in read("selectors.yml", "selectors")}


def test_every_sql_file_of_kpis_is_described() -> None:
    files = {path.stem for path in (PROJECT_ROOT / "models" / "kpis").rglob("*.sql")}
    assert files == set(NODES)


@pytest.mark.parametrize("name", sorted(NODES))
class TestEveryTable:
    def test_says_its_grain_first(self, name: str) -> None:
        assert NODES[name]["description"].startswith("One row per ")

    def test_has_a_key_of_its_grain(self, name: str) -> None:
        node = NODES[name]
        grain = node["config"]["meta"]["grain"]
        if name in VIEWS:  # which can be tested for a key, and cannot have one
            assert {"unique_combination": {"arguments": {"columns": grain}}} in node["data_tests"]
            assert "constraints" not in node
        else:
            assert node["constraints"] == [{"type": "primary_key", "columns": grain}]

    def test_what_its_constraints_refuse_is_not_looked_for(self, name: str) -> None:
        """Each data test costs every build its time, and these could never find a row."""
        node = NODES[name]
        if name not in VIEWS:
            (key,) = (constraint["columns"] for constraint in node["constraints"])
            tests = {
                (column["name"], test)
                for column in node["columns"]
                for test in column.get("data_tests", [])
                if isinstance(test, str)
            }
            assert not tests & {(column, "not_null") for column in key}
            assert len(key) > 1 or (key[0], "unique") not in tests
            assert {"unique_combination": {"arguments": {"columns": key}}} not in node.get(
                "data_tests", []
            )

    def test_has_an_owner(self, name: str) -> None:
        assert NODES[name]["config"]["meta"]["owner"]

    def test_states_a_unit_and_a_type_for_every_column(self, name: str) -> None:
        for column in NODES[name]["columns"]:
            assert column["data_type"], column["name"]
            assert column["config"]["meta"]["unit"], column["name"]

    def test_says_when_it_was_built(self, name: str) -> None:
        assert "updated_at" in {column["name"] for column in NODES[name]["columns"]}

    def test_its_formulas_are_pinned(self, name: str) -> None:
        assert name in {test["model"] for test in UNIT_TESTS}


@pytest.mark.parametrize("name", KPIS)
class TestEveryKpi:
    def test_somebody_depends_on_it(self, name: str) -> None:
        assert any(f"ref('{name}')" in exposure["depends_on"] for exposure in EXPOSURES)

    def test_is_in_one_refresh_group(self, name: str) -> None:
        groups = [tag for tag in NODES[name]["config"]["tags"] if tag.startswith("refresh_")]
        assert len(groups) == 1
        assert groups[0] in SELECTORS

    def test_every_number_has_a_formula(self, name: str) -> None:
        model = models()[name]
        for column, meta in model.columns.items():
            is_number = meta["unit"] not in {"label", "date", "instant (UTC)", "rank", "months"}
            assert not is_number or meta.get("formula"), column

    def test_its_cells_are_held_to_their_facts(self, name: str) -> None:
        if models()[name].fact is not None:
            tests = [test for test in NODES[name]["data_tests"] if isinstance(test, dict)]
            assert {"fact": f"ref('{models()[name].fact}')"} in [
                test["contributions_sum_to_cells"]["arguments"]
                for test in tests
                if "contributions_sum_to_cells" in test
            ]


@pytest.mark.parametrize("exposure", EXPOSURES, ids=lambda exposure: str(exposure["name"]))
def test_every_exposure_is_complete(exposure: dict[str, Any]) -> None:
    assert exposure["owner"]["name"]
    assert exposure["maturity"] and exposure["url"] and exposure["description"]
    assert exposure["config"]["meta"]["criticality"] in {"medium", "high", "critical"}


@pytest.mark.parametrize(
    "path", sorted((PROJECT_ROOT / "seeds" / "sample").glob("*.csv")), ids=lambda path: path.stem
)
def test_sample_files_have_the_fields_of_their_entity(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    entity = ENTITIES[path.stem.removeprefix("sample_")]
    assert header == [field.name for field in entity.fields]
