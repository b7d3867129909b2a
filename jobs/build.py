"""Runs dbt: one build per target at a time, judged by what it built and not by what it says.

dbt runs as a child process: its invocations in one process disturb each other, and a process can be
stopped. A build is good when dbt ended well, wrote the results of this very invocation, and these
name every selected node as good: an exit code of 0 or an older results file prove nothing.
"""

import json
import os
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from jobs import freshness, unchanged
from jobs.dbt_process import DbtProcess
from jobs.freshness import Still
from jobs.project import Project, is_read, note_state, read_project, state_of
from stageline.config import PROJECT_ROOT
from stageline.database import connect, connection
from stageline.dbt_environment import variables
from stageline.errors import StagelineError
from stageline.progress import is_live, log, step

#: Statuses of a node that did what it should.
GOOD = frozenset({"success", "pass", "warn", "no-op"})

#: Those of a node that need not be looked at again: a warning is told each time.
_SPOTLESS = frozenset({"success", "pass"})

_RESULTS = "run_results.json"

#: Seconds that dbt gets to cancel its queries after it was told to stop.
_GRACE = 15.0

#: A database error that repeats a value of a row, which may be personal data.
_VALUE = re.compile(r"(syntax for type [\w ]+: |value ).*")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


#: Seconds from one look at the order to stop to the next.
_LOOK = 0.2

#: What a build counts as stopped by that took too long.
_LATE = signal.SIGALRM

#: The target whose tables are promised to be fresh.
_PROMISED = "prod"

#: Commands after which tables hold something else than before.
_WITH_MODELS = frozenset({"build", "run", "snapshot"})


@dataclass(frozen=True)
class Node:
    """What became of one node.

    Attributes:
        unique_id: dbt's own name of it.
        name: Its name, without project.
        kind: ``model``, ``test``, ``unit_test``, ``seed`` or ``snapshot``.
        status: dbt's word for it.
        seconds: How long it ran.
        rows: Rows that a test found wrong.
        message: Why it failed, one line.
        compiled: The SQL that ran, of one that there is something to say of.
        started_at: When it began; None where it was not tried.
    """

    unique_id: str
    name: str
    kind: str
    status: str
    seconds: float
    rows: int | None
    message: str
    compiled: Path | None
    started_at: datetime | None

    @property
    def is_good(self) -> bool:
        """Whether it did what it should."""
        return self.status in GOOD

    def sentence(self) -> str:
        """The node and what is wrong with it, as one line."""
        what = (
            f"{self.rows:,} rows do not pass" if self.rows and "test" in self.kind else self.message
        )
        where = f" (SQL: {self.compiled})" if self.compiled else ""
        return f"{self.kind.replace('_', ' ')} {self.name}: {what}{where}"


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        build_id: Its row in ``ops.builds``.
        started_at: When it began.
        invocation_id: dbt's own id; empty if dbt did not get that far.
        nodes: What became of every selected node.
        seconds: How long it took, dbt's start included.
    """

    build_id: uuid.UUID
    started_at: datetime
    invocation_id: str = ""
    nodes: list[Node] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Node]:
        """Nodes that went wrong by themselves."""
        return [node for node in self.nodes if not node.is_good and node.status != "skipped"]

    @property
    def skipped(self) -> list[Node]:
        """Nodes that were not tried because something before them went wrong."""
        return [node for node in self.nodes if node.status == "skipped"]

    @property
    def warnings(self) -> list[Node]:
        """Tests that found rows, but only warn."""
        return [node for node in self.nodes if node.status == "warn"]

    def counts(self) -> dict[str, int]:
        """Good nodes per kind."""
        return dict(Counter(node.kind for node in self.nodes if node.is_good))


@dataclass(frozen=True)
class Limit:
    """When a build ends before it is done.

    Attributes:
        order: Set, or answered with True, once it is to stop.
        seconds: How long it may take.
    """

    order: threading.Event
    seconds: float

    def watch(self, child: DbtProcess, stop: Callable[[int], None]) -> None:
        """Calls ``stop`` with a signal's number once, if it comes to that while ``child`` lives."""
        end = time.monotonic() + self.seconds
        while child.poll() is None:
            if self.order.wait(_LOOK):
                stop(signal.SIGTERM)
                return
            if time.monotonic() > end:
                stop(_LATE)
                return


class BusyError(StagelineError):
    """Another build of the target is running; it is no fault of this one."""


class BuildError(StagelineError):
    """A build that is not good; ``report`` tells which nodes failed, if dbt got that far."""

    def __init__(self, message: str, report: BuildReport, *, exit_code: int = 1) -> None:
        super().__init__(message, exit_code=exit_code)
        self.report = report


