"""The receiver as senders see it, and what then stands in schema ``raw``."""

import base64
import hashlib
import hmac
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import structlog

from stageline.progress import log
from stageline.settings import projects, webhook_checks
from tests.conftest import TestServer
from tests.landings import landed, running
from tests.raw_http import chunks, head, read, send, whole
from tests.receivers import TOKEN, Receiver, running_receiver
from tests.shared_receivers import PATHS, Shared, at_once, order, shared_receiver, until
from tests.unit.test_senders import EXPECTED, RECORDED
from tests.unit.test_webhook_checks import signed
from webhook_receiver.accounts import Accounts
from webhook_receiver.app import create_app
from webhook_receiver.delivery import Delivery
from webhook_receiver.delivery import read as read_delivery
from webhook_receiver.events import Parsed
from webhook_receiver.landing import Landing
from webhook_receiver.raw_tables import Outcome
from webhook_receiver.refusals import Refusals
from webhook_receiver.session import PATIENCE
from webhook_receiver.spool import Spool

PUBLIC_URL = "https://hooks.example.test"
LOGIN = "stageline:a pass:word of the tests"
SIGNING_SECRET = "a-signing-secret-of-the-tests"
CLIENT_SECRET = "crm-test-secret-1"
#: What no log may hold.
MARKER = "marker5f1c"
OLD_TOKEN, NEW_TOKEN = "the-old-token-of-the-tests", "the-new-token-of-the-tests"

ORDER = RECORDED["keycrm_order_status.json"]
CHANGE = RECORDED["pipedrive_v2_change.json"]


def _prepare() -> None:
    for source, project in (
        ("pipedrive", "by-login"),
        ("pipedrive", "signed"),
        ("pipedrive", "rotated"),
        ("pipedrive", "by-address"),
        ("pipedrive", "by-agent"),
        ("hubspot", "portal"),
        ("keycrm", "closed"),
    ):
        projects.add(source, project)
    webhook_checks.allow("pipedrive", "by-login", "basic", secret=LOGIN)
    webhook_checks.allow("zapier", "signed", "hmac", secret=SIGNING_SECRET)
    webhook_checks.allow("hubspot", "portal", "hubspot", secret=CLIENT_SECRET)
    webhook_checks.allow("pipedrive", "rotated", "token", secret=OLD_TOKEN)
    webhook_checks.allow("pipedrive", "rotated", "token", secret=NEW_TOKEN)
    webhook_checks.allow("pipedrive", "by-address", "address", allowed="203.0.113.0/24")
    webhook_checks.allow("pipedrive", "by-agent", "token", secret=TOKEN)
    webhook_checks.allow("pipedrive", "by-agent", "user_agent", allowed="Pipedrive")


@pytest.fixture(scope="module")
def shared(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("receiver")
    with shared_receiver(
        server, folder, _prepare, STAGELINE_RECEIVER_PUBLIC_URL=PUBLIC_URL
    ) as running:
        yield running


@pytest.fixture(scope="module")
def behind_a_proxy(
    shared: Shared,  # noqa: ARG001 - its database
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Receiver]:
    """A second receiver on the same database, as another machine would run it."""
    with running_receiver(
        tmp_path_factory.mktemp("second"),
        STAGELINE_RECEIVER_TRUSTED_PROXIES="1",
        STAGELINE_RECEIVER_METRICS_FROM="127.0.0.0/8,203.0.113.0/24",
        STAGELINE_RECEIVER_WORKERS="1",
        STAGELINE_RECEIVER_RATE="3",
        STAGELINE_RECEIVER_BODY_LIMIT=str(16 * 1024 * 1024),
    ) as running:
        yield running


def post(url: str, body: bytes, **more: Any) -> requests.Response:
    headers = {"Connection": "close", **more.pop("headers", {})}
    return requests.post(url, data=body, headers=headers, timeout=20, allow_redirects=False, **more)


def send_nothing(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def signed_as_hubspot(target: str, body: bytes) -> dict[str, str]:
    stamp = str(int(time.time() * 1000))
    text = b"".join((b"POST", (PUBLIC_URL + target).encode(), body, stamp.encode()))
    signature = base64.b64encode(hmac.digest(CLIENT_SECRET.encode(), text, "sha256")).decode()
    return {"X-HubSpot-Signature-v3": signature, "X-HubSpot-Request-Timestamp": stamp}


# --- what is landed


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_body_is_landed_with_its_events(shared: Shared, name: str) -> None:
    sender, project, expected = name.partition("_")[0], shared.project(), EXPECTED[name]
    before = datetime.now(UTC)
    answer = shared.post(
        sender, project, RECORDED[name], {"Content-Type": "a/b", "Cookie": "c", "User-Agent": "d"}
    )
    after = datetime.now(UTC)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    (row,) = shared.deliveries(project)
    assert before <= row.pop("received_at") <= row.pop("landed_at") <= after
    assert row.pop("landed_xid") is not None
    (check,) = shared.rows(
        "select check_id from settings.webhook_checks where sender = %s and project_id = %s",
        sender,
        project,
    )
    assert answer.json() == {"status": "accepted", "delivery_id": str(row["delivery_id"])}
    assert row.pop("delivery_id").version == 8
    assert row == {
        "sender": sender,
        "source_system": "pipedrive" if sender == "zapier" else sender,
        "project_id": project,
        "sender_delivery_id": expected.sender_delivery_id,
        "check_ids": [check["check_id"]],
        "headers": {"content-type": "a/b", "user-agent": "d"},
        "body": RECORDED[name],
        "body_bytes": len(RECORDED[name]),
        "body_sha256": hashlib.sha256(RECORDED[name]).digest(),
        "entity_type": expected.entity_type,
        "entity_ids": list(expected.entity_ids),
        "unparsed_reason": None,
    }
    found = shared.events(project)
    for kind in ("stage_events", "value_changes", "lifecycle_events"):
        assert set(getattr(found, kind)) == set(getattr(expected, kind))
        assert len(getattr(found, kind)) == len(getattr(expected, kind))


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/webhooks/keycrm/{}", {"X-Webhook-Token": TOKEN}),
        ("/webhooks/keycrm/{}", {"Authorization": f"Bearer {TOKEN}"}),
        (f"/webhooks/keycrm/{{}}?token={TOKEN}", {}),
        (f"/webhooks/keycrm/{{}}/?secret={TOKEN}", {}),
        (f"/webhooks/keycrm?project={{}}&token={TOKEN}", {}),
        (f"/webhooks/keycrm/?a=%FF&secret={TOKEN}&project={{}}", {}),
    ],
    ids=["header", "bearer", "token", "slash", "parameter", "both"],
)
def test_keycrm_shows_its_token_in_a_header_or_the_query(
    shared: Shared, target: str, headers: dict[str, str]
) -> None:
    project = shared.project()
    answer = post(shared.receiver.url + target.format(project), ORDER, headers=headers)
    assert answer.status_code == 200
    (row,) = shared.deliveries(project)
    assert row["body"] == ORDER
    assert TOKEN not in str(row)


