"""Who may do what: every role, every kind of object, every verb, on a real database."""

import psycopg
import pytest
from psycopg import sql

from loaders.registry import SOURCES
from stageline.database import ROLES, Role, connect

pytestmark = pytest.mark.usefixtures("database")

VERBS = {
    "select": "select from {}",
    "insert": "insert into {} default values",
    "update": "update {} set {column} = default",
    "delete": "delete from {}",
    "truncate": "truncate {}",
    "alter": "alter table {} add column extra text",
    "drop": "drop table {}",
}
ALL = set(VERBS)
READ = {"select"}
NONE: set[str] = set()

#: Table -> role -> what it may do; a role that is not named may do nothing. Tables `made_by_dbt`
#: stand for what dbt builds, as the transformer, with its own grant to the reader.
MATRIX: dict[str, dict[Role, set[str]]] = {
    "raw_files.leads": {"loader": ALL, "transformer": READ},
    "raw_files.reps": {"loader": ALL, "transformer": READ},
    "raw_files.pipeline_items": {"loader": ALL, "transformer": READ},
    "raw_files.sublists": {"loader": ALL, "transformer": READ},
    "raw_files.sales": {"loader": ALL, "transformer": READ},
    "raw_files.call_days": {"loader": ALL, "transformer": READ},
    "raw_files.rejects": {"loader": ALL},
    "raw_files.made_by_dlt": {"loader": ALL, "transformer": READ},
    "raw_files_staging.made_by_dlt": {"loader": ALL},
    "raw_demo.opportunities": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.deals": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.deal_changes": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.pipelines": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.stages": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.users": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.deal_fields": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.deal_field_options": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.listed_deals": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.activities": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.deal_histories": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.organizations": {"loader": ALL, "transformer": READ},
    "raw_pipedrive.rejects": {"loader": ALL},
    "raw_keycrm.orders": {"loader": ALL, "transformer": READ},
    "raw_keycrm.order_items": {"loader": ALL, "transformer": READ},
    "raw_hubspot.deal_pipelines": {"loader": ALL, "transformer": READ},
    "raw_hubspot.deal_stages": {"loader": ALL, "transformer": READ},
    "raw_hubspot.owners": {"loader": ALL, "transformer": READ},
    "raw_hubspot.deals": {"loader": ALL, "transformer": READ},
    "raw_hubspot.deal_history": {"loader": ALL, "transformer": READ},
    "raw_hubspot.merged_deals": {"loader": ALL, "transformer": READ},
    "raw_hubspot.archived_deals": {"loader": ALL, "transformer": READ},
    "raw_hubspot.ticket_pipelines": {"loader": ALL, "transformer": READ},
    "raw_hubspot.ticket_stages": {"loader": ALL, "transformer": READ},
    "raw_hubspot.tickets": {"loader": ALL, "transformer": READ},
    "raw_hubspot.calls": {"loader": ALL, "transformer": READ},
    "raw_hubspot.meetings": {"loader": ALL, "transformer": READ},
    "raw_hubspot.feedback_submissions": {"loader": ALL, "transformer": READ},
    "raw_hubspot.associations": {"loader": ALL, "transformer": READ},
    "raw_hubspot.companies": {"loader": ALL, "transformer": READ},
    "raw_hubspot.rejects": {"loader": ALL},
    "raw_salesforce.opportunities": {"loader": ALL, "transformer": READ},
    "raw_salesforce.opportunity_history": {"loader": ALL, "transformer": READ},
    "raw_salesforce.opportunity_field_history": {"loader": ALL, "transformer": READ},
    "raw_salesforce.stages": {"loader": ALL, "transformer": READ},
    "raw_salesforce.users": {"loader": ALL, "transformer": READ},
    "raw_salesforce.leads": {"loader": ALL, "transformer": READ},
    "raw_salesforce.tasks": {"loader": ALL, "transformer": READ},
    "raw_salesforce.events": {"loader": ALL, "transformer": READ},
    "raw_salesforce.cases": {"loader": ALL, "transformer": READ},
    "raw_salesforce.case_statuses": {"loader": ALL, "transformer": READ},
    "raw_salesforce.case_history": {"loader": ALL, "transformer": READ},
    "raw_salesforce.case_emails": {"loader": ALL, "transformer": READ},
    "raw_salesforce.case_comments": {"loader": ALL, "transformer": READ},
    "raw_salesforce.rejects": {"loader": ALL},
    "raw_keycrm.order_changes": {"loader": ALL, "transformer": READ},
    "raw_keycrm.order_statuses": {"loader": ALL, "transformer": READ},
    "raw_keycrm.order_sources": {"loader": ALL, "transformer": READ},
    "raw_keycrm.users": {"loader": ALL, "transformer": READ},
    "raw_keycrm.rejects": {"loader": ALL},
    "raw_sheet.opportunities": {"loader": ALL, "transformer": READ},
    "raw_sheet.rejects": {"loader": ALL},
    "raw_sample.made_by_dbt": {"transformer": ALL},
    # Of the deliveries each role reads columns of its own: see the test of what was said.
    "raw.deliveries": {"receiver": {"select", "insert"}, "transformer": READ, "jobs": READ},
    "raw.delivery_bodies": {
        "receiver": {"insert"},
        "transformer": READ,
        "jobs": {"select", "delete"},
    },
    "raw.stage_events": {"receiver": {"insert"}, "transformer": READ, "jobs": READ},
    "raw.value_changes": {"receiver": {"insert"}, "transformer": READ, "jobs": READ},
    "raw.lifecycle_events": {"receiver": {"insert"}, "transformer": READ, "jobs": READ},
    "raw.replays": {"receiver": {"insert"}, "transformer": READ, "jobs": READ},
    "raw.refusals": {"receiver": {"insert"}, "transformer": READ, "jobs": READ},
    "settings.projects": {
        "receiver": READ,
        "loader": {"select", "insert"},
        "transformer": READ,
        "jobs": READ,
    },
    "settings.webhook_checks": {"receiver": READ},
    "settings.api_accounts": {"loader": READ, "jobs": READ},
    "settings.field_map": {"transformer": READ, "jobs": READ},
    "settings.report_versions": {"transformer": READ, "jobs": READ},
    "settings.stage_map_scd": {"transformer": READ, "jobs": READ},
    "settings.stage_group_dictionary": {"transformer": READ, "jobs": READ},
    "settings.stage_dictionary": {"transformer": READ, "jobs": READ},
    "settings.calendars": {"transformer": READ, "jobs": READ},
    "settings.calendar_windows": {"transformer": READ, "jobs": READ},
    "settings.day_exceptions": {"transformer": READ, "jobs": READ},
    "settings.sla_stage_rules": {"transformer": READ, "jobs": READ},
    "settings.sla_thresholds": {"transformer": READ, "jobs": READ},
    "settings.waiting_stages": {"transformer": READ, "jobs": READ},
    "settings.urgent_rules": {"transformer": READ, "jobs": READ},
    "settings.cycle_rules": {"transformer": READ, "jobs": READ},
    "settings.order_overrides": {"transformer": READ, "jobs": READ},
    "settings.flow_metrics": {"transformer": READ, "jobs": READ},
    "settings.kpi_targets": {"transformer": READ, "jobs": READ},
    "settings.alert_thresholds": {"transformer": READ, "jobs": READ},
    "settings.audit_log": {"transformer": READ, "jobs": READ},
    "ops.load_positions": {
        "loader": {"select", "insert", "update", "delete"},
        "jobs": {"select", "insert", "update", "delete"},
    },
    "ops.loads": {
        "loader": {"select", "insert", "update"},
        "transformer": READ,
        "jobs": {"select", "insert", "update", "delete"},
    },
    "ops.quality_runs": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.quality_results": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.builds": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.backups": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.failed_tasks": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.follow_ups": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.follow_up_position": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.api_pace": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.node_runs": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.runs": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.refresh_groups": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.model_states": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.unchanged_nodes": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.alerts": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.archives": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.notifications": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.pgqueuer_schedules": {"jobs": {"select", "insert", "update", "delete"}},
    "ops.alembic_version": {},
    "staging.made_by_dbt": {"transformer": ALL},
    "intermediate.made_by_dbt": {"transformer": ALL},
    "kpis.made_by_dbt": {"transformer": ALL, "reader": READ},
    "snapshots.made_by_dbt": {"transformer": ALL, "reader": READ},
    "reference.made_by_dbt": {"transformer": ALL, "reader": READ},
}

