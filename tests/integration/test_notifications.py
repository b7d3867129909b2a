"""Alerts and what is told of them: real PostgreSQL, HTTP and mail servers, and a clock to set."""

import base64
import hashlib
import hmac
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from click.testing import CliRunner, Result

from jobs.alert_sources import raise_alerts
from jobs.alerts import Condition, acknowledge, lock, take
from jobs.channels import Channel, channels
from jobs.notifications import Rules, deliver
from jobs.senders import MOST_TOLD, Message, Notice, send
from jobs.worker import periodic_tasks
from loaders.api import FailedError, RefusedError
from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.integration.test_worker import running_worker, until
from tests.plain_postgres import free_port
from tests.sinks import Answer, MailServer, Request, Sink

KEY = base64.b64encode(b"the-secret-of-the-webhook-tests").decode()
ROUTING_KEY = "R0123456789ABCDEF0123456789ABCDE"

TAKEN = Answer(202, b'{"status":"success","message":"Event processed","dedup_key":"d"}')


@pytest.fixture(scope="module", autouse=True)
def _shared_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for this module: a copy for each test would take longer than the tests."""
    folder = short_folder / "notifications"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        yield


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = datetime(2027, 1, 13, 10, tzinfo=UTC)  # a Wednesday, noon in Kyiv

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now


class World:
    """The configured channels, a clock, and a session of the jobs in autocommit mode."""

    def __init__(self, jobs: psycopg.Connection[Any], file: Path) -> None:
        self.jobs, self.clock, self._file = jobs, Clock(), file

    def configure(self, *lines: str) -> None:
        """Writes the file of channels: each line is one, without the dash."""
        self._file.write_text(
            "channels:\n" + "".join(f"- {{{line}}}\n" for line in lines), encoding="utf-8"
        )

    def hold(self, *conditions: Condition) -> None:
        """These hold now, and no others."""
        take(self.jobs, {"quality": conditions}, self.clock(), channels())

    def deliver(self, rules: Rules | None = None) -> Counter[str]:
        """Sends what is due now, for each channel; gives how many messages went how."""
        counts: Counter[str] = Counter()
        for channel in channels():
            counts += Counter(deliver(self.jobs, channel, rules or Rules(), self.clock))
        return counts

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return self.jobs.execute(query, values).fetchall()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    file = tmp_path / "notifications.yml"
    monkeypatch.setenv("STAGELINE_NOTIFICATIONS", str(file))
    monkeypatch.setenv("HOOK_SECRET", f"whsec_{KEY}")
    monkeypatch.setenv("PAGER_KEY", ROUTING_KEY)
    config.settings.cache_clear()
    with connect("jobs", autocommit=True) as jobs:
        jobs.execute("delete from ops.alerts")
        jobs.execute("delete from ops.quality_runs")
        made = World(jobs, file)
        made.configure()
        yield made
    config.settings.cache_clear()


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """A sink whose address is in ``HOOK_URL`` and ``TEAM_URL``."""
    with Sink() as running:
        monkeypatch.setenv("HOOK_URL", running.url)
        monkeypatch.setenv("TEAM_URL", running.url)
        yield running


HOOK = "name: hook, kind: webhook, url_variable: HOOK_URL, secret_variable: HOOK_SECRET"
TEAM = "name: team, kind: slack, url_variable: TEAM_URL"


def pager(sink: Sink, more: str = "") -> str:
    return (
        f"name: pager, kind: pagerduty, routing_key_variable: PAGER_KEY,"
        f" url: 'http://127.0.0.1:{sink.port}/v2/enqueue'{more}"
    )


def condition(number: int = 1, **more: Any) -> Condition:
    return replace(
        Condition(
            key=f"quality|raw_files.t{number}|unique|id",
            criticality="high",
            subject=f"raw_files.t{number}",
            title=f'raw_files.t{number}: not so: "id is unique"',
            text="`stageline check` says more.",
            numbers={"failing": 2, "rows": 10},
        ),
        **more,
    )


def told(request: Request) -> list[tuple[str, str]]:
    """Event and subject of each notice that a webhook was sent."""
    return [(notice["event"], notice["subject"]) for notice in request.json["data"]["notices"]]


def all_told(sink: Sink) -> list[tuple[str, str]]:
    return [notice for request in sink.requests for notice in told(request)]


def command(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["notify", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


# --- what is opened and told -------------------------------------------------------------------


def test_an_alert_is_opened_and_told_once_however_many_workers(world: World, sink: Sink) -> None:
    world.configure(HOOK)
    configured = channels()
    start = threading.Barrier(6)

    def work() -> None:
        with connect("jobs", autocommit=True) as jobs:
            for _ in range(5):
                start.wait(10)
                take(jobs, {"quality": [condition(1), condition(2)]}, world.clock(), configured)
                start.wait(10)
                deliver(jobs, configured[0], Rules(), world.clock)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert world.rows("select count(*), count(distinct alert_key) from ops.alerts") == [(2, 2)]
    assert sorted(all_told(sink)) == [("opened", "raw_files.t1"), ("opened", "raw_files.t2")]


def test_what_is_due_together_is_one_message(world: World, sink: Sink) -> None:
    world.configure(TEAM)
    world.hold(*(condition(number) for number in range(1, 4)))
    assert world.deliver() == {"sent": 3}
    [request] = sink.requests
    assert request.json["text"].startswith("3 opened\n")
    header, *sections = request.json["blocks"]
    assert header["text"]["text"] == "3 opened"
    assert ["t1: not so" in sections[0]["text"]["text"], len(sections)] == [True, 3]
    assert world.deliver() == {}


def test_an_alert_that_ends_is_told_to_whoever_heard_of_it(world: World, sink: Sink) -> None:
    world.configure(HOOK, f"{TEAM}, least: critical")
    world.hold(condition(1))
    world.deliver()
    world.clock.forward(minutes=5)
    world.hold()
    assert world.deliver() == {"sent": 1}
    opened, resolved = sink.requests
    assert told(opened) == [("opened", "raw_files.t1")]
    assert told(resolved) == [("resolved", "raw_files.t1")]
    first, last = (request.json["data"]["notices"][0] for request in (opened, resolved))
    assert first["opening"] == last["opening"]
    assert (first["resolved_at"], last["resolved_at"]) == (None, "2027-01-13T10:05:00Z")
    assert last["numbers"] == {"failing": 2, "rows": 10}


def test_nobody_hears_of_what_ended_before_it_could_be_told(world: World, sink: Sink) -> None:
    world.configure(HOOK)
    world.hold(condition(1))
    world.hold()
    assert world.deliver() == {}
    assert sink.requests == []


def test_an_alert_that_comes_back_is_another_one(world: World, sink: Sink) -> None:
    world.configure(pager(sink))
    sink.usual = TAKEN
    for held in ([condition(1)], [], [condition(1)]):
        world.hold(*held)
        world.deliver()
        world.clock.forward(minutes=1)
    actions = [(one.json["event_action"], one.json["dedup_key"]) for one in sink.requests]
    assert [action for action, _ in actions] == ["trigger", "resolve", "trigger"]
    assert actions[0][1] == actions[1][1] != actions[2][1]


def test_another_occurrence_ends_the_one_before(world: World, sink: Sink) -> None:
    world.configure(HOOK)
    world.hold(condition(1, since=world.clock()))
    world.deliver()
    world.hold(condition(1, since=world.clock.forward(hours=1)))
    world.deliver()
    assert [told(request) for request in sink.requests] == [
        [("opened", "raw_files.t1")],
        [("resolved", "raw_files.t1"), ("opened", "raw_files.t1")],
    ]


def test_a_source_that_was_not_read_resolves_nothing(world: World, sink: Sink) -> None:
    world.configure(HOOK)
    world.hold(condition(1))
    take(world.jobs, {"kpi": []}, world.clock(), channels())
    take(world.jobs, {}, world.clock(), channels())
    assert world.rows("select count(*) from ops.alerts where resolved_at is null") == [(1,)]
    world.deliver()
    assert all_told(sink) == [("opened", "raw_files.t1")]


def test_a_channel_is_told_what_it_takes(world: World, sink: Sink) -> None:
    world.configure(
        f"{HOOK}, least: high",
        f"{HOOK.replace('hook', 'kpis', 1)}, kinds: [kpi]",
        HOOK.replace("hook", "named", 1),
    )
    world.hold(
        condition(1, criticality="medium"),
        condition(2, criticality="critical"),
        condition(3, criticality="critical", channels=("named",)),
        condition(4, criticality="low", channels=("no-longer-there",)),
    )
    rows = world.rows(
        "select channel, subject from ops.notifications inner join ops.alerts using (alert_id)"
        " order by 1, 2"
    )
    assert rows == [
        ("hook", "raw_files.t2"),
        ("named", "raw_files.t1"),
        ("named", "raw_files.t2"),
        ("named", "raw_files.t3"),
        ("named", "raw_files.t4"),
    ]
    assert sink.requests == []


def test_a_channel_that_is_new_hears_of_what_is_open(world: World, sink: Sink) -> None:
    world.hold(condition(1))
    world.configure(HOOK)
    world.hold(condition(1))
    assert world.deliver() == {"sent": 1}
    assert all_told(sink) == [("opened", "raw_files.t1")]


def test_what_waits_for_a_channel_that_is_gone_is_dropped(world: World) -> None:
    world.configure(HOOK)
    world.hold(condition(1))
    world.configure()
    world.hold(condition(1))
    assert world.rows("select count(*) from ops.notifications") == [(0,)]


# --- reminders, quiet hours, escalation --------------------------------------------------------


def test_it_is_told_again_while_it_is_open(world: World, sink: Sink) -> None:
    world.configure(f"{HOOK}, remind_every: 4h")
    for _ in range(60):  # ten hours
        world.hold(condition(1))
        world.deliver()
        world.clock.forward(minutes=10)
    assert [event for event, _ in all_told(sink)] == ["opened", "reminder", "reminder"]
    acknowledge(world.jobs, condition(1).key, "Ann", world.clock())
    world.clock.forward(hours=24)
    world.hold(condition(1))
    assert world.deliver() == {}


def test_reminders_do_not_pile_up_while_a_channel_is_down(world: World, sink: Sink) -> None:
    world.configure(f"{HOOK}, remind_every: 1h")
    for _ in range(20):
        world.hold(condition(1))
        world.deliver()
        sink.usual = Answer(503)
        world.clock.forward(minutes=30)
    sink.usual = Answer()
    world.deliver()
    assert [event for request in sink.requests for event, _ in told(request)].count("opened") == 1
    rows = world.rows("select event, n, sent_at is not null from ops.notifications order by 1, 2")
    assert rows == [("opened", 1, True), ("reminder", 1, True)]


def test_in_quiet_hours_only_what_is_critical_goes_out(world: World, sink: Sink) -> None:
    world.configure(f"{HOOK}, quiet_hours: {{from: 22:00, to: 8:00, zone: Europe/Kyiv}}")
    # The night on which the clocks of Kyiv go forward: quiet from 20:00 to 05:00 UTC.
    world.clock.now = datetime(2027, 3, 27, 21, tzinfo=UTC)
    held = [condition(1), condition(2, criticality="critical"), condition(3)]
    told_at = {}
    for _ in range(60):
        world.hold(*held)
        world.deliver()
        for _, subject in all_told(sink):
            told_at.setdefault(subject, f"{world.clock():%H:%M}")
        if world.clock() == datetime(2027, 3, 28, 2, tzinfo=UTC):
            held.pop()  # it ends before anybody has heard of it
        world.clock.forward(minutes=10)
    assert told_at == {"raw_files.t2": "21:00", "raw_files.t1": "05:00"}


def test_a_message_that_failed_is_not_tried_in_quiet_hours(world: World, sink: Sink) -> None:
    sink.answers.append(Answer(503))
    world.configure(f"{HOOK}, quiet_hours: {{from: 22:00, to: 8:00, zone: UTC}}")
    world.clock.now = datetime(2027, 1, 13, 21, 59, 59, tzinfo=UTC)
    world.hold(condition(1))
    assert world.deliver() == {"retries": 1}
    world.clock.forward(hours=1)
    assert world.deliver() == {}
    world.clock.forward(hours=9, seconds=1)
    assert world.deliver() == {"sent": 1}


def test_what_becomes_critical_does_not_wait(world: World, sink: Sink) -> None:
    world.configure(f"{HOOK}, quiet_hours: {{from: 22:00, to: 8:00, zone: Europe/Kyiv}}")
    world.clock.forward(hours=12)
    world.hold(condition(1))
    assert world.deliver() == {}
    world.hold(condition(1, criticality="critical"))
    assert world.deliver() == {"sent": 1}
    assert all_told(sink) == [("opened", "raw_files.t1")]


def test_what_becomes_worse_is_told_and_has_to_be_acknowledged_again(
    world: World, sink: Sink
) -> None:
    world.configure(HOOK)
    world.hold(condition(1, criticality="low"))
    world.deliver()
    acknowledge(world.jobs, condition(1).key, "Ann", world.clock())
    world.hold(condition(1, criticality="high"))
    world.hold(condition(1, criticality="medium"))
    world.deliver()
    assert [event for event, _ in all_told(sink)] == ["opened", "escalated"]
    assert world.rows("select acknowledged_by, criticality from ops.alerts") == [(None, "medium")]


@pytest.mark.parametrize("is_acknowledged", [True, False])
def test_what_nobody_acknowledges_goes_to_others_too(
    world: World, sink: Sink, is_acknowledged: bool
) -> None:
    world.configure(
        f"{HOOK}, escalate: {{after: 30m, to: [boss]}}",
        f"{HOOK.replace('hook', 'boss', 1)}, least: critical",
    )
    world.hold(condition(1))
    world.deliver()
    world.clock.forward(minutes=29)
    world.hold(condition(1))
    world.deliver()
    assert len(sink.requests) == 1
    if is_acknowledged:
        acknowledge(world.jobs, condition(1).key, "Ann", world.clock())
    for _ in range(3):
        world.clock.forward(minutes=1)
        world.hold(condition(1))
        world.deliver()
    world.hold()
    world.deliver()
    heard = [
        (request.json["data"]["channel"], event)
        for request in sink.requests
        for event, _ in told(request)
    ]
    boss = [] if is_acknowledged else [("boss", "escalated"), ("boss", "resolved")]
    assert sorted(heard) == [*boss, ("hook", "opened"), ("hook", "resolved")]


def test_nobody_is_called_at_night_for_what_waits_for_the_morning(world: World, sink: Sink) -> None:
    world.configure(
        f"{HOOK}, quiet_hours: {{from: 22:00, to: 8:00, zone: UTC}},"
        " escalate: {after: 30m, to: [boss]}",
        HOOK.replace("hook", "boss", 1) + ", least: critical",
    )
    world.clock.now = datetime(2027, 1, 13, 23, tzinfo=UTC)
    while world.clock() <= datetime(2027, 1, 14, 8, 20, tzinfo=UTC):
        world.hold(condition(1))
        world.deliver()
        world.clock.forward(minutes=10)
    assert [request.json["data"]["channel"] for request in sink.requests] == ["hook"]
    world.clock.forward(minutes=10)
    world.hold(condition(1))
    world.deliver()
    assert sink.requests[-1].json["data"]["channel"] == "boss"


# --- channels that fail ------------------------------------------------------------------------


def test_a_channel_that_is_down_stops_no_other_and_catches_up_in_one_message(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sink() as down:
        monkeypatch.setenv("TEAM_URL", down.url)
        world.configure(TEAM, HOOK)
    world.hold(condition(1), condition(2))
    assert world.deliver() == {"retries": 2, "sent": 2}
    for _ in range(12):
        world.clock.forward(minutes=20)
        world.deliver()
    world.hold(condition(1), condition(3))  # 2 has ended, 3 is new
    world.clock.forward(minutes=20)
    world.deliver()
    errors = world.rows("select distinct last_error from ops.notifications where channel = 'team'")
    assert errors == [("the connection failed (ConnectionRefusedError)",)]
    with down:
        world.clock.forward(minutes=20)
        world.deliver()
        world.deliver()
    [request] = down.requests
    assert request.json["text"].startswith("2 opened, 1 resolved\n")
    assert Counter(all_told(sink)) == {
        ("opened", "raw_files.t1"): 1,
        ("opened", "raw_files.t2"): 1,
        ("resolved", "raw_files.t2"): 1,
        ("opened", "raw_files.t3"): 1,
    }


def test_waits_grow_to_a_limit_and_differ(world: World, sink: Sink) -> None:
    sink.usual = Answer(503)
    world.configure(HOOK)
    world.hold(condition(1))
    waits = []
    for _ in range(12):
        world.deliver()
        [(next_at,)] = world.rows("select next_at from ops.notifications")
        waits.append((next_at - world.clock()).total_seconds())
        world.clock.now = next_at
    assert len(sink.requests) == 12
    for number, wait in enumerate(waits):
        longest = min(5 * 2**number, 900)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 12


def test_a_channel_is_left_alone_for_as_long_as_it_asks(world: World, sink: Sink) -> None:
    sink.answers.append(Answer(429, b"rate_limited", {"Retry-After": "3000"}))
    world.configure(TEAM)
    world.hold(condition(1))
    world.deliver()
    world.hold(condition(1), condition(2))  # what comes now waits, too
    world.clock.forward(seconds=2999)
    assert world.deliver() == {}
    assert len(sink.requests) == 1
    world.clock.forward(seconds=2)
    assert world.deliver() == {"sent": 2}
    assert sink.requests[1].json["text"].startswith("2 opened\n")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 302])
def test_what_can_never_succeed_is_given_up_and_told(
    world: World, sink: Sink, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    location = {"Location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    sink.answers.append(Answer(status, b"no", location))
    world.configure(HOOK)
    world.hold(condition(1))
    assert world.deliver() == {"gave up": 1}
    world.clock.forward(days=1)
    assert world.deliver() == {}
    assert len(sink.requests) == 1
    [line] = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (line["level"], line["channel"], line["outcome"]) == ("error", "hook", "gave up")
    assert line["reason"].startswith(f"HTTP {status} ")
    # Once it was put right, a command sends it.
    assert "1 due now" in command("retry", "hook").output
    world.clock.now = datetime.now(UTC)
    assert world.deliver() == {"sent": 1}


def test_after_three_days_a_message_is_given_up(world: World, sink: Sink) -> None:
    sink.usual = Answer(500)
    world.configure(HOOK)
    world.hold(condition(1))
    world.deliver()
    world.clock.forward(days=2, hours=23)
    assert world.deliver() == {"retries": 1}
    world.clock.forward(hours=2)
    assert world.deliver() == {"gave up": 1}


def test_of_the_events_for_pagerduty_those_that_got_through_are_not_sent_again(
    world: World, sink: Sink
) -> None:
    sink.usual = TAKEN
    sink.answers.extend([TAKEN, Answer(500), TAKEN])
    world.configure(pager(sink))
    world.hold(*(condition(number) for number in range(1, 5)))
    assert world.deliver() == {"sent": 1, "retries": 1}
    world.clock.forward(minutes=1)
    assert world.deliver() == {"sent": 3}
    components = [request.json["payload"]["component"] for request in sink.requests]
    assert components == [f"raw_files.t{number}" for number in (1, 2, 2, 3, 4)]


def test_what_does_not_fit_into_the_lease_is_claimed_anew(world: World, sink: Sink) -> None:
    sink.usual = TAKEN
    sink.before_answer = lambda: world.clock.forward(seconds=25)
    world.configure(pager(sink))
    world.hold(*(condition(number) for number in range(1, 8)))
    assert world.deliver() == {"sent": 7}
    assert len(sink.requests) == 7
    claims = world.rows(
        "select count(*) from ops.notifications group by batch order by min(notification_id)"
    )
    assert claims == [(3,), (3,), (1,)]
    assert world.rows("select distinct attempts from ops.notifications") == [(1,)]


def test_one_that_never_ends_its_answer_is_left(world: World, sink: Sink) -> None:
    done = threading.Event()
    sink.before_answer = lambda: bool(done.wait(10))
    world.configure(HOOK)
    world.hold(condition(1))
    started = time.monotonic()
    assert world.deliver(Rules(deadline=0.3)) == {"retries": 1}
    assert time.monotonic() - started < 3
    done.set()
    assert world.rows("select last_error from ops.notifications") == [("not done after 0.3 s",)]


KILLED = """
import sys
from datetime import UTC, datetime
from jobs.channels import channels
from jobs.notifications import deliver
from stageline.database import connect
with connect("jobs", autocommit=True) as jobs:
    for channel in channels():
        deliver(jobs, channel, clock=lambda: datetime.fromisoformat(sys.argv[1]))
