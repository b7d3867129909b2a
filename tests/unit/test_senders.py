"""What is read of the bodies that senders post: recorded ones exactly, any bytes without fail."""

import copy
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import RFC_4122
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook_receiver.bodies import MOST_UNPACKED
from webhook_receiver.events import LifecycleEvent, Parsed, StageEvent, ValueChange
from webhook_receiver.senders import SENDERS, delivery_id

RECORDED = {path.name: path.read_bytes() for path in (Path(__file__).parent / "senders").iterdir()}
NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
KYIV = ZoneInfo("Europe/Kyiv")


def read(sender: str, body: Any, *, now: datetime = NOW, **headers: str) -> Parsed:
    """What ``sender`` reads of ``body``: bytes, or what is written as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SENDERS[sender].parse(sent, named, now, KYIV)


def recorded(name: str) -> Any:
    return json.loads(RECORDED[f"{name}.json"])


def utc(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


def order(**changes: Any) -> dict[str, Any]:
    """The recorded change of an order's status, with other values; `...` takes a field away."""
    body: dict[str, Any] = recorded("keycrm_order_status")
    return body | {"context": changed(body["context"], changes)}


def deal(part: str, **changes: Any) -> dict[str, Any]:
    """The recorded change of a deal (version 2), with other values in ``part``."""
    body: dict[str, Any] = recorded("pipedrive_v2_change")
    return body | {part: changed(body[part], changes)}


def changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (fields | changes).items() if value is not ...}


def happened(kind: str, **more: Any) -> dict[str, Any]:
    """An event of HubSpot about the deal 7."""
    event = {"subscriptionType": kind, "objectId": 7, "occurredAt": 1772615560123}
    return changed(event, more)


STAGE_4 = StageEvent(
    "deal", "55", "1", "4", None, None, utc("2026-03-01 07:00:02"), utc("2026-03-01 07:00:02")
)
STAGE_5 = StageEvent(
    "deal", "55", "1", "5", None, "4", utc("2026-03-04 09:12:40"), utc("2026-03-01 07:00:02")
)
CREATED = LifecycleEvent("deal", "55", "created", utc("2026-03-01 07:00:02"), None)
FINAL = StageEvent("deal", "55", "1", "9", None, None, utc("2026-03-04 09:12:40"), None)
ID_V1 = "3001:deal:55"

