"""Periodic tasks on a real database: each slot once, whatever its work does."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest
from pgqueuer.adapters.persistence.schema_ddl import render_install
from pgqueuer.domain.settings import DBSettings

from jobs.alert_sources import task_conditions
from jobs.schedule import SETTINGS, PeriodicTask, run_periodic
from stageline.database import connect

pytestmark = pytest.mark.usefixtures("database")

UTC_ZONE = ZoneInfo("UTC")


def test_each_slot_is_run_once_by_one_of_two_workers_also_when_runs_fail() -> None:
    runs: list[datetime] = []
    told: list[list[str]] = []

    def work() -> None:
        with connect("jobs") as jobs:
            told.append([condition.title for condition in task_conditions(jobs)])
        runs.append(datetime.now(UTC))
        if len(runs) % 2:
            raise ValueError("this run fails")

    tomorrow = f"0 0 {(datetime.now(UTC).day) % 28 + 1} 1 *"
    tasks = [
        PeriodicTask("often", "* * * * * */2", UTC_ZONE, 10.0, work, is_rare=True),
        PeriodicTask("not now", tomorrow, UTC_ZONE, 10.0, lambda: runs.clear()),
    ]
    stop = threading.Event()
    workers = [threading.Thread(target=run_periodic, args=(tasks, stop)) for _ in range(2)]
    for worker in workers:
        worker.start()
    time.sleep(5.2)
    stop.set()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
    slots = [int(moment.timestamp()) // 2 for moment in runs]
    assert len(slots) >= 2
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    failed = ["The worker's task 'often' failed: ValueError"]  # its words may be of a row
    assert told == [failed if earlier % 2 else [] for earlier in range(len(slots))]


def test_a_cron_line_is_meant_in_the_zone_of_its_task() -> None:
    zone = ZoneInfo("Asia/Kathmandu")  # 05:45 ahead
    stop = threading.Event()
    task = PeriodicTask("nightly", "30 3 * * *", zone, 10.0, lambda: None)
    worker = threading.Thread(target=run_periodic, args=([task], stop))
    worker.start()
    try:
        with connect("jobs", autocommit=True) as jobs:
            deadline = time.monotonic() + 10
            while not (found := _next_runs(jobs)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        stop.set()
        worker.join(10)
    (next_run,) = found
    assert (
        abs((next_run.astimezone(zone) - _at_half_past_three(next_run, zone)).total_seconds()) < 2
    )
    assert 0 < (next_run - datetime.now(UTC)).total_seconds() <= 86_400


def _next_runs(jobs: "psycopg.Connection[tuple[datetime]]") -> list[datetime]:
    return [row[0] for row in jobs.execute("select next_run from ops.pgqueuer_schedules")]


def _at_half_past_three(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(hour=3, minute=30, second=0)


def test_a_task_that_hangs_ends_its_process(tmp_path: Path) -> None:
    program = tmp_path / "hangs.py"
    program.write_text(
        "import threading, time, zoneinfo\n"
        "from jobs.schedule import PeriodicTask, run_periodic\n"
        "run_periodic([PeriodicTask('hangs', '* * * * * */2', zoneinfo.ZoneInfo('UTC'), 0.5,"
        " lambda: time.sleep(60))], threading.Event())\n"
    )
    ended = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 70
    assert '"outcome":"hangs"' in ended.stderr


def test_the_table_of_the_schedule_is_what_pgqueuer_expects() -> None:
    expected = render_install(DBSettings(db_schema="expected"), create_schema=True)
    with connect("owner", autocommit=True) as owner:
        owner.execute(expected.encode())
        assert _shape(owner, "ops") == _shape(owner, "expected")
    assert SETTINGS.qualified.schedules_table == "ops.pgqueuer_schedules"


def _shape(owner: "psycopg.Connection[object]", schema: str) -> tuple[object, ...]:
    """Columns (how the key is counted up aside), keys, and the words for a status."""
    columns = owner.execute(
        "select attname, replace(format_type(atttypid, atttypmod), %(schema)s || '.', ''),"
        " attnotnull, replace(pg_get_expr(adbin, adrelid), %(schema)s || '.', '')"
        " from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum"
        " where attrelid = (%(schema)s || '.pgqueuer_schedules')::regclass and attnum > 0",
        {"schema": schema},
    ).fetchall()
    keys = owner.execute(
        "select contype, array(select attname from pg_attribute where attrelid = conrelid"
        " and attnum = any(conkey) order by attname)"
        " from pg_constraint where conrelid = (%s || '.pgqueuer_schedules')::regclass"
        " and contype in ('p', 'u') order by contype",
        [schema],
    ).fetchall()
    statuses = owner.execute(
        "select enumlabel from pg_enum where enumtypid = (%s || '.pgqueuer_status')::regtype"
        " order by enumsortorder",
        [schema],
    ).fetchall()
    return [row if row[0] != "id" else row[:3] for row in columns], keys, statuses