"""


@pytest.mark.parametrize("kind", ["webhook", "pagerduty"])
def test_one_killed_between_sending_and_noting_sends_again_with_the_same_identity(
    world: World, sink: Sink, kind: str
) -> None:
    sink.usual = TAKEN
    world.configure(HOOK if kind == "webhook" else pager(sink))
    world.hold(condition(1))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, world.clock().isoformat()], stderr=subprocess.PIPE
    )
    sink.before_answer = process.kill  # it has arrived, and nobody can note it
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, said
    sink.before_answer = lambda: None
    world.hold(condition(1), condition(2))
    assert world.deliver() == {}  # until its lease ends
    world.clock.forward(seconds=91)
    assert world.deliver() == {"sent": 2}
    first, again, other = sink.requests

    def identity(request: Request) -> str:
        found = request.headers["webhook-id"] if kind == "webhook" else request.json["dedup_key"]
        return str(found)

    assert identity(first) == identity(again) != identity(other)
    if kind == "webhook":
        assert told(first) == told(again) == [("opened", "raw_files.t1")]
        assert first.headers["webhook-timestamp"] <= again.headers["webhook-timestamp"]


def test_what_one_worker_claims_right_now_another_one_passes_over(world: World, sink: Sink) -> None:
    world.configure(HOOK)
    world.hold(condition(1))
    [channel] = channels()
    others: list[Counter[str]] = []

    def meanwhile() -> None:
        with connect("jobs", autocommit=True) as jobs:
            jobs.execute("set lock_timeout = '2s'")
            others.append(Counter(deliver(jobs, channel, Rules(), world.clock)))

    sink.before_answer = meanwhile
    with world.jobs.transaction():  # so that nobody else sees the claim, but for its locks
        assert world.deliver() == {"sent": 1}
    assert others == [Counter()]
    assert len(sink.requests) == 1


def test_a_message_of_a_claim_that_passed_on_is_not_noted(world: World, sink: Sink) -> None:
    """A worker that comes back late does not say that the next one's attempt is done."""
    world.configure(HOOK)
    world.hold(condition(1))
    [channel] = channels()
    stale = Clock()

    def overtake() -> None:
        sink.before_answer = lambda: None
        sink.answers.append(Answer(503))
        with connect("jobs", autocommit=True) as jobs:
            later = stale() + timedelta(seconds=91)
            assert deliver(jobs, channel, Rules(), lambda: later) == {"retries": 1}

    sink.before_answer = overtake
    deliver(world.jobs, channel, Rules(), stale)
    assert world.rows("select sent_at is null, next_at is not null from ops.notifications") == [
        (True, True)
    ]


