"""The sample restored into an empty server: the same numbers, the same rights, and it goes on."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import pytest
from psycopg import sql

from jobs.follow_ups import plan
from stageline import config, dbt_environment, migrate
from stageline.database import Connection, connect
from tests import webhook_oracle
from tests.checkout import stageline
from tests.plain_postgres import PASSWORD, PlainServer
from tests.warm_dbt import WarmDbt

LOGIN = "crm team"
SCHEMAS = ("kpis", "snapshots", "reference", "intermediate", "settings", "raw_files")


@pytest.fixture
def plain(short_folder: Path) -> Iterator[PlainServer]:
    """A server of an older version, with a login that is no superuser and has another name."""
    folder = short_folder / "restored"
    folder.mkdir()
    server = PlainServer(folder / "data", 16)
    server.create()
    server.start()
    with server.session() as session:
        session.execute(
            sql.SQL("create role {} login createrole password {}").format(
                sql.Identifier(LOGIN), sql.Literal(PASSWORD)
            )
        )
        session.execute(sql.SQL("create database stageline owner {}").format(sql.Identifier(LOGIN)))
    yield server
    server.kill()


def rows(query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    with connect("owner") as session:
        return session.execute(query, values).fetchall()


def deliver(*deals: str, entered_at: datetime | None = None) -> None:
    """What the receiver writes for deliveries of Pipedrive, one for each deal."""
    with connect("receiver") as session:
        for deal in deals:
            key, now = uuid4(), datetime.now(UTC)
            session.execute(
                "insert into raw.deliveries (delivery_id, sender, source_system, project_id,"
                " received_at, check_ids, body_bytes, body_sha256, entity_type, entity_ids)"
                " values (%s, 'pipedrive', 'pipedrive', 'main', %s, '{}', 0, sha256(''),"
                " 'deal', %s)",
                (key, now, [deal]),
            )
            session.execute(
                "insert into raw.stage_events (source_system, project_id, entity_type, entity_id,"
                " stage_id, entered_at, delivery_id, ingested_at)"
                " values ('pipedrive', 'main', 'deal', %s, 'first', %s, %s, %s)",
                (deal, entered_at or now, key, now),
            )


def planned() -> int:
    with connect("jobs", autocommit=True) as session:
        return plan(session)


def numbers() -> dict[str, tuple[Any, ...]]:
    """Every table of those schemas: how many rows, and a checksum of all of them."""
    with connect("owner") as session:
        tables = session.execute(
            "select nspname, relname from pg_class"
            " inner join pg_namespace on relnamespace = pg_namespace.oid"
            " where relkind = 'r' and nspname = any(%s)"
            # These hold what counts transactions.
            r" and relname not like '%%\_positions'",
            [list(SCHEMAS)],
        ).fetchall()
        return {
            f"{schema}.{table}": row
            for schema, table in tables
            for row in session.execute(
                sql.SQL(
                    "select count(*), md5(string_agg(t::text, chr(10) order by t::text))"
                    " from {} as t"
                ).format(sql.Identifier(schema, table))
            )
        }


def rights(owner: str) -> set[tuple[str, ...]]:
    """What belongs to whom and who may do what to it, with one name for the owner."""
    with connect("owner") as session:
        found = session.execute(
            """
            select
                nspname, '', nspowner::regrole::text,
                coalesce(nspacl, acldefault('n', nspowner))::text
            from pg_namespace
            where nspname !~ '^(pg_|public|information)'
            union all
            select
                nspname, relname, relowner::regrole::text,
                coalesce(
                    relacl,
                    acldefault(case when relkind = 'S' then 's' else 'r' end::"char", relowner)
                )::text
            from pg_class inner join pg_namespace on relnamespace = pg_namespace.oid
            where nspname !~ '^(pg_|public|information)'
            union all
            select nspname, attname || ' of ' || relname, '', attacl::text
            from pg_attribute
            inner join pg_class on attrelid = pg_class.oid
            inner join pg_namespace on relnamespace = pg_namespace.oid
            where attacl is not null and nspname !~ '^(pg_|public|information)'
            union all
            select
                nspname, proname, proowner::regrole::text,
                coalesce(proacl, acldefault('f', proowner))::text
            from pg_proc inner join pg_namespace on pronamespace = pg_namespace.oid
            where nspname !~ '^(pg_|public|information)'
            union all
            select nspname, 'default', defaclrole::regrole::text, defaclacl::text
            from pg_default_acl inner join pg_namespace on defaclnamespace = pg_namespace.oid
            """
        ).fetchall()
    return {
        (schema, name, holder.strip('"').replace(owner, "owner"), _grants(acl, owner))
        for schema, name, holder, acl in found
    }


def _grants(acl: str | None, owner: str) -> str:
    """In one order, without the quotes of names and without a right of newer servers (MAINTAIN)."""
    plain = (acl or "").translate({ord(sign): None for sign in '{}"\\'})
    return ",".join(sorted(plain.replace(owner, "owner").replace("arwdDxtm", "arwdDxt").split(",")))


def test_a_restored_database_has_the_same_numbers_and_misses_nothing_that_comes(
    sample_database: Connection,
    plain: PlainServer,
    dbt: WarmDbt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deliver("before-1", "before-2")
    assert planned() == 2
    dbt.run("int_flow_changes", "int_stage_intervals", "webhook_stats")
    deliver("not-yet-planned", "not-yet-built")
    expected, expected_rights = numbers(), rights(sample_database.user)
    assert len(expected) > 100, "KPIs, what they are made of, settings and rows of files"
    assert expected["kpis.conversion_funnel"][0] > 0
    ((there,),) = rows("select pg_current_xact_id()::text::bigint")
    file = tmp_path / "all.zip"
    said = stageline(config.PROJECT_ROOT, "backup", str(file))
    assert "STAGELINE_SECRET_KEY" in said.stdout

    monkeypatch.setenv(
        "STAGELINE_DATABASE_URL",
        f"postgresql://crm%20team:{PASSWORD}@127.0.0.1:{plain.port}/stageline",
    )
    config.settings.cache_clear()
    for variable, value in dbt_environment.variables().items():
        monkeypatch.setenv(variable, value)
    said = stageline(config.PROJECT_ROOT, "restore", str(file))
    assert "Next: `stageline build`" in said.stdout

    ((here,),) = rows("select pg_current_xact_id()::text::bigint")
    assert here < there, "transactions of the dump are still to come here, which is what is tried"
    assert numbers() == expected
    assert rights(LOGIN) == expected_rights
    assert migrate.is_current()

    # What was planned within the last hour is planned once more, what came in since at last.
    deliver("new")
    assert planned() == 5
    assert planned() == 0, "what came with the dump is not planned again and again"
    deliver("newer")
    assert planned() == 1

    def built() -> set[str]:
        dbt.run("int_flow_changes", "int_stage_intervals", "webhook_stats")
        with connect("owner") as session:
            counted = {c: h.row() for c, h in webhook_oracle.hours(session).items()}
        stats = rows("select * from kpis.webhook_stats")
        assert {(r[0], r[1], r[2].astimezone(UTC)): r[3:-1] for r in stats} == counted
        return {
            deal
            for (deal,) in rows(
                "select entity_id from intermediate.int_stage_intervals where project_id = 'main'"
                " and source_system = 'pipedrive'"
            )
        }

    assert built() == {"before-1", "before-2", "not-yet-planned", "not-yet-built", "new", "newer"}
    # As if all models had been built in that run, and not only the few that this is about.
    with connect("owner") as session:
        session.execute(
            "update intermediate.flow_positions as others"
            " set position = changes.position, as_of = changes.as_of"
            " from intermediate.flow_positions as changes where changes.model = 'int_flow_changes'"
        )
    deliver("newest")
    assert "newest" in built()
    assert rows("select entity_id from intermediate.int_flow_changes") == [("newest",)]