def dbt_environment(as_of: datetime | None = None) -> dict[str, str]:
    """The variables that dbt needs to reach the database as the transformer, and to call nobody.

    Args:
        as_of: The instant that its numbers are made for; default: the run's start.
    """
    # No node waits for the disk. In the server's log, all that is built comes before the end of the
    # build, which is waited for when it is noted: a build that is said to be good survives a crash.
    session = connection("transformer").session | {"synchronous_commit": "off"}
    return {
        **variables(),
        # Among these: the server looks whether a client still lives, so a killed dbt's query ends.
        "PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in session.items()),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        **({"STAGELINE_DBT_AS_OF": as_of.isoformat()} if as_of else {}),
    }


def build(
    select: str | None = None,
    exclude: str | None = None,
    *,
    full_refresh: bool = False,
    as_of: datetime | None = None,
    target: str | None = None,
    command: str = "build",
    title: str = "dbt build",
    project: Path = PROJECT_ROOT,
    target_path: Path | None = None,
    limit: Limit | None = None,
    still: Still | None = None,
) -> BuildReport:
    """Runs ``dbt build`` and returns only if every selected node is good.

    Args:
        select, exclude: dbt selection; default: everything.
        full_refresh: Rebuild incremental models from nothing.
        as_of: The instant that the numbers are made for; default: the run's start.
        target: dbt target; default: the profile's.
        command: dbt command with results (``build``, ``seed``, ``run``, ``test``, ``snapshot``).
        title: What to call it while it runs.
        project: Folder of ``dbt_project.yml`` and ``profiles.yml``.
        target_path: Where dbt keeps what it compiles; default: ``DBT_TARGET_PATH``, or ``target``
            in the project.
        limit: How it is stopped where it does not run in the main thread, which takes signals.
        still: Tables that are as fresh as if they were built, though they are not selected.

    Raises:
        BuildError: a node failed, dbt could not start, or the build was stopped.
        BusyError: another build of this target is running.
        StagelineError: the database is out of reach.
    """
    target_path = target_path or target_folder(project)
    target_name = target or _usual_target()
    state = state_of(project, target_name)
    is_known = is_read(target_path, state)
    log_path = _folder("DBT_LOG_PATH", project / "logs")
    arguments = [
        *("--log-format", "json", "--log-level", "info", "--log-format-file", "text", command),
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(target_path), "--log-path", str(log_path)),
        *(("--select", *select.split()) if select else ()),
        *(("--exclude", *exclude.split()) if exclude else ()),
        # A test that compares a table of the selection with one that stays as it is proves nothing.
        *(("--indirect-selection", "buildable") if select and command == "build" else ()),
        # What dbt read of the project is large, and written twice.
        *(("--no-write-json",) if is_known else ()),
        *(("--full-refresh",) if full_refresh else ()),
        *(("--target", target) if target else ()),
    ]
    selector = " ".join(
        part for part in (select or "", f"--exclude {exclude}" if exclude else "") if part
    )
    report = BuildReport(uuid.uuid4(), datetime.now(UTC))
    with only_build(target_name) as ops:
        # Who still says so held the lock that we hold now, and was killed.
        ops.execute(
            "update ops.builds set status = 'failed', finished_at = now() where status = 'running'"
        )
        ops.execute(
            "insert into ops.builds (build_id, started_at, status, selector)"
            " values (%s, %s, 'running', %s)",
            (report.build_id, report.started_at, selector or None),
        )
        relations = unchanged.look(ops)
        started = time.monotonic()
        failure: BuildError | None = None
        try:
            environment = {**os.environ, **dbt_environment(as_of)}
            _run(
                *(arguments, environment, report, title, project, target_path, log_path),
                *(ops.fileno(), limit),
            )
        except BuildError as error:
            failure = error
        report.seconds = round(time.monotonic() - started, 3)
        _close(ops, report, failed=failure is not None)
        found = read_project(target_path) if report.nodes else None
        if found is not None:
            if not is_known:
                note_state(target_path, state)
            if command in _WITH_MODELS and target_name == _PROMISED:
                freshness.note(
                    *(ops, report.build_id, report.started_at, report.nodes, found),
                    still or Still(),
                )
                marks = unchanged.marks(found, state, relations, unchanged.tables(ops, found))
                spotless = {node.unique_id: node.status in _SPOTLESS for node in report.nodes}
                unchanged.note(ops, found, marks, spotless)
    if failure is not None:
        raise failure
    return report


def known_project(project: Path = PROJECT_ROOT) -> tuple[Project, str] | None:
    """The project and its state, if dbt has read it as it is now, for the profile's target."""
    target_path, state = target_folder(project), state_of(project, _usual_target())
    found = read_project(target_path) if is_read(target_path, state) else None
    return None if found is None else (found, state)