@pytest.mark.parametrize("version", ["v1_updated", "v2_change"])
def test_pipedrive_logs_in_with_basic(shared: Shared, version: str) -> None:
    body = RECORDED[f"pipedrive_{version}.json"]
    url = f"{shared.receiver.url}/webhooks/pipedrive/by-login"
    user, password = LOGIN.split(":", 1)
    assert post(url, body, auth=(user, password)).status_code == 200
    assert body in shared.bodies("by-login")
    wrong = post(url, b"another", auth=(user, "wrong"))
    assert wrong.status_code == 401
    assert wrong.headers["WWW-Authenticate"].startswith("Basic ")
    assert b"another" not in shared.bodies("by-login")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("zapier_final_stage.json", "application/json; charset=utf-8"),
        ("zapier_final_stage.form", "application/x-www-form-urlencoded"),
        ("zapier_final_stage.json", None),
        ("zapier_final_stage.form", "application/json"),
        ("zapier_final_stage.json", "application/x-www-form-urlencoded"),
    ],
)
def test_a_zap_may_call_its_body_what_it_likes(
    shared: Shared, name: str, content_type: str | None
) -> None:
    project = shared.project()
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert shared.post("zapier", project, RECORDED[name], headers).status_code == 200
    assert shared.events(project).stage_events == EXPECTED[name].stage_events
    (row,) = shared.deliveries(project)
    assert row["headers"].get("content-type") == content_type


def test_a_zap_may_sign_as_standard_webhooks_do(shared: Shared) -> None:
    url = shared.receiver.url + PATHS["zapier"].format("signed")
    body = RECORDED["zapier_final_stage.json"]
    headers = signed(SIGNING_SECRET, at=int(time.time()), message_id="msg_1", body=body)
    assert post(url, body, headers=headers).status_code == 200
    (row,) = shared.deliveries("signed")
    assert row["sender_delivery_id"] == "msg_1"
    assert (
        row["headers"].items()
        >= {
            "webhook-id": "msg_1",
            "webhook-timestamp": headers["webhook-timestamp"],
        }.items()
    )
    assert "webhook-signature" not in row["headers"]
    assert post(url, body + b" ", headers=headers).json() == {"error": "signature wrong"}


def test_a_zap_has_to_name_its_project_where_there_are_several(shared: Shared) -> None:
    answer = post(shared.receiver.url + PATHS["zapier"].partition("?")[0], b"{}")
    assert (answer.status_code, answer.json()) == (404, {"error": "project missing"})


def hubspot_batch(count: int) -> bytes:
    first = 1_772_615_560_000
    return json.dumps(
        [
            {
                "eventId": number,
                "subscriptionType": "deal.propertyChange",
                "attemptNumber": 0,
                "objectId": 1000 + number,
                "occurredAt": first + number,
                "propertyName": "dealstage",
                "propertyValue": "contractsent",
            }
            for number in range(count)
        ]
    ).encode()


def test_hubspot_signs_its_public_address_and_a_batch_is_split_into_its_events(
    shared: Shared,
) -> None:
    target, body = "/webhooks/hubspot/portal", hubspot_batch(100)
    answer = post(shared.receiver.url + target, body, headers=signed_as_hubspot(target, body))
    assert answer.status_code == 200
    (row,) = shared.deliveries("portal")
    assert row["entity_ids"] == [str(1000 + number) for number in range(100)]
    events = shared.events("portal").stage_events
    assert [event.entity_id for event in events] == row["entity_ids"]
    assert events[99].entered_at == datetime.fromtimestamp(1_772_615_560.099, UTC)

    sent, meant = "/webhooks/hubspot/portal?a=b%3Ac%2Fd&e=%20f", "?a=b:c/d&e=%20f"
    headers = signed_as_hubspot(target + meant, body + b" ")
    assert post(shared.receiver.url + sent, body + b" ", headers=headers).status_code == 200
    assert len(shared.deliveries("portal")) == 2
    headers = signed_as_hubspot(sent, body)
    assert post(shared.receiver.url + sent, body, headers=headers).status_code == 401


