"""The worker: follow-up work in some threads, and periodic tasks, until it is told to stop."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from jobs import (
    archive_config,
    backups,
    dogstatsd,
    metrics,
    metrics_server,
    notifications,
    refresh_config,
    retention,
    traces,
)
from jobs.alert_sources import raise_alerts
from jobs.archive import LONGEST, archive_nightly
from jobs.channels import channels
from jobs.follow_ups import (
    USUAL,
    FollowUp,
    Outcome,
    Rules,
    claim,
    drain,
    hand_back,
    plan,
    run_one,
    states,
    this_process,
)
from jobs.pruning import prune_by_the_clock
from jobs.refresh import keep_fresh
from jobs.schedule import HANGS, PeriodicTask, run_periodic
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.progress import log
from stageline.settings import encryption

#: Seconds that follow-ups in progress have to end when the worker is stopped. Those that take
#: longer are handed back.
GRACE = 3.0

#: Seconds that a refresh has: dbt cancels its queries.
REFRESH_GRACE = 20.0

#: Seconds that the removal of what is old may take.
_PRUNING = 3600.0

#: Seconds from one look at the threads to the next.
TICK = 0.2

#: Seconds from one sign of life in the log to the next.
_SIGN_OF_LIFE = 60.0

#: Seconds without progress after which a supervisor that asks is told so; longer than a stop takes.
_ALIVE = REFRESH_GRACE + 10.0


def run(follow_up_threads: int = 4, rules: Rules = USUAL, *, with_refreshes: bool = True) -> None:
    """Works until SIGTERM or SIGINT; a second one ends the process at once.

    The database may go away and come back meanwhile. For the main thread of a process.

    Args:
        follow_up_threads: How many follow-ups are asked for at once.
        rules: How they are done.
        with_refreshes: Whether groups of models are refreshed, too.

    Raises:
        StagelineError: the database cannot be reached, the key of stored secrets is missing, a
            file of channels, refreshes or retention has a mistake, or metrics cannot be served, at
            the start; or a thread has died or hangs, so that this process has to be started anew.
    """
    _require_what_is_needed()
    channels()  # says what is wrong with their file, as the next one does
    groups = refresh_config.read()
    archive_config.read()
    signals: list[int] = []
    _note_signals(signals)
    stop = threading.Event()
    progress = _Progress()
    _tell_metrics(groups, stop, progress)
    traces.begin()
    tasks = periodic_tasks(rules, stop)
    threads = [
        WatchedThread("periodic tasks", lambda order: run_periodic(tasks, order), stop),
        WatchedThread("notifications", notifications.run, stop),
        *(
            WatchedThread(f"follow-ups {number}", lambda order: drain(order, rules), stop)
            for number in range(1, follow_up_threads + 1)
        ),
    ]
    if with_refreshes:
        threads.append(WatchedThread("refreshes", keep_fresh, stop, grace=REFRESH_GRACE))
    for thread in threads:
        thread.start()
    log().info("worker starts", process=os.getpid(), follow_up_threads=follow_up_threads)
    told = time.monotonic()
    try:
        while not signals:
            time.sleep(TICK)
            for thread in threads:
                thread.require_progress(rules.lease)
            progress.note()
            if time.monotonic() >= told + _SIGN_OF_LIFE:
                told = time.monotonic()
                log().info("worker runs", process=os.getpid(), threads=len(threads))
    finally:
        log().info("worker stops", process=os.getpid(), signal=signals[0] if signals else None)
        stop.set()
        _await_end(threads)
    log().info("worker stopped", process=os.getpid())


def run_once(rules: Rules = USUAL) -> Iterator[tuple[FollowUp, Outcome]]:
    """Plans follow-up work and does what is due now, one after the other.

    Yields:
        What was asked for, and how it went.

    Raises:
        StagelineError: the database cannot be reached, or the key of stored secrets is missing.
        psycopg.OperationalError: the database went away; what was claimed will be done again.
    """
    _require_what_is_needed()
    with (
        connect("jobs", autocommit=True) as jobs,
        connect("loader", autocommit=True) as loader,
    ):
        plan(jobs, rules)
        while (follow_up := claim(jobs, f"{this_process()}once", rules)) is not None:
            try:
                outcome = run_one(follow_up, jobs, loader, rules)
            except KeyboardInterrupt:
                _hand_back()
                raise
            yield follow_up, outcome


class _Progress:
    """When all threads of the worker were last seen to make progress."""

    def __init__(self) -> None:
        self.note()

    def note(self) -> None:
        self._at = time.monotonic()

    def is_recent(self) -> bool:
        return time.monotonic() < self._at + _ALIVE


def _tell_metrics(
    groups: Mapping[str, refresh_config.Group], stop: threading.Event, progress: _Progress
) -> None:
    """Serves and sends metrics, as far as that is asked for, in threads that nothing waits for."""
    metrics.begin(groups)
    host, port = settings().worker_metrics_host, settings().worker_metrics_port
    if port is not None:
        metrics_server.start(host, port, progress.is_recent)
        log().info("metrics are served", host=host, port=port)
    if dogstatsd.is_configured():
        threading.Thread(target=metrics.send_states, args=[stop], daemon=True).start()
        log().info("metrics are sent", to=settings().dogstatsd)


class _Order(threading.Event):
    """The order to stop, as it is given to one thread: counts how often that has looked at it."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self._stop = stop
        self.looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        return self._stop.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        self.looks += 1
        return self._stop.wait(timeout)