def _usual_target() -> str:
    """The profile's target."""
    return os.environ.get("STAGELINE_DBT_TARGET", _PROMISED)


def target_folder(project: Path = PROJECT_ROOT) -> Path:
    """Where dbt keeps what it compiles of a project."""
    return _folder("DBT_TARGET_PATH", project / "target")


def _folder(variable: str, default: Path) -> Path:
    """The folder that dbt's own variable names, as dbt would read it."""
    return Path(os.environ.get(variable) or default).resolve()


@contextmanager
def only_build(target: str = _PROMISED) -> Iterator[psycopg.Connection[Any]]:
    """Holds the lock of the target, on a connection of its own, while the block runs."""
    with connect("jobs", autocommit=True) as ops:
        key = f"stageline build {target}"
        locked = ops.execute(
            "select pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)
        ).fetchone()
        if not (locked and locked[0]):
            running = ops.execute(
                "select started_at from ops.builds where status = 'running'"
                " order by started_at desc limit 1"
            ).fetchone()
            what = (
                f"Another build of target {target} is running since"
                f" {running[0].astimezone(UTC):%H:%M:%S} UTC"
                if running
                else "A backup is being made, or another build is beginning"
            )
            raise BusyError(f"{what}. Wait until it has ended, then try again.")
        try:
            yield ops
        finally:
            if not ops.closed:
                ops.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (key,))


def _close(ops: psycopg.Connection[Any], report: BuildReport, *, failed: bool) -> None:
    good = sum(node.is_good for node in report.nodes)
    ops.execute(
        """
        update ops.builds
        set
            invocation_id = %s, finished_at = %s, status = %s,
            nodes_ok = %s, nodes_failed = %s, seconds = %s
        where build_id = %s
        """,
        (
            report.invocation_id or None,
            datetime.now(UTC),
            "failed" if failed else "success",
            good,
            len(report.nodes) - good,
            report.seconds,
            report.build_id,
        ),
    )


class _Progress:
    """Follows what dbt says while it runs: the nodes it set out to build, and its errors."""

    def __init__(self, title: str) -> None:
        self.invocation_id = ""
        self.selected: int | None = None
        self.errors: list[str] = []
        self._title = title
        self._is_counting = False
        self._steps = ExitStack()
        self._step = self._steps.enter_context(step(f"{title}: read the project"))

    def read(self, line: str) -> None:
        """Takes one line of dbt's output."""
        try:
            event = json.loads(line)
            info, data = event["info"], event["data"]
        except (ValueError, KeyError, TypeError):
            # Not dbt's logger, but Python: a traceback, or a warning of some library.
            self.errors.append(line.strip())
            return
        self.invocation_id = info["invocation_id"]
        name = info["name"]
        if name == "ConcurrencyLine":
            self.selected = int(data["node_count"])
        elif name == "LogStartLine":
            if not self._is_counting:
                # Told here and not before: only this total has the unit tests in it.
                self._is_counting = True
                self._steps.close()
                self._step = self._steps.enter_context(step(self._title, total=data["total"]))
            self.selected = max(self.selected or 0, int(data["total"]))
        elif "index" in data and "node_info" in data and not name.startswith("LogHook"):
            self._step.advance()
            node = data["node_info"]
            if not is_live() and node["resource_type"] in ("seed", "model", "snapshot"):
                log().info("built", node=node["node_name"], status=node["node_status"])
        elif info["level"] == "error":
            self.errors.append(str(info["msg"]))

    @contextmanager
    def shown(self, report: BuildReport) -> Iterator[None]:
        """Ends the display with the figures of ``report``, or as failed."""
        with self._steps:
            yield
            self._step.note(nodes=len(report.nodes), warnings=len(report.warnings))


def _run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    report: BuildReport,
    title: str,
    project: Path,
    target_path: Path,
    log_path: Path,
    lock: int,
    limit: Limit | None,
) -> None:
    (target_path / _RESULTS).unlink(missing_ok=True)
    started = datetime.now(UTC)
    said = _Progress(title)
    with said.shown(report):
        child = DbtProcess(
            arguments,
            project,
            environment,
            target_path / _RESULTS,
            # dbt inherits the connection that holds the lock (and never uses it). So if we are
            # killed and dbt lives on, the server sees an open connection, and no second build
            # can begin.
            kept_open=[lock],
        )
        with child, _stopping(child, limit) as stopped:
            for line in child.stdout:
                said.read(line)
            code = child.wait()
        report.invocation_id = said.invocation_id
        report.nodes = read_results(target_path, said.invocation_id, started)
        if stopped:
            why = "was stopped" if stopped[0] != _LATE else "took too long and was stopped"
            raise BuildError(
                f"The build {why}. What was finished by then stays; run it again.",
                report,
                exit_code=128 + stopped[0],
            )
        _judge(report, said, code, log_path / "dbt.log")