def test_a_random_week_tells_each_thing_once_and_in_order(world: World, sink: Sink) -> None:
    """Alerts come and go, the other side fails now and then; each is told as often as it opened."""
    chance = random.Random(20270113)  # noqa: S311 - no secret
    world.configure(HOOK)
    holding: set[int] = set()
    openings = 0
    for _ in range(120):
        flips = {number for number in range(6) if chance.random() < 0.15}
        openings += len(flips - holding)
        holding ^= flips
        world.hold(*(condition(number) for number in sorted(holding)))
        sink.usual = Answer(chance.choice([200, 204, 500, 503]))
        world.deliver()
        world.clock.forward(minutes=chance.choice([1, 5, 30, 90]))
    sink.usual = Answer()
    world.clock.forward(hours=1)
    world.deliver()
    taken = [
        notice
        for request in sink.requests
        if request.status < 300
        for notice in request.json["data"]["notices"]
    ]
    events: dict[str, list[str]] = {}
    for notice in taken:
        events.setdefault(notice["opening"], []).append(notice["event"])
    assert {tuple(each) for each in events.values()} == {("opened",), ("opened", "resolved")}
    assert sum(each[-1] == "opened" for each in events.values()) == len(holding)
    # Those that nobody heard of had ended before the first attempt to tell them.
    assert world.rows("select count(*) from ops.alerts") == [(openings,)]
    unheard = world.rows(
        "select resolved_at is not null from ops.alerts where not exists"
        " (select from ops.notifications where notifications.alert_id = alerts.alert_id)"
    )
    assert len(events) + len(unheard) == openings
    assert all(is_resolved for (is_resolved,) in unheard)