#: Schema -> roles that may create a table in it.
MAKERS: dict[str, set[Role]] = {
    "raw": set(),
    "raw_files": {"loader"},
    "raw_files_staging": {"loader"},
    "raw_demo": {"loader"},
    "raw_demo_staging": {"loader"},
    "raw_pipedrive": {"loader"},
    "raw_pipedrive_staging": {"loader"},
    "raw_keycrm": {"loader"},
    "raw_hubspot": {"loader"},
    "raw_hubspot_staging": {"loader"},
    "raw_salesforce": {"loader"},
    "raw_salesforce_staging": {"loader"},
    "raw_keycrm_staging": {"loader"},
    "raw_sheet": {"loader"},
    "raw_sheet_staging": {"loader"},
    "raw_sample": {"transformer"},
    "settings": set(),
    "reference": {"transformer"},
    "staging": {"transformer"},
    "intermediate": {"transformer"},
    "kpis": {"transformer"},
    "snapshots": {"transformer"},
    "ops": set(),
    "public": set(),
}

#: View -> roles that may read it; nobody may write through one.
VIEWS: dict[str, set[Role]] = {
    "ops.model_freshness": {"jobs"},
    "ops.node_costs": {"jobs"},
    "raw.unparsed_deliveries": {"transformer", "jobs"},
    "raw.conflicting_deliveries": {"transformer", "jobs"},
}