EXPECTED = {
    "keycrm_order_status.json": Parsed(
        None,
        "order",
        ("4021",),
        (
            StageEvent(
                "order",
                "4021",
                None,
                "20",
                "2",
                None,
                utc("2026-02-11 08:30:05"),
                utc("2026-02-10 19:02:11"),
            ),
        ),
    ),
    "keycrm_payment_status.json": Parsed(
        None,
        "order",
        ("4021",),
        value_changes=(
            ValueChange("order", "4021", "payment_status", None, "paid", utc("2026-02-11 10:00")),
        ),
    ),
    "keycrm_lead_status.json": Parsed(
        None,
        "lead",
        ("77",),
        (
            StageEvent(
                "lead",
                "77",
                "4",
                "31",
                None,
                None,
                utc("2026-02-11 08:30:05"),
                utc("2026-02-10 19:02:11"),
            ),
        ),
    ),
    "keycrm_stock.json": Parsed(),
    "pipedrive_v2_create.json": Parsed(
        "3001:11111111-9999-4888-8777-666655554444",
        "deal",
        ("55",),
        (STAGE_4,),
        lifecycle_events=(CREATED,),
    ),
    "pipedrive_v2_change.json": Parsed(
        "3001:c6d0f4aa-9999-4888-8777-666655554444", "deal", ("55",), (STAGE_5,)
    ),
    "pipedrive_v2_values.json": Parsed(
        "3001:44444444-9999-4888-8777-666655554444",
        "deal",
        ("55",),
        value_changes=tuple(
            ValueChange("deal", "55", field, old, new, utc("2026-03-04 09:12:40"))
            for field, old, new in (
                ("amount", "1200", "1500.5"),
                ("currency", "UAH", "EUR"),
                ("probability", None, "40"),
                ("expected_close_date", None, "2026-04-30"),
                ("owner", "71", "72"),
                ("status", "open", "won"),
            )
        ),
    ),
    "pipedrive_v2_delete.json": Parsed(
        "3001:22222222-9999-4888-8777-666655554444",
        "deal",
        ("55",),
        lifecycle_events=(LifecycleEvent("deal", "55", "deleted", utc("2026-03-05 08:00"), None),),
    ),
    "pipedrive_v2_merge.json": Parsed(
        "3001:33333333-9999-4888-8777-666655554444",
        "deal",
        ("55", "56"),
        lifecycle_events=(LifecycleEvent("deal", "55", "merged", utc("2026-03-05 08:00"), "56"),),
    ),
    "pipedrive_v1_added.json": Parsed(
        f"{ID_V1}:added:1772348402900000",
        "deal",
        ("55",),
        (STAGE_4,),
        lifecycle_events=(CREATED,),
    ),
    "pipedrive_v1_updated.json": Parsed(
        f"{ID_V1}:updated:1772615560123456",
        "deal",
        ("55",),
        (STAGE_5._replace(pipeline_id=None, entity_created_at=None),),
    ),
    "pipedrive_v1_values.json": Parsed(
        f"{ID_V1}:updated:1772615561000000",
        "deal",
        ("55",),
        value_changes=(
            ValueChange("deal", "55", "amount", "1200", "1300", utc("2026-03-04 09:12:41")),
            ValueChange("deal", "55", "owner", "71", "72", utc("2026-03-04 09:12:41")),
        ),
    ),
    "pipedrive_v1_deleted.json": Parsed(
        f"{ID_V1}:deleted:1772697600000000",
        "deal",
        ("55",),
        lifecycle_events=(LifecycleEvent("deal", "55", "deleted", utc("2026-03-05 08:00"), None),),
    ),
    "zapier_final_stage.json": Parsed(None, "deal", ("55",), (FINAL,)),
    "zapier_final_stage.form": Parsed(None, "deal", ("55",), (FINAL,)),
    "hubspot_events.json": Parsed(
        None,
        "deal",
        ("9001", "9002", "9003", "9005", "9006", "9010", "9007", "9008"),
        tuple(
            StageEvent(kind, id_, None, stage, None, None, utc(f"2026-03-04 09:12:40.{ms}"), None)
            for kind, id_, stage, ms in (
                ("deal", "9001", "contractsent", "124"),
                ("ticket", "501", "2", "137"),
                ("deal", "9007", "closedwon", "138"),
                ("deal", "9008", "closedlost", "140"),
            )
        ),
        tuple(
            ValueChange("deal", "9001", field, None, new, utc(f"2026-03-04 09:12:40.{ms}"))
            for field, new, ms in (
                ("amount", "12000.50", "126"),
                ("expected_close_date", "1774915200000", "127"),
                ("owner", None, "128"),
                ("probability", "0.9", "129"),
                ("currency", "EUR", "130"),
            )
        ),
        tuple(
            LifecycleEvent("deal", id_, event, utc(f"2026-03-04 09:12:40.{ms}"), into)
            for id_, event, ms, into in (
                ("9002", "created", "131", None),
                ("9003", "deleted", "132", None),
                ("9003", "restored", "133", None),
                ("9005", "merged", "134", "9010"),
                ("9006", "merged", "134", "9010"),
            )
        ),
    ),
}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recorded_body_is_read_exactly(name: str) -> None:
    assert read(name.partition("_")[0], RECORDED[name]) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_body_in_another_encoding_says_the_same(name: str) -> None:
    sender = name.partition("_")[0]
    assert read(sender, gzip.compress(RECORDED[name]), content_encoding="GZIP") == EXPECTED[name]
    if name.endswith(".json"):
        written = RECORDED[name].decode()
        for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
            assert read(sender, written.encode(encoding)) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_the_header_with_the_delivery_id_wins(name: str) -> None:
    sender = name.partition("_")[0]
    assert read(sender, RECORDED[name], webhook_id="msg_1").sender_delivery_id == "msg_1"
    unfit = read(sender, RECORDED[name], webhook_id="a\0b")
    assert unfit.sender_delivery_id is None
    assert unfit.unparsed_reason is None


# Bodies that hold nothing to read (the inputs 23 to 35 of spec reliability F).
@pytest.mark.parametrize("sender", sorted(SENDERS))
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b"hello", "the body is not JSON"),
        (b'{"a": 1', "the body is not JSON"),
        (b'{"a": 1} x', "the body is not JSON"),
        (b"<deal><id>7</id></deal>", "the body is not JSON"),
        (b"\xff\xfe\xfd\xfc\xfb", "the body is not text"),
        ('{"a": "ї"}'.encode("cp1251"), "the body is not text"),
        (b'{"a": "\xed\xa0\x80"}', "the body is not text"),
        (b'{"a": NaN}', "NaN or Infinity"),
        (b"[-Infinity]", "NaN or Infinity"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested too deep"),
        (b"[" + b"9" * 5_000 + b"]", "a number that is too long"),
        (b"[1e99999999999999999999]", "a number that is too long"),
        (b"42", "is not an object"),
        (b"null", "is not an object"),
        (b'"text"', "is not an object"),
        (b"[42]", "is not an object"),
        (b"[]", "is not an object|an empty list"),
        (b"{}", "missing|not an object|unknown event type"),
    ],
)
def test_a_body_that_holds_nothing_is_kept_with_the_reason(
    sender: str, body: bytes, reason: str
) -> None:
    parsed = read(sender, body)
    assert parsed == Parsed(unparsed_reason=parsed.unparsed_reason)
    assert parsed.unparsed_reason is not None
    assert any(words in parsed.unparsed_reason for words in reason.split("|"))


