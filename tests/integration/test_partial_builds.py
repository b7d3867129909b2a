"""What a build of some models leaves of the views that were not among them."""

import shutil
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from jobs.build import build
from stageline.config import PROJECT_ROOT
from stageline.database import Connection, connect
from tests.warm_dbt import WarmDbt

PROJECT = """\
name: tiny
version: "1.0"
config-version: 2
profile: stageline
models:
  +schema: staging
"""

#: A view's query and the columns that it then has, before and after a change.
CHANGES = {
    "gains": (
        ("select 1 as n", {"n": "integer"}),
        ("select 1 as n, 2 as more", {"n": "integer", "more": "integer"}),
    ),
    "reorders": (
        ("select 1 as n, 2 as more", {"n": "integer", "more": "integer"}),
        ("select 2 as more, 1 as n", {"n": "integer", "more": "integer"}),
    ),
    "retypes": (
        ("select 1 as n, 2 as more", {"n": "integer", "more": "integer"}),
        ("select 1 as n, 'two' as more", {"n": "integer", "more": "text"}),
    ),
    "loses": (
        ("select 1 as n, 'two' as more", {"n": "integer", "more": "text"}),
        ("select cast(1 as bigint) as n", {"n": "bigint"}),
    ),
}


def views(owner: Connection) -> dict[str, str]:
    """Every view of the staging layer, and its query as the database sees it."""
    with psycopg.connect(**owner.libpq()) as session:
        return dict(
            session.execute(
                "select viewname, definition from pg_views where schemaname = 'staging'"
            )
        )


def test_views_outside_of_the_selection_stay(sample_database: Connection, dbt: WarmDbt) -> None:
    before = views(sample_database)
    assert {"stg_projects", "stg_leads", "stg_tickets"} <= set(before)
    dbt.run("+conversion_funnel")
    assert views(sample_database) == before


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A dbt project without models, with the macros of ours."""
    folder = tmp_path / "tiny"
    shutil.copytree(PROJECT_ROOT / "macros", folder / "macros")
    shutil.copy(PROJECT_ROOT / "profiles.yml", folder)
    (folder / "dbt_project.yml").write_text(PROJECT)
    (folder / "models").mkdir()
    return folder


@pytest.mark.usefixtures("database")
def test_views_gain_change_and_lose_columns(project: Path) -> None:
    for name in CHANGES:
        below = "select n from {{ ref('above') }}".replace("above", name)
        (project / f"models/below_{name}.sql").write_text(below)

    def built(state: int, select: str | None = None) -> dict[str, dict[str, str]]:
        """Columns and their types after a build, by view; and what stands on each has a row."""
        for name, states in CHANGES.items():
            (project / f"models/{name}.sql").write_text(states[state][0])
        build(select, project=project)
        found: dict[str, dict[str, str]] = {name: {} for name in CHANGES}
        with connect("transformer") as session:
            for name in CHANGES:
                relation = sql.Identifier("staging", f"below_{name}")
                count = session.execute(sql.SQL("select count(*) from {}").format(relation))
                assert count.fetchone() == (1,), name
            for name, column, data_type in session.execute(
                "select table_name, column_name, data_type from information_schema.columns"
                " where table_schema = 'staging' and table_name = any(%s)",
                [[*CHANGES]],
            ):
                found[name][column] = data_type
        return found

    assert built(0) == {name: before[1] for name, (before, _) in CHANGES.items()}
    # What stands on the view that gains a column is not built again.
    selection = " ".join(name if name == "gains" else f"{name}+" for name in CHANGES)
    assert built(1, selection) == {name: after[1] for name, (_, after) in CHANGES.items()}


@pytest.mark.usefixtures("database")
def test_views_stay_while_the_table_that_they_stand_on_is_built_anew(project: Path) -> None:
    table = "{{ config(materialized='table') }} select "

    def built(select: str | None = None, **models: str) -> dict[str, tuple[int, int]]:
        """After a build: which view each is, and what it shows."""
        for name, text in models.items():
            (project / f"models/{name}.sql").write_text(text)
        build(select, project=project)
        query = sql.SQL("select 'staging.{0}'::regclass::oid::int, n from staging.{0}")
        with connect("transformer") as session:
            return {
                name: session.execute(query.format(sql.Identifier(name))).fetchone() or (0, 0)
                for name in ("on_table", "on_other", "on_view")
            }

    first = built(
        ground=table + "1 as n, 2 as other",
        on_table="select ground.n from {{ ref('ground') }}",
        on_other="select other as n from {{ ref('ground') }} as given",
        on_view="select n from {{ ref('on_table') }}",
    )
    view = {name: oid for name, (oid, _) in first.items()}
    assert {name: shown for name, (_, shown) in first.items()} == {
        "on_table": 1,
        "on_other": 2,
        "on_view": 1,
    }
    # What somebody else made of it where we may not look keeps no build from its end.
    with connect("owner") as session:
        session.execute("create schema of_analyst")
        session.execute("create view of_analyst.mine as select n from staging.ground")
    # Those that nobody builds show the new table, and are the same views.
    assert built("ground", ground=table + "10 as n, 20 as other") == {
        "on_table": (view["on_table"], 10),
        "on_other": (view["on_other"], 20),
        "on_view": (view["on_view"], 10),
    }
    # In one build with them, dbt knows that they are still there.
    assert built(ground=table + "100 as n, 200 as other") == {
        "on_table": (view["on_table"], 100),
        "on_other": (view["on_other"], 200),
        "on_view": (view["on_view"], 100),
    }
    # One that reads what is gone has gone with it, alone, and is built as what it is then.
    last = built(ground=table + "1000 as n", on_other="select n from {{ ref('ground') }}")
    assert last["on_other"][0] != view["on_other"]
    assert last == {
        "on_table": (view["on_table"], 1000),
        "on_other": (last["on_other"][0], 1000),
        "on_view": (view["on_view"], 1000),
    }
