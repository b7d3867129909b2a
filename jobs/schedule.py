"""Periodic tasks: each slot of a task's cron line is run once, by one of all workers.

PgQueuer keeps the slots in ``ops.pgqueuer_schedules``. Slots that were missed are caught up by one
run; the task of a worker that died is taken over after 30 seconds.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pgqueuer
import psycopg
from croniter import croniter
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QuerySchedulerBuilder
from pgqueuer.db import PsycopgDriver
from pgqueuer.domain.settings import DBSettings
from pgqueuer.executors import ScheduleExecutor
from pgqueuer.models import Schedule
from pgqueuer.queries import Queries
from pgqueuer.sm import SchedulerManager

from stageline.database import connect, connection
from stageline.errors import StagelineError
from stageline.progress import Forward, log

#: Exit code of a process whose task hangs: an internal error, as sysexits.h counts.
HANGS = 70

#: Named here, so that no variable of the environment changes them. PgQueuer looks whether there is
#: a table of its log, which it would only write for its queue.
SETTINGS = DBSettings(
    db_schema="ops", schedules_table="pgqueuer_schedules", queue_table_log="pgqueuer_schedules"
)

#: A connection whose other end is gone without a word is given up after half a minute.
KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

#: Seconds until the schedule is tried again when the database is away.
_RESTART = 2.0


@dataclass(frozen=True)
class PeriodicTask:
    """What is to be run, and when.

    Attributes:
        name: Its key in the database, together with ``cron``.
        cron: Five fields, or six, of which the last one are the seconds. The schedule is looked at
            a second after a slot, so a task runs every two seconds at most.
        zone: The zone in which ``cron`` is meant.
        limit_seconds: After so long it is taken to hang and its process is ended, which a thread
            cannot be.
        work: Does it; gives figures for the log, or None where there was nothing to do, which is
            not logged.
        is_rare: Whether it is long until the next slot; so a failure is noted in
            ``ops.failed_tasks`` until it goes well, and is an alert.
    """

    name: str
    cron: str
    zone: ZoneInfo
    limit_seconds: float
    work: Callable[[], Mapping[str, object] | None]
    is_rare: bool = False


def run_periodic(tasks: Sequence[PeriodicTask], stop: threading.Event) -> None:
    """Runs the tasks until ``stop`` is set, and waits for those that run then.

    Goes on when a task fails, and when the database goes away and comes back.
    """
    logging.getLogger("pgqueuer").handlers = [Forward("periodic tasks", logging.WARNING)]
    asyncio.run(_run_until(stop, tasks))


async def _run_until(stop: threading.Event, tasks: Sequence[PeriodicTask]) -> None:
    shutdown = asyncio.Event()

    async def pass_on() -> None:
        while not stop.is_set():
            await asyncio.sleep(0.2)
        shutdown.set()

    passing = asyncio.create_task(pass_on())
    await pgqueuer.run(
        lambda: _manager(tasks),
        restart_on_failure=True,
        restart_delay=timedelta(seconds=_RESTART),
        shutdown=shutdown,
    )
    await passing


@asynccontextmanager
async def _manager(tasks: Sequence[PeriodicTask]) -> AsyncIterator[SchedulerManager]:
    parameters = {**connection("jobs").libpq(), **KEEPALIVE}
    async with await psycopg.AsyncConnection.connect(**parameters, autocommit=True) as session:
        manager = SchedulerManager(
            Queries(
                PsycopgDriver(session),
                qbe=QueryBuilderEnvironment(SETTINGS),
                qbs=QuerySchedulerBuilder(SETTINGS),
            )
        )
        for task in tasks:
            _register(manager, task)
        yield manager


def _register(manager: SchedulerManager, task: PeriodicTask) -> None:
    class InZone(ScheduleExecutor):
        def get_next(self) -> datetime:
            slots = croniter(self.parameters.expression, datetime.now(task.zone))
            following: datetime = slots.get_next(datetime)
            return following.astimezone(UTC)

    @manager.schedule(task.name, task.cron, executor_factory=InZone)
    async def run(_: Schedule) -> None:
        await asyncio.to_thread(_run_once, task)


def _run_once(task: PeriodicTask) -> None:
    limit = threading.Timer(task.limit_seconds, _end_process, [task])
    limit.daemon = True
    limit.start()
    started = time.monotonic()
    try:
        figures = task.work()
    except Exception as error:  # noqa: BLE001 - the next slot may go better
        # Only of our own errors is it known that their words hold nothing that was read.
        reason = str(error) if isinstance(error, StagelineError) else None
        log().error(
            "periodic task",
            task=task.name,
            outcome="failed",
            seconds=round(time.monotonic() - started, 3),
            error=type(error).__name__,
            reason=reason,
        )
        if task.is_rare:
            _note(task, reason or type(error).__name__)
    else:
        if task.is_rare:
            _note(task, None)
        if figures is not None:
            seconds = round(time.monotonic() - started, 3)
            log().info("periodic task", task=task.name, outcome="done", seconds=seconds, **figures)
    finally:
        limit.cancel()


def _note(task: PeriodicTask, error: str | None) -> None:
    try:
        with connect("jobs", autocommit=True) as jobs:
            if error is None:
                jobs.execute("delete from ops.failed_tasks where task = %s", [task.name])
            else:
                jobs.execute(
                    "insert into ops.failed_tasks (task, error) values (%s, %s)"
                    " on conflict (task) do update"
                    " set failed_at = excluded.failed_at, error = excluded.error",
                    [task.name, error],
                )
    except (StagelineError, psycopg.Error) as failure:
        log().error("outcome of a task is not noted", task=task.name, error=type(failure).__name__)


def _end_process(task: PeriodicTask) -> None:
    log().critical("periodic task", task=task.name, outcome="hangs", seconds=task.limit_seconds)
    os._exit(HANGS)
