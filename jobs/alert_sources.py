"""Where alerts come from: what holds now, by KPI tables, checks, refreshes, backups and tasks.

A further source is a function that reads what holds, an entry in `SOURCES`, and its kind in
`jobs.channels.Kind`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg

from jobs import retention
from jobs.alerts import Condition, lock, take
from jobs.backups import LONGEST
from jobs.channels import Criticality, Kind, channels
from jobs.slots import latest
from stageline.database import Role, connect
from stageline.progress import log

Connection = psycopg.Connection[Any]


class NothingKnownError(Exception):
    """A source has nothing to read yet: nothing is opened, and nothing is resolved."""


@dataclass(frozen=True)
class Source:
    """Something that conditions are read from.

    Attributes:
        kind: The kind of its alerts.
        role: Whose session it is read in.
        read: Gives all that holds now. Where it fails, whatever with, alerts of its kind stay.
    """

    kind: Kind
    role: Role
    read: Callable[[Connection], list[Condition]]


#: Priority of an alert in the KPI tables -> criticality.
_PRIORITIES: dict[str, Criticality] = {
    "urgent": "critical",
    "high": "high",
    "medium": "medium",
    "low": "low",
}

#: State of a model's freshness -> what is the matter.
_FRESHNESS = {
    "breached": "older than promised",
    "at risk": "expected to be refreshed later than promised",
}

#: Status of a run about which there is something to say -> what it did.
_REFRESHED = {"failed": "not refreshed", "success": "refreshed in part"}

#: Severity of a quality check -> criticality.
_SEVERITIES: dict[str, Criticality] = {"critical": "critical", "warning": "medium"}


def kpi_conditions(session: Connection) -> list[Condition]:
    """Alerts that are open by ``kpis.alert_episodes``, as of the last build.

    Args:
        session: Of the reader.

    Raises:
        NothingKnownError: it has not been built.
    """
    _require_table(session, "kpis.alert_episodes")
    return [
        Condition(
            key=f"kpi|{key}",
            criticality=_PRIORITIES.get(priority, "high"),
            subject=f"{subject_name} (project {project_id} of {source_system})",
            title=f"{subject_name}: {message}",
            text=f"Rule {rule}, project {project_id} of {source_system}.",
            numbers={
                name: float(number)
                for name, number in (("value", value), ("threshold", threshold))
                if number is not None
            },
            since=opened_at,
        )
        for (
            key,
            rule,
            priority,
            source_system,
            project_id,
            subject_name,
            message,
            value,
            threshold,
            opened_at,
        ) in session.execute(_EPISODES)
    ]


def quality_conditions(session: Connection) -> list[Condition]:
    """Rules that did not hold when their table was checked last.

    Args:
        session: Of the jobs.

    Raises:
        NothingKnownError: nothing has been checked.
    """
    found: list[Condition] = []
    suites: set[str] = set()
    runs = session.execute(_RUNS).fetchall()
    if not runs:
        raise NothingKnownError
    for (run_id,) in runs:
        results = session.execute(_RESULTS, [run_id]).fetchall()
        of_run = {suite for suite, *_ in results}
        found += [
            _quality_condition(*result)
            for suite, *result, success in results
            if not success and suite not in suites
        ]
        suites |= of_run
        # The check of one entity has one suite, that of everything all that have anything to check.
        if len(of_run) > 1:
            break
    return found


def _quality_condition(
    schema: str,
    table: str,
    expectation: str,
    column: str | None,
    severity: str,
    observed: Mapping[str, Any] | None,
    details: str | None,
) -> Condition:
    name = f"{schema}.{table}"
    counts = {
        count: observed[count]
        for count in ("failing", "rows")
        if observed and isinstance(observed.get(count), int)
    }
    # Where nothing was found, the details are the words of a database, which repeat what it read.
    rule = f'not so: "{details}"' if observed else f"{expectation} could not be checked"
    return Condition(
        # Not by its words: some of them tell limits that move on by the day.
        key=f"quality|{name}|{expectation}|{column or ''}",
        criticality=_SEVERITIES[severity],
        subject=name,
        title=f"{name}: {rule}",
        text="`stageline check` says more."
        + (" Nothing is built until it holds." if severity == "critical" else ""),
        numbers=counts,
    )


def refresh_conditions(session: Connection) -> list[Condition]:
    """Groups whose promise is broken or at risk, or whose last run failed or lacks a part, and
    models that got slower.

    Groups that are paused are left out.

    Args:
        session: Of the jobs.
    """
    late = [
        Condition(
            key=f"refresh|{group}|{state}",
            criticality=criticality if state == "breached" else "medium",
            subject=f"Group {group} ({owner})",
            title=f"{group}: {_FRESHNESS[state]}, the oldest table by {age / 60:,.0f} minutes",
            text=f"{', '.join(models)}. `stageline jobs status` says more.",
            numbers={"tables": len(models), "age_seconds": int(age)},
            channels=told,
        )
        for group, owner, criticality, state, models, age, told in session.execute(_LATE_MODELS)
    ]
    bad = [
        Condition(
            key=f"refresh|{group}|{status}",
            criticality=criticality if status == "failed" else "medium",
            subject=f"Group {group} ({owner})",
            title=f"{group} was {_REFRESHED[status]}: {error}",
            text=f"`stageline jobs history {group}` says more.",
            numbers={"attempts": attempts},
            channels=told,
        )
        for group, owner, criticality, status, error, attempts, told in session.execute(_BAD_RUNS)
    ]
    slower = [
        Condition(
            key=f"refresh|{kind} {name}|slower",
            criticality="low",
            subject=f"{kind} {name}",
            title=f"{kind} {name} takes {lately / usual:.1f} times as long as it did",
            text=f"{lately:,.1f} s, {usual:,.1f} s before. `stageline jobs cost` says more.",
            numbers={"seconds": round(lately, 1), "usual_seconds": round(usual, 1)},
        )
        for kind, name, lately, usual in session.execute(_SLOWER_NODES)
    ]
    return late + bad + slower


def backup_conditions(session: Connection) -> list[Condition]:
    """Where backups are made by the clock: the last one failed, or the last slot brought none.

    Args:
        session: Of the jobs.

    Raises:
        NothingKnownError: there was none yet.
        StagelineError: the file that configures them has a mistake.
    """
    configured = retention.read().backups
    if configured is None:
        return []
    row = session.execute(_BACKUPS).fetchone()
    if row is None:
        raise NothingKnownError
    started_at, error, last_good = row
    due = latest(configured.schedule, configured.zone, datetime.now(UTC) - LONGEST)
    if error is None and last_good >= due:
        return []
    since = f"since {last_good.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if last_good else "yet"
    return [
        Condition(
            key="backup|database",
            criticality="high",
            subject="Backups of the database",
            title=f"No backup {since}" + (f": {error}" if error else ""),
            text="`stageline backup` makes one at once.",
            numbers={},
            since=started_at if error else due,
        )
    ]


def task_conditions(session: Connection) -> list[Condition]:
    """Tasks that run by the clock, and seldom, of which the last run failed.

    Args:
        session: Of the jobs.
    """
    return [
        Condition(
            key=f"task|{task}",
            criticality="medium",
            subject=f"Task {task!r} of the worker",
            title=f"The worker's task {task!r} failed: {error}",
            text="It is tried again at its next slot.",
            numbers={},
            since=failed_at,
        )
        for task, failed_at, error in session.execute(
            "select task, failed_at, error from ops.failed_tasks order by task"
        )
    ]


SOURCES: tuple[Source, ...] = (
    Source("refresh", "jobs", refresh_conditions),
    Source("task", "jobs", task_conditions),
    Source("backup", "jobs", backup_conditions),
    Source("kpi", "reader", kpi_conditions),
    Source("quality", "jobs", quality_conditions),
)


def raise_alerts(now: datetime | None = None) -> Mapping[str, object] | None:
    """Reads all sources and opens, keeps and resolves alerts by them.

    A source that cannot be read is told in the log; the others go on. Where another worker does the
    same now, nothing is done.

    Args:
        now: The instant; default: this one.

    Returns:
        Figures for the log; None where nothing changed.

    Raises:
        StagelineError: the channels' file has a mistake, or the database cannot be reached.
    """
    configured = channels()
    with connect("jobs", autocommit=True) as jobs, jobs.transaction():
        if not lock(jobs):
            return None
        conditions: dict[Kind, list[Condition]] = {}
        for source in SOURCES:
            try:
                with connect(source.role) as session:
                    conditions[source.kind] = source.read(session)
            except NothingKnownError:
                continue
            except Exception as error:  # noqa: BLE001 - one source is not to silence the others
                log().error(
                    "alerts of a kind stay as they are",
                    kind=source.kind,
                    error=type(error).__name__,
                )
        taken = take(jobs, conditions, now or datetime.now(UTC), configured)
    if not taken.opened and not taken.resolved:
        return None
    return vars(taken)


def _require_table(session: Connection, name: LiteralString) -> None:
    row = session.execute("select to_regclass(%s) is not null", [name]).fetchone()
    if row is None or not row[0]:
        raise NothingKnownError


_LATE_MODELS = """
select
    group_name, late.owner, late.criticality, late.state,
    array_agg(late.model order by late.reflects_until, late.model), max(late.age_seconds),
    groups.channels