# --- what it looks like ------------------------------------------------------------------------


def notice(number: int = 1, **more: Any) -> Notice:
    at = datetime(2027, 1, 13, 10, tzinfo=UTC)
    made = Notice(
        notice_id=f"{number}-opened-1",
        event="opened",
        key=f"key-{number}",
        kind="quality",
        criticality="high",
        subject=f"raw_files.t{number}",
        title=f"Title {number}",
        text="Text",
        numbers={"failing": 2},
        since=at,
        opened_at=at,
    )
    return replace(made, **more)


def test_slack_takes_what_it_is_sent(world: World, sink: Sink) -> None:
    world.configure(TEAM)
    [channel] = channels()
    nasty = "<!channel> & <https://example.com|click> " * 60
    many = [notice(number, title=nasty, text=nasty) for number in range(60)]
    many.append(notice(61, criticality="critical", title="The worst"))
    assert send(channel, Message("m", many)) == "HTTP 200 ok"
    sent = sink.requests[0].json
    assert len(sent["blocks"]) == MOST_TOLD + 2 <= 50
    assert "The worst" in sent["blocks"][1]["text"]["text"]
    assert "And 21 more" in sent["blocks"][-1]["elements"][0]["text"]
    assert len(sent["blocks"][0]["text"]["text"]) <= 150
    for block in sent["blocks"][1:-1]:
        assert len(block["text"]["text"]) <= 3000
    assert "<" not in sink.requests[0].body.decode()
    assert not sent["text"].endswith(("&", "&a", "&am", "&l", "&lt", "&g", "&gt"))


