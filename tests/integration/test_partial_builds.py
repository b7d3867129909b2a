"""What a build of some models leaves of the views that were not among them."""

import shutil
from pathlib import Path

import psycopg
import pytest

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


@pytest.mark.usefixtures("database")
def test_a_view_gains_changes_and_loses_columns(tmp_path: Path) -> None:
    project = tmp_path / "tiny"
    shutil.copytree(PROJECT_ROOT / "macros", project / "macros")
    shutil.copy(PROJECT_ROOT / "profiles.yml", project)
    (project / "dbt_project.yml").write_text(PROJECT)
    (project / "models").mkdir()
    (project / "models/below.sql").write_text("select n from {{ ref('above') }}")

    def built(query: str, select: str | None = None) -> list[tuple[str, str]]:
        """Columns and their types after a build of ``query``; and ``below`` has a row."""
        (project / "models/above.sql").write_text(query)
        build(select, project=project)
        with connect("transformer") as session:
            assert session.execute("select count(*) from staging.below").fetchone() == (1,)
            return session.execute(
                "select column_name, data_type from information_schema.columns"
                " where table_schema = 'staging' and table_name = 'above' order by column_name"
            ).fetchall()

    assert built("select 1 as n") == [("n", "integer")]
    more = [("more", "integer"), ("n", "integer")]
    assert built("select 1 as n, 2 as more", "above") == more
    assert built("select 2 as more, 1 as n") == more
    assert built("select 1 as n, 'two' as more") == [("more", "text"), ("n", "integer")]
    assert built("select cast(1 as bigint) as n") == [("n", "bigint")]