def _judge(report: BuildReport, said: _Progress, code: int, log_file: Path) -> None:
    if report.failures:
        skipped = f", {len(report.skipped)} more were skipped" if report.skipped else ""
        raise BuildError(
            f"Build failed: {len(report.failures)} of {len(report.nodes)} nodes{skipped}."
            f" Everything that dbt said: {log_file}",
            report,
        )
    if said.selected == 0 or (code == 0 and said.selected is None):
        raise BuildError("Nothing was built: the selection matches no node.", report)
    if said.selected is None:
        reason = _first_line(said.errors) or f"dbt ended with code {code}"
        raise BuildError(f"dbt could not start: {reason}. See {log_file}", report)
    if code != 0 or len(report.nodes) != said.selected or report.skipped:
        reason = _first_line(said.errors)
        raise BuildError(
            f"Build failed: dbt ended with code {code} after {len(report.nodes)} of {said.selected}"
            f" nodes{': ' + reason if reason else ''}. See {log_file}",
            report,
        )


@contextmanager
def _stopping(child: DbtProcess, limit: Limit | None) -> Iterator[list[int]]:
    """Hands a request to stop on to dbt, which cancels its queries; yields the signals seen."""
    seen: list[int] = []
    deadline = threading.Timer(_GRACE, child.kill)
    deadline.daemon = True

    def stop(number: int, _frame: object = None) -> None:
        if limit is not None and number != _LATE:
            limit.order.set()
        if seen:
            child.kill()
        else:
            child.stop()
            deadline.start()
        seen.append(number)

    # Only the main thread may take signals; whoever builds in another one stops it in other ways.
    is_main = threading.current_thread() is threading.main_thread()
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_main else ()
    before = {number: signal.signal(number, stop) for number in watched}
    if limit is not None:
        threading.Thread(target=limit.watch, args=(child, stop), daemon=True).start()
    try:
        yield seen
    except BaseException:
        child.kill()
        raise
    finally:
        deadline.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def read_results(target_path: Path, invocation_id: str, started: datetime) -> list[Node]:
    """The results of an invocation; none if the file is missing, unreadable or another's."""
    try:
        content = json.loads((target_path / _RESULTS).read_text(encoding="utf-8"))
        metadata = content["metadata"]
        generated = datetime.fromisoformat(metadata["generated_at"])
    except (OSError, ValueError, KeyError):
        return []
    if metadata["invocation_id"] != invocation_id or generated < started:
        return []
    project = read_project(target_path)
    return [
        Node(
            unique_id=result["unique_id"],
            name=_name(result["unique_id"]),
            kind=result["unique_id"].split(".")[0],
            status=result["status"],
            seconds=result["execution_time"],
            rows=result["failures"],
            message=_first_line([result["message"] or ""]) or result["status"],
            compiled=_compiled(project, target_path, result),
            started_at=_earliest(result["timing"]),
        )
        for result in content["results"]
        # Hooks have results too, but are not among the nodes selected; if one fails, so does dbt.
        if not result["unique_id"].startswith("operation.")
    ]


def _earliest(timing: Sequence[Mapping[str, str | None]]) -> datetime | None:
    begun = [each["started_at"] for each in timing if each["started_at"]]
    return datetime.fromisoformat(min(begun)) if begun else None


def _name(unique_id: str) -> str:
    """``test.stageline.not_null_x.0a1b2c`` -> ``not_null_x``; a unit test keeps its model."""
    parts = unique_id.split(".")
    return ".".join(parts[2:]) if parts[0] == "unit_test" else parts[2]


def _compiled(project: Project | None, target_path: Path, result: Mapping[str, Any]) -> Path | None:
    node = project.manifest["nodes"].get(result["unique_id"]) if project else None
    if node is None or result["status"] in _SPOTLESS:
        return None
    path = target_path / "compiled" / node["package_name"] / node["original_file_path"]
    if node["resource_type"] == "test" and path.suffix in (".yml", ".yaml"):
        path = path / node["path"]
    return path if path.exists() else None


#: Lines that announce the line which tells something.
_HEADING = re.compile(
    r"(\[ERROR\]: )?(Encountered an error:?|(Database|Runtime|Compilation|Parsing) Error.*|"
    r"Traceback.*|File .*)?"
)


def _first_line(messages: Sequence[str]) -> str:
    """The first line that tells something, without values of rows."""
    lines = (_COLOUR.sub("", line).strip() for message in messages for line in message.splitlines())
    telling = next((line for line in lines if not _HEADING.fullmatch(line)), "")
    return _VALUE.sub(r"\1(hidden)", telling).rstrip(".")