def test_an_answer_that_is_not_slacks_is_no_success(world: World, sink: Sink) -> None:
    sink.answers.append(Answer(200, b"<html>Log in to the guest network</html>"))
    world.configure(TEAM)
    with pytest.raises(FailedError, match="is the address right"):
        send(channels()[0], Message("m", [notice()]))


def test_pagerduty_takes_what_it_is_sent(world: World, sink: Sink) -> None:
    sink.usual = TAKEN
    world.configure(pager(sink))
    [channel] = channels()
    long = notice(title="t" * 3000, key="k" * 1000)
    assert send(channel, Message("m", [long])) == "HTTP 202 Event processed"
    assert send(channel, Message("m", [replace(long, event="resolved")]))
    trigger, resolve = (request.json for request in sink.requests)
    assert sink.requests[0].path == "/v2/enqueue"
    assert trigger["routing_key"] == ROUTING_KEY
    assert len(trigger["payload"]["summary"]) == 1024
    assert trigger["payload"]["severity"] == "error"
    assert trigger["payload"]["source"]
    assert trigger["payload"]["timestamp"] == "2027-01-13T10:00:00Z"
    assert trigger["payload"]["custom_details"]["failing"] == 2
    assert len(trigger["dedup_key"]) <= 255
    assert (resolve["event_action"], resolve["dedup_key"]) == ("resolve", trigger["dedup_key"])