@pytest.mark.parametrize("sender", sorted(SENDERS))
@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(b"0" * (MOST_UNPACKED + 1)), "gzip", "unpacks to more than 8388608 bytes"),
        (gzip.compress(b"{}")[:-4], "gzip", "cut off"),
        (gzip.compress(b"{}") + b"x", "gzip", "goes on after its gzip"),
        (b"{}", "gzip", "not gzip"),
        (b"", "gzip", "is empty"),
        (b"{}", "br", "content encoding is not known"),
        (b"{}", "gzip, gzip", "content encoding is not known"),
    ],
    ids=["bomb", "cut", "longer", "plain", "empty", "unknown", "twice"],
)
def test_a_packed_body_that_cannot_be_unpacked_is_kept_with_the_reason(
    sender: str, body: bytes, encoding: str, reason: str
) -> None:
    parsed = read(sender, body, content_encoding=encoding)
    assert parsed == Parsed(unparsed_reason=parsed.unparsed_reason)
    assert reason in str(parsed.unparsed_reason)


def test_what_is_not_used_may_hold_anything() -> None:
    for odd in ("\0", "\ud800", "x" * 10_000, 10**4000, [[[]]], {"a": None}):
        assert read("keycrm", order(manager_comment=odd)) == EXPECTED["keycrm_order_status.json"]
        assert read("pipedrive", deal("data", title=odd)) == EXPECTED["pipedrive_v2_change.json"]
    pasted = RECORDED["keycrm_order_status.json"].replace(b"call back", b"call\nback\t")
    assert read("keycrm", pasted) == EXPECTED["keycrm_order_status.json"]


def test_the_last_of_two_equal_keys_counts() -> None:
    body = RECORDED["zapier_final_stage.json"].replace(b'"55"', b'"54", "deal_id": "55"')
    assert read("zapier", body) == EXPECTED["zapier_final_stage.json"]


def test_numbers_are_read_exactly() -> None:
    body = RECORDED["pipedrive_v2_values.json"].replace(b"1500.5", b"12345678901234567890.12345678")
    assert read("pipedrive", body).value_changes[0].new_value == "12345678901234567890.12345678"


# --- KeyCRM


def test_an_order_that_never_moved_entered_its_status_when_it_was_created() -> None:
    (event,) = read("keycrm", order(status_changed_at=None)).stage_events
    assert event.entered_at == event.entity_created_at == utc("2026-02-10 19:02:11")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status_changed_at": ...}, "context.status_changed_at is missing"),
        ({"status_changed_at": ""}, "context.status_changed_at is empty"),
        ({"status_changed_at": "03/04/2026"}, "context.status_changed_at is in no form of time"),
        ({"status_changed_at": "9999-12-31 00:00:00"}, "context.status_changed_at lies outside"),
        ({"status_changed_at": None, "created_at": None}, "context.created_at is empty"),
        ({"status_id": None}, "context.status_id is empty"),
        ({"status_id": [20]}, "context.status_id is a list"),
        ({"status_id": "20\0"}, "context.status_id holds characters"),
    ],
)
def test_an_order_whose_move_cannot_be_read_is_still_asked_for(
    changes: dict[str, Any], reason: str
) -> None:
    parsed = read("keycrm", order(**changes))
    assert parsed == Parsed(None, "order", ("4021",), unparsed_reason=parsed.unparsed_reason)
    assert str(parsed.unparsed_reason).startswith(reason)


@pytest.mark.parametrize(
    ("changes", "kept", "reason"),
    [
        (
            {"status_group_id": {}},
            {"stage_group_id": None},
            "context.status_group_id is a list or an object, not an id",
        ),
        (
            {"created_at": True},
            {"entity_created_at": None},
            "context.created_at is true or false, not a time",
        ),
    ],
)
def test_a_move_is_kept_without_what_cannot_be_read_of_it(
    changes: dict[str, Any], kept: dict[str, None], reason: str
) -> None:
    whole = EXPECTED["keycrm_order_status.json"].stage_events[0]
    parsed = read("keycrm", order(**changes))
    assert parsed.stage_events == (whole._replace(**kept),)
    assert parsed.unparsed_reason == reason


