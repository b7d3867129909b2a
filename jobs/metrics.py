"""What refreshes are watched by: one definition of metrics, for Prometheus and DogStatsD.

What is so now (ages, queues) is read from the database when it is asked for, and the same from
every worker. What happens is counted by the process in which it happens.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs import dogstatsd
from jobs.build import BuildReport
from jobs.channels import CRITICALITIES
from jobs.follow_ups import OPEN_STATES
from jobs.refresh_config import Group
from jobs.schedule import KEEPALIVE
from stageline.database import connection
from stageline.errors import StagelineError
from stageline.progress import log

#: Before the name of every metric of Prometheus.
_PREFIX = "stageline_"

#: Seconds from one sending of gauges to the next.
_INTERVAL = 15.0

#: Seconds that whoever asks waits while another one reads, and that the database has to answer.
_PATIENCE = 3.0

#: Upper ends of the buckets of durations.
_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)

#: How an attempt of a run ends: ``retried`` = failed, and is tried again; ``put off`` = stopped, or
#: another build was in the way.
RUN_OUTCOMES = ("success", "retried", "failed", "put off")

#: How a load ends: ``put off`` = the CRM allows no more for now, or the worker was stopped.
LOAD_OUTCOMES = ("success", "put off", "failed")


@dataclass(frozen=True)
class Gauge:
    """What something is now.

    Attributes:
        name: With its unit at the end.
        about: What it is, in one sentence.
    """

    name: str
    about: str


@dataclass(frozen=True)
class Reading:
    """Gauges that one query reads: its first columns are the labels, then one for each gauge.

    Attributes:
        labels: Names of the labels.
        gauges: In the order of the columns; a null is no sample.
        query: The query, by the role of the jobs.
        parameters: What the query is given.
    """

    labels: tuple[str, ...]
    gauges: tuple[Gauge, ...]
    query: LiteralString
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One value of a gauge."""

    gauge: Gauge
    labels: Mapping[str, str]
    value: float


POSTGRES_UP = Gauge("postgres_up", "1 where PostgreSQL told the other gauges, 0 where it did not.")

READINGS = (
    Reading(
        ("table", "group"),
        (
            Gauge(
                "table_age_seconds",
                "Seconds since the instant up to which the table holds what came in.",
            ),
            Gauge(
                "table_promised_seconds",
                "Largest age that is promised, or the time that a run has after its slot.",
            ),
            Gauge(
                "table_breach_in_seconds",
                "Seconds until the promise is broken unless a run is done; below 0 since it is.",
            ),
        ),
        """
        select
            model, group_name, extract(epoch from now() - reflects_until), promised_seconds,
            extract(epoch from breaches_at - now())
        from ops.model_freshness
        """,
    ),
    Reading(
        ("table", "group", "state"),
        (Gauge("table_state", "1 for the state that the table is in, 0 for the others."),),
        """
        select models.model, models.group_name, known.state, (models.state = known.state)::int
        from ops.model_freshness as models
        cross join unnest(array['fresh', 'at risk', 'breached', 'never built']) as known (state)
        """,
    ),
    Reading(
        ("group",),
        (
            Gauge("group_paused", "1 where the schedule of the group is paused."),
            Gauge("group_runs_waiting", "Runs that are due, or wait to be tried again."),
            Gauge("group_runs_running", "Runs that are under way."),
            Gauge(
                "group_overdue_seconds",
                "Seconds that the oldest run has been due without being begun.",
            ),
        ),
        """
        select
            groups.group_name,
            (groups.paused_at is not null)::int,
            count(*) filter (where runs.status = 'waiting'),
            count(*) filter (where runs.status = 'running'),
            coalesce(
                extract(epoch from now() - min(runs.due_at) filter (
                    where runs.status = 'waiting' and runs.due_at <= now()
                )),
                0
            )
        from ops.refresh_groups as groups
        left join ops.runs as runs
            on groups.group_name = runs.group_name and runs.status in ('waiting', 'running')
        group by groups.group_name
        """,
    ),
    Reading(
        ("state",),
        (
            Gauge("follow_ups", "Deals and orders that a CRM has still to be asked about."),
            Gauge("follow_up_oldest_seconds", "Seconds that the oldest of them has waited."),
        ),
        """
        select
            known.state, count(mine.state),
            coalesce(extract(epoch from now() - min(mine.requested_at)), 0)
        from unnest(array['waiting', 'running', 'no token', 'gave up']) as known (state)
        left join ("""
        + OPEN_STATES
        + """) as mine on known.state = mine.state
        group by known.state
        """,
    ),
    Reading(
        ("criticality",),
        (Gauge("alerts_open", "Alerts that are not resolved."),),
        """
        select known.criticality, count(alerts.alert_id)
        from unnest(%(criticalities)s::text[]) as known (criticality)
        left join ops.alerts as alerts
            on known.criticality = alerts.criticality and alerts.resolved_at is null
        group by known.criticality
        """,
        {"criticalities": list(CRITICALITIES)},
    ),
    Reading(
        ("channel",),
        (
            Gauge("notifications_waiting", "Messages that are to be sent, quiet hours included."),
            Gauge("notifications_lost", "Messages about open alerts that were given up."),
            Gauge("notification_overdue_seconds", "Seconds that the oldest message has been due."),
        ),
        """
        select
            told.channel,
            count(*) filter (where told.next_at is not null),
            count(*) filter (where told.gave_up_at is not null and alerts.resolved_at is null),
            coalesce(
                extract(epoch from now() - min(told.due_at) filter (
                    where told.next_at is not null and told.due_at <= now()
                )),
                0
            )
        from ops.notifications as told
        inner join ops.alerts as alerts on told.alert_id = alerts.alert_id
        group by told.channel
        """,
    ),
)