def test_the_words_of_pagerduty_are_told_without_the_key(world: World, sink: Sink) -> None:
    body = {"status": "invalid event", "message": "bad", "errors": [f"{ROUTING_KEY} is unknown"]}
    sink.answers.append(Answer(400, json.dumps(body).encode()))
    world.configure(pager(sink))
    with pytest.raises(RefusedError, match=r"^HTTP 400 bad, \*\*\* is unknown$"):
        send(channels()[0], Message("m", [notice()]))


def test_a_webhook_is_signed_as_standard_webhooks_says(world: World, sink: Sink) -> None:
    world.configure(HOOK)
    send(channels()[0], Message("msg_1", [notice(title="Ціль")]))
    [request] = sink.requests
    sent_at = request.headers["webhook-timestamp"]
    assert abs(int(sent_at) - time.time()) < 60
    signed = f"msg_1.{sent_at}.".encode() + request.body
    digest = hmac.new(base64.b64decode(KEY), signed, hashlib.sha256).digest()
    assert request.headers["webhook-id"] == "msg_1"
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert request.headers["content-type"] == "application/json"
    assert request.json["type"] == "stageline.alerts"
    assert request.json["data"]["notices"][0]["title"] == "Ціль"


@pytest.mark.parametrize("secret", ["whsec_", "whsec_c2hvcnQ=", "whsec_***", "plain"])
def test_a_secret_that_is_none_is_refused_and_not_repeated(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("HOOK_SECRET", secret)
    world.configure(HOOK)
    with pytest.raises(RefusedError, match=r"^HOOK_SECRET is not `whsec_` and the base64"):
        send(channels()[0], Message("m", [notice()]))
    assert sink.requests == []


# --- mail --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with MailServer(tmp_path_factory.mktemp("mail")).running() as running:
        yield running


@pytest.fixture
def mail(
    world: World, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Channel, MailServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(mail_server.certificate))
    monkeypatch.setenv("MAIL_PASSWORD", MailServer.PASSWORD)
    mail_server.mails.clear()
    mail_server.recipient_answer = "250 OK"
    world.configure(
        f"name: mail, kind: email, host: 127.0.0.1, port: {mail_server.port},"
        f" user: {MailServer.USER}, password_variable: MAIL_PASSWORD,"
        " from: stageline@example.com, to: [sales@example.com, support@example.com]"
    )
    return channels()[0], mail_server


def test_a_mail_has_text_and_html(mail: tuple[Channel, MailServer]) -> None:
    channel, server = mail
    title = "Ціль\r\nBcc: x@example.com <b>&"
    assert (
        send(channel, Message("msg_1", [notice(title=title, key="it's $(x)"), notice(2)]))
        == "taken"
    )
    [taken] = server.mails
    assert taken["Subject"] == "[Stageline] 2 opened"
    assert taken["To"] == "sales@example.com, support@example.com"
    assert taken["Bcc"] is None
    assert taken["Message-ID"] == "<msg_1@example.com>"
    plain, page = taken.iter_parts()
    assert plain.get_content_type() == "text/plain"
    assert "stageline notify acknowledge 'it'\"'\"'s $(x)'" in plain.get_content()
    assert page.get_content_type() == "text/html"
    assert "Ціль" in page.get_content()
    assert "&lt;b&gt;&amp;" in page.get_content()
    assert send(channel, Message("msg_2", [notice(title=title)])) == "taken"
    assert server.mails[1]["Subject"] == "[Stageline] Opened: Ціль Bcc: x@example.com <b>& (high)"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("550 no such box", RefusedError, "SMTP 550: takes mail for none of the addresses"),
        ("451 later", FailedError, "SMTP 451: takes mail for none of the addresses"),
    ],
)
def test_a_mail_that_nobody_takes(
    mail: tuple[Channel, MailServer], answer: str, kind: type[Exception], words: str
) -> None:
    channel, server = mail
    server.recipient_answer = answer
    with pytest.raises(kind, match=f"^{words}$"):
        send(channel, Message("m", [notice()]))