def test_a_deleted_order_is_known_from_any_event() -> None:
    deleted = LifecycleEvent("order", "4021", "deleted", utc("2026-02-12 10:00"), None)
    moved = read("keycrm", order(deleted_at="2026-02-12T10:00:00.000000Z"))
    assert moved.lifecycle_events == (deleted,)
    assert moved.stage_events == EXPECTED["keycrm_order_status.json"].stage_events
    other = read("keycrm", order(deleted_at="2026-02-12 10:00:00") | {"event": "order.removed"})
    assert other.lifecycle_events == (deleted,)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("order.created", "unknown event type order.created"),
        ("order.Замовлення", "unknown event type"),
        ("order." + "x" * 100, "unknown event type"),
    ],
)
def test_an_unknown_event_of_an_order_is_told_and_the_order_asked_for(
    event: str, reason: str
) -> None:
    assert read("keycrm", order() | {"event": event}) == Parsed(
        None, "order", ("4021",), unparsed_reason=reason
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"event": "stock.reserved", "context": {}}, "unknown event type stock.reserved"),
        ({"event": ["order"], "context": {}}, "unknown event type"),
        ({"event": "order.change_order_status"}, "context is not an object"),
        ({"event": "order.change_order_status", "context": []}, "context is not an object"),
        (order(id=None), "context.id is empty"),
        (order(id=...), "context.id is missing"),
        (order(id=True), "context.id is true or false, not an id"),
        ([{"offer_id": 1}, 2], "the body is not an object"),
    ],
)
def test_a_keycrm_body_that_names_no_order_is_kept_with_the_reason(body: Any, reason: str) -> None:
    assert read("keycrm", body) == Parsed(unparsed_reason=reason)


def test_a_card_without_its_own_time_of_the_move_moved_when_it_was_updated() -> None:
    body = recorded("keycrm_lead_status")
    body["context"] |= {"status_changed_at": None, "pipeline_id": 3}
    (event,) = read("keycrm", body).stage_events
    assert event.entered_at == utc("2026-02-11 08:31:00")
    assert event.pipeline_id == "3"


# --- Pipedrive


def test_the_stage_changed_if_previous_names_it_whatever_it_names() -> None:
    (event,) = read("pipedrive", deal("previous", stage_id=None)).stage_events
    assert event == STAGE_5._replace(previous_stage_id=None)
    (event,) = read("pipedrive", deal("previous", stage_id=5)).stage_events
    assert event == STAGE_5._replace(previous_stage_id="5")
    assert not read("pipedrive", deal("previous", stage_id=...)).stage_events


@pytest.mark.parametrize("timestamp", ["2026-03-04T09:12:41.120Z", 1772615561.12, "1772615561120"])
def test_what_has_no_time_of_its_own_happened_when_it_was_told(timestamp: Any) -> None:
    body = deal("data", stage_change_time=None, update_time=None)
    body["meta"]["timestamp"] = timestamp
    body["previous"]["value"] = 1000
    parsed = read("pipedrive", body)
    told = utc("2026-03-04 09:12:41.120")
    assert parsed.stage_events == (STAGE_5._replace(entered_at=told),)
    assert parsed.value_changes == (ValueChange("deal", "55", "amount", "1000", "1200", told),)


def test_a_time_that_cannot_be_read_is_not_replaced_by_another() -> None:
    parsed = read("pipedrive", deal("data", stage_change_time="today"))
    assert parsed.stage_events == ()
    assert parsed.entity_ids == ("55",)
    assert str(parsed.unparsed_reason).startswith("data.stage_change_time is in no form of time")


def test_values_that_can_be_read_are_kept_beside_those_that_cannot() -> None:
    body = recorded("pipedrive_v2_values")
    body["data"]["value"] = {"amount": 1500}
    del body["data"]["currency"]
    parsed = read("pipedrive", body)
    expected = EXPECTED["pipedrive_v2_values.json"].value_changes
    assert parsed.value_changes == expected[2:]
    assert parsed.unparsed_reason == (
        "data.value is a list or an object, not a value; data.currency is missing"
    )


def test_in_version_1_a_stage_that_is_the_same_is_no_move() -> None:
    body = recorded("pipedrive_v1_updated")
    body["previous"]["stage_id"] = "5"
    assert read("pipedrive", body).stage_events == ()
    del body["previous"]["stage_id"]
    assert read("pipedrive", body).stage_events == ()


def test_the_survivor_of_a_merge_says_nothing_of_the_other_deal() -> None:
    body = deal("meta", merged_from_id="54")
    assert read("pipedrive", body) == EXPECTED["pipedrive_v2_change.json"]


def test_a_merge_into_what_cannot_be_read_is_no_deletion() -> None:
    body = recorded("pipedrive_v2_merge")
    body["meta"]["merged_to_id"] = [56]
    parsed = read("pipedrive", body)
    assert parsed.lifecycle_events == ()
    assert parsed.unparsed_reason == "meta.merged_to_id is a list or an object, not an id"


@pytest.mark.parametrize("entity", ["person", "organization", "activity", "deal_product", "stage"])
def test_other_objects_of_pipedrive_are_read_and_say_nothing(entity: str) -> None:
    parsed = read("pipedrive", deal("meta", entity=entity))
    assert parsed == Parsed("3001:c6d0f4aa-9999-4888-8777-666655554444")