def test_ten_megabytes_are_landed_where_they_are_allowed(
    shared: Shared, behind_a_proxy: Receiver
) -> None:
    project = shared.project()
    body = order(manager_comment="x" * 10 * 1024 * 1024)
    url = behind_a_proxy.url + PATHS["keycrm"].format(project)
    assert post(url, body, headers={"X-Webhook-Token": TOKEN}).status_code == 200
    assert shared.bodies(project) == [body]
    assert shared.events(project) == Parsed(
        stage_events=EXPECTED["keycrm_order_status.json"].stage_events
    )


# --- the same again, and not quite the same


def test_a_delivery_that_comes_again_is_answered_alike_and_changes_nothing(shared: Shared) -> None:
    project = shared.project()
    first = shared.post("keycrm", project, ORDER)
    before = (shared.deliveries(project), shared.events(project))
    again = shared.post("keycrm", project, ORDER, {"User-Agent": "another"})
    assert (again.status_code, again.json()) == (200, first.json())
    assert (shared.deliveries(project), shared.events(project)) == before
    shared.await_outcomes(first.json()["delivery_id"], "stored", "duplicate")


@pytest.mark.parametrize(
    ("name", "count", "again"),
    [
        ("pipedrive_v2_change.json", b'"attempt": 1', b'"attempt": 2'),
        ("pipedrive_v1_updated.json", b'"retry": 0', b'"retry": 3'),
        ("hubspot_events.json", b'"attemptNumber": 0', b'"attemptNumber": 7'),
    ],
)
def test_a_retry_that_counts_itself_is_the_same_delivery(
    shared: Shared, name: str, count: bytes, again: bytes
) -> None:
    sender, project, body = name.partition("_")[0], shared.project(), RECORDED[name]
    assert count in body
    first = shared.post(sender, project, body)
    second = shared.post(sender, project, body.replace(count, again))
    assert (second.status_code, second.json()) == (200, first.json())
    assert shared.bodies(project) == [body]


def test_the_same_status_at_another_instant_is_a_new_event(shared: Shared) -> None:
    project = shared.project()
    for moved_at in ("2026-02-11 08:30:05", "2026-02-12 08:30:05"):
        answer = shared.post("keycrm", project, order(status_changed_at=moved_at))
        assert answer.status_code == 200
    assert [event.entered_at.day for event in shared.events(project).stage_events] == [11, 12]


def test_an_event_that_comes_in_another_delivery_stays_as_it_came_first(shared: Shared) -> None:
    project = shared.project()
    ids = [
        shared.post("keycrm", project, order(manager_comment=comment)).json()["delivery_id"]
        for comment in ("one", "two")
    ]
    assert [str(row["delivery_id"]) for row in shared.deliveries(project)] == ids
    (event,) = shared.rows("select * from raw.stage_events where project_id = %s", project)
    assert str(event["delivery_id"]) == ids[0]


def test_what_comes_late_or_out_of_order_is_stored(shared: Shared) -> None:
    project = shared.project()
    for day in (13, 11, 12):
        moved = order(status_id=day, status_changed_at=f"2026-02-{day} 00:00:00")
        assert shared.post("keycrm", project, moved).status_code == 200
    assert [event.stage_id for event in shared.events(project).stage_events] == ["11", "12", "13"]