class WatchedThread(threading.Thread):
    """A thread that has to look whether it is to stop, again and again: else it hangs."""

    def __init__(
        self,
        name: str,
        work: Callable[[threading.Event], None],
        stop: threading.Event,
        grace: float = GRACE,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.grace = grace
        self._work = work
        self._order = _Order(stop)
        self._looks_seen = 0
        self._silent = 0.0
        self._died_of: str | None = None

    def run(self) -> None:
        try:
            self._work(self._order)
        except Exception as error:  # noqa: BLE001 - `require_progress` tells it
            self._died_of = type(error).__name__

    def require_progress(self, longest_silence: float) -> None:
        """To be called every `TICK` seconds.

        Raises:
            StagelineError: it is dead, or has not looked up for ``longest_silence`` seconds.
        """
        if not self.is_alive():
            raise StagelineError(
                f"The thread {self.name} of the worker died ({self._died_of})."
                " Start the worker again.",
                exit_code=HANGS,
            )
        # Counted in ticks: a process that was stopped for a while has not been silent.
        is_silent = self._order.looks == self._looks_seen
        self._looks_seen = self._order.looks
        self._silent = self._silent + TICK if is_silent else 0.0
        if self._silent > longest_silence:
            raise StagelineError(
                f"The thread {self.name} of the worker has hung for {longest_silence:.0f} s."
                " Start the worker again.",
                exit_code=HANGS,
            )


def _require_what_is_needed() -> None:
    with connect("jobs") as jobs:
        has_secrets = jobs.execute("select exists (select from settings.api_accounts)").fetchone()
    if has_secrets and has_secrets[0]:
        encryption.encrypt("")  # says what is wrong with the key, before each account does


def _note_signals(signals: list[int]) -> None:
    def note(number: int, _frame: object) -> None:
        # No locks here, so no log and no event: the thread that is interrupted may hold them.
        if signals:
            os._exit(128 + number)
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)


def periodic_tasks(rules: Rules = USUAL, stop: threading.Event | None = None) -> list[PeriodicTask]:
    """What a worker does by the clock.

    Planning is done by the threads, too, but not while all of them wait for a CRM.

    Args:
        rules: How follow-ups are done.
        stop: Ends a backup once it is set.

    Raises:
        StagelineError: the file that says when backups are made has a mistake.
    """

    def plan_now() -> Mapping[str, object] | None:
        with connect("jobs", autocommit=True) as jobs:
            planned = plan(jobs, rules)
        return {"planned": planned} if planned else None

    def archive_now() -> Mapping[str, object] | None:
        return archive_nightly(order.is_set)

    utc, order = ZoneInfo("UTC"), stop or threading.Event()
    configured = retention.read().backups
    backing_up = [] if configured is None else [_backing_up(configured, order)]
    return [
        PeriodicTask("plan follow-ups", "* * * * * */2", utc, rules.lease, plan_now),
        PeriodicTask("count follow-ups", "* * * * *", utc, rules.lease, _count),
        PeriodicTask("raise alerts", "* * * * *", utc, rules.lease, raise_alerts),
        PeriodicTask("archive", "17 3 * * *", utc, LONGEST, archive_now, is_rare=True),
        PeriodicTask("prune", "47 3 * * *", utc, _PRUNING, prune_by_the_clock, is_rare=True),
        *backing_up,
    ]


def _backing_up(configured: retention.Backups, stop: threading.Event) -> PeriodicTask:
    return PeriodicTask(
        "back up",
        "* * * * *",
        ZoneInfo("UTC"),
        backups.LONGEST.total_seconds(),
        lambda: backups.make_if_due(configured, stop),
    )


def _count() -> Mapping[str, Any] | None:
    """How much is to be done, by state, and for how long the oldest of it has waited."""
    with connect("jobs") as jobs:
        found = states(jobs)
    if not found:
        return None
    waited = datetime.now(UTC) - found[0].requested_at
    counts = Counter(state.state.replace(" ", "_") for state in found)
    return {**counts, "oldest_seconds": round(waited.total_seconds())}


def _await_end(threads: list[WatchedThread]) -> None:
    since = time.monotonic()

    def are_left(waited_for: list[WatchedThread]) -> bool:
        for thread in waited_for:
            thread.join(max(since + thread.grace - time.monotonic(), 0.0))
        return any(thread.is_alive() for thread in waited_for)

    if are_left([thread for thread in threads if thread.grace == GRACE]):
        _hand_back()
    are_left(threads)


def _hand_back() -> None:
    try:
        with connect("jobs", autocommit=True) as jobs:
            count = hand_back(jobs, this_process())
    except (StagelineError, psycopg.Error) as error:
        log().error("claims stay until their leases end", error=type(error).__name__)
    else:
        log().info("follow-ups handed back", count=count)