#: Table -> its columns that hold what the sender said, which only the models' role may read.
WHAT_WAS_SAID = {
    "raw.deliveries": {"body_sha256"},
    "raw.delivery_bodies": {"body", "headers"},
}

WORKERS: list[Role] = [role for role in ROLES if role != "owner"]


def is_allowed(session: psycopg.Connection[object], statement: sql.Composed) -> bool:
    """Whether the server takes the statement from this role; nothing of it stays."""
    try:
        with session.transaction(force_rollback=True):
            session.execute(statement)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        return False
    except (psycopg.errors.NotNullViolation, psycopg.errors.FeatureNotSupported):
        return True  # the right is there: what stopped it is what the statement said
    return True


def make_tables_of_the_tools() -> None:
    """What dlt and dbt make, with the grant that dbt's configuration gives."""
    with connect("loader") as session:
        for schema in ("raw_files", "raw_files_staging"):
            session.execute(
                sql.SQL("create table {}.made_by_dlt (a text)").format(sql.Identifier(schema))
            )
    with connect("transformer") as session:
        for name in MATRIX:
            schema, table = name.split(".")
            if table != "made_by_dbt":
                continue
            target = sql.Identifier(schema, table)
            session.execute(sql.SQL("create table {} (a text)").format(target))
            if schema in {"kpis", "snapshots", "reference"}:
                session.execute(sql.SQL("grant select on {} to stageline_reader").format(target))


def observed(session: psycopg.Connection[object], name: str, column: str) -> set[str]:
    table = sql.Identifier(*name.split("."))
    return {
        verb
        for verb, text in VERBS.items()
        if is_allowed(session, sql.SQL(text).format(table, column=sql.Identifier(column)))
    }


def test_every_role_may_do_exactly_what_the_matrix_says() -> None:
    make_tables_of_the_tools()
    with connect("owner") as session:
        columns = dict(
            session.execute(
                "select attrelid::regclass::text, attname from pg_attribute"
                " where attnum = 1 and attrelid::regclass::text = any(%s)",
                [list(MATRIX)],
            ).fetchall()
        )
    assert set(columns) == set(MATRIX)
    wrong = {}
    for role in WORKERS:
        with connect(role) as session:
            session.rollback()
            for name, rights in MATRIX.items():
                found = observed(session, name, columns[name])
                if found != rights.get(role, NONE):
                    wrong[f"{role} on {name}"] = (found, rights.get(role, NONE))
    assert wrong == {}