def test_a_delivery_id_that_comes_with_other_bytes_is_kept_twice_and_flagged(
    shared: Shared,
) -> None:
    project = shared.project()
    answers = [
        shared.post("keycrm", project, body, {"webhook-id": "msg_7"})
        for body in (ORDER, order(status_id=21), ORDER)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    ids = [answer.json()["delivery_id"] for answer in answers]
    assert ids[0] == ids[2] != ids[1]
    flagged = shared.rows(
        "select delivery_id, sender_delivery_id from raw.conflicting_deliveries"
        " where project_id = %s order by received_at",
        project,
    )
    assert [(str(row["delivery_id"]), row["sender_delivery_id"]) for row in flagged] == [
        (ids[0], "msg_7"),
        (ids[1], "msg_7"),
    ]
    shared.await_outcomes(ids[1], "conflict")
    shared.await_outcomes(ids[0], "stored", "duplicate")
    assert len(shared.events(project).stage_events) == 2


def test_what_cannot_be_read_is_kept_and_listed_with_the_reason(shared: Shared) -> None:
    project = shared.project()
    answer = shared.post("keycrm", project, b"\x00hello")
    assert answer.status_code == 200
    (row,) = shared.rows("select * from raw.unparsed_deliveries where project_id = %s", project)
    assert str(row["delivery_id"]) == answer.json()["delivery_id"]
    assert (row["sender"], row["body_bytes"]) == ("keycrm", 6)
    assert row["unparsed_reason"] == "the body is not JSON"
    assert shared.bodies(project) == [b"\x00hello"]


def test_fifty_at_once_of_the_same_delivery_are_one(shared: Shared) -> None:
    project = shared.project()
    answers = at_once(50, lambda _: shared.post("keycrm", project, ORDER))
    assert {answer.status_code for answer in answers} == {200}
    (delivery_id,) = {answer.json()["delivery_id"] for answer in answers}
    assert len(shared.deliveries(project)) == len(shared.events(project).stage_events) == 1
    shared.await_outcomes(delivery_id, "stored", *["duplicate"] * 49)


def test_a_delivery_that_comes_twice_while_another_is_written_is_stored_once(
    shared: Shared, tmp_path: Path
) -> None:
    project = shared.project()
    first, second = (
        read_delivery(Delivery("keycrm", project, datetime.now(UTC), (1,), {}, body, "UTC"))
        for body in (b"1", b"2")
    )
    with (
        closing(Spool(tmp_path / "spool.sqlite", 2**20)) as spool,
        running(spool) as landing,
        ThreadPoolExecutor(9) as pool,
    ):
        with shared.session.transaction():
            shared.session.execute("lock table raw.deliveries in access exclusive mode")
            held_up = pool.submit(landed, landing, first)
            time.sleep(0.2)
            together = [pool.submit(landed, landing, second) for _ in range(8)]
            time.sleep(0.2)
        assert held_up.result() is Outcome.STORED
        assert Counter(each.result() for each in together) == {
            Outcome.STORED: 1,
            Outcome.DUPLICATE: 7,
        }
    assert shared.bodies(project) == [b"1", b"2"]


def test_what_came_while_one_hung_does_not_wait_for_another_to_hang(
    shared: Shared, tmp_path: Path
) -> None:
    project = shared.project()
    first, second = (
        read_delivery(Delivery("keycrm", project, datetime.now(UTC), (), {}, body, "UTC"))
        for body in (b"1", b"2")
    )

    class Answering(Spool):
        """The keeper finds, right then, that PostgreSQL answers: other tables are not locked."""

        def put(self, deliveries: Sequence[Delivery]) -> None:
            super().put(deliveries)
            landing.saw_postgres(None)

    with (
        closing(Answering(tmp_path / "spool.sqlite", 2**20)) as spool,
        running(spool) as landing,
        ThreadPoolExecutor(2) as pool,
        shared.session.transaction(),
    ):
        shared.session.execute("lock table raw.deliveries in access exclusive mode")
        began = time.monotonic()
        outcomes = [pool.submit(landed, landing, first)]
        time.sleep(0.2)
        outcomes.append(pool.submit(landed, landing, second))
        assert {each.result() for each in outcomes} == {Outcome.SPOOLED}
        assert time.monotonic() - began < 2 * PATIENCE


def test_two_receivers_on_one_database_store_each_delivery_once(
    shared: Shared, behind_a_proxy: Receiver
) -> None:
    project = shared.project()
    bodies = [order(id=number) for number in range(40)]

    def both(number: int) -> set[str]:
        urls = [each.url for each in (shared.receiver, behind_a_proxy)]
        if number % 2:
            urls.reverse()
        answers = [
            post(url + PATHS["keycrm"].format(project), body, headers={"X-Webhook-Token": TOKEN})
            for body in bodies
            for url in urls
        ]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.json()["delivery_id"] for answer in answers}

    (ids,) = {frozenset(each) for each in at_once(4, both)}
    assert {str(row["delivery_id"]) for row in shared.deliveries(project)} == ids
    assert sorted(shared.bodies(project)) == sorted(bodies)
    assert len(shared.events(project).stage_events) == 40


# --- who may send


def test_each_of_two_secrets_counts_until_it_is_revoked(shared: Shared) -> None:
    url = shared.receiver.url + PATHS["pipedrive"].format("rotated")

    def status(token: str, body: bytes = b"{}") -> int:
        return post(url, body, headers={"X-Webhook-Token": token}).status_code

    old, new = (
        row["check_id"]
        for row in shared.rows(
            "select check_id from settings.webhook_checks where project_id = 'rotated' order by 1"
        )
    )
    assert (status(OLD_TOKEN, b"1"), status(NEW_TOKEN, b"2")) == (200, 200)
    assert [row["check_ids"] for row in shared.deliveries("rotated")] == [[old], [new]]
    webhook_checks.revoke(old)
    until(lambda: {status(OLD_TOKEN) for _ in range(8)} == {401}, 5)
    assert status(NEW_TOKEN, b"3") == 200


def test_a_new_project_may_send_within_seconds(shared: Shared) -> None:
    projects.add("keycrm", "new")
    webhook_checks.allow("keycrm", "new", "token", secret=TOKEN)
    until(lambda: {shared.post("keycrm", "new", ORDER).status_code for _ in range(8)} == {200}, 5)
    assert len(shared.deliveries("new")) == 1


def test_a_project_without_a_check_refuses_everything_and_says_so_at_the_start(
    shared: Shared,
) -> None:
    answer = shared.post("keycrm", "closed", ORDER)
    assert (answer.status_code, answer.json()) == (401, {"error": "no check configured"})
    assert not shared.deliveries("closed")
    assert any(
        line["event"] == "refuses everything: no check is configured"
        and line["project"] == "keycrm/closed"
        for line in shared.receiver.lines()
    )


