"""What monitoring is told: scraped by HTTP, received by UDP, and held against what ``ops`` says."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs import dogstatsd, metrics, metrics_server
from jobs import refresh_runs as runs
from jobs.metrics import READINGS, REGISTRY
from stageline import config
from stageline.database import connect
from stageline.errors import StagelineError
from tests.refresh_groups import FLOW, MINUTE

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

#: Tables of group flow -> seconds since what they hold, None = never built; the promise is an hour.
TABLES = {"orders": 600, "deals": 4000, "calls": None}


def scrape(port: int) -> Samples:
    """What Prometheus reads: value by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples["stageline_" + name, frozenset(labels.items())]


@pytest.fixture(scope="module")
def port() -> int:
    return metrics_server.start("127.0.0.1", 0, lambda: True)


@contextmanager
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """An agent of Datadog that is configured; it is heard for three seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(3)
        monkeypatch.setenv("STAGELINE_DOGSTATSD", f"127.0.0.1:{agent.getsockname()[1]}")
        config.settings.cache_clear()
        dogstatsd._client.cache_clear()
        try:
            yield agent
        finally:
            monkeypatch.undo()
            config.settings.cache_clear()
            dogstatsd._client.cache_clear()


def datagrams(agent: socket.socket, until: str) -> set[str]:
    """Lines that come in, up to one with these words."""
    lines: set[str] = set()
    while not any(until in line for line in lines):
        lines |= set(agent.recv(65536).decode().splitlines())
    return lines


@pytest.fixture
def _much_to_tell(database: object) -> None:  # noqa: ARG001 - what is configured here
    """Tables in every state, and something of everything else that is counted."""
    now = datetime.now(UTC)
    with connect("jobs", autocommit=True) as session:
        runs.sync(session, {"flow": FLOW}, now)
        for name, age in TABLES.items():
            session.execute(
                "insert into ops.model_states values (%s, 'flow', 'kpis', true, %s, null)",
                [name, None if age is None else now - timedelta(seconds=age)],
            )
        waits = runs.request(session, "flow", "ana", now - 5 * MINUTE)
        runs.request(session, "flow", "ana", now - MINUTE)
        session.execute(
            "update ops.runs set status = 'running', started_at = now() where run_id != %s", [waits]
        )
        session.execute(
            """
            with raised as (
                insert into ops.alerts (
                    alert_key, kind, criticality, subject, title, text, numbers, since,
                    opened_at, last_seen_at, resolved_at
                )
                select
                    'key ' || n, 'refresh', 'high', 'A person', 'Title', 'Text', '{}', now(),
                    now(), now(), case when n = 3 then now() end
                from generate_series(1, 3) as n
                returning alert_id, resolved_at
            )

            insert into ops.notifications (channel, alert_id, event, due_at, next_at, gave_up_at)
            select
                'team', alert_id, 'opened', now() - interval '20 seconds',
                case when resolved_at is null then now() end, resolved_at
            from raised
            union all
            select 'team', min(alert_id), 'reminder', now(), null, now() from raised
            """
        )
        session.execute(
            """
            insert into ops.follow_ups
                (kind, source_system, project_id, entity_id, delivery_id, requested_at, due_at)
            select
                'keycrm_order', 'keycrm', 'shop', n::text, gen_random_uuid(),
                now() - interval '90 seconds', now()
            from generate_series(1, 3) as n
            """
        )


@pytest.mark.usefixtures("_much_to_tell")
class TestStates:
    def test_what_is_scraped_is_what_the_database_says(self, port: int) -> None:
        samples = scrape(port)
        with connect("jobs") as session:
            rows = session.execute(
                "select model, state, age_seconds::float, promised_seconds,"
                " extract(epoch from breaches_at - now())::float from ops.model_freshness"
            ).fetchall()
        assert {row[0] for row in rows} == set(TABLES)
        for table, state, age, promised, breach_in in rows:
            labels = {"table": table, "group": "flow"}
            states = {
                each: of(samples, "table_state", **labels, state=each)
                for each in ("fresh", "at_risk", "breached", "never_built")
            }
            assert states == {each: float(each == state.replace(" ", "_")) for each in states}
            assert of(samples, "table_promised_seconds", **labels) == promised
            if age is None:
                assert not any(
                    name in ("stageline_table_age_seconds", "stageline_table_breach_in_seconds")
                    for name, of_table in samples
                    if ("table", table) in of_table
                )
            else:
                assert of(samples, "table_age_seconds", **labels) == pytest.approx(age, abs=3)
                assert of(samples, "table_breach_in_seconds", **labels) == pytest.approx(
                    breach_in, abs=3
                )
        assert of(samples, "postgres_up") == 1
        assert of(samples, "group_paused", group="flow") == 0
        assert of(samples, "group_runs_waiting", group="flow") == 1
        assert of(samples, "group_runs_running", group="flow") == 1
        assert of(samples, "group_overdue_seconds", group="flow") == pytest.approx(300, abs=3)
        assert of(samples, "follow_ups", state="no_token") == 3
        assert of(samples, "follow_ups", state="gave_up") == 0
        assert of(samples, "follow_up_oldest_seconds", state="no_token") == pytest.approx(90, abs=3)
        assert of(samples, "follow_up_oldest_seconds", state="waiting") == 0
        assert of(samples, "alerts_open", criticality="high") == 2
        assert of(samples, "alerts_open", criticality="critical") == 0
        assert of(samples, "notifications_waiting", channel="team") == 2
        assert of(samples, "notifications_lost", channel="team") == 1
        assert of(samples, "notification_overdue_seconds", channel="team") == pytest.approx(
            20, abs=3
        )

    def test_datadog_is_sent_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with receiving(monkeypatch) as agent:
            stop = threading.Event()
            sending = threading.Thread(target=metrics.send_states, args=[stop])
            sending.start()
            lines = datagrams(agent, "notification_overdue_seconds")
            stop.set()
            sending.join(5)
        bare = {line.split("|c:")[0] for line in lines}  # an id of a container may follow
        assert "stageline.postgres_up:1|g" in bare
        assert "stageline.alerts_open:2.0|g|#criticality:high" in bare
        assert "stageline.table_promised_seconds:3600.0|g|#table:orders,group:flow" in bare
        assert "stageline.table_state:1.0|g|#table:deals,group:flow,state:breached" in bare
        assert not any("client" in line for line in lines)  # figures of the library itself
        assert {line.split(":")[0] for line in lines} == {
            f"stageline.{gauge.name}"
            for gauge in (metrics.POSTGRES_UP, *(g for r in READINGS for g in r.gauges))
        }


class TestEvents:
    def test_they_are_counted_for_both(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        with receiving(monkeypatch) as agent:
            metrics.RUNS.add("counted", "put off")
            metrics.LOADED_ROWS.add("hubspot", amount=250.0)
            metrics.RUN_SECONDS.add("counted", seconds=12.5)
            lines = datagrams(agent, "refresh_run_seconds")
        assert {line.split("|c:")[0] for line in lines} == {
            "stageline.refresh_runs:1|c|#group:counted,outcome:put_off",
            "stageline.refresh_loaded_rows:250.0|c|#source:hubspot",
            "stageline.refresh_run_seconds:12.5|d|#group:counted",
        }
        samples = scrape(port)
        assert of(samples, "refresh_runs_total", group="counted", outcome="put_off") == 1
        assert of(samples, "refresh_loaded_rows_total", source="hubspot") == 250
        assert of(samples, "refresh_run_seconds_bucket", group="counted", le="5.0") == 0
        assert of(samples, "refresh_run_seconds_bucket", group="counted", le="15.0") == 1
        assert of(samples, "refresh_run_seconds_sum", group="counted") == 12.5

    def test_what_has_not_happened_is_shown_as_0(self, port: int) -> None:
        metrics.begin({"begun": FLOW})
        samples = scrape(port)
        assert of(samples, "refresh_runs_total", group="begun", outcome="failed") == 0

    def test_nobody_who_listens_is_no_trouble(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with receiving(monkeypatch) as agent:
            agent.close()
            for _ in range(100):
                metrics.RUNS.add("counted", "success")
        value = REGISTRY.get_sample_value(
            "stageline_refresh_runs_total", {"group": "counted", "outcome": "success"}
        )
        assert value == 100


class TestServer:
    def test_without_a_database_there_is_what_was_counted(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STAGELINE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        config.settings.cache_clear()
        try:
            samples = scrape(port)
        finally:
            monkeypatch.undo()
            config.settings.cache_clear()
        assert of(samples, "postgres_up") == 0
        assert not any(name.startswith("stageline_table") for name, _ in samples)
        assert any(name == "process_cpu_seconds_total" for name, _ in samples)

    @pytest.mark.usefixtures("database")
    def test_a_database_that_does_not_answer_is_not_waited_for(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch, connect("owner") as other:
            patch.setattr(metrics, "_PATIENCE", 0.2)
            other.execute("lock table ops.alerts in access exclusive mode")
            with ThreadPoolExecutor() as scrapes:
                found = list(scrapes.map(scrape, [port] * 5))
        assert [of(samples, "postgres_up") for samples in found] == [0] * 5
        assert of(scrape(port), "postgres_up") == 1

    def test_a_worker_that_hangs_is_not_healthy(self) -> None:
        port = metrics_server.start("127.0.0.1", 0, lambda: False)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)
        assert refused.value.code == 503

    def test_an_address_that_is_taken_is_named(self, port: int) -> None:
        with pytest.raises(StagelineError, match=f"Cannot serve metrics on 127.0.0.1, port {port}"):
            metrics_server.start("127.0.0.1", port, lambda: True)


def test_names_and_labels_are_those_that_prometheus_asks_for() -> None:
    """Base units, few labels, and none of them a person."""
    families = {family.name: family for family in REGISTRY.collect()}
    gauges = [gauge for reading in READINGS for gauge in reading.gauges]
    labels = {label for reading in READINGS for label in reading.labels} | {
        label
        for family in families.values()
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {
        *("table", "group", "state", "criticality", "channel"),
        *("outcome", "kind", "status", "source", "le"),
    }
    for name in (*families, *(gauge.name for gauge in gauges)):
        assert not name.endswith(("_ms", "_minutes", "_hours", "_total"))
    assert all(gauge.about.endswith(".") for gauge in gauges)