def test_no_table_of_the_migrations_is_missing_from_the_matrix() -> None:
    with connect("owner") as session:
        tables = {
            name
            for (name,) in session.execute(
                "select c.oid::regclass::text from pg_class as c"
                " where relkind in ('r', 'p') and not relispartition"
                " and relnamespace::regnamespace::text = any(%s)",
                [["settings", "ops", "raw", *(f"raw_{name}" for name in SOURCES)]],
            )
        }
    assert tables <= set(MATRIX)


@pytest.mark.parametrize(
    ("table", "by_the_receiver"),
    [
        (
            "raw.deliveries",
            {"delivery_id", "sender", "source_system", "project_id", "sender_delivery_id"},
        ),
        ("raw.delivery_bodies", set()),
    ],
)
def test_what_a_sender_said_is_read_by_the_models_alone(
    table: str, by_the_receiver: set[str]
) -> None:
    found: dict[str, set[str]] = {role: set() for role in WORKERS}
    with connect("owner") as session:
        columns = session.execute(
            "select attname from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [table],
        ).fetchall()
        every = {name for (name,) in columns}
    for role in WORKERS:
        with connect(role) as session:
            for name in every:
                statement = sql.SQL("select {} from {}").format(
                    sql.Identifier(name), sql.Identifier(*table.split("."))
                )
                if is_allowed(session, statement):
                    found[role].add(name)
    assert every > WHAT_WAS_SAID[table]
    assert found == {
        "receiver": by_the_receiver,
        "loader": set(),
        "transformer": every,
        "jobs": every - WHAT_WAS_SAID[table],
        "reader": set(),
    }


def test_the_table_of_a_month_is_written_through_its_parent_alone() -> None:
    with connect("jobs", autocommit=True) as session:
        assert session.execute("select raw.make_body_partitions(9)").fetchone() == (6,)
    with connect("receiver", autocommit=True) as session:
        session.execute(
            "insert into raw.delivery_bodies (delivery_id, received_at, headers, body)"
            " values (gen_random_uuid(), now() + interval '9 months', '{}', 'x')"
        )
    with connect("jobs", autocommit=True) as session:
        assert session.execute("delete from raw.delivery_bodies").rowcount == 1
    with connect("owner") as session:
        found = session.execute(
            "select distinct r.role, privilege from pg_inherits"
            " cross join unnest(%s::text[]) as r (role)"
            " cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate'])"
            " as privilege"
            " where inhparent = 'raw.delivery_bodies'::regclass"
            " and has_table_privilege(r.role, inhrelid, privilege)",
            [[f"stageline_{role}" for role in WORKERS]],
        ).fetchall()
    assert found == [("stageline_transformer", "select")]


def test_who_may_make_and_drop_the_tables_of_months() -> None:
    calls = {
        "raw.make_body_partitions(0)": {"jobs"},
        "raw.drop_empty_body_partitions('2000-01-01')": {"jobs"},
        "raw.make_body_partition('2000-01-01')": set(),
    }
    for call, callers in calls.items():
        for role in WORKERS:
            with connect(role) as session:
                found = is_allowed(session, sql.SQL("select " + call).format())
                assert found == (role in callers), (call, role)


def test_who_was_refused_is_hidden_from_the_models() -> None:
    with connect("transformer") as session:
        for name in ("client_address", "body_bytes", "body_sha256"):
            statement = sql.SQL("select {} from raw.refusals").format(sql.Identifier(name))
            assert not is_allowed(session, statement), name