def test_every_kind_of_check_that_a_sender_has_is_to_be_passed(shared: Shared) -> None:
    url = shared.receiver.url + PATHS["pipedrive"].format("by-agent")
    token = {"X-Webhook-Token": TOKEN}
    right, wrong = {"User-Agent": "Pipedrive Webhooks"}, {"User-Agent": "curl"}
    assert post(url, b"1", headers=token | right).status_code == 200
    assert post(url, b"2", headers=token | wrong).json() == {"error": "user agent wrong"}
    assert post(url, b"3", headers=right).json() == {"error": "token missing"}
    (row,) = shared.deliveries("by-agent")
    assert (row["body"], len(row["check_ids"])) == (b"1", 2)


def test_addresses_are_those_that_the_last_trusted_proxy_saw(
    shared: Shared, behind_a_proxy: Receiver
) -> None:
    path = PATHS["pipedrive"].format("by-address")

    def status(receiver: Receiver, body: bytes, forwarded_for: str | None) -> int:
        headers = {} if forwarded_for is None else {"X-Forwarded-For": forwarded_for}
        return post(receiver.url + path, body, headers=headers).status_code

    assert status(behind_a_proxy, b"1", "203.0.113.7") == 200
    assert status(behind_a_proxy, b"2", "198.51.100.1, 203.0.113.8") == 200
    assert status(behind_a_proxy, b"3", "203.0.113.7, 198.51.100.1") == 403
    assert status(behind_a_proxy, b"4", None) == 403
    assert status(shared.receiver, b"5", "203.0.113.7") == 403  # trusts no proxy
    assert shared.bodies("by-address") == [b"1", b"2"]


def test_only_hubspot_is_asked_to_slow_down(shared: Shared, behind_a_proxy: Receiver) -> None:
    def statuses(sender: str) -> list[int]:
        url = behind_a_proxy.url + PATHS[sender].format(project)
        headers = {"X-Webhook-Token": TOKEN}
        answers = [post(url, b"%d" % number, headers=headers) for number in range(12)]
        for answer in answers:
            assert answer.headers.get("Retry-After") == ("1" if answer.status_code == 429 else None)
        return [answer.status_code for answer in answers]

    project = shared.project()
    hubspot = statuses("hubspot")
    assert hubspot[:3] == [200, 200, 200]
    assert set(hubspot) == {200, 429}
    assert len(shared.deliveries(project)) == hubspot.count(200)
    for sender in ("keycrm", "pipedrive", "zapier"):
        assert statuses(sender) == [200] * 12


def test_what_is_refused_leaves_a_record_and_no_word_of_what_it_said(shared: Shared) -> None:
    project, body = shared.project(), b"a body that is refused"
    target = f"/webhooks/keycrm/{project}"
    answers = {
        "token_missing": send(shared.receiver.port, whole(target, body)),
        "unknown_project": send(shared.receiver.port, whole(target + "-no", body)),
        "address_not_allowed": send(
            shared.receiver.port, whole("/webhooks/pipedrive/by-address", body)
        ),
        "body_too_large": send(
            shared.receiver.port, head(target, f"Content-Length: {2**21}") + body, hang_up=True
        ),
        "body_cut_short": send(
            shared.receiver.port, head(target, "Content-Length: 99") + body, hang_up=True
        ),
    }
    assert [answer.status for answer in answers.values()] == [401, 404, 403, 413, 400]
    query = (
        "select reason, sender, project_id, client_address, body_bytes, body_sha256"
        " from raw.refusals where project_id = any(%s) order by refusal_id"
    )
    names = [project, f"{project}-no", "by-address"]
    sha256 = hashlib.sha256(body).digest()
    expected = {
        ("token_missing", "keycrm", project, "127.0.0.1", len(body), sha256),
        ("unknown_project", "keycrm", f"{project}-no", "127.0.0.1", len(body), sha256),
        ("address_not_allowed", "pipedrive", "by-address", "127.0.0.1", len(body), sha256),
        ("body_too_large", "keycrm", project, "127.0.0.1", None, None),
        ("body_cut_short", "keycrm", project, "127.0.0.1", None, None),
    }
    until(lambda: {tuple(row.values()) for row in shared.rows(query, names)} >= expected, 5)
    assert not shared.deliveries(project)


# --- everything else that is asked of it


def test_it_says_that_it_lives_and_that_it_is_ready(shared: Shared) -> None:
    url = shared.receiver.url
    alive = requests.get(f"{url}/healthz", timeout=5)
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    ready = requests.get(f"{url}/readyz", timeout=5)
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "postgres": "up",
        "spooled": 0,
        "spooled_since": None,
    }


def test_a_slash_at_the_end_is_no_redirect_and_other_methods_are_told_which_to_use(
    shared: Shared,
) -> None:
    project = shared.project()
    for target in (f"/webhooks/keycrm/{project}/", f"/webhooks/keycrm/?project={project}"):
        url = shared.receiver.url + target
        assert post(url, target.encode(), headers={"X-Webhook-Token": TOKEN}).status_code == 200
        for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
            answer = requests.request(method, url, timeout=5, allow_redirects=False)
            assert answer.status_code == 405
            assert "POST" in answer.headers["Allow"].split(", ")
    for target in (
        "/",
        "/webhooks",
        "/webhooks/other/x",
        "//webhooks/keycrm/x",
        "/webhooks/zapier/x",
    ):
        assert post(shared.receiver.url + target, b"{}").status_code == 404
    assert len(shared.deliveries(project)) == 2