@pytest.mark.parametrize(
    ("meta", "ids", "reason"),
    [
        ({"entity": "invoice"}, (), "unknown event type invoice.change"),
        ({"entity": {}}, (), "unknown event type"),
        ({"action": "archive"}, ("55",), "unknown event type deal.archive"),
        ({"entity_id": None}, (), "meta.entity_id is empty"),
        ({"version": "3.0"}, (), "neither is meta.version 2.0 nor v 1"),
        ({"version": 2}, (), "neither is meta.version 2.0 nor v 1"),
    ],
)
def test_a_pipedrive_body_of_unknown_kind_is_kept_with_the_reason(
    meta: dict[str, Any], ids: tuple[str, ...], reason: str
) -> None:
    parsed = read("pipedrive", deal("meta", **meta))
    assert parsed.entity_ids == ids
    assert parsed.stage_events == ()
    assert parsed.unparsed_reason == reason


@pytest.mark.parametrize("part", ["data", "previous"])
@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_a_change_without_one_of_its_states_is_kept_with_the_reason(part: str, value: Any) -> None:
    parsed = read("pipedrive", recorded("pipedrive_v2_change") | {part: value})
    assert parsed.entity_ids == ("55",)
    assert parsed.unparsed_reason == f"{part} is not an object"


def test_a_delivery_without_part_of_its_id_has_none() -> None:
    for odd in (None, "", [], "\0"):
        assert read("pipedrive", deal("meta", webhook_id=odd)).sender_delivery_id is None
    assert read("pipedrive", deal("meta", id="x" * 199)).sender_delivery_id is None


# --- Zapier


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "text/plain", "", "application/xml"]
)
@pytest.mark.parametrize("name", ["zapier_final_stage.json", "zapier_final_stage.form"])
def test_a_zap_is_read_whatever_its_content_type_says(name: str, content_type: str) -> None:
    assert read("zapier", RECORDED[name], content_type=content_type) == EXPECTED[name]


def test_a_local_time_of_a_zap_is_meant_in_the_zone_of_its_project() -> None:
    body = recorded("zapier_final_stage")
    for written in ("2026-03-04 11:12:40", "2026-03-04T11:12:40", 1772615560, "1772615560000"):
        assert read("zapier", body | {"event_datetime": written}).stage_events == (FINAL,)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stage_id": ...}, "stage_id is missing"),
        ({"stage_id": ""}, "stage_id is empty"),
        ({"event_datetime": ...}, "event_datetime is missing"),
        ({"event_datetime": "2026-03-04"}, "event_datetime is a date without a time of day"),
        ({"event_datetime": "2026-03-29 03:30"}, "event_datetime did not exist in the project's"),
        ({"event_datetime": "2025-10-26 03:30"}, "event_datetime occurred twice in the project's"),
        ({"event_datetime": "04.03.2026 11:12"}, "event_datetime is in no form of time"),
        ({"event_datetime": "2026-04-02T12:00:01Z"}, "event_datetime lies more than a day after"),
    ],
)
def test_the_deal_of_a_zap_is_asked_for_whatever_else_cannot_be_read(
    changes: dict[str, Any], reason: str
) -> None:
    parsed = read("zapier", changed(recorded("zapier_final_stage"), changes))
    assert parsed == Parsed(None, "deal", ("55",), unparsed_reason=parsed.unparsed_reason)
    assert str(parsed.unparsed_reason).startswith(reason)


def test_a_zap_need_not_name_the_pipeline() -> None:
    body = changed(recorded("zapier_final_stage"), {"pipeline_id": ..., "raw": ...})
    assert read("zapier", body).stage_events == (FINAL._replace(pipeline_id=None),)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"deal=55&stage_id=9", "deal_id is missing"),
        (b"deal_id=&stage_id=9", "deal_id is empty"),
        (b"deal_id=%00&stage_id=9", "deal_id holds characters that cannot be printed"),
        (b"deal_id=%FF&stage_id=9", "deal_id holds characters that cannot be printed"),
        (b"a=1&" * 2_000, "the body is a form with more than 1000 fields"),
        ([{"deal_id": 55}], "the body is not an object"),
    ],
)
def test_a_zap_that_names_no_deal_is_kept_with_the_reason(body: Any, reason: str) -> None:
    assert read("zapier", body) == Parsed(unparsed_reason=reason)


def test_what_is_no_text_in_a_form_does_not_hide_the_rest() -> None:
    body = RECORDED["zapier_final_stage.form"] + b"&raw=%FF\xff"
    assert read("zapier", body) == EXPECTED["zapier_final_stage.form"]


# --- HubSpot


def test_one_event_of_hubspot_may_come_without_its_list() -> None:
    event = happened("deal.propertyChange", propertyName="dealstage", propertyValue="won")
    assert read("hubspot", event) == read("hubspot", [event])
    assert len(read("hubspot", event).stage_events) == 1


