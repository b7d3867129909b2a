"""The migrations: from zero, back, again, twice at once; and the tables they make."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from loaders.entities import ENTITIES
from stageline import migrate, roles
from stageline.database import Connection, connect

pytestmark = pytest.mark.usefixtures("database")

TYPES = {
    "text": "text",
    "numeric": "numeric",
    "integer": "bigint",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
}

#: Columns that no file and no loader fills.
WRITTEN_BY_THE_DATABASE = {"stage_events": [("loaded_xid", "xid8", True)]}

SHAPE = """
select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    pg_get_userbyid(c.relowner), c.relacl::text
from pg_class as c
inner join pg_namespace as n on c.relnamespace = n.oid
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
union all
select n.nspname, '', '', '', false, pg_get_userbyid(n.nspowner), n.nspacl::text
from pg_namespace as n
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
union all
select coalesce(d.defaclnamespace::regnamespace::text, ''), 'default privileges', '', '', false,
    pg_get_userbyid(d.defaclrole), d.defaclacl::text
from pg_default_acl as d
order by 1, 2, 3, 4, 6, 7
"""


def shape() -> list[tuple[object, ...]]:
    """Schemas, tables, columns, owners and grants of the database."""
    with connect("owner") as session:
        return session.execute(SHAPE).fetchall()


def schemas() -> set[str]:
    with connect("owner") as session:
        return {
            name
            for (name,) in session.execute(
                "select nspname from pg_namespace"
                " where nspname !~ '^pg_' and nspname not in ('information_schema', 'public')"
            )
        }


def test_the_newest_revision_is_alembics_only_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.head()]
    assert migrate.current() == migrate.head()


def test_down_and_up_again_gives_the_same_database() -> None:
    before = shape()
    assert "raw_files" in schemas()
    migrate.downgrade("base")
    assert migrate.current() is None
    assert schemas() == {"ops"}, "ops holds Alembic's own table, and nothing else may stay"
    with connect("owner") as session:
        left = session.execute(
            "select count(*) from pg_class"
            " where relnamespace = 'ops'::regnamespace and relkind = 'r'"
        ).fetchone()
        defaults = session.execute("select count(*) from pg_default_acl").fetchone()
    assert (left, defaults) == ((1,), (0,))
    assert migrate.upgrade() is None
    assert shape() == before


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0005", "0006"])
def test_each_step_down_can_be_taken_up_again(revision: str) -> None:
    before = shape()
    migrate.downgrade(revision)
    assert migrate.current() == revision
    assert migrate.upgrade() == revision
    assert shape() == before


def test_a_second_upgrade_changes_nothing_and_keeps_data() -> None:
    with connect("loader") as session:
        session.execute(
            "insert into settings.projects (source_system, project_id) values ('a', 'b')"
        )
    before = shape()
    assert migrate.upgrade() == migrate.head()
    assert shape() == before
    with connect("owner") as session:
        assert session.execute("select count(*) from settings.projects").fetchone() == (1,)


def test_two_upgrades_at_once_are_one() -> None:
    before = shape()
    migrate.downgrade("base")
    script = "from stageline import migrate; migrate.upgrade()"
    both = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert shape() == before


def test_a_failing_revision_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    migrate.downgrade("0001")
    copy = tmp_path / "migrations"
    (copy / "versions").mkdir(parents=True)
    for path in migrate.FOLDER.rglob("*.py"):
        text = path.read_text().replace("create table ops.builds", "create table nowhere.builds")
        (copy / path.relative_to(migrate.FOLDER)).write_text(text)
    monkeypatch.setattr(migrate, "FOLDER", copy)
    with pytest.raises(Exception, match="nowhere"):
        migrate.upgrade()
    assert migrate.current() == "0001"
    with connect("owner") as session:
        assert session.execute("select to_regclass('settings.projects')").fetchone() == (None,)


def test_a_database_of_a_newer_version_is_refused() -> None:
    with connect("owner") as session:
        session.execute("update ops.alembic_version set version_num = '9999'")
    with pytest.raises(migrate.StagelineError, match="newer version"):
        migrate.upgrade()


def test_tables_of_files_are_what_the_entities_say() -> None:
    with connect("owner") as session:
        for entity in ENTITIES.values():
            columns = session.execute(
                "select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute"
                " where attrelid = to_regclass(%s) and attnum > 0",
                [f"raw_files.{entity.name}"],
            ).fetchall()
            assert sorted(columns) == sorted(
                [
                    ("source_system", "text", True),
                    ("project_id", "text", True),
                    *(
                        (f.name, TYPES[f.type], f.required or f.name in entity.key)
                        for f in entity.fields
                    ),
                    ("source_file", "text", False),
                    ("source_line", "bigint", False),
                    ("_dlt_load_id", "text", False),
                    ("_dlt_id", "text", False),
                    *WRITTEN_BY_THE_DATABASE.get(entity.name, ()),
                ]
            ), entity.name
            key = session.execute(
                "select array_agg(a.attname order by k.place) from pg_index as i"
                " cross join lateral unnest(i.indkey) with ordinality as k (attnum, place)"
                " inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum"
                " where i.indrelid = to_regclass(%s) and i.indisunique",
                [f"raw_files.{entity.name}"],
            ).fetchone()
            assert key == (["project_id", *entity.key],), entity.name


@pytest.mark.parametrize(
    ("zone", "currency", "constraint"),
    [
        ("Europe/Kiew", "UAH", "projects_timezone_exists"),
        ("+02", "UAH", "projects_timezone_exists"),
        ("Europe/Kyiv", "uah", "projects_currency_is_iso_4217"),
    ],
)
def test_a_project_has_a_zone_and_a_currency_that_exist(
    zone: str, currency: str, constraint: str
) -> None:
    with connect("owner") as session:
        session.execute(
            "insert into settings.projects (source_system, project_id, timezone, currency)"
            " values ('file', 'good', 'Europe/Kyiv', 'UAH')"
        )
        with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
            session.execute(
                "insert into settings.projects (source_system, project_id, timezone, currency)"
                " values ('file', 'bad', %s, %s)",
                [zone, currency],
            )


def test_a_clone_gets_its_rights_back(database: Connection) -> None:
    with connect("owner", autocommit=True) as session:
        session.execute(
            psycopg.sql.SQL("grant connect on database {} to public").format(
                psycopg.sql.Identifier(database.dbname)
            )
        )
        assert not roles.rights_are_set(session)
    assert not migrate.is_current()
    migrate.upgrade()
    assert migrate.is_current()
