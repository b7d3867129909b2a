"""Refreshes groups: loads, checks, builds and exports what is due, one run of all at a time."""

import logging
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from jobs import metrics, traces, unchanged
from jobs import refresh_runs as runs
from jobs.build import (
    BuildError,
    BuildReport,
    BusyError,
    Limit,
    build,
    known_project,
    target_folder,
)
from jobs.freshness import Still
from jobs.project import read_project
from jobs.refresh_config import Group, read
from jobs.refresh_runs import Run, Session
from stageline.config import PROJECT_ROOT
from stageline.database import connect, cut_short
from stageline.errors import TRY_LATER, StagelineError
from stageline.progress import log

#: Seconds from one look for slots to the next.
_TICK = 1.0

#: Seconds from one reckoning of when runs will be done to the next, while nothing happens.
_EXPECT = 15.0

#: Seconds until the database is tried again that was away.
_RESTART = 2.0

#: Unit tests hold models against rows of their own, which no refresh changes.
_LEFT_OUT = "resource_type:unit_test"

#: Seconds that a child process has to end once it is told to.
_GRACE = 15.0


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        run: Which one.
        error: Why it failed, one line; empty where it is good, or where somebody else's build was
            in the way.
        again: When it is tried again; None where it is over.
        is_busy: Whether somebody else's build was in the way.
    """

    run: Run
    error: str = ""
    again: datetime | None = None
    is_busy: bool = False

    @property
    def word(self) -> str:
        """One of `metrics.RUN_OUTCOMES`."""
        if self.error:
            return "retried" if self.again else "failed"
        return "put off" if self.again else "success"


@dataclass
class _Work:
    """What runs that began together share; ``problems`` are those of CRMs, by name."""

    runs: Sequence[Run]
    groups: Mapping[str, Group]
    stop: threading.Event
    project: Path
    ends: float
    report: BuildReport | None = None
    problems: dict[str, str] = field(default_factory=dict)

    def of(self, run: Run) -> Group:
        return self.groups[run.group_name]

    def seconds_left(self) -> float:
        return max(self.ends - time.monotonic(), 1.0)


def keep_fresh(stop: threading.Event) -> None:
    """Plans and refreshes until ``stop`` is set; the database may go away and come back.

    Raises:
        StagelineError: the configuration says something that cannot be meant.
    """
    groups = read()
    while not stop.is_set():
        try:
            with connect("jobs", autocommit=True) as session:
                _keep_fresh(session, groups, stop)
        except (psycopg.OperationalError, StagelineError) as error:
            # Only of our own words is it known that they hold nothing that was read.
            reason = str(error) if isinstance(error, StagelineError) else cut_short(error)
            log().error("refreshes wait", error=type(error).__name__, reason=reason)
            stop.wait(_RESTART)


def _keep_fresh(session: Session, groups: Mapping[str, Group], stop: threading.Event) -> None:
    runs.sync(session, groups, datetime.now(UTC))
    expected = 0.0
    while not stop.is_set():
        planned = runs.plan(session, groups, datetime.now(UTC))
        outcomes = refresh_due(session, groups, stop)
        if planned or outcomes or time.monotonic() > expected + _EXPECT:
            runs.expect(session, datetime.now(UTC))
            expected = time.monotonic()
        stop.wait(_TICK)


def refresh_due(
    session: Session,
    groups: Mapping[str, Group],
    stop: threading.Event,
    *,
    only: uuid.UUID | None = None,
    project: Path = PROJECT_ROOT,
) -> list[Outcome]:
    """Refreshes what is due, all of it together, unless another process refreshes.

    Args:
        session: Of the jobs role, with autocommit; holds the lock meanwhile.
        groups: All there are.
        stop: Ends it early; the runs are then due again.
        only: This run alone, due or not.
        project: Folder of ``dbt_project.yml``.

    Returns:
        How each run went; nothing where none was due, or another process refreshes.
    """
    if not runs.take_lock(session):
        return []
    try:
        claimed = runs.claim(session, groups, datetime.now(UTC), only)
        if not claimed:
            return []
        runs.expect(session, datetime.now(UTC))
        timeout = max(groups[run.group_name].timeout for run in claimed)
        work = _Work(
            *(claimed, groups, stop, project),
            ends=time.monotonic() + timeout.total_seconds(),
        )
        with traces.span("refresh", runs=len(claimed)) as span:
            outcomes = _refresh(session, work)
            if any(outcome.error for outcome in outcomes):
                traces.fail(span)
            return outcomes
    finally:
        if not session.closed:
            runs.leave_lock(session)


def _refresh(session: Session, work: _Work) -> list[Outcome]:
    names = sorted({run.group_name for run in work.runs})
    log().info("refresh", groups=names, outcome="begins")
    started = time.monotonic()
    for source in dict.fromkeys(load for run in work.runs for load in work.of(run).loads):
        _load(session, work, source)
    error, barred = _check(session, work)
    outcomes = [_failed(session, work, run, error) for run in barred]
    work.runs = [run for run in work.runs if run not in barred]
    if work.runs:
        outcomes += _build(session, work)
    for outcome in outcomes:
        _count(outcome, time.monotonic() - started)
        log().log(
            logging.ERROR if outcome.error else logging.INFO,
            "refresh",
            group=outcome.run.group_name,
            outcome="busy" if outcome.is_busy else "failed" if outcome.error else "done",
            attempt=outcome.run.attempts,
            seconds=round(time.monotonic() - started, 1),
            reason=outcome.error or None,
            again=outcome.again.isoformat() if outcome.again else None,
        )
    return outcomes


def _build(session: Session, work: _Work) -> list[Outcome]:
    try:
        work.report = _built(session, work)
    except BusyError:
        return [_put_back(session, run, runs.BUSY_WAIT, is_busy=True) for run in work.runs]
    except BuildError as error:
        work.report = error.report
        return [_judged(session, work, run, str(error)) for run in work.runs]
    except StagelineError as error:
        return [_failed(session, work, run, str(error)) for run in work.runs]
    return [_judged(session, work, run, "") for run in work.runs]


def _built(session: Session, work: _Work) -> BuildReport:
    names = sorted({run.group_name for run in work.runs})
    with traces.span("build", groups=",".join(names)):
        terms, still = _selection(session, work)
        try:
            report = build(
                " ".join(terms),
                _LEFT_OUT,
                title=f"Refresh {names[0]}" if len(names) == 1 else f"Refresh {len(names)} groups",
                project=work.project,
                limit=Limit(work.stop, work.seconds_left()),
                still=still,
            )
        except BuildError as error:
            _tell(error.report, is_good=False)
            raise
        _tell(report, is_good=True)
        return report


def _tell(report: BuildReport, *, is_good: bool) -> None:
    metrics.count_build(report, is_good=is_good)
    traces.add_nodes(report)


def _count(outcome: Outcome, seconds: float) -> None:
    group = outcome.run.group_name
    metrics.RUNS.add(group, outcome.word)
    if outcome.word != "put off":
        metrics.RUN_SECONDS.add(group, seconds=seconds)
        metrics.WAIT_SECONDS.add(group, seconds=outcome.run.waited_seconds)


def _load(session: Session, work: _Work, source: str) -> None:
    """Loads the accounts of a CRM; a failure is told by their freshness, and stops nothing."""
    found = session.execute(
        "select exists (select from settings.api_accounts where source_system = %s), now()",
        [source],
    ).fetchone()
    has_account, started_at = found or (False, None)
    if not has_account:
        return
    started = time.monotonic()
    code, error = _child(work, ["load", source])
    if code not in (0, TRY_LATER):
        work.problems[source] = f"{source} was not loaded: {error}"
    is_put_off = code == TRY_LATER or work.stop.is_set()
    metrics.LOADS.add(source, "success" if code == 0 else "put off" if is_put_off else "failed")
    metrics.LOAD_SECONDS.add(source, seconds=time.monotonic() - started)
    brought = session.execute(
        "select coalesce(sum(rows_loaded), 0)::float from ops.loads"
        " where source = %s and started_at >= %s",
        [source, started_at],
    ).fetchone()
    metrics.LOADED_ROWS.add(source, amount=brought[0] if brought else 0.0)


def _check(session: Session, work: _Work) -> tuple[str, Sequence[Run]]:
    """Checks the raw data if anything came in since they were checked last.

    Returns:
        What is wrong, and the runs that may build nothing for it: all that read a table for which a
        critical rule does not hold; where it is not known which one that is, all of them.
    """
    row = session.execute(
        """
        select
            now(),
            checked.at is null
            or exists (select from ops.loads where finished_at >= checked.at)
            or exists (select from raw.deliveries where landed_at >= checked.at)
        from (select max(started_at) as at from ops.quality_runs where success) as checked
        """
    ).fetchone()
    started_at, is_due = row or (None, True)
    if not is_due:
        return "", []
    code, error = _child(work, ["check", "--brief"])
    if code == 0:
        return "", []
    faulty = set(
        session.execute(
            """
            select distinct results.schema_name, results.table_name
            from ops.quality_results as results
            inner join ops.quality_runs as runs using (run_id)
            where
                runs.started_at >= %s
                and runs.finished_at is not null
                and results.severity = 'critical'
                and not results.success
            """,
            [started_at],
        ).fetchall()
    )
    known = known_project(work.project)
    if known is None or not faulty:
        return error, work.runs
    project, _ = known
    return error, [
        run for run in work.runs if not faulty.isdisjoint(project.sources_of(work.of(run).tag))
    ]


def _child(work: _Work, arguments: Sequence[str]) -> tuple[int, str]:
    """Runs one of our commands as a process of its own, which can be stopped.

    Returns:
        Its exit code, and the line in which it said what was wrong.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "stageline", *arguments],
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    said = [f"`stageline {' '.join(arguments)}` ended without a word."]
    with traces.span(" ".join(arguments)) as span, child:
        reader = threading.Thread(target=_pass_on, args=(child, said), daemon=True)
        reader.start()
        ends = time.monotonic() + work.seconds_left()
        while child.poll() is None:
            if work.stop.wait(0.1) or time.monotonic() > ends:
                child.terminate()
                try:
                    child.wait(_GRACE)
                except subprocess.TimeoutExpired:
                    child.kill()
                said.append(f"`stageline {' '.join(arguments)}` was stopped.")
                break
        code = child.wait()
        reader.join(1.0)
        if code not in (0, TRY_LATER):
            traces.fail(span)
    return code, said[-1]