def test_what_can_be_read_of_a_list_is_kept_and_the_rest_told_once() -> None:
    moved = happened("deal.propertyChange", propertyName="dealstage", propertyValue="won")
    body = [
        moved | {"occurredAt": None},
        moved,
        moved | {"occurredAt": None, "objectId": 8},
        42,
        happened("deal.teleported"),
    ]
    parsed = read("hubspot", body)
    assert len(parsed.stage_events) == 1
    assert parsed.entity_ids == ("7", "8")
    assert parsed.unparsed_reason == (
        "4 of 5 events: event.occurredAt is empty; event is not an object;"
        " unknown event type deal.teleported"
    )


def test_many_reasons_are_cut_short() -> None:
    body = [happened(f"deal.{'x' * count}") for count in range(1, 9)]
    reason = str(read("hubspot", body).unparsed_reason)
    assert reason.startswith("8 of 8 events: unknown event type deal.x; ")
    assert reason.endswith("deal.xxxxx; and more")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (happened("deal.propertyChange", objectId=...), "event.objectId is missing"),
        (happened("deal.creation", objectId=""), "event.objectId is empty"),
        (happened("object.propertyChange"), "unknown event type object.propertyChange"),
        (happened("spaceship.creation"), "unknown event type spaceship.creation"),
        (happened(""), "unknown event type"),
        (happened("deal.merge", primaryObjectId=7), "event.mergedObjectIds is not a list"),
        (
            happened("deal.propertyChange", propertyName="dealstage", propertyValue=""),
            "event.propertyValue is empty",
        ),
        (
            happened("deal.propertyChange", propertyName="amount"),
            "event.propertyValue is missing",
        ),
        (
            happened("deal.creation", occurredAt=1775131200001),
            "event.occurredAt lies more than a day after the receipt",
        ),
    ],
)
def test_an_event_of_hubspot_that_cannot_be_read_is_kept_with_the_reason(
    event: dict[str, Any], reason: str
) -> None:
    parsed = read("hubspot", [event])
    assert not (parsed.stage_events or parsed.value_changes or parsed.lifecycle_events)
    assert parsed.unparsed_reason == reason


def test_merged_deals_are_merged_into_the_primary_one_where_none_is_new() -> None:
    body = [happened("deal.merge", primaryObjectId=4, mergedObjectIds=[4, 5, None])]
    parsed = read("hubspot", body)
    (event,) = parsed.lifecycle_events
    assert (event.entity_id, event.merged_into) == ("5", "4")
    assert parsed.unparsed_reason == "event.mergedObjectIds is empty"


def test_a_merge_into_a_new_deal_that_cannot_be_read_is_not_one_into_the_primary() -> None:
    body = [happened("deal.merge", primaryObjectId=4, newObjectId=[9], mergedObjectIds=[5])]
    parsed = read("hubspot", body)
    assert parsed.lifecycle_events == ()
    assert parsed.unparsed_reason == "event.newObjectId is a list or an object, not an id"


@pytest.mark.parametrize(
    "event",
    [
        happened("contact.creation", objectId=None),
        happened("company.propertyChange"),
        happened("deal.associationChange", objectId=...),
        happened("object.creation", objectTypeId="0-1"),
        happened("object.creation", objectTypeId="2-3456"),
    ],
)
def test_events_of_no_interest_are_read_and_say_nothing(event: dict[str, Any]) -> None:
    assert read("hubspot", [event]) == Parsed()


def test_a_list_far_longer_than_promised_is_kept_unread() -> None:
    body = [happened("deal.creation")] * 1_001
    assert read("hubspot", body) == Parsed(unparsed_reason="the body holds more than 1000 events")


# --- All of them


def test_events_of_one_identity_are_one() -> None:
    moved = happened("deal.propertyChange", propertyName="dealstage", propertyValue="won")
    paid = happened("deal.propertyChange", propertyName="amount", propertyValue="5")
    created = happened("deal.creation")
    parsed = read("hubspot", [moved, paid, created, created, paid, moved | {"eventId": 2}])
    assert len(parsed.stage_events) == 1
    assert len(parsed.value_changes) == 1
    assert len(parsed.lifecycle_events) == 1
    assert parsed.entity_ids == ("7",)


def test_what_lies_more_than_a_day_ahead_is_not_believed_and_what_is_late_is() -> None:
    moved = utc("2026-02-11 08:30:05")
    ahead = moved - timedelta(days=1)
    assert read("keycrm", order(), now=ahead).stage_events
    parsed = read("keycrm", order(), now=ahead - timedelta(microseconds=1))
    assert parsed.stage_events == ()
    assert parsed.unparsed_reason == (
        "context.status_changed_at lies more than a day after the receipt"
    )
    assert read("keycrm", order(), now=moved + timedelta(days=9_000)).stage_events


