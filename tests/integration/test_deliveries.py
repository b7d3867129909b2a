"""`stageline deliveries` and `replay`: what was taken, what was not read, and reading it again."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result

from stageline.cli import main
from stageline.database import connect
from stageline.settings import projects
from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.events import Parsed
from webhook_receiver.raw_tables import insert
from webhook_receiver.refusals import Refusals
from webhook_receiver.session import connected

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
def project(database: object) -> None:  # noqa: ARG001 - it has to be there
    projects.add("keycrm", "shop")
    projects.add("pipedrive", "sales")


def order(number: int, status: int = 20) -> bytes:
    return json.dumps(
        {
            "event": "order.change_order_status",
            "context": {
                "id": number,
                "status_id": status,
                "status_group_id": 2,
                "status_changed_at": "2026-02-11T08:30:05.000000Z",
                "created_at": "2026-02-10T19:02:11.000000Z",
            },
        }
    ).encode()


def delivered(body: bytes, sender: str = "keycrm", project_id: str = "shop") -> ReadDelivery:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    return read(Delivery(sender, project_id, at, (1,), {}, body, "UTC"))


def land(*deliveries: ReadDelivery) -> None:
    with connected() as session:
        insert(session, deliveries)


def as_an_older_version_read_it(found: ReadDelivery) -> ReadDelivery:
    return replace(found, parsed=Parsed(unparsed_reason="unknown event type order.change_it"))


def stageline(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def stage_events() -> list[tuple[object, ...]]:
    with connect("transformer") as session:
        return session.execute(
            "select entity_id, stage_id, delivery_id from raw.stage_events order by 1, 2"
        ).fetchall()


def test_nothing_was_taken() -> None:
    assert stageline("deliveries").output == "None.\n"
    assert stageline("replay").output == "Nothing to replay.\n"


def test_what_an_older_version_could_not_read_is_read_after_the_fix() -> None:
    found = delivered(order(7))
    land(as_an_older_version_read_it(found), delivered(order(8)))
    assert [row[0] for row in stage_events()] == ["8"]
    listed = stageline("deliveries", "--unparsed").output
    assert str(found.delivery_id) in listed
    assert "unknown event type order.change_it" in listed
    assert "1 in all." in listed

    assert stageline("replay", "--dry-run").output == "Would be read again: 1.\n"
    done = stageline("replay")
    assert "Read again: 1. New stage events: 1. Still not read whole: 0." in done.output
    assert stage_events()[0] == ("7", "20", found.delivery_id)
    assert stageline("deliveries", "--unparsed").output == "None.\n"
    assert stageline("replay").output == "Nothing to replay.\n"


def test_what_cannot_be_read_stays_listed() -> None:
    land(delivered(b"\x00 not json"))
    assert "New stage events: 0. Still not read whole: 1." in stageline("replay").output
    assert "1 in all." in stageline("deliveries", "--unparsed").output


def test_a_replay_of_all_changes_nothing() -> None:
    land(*(delivered(order(number)) for number in range(70)))
    before = stage_events()
    done = stageline("replay", "--all", "--sender", "keycrm")
    assert "Read again: 70. New stage events: 0. Still not read whole: 0." in done.output
    assert stage_events() == before


def test_a_delivery_keeps_its_id_when_more_of_it_can_be_read() -> None:
    body = b'{"v": 1, "meta": {"webhook_id": "3", "object": "deal", "id": 5, "action": "updated"}}'
    found = delivered(body, "pipedrive", "sales")
    other = replace(found, delivery_id=delivered(b"x").delivery_id, parsed=Parsed())
    land(other)
    assert stageline("replay", str(other.delivery_id)).exit_code == 0
    with connect("jobs") as session:
        replays = session.execute("select delivery_id from raw.replays").fetchall()
    assert replays == [(other.delivery_id,)]


def test_a_choice_that_finds_nothing_says_so() -> None:
    land(delivered(order(1)))
    unknown = "00000000-0000-8000-8000-000000000000"
    refused = stageline("replay", unknown)
    assert refused.exit_code == 1
    assert "1 of these deliveries are not there" in refused.output
    assert stageline("replay", "--all", "--project", "other").output == "Nothing to replay.\n"
    assert stageline("replay", "--all", "--until", "2026-03-01").output == "Nothing to replay.\n"
    assert "is no instant" in stageline("replay", "--since", "yesterday").output
    assert "There is no delivery" in stageline("deliveries", "--body", unknown).output


def test_a_body_is_written_as_it_came() -> None:
    body = b'\xff\xfe{"a": \x00"\xd0\xb0"}'
    found = delivered(body)
    land(found)
    assert stageline("deliveries", "--body", str(found.delivery_id)).stdout_bytes == body


def test_a_list_that_is_cut_says_so() -> None:
    land(*(delivered(order(number)) for number in range(3)))
    shown = stageline("deliveries", "--limit", "2").output
    assert "The newest 2 of 3; more with --limit." in shown
    assert shown.count("keycrm") == 2


def test_two_contents_under_one_id_are_listed() -> None:
    for amount in (1, 2):
        body = json.dumps({"deal_id": amount, "stage_id": 3}).encode()
        at = datetime(2026, 3, 1, tzinfo=UTC)
        land(read(Delivery("zapier", "sales", at, (), {"webhook-id": "msg-1"}, body, "UTC")))
    shown = stageline("deliveries", "--conflicts").output
    assert shown.count("msg-1") == 2


def test_refusals_are_listed_without_what_was_said() -> None:
    refusals = Refusals()
    refusals.note("token_wrong", "keycrm", "shop", "203.0.113.9", b"secret words")
    with connected() as session:
        refusals.write(session)
    shown = stageline("deliveries", "--refused", "--project", "shop").output
    assert "token_wrong" in shown
    assert "203.0.113.9" in shown
    assert "secret" not in shown


def test_status_tells_what_was_received_and_what_needs_a_person() -> None:
    assert "Received" not in stageline("status").output
    land(delivered(order(1)), delivered(order(2)), delivered(b"not json"))
    shown = stageline("status").output
    assert "keycrm/shop           3 deliveries, last 2026-03-01 12:00 UTC" in shown
    assert "1 not read whole" in shown
