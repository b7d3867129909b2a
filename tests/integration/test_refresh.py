"""Refreshes with a real dbt: what is built, what is tried again, and how fresh tables are."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from jobs import refresh_runs as runs
from jobs import traces, unchanged
from jobs.alert_sources import refresh_conditions
from jobs.build import build, known_project
from jobs.metrics import REGISTRY
from jobs.refresh import Outcome, refresh_due
from jobs.refresh_config import Group
from stageline import server as embedded
from stageline.cli import main
from stageline.config import PROJECT_ROOT, settings
from stageline.database import connect
from stageline.server import superuser
from tests import refresh_groups
from tests.conftest import TestServer
from tests.kept_reading import kept_reading
from tests.refresh_groups import MINUTE
from tests.sinks import Sink

pytestmark = pytest.mark.usefixtures("database")

PROJECT = """\
name: tiny
version: "1.0"
config-version: 2
profile: stageline
models:
  +schema: kpis
  +materialized: table
"""

FLOW = replace(refresh_groups.FLOW, first_wait=timedelta(0), timeout=5 * MINUTE)
SALES = replace(FLOW, name="sales", tag="refresh_sales")
GROUPS = {"flow": FLOW, "sales": SALES}

#: Base <- orders (flow), base <- deals (sales); `deals` fails while a file's text says so.
MODELS = {
    "base": "select 1 as id",
    "orders": "{{ config(tags=['refresh_flow']) }} select id, now() as at from {{ ref('base') }}",
    "deals": "{{ config(tags=['refresh_sales']) }} select 1 / (id - 1) as n from {{ ref('base') }}",
}
GOOD_DEALS = "{{ config(tags=['refresh_sales']) }} select id as n from {{ ref('base') }}"
SLOW_DEALS = "{{ config(tags=['refresh_sales']) }} select 1 as n from pg_sleep(60)"


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What dbt read of the first project."""
    return tmp_path_factory.mktemp("reading") / "kept"