@pytest.mark.parametrize(
    ("sender", "name", "counter", "again"),
    [
        ("pipedrive", "pipedrive_v2_change.json", b'"attempt": 1', b'"attempt": 4'),
        ("pipedrive", "pipedrive_v1_updated.json", b'"retry": 0', b'"retry": 3'),
        ("hubspot", "hubspot_events.json", b'"attemptNumber": 0', b'"attemptNumber": 10'),
    ],
)
def test_another_attempt_is_the_same_delivery(
    sender: str, name: str, counter: bytes, again: bytes
) -> None:
    body = RECORDED[name]
    content = SENDERS[sender].content
    assert counter in body
    assert content(body.replace(counter, again)) == content(body)
    assert content(body) == body.replace(counter, counter[:-1] + b"0")
    in_text = json.dumps({"data": {"title": counter.decode()}}).encode()
    assert content(in_text) == in_text


@pytest.mark.parametrize("sender", ["keycrm", "zapier"])
def test_senders_that_count_no_attempts_are_taken_by_their_word(sender: str) -> None:
    assert SENDERS[sender].content(b'{"attempt": 3}') == b'{"attempt": 3}'


def test_only_the_zap_speaks_of_another_system_and_only_hubspot_waits_when_asked() -> None:
    systems = {name: sender.source_system for name, sender in SENDERS.items()}
    assert systems == {
        "keycrm": "keycrm",
        "pipedrive": "pipedrive",
        "zapier": "pipedrive",
        "hubspot": "hubspot",
    }
    assert [name for name, sender in SENDERS.items() if sender.retries_429] == ["hubspot"]


def test_the_id_of_a_delivery_is_that_of_all_its_parts() -> None:
    parts = [
        ("keycrm", "p1", None, b"body"),
        ("keycrm", "p1", "", b"body"),
        ("keycrm", "p1", "1", b"body"),
        ("keycrm", "p", "11", b"body"),
        ("keycrm", "p1", "1b", b"ody"),
        ("keycrm", "p1b", None, b"ody"),
        ("hubspot", "p1", None, b"body"),
        ("keycrm", "p1", None, b""),
    ]
    ids = [delivery_id(*part) for part in parts]
    assert len(set(ids)) == len(parts)
    assert ids == [delivery_id(*part) for part in parts]
    assert {(id_.version, id_.variant) for id_ in ids} == {(8, RFC_4122)}
    # Landed rows are known by it for ever, so how it is made may not change.
    assert str(ids[0]) == "fd69a43b-ee4f-8ac4-b1d3-3c990889974b"


# --- Any bytes

#: Stands in all that is made up, so that a reason which quotes any of it is found.
MARK = "7q1"
MARKED_NUMBER = 731
#: JSON that Python does not write. In a body stands a text in its place until it is sent.
ODD_JSON = {
    "json 1": "7.31e400",
    "json 2": "-7.31e-400",
    "json 3": "7.31e99999999",
    "json 4": "NaN",
    "json 5": "-Infinity",
    "json 6": '{"7q1": 1, "7q1": 2}',
    "json 7": "[" * 300 + "]" * 300,
    "json 8": "[" * 5_000 + "]" * 5_000,
    "json 9": "0" + "." + "0" * 300 + "731",
}


def holds(parsed: Parsed) -> None:
    """What is read can be stored, and no reason quotes what was sent."""
    assert parsed.entity_type in (None, "order", "lead", "deal", "ticket")
    assert (parsed.entity_type is None) == (not parsed.entity_ids)
    assert len(set(parsed.entity_ids)) == len(parsed.entity_ids)
    for id_ in (*parsed.entity_ids, parsed.sender_delivery_id):
        assert id_ is None or (1 <= len(id_) <= 200 and id_.isprintable() and id_.encode())
    for event in (*parsed.stage_events, *parsed.value_changes, *parsed.lifecycle_events):
        assert event.entity_id
        for value in event:
            if isinstance(value, datetime):
                assert value.utcoffset() == timedelta(0)
                assert 2000 <= value.year <= 2100
                assert value <= NOW + timedelta(days=1)
            elif value is not None:
                assert isinstance(value, str)
                assert "\0" not in value
                assert len(value.encode()) <= 2_000
    for stage_event in parsed.stage_events:
        assert max(len(part) for part in stage_event[1:6] if part is not None) <= 200
    identities = [(*event[:2], event.stage_id, event.entered_at) for event in parsed.stage_events]
    assert len(set(identities)) == len(identities)
    if parsed.unparsed_reason is not None:
        assert 0 < len(parsed.unparsed_reason) < 1_000
        assert MARK not in parsed.unparsed_reason
        assert str(MARKED_NUMBER) not in parsed.unparsed_reason