def _pass_on(child: subprocess.Popen[str], said: list[str]) -> None:
    for line in child.stderr or ():
        if line.startswith("error: "):
            said.append(line.removeprefix("error: ").strip())
        sys.stderr.write(line)


def _selection(session: Session, work: _Work) -> tuple[Iterable[str], Still]:
    """What the runs build: what of their groups may have changed, or what is to be tried again."""
    retried = [node for run in work.runs for node in run.nodes_to_retry or ()]
    groups = [work.of(run) for run in work.runs if not run.nodes_to_retry]
    known = known_project(work.project)
    if known is not None:
        todo = unchanged.todo(session, *known, [group.tag for group in groups])
        if terms := [*retried, *todo.terms]:
            return dict.fromkeys(terms), todo.still
    # dbt has to read the project first, or is not to be asked for nothing.
    return dict.fromkeys([*retried, *(group.selection for group in groups)]), Still()


def _judged(session: Session, work: _Work, run: Run, error: str) -> Outcome:
    """A run of a build that was judged as a whole: by the nodes of its own group."""
    report = work.report
    assert report is not None  # noqa: S101 - set by both callers
    if not error:
        return _exported(session, work, run)
    if work.stop.is_set():
        return _put_back(session, run, timedelta(0))
    project = read_project(target_folder(work.project))
    if project is None or not report.nodes:
        return _failed(session, work, run, error)
    mine = project.made_of(work.of(run).tag)
    bad = [node for node in report.nodes if not node.is_good and node.unique_id in mine]
    # A build that was cut short names no node that was not begun.
    was_cut = not report.failures
    if bad or was_cut:
        reasons = [node.sentence() for node in bad if node.status != "skipped"]
        return _failed(
            *(session, work, run, reasons[0] if reasons else error),
            nodes=None if was_cut else [node.name for node in bad],
        )
    return _exported(session, work, run)


def _exported(session: Session, work: _Work, run: Run) -> Outcome:
    group, report = work.of(run), work.report
    mine = [problem for source, problem in work.problems.items() if source in group.loads]
    for name in group.exports:
        code, error = _child(work, ["export", name])
        if code != 0:
            mine.append(f"{name} was not exported: {error}")
    runs.succeed(
        *(session, run, report.build_id if report else None),
        *("; ".join(mine) or None, datetime.now(UTC)),
    )
    return Outcome(run)


def _failed(
    session: Session, work: _Work, run: Run, error: str, nodes: Sequence[str] | None = None
) -> Outcome:
    if work.stop.is_set():
        return _put_back(session, run, timedelta(0))
    again = runs.fail(
        *(session, run, work.of(run), error, datetime.now(UTC)),
        build_id=work.report.build_id if work.report else None,
        nodes_to_retry=nodes,
    )
    return Outcome(run, error, again)


def _put_back(session: Session, run: Run, wait: timedelta, *, is_busy: bool = False) -> Outcome:
    again = datetime.now(UTC) + wait
    runs.put_back(session, run, again)
    return Outcome(run, again=again, is_busy=is_busy)