REGISTRY = CollectorRegistry()


class Event:
    """Something that happens, under one name in both systems."""

    def __init__(self, name: str, *labels: str) -> None:
        self.name, self._labels = name, labels

    def _tags(self, values: Iterable[str]) -> dict[str, str]:
        return dict(zip(self._labels, map(_label, values), strict=True))


class Count(Event):
    """How often something happened, or how much of it."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        super().__init__(name, *labels)
        self._counter = Counter(_PREFIX + name, about, labels, registry=REGISTRY)

    def begin(self, *values: str) -> None:
        """Shows 0 from now on: of a counter that begins with 1, no rate tells the first one."""
        self._counter.labels(**self._tags(values))

    def add(self, *values: str, amount: float = 1) -> None:
        """It happened."""
        tags = self._tags(values)
        self._counter.labels(**tags).inc(amount)
        dogstatsd.count(self.name, amount, tags)


class Duration(Event):
    """How long something took, in seconds."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        super().__init__(name, *labels)
        self._histogram = Histogram(
            _PREFIX + name, about, labels, buckets=_SECONDS, registry=REGISTRY
        )

    def add(self, *values: str, seconds: float) -> None:
        """It took so long."""
        tags = self._tags(values)
        self._histogram.labels(**tags).observe(seconds)
        dogstatsd.distribution(self.name, seconds, tags)


RUNS = Count("refresh_runs", "Attempts of runs that ended.", "group", "outcome")
RUN_SECONDS = Duration("refresh_run_seconds", "Seconds that an attempt of a run took.", "group")
WAIT_SECONDS = Duration(
    "refresh_wait_seconds",
    "Seconds from the slot of a run, or from when it was due again, to its beginning.",
    "group",
)
BUILDS = Count("refresh_builds", "Builds by dbt that ended.", "outcome")
BUILD_SECONDS = Duration("refresh_build_seconds", "Seconds that a build by dbt took.", "outcome")
NODES = Count("refresh_nodes", "Nodes of builds, by what became of them.", "kind", "status")
LOADS = Count("refresh_loads", "Loads of CRMs that ended.", "source", "outcome")
LOAD_SECONDS = Duration("refresh_load_seconds", "Seconds that a load of a CRM took.", "source")
LOADED_ROWS = Count("refresh_loaded_rows", "Rows that loads found new or changed.", "source")


def begin(groups: Mapping[str, Group]) -> None:
    """Shows what can be counted of these groups, as 0."""
    for name, group in groups.items():
        for outcome in RUN_OUTCOMES:
            RUNS.begin(name, outcome)
        for source in group.loads:
            LOADED_ROWS.begin(source)
            for outcome in LOAD_OUTCOMES:
                LOADS.begin(source, outcome)
    for outcome in ("success", "failed"):
        BUILDS.begin(outcome)


def count_build(report: BuildReport, *, is_good: bool) -> None:
    """Counts a build that ended, and its nodes."""
    outcome = "success" if is_good else "failed"
    BUILDS.add(outcome)
    BUILD_SECONDS.add(outcome, seconds=report.seconds)
    for node in report.nodes:
        NODES.add(node.kind, node.status)


class States:
    """Reads what is so now, for one caller at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_away = False

    def read(self) -> list[Sample]:
        """All gauges, of one moment; `POSTGRES_UP` alone where the database does not answer soon.

        Callers that come while another one waits for a frozen database wait no longer than
        `_PATIENCE`, so that their threads do not pile up.
        """
        if not self._lock.acquire(timeout=_PATIENCE):
            return [Sample(POSTGRES_UP, {}, 0)]
        try:
            found = list(_read())
        except (psycopg.Error, StagelineError) as error:
            if not self._is_away:
                log().warning("metrics lack what the database knows", error=type(error).__name__)
            self._is_away = True
            return [Sample(POSTGRES_UP, {}, 0)]
        finally:
            self._lock.release()
        self._is_away = False
        return [Sample(POSTGRES_UP, {}, 1), *found]


STATES = States()


def _read() -> Iterator[Sample]:
    limits = {**KEEPALIVE, "connect_timeout": 3}
    with psycopg.connect(**connection("jobs").libpq() | limits) as session:
        session.read_only = True
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        limit = f"{_PATIENCE * 1000:.0f}ms"
        session.execute("select set_config('statement_timeout', %s, true)", [limit])
        for reading in READINGS:
            for row in session.execute(reading.query, reading.parameters).fetchall():
                yield from _samples(reading, row)


def _samples(reading: Reading, row: tuple[Any, ...]) -> Iterator[Sample]:
    count = len(reading.labels)
    labels = dict(zip(reading.labels, map(_label, row[:count]), strict=True))
    for gauge, value in zip(reading.gauges, row[count:], strict=True):
        if value is not None:
            yield Sample(gauge, labels, float(value))


def _label(text: str) -> str:
    """A label as both systems keep it: Datadog turns blanks into underscores."""
    return text.replace(" ", "_")


class _StatesCollector(Collector):
    """The gauges in the form of Prometheus; read when they are scraped."""

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in STATES.read():
            name = _PREFIX + sample.gauge.name
            if name not in families:
                families[name] = GaugeMetricFamily(
                    name, sample.gauge.about, labels=[*sample.labels]
                )
            families[name].add_metric([*sample.labels.values()], sample.value)
        yield from families.values()


REGISTRY.register(_StatesCollector())
ProcessCollector(registry=REGISTRY)


def send_states(stop: threading.Event) -> None:
    """Sends the gauges to DogStatsD again and again until ``stop`` is set."""
    while not stop.is_set():
        for sample in STATES.read():
            dogstatsd.gauge(sample.gauge.name, sample.value, sample.labels)
        stop.wait(_INTERVAL)