def numbers(receiver: Receiver, **labels: str) -> dict[str, float]:
    """The metrics with these labels, by their names and other labels."""
    found = {}
    for line in requests.get(f"{receiver.url}/metrics", timeout=5).text.splitlines():
        if not line.startswith("#") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def test_the_numbers_of_both_workers_add_up(shared: Shared) -> None:
    project = shared.project()
    late = datetime.now(UTC) - timedelta(seconds=30)
    bodies = [order(id=number, status_changed_at=late.isoformat()) for number in range(40)]
    bodies += [b"junk %d" % number for number in range(10)]
    received = numbers(shared.receiver, sender="keycrm")
    assert {
        answer.status_code
        for answer in at_once(50, lambda number: shared.post("keycrm", project, bodies[number]))
    } == {200}
    assert shared.post("keycrm", project, bodies[0]).status_code == 200
    wrong = {"X-Webhook-Token": "wrong"}
    assert shared.post("keycrm", project, b"", wrong).status_code == 401
    of_project = f'{{project="{project}",sender="keycrm"}}'
    stored = f'{{outcome="stored",project="{project}",sender="keycrm"}}'
    duplicate = f'{{outcome="duplicate",project="{project}",sender="keycrm"}}'
    for _ in range(8):  # whichever worker is asked
        now = numbers(shared.receiver, project=project)
        assert now == {
            f"stageline_webhook_deliveries_total{stored}": 50,
            f"stageline_webhook_deliveries_total{duplicate}": 1,
            f"stageline_webhook_unparsed_total{of_project}": 10,
        }
        since = numbers(shared.receiver, sender="keycrm")
        rose = {name: value - received.get(name, 0) for name, value in since.items()}
        assert rose['stageline_webhook_received_total{sender="keycrm"}'] == 52
        assert rose['stageline_webhook_seconds_count{sender="keycrm"}'] == 51
        assert rose['stageline_webhook_lag_seconds_count{sender="keycrm"}'] == 40
        assert rose['stageline_webhook_lag_seconds_bucket{le="60.0",sender="keycrm"}'] == 40
        assert rose['stageline_webhook_lag_seconds_bucket{le="15.0",sender="keycrm"}'] == 0
        refused = '{reason="token_wrong",sender="keycrm"}'
        assert rose[f"stageline_webhook_refused_total{refused}"] == 1
    assert numbers(shared.receiver)["stageline_webhook_postgres_up"] == 1


def test_a_worker_that_ends_is_replaced_and_its_numbers_stay(shared: Shared) -> None:
    project, (ending, staying) = shared.project(), shared.receiver.workers()
    before = numbers(shared.receiver, sender="keycrm")
    ending.terminate()
    ending.wait(10)
    until(lambda: len(shared.receiver.workers()) == 2)
    bodies = [order(id=number) for number in range(20)]
    answers = [shared.post("keycrm", project, body) for body in bodies]
    assert {answer.status_code for answer in answers} == {200}
    assert staying in shared.receiver.workers()
    name = 'stageline_webhook_received_total{sender="keycrm"}'
    assert numbers(shared.receiver, sender="keycrm")[name] == before.get(name, 0) + 20


def test_metrics_are_for_the_configured_addresses_alone(
    shared: Shared, behind_a_proxy: Receiver
) -> None:
    def status(receiver: Receiver, forwarded_for: str | None) -> int:
        headers = {} if forwarded_for is None else {"X-Forwarded-For": forwarded_for}
        return requests.get(f"{receiver.url}/metrics", headers=headers, timeout=5).status_code

    assert status(behind_a_proxy, "203.0.113.9") == 200
    assert status(behind_a_proxy, "203.0.113.9, 198.51.100.1") == 403
    assert status(behind_a_proxy, "nonsense") == 403
    assert status(behind_a_proxy, None) == 200  # not through the proxy
    assert status(shared.receiver, "198.51.100.1") == 200  # trusts no proxy


# --- the database refuses


@contextmanager
def without(shared: Shared, taken: str, given_back: str) -> Iterator[None]:
    """Runs the block between two statements of the database's owner."""
    shared.session.execute(taken)
    try:
        yield
    finally:
        shared.session.execute(given_back)


def in_the_spool(receiver: Receiver) -> int:
    return int(receiver.ready()["spooled"])


def is_over(receiver: Receiver) -> bool:
    """Whether each worker writes to the database again, and nothing waits any more."""
    said = [receiver.ready() for _ in range(8)]
    return all((each["postgres"], each["spooled"]) == ("up", 0) for each in said)


@pytest.mark.parametrize(
    ("taken", "given_back"),
    [
        (
            "revoke insert on raw.stage_events from stageline_receiver",
            "grant insert on raw.stage_events to stageline_receiver",
        ),
        (
            "alter table raw.deliveries rename to elsewhere",
            "alter table raw.elsewhere rename to deliveries",
        ),
    ],
    ids=["right", "table"],
)
def test_what_the_database_lacks_a_right_or_table_for_waits_in_the_spool(
    shared: Shared, taken: str, given_back: str
) -> None:
    project = shared.project()
    bodies = [order(id=number) for number in range(20)]
    before = datetime.now(UTC)
    with without(shared, taken, given_back):
        for body in bodies:
            assert shared.post("keycrm", project, body).status_code == 200
        after = datetime.now(UTC)
        assert in_the_spool(shared.receiver) == 20
    until(lambda: is_over(shared.receiver))
    rows = shared.deliveries(project)
    assert [row["body"] for row in rows] == bodies
    assert all(before < row["received_at"] < after < row["landed_at"] for row in rows)
    assert len(shared.events(project).stage_events) == 20


