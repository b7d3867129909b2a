"""Runs of groups: each slot once, whoever plans and whoever dies, on a clock that the tests set."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jobs import refresh_runs as runs
from jobs.refresh_config import Group
from jobs.refresh_runs import Run, Session
from jobs.slots import slots
from stageline.database import connect
from tests.refresh_groups import FLOW, MINUTE

pytestmark = pytest.mark.usefixtures("database")

NOW = datetime(2026, 3, 2, 12, 7, tzinfo=UTC)

GROUP = replace(FLOW, zone=ZoneInfo("Europe/Kyiv"))
NIGHTLY = replace(
    GROUP,
    name="nightly",
    tag="refresh_nightly",
    schedule="30 3 * * *",
    never_older_than=None,
    done_within=120 * MINUTE,
)
GROUPS = {"flow": GROUP}


def jobs() -> Session:
    return connect("jobs", autocommit=True)


def rows(query: str) -> list[tuple[Any, ...]]:
    with connect("jobs") as session:
        return session.execute(query).fetchall()


def statuses() -> dict[str, int]:
    return dict(rows("select status, count(*) from ops.runs group by status"))


def begin(groups: Mapping[str, Group], now: datetime) -> Session:
    session = jobs()
    runs.sync(session, groups, now)
    return session


def wait_for_lock(session: Session) -> None:
    """The server ends a session a moment after it was closed."""
    end = time.monotonic() + 10
    while not runs.take_lock(session):
        assert time.monotonic() < end
        time.sleep(0.01)


def claim(session: Session, now: datetime) -> list[Run]:
    wait_for_lock(session)
    return runs.claim(session, GROUPS, now)


class TestPlan:
    def test_what_was_never_planned_gets_the_slot_that_came_last(self) -> None:
        session = begin(GROUPS, NOW)
        assert runs.plan(session, GROUPS, NOW) == 1
        assert rows("select slot, status, deadline - slot from ops.runs") == [
            (NOW - 7 * MINUTE, "waiting", timedelta(hours=1))
        ]
        assert runs.plan(session, GROUPS, NOW + 7 * MINUTE) == 0

    def test_of_slots_that_were_missed_the_last_one_is_run(self) -> None:
        session = begin(GROUPS, NOW)
        runs.plan(session, GROUPS, NOW + 10 * MINUTE)
        assert runs.plan(session, GROUPS, NOW + 200 * MINUTE) == 1
        assert rows("select slot, status from ops.runs order by slot") == [
            (NOW + 8 * MINUTE, "skipped"),
            (NOW + 23 * MINUTE, "skipped"),
            (NOW + 188 * MINUTE, "waiting"),
        ]

    def test_a_promise_stays_broken_until_what_was_missed_is_made_up_for(self) -> None:
        groups = {"nightly": NIGHTLY}
        session = begin(groups, NOW)
        runs.plan(session, groups, NOW)
        session.execute(
            "insert into ops.model_states (model, group_name, schema_name, is_stored,"
            " reflects_until) values ('nightly', 'nightly', 'kpis', true, %s)",
            [NOW],
        )
        missed = next(slots(NIGHTLY.schedule, NIGHTLY.zone, NOW))
        breach = [(missed + NIGHTLY.promised,)]
        assert rows("select breaches_at from ops.model_freshness") == breach
        runs.plan(session, groups, NOW + timedelta(days=3))
        assert rows("select breaches_at from ops.model_freshness") == breach
        assert statuses() == {"skipped": 2, "waiting": 1}

    def test_a_run_under_way_is_left_alone(self) -> None:
        session = begin(GROUPS, NOW)
        runs.plan(session, GROUPS, NOW + 10 * MINUTE)
        (run,) = claim(session, NOW + 10 * MINUTE)
        assert run.waited_seconds == 120  # since its slot
        runs.plan(session, GROUPS, NOW + 30 * MINUTE)
        assert statuses() == {"running": 1, "waiting": 1}
        runs.succeed(session, run, None, None, NOW + 31 * MINUTE)
        assert statuses() == {"success": 1, "waiting": 1}

    def test_a_group_that_is_paused_makes_none_and_catches_up_once(self) -> None:
        session = begin(GROUPS, NOW)
        runs.plan(session, GROUPS, NOW + 10 * MINUTE)
        assert runs.pause(session, "flow", "ana", NOW + 11 * MINUTE)
        assert not runs.pause(session, "flow", "ben", NOW + 12 * MINUTE)
        assert runs.plan(session, GROUPS, NOW + 300 * MINUTE) == 0
        assert rows("select status, error from ops.runs") == [("cancelled", "Paused by ana.")]
        assert runs.resume(session, "flow")
        assert runs.plan(session, GROUPS, NOW + 301 * MINUTE) == 1
        assert runs.plan(session, GROUPS, NOW + 302 * MINUTE) == 0

    def test_another_schedule_counts_from_now_on(self) -> None:
        session = begin(GROUPS, NOW)
        runs.sync(session, {"flow": replace(GROUP, schedule="0 0 1 1 *")}, NOW)
        assert rows("select next_slot from ops.refresh_groups") == [
            (datetime(2026, 12, 31, 22, tzinfo=UTC),)
        ]

    def test_a_group_that_is_gone_is_forgotten_with_what_waits(self) -> None:
        session = begin({**GROUPS, "nightly": NIGHTLY}, NOW)
        runs.request(session, "nightly", "ana", NOW)
        runs.sync(session, GROUPS, NOW)
        assert claim(session, NOW) == []
        assert statuses() == {"cancelled": 1}
        assert rows("select group_name from ops.refresh_groups") == [("flow",)]


class TestAttempts:
    def test_one_that_fails_waits_longer_each_time_and_is_given_up(self) -> None:
        session = begin(GROUPS, NOW)
        runs.request(session, "flow", "ana", NOW)
        now, waits = NOW, []
        due: datetime | None = NOW
        for _ in range(3):
            (run,) = claim(session, now)
            assert due is not None
            assert run.waited_seconds == pytest.approx((now - due).total_seconds())
            due = again = runs.fail(session, run, GROUP, "a reason", now, nodes_to_retry=["one"])
            waits.append(again and (again - now).total_seconds())
            now += 10 * MINUTE
        assert 48 <= (waits[0] or 0) <= 72
        assert 96 <= (waits[1] or 0) <= 144
        assert waits[2] is None
        assert rows("select status, attempts, error, nodes_to_retry from ops.runs") == [
            ("failed", 3, "a reason", ["one"])
        ]

    def test_none_is_made_after_the_promise_is_broken(self) -> None:
        session = begin(GROUPS, NOW)
        runs.plan(session, GROUPS, NOW + 8 * MINUTE)
        (run,) = claim(session, NOW + 8 * MINUTE)
        assert runs.fail(session, run, GROUP, "a reason", NOW + 67.5 * MINUTE) is None

    def test_one_that_was_given_up_can_be_made_due_again(self) -> None:
        session = begin(GROUPS, NOW)
        runs.request(session, "flow", "ana", NOW)
        assert not runs.retry(session, "flow", NOW)
        (run,) = claim(session, NOW)
        runs.fail(session, replace(run, attempts=3), GROUP, "a reason", NOW, nodes_to_retry=["one"])
        assert runs.retry(session, "flow", NOW)
        (again,) = claim(session, NOW)
        assert (again.attempts, again.nodes_to_retry) == (1, ["one"])

    def test_what_somebody_else_was_in_the_way_of_costs_none(self) -> None:
        session = begin(GROUPS, NOW)
        runs.request(session, "flow", "ana", NOW)
        (run,) = claim(session, NOW)
        runs.put_back(session, run, NOW + MINUTE)
        assert claim(session, NOW) == []
        (again,) = claim(session, NOW + MINUTE)
        assert again.attempts == 1

    def test_one_that_ends_its_worker_is_not_run_for_ever(self) -> None:
        begin(GROUPS, NOW).close()
        with jobs() as session:
            runs.request(session, "flow", "ana", NOW)
        for attempt in (1, 2, 3):
            worker = jobs()
            (run,) = claim(worker, NOW)
            assert run.attempts == attempt
            worker.close()
        assert claim(jobs(), NOW) == []
        assert rows("select status, error from ops.runs") == [
            ("failed", "Its worker was killed or lost the database.")
        ]

    def test_one_process_refreshes_at_a_time(self) -> None:
        first, second = jobs(), jobs()
        assert runs.take_lock(first)
        assert not runs.take_lock(second)
        first.close()
        wait_for_lock(second)
        runs.leave_lock(second)
        assert runs.take_lock(jobs())


class TestExpected:
    def test_by_how_long_the_last_runs_took(self) -> None:
        session = begin(GROUPS, NOW)
        session.execute(
            "insert into ops.runs (group_name, requested_at, requested_by, due_at, status,"
            " started_at, finished_at)"
            " select 'flow', at, 'ana', at, 'success', at, at + make_interval(secs => 10 * n)"
            " from generate_series(1, 11) as n, (select %s::timestamptz as at) as a",
            [NOW],
        )
        assert runs.typical_seconds(session) == {"flow": 100}
        assert runs.usual_seconds(session) == {"flow": 60}
        session.execute("update ops.refresh_groups set next_slot = %s", [NOW + 8 * MINUTE])
        runs.expect(session, NOW)
        assert rows("select expected_at - next_slot from ops.refresh_groups") == [
            (timedelta(seconds=100),)
        ]

        runs.plan(session, GROUPS, NOW + 8 * MINUTE)
        claim(session, NOW + 9 * MINUTE)
        runs.expect(session, NOW + 9 * MINUTE)
        assert rows("select expected_at from ops.refresh_groups") == [
            (NOW + 9 * MINUTE + timedelta(seconds=100),)
        ]
        runs.expect(session, NOW + 50 * MINUTE)
        assert rows("select expected_at from ops.refresh_groups") == [(NOW + 50 * MINUTE,)]


@pytest.mark.parametrize(
    ("workers", "change"),
    [(1, "2026-03-29"), (2, "2026-10-25"), (5, "2026-03-29")],
)
def test_a_week_of_slots_with_workers_that_are_killed(workers: int, change: str) -> None:
    """Each slot has one run that ends, or was overtaken by a later slot while nobody worked.

    All the while, promises are said to be broken when they are, and at no other time.
    """
    chance = random.Random(f"{workers} {change}")  # noqa: S311 - not for security
    groups = {"flow": GROUP, "nightly": NIGHTLY}
    start = datetime.fromisoformat(change).replace(tzinfo=UTC) - timedelta(days=3)
    end = start + timedelta(days=7)
    watch = begin(groups, start)
    runs.plan(watch, groups, start)
    reflects = dict.fromkeys(groups, start)
    for name in groups:
        watch.execute(
            "insert into ops.model_states (model, group_name, schema_name, is_stored,"
            " reflects_until) values (%s, %s, 'kpis', true, %s)",
            [name, name, start],
        )
    broken = 0
    sessions: list[Session | None] = [jobs() for _ in range(workers)]
    busy_until: dict[int, tuple[datetime, list[Run]]] = {}
    began: dict[int, datetime] = {}
    done: Counter[tuple[str, datetime]] = Counter()
    now = start
    while now < end:
        now += timedelta(seconds=chance.choice([120, 300, 500]))
        for at in range(workers):
            session = sessions[at]
            if session is None:
                if chance.random() < 0.3:
                    sessions[at] = jobs()
                continue
            if chance.random() < 0.02:
                session.close()  # killed, in the middle of a run or not
                sessions[at] = None
                busy_until.pop(at, None)
                continue
            if at in busy_until:
                ends, mine = busy_until[at]
                if now >= ends:
                    for run in mine:
                        assert run.slot is not None
                        runs.succeed(session, run, None, None, now)
                        reflects[run.group_name] = began[at]
                        watch.execute(
                            "update ops.model_states set reflects_until = %s where model = %s",
                            [began[at], run.group_name],
                        )
                        done[run.group_name, run.slot] += 1
                    runs.leave_lock(session)
                    del busy_until[at]
                continue
            runs.plan(session, groups, now)
            if runs.take_lock(session):
                if mine := runs.claim(session, groups, now):
                    lasts = timedelta(seconds=chance.choice([30, 200, 1000]))
                    busy_until[at], began[at] = (now + lasts, mine), now
                else:
                    runs.leave_lock(session)
        found_broken = {
            model
            for model, breaches_at in watch.execute(
                "select model, breaches_at from ops.model_freshness"
            )
            if breaches_at <= now
        }
        first_open = next(slots(NIGHTLY.schedule, NIGHTLY.zone, reflects["nightly"]))
        is_broken = {
            "flow": reflects["flow"] + GROUP.promised <= now,
            "nightly": first_open + NIGHTLY.promised <= now,
        }
        assert found_broken == {name for name, broke in is_broken.items() if broke}, now
        broken += len(found_broken)
    assert broken or workers > 1
    watch.close()
    for session in sessions:
        if session is not None:
            session.close()
    assert set(done.values()) == {1}
    assert len(busy_until) <= 1
    for name, group in groups.items():
        expected = set()
        for slot in slots(group.schedule, group.zone, start):
            if slot > end - timedelta(hours=2):
                break
            expected.add(slot)
        found = dict(
            rows(f"select slot, status from ops.runs where group_name = '{name}'")  # noqa: S608
        )
        ended = {slot for slot, status in found.items() if status == "success"}
        assert {slot for of, slot in done if of == name} == ended
        # Nobody made one up, and each that has no run was missed: a later one was run instead.
        assert set(found) <= set(slots_until(group, start, end))
        for slot in expected - ended:
            later = min(other for other in ended if other > slot)
            assert found.get(slot) in (None, "skipped", "failed"), (slot, found.get(slot))
            assert later - slot < timedelta(hours=30)
        assert len(ended) > 0.6 * len(expected)


def test_what_is_foreseen_to_break_breaks_and_nothing_else() -> None:
    """As long as runs take as long as they did: neither a false alarm nor a missed one."""
    chance = random.Random(7)  # noqa: S311 - not for security
    hasty = replace(GROUP, never_older_than=40 * MINUTE)
    groups = {"flow": hasty, "nightly": replace(NIGHTLY, schedule="30 */5 * * *")}
    lasts = {"flow": 4 * MINUTE, "nightly": 34 * MINUTE}
    start = NOW.replace(minute=0)
    session = begin(groups, start)
    for name, seconds in lasts.items():
        session.execute(
            "insert into ops.runs (group_name, requested_at, requested_by, due_at, status,"
            " started_at, finished_at) values (%(group)s, %(at)s, 'ana', %(at)s, 'success', %(at)s,"
            " %(at)s + %(lasts)s)",
            {"group": name, "at": start, "lasts": seconds},
        )
        session.execute(
            "insert into ops.model_states (model, group_name, schema_name, is_stored,"
            " reflects_until) values (%(group)s, %(group)s, 'kpis', true, %(at)s)",
            {"group": name, "at": start},
        )
    mine: list[Run] = []
    began = ends = away_until = start
    build_id = uuid.uuid4()
    foreseen: dict[str, datetime] = {}
    broken: dict[str, datetime] = {}
    seen: list[timedelta] = []
    now = start
    while now < start + timedelta(hours=40):
        if mine and now >= ends:
            for run in mine:
                runs.succeed(session, run, build_id, None, now)
                session.execute(
                    "update ops.model_states set reflects_until = %s where model = %s",
                    [began, run.group_name],
                )
                # Kept after all: it must not have been foreseen otherwise.
                assert (run.group_name in foreseen) == (run.group_name in broken), now
                foreseen.pop(run.group_name, None)
                broken.pop(run.group_name, None)
            runs.leave_lock(session)
            mine = []
        if chance.random() < 0.005:
            away_until = now + chance.randrange(10, 200) * MINUTE
        if not mine and now >= away_until:
            runs.plan(session, groups, now)
            wait_for_lock(session)
            if mine := runs.claim(session, groups, now):
                began, ends = now, now + max(lasts[run.group_name] for run in mine)
                build_id = uuid.uuid4()
            else:
                runs.leave_lock(session)
        runs.expect(session, now)
        for name, breaches_at, expected_at in session.execute(
            "select model, breaches_at, expected_at from ops.model_freshness"
        ).fetchall():
            if breaches_at <= now and name not in broken:
                assert name in foreseen, (name, now)
                broken[name] = now
                seen.append(now - foreseen[name])
            elif breaches_at < expected_at:
                foreseen.setdefault(name, now)
        now += 2 * MINUTE
    assert len(seen) > 5
    assert max(seen) >= 10 * MINUTE  # as soon as a long run is in the way
    assert min(seen) > timedelta(0)


def slots_until(group: Group, start: datetime, end: datetime) -> list[datetime]:
    found = []
    for slot in slots(group.schedule, group.zone, start - timedelta(days=1)):
        if slot > end:
            return found
        found.append(slot)
    return found
