"""What is older than it is kept goes, and what something still stands on stays."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from click.testing import CliRunner

from jobs.pruning import LAST, LAST_CHECKS, prune
from jobs.refresh_runs import typical_seconds
from jobs.retention import Retention
from stageline.cli.prune import prune as command
from stageline.database import Connection, connect

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEPT = Retention(timedelta(days=90), timedelta(days=365), None)
OLD = NOW - timedelta(days=90, seconds=1)
YOUNG = NOW - timedelta(days=90)


@pytest.fixture
def session(database: Connection) -> Iterator[psycopg.Connection[Any]]:  # noqa: ARG001
    with connect("owner", autocommit=True) as session:
        yield session


def left(session: psycopg.Connection[Any], query: LiteralString) -> list[Any]:
    return [value for (value,) in session.execute(query)]


def add_runs(
    session: psycopg.Connection[Any], group: str, status: str, at: datetime, number: int = 1
) -> None:
    """Runs, one a minute, the first one at that time."""
    session.execute(
        "insert into ops.runs (group_name, slot, requested_at, requested_by, due_at, status,"
        " started_at, finished_at)"
        " select %(group)s, at, at, 'schedule', at, %(status)s, at,"
        " case when %(status)s not in ('waiting', 'running') then at + interval '5 s' end"
        " from generate_series(0, %(number)s - 1) as n"
        " cross join lateral (select %(at)s::timestamptz + n * interval '1 minute' as at) as slot",
        {"group": group, "status": status, "at": at, "number": number},
    )


def test_old_runs_go_but_for_the_last_of_each_group_and_those_that_are_open(
    session: psycopg.Connection[Any],
) -> None:
    long_ago = OLD - timedelta(days=30)
    add_runs(session, "busy", "success", long_ago, 1200)  # more than are removed at once
    add_runs(session, "busy", "success", YOUNG, 3)
    add_runs(session, "idle", "success", long_ago, 5)
    add_runs(session, "idle", "failed", long_ago - timedelta(hours=1), 2)
    add_runs(session, "idle", "waiting", long_ago - timedelta(hours=2))
    add_runs(session, "late", "skipped", long_ago, LAST + 10)
    # The first slot that the table misses says since when its promise is broken.
    session.execute(
        "insert into ops.model_states (model, group_name, schema_name, is_stored, reflects_until)"
        " values ('m', 'late', 'kpis', true, %s)",
        [long_ago + timedelta(minutes=4, seconds=30)],
    )
    typical = typical_seconds(session)

    assert prune(KEPT, NOW, is_dry=True) == {"ops.runs": 1200 - (LAST - 3) + 10 - 1}
    assert left(session, "select count(*) from ops.runs") == [1200 + 3 + 8 + LAST + 10]
    assert prune(KEPT, NOW) == {"ops.runs": 1200 - (LAST - 3) + 10 - 1}
    assert prune(KEPT, NOW) == {}

    assert left(session, "select count(*) from ops.runs where group_name = 'busy'") == [LAST]
    assert left(session, "select count(*) from ops.runs where group_name = 'idle'") == [8]
    (first, *_) = left(session, "select slot from ops.runs where group_name = 'late' order by 1")
    assert first == long_ago + timedelta(minutes=5)
    assert typical_seconds(session) == typical


def test_runs_of_a_build_that_groups_shared_stay_together(
    session: psycopg.Connection[Any],
) -> None:
    """Else one of them would look as if it had been alone, and tell how long its group takes."""
    for group, days, number in (
        ("third", 9, LAST),
        ("busy", 9, LAST),
        ("other", 30, LAST),
        ("busy", 30, LAST + 1),  # its last one alone
    ):
        add_runs(session, group, "success", OLD - timedelta(days=days), number)
    session.execute("update ops.runs set build_id = md5(slot::text)::uuid")
    add_runs(session, "busy", "success", YOUNG, LAST)
    typical = typical_seconds(session)
    assert prune(KEPT, NOW) == {"ops.runs": 1}
    assert typical_seconds(session) == typical
    builds = left(session, "select count(*) from ops.runs where slot < now() group by build_id")
    assert sorted(builds) == [*[2] * 2 * LAST, LAST], "those without a build are alone"


def test_builds_go_with_their_nodes_unless_tables_are_of_them(
    session: psycopg.Connection[Any],
) -> None:
    session.execute(
        "with made as ("
        " insert into ops.builds (started_at, finished_at, status)"
        " select %(at)s - n * interval '1 hour', %(at)s - n * interval '1 hour', 'success'"
        " from generate_series(1, 60) as n returning build_id"
        ") insert into ops.node_runs (build_id, node_kind, node_name, status, seconds)"
        " select build_id, 'model', 'm', 'success', 1 from made",
        {"at": OLD},
    )
    builds = left(session, "select build_id from ops.builds order by started_at")
    session.execute(
        "insert into ops.model_states (model, schema_name, is_stored, build_id)"
        " values ('m', 'kpis', true, %s)",
        [builds[0]],
    )
    add_runs(session, "any", "success", OLD)
    session.execute("update ops.runs set build_id = %s", [builds[1]])

    assert prune(KEPT, NOW) == {"ops.builds": 60 - LAST - 2}
    kept = [*builds[:2], *builds[-LAST:]]
    assert left(session, "select build_id from ops.builds order by started_at") == kept
    assert {*left(session, "select build_id from ops.node_runs")} == {*kept}


def test_checks_go_but_for_those_that_alerts_are_read_from(
    session: psycopg.Connection[Any],
) -> None:
    session.execute(
        "insert into ops.quality_runs (started_at, finished_at, success)"
        " select %(at)s - n * interval '1 hour', %(at)s - n * interval '1 hour', n = 130"
        " from generate_series(1, 150) as n",
        {"at": OLD},
    )
    assert prune(KEPT, NOW) == {"ops.quality_runs": 150 - LAST_CHECKS - 1}
    assert left(session, "select count(*) from ops.quality_runs where success") == [1]


def test_loads_of_files_and_the_last_of_each_account_stay(
    session: psycopg.Connection[Any],
) -> None:
    for project, file, error, number in (
        ("main", None, None, 50),
        ("main", None, "one record was refused", 2),
        ("rare", None, None, 1),
        ("files", "deals.csv", None, 30),
    ):
        session.execute(
            "insert into ops.loads"
            " (source, project_id, file_name, error, started_at, finished_at, status)"
            " select 'pipedrive', %(project)s, %(file)s, %(error)s,"
            " %(at)s - n * interval '1 hour', %(at)s - n * interval '1 hour', 'success'"
            " from generate_series(1, %(number)s) as n",
            {"project": project, "file": file, "error": error, "number": number, "at": OLD},
        )
    assert prune(KEPT, NOW) == {"ops.loads": 50 - LAST}
    assert left(session, "select count(*) from ops.loads where file_name is not null") == [30]


def test_resolved_alerts_go_unless_something_is_still_to_be_sent(
    session: psycopg.Connection[Any],
) -> None:
    later = [(f"later {number}", YOUNG) for number in range(LAST)]
    for key, resolved_at in (("gone", OLD), ("told", OLD), ("open", None), *later):
        session.execute(
            "insert into ops.alerts (alert_key, kind, criticality, subject, title, text, numbers,"
            " since, opened_at, last_seen_at, resolved_at)"
            " values (%s, 'kpi', 'low', '', '', '', '{}', %s, %s, %s, %s)",
            [key, *[OLD - timedelta(days=9)] * 3, resolved_at],
        )
    session.execute(
        "insert into ops.notifications (channel, alert_id, event, due_at, next_at, sent_at)"
        " select 'team', alert_id, 'opened', %(at)s, null, %(at)s from ops.alerts"
        " union all"
        " select 'mail', alert_id, 'resolved', %(at)s, %(at)s, null from ops.alerts"
        " where alert_key = 'told'",
        {"at": OLD},
    )
    assert prune(KEPT, NOW) == {"ops.alerts": 1}
    kept = {"open", "told", *(key for key, _ in later)}
    assert {*left(session, "select alert_key from ops.alerts")} == kept
    assert left(session, "select count(*) from ops.notifications") == [len(kept) + 1]


def test_versions_that_ceased_to_hold_long_ago_go_and_present_ones_never(
    session: psycopg.Connection[Any],
) -> None:
    session.execute("set role stageline_transformer")
    session.execute("create table snapshots.deals (id int, dbt_valid_to timestamp)")
    session.execute("create table snapshots.other (id int)")
    session.execute(
        "insert into snapshots.deals select n, %(at)s - n * interval '1 second'"
        " from generate_series(1, 6000) as n",
        {"at": NOW - timedelta(days=365)},
    )
    session.execute(
        "insert into snapshots.deals values (0, %s), (-1, null)", [NOW - timedelta(days=364)]
    )
    session.execute("insert into snapshots.other values (1)")
    assert prune(Retention(None, None, None), NOW) == {}
    assert prune(KEPT, NOW) == {"snapshots.deals": 6000}
    assert left(session, "select id from snapshots.deals order by id") == [-1, 0]


def test_the_command_says_what_would_go_and_what_went(session: psycopg.Connection[Any]) -> None:
    add_runs(session, "any", "failed", datetime(2020, 1, 1, tzinfo=UTC), LAST + 7)
    said = CliRunner().invoke(command, ["--dry-run"])
    assert said.exit_code == 0
    assert "would go" in said.output
    assert "ops.runs" in said.output
    assert "7" in said.output
    assert "removed" in CliRunner().invoke(command, []).output
    assert "Nothing is older than it is kept." in CliRunner().invoke(command, []).output