@pytest.mark.parametrize("is_spooled", [False, True], ids=["together", "spooled"])
def test_a_delivery_whose_events_are_refused_fails_alone(shared: Shared, is_spooled: bool) -> None:
    project = shared.project()
    bodies = [order(id=number) for number in range(30)]
    bodies[17] = order(id="poison")
    with without(
        shared,
        "alter table raw.stage_events add constraint no_poison check (entity_id <> 'poison')",
        "alter table raw.stage_events drop constraint no_poison",
    ):
        if is_spooled:
            with without(
                shared,
                "revoke insert on raw.deliveries from stageline_receiver",
                "grant insert on raw.deliveries to stageline_receiver",
            ):
                answers = [shared.post("keycrm", project, body) for body in bodies]
        else:
            answers = at_once(30, lambda number: shared.post("keycrm", project, bodies[number]))
        # A machine that stands still for a second has the receiver spool some of them, too.
        until(lambda: is_over(shared.receiver))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(shared.bodies(project)) == sorted(bodies)
    assert len(shared.events(project).stage_events) == 29
    (row,) = shared.rows("select * from raw.unparsed_deliveries where project_id = %s", project)
    assert str(row["delivery_id"]) == answers[17].json()["delivery_id"]
    assert "23514" in row["unparsed_reason"]