odd_values = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            {},
            [],
            "",
            " ",
            -MARKED_NUMBER,
            MARKED_NUMBER,
            10**4_000,
            10**22,
            1e300,
            -0.5,
            9_999_999_999,
            253402300799,
            1772615560,
            1772615560123,
            f"{MARK}\0",
            f"{MARK}\ud800",
            f"{MARK}\n",
            MARK * 400,
            f"2026-{MARK}",
            f"2026-13-{MARKED_NUMBER}T00:00:00Z",
            f"9999-12-31T23:59:59.{MARKED_NUMBER}Z",
            f"0001-01-01 00:00:00.{MARKED_NUMBER}",
            f"2026-03-29 03:30:00.{MARKED_NUMBER}",
            f"2031-03-29 03:30:00.{MARKED_NUMBER}+02:00",
            "Wed, 04 Mar 2026 09:12:40 +0200",
            "03/04/2026",
            {"id": MARKED_NUMBER, MARK: MARK},
            [MARKED_NUMBER, [MARK, {}]],
            "order.change_payment_status",
            "lead.change_lead_status",
            f"order.{MARK}",
            "create",
            "delete",
            "deal.merge",
            "object.restore",
            "0-5",
            "hs_pipeline_stage",
            "closedate",
            *ODD_JSON,
        ]
    ),
    st.text(st.characters(exclude_categories=())).map(lambda text: MARK + text),
    st.datetimes().map(str),
    st.integers(0, 5 * 10**15),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in ``value``, itself included."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


BODIES = [
    (name.partition("_")[0], body, list(places(body)))
    for name, body in sorted(
        (name, json.loads(content)) for name, content in RECORDED.items() if name.endswith(".json")
    )
]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A sender, and a recorded body of it with some values replaced, taken away or doubled."""
    sender, body, ways = draw(st.sampled_from(BODIES))
    body = copy.deepcopy(body)
    for way in draw(st.lists(st.sampled_from(ways), max_size=4)):
        value = draw(odd_values)
        if not way:
            body = draw(st.sampled_from([value, [body], [body, body], {"event": body}]))
            break
        *outer, last = way
        holder = body
        for key in outer:
            holder = holder[key] if isinstance(holder, dict | list) and has(holder, key) else None
        if isinstance(holder, dict | list) and has(holder, last):
            if draw(st.integers(0, 4)):
                holder[last] = value
            else:
                del holder[last]
    sent = json.dumps(body, ensure_ascii=draw(st.booleans()))
    for name, written in ODD_JSON.items():
        sent = sent.replace(f'"{name}"', written)
    return sender, sent.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16"])), "replace")


def has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(key, int) and key < len(holder)


headers_of_any_kind = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["application/json", "application/x-www-form-urlencoded", MARK]
        ),
        "webhook-id": st.text(st.characters(exclude_categories=())),
    },
)


@settings(deadline=None, max_examples=600)
@given(mutated(), headers_of_any_kind)
def test_whatever_a_body_says_what_is_read_can_be_stored(
    sent: tuple[str, bytes], headers: dict[str, str]
) -> None:
    sender, body = sent
    parsed = SENDERS[sender].parse(body, headers, NOW, KYIV)
    holds(parsed)
    assert SENDERS[sender].parse(body, headers, NOW, KYIV) == parsed
    assert isinstance(SENDERS[sender].content(body), bytes)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(SENDERS)),
    st.binary() | st.text().map(str.encode) | st.sampled_from(sorted(RECORDED.values())),
    st.integers(0, 2_000),
    st.binary(max_size=4),
    headers_of_any_kind,
    st.sampled_from(["", "gzip", MARK]),
)
def test_whatever_the_bytes_are_reading_them_does_not_fail(
    sender: str, body: bytes, at: int, junk: bytes, headers: dict[str, str], encoding: str
) -> None:
    broken = body[:at] + junk + body[at + len(junk) :]
    for sent in (body, broken, body[:at], gzip.compress(broken)):
        parsed = SENDERS[sender].parse(sent, headers | {"content-encoding": encoding}, NOW, KYIV)
        assert isinstance(parsed, Parsed)
        if parsed.sender_delivery_id is not None:
            delivery_id(sender, "p1", parsed.sender_delivery_id, SENDERS[sender].content(sent))


def test_how_deep_a_body_may_be_nested_does_not_depend_on_who_reads_it() -> None:
    def at_depth(frames: int, body: bytes) -> Parsed:
        if frames:
            return at_depth(frames - 1, body)
        return read("keycrm", body)

    for depth in (190, 200, 201, 970, 5000):
        body = b'{"event": "x", "context": ' + b"[" * depth + b"]" * depth + b"}"
        assert at_depth(0, body) == at_depth(300, body)


def test_brackets_inside_texts_are_no_nesting() -> None:
    body = b'{"event": "order.change_order_status", "note": "' + b"[" * 5000 + b'\\"{"}'
    reason = read("keycrm", body).unparsed_reason
    assert reason is not None
    assert "nested" not in reason