def test_a_mail_server_that_does_not_know_the_password(
    mail: tuple[Channel, MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "another-secret")
    with pytest.raises(RefusedError, match=r"^SMTP 535: ") as raised:
        send(mail[0], Message("m", [notice()]))
    assert "another-secret" not in str(raised.value)


def test_a_mail_server_that_cannot_prove_who_it_is_gets_no_password(
    mail: tuple[Channel, MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(FailedError, match=r"^no secure connection"):
        send(mail[0], Message("m", [notice()]))
    assert mail[1].mails == []


# --- secrets -----------------------------------------------------------------------------------


def test_no_secret_is_ever_told(
    world: World,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However the other side fails: not reached, repeating the address, no TLS behind it."""
    caplog.set_level(logging.DEBUG, logger="slack_sdk")
    nobody = f"http://127.0.0.1:{free_port()}/services/very-secret-part"
    no_tls = f"https://127.0.0.1:{sink.port}/services/very-secret-part"
    sink.usual = Answer(500, b"Cannot POST /services/T000/B000/very-secret-part")
    said = ""
    for url in (nobody, no_tls, sink.url, "ftp://very-secret-part", "very-secret-part"):
        monkeypatch.setenv("HOOK_URL", url)
        monkeypatch.setenv("TEAM_URL", url)
        world.configure(HOOK, TEAM, pager(sink))
        world.jobs.execute("delete from ops.alerts")
        world.hold(condition(1))
        world.deliver()
        said += str(world.rows("select last_error from ops.notifications"))
        for name in ("hook", "team", "pager"):
            result = command("test", name)
            assert result.exit_code == 1
            assert result.output.count("\n") == 1
            said += result.output
    logged = capfd.readouterr()
    said += logged.out + logged.err
    assert said.count("the connection failed (ConnectionRefusedError)") >= 2
    assert "no secure connection" in said
    assert "HTTP 500" in said
    for secret in ("very-secret", KEY, ROUTING_KEY):
        assert secret not in said
    assert [record for record in caplog.records if record.name.startswith("slack_sdk")] == []


# --- commands ----------------------------------------------------------------------------------


def test_a_test_message_says_what_it_is(world: World, sink: Sink) -> None:
    world.configure(HOOK, TEAM, pager(sink))
    assert command("test", "team").output == "Channel team (slack) took the message: HTTP 200 ok.\n"
    assert "Nothing is wrong." in sink.requests.pop().json["text"]
    assert command("test", "hook").exit_code == 0
    assert sink.requests.pop().json["type"] == "stageline.test"
    sink.usual = TAKEN
    assert "HTTP 202 Event processed" in command("test", "pager").output
    assert [one.json["event_action"] for one in sink.requests] == ["trigger", "resolve"]
    assert world.rows("select count(*) from ops.notifications") == [(0,)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["test", "tean"], "error: There is no channel 'tean'. Did you mean team?\n"),
        (
            ["test", "lacks"],
            "error: Channel lacks needs the variable NOT_SET, which is not set."
            " Set it in the environment or in .env.\n",
        ),
        (
            ["test", "team"],
            "error: Channel team (slack) refused the message: HTTP 404 no_service."
            " Mend it there or in the channel's settings.\n",
        ),
        (["retry", "team"], "error: Channel team has got everything that was for it.\n"),
        (["acknowledge", "nothing"], "error: No alert 'nothing' is open. None is open.\n"),
    ],
)
def test_what_goes_wrong_is_one_line(
    world: World, sink: Sink, arguments: list[str], told: str
) -> None:
    sink.usual = Answer(404, b"no_service")
    world.configure(TEAM, "name: lacks, kind: slack, url_variable: NOT_SET")
    result = command(*arguments)
    assert (result.exit_code, result.output) == (1, told)


def test_a_secret_may_stand_in_the_env_file(
    world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM_URL")
    world.configure(TEAM)
    Path(os.environ["STAGELINE_ENV_FILE"]).write_text(f"TEAM_URL={sink.url}\n")
    assert command("test", "team").exit_code == 0


def test_without_a_channel_alerts_are_listed_and_that_nobody_is_told(world: World) -> None:
    result = command("test", "team")
    assert result.output.startswith("error: There is no channel 'team'. None is configured: ")
    assert "Nothing is open." in command("list").output
    world.hold(condition(1))
    listed = command("list")
    assert listed.exit_code == 0
    assert "raw_files.t1: not so" in listed.output
    assert "note: No channel is configured, so nobody is told." in listed.output


def test_the_list_says_who_was_told_what(world: World, sink: Sink) -> None:
    sink.answers.append(Answer(404, b"no_service"))
    world.configure(TEAM, HOOK)
    world.hold(condition(1), condition(2, criticality="critical"))
    world.deliver()
    world.hold(condition(1))
    lines = command("list", "--resolved", "5").output.splitlines()
    assert lines[0].split() == ["criticality", "opened", "state", "alert", "key", "told"]
    assert lines[1].startswith("high")
    assert "hook: opened sent 2027-01-13 10:00; team: opened given up: HTTP 404 no" in lines[1]
    assert "resolved 2027-01-13 10:00" in lines[2]
    assert "hook: resolved due 2027-01-13 10:00" in lines[2]
    assert lines[3] == "1 open."
    key = condition(1).key
    assert command("acknowledge", key, "--by", "Ann").exit_code == 0
    assert "acknowledged by Ann" in command("list").output
    assert "Did you mean quality|raw_files.t1|unique|id?" in command("acknowledge", key[1:]).output


@pytest.mark.parametrize("name", ["", "test", "list", "acknowledge", "retry"])
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    result = command(*([name] if name else []), "--help")
    assert result.exit_code == 0
    assert f"Example:\n    stageline notify {name}" in result.output.replace("\n  ", "\n")


# --- sources and worker ------------------------------------------------------------------------


EPISODES: LiteralString = """
create table kpis.alert_episodes (
    alert_key text, rule text, priority text, source_system text, project_id text,
    subject_type text, subject_id text, subject_name text, message text,
    last_value numeric, threshold numeric, opened_at timestamptz, resolved_at timestamptz
);
grant select on kpis.alert_episodes to stageline_reader;
insert into kpis.alert_episodes
values
    ('calls|file|bdr|rep|r-1', 'calls_this_week', 'urgent', 'file', 'bdr', 'rep', 'r-1', 'Ann',
        'Calls made this week: 3 of 15', 3, 15, '2027-01-13', null),
    ('calls|file|bdr|rep|r-2', 'calls_this_week', 'high', 'file', 'bdr', 'rep', 'r-2', 'Bob',
        'Calls made this week: 1 of 15', 1, 15, '2027-01-12', '2027-01-13');
"""


@pytest.fixture
def episodes() -> Iterator[psycopg.Connection[Any]]:
    """A table as the models make it, with one alert that is open and one that is not."""
    with connect("transformer", autocommit=True) as transformer:
        transformer.execute(EPISODES)
        yield transformer
        transformer.execute("drop table if exists kpis.alert_episodes")


def open_alerts(world: World) -> list[tuple[Any, ...]]:
    return world.rows(
        "select kind, criticality, title from ops.alerts where resolved_at is null order by 1, 3"
    )


def test_alerts_of_the_kpi_tables_are_taken_over(
    world: World,
    sink: Sink,
    episodes: psycopg.Connection[Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    world.configure(HOOK)
    assert raise_alerts(world.clock()) == {"opened": 1, "resolved": 0, "hold": 1}
    of_ann = ("kpi", "critical", "Ann: Calls made this week: 3 of 15")
    assert open_alerts(world) == [of_ann]
    assert raise_alerts(world.clock()) is None
    world.deliver()
    [sent] = sink.requests[0].json["data"]["notices"]
    assert sent["key"] == "kpi|calls|file|bdr|rep|r-1"
    assert sent["subject"] == "Ann (project bdr of file)"
    assert sent["numbers"] == {"value": 3, "threshold": 15}
    assert sent["since"] == "2027-01-13T00:00:00Z"
    # A table that cannot be read, or is not there, says nothing about what holds.
    episodes.execute("alter table kpis.alert_episodes rename column message to words")
    assert raise_alerts(world.clock()) is None
    assert "alerts of a kind stay as they are" in capfd.readouterr().err
    episodes.execute("alter table kpis.alert_episodes rename to elsewhere")
    assert raise_alerts(world.clock()) is None
    assert capfd.readouterr().err == ""
    assert open_alerts(world) == [of_ann]
    episodes.execute("alter table kpis.elsewhere rename to alert_episodes")
    episodes.execute("alter table kpis.alert_episodes rename column words to message")
    episodes.execute("update kpis.alert_episodes set resolved_at = '2027-01-13 11:00Z'")
    assert raise_alerts(world.clock()) == {"opened": 0, "resolved": 1, "hold": 0}


def checked(world: World, *results: tuple[str, str, str, bool, str], finished: bool = True) -> None:
    """A run of the checks: suite, severity, column, whether it held, and what was observed."""
    world.clock.forward(minutes=1)
    [(run_id,)] = world.rows(
        "insert into ops.quality_runs (started_at, finished_at) values (%s, %s) returning run_id",
        world.clock(),
        world.clock() if finished else None,
    )
    for suite, severity, column, success, observed in results:
        world.jobs.execute(
            "insert into ops.quality_results (run_id, suite, schema_name, table_name, expectation,"
            " column_name, severity, success, observed, details)"
            " values (%s, %s, 'raw_files', %s, 'unique', %s, %s, %s, %s, %s)",
            [run_id, suite, suite, column, severity, success, observed, f"{column} is unique"],
        )


def test_failed_checks_are_alerts_until_they_hold(world: World) -> None:
    counted = '{"rows": 10, "failing": 2}'
    checked(
        world,
        ("leads", "critical", "lead_id", False, counted),
        ("leads", "warning", "name", False, "{}"),
        ("deals", "warning", "deal_id", False, counted),
        ("calls", "warning", "call_id", True, counted),
    )
    raise_alerts(world.clock())
    leads = ("quality", "critical", 'raw_files.leads: not so: "lead_id is unique"')
    deals = ("quality", "medium", 'raw_files.deals: not so: "deal_id is unique"')
    failed = ("quality", "medium", "raw_files.leads: unique could not be checked")
    assert open_alerts(world) == [deals, leads, failed]
    # One that has not ended says nothing; one of an entity says nothing of the others.
    checked(world, ("deals", "warning", "deal_id", True, counted), finished=False)
    checked(world, ("leads", "critical", "lead_id", True, counted))
    raise_alerts(world.clock())
    assert open_alerts(world) == [deals]
    checked(
        world,
        ("leads", "critical", "lead_id", True, counted),
        ("calls", "warning", "call_id", True, counted),
    )
    raise_alerts(world.clock())
    assert open_alerts(world) == []


def test_of_two_workers_one_reads_what_holds(world: World) -> None:
    checked(world, ("leads", "critical", "lead_id", False, '{"rows": 10, "failing": 2}'))
    raising = threading.Thread(target=raise_alerts, args=[world.clock()])
    with connect("jobs") as other:
        assert lock(other)
        raising.start()
        raising.join(10)
        assert not raising.is_alive()
        assert open_alerts(world) == []
    assert raise_alerts(world.clock()) == {"opened": 1, "resolved": 0, "hold": 1}


def test_a_file_with_a_mistake_stops_the_worker_before_it_begins(world: World) -> None:
    world.configure("name: team, kind: sms")
    result = subprocess.run(
        [sys.executable, "-m", "stageline", "worker"],
        env={**os.environ, "STAGELINE_SECRET_KEY": base64.urlsafe_b64encode(bytes(32)).decode()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "notifications.yml, line 2, column 3: kind is none of" in result.stderr


def test_a_worker_raises_alerts_and_sends_what_is_due(
    world: World, sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGELINE_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())
    world.configure(HOOK, "name: lacks, kind: slack, url_variable: NOT_SET")
    checked(world, ("leads", "critical", "lead_id", False, '{"rows": 10, "failing": 2}'))
    [raising] = [task for task in periodic_tasks() if task.name == "raise alerts"]
    assert raising.cron == "* * * * *"
    assert raising.work() == {"opened": 1, "resolved": 0, "hold": 1}
    with running_worker(tmp_path) as worker:
        until(lambda: len(worker.lines("notification")) >= 2)
        assert worker.stop() == 0
    outcomes = {line["channel"]: line["outcome"] for line in worker.lines("notification")}
    assert outcomes == {"hook": "sent", "lacks": "retries"}
    assert all_told(sink) == [("opened", "raw_files.leads")]


def test_an_unknown_alert_is_not_acknowledged(world: World) -> None:
    world.hold(condition(1))
    world.hold()
    with pytest.raises(StagelineError, match=r"No alert .* is open"):
        acknowledge(world.jobs, condition(1).key, "Ann", world.clock())