@pytest.fixture
def project(
    tmp_path: Path, reading: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """A dbt project of `MODELS`, some of them said anew."""
    folder = tmp_path / "tiny"

    def make(**models: str) -> Path:
        (folder / "models").mkdir(parents=True, exist_ok=True)
        (folder / "macros").mkdir(exist_ok=True)
        for name, text in {**MODELS, **models}.items():
            (folder / "models" / f"{name}.sql").write_text(text)
        for name in ("profiles.yml", "macros/generate_schema_name.sql"):
            (folder / name).write_text((PROJECT_ROOT / name).read_text())
        (folder / "dbt_project.yml").write_text(PROJECT)
        monkeypatch.delenv("DBT_TARGET_PATH", raising=False)
        return folder

    with kept_reading(folder, reading):
        yield make


@pytest.fixture
def layers(project: Callable[..., Path]) -> Path:
    """Sources, views of them, a seed, and a table of all that; each has a test but the table."""
    view = "{{ config(materialized='view') }} select 1 as id from {{ source('files', '%s') }}"
    folder = project(
        leads=view % "leads",
        tickets=view % "tickets",
        dated="{{ config(materialized='view') }} select '{{ run_started_at }}' as id",
        asked="{{ config(materialized='view') }} select '{{ env_var('HOME') }}' as id",
        base="select id from {{ ref('leads') }} union all select id from {{ ref('tickets') }}"
        " union all select id from {{ ref('codes') }}",
    )
    (folder / "seeds").mkdir()
    (folder / "seeds" / "codes.csv").write_text("id\n7\n")
    (folder / "tests").mkdir()
    for name in ("leads", "tickets", "codes"):
        test = "select * from {{ ref('%s') }} where id is null"
        (folder / "tests" / f"{name}_have_ids.sql").write_text(test % name)
    (folder / "models" / "sources.yml").write_text(
        "sources:\n- name: files\n  schema: raw_files\n  tables: [name: leads, name: tickets]\n"
    )
    return folder


def refresh(
    folder: Path,
    stop: threading.Event | None = None,
    groups: dict[str, Group] | None = None,
) -> dict[str, Outcome]:
    with connect("jobs", autocommit=True) as session:
        found = refresh_due(session, groups or GROUPS, stop or threading.Event(), project=folder)
    return {outcome.run.group_name: outcome for outcome in found}


def request(*names: str) -> None:
    with connect("jobs", autocommit=True) as session:
        runs.sync(session, GROUPS, datetime.now(UTC))
        # What is checked of raw data has tests of its own.
        session.execute(
            "insert into ops.quality_runs (started_at, success)"
            " values (now() + interval '1 h', true)"
        )
        for name in names:
            runs.request(session, name, "ana", datetime.now(UTC))


def rows(query: str) -> list[tuple[Any, ...]]:
    with connect("jobs") as session:
        return session.execute(query).fetchall()


def built() -> list[str]:
    """What the last build did, by name."""
    return [
        name
        for (name,) in rows(
            "select node_name from ops.node_runs inner join ops.builds using (build_id)"
            " where started_at = (select max(started_at) from ops.builds) order by node_name"
        )
    ]


def counted() -> "Counter[str]":
    """What monitoring is told that refreshes did, by a few words."""
    words = {
        "stageline_refresh_loads_total": "loads {source} {outcome}",
        "stageline_refresh_load_seconds_count": "took {source}",
        "stageline_refresh_runs_total": "runs {group} {outcome}",
        "stageline_refresh_run_seconds_count": "took {group}",
        "stageline_refresh_wait_seconds_count": "waited {group}",
        "stageline_refresh_builds_total": "builds {outcome}",
        "stageline_refresh_nodes_total": "nodes {kind} {status}",
    }
    return Counter(
        {
            words[sample.name].format(**sample.labels): int(sample.value)
            for family in REGISTRY.collect()
            for sample in family.samples
            if sample.name in words
        }
    )


def spans_of(collector: Sink) -> dict[str, tuple[str | None, bool, int]]:
    """What a collector of OpenTelemetry was sent: name -> name above it, failed, nanoseconds."""
    found = []
    for request in collector.requests:
        assert request.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(request.body)
        found += [
            span
            for resource in sent.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    names = {span.span_id: span.name for span in found}
    assert len({span.trace_id for span in found}) == 1
    return {
        span.name: (
            names.get(span.parent_span_id),
            span.status.code == span.status.STATUS_CODE_ERROR,
            span.end_time_unix_nano - span.start_time_unix_nano,
        )
        for span in found
    }


class TestRuns:
    def test_groups_that_are_due_together_share_a_build(self, project: Callable[..., Path]) -> None:
        request("flow", "sales")
        outcomes = refresh(project(deals=GOOD_DEALS))
        assert {name: outcome.error for name, outcome in outcomes.items()} == {
            "flow": "",
            "sales": "",
        }
        assert built() == ["base", "deals", "orders"]
        assert rows("select count(*) from ops.builds") == [(1,)]
        assert (
            rows("select status, build_id is null, error from ops.runs")
            == [("success", False, None)] * 2
        )

    def test_a_group_is_judged_by_its_own_models_and_tried_again_from_those(
        self, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request("flow", "sales")
        before = counted()
        with Sink() as collector:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
            sending = traces.provider()
            monkeypatch.setattr(traces.trace, "get_tracer", sending.get_tracer)
            outcomes = refresh(project())
            sending.shutdown()
            spans = spans_of(collector)
        assert {name: (parent, is_bad) for name, (parent, is_bad, _) in spans.items()} == {
            "refresh": (None, True),
            "build": ("refresh", True),
            "model base": ("build", False),
            "model orders": ("build", False),
            "model deals": ("build", True),
        }
        assert 0 < spans["model base"][2] < spans["build"][2] < spans["refresh"][2]
        assert counted() - before == {
            "runs flow success": 1,
            "runs sales retried": 1,
            "took flow": 1,
            "took sales": 1,
            "waited flow": 1,
            "waited sales": 1,
            "builds failed": 1,
            "nodes model success": 2,
            "nodes model error": 1,
        }
        assert outcomes["flow"].error == ""
        assert outcomes["sales"].error.startswith("model deals: ")
        assert "division by zero" in outcomes["sales"].error
        assert outcomes["sales"].again is not None
        assert rows("select group_name, status, nodes_to_retry from ops.runs order by 1") == [
            ("flow", "success", None),
            ("sales", "waiting", ["deals"]),
        ]

        outcomes = refresh(project(deals=GOOD_DEALS))
        assert outcomes["sales"].error == ""
        assert built() == ["deals"]
        assert rows("select attempts, status from ops.runs where group_name = 'sales'") == [
            (2, "success")
        ]

    def test_what_fails_is_given_up_after_its_attempts(self, project: Callable[..., Path]) -> None:
        request("sales")
        folder = project()
        for is_last in (False, False, True):
            assert (refresh(folder)["sales"].again is None) is is_last
        assert refresh(folder) == {}
        assert rows("select status, attempts from ops.runs") == [("failed", 3)]

    def test_a_data_test_that_fails_is_named_and_tried_again_by_itself(
        self, project: Callable[..., Path]
    ) -> None:
        folder = project()
        data_test = folder / "tests" / "orders_are_none.sql"
        data_test.parent.mkdir()
        data_test.write_text("select * from {{ ref('orders') }}")
        request("flow")
        outcome = refresh(folder)["flow"]
        assert outcome.error.startswith("test orders_are_none: 1 rows do not pass")
        assert rows("select nodes_to_retry from ops.runs") == [(["orders_are_none"],)]
        data_test.write_text("select * from {{ ref('orders') }} where id > 1")
        assert refresh(folder)["flow"].error == ""
        assert built() == []
        assert rows("select nodes_ok, nodes_failed from ops.builds order by started_at") == [
            (2, 1),
            (1, 0),
        ]

    def test_raw_data_that_break_a_critical_rule_stop_it_before_anything_is_touched(
        self, layers: Path
    ) -> None:
        """What is not made of such a table goes on, once dbt has told what is made of what."""
        (layers / "models" / "deals.sql").write_text(GOOD_DEALS.replace("base", "tickets"))

        def break_rule() -> None:
            with connect("owner", autocommit=True) as session:
                session.execute("delete from ops.quality_runs")
                session.execute(
                    "insert into raw_files.leads"
                    " (source_system, project_id, lead_id, stage, created_at, win_probability)"
                    " values ('file', 'default', 'a', 'lead', now(), 7) on conflict do nothing"
                )

        request("flow", "sales")
        break_rule()
        outcomes = refresh(layers)
        for name in ("flow", "sales"):
            assert "win_probability is between 0 and 1" in outcomes[name].error
            assert outcomes[name].again is not None
        assert rows("select count(*) from ops.builds") == [(0,)]

        build(project=layers)
        request("sales")
        break_rule()
        outcomes = refresh(layers)
        assert "win_probability is between 0 and 1" in outcomes["flow"].error
        assert outcomes["sales"].error == ""
        assert built() == ["deals"]

    def test_a_project_that_cannot_be_read(
        self, project: Callable[..., Path], tmp_path: Path
    ) -> None:
        request("sales")
        outcome = refresh(project(deals="select {{"))["sales"]
        assert "dbt could not start" in outcome.error
        assert rows("select nodes_to_retry from ops.runs") == [(None,)]
        (tmp_path / "tiny" / "dbt_project.yml").write_text("name: [")
        assert known_project(tmp_path / "tiny") is None

    def test_somebody_elses_build_is_waited_for(self, project: Callable[..., Path]) -> None:
        request("flow")
        with connect("jobs", autocommit=True) as other:
            other.execute("select pg_advisory_lock(hashtextextended('stageline build prod', 0))")
            outcome = refresh(project())["flow"]
        assert outcome.is_busy and outcome.error == ""
        assert rows("select status, attempts, due_at > now() + interval '5 s' from ops.runs") == [
            ("waiting", 0, True)
        ]

    def test_what_a_run_can_do_without_is_told(self, project: Callable[..., Path]) -> None:
        with connect("owner", autocommit=True) as session:
            store_account(session)
        request("flow")
        needs = replace(FLOW, loads=("hubspot", "keycrm"), exports=("pipeline",))
        before = counted()
        outcome = refresh(project(), groups={"flow": needs})["flow"]
        assert outcome.error == ""
        assert counted() - before >= Counter({"loads hubspot failed": 1, "took hubspot": 1})
        ((status, told),) = rows("select status, error from ops.runs")
        assert status == "success"
        assert told.startswith("hubspot was not loaded: ")
        assert "; pipeline was not exported: " in told
        with connect("jobs") as session:
            (alert,) = refresh_conditions(session)
        assert (alert.key, alert.criticality) == ("refresh|flow|success", "medium")

    def test_one_that_takes_too_long_is_stopped(self, project: Callable[..., Path]) -> None:
        request("sales")
        hasty = {**GROUPS, "sales": replace(SALES, timeout=timedelta(seconds=3))}
        outcome = refresh(project(deals=SLOW_DEALS), groups=hasty)["sales"]
        assert "took too long and was stopped" in outcome.error
        wait_for(lambda: sleepers() == 0)

    def test_a_stop_ends_the_query_and_the_run_is_due_again(
        self, project: Callable[..., Path]
    ) -> None:
        request("sales")
        folder, stop, found = project(deals=SLOW_DEALS), threading.Event(), {}
        thread = threading.Thread(target=lambda: found.update(refresh(folder, stop)))
        thread.start()
        wait_for(lambda: sleepers() == 1)
        stop.set()
        thread.join(30)
        assert found["sales"].error == "" and found["sales"].again is not None
        wait_for(lambda: sleepers() == 0)
        assert rows("select status, attempts from ops.runs") == [("waiting", 0)]

    def test_a_process_that_is_killed_leaves_its_run_to_the_next(
        self, project: Callable[..., Path]
    ) -> None:
        request("sales")
        folder = project(deals=SLOW_DEALS)
        code = (
            "import sys, threading; from pathlib import Path; from jobs.refresh import refresh_due;"
            " from stageline.database import connect; from tests.integration.test_refresh import"
            " GROUPS\n"
            "with connect('jobs', autocommit=True) as session:\n"
            "    refresh_due(session, GROUPS, threading.Event(), project=Path(sys.argv[1]))"
        )
        child = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=PROJECT_ROOT)
        wait_for(lambda: sleepers() == 1)
        child.send_signal(signal.SIGKILL)
        child.wait()
        project(deals=GOOD_DEALS)
        outcome = Outcome
        end = time.monotonic() + 60
        # The dbt of the process that is gone ends by itself when it finds nobody to tell.
        while (found := refresh(folder)).get("sales", None) is None or found["sales"].is_busy:
            assert time.monotonic() < end
            kill_sleepers()
            with connect("jobs", autocommit=True) as session:
                session.execute("update ops.runs set due_at = now()")
            time.sleep(0.2)
        outcome = found["sales"]
        assert outcome.error == ""
        assert rows("select status, attempts from ops.runs") == [("success", 2)]


def test_a_full_disk_is_told_and_the_old_table_stays_until_there_is_room(
    project: Callable[..., Path], server: TestServer
) -> None:
    # More than a file of the server may have below; a segment of its log has 16 MB.
    many = (
        "{{ config(tags=['refresh_flow']) }}"
        " select n as id, repeat('x', 1000) as at from generate_series(1, 20000) as n"
    )
    request("flow")
    refresh(project())
    request("flow")

    # That no file can grow is what a full disk comes to for the server, and needs no disk to fill.
    with restarted_with_files_up_to(server, 17 * 2**20):
        outcome = refresh(project(orders=many))["flow"]
    assert outcome.error.startswith("model orders: could not extend file")
    assert outcome.again is not None
    assert rows("select nodes_to_retry from ops.runs where status = 'waiting'") == [(["orders"],)]

    compiled = project(orders=many) / "target" / "compiled" / "tiny" / "models" / "orders.sql"
    compiled.unlink()
    compiled.symlink_to("/dev/full")  # where dbt writes
    outcome = refresh(project(orders=many))["flow"]
    assert "No space left on device" in outcome.error
    assert outcome.again is not None
    with connect("transformer") as session:
        assert session.execute("select id from kpis.orders").fetchall() == [(1,)]

    compiled.unlink()
    assert refresh(project(orders=many))["flow"].error == ""
    with connect("transformer") as session:
        assert session.execute("select count(*) from kpis.orders").fetchall() == [(20000,)]


@contextmanager
def restarted_with_files_up_to(server: TestServer, size: int) -> Iterator[None]:
    """The server of the tests takes larger files for an error while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    embedded.stop(server.home)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # what it starts inherits it
        embedded.start(server.home, server.port, durable=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        embedded.stop(server.home)
        embedded.start(server.home, server.port, durable=False)


class TestFreshness:
    def test_a_table_is_as_old_as_the_start_of_its_build(
        self, project: Callable[..., Path]
    ) -> None:
        request("flow")
        before = datetime.now(UTC)
        refresh(project())
        ((group, reflects_until, state),) = rows(
            "select group_name, reflects_until, state from ops.model_freshness"
            " where model = 'orders'"
        )
        assert (group, state) == ("flow", "fresh")
        assert rows("select started_at from ops.builds") == [(reflects_until,)]
        with connect("transformer") as session:
            ((written_at,),) = session.execute("select at from kpis.orders").fetchall()
        assert before <= reflects_until <= written_at

    def test_and_as_what_it_is_made_of(self, project: Callable[..., Path]) -> None:
        folder = project(deals=GOOD_DEALS)
        build(project=folder)
        (old,) = rows("select distinct reflects_until from ops.model_states")
        build("orders", project=folder)
        assert rows("select model, reflects_until from ops.model_states order by 1") == [
            (name, *old) for name in ("base", "deals", "orders")
        ]
        build("base", project=folder)
        newest = "select max(reflects_until) from ops.model_states"
        assert rows(
            f"select model from ops.model_states where reflects_until = ({newest})"  # noqa: S608
        ) == [("base",)]
        assert rows(newest) > [old]

    def test_a_build_that_fails_leaves_what_it_did_not_build(
        self, project: Callable[..., Path]
    ) -> None:
        build(project=project(deals=GOOD_DEALS))
        (old,) = rows("select distinct reflects_until from ops.model_states")
        request("flow", "sales")
        refresh(project())
        found = dict(rows("select model, reflects_until from ops.model_states"))
        assert found["deals"] == old[0]
        assert found["orders"] == found["base"] > old[0]

    def test_a_view_is_as_old_as_what_it_reads(self, project: Callable[..., Path]) -> None:
        orders = "{{ config(materialized='view', tags=['refresh_flow']) }} select * from"
        folder = project(deals=GOOD_DEALS, orders=orders + " {{ ref('base') }}")
        build(project=folder)
        build("base", project=folder)
        found = dict(rows("select model, reflects_until from ops.model_states"))
        assert found["orders"] == found["base"] > found["deals"]

    def test_a_promise_is_at_risk_and_then_broken(self, project: Callable[..., Path]) -> None:
        request("flow")
        refresh(project())

        def state(reflected_ago: str, expected_in: str) -> str:
            with connect("jobs", autocommit=True) as session:
                session.execute(
                    "update ops.model_states set reflects_until = now() - %s::interval",
                    [reflected_ago],
                )
                session.execute(
                    "update ops.refresh_groups set expected_at = now() + %s::interval",
                    [expected_in],
                )
            ((found,),) = rows("select state from ops.model_freshness where model = 'orders'")
            return str(found)

        assert state("10 min", "45 min") == "fresh"
        assert state("10 min", "55 min") == "at risk"
        assert state("61 min", "-1 min") == "breached"

    def test_what_is_late_or_failed_is_an_alert(self, project: Callable[..., Path]) -> None:
        request("flow", "sales")
        folder = project()
        for _ in range(3):
            refresh(folder)
        with connect("jobs", autocommit=True) as session:
            session.execute(
                "update ops.model_states set reflects_until = now() - interval '2 h'"
                " where model = 'orders'"
            )
            found = {each.key: each for each in refresh_conditions(session)}
            assert set(found) == {"refresh|flow|breached", "refresh|sales|failed"}
            assert found["refresh|flow|breached"].title == (
                "flow: older than promised, the oldest table by 120 minutes"
            )
            assert found["refresh|flow|breached"].text.startswith("orders. ")
            assert found["refresh|sales|failed"].criticality == "high"
            assert "division by zero" in found["refresh|sales|failed"].title
            assert {each.channels for each in found.values()} == {None}
            named = {name: replace(group, channels=(name,)) for name, group in GROUPS.items()}
            runs.sync(session, named, datetime.now(UTC))
            assert [each.channels for each in refresh_conditions(session)] == [["flow"], ["sales"]]
            session.execute("update ops.refresh_groups set paused_at = now()")
            assert refresh_conditions(session) == []

    def test_what_got_slower_is_told(self, project: Callable[..., Path]) -> None:
        request("flow")
        refresh(project(base="select 1 as id union all select 2"))
        assert rows("select node_name, rows from ops.node_runs order by 1") == [
            ("base", 2),
            ("orders", 2),
        ]
        with connect("jobs", autocommit=True) as session:

            def add(name: str, seconds: list[int]) -> None:
                for ago, each in enumerate(reversed(seconds), 1):
                    session.execute(
                        "with build as ("
                        " insert into ops.builds (build_id, started_at, status)"
                        " values (gen_random_uuid(), now() + make_interval(mins => %s), 'success')"
                        " returning build_id)"
                        " insert into ops.node_runs"
                        " select build_id, 'model', %s, 'success', %s, 5 from build",
                        [100 - ago, name, each],
                    )

            add("slower", [10] * 10 + [12, 40, 25, 9, 40])
            add("as_slow_as_ever", [10, 12, 30, 12] * 5)
            add("too_quick_to_matter", [1] * 10 + [5] * 5)
            add("too_new_to_judge", [10] * 9 + [40] * 5)
            (alert,) = refresh_conditions(session)
        assert (alert.key, alert.criticality) == ("refresh|model slower|slower", "low")
        assert alert.title == "model slower takes 2.5 times as long as it did"
        told = jobs("cost", "--limit", "2").stdout.splitlines()
        assert told[1].split() == ["slower", "5", "15", "226.0", "10.0", "s", "25.0", "s", "slower"]
        assert told[2].split()[0] == "as_slow_as_ever"

    def test_a_promise_after_a_slot(self, project: Callable[..., Path]) -> None:
        nightly = replace(FLOW, never_older_than=None, done_within=120 * MINUTE)
        request("flow")
        refresh(project())
        with connect("jobs", autocommit=True) as session:
            runs.sync(session, {"flow": nightly}, datetime.now(UTC))
            for next_slot, state in (("1 hour", "fresh"), ("-119 min", "fresh")):
                session.execute(
                    "update ops.refresh_groups set next_slot = now() + %s::interval", [next_slot]
                )
                session.execute(
                    "update ops.model_states set reflects_until = now() - interval '3 h'"
                )
                assert rows("select state from ops.model_freshness") == [(state,)]
            # Nobody has planned for longer than the promise allows: the worker is gone.
            session.execute("update ops.refresh_groups set next_slot = now() - interval '121 min'")
            assert rows("select state from ops.model_freshness") == [("breached",)]

    def test_a_crm_that_was_not_loaded_holds_back_what_is_made_of_it(
        self, project: Callable[..., Path]
    ) -> None:
        sources = (
            "version: 2\nsources:\n- name: crm\n  schema: raw_hubspot\n  tables: [{name: deals}]\n"
        )
        deals = (
            "{{ config(tags=['refresh_sales']) }} select deal_id from {{ source('crm', 'deals') }}"
        )
        folder = project(deals=deals)
        (folder / "models" / "sources.yml").write_text(sources)
        with connect("owner", autocommit=True) as session:
            store_account(session)
            for minutes, status, error in (
                (30, "success", None),
                (20, "failed", "x"),
                (10, "success", "to be continued"),
            ):
                session.execute(
                    "insert into ops.loads (source, project_id, status, error, started_at)"
                    " values ('hubspot', 'a', %s, %s, now() - make_interval(mins => %s))",
                    [status, error, minutes],
                )
        build(project=folder)
        assert rows(
            "select model, round(extract(epoch from now() - reflects_until) / 60, 0)::int"
            " from ops.model_states order by 1"
        ) == [("base", 0), ("deals", 30), ("orders", 0)]


class TestWhatIsLeftAlone:
    def todo(self, folder: Path) -> set[str]:
        """What a refresh would do besides the tables, which it always builds."""
        known = known_project(folder)
        if known is None:
            return {"everything"}
        with connect("jobs", autocommit=True) as session:
            found = unchanged.todo(session, *known, ["refresh_flow"])
        assert found.still.names == set()
        found = {term.split(".")[-1] for term in found.terms}
        assert "orders" in found
        return found - {"base", "orders"}

    def changed(self, statement: str) -> None:
        with connect("owner", autocommit=True) as session:
            session.execute(statement)
            session.execute("select pg_stat_force_next_flush()")

    def test_what_is_made_of_what_did_not_change(self, layers: Path) -> None:
        request("flow")
        assert self.todo(layers) == {"everything"}
        assert refresh(layers)["flow"].error == ""
        assert built() == ["base", "codes", "leads", "orders", "tickets"]
        assert rows("select nodes_ok from ops.builds") == [(8,)]

        assert self.todo(layers) == set()
        request("flow")
        assert refresh(layers)["flow"].error == ""
        assert built() == ["base", "orders"]

        # Of rows that come in, what reads them.
        self.changed(
            "insert into raw_files.tickets"
            " (source_system, project_id, ticket_id, priority, status, created_at)"
            " values ('file', 'default', 'a', 'high', 'open', now())"
        )
        assert self.todo(layers) == {"tickets"}
        request("flow")
        assert refresh(layers)["flow"].error == ""
        assert built() == ["base", "orders", "tickets"]
        assert rows("select nodes_ok from ops.builds order by started_at desc limit 1") == [(4,)]

        # What somebody else removed, or made otherwise.
        assert self.todo(layers) == set()
        self.changed("create or replace view kpis.leads as select 2 as id")
        assert self.todo(layers) == {"leads"}
        self.changed("drop view kpis.tickets")
        self.changed("update kpis.codes set id = 8")
        assert self.todo(layers) == {"leads", "tickets", "codes"}
        # What did not pass, or was never tested.
        self.changed("delete from ops.unchanged_nodes where node like 'test%leads%'")
        assert self.todo(layers) == {"leads", "tickets", "codes"}
        request("flow")
        assert refresh(layers)["flow"].error == ""
        assert self.todo(layers) == set()
        self.changed("delete from ops.unchanged_nodes where node like 'test%leads%'")
        assert self.todo(layers) == {"leads_have_ids"}

        # Of a changed project, everything.
        (layers / "seeds" / "codes.csv").write_text("id\n9\n")
        assert self.todo(layers) == {"everything"}
        request("flow")
        assert refresh(layers)["flow"].error == ""
        assert rows("select nodes_ok from ops.builds order by started_at desc limit 1") == [(8,)]

    def test_what_is_another_one_each_time(self, layers: Path) -> None:
        orders = (
            "{{ config(tags=['refresh_flow']) }} select dated.id"
            " from {{ ref('dated') }} as dated cross join {{ ref('asked') }}"
        )
        (layers / "models" / "orders.sql").write_text(orders)
        build(project=layers)
        assert self.todo(layers) == {"dated", "asked"}

    def test_a_table_that_is_built_by_what_changed(self, layers: Path) -> None:
        with connect("transformer", autocommit=True) as session:
            session.execute(
                "create table kpis.positions as"
                " select 'orders' as model, 1 as built_xid, now() as built_as_of, true as is_behind"
            )
        (layers / "models" / "int_flow_states.sql").write_text(
            "{{ config(materialized='view', schema='intermediate',"
            " grants={'select': ['stageline_jobs']}) }}"
            " select model, built_xid, built_as_of, is_behind from kpis.positions"
        )
        (layers / "models" / "orders.sql").write_text(
            "{{ config(materialized='incremental', tags=['refresh_flow'], post_hook="
            "'update kpis.positions set built_xid = built_xid + 1, is_behind = false') }}"
            " select id, now() as at from {{ ref('base') }}"
            " union all select 0, now() from {{ ref('int_flow_states') }} where false"
        )
        (layers / "tests" / "orders_have_ids.sql").write_text(
            "select * from {{ ref('orders') }} where id is null"
        )

        def refreshed() -> tuple[list[str], int]:
            """What a refresh builds, and how many nodes with tests."""
            request("flow")
            assert refresh(layers)["flow"].error == ""
            ((nodes,),) = rows("select nodes_ok from ops.builds order by started_at desc limit 1")
            return built(), nodes

        def told(statement: str) -> None:
            with connect("transformer", autocommit=True) as session:
                session.execute(statement)

        def held_until() -> datetime:
            ((instant,),) = rows(
                "select reflects_until from ops.model_states where model = 'orders'"
            )
            return datetime.fromisoformat(str(instant))

        assert refreshed() == (
            ["base", "codes", "int_flow_states", "leads", "orders", "tickets"],
            10,
        )
        first = held_until()
        begun = datetime.now(UTC)
        assert refreshed() == (["base"], 1)
        assert first < begun < held_until() < datetime.now(UTC)

        told("update kpis.positions set is_behind = true")
        assert refreshed() == (["base", "orders"], 3)
        assert refreshed() == (["base"], 1)
        # As after a build that was killed: the table is another one, and was not tested.
        told("update kpis.positions set built_xid = built_xid + 1")
        assert refreshed() == (["base", "orders"], 3)
        told("truncate kpis.orders")
        assert refreshed() == (["base", "orders"], 3)
        # A build that did not look leaves it as old as it is.
        before = held_until()
        build("base", project=layers)
        assert held_until() == before
        # Where no table says so, nothing is left alone.
        told("drop view intermediate.int_flow_states cascade")
        assert refreshed() == (["base", "int_flow_states", "orders"], 4)

        # dbt asked for nothing would build everything.
        (layers / "models" / "base.sql").write_text(
            "{{ config(materialized='view') }} select 1 as id"
        )
        for _ in range(2):
            assert refreshed() == (["base", "int_flow_states", "orders"], 4)

    def test_a_view_that_is_removed_before_it_is_noted(self, layers: Path) -> None:
        build(project=layers)
        known = known_project(layers)
        assert known is not None
        self.changed("drop view kpis.leads")
        with connect("jobs", autocommit=True) as session:
            marks = unchanged.marks(*known, unchanged.look(session), {})
            unchanged.note(session, known[0], marks, {"model.tiny.leads": True})
        assert self.todo(layers) == {"leads"}

    def test_what_the_server_forgot_counts_as_changed(self, layers: Path) -> None:
        build(project=layers)
        assert self.todo(layers) == set()
        with superuser(settings().home, "stageline") as session:
            session.execute("select pg_stat_reset()")
            assert self.todo(layers) == {"leads", "tickets", "codes"}
            build(project=layers)
            assert self.todo(layers) == set()
            session.execute("alter database stageline set track_counts = off")
            assert self.todo(layers) >= {"leads", "tickets"}


class TestCommand:
    def test_what_is_shipped_can_be_planned(self) -> None:
        result = jobs("plan", "--slots")
        assert result.exit_code == 0, result.output
        assert result.stdout.count("*/15 * * * *") == 2
        assert "never older than 1h00m" in result.stdout
        assert "not known yet" in result.stdout
        assert result.stdout.count("tickets, flow") == 96

    def test_a_promise_that_cannot_be_kept(self) -> None:
        with connect("jobs", autocommit=True) as session:
            session.execute(
                "insert into ops.runs (group_name, requested_at, requested_by, due_at, status,"
                " started_at, finished_at) values ('flow', now(), 'ana', now(), 'success', now(),"
                " now() + interval '50 min')"
            )
        result = jobs("plan")
        assert result.exit_code == 1
        assert "BROKEN" in result.stdout
        assert result.stderr.startswith("error: A promise cannot be kept: ")

    def test_before_anything_ran(self) -> None:
        assert "Nothing has run yet." in jobs("history").stdout
        result = jobs("status")
        assert result.exit_code == 0
        assert result.stdout.count("never built") == 7

    def test_unknown_group(self) -> None:
        for command in ("run", "retry", "pause", "resume", "history"):
            result = jobs(command, "flwo")
            assert result.exit_code == 1
            assert result.stderr.startswith("error: There is no group 'flwo'. There are: tickets,")

    def test_nothing_is_due(self) -> None:
        with connect("jobs", autocommit=True) as session:
            session.execute(
                "insert into ops.refresh_groups (group_name, schedule, zone, criticality, owner,"
                " never_older_than_seconds, next_slot) values ('flow', '*/15 * * * *', 'UTC',"
                " 'high', 'Operations', 3600, now() + interval '5 min')"
            )
        result = jobs("run", "flow")
        assert result.exit_code == 0
        assert result.stdout.startswith("Nothing is due: the next slot of flow is at ")

    def test_paused_and_resumed(self) -> None:
        assert jobs("pause", "flow").stdout == "flow is paused.\n"
        assert jobs("pause", "flow").stdout == "flow was paused before.\n"
        assert "flow is paused. `stageline jobs resume flow`" in jobs("run", "flow").stdout
        assert "never built, paused" in jobs("status").stdout
        assert jobs("resume", "flow").stdout == "flow goes on.\n"
        assert jobs("resume", "flow").stdout == "flow was not paused.\n"

    def test_retry_of_what_has_not_failed(self) -> None:
        result = jobs("retry", "flow")
        assert result.exit_code == 1
        assert result.stderr == (
            "error: The last run of flow has not failed. See `stageline jobs history flow`.\n"
        )

    def test_a_run_waits_while_another_process_refreshes(self) -> None:
        with connect("jobs", autocommit=True) as other:
            assert runs.take_lock(other)
            result = jobs("run", "flow", "--now")
        assert result.exit_code == 75
        assert result.stderr == "Another process refreshes now. The run waits for it.\n"
        assert rows("select status from ops.runs") == [("waiting",)]

    def test_status_tells_a_broken_promise(self, project: Callable[..., Path]) -> None:
        request("flow", "sales")
        refresh(project())
        with connect("jobs", autocommit=True) as session:
            session.execute("update ops.model_states set reflects_until = now() - interval '2 h'")
        result = jobs("status", "--json")
        assert result.exit_code == 1
        found = json.loads(result.stdout)["flow"]
        assert found["state"] == "breached"
        assert 7190 < found["age_seconds"] < 7300
        history = jobs("history").stdout
        assert "success" in history and "model deals: " in history


def store_account(session: runs.Session) -> None:
    """An account whose token nobody can read."""
    session.execute(
        "insert into settings.projects (source_system, project_id) values ('hubspot', 'a')"
    )
    session.execute(
        "insert into settings.api_accounts (source_system, project_id, base_url, token_encrypted)"
        " values ('hubspot', 'a', 'https://crm.example', 'of another key')"
    )


def jobs(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["jobs", *arguments])


def sleepers() -> int:
    with connect("owner") as session:
        found = session.execute(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and state = 'active'"
            " and query like '%pg_sleep(60)%' and pid != pg_backend_pid()"
        ).fetchone()
        return int(found[0]) if found else 0


def kill_sleepers() -> None:
    with connect("owner", autocommit=True) as session:
        session.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and query like '%pg_sleep(60)%'"
            " and pid != pg_backend_pid()"
        )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, os.times()
        time.sleep(0.1)