def test_what_landed_is_changed_by_nobody_and_removed_by_who_archives_it() -> None:
    with connect("owner") as session:
        found = session.execute(
            "select r.role, c.oid::regclass::text"
            " from pg_class as c cross join unnest(%s::text[]) as r (role)"
            " where c.relnamespace = 'raw'::regnamespace and c.relkind in ('r', 'p', 'v')"
            " and (has_any_column_privilege(r.role, c.oid, 'update')"
            " or has_table_privilege(r.role, c.oid, 'delete, truncate, references, trigger')"
            " or c.relkind = 'v' and has_any_column_privilege(r.role, c.oid, 'insert'))",
            [[f"stageline_{role}" for role in WORKERS]],
        ).fetchall()
    assert found == [("stageline_jobs", "raw.delivery_bodies")]


def test_who_may_read_the_views() -> None:
    with connect("owner") as session:
        views = session.execute(
            "select oid::regclass::text from pg_class where relkind = 'v'"
            " and relnamespace::regnamespace::text in ('settings', 'ops', 'raw')"
        ).fetchall()
    assert {name for (name,) in views} == set(VIEWS)
    wrong = []
    for role in WORKERS:
        with connect(role) as session:
            for name, readers in VIEWS.items():
                statement = sql.SQL("select from {}").format(sql.Identifier(*name.split(".")))
                if is_allowed(session, statement) != (role in readers):
                    wrong.append((role, name))
    assert wrong == []


def test_who_may_create_where() -> None:
    wrong = []
    for role in WORKERS:
        with connect(role) as session:
            for schema, makers in MAKERS.items():
                statement = sql.SQL("create table {} (a text)").format(
                    sql.Identifier(schema, "attempt")
                )
                if is_allowed(session, statement) != (role in makers):
                    wrong.append((role, schema))
            if is_allowed(session, sql.SQL("create schema attempt").format()):
                wrong.append((role, "the database"))
            temporary = sql.SQL("create temporary table attempt (a text)").format()
            if is_allowed(session, temporary) != (role == "transformer"):
                wrong.append((role, "temporary"))
            if is_allowed(session, sql.SQL("create role attempt").format()):
                wrong.append((role, "roles"))
    assert wrong == []


def test_the_reader_stays_read_only_even_when_it_lifts_its_own_setting() -> None:
    make_tables_of_the_tools()
    with connect("reader", autocommit=True) as session:
        assert session.execute("show default_transaction_read_only").fetchone() == ("on",)
        assert session.execute("show statement_timeout").fetchone() == ("1min",)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute("insert into kpis.made_by_dbt values ('x')")
        session.execute("set default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("insert into kpis.made_by_dbt values ('x')")


def test_the_reader_cannot_write_large_objects() -> None:
    with connect("reader", autocommit=True) as session:
        session.execute("set default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("select lo_create(0)")


def test_settings_hold_for_a_bi_tool_that_logs_in_by_itself() -> None:
    plain = connection_of("reader")
    with psycopg.connect(**plain) as session:
        assert session.execute("show default_transaction_read_only").fetchone() == ("on",)
        assert session.execute("show statement_timeout").fetchone() == ("1min",)
    with psycopg.connect(**connection_of("transformer")) as session:
        assert session.execute("show client_connection_check_interval").fetchone() == ("1s",)
    with psycopg.connect(**connection_of("receiver")) as session:
        assert session.execute("show synchronous_commit").fetchone() == ("on",)


def connection_of(role: Role) -> dict[str, object]:
    """The login of a role without the settings that Stageline's own sessions send."""
    from stageline.database import connection

    return {k: v for k, v in connection(role).libpq().items() if k != "options"}


def test_a_stranger_may_not_connect() -> None:
    from stageline import config, server

    with server.superuser(config.settings().home) as session:
        session.execute("create role stranger login password 'x'")
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(**connection_of("reader") | {"user": "stranger", "password": "x"})
    finally:
        with server.superuser(config.settings().home) as session:
            session.execute("drop role stranger")


def test_no_role_is_more_than_it_needs() -> None:
    with connect("owner") as session:
        powers = session.execute(
            "select rolname from pg_roles where rolname ~ '^stageline_'"
            " and (rolsuper or rolcreatedb or rolreplication or rolbypassrls"
            " or (rolcreaterole and rolname <> 'stageline_owner'))"
        ).fetchall()
    assert powers == []