def test_sessions_that_are_cut_off_under_load_cost_nothing(shared: Shared) -> None:
    project = shared.project()
    accepted: list[bytes] = []
    ended = threading.Event()

    def keep_sending(number: int) -> None:
        with requests.Session() as session:
            for count in range(10_000):
                if ended.is_set():
                    return
                body = order(id=f"{number}-{count}")
                url = shared.receiver.url + PATHS["keycrm"].format(project)
                headers = {"X-Webhook-Token": TOKEN}
                answer = session.post(url, data=body, headers=headers, timeout=20)
                assert answer.status_code == 200
                accepted.append(body)

    threads = [threading.Thread(target=keep_sending, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(0.25)
        shared.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'stageline receiver' and datname = current_database()"
        )
    ended.set()
    for thread in threads:
        thread.join()
    until(lambda: is_over(shared.receiver))
    assert len(accepted) > 50
    assert sorted(shared.bodies(project)) == sorted(accepted)
    assert len(shared.events(project).stage_events) == len(accepted)


# --- clients without manners, and faults


def test_clients_that_say_nothing_or_never_hang_up_hold_up_nobody(shared: Shared) -> None:
    port = shared.receiver.port
    silent = [send_nothing(port) for _ in range(50)]
    staying = [send_nothing(port) for _ in range(20)]
    for connection in staying:
        connection.sendall(head("/healthz", "Connection: close", method="GET"))
    for connection in staying:
        assert read(connection).status == 200
    for _ in range(8):
        assert send(port, head("/healthz", method="GET")).seconds < 0.5
    for connection in (*silent, *staying):
        connection.close()


@pytest.mark.parametrize(
    "lines",
    [
        ["SCRIPT_NAME: /elsewhere"],
        ["PATH_INFO: /elsewhere"],
        ["REMOTE_ADDR: 203.0.113.7", "REMOTE-ADDR: 203.0.113.7"],
        ["X-Forwarded-Proto: https", "X-Forwarded-SSL: off"],
        ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        ["Expect: 100-continue"],
    ],
    ids=lambda lines: lines[0],
)
def test_headers_that_mean_something_to_servers_change_nothing(
    shared: Shared, lines: list[str]
) -> None:
    project, auth = shared.project(), f"X-Webhook-Token: {TOKEN}"
    request = whole(f"/webhooks/keycrm/{project}", ORDER, auth, *lines)
    assert send(shared.receiver.port, request).status == 200
    assert shared.bodies(project) == [ORDER]


class BrokenAccounts(Accounts):
    """Accounts with a defect."""

    @property
    def are_known(self) -> bool:
        raise RuntimeError(f"words about {MARKER}")


def test_a_fault_of_our_own_asks_to_send_again_and_logs_none_of_its_words(tmp_path: Path) -> None:
    log()  # is configured by its first use
    spool = Spool(tmp_path / "spool.sqlite", 2**20)
    app = create_app(Landing(spool), BrokenAccounts(spool), spool, Refusals())
    with structlog.testing.capture_logs() as lines:
        answer = app.test_client().post("/webhooks/keycrm/shop", data=MARKER)
    spool.close()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    (line,) = lines
    assert (line["event"], line["error"]) == ("request failed", "RuntimeError")
    assert "are_known" in line["at"][-1]
    assert MARKER not in str(lines) + answer.text


# --- stopping


def test_what_was_acknowledged_by_a_receiver_that_is_stopped_is_there(
    shared: Shared, tmp_path: Path
) -> None:
    project = shared.project()
    accepted: list[bytes] = []
    other: list[int] = []

    with running_receiver(tmp_path) as receiver:
        url = receiver.url + PATHS["keycrm"].format(project)

        def keep_sending(number: int) -> None:
            with requests.Session() as session:
                for count in range(10_000):
                    body = order(id=f"{number}-{count}")
                    headers = {"X-Webhook-Token": TOKEN}
                    try:
                        answer = session.post(url, data=body, headers=headers, timeout=20)
                    except requests.ConnectionError:
                        return  # it has stopped
                    if answer.status_code == 200:
                        accepted.append(body)
                    else:
                        other.append(answer.status_code)

        threads = [threading.Thread(target=keep_sending, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        workers = receiver.workers()
        with_nothing_to_say = send_nothing(receiver.port)
        deadline = time.monotonic() + 20
        while len(accepted) <= 50:
            assert time.monotonic() < deadline, f"only {len(accepted)} were accepted"
            time.sleep(0.01)
        stopped = time.monotonic()
        receiver.process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(workers, timeout=15)
        assert not alive
        assert time.monotonic() - stopped < 8
        for thread in threads:
            thread.join()
        with_nothing_to_say.close()
    assert not other
    assert set(accepted) <= set(shared.bodies(project))
    assert len(shared.bodies(project)) == len(set(shared.bodies(project)))
    assert len(shared.events(project).stage_events) == len(shared.bodies(project))
    assert all("rror" not in line["event"] for line in receiver.lines())


# --- what is logged; the last test, because it reads what all others made the receivers log


def test_no_log_holds_anything_that_was_sent(shared: Shared, behind_a_proxy: Receiver) -> None:
    project = shared.project()
    target = f"/webhooks/keycrm/{project}"
    person = {"full_name": MARKER, "email": f"{MARKER}@example.test", "phone": f"+38050{MARKER}"}
    auth = f"X-Webhook-Token: {TOKEN}"
    landed = [
        whole(target, order(buyer=person, manager_comment=MARKER), auth),
        whole(target, order(id=MARKER, status_changed_at=MARKER), auth),
        whole(target, b'{"event": "order.%s 1", "context": 1}' % MARKER.encode(), auth),
        whole(target, MARKER.encode(), auth, f"Content-Type: {MARKER}", f"Cookie: {MARKER}"),
        whole(target, f"{MARKER} ".encode(), auth, f"Content-Encoding: {MARKER}"),
        whole(target, b"\xff" + MARKER.encode(), auth, f"User-Agent: {MARKER}"),
        whole(target, b"0", auth, f"webhook-id: {MARKER}", f"X-Forwarded-For: {MARKER}"),
    ]
    refused = [
        whole(target, MARKER.encode(), f"X-Webhook-Token: {MARKER}"),
        whole(f"{target}?token={MARKER}", MARKER.encode()),
        whole(f"{target}?a={MARKER}", b"", f"Authorization: Basic {MARKER}"),
        whole("/webhooks/hubspot/portal", b"", f"X-HubSpot-Signature-v3: {MARKER}"),
        whole(f"/webhooks/keycrm?secret={MARKER}", b""),
        whole(f"/elsewhere?secret={MARKER}", b""),
        whole(f"{target}?token={MARKER}", b"", method="PUT"),
        whole(f"{target}?token={MARKER}", b"", method="wrong"),
        head(f"{target}?token={MARKER}", version="7"),
        head(f"{target}?token={MARKER} {MARKER}"),
        head(f"{target}?token={MARKER}" + "a" * 5000),
        head(target, MARKER),
        head(target, f"{MARKER} : 1"),
        head(target, f"X-A: {MARKER}\0"),
        head(target, f"X-A: {MARKER}", f"  {MARKER}"),
        head(target, f"X-A: {MARKER}" + "a" * 9000),
        head(target, f"Expect: {MARKER}"),
        head(target, f"Transfer-Encoding: {MARKER}"),
        head(target, f"Content-Length: {MARKER}"),
        head(target, auth, "Content-Length: 50") + MARKER.encode(),
        head(target, auth, "Transfer-Encoding: chunked") + MARKER.encode() + b"\r\n\r\n",
        head(target, auth, "Transfer-Encoding: chunked") + b"0\r\n%s\r\n\r\n" % MARKER.encode(),
        head(target, auth, "Transfer-Encoding: chunked") + chunks(MARKER.encode() * 200_000),
        MARKER.encode() + b"\r\n\r\n",
    ]
    for request in landed:
        assert send(shared.receiver.port, request).status == 200
    for request in refused:
        assert 400 <= send(shared.receiver.port, request, hang_up=True).status < 500
    with without(
        shared,
        "alter table raw.stage_events add constraint no_marker check (entity_id !~ 'marker')",
        "alter table raw.stage_events drop constraint no_marker",
    ):
        assert shared.post("keycrm", project, order(id=MARKER)).status_code == 200
    rows = shared.deliveries(project)
    assert len(rows) == len(landed) + 1
    for row in rows:
        shared.await_outcomes(str(row["delivery_id"]), "stored")
    for receiver in (shared.receiver, behind_a_proxy):
        lines = receiver.lines()  # each of them is JSON
        assert len(lines) > 10
        written = receiver.logs.read_text()
        password = LOGIN.partition(":")[2]
        for secret in (TOKEN, OLD_TOKEN, NEW_TOKEN, password, SIGNING_SECRET, CLIENT_SECRET):
            assert secret not in written
        assert MARKER not in written
        assert "example.test" not in written.replace(PUBLIC_URL, "")