from ops.model_freshness as late
inner join ops.refresh_groups as groups using (group_name)
where late.state in ('breached', 'at risk') and not late.is_paused
group by group_name, late.owner, late.criticality, late.state, groups.channels
order by group_name, late.state
"""

_BAD_RUNS = """
select
    groups.group_name, groups.owner, groups.criticality, last.status, last.error, last.attempts,
    groups.channels
from ops.refresh_groups as groups
inner join lateral (
    select status, error, attempts
    from ops.runs
    where runs.group_name = groups.group_name and status in ('success', 'failed')
    order by finished_at desc
    limit 1
) as last on true
where groups.paused_at is null and last.error is not null
order by groups.group_name
"""

_SLOWER_NODES = """
select node_kind, node_name, lately_seconds, usual_seconds
from ops.node_costs
where is_slower
order by node_name
"""

_BACKUPS = """
select
    started_at,
    error,
    (select max(started_at) from ops.backups where error is null) as last_good
from ops.backups
order by started_at desc
limit 1
"""

_EPISODES = """
select
    alert_key, rule, priority, source_system, project_id, subject_name, message,
    last_value, threshold, opened_at
from kpis.alert_episodes
where resolved_at is null
order by alert_key
"""

# As many as there may have been of single entities since the last check of everything.
_RUNS = """
select run_id
from ops.quality_runs
where finished_at is not null
order by started_at desc
limit 100
"""

_RESULTS = """
select
    suite, schema_name, table_name, expectation, column_name, severity, observed, details, success
from ops.quality_results
where run_id = %s
order by result_id
"""
