"""Bodies, headers and encodings that nobody thought of, over real HTTP against a real receiver."""

import copy
import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import TestServer
from tests.raw_http import Answer, chunks, head, send, whole
from tests.receivers import TOKEN
from tests.shared_receivers import PATHS, Shared, shared_receiver
from tests.unit.test_senders import RECORDED
from webhook_receiver.delivery import Delivery, read

LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def shared(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("receiver")
    with shared_receiver(server, folder, STAGELINE_RECEIVER_BODY_LIMIT=str(LIMIT)) as running:
        yield running
        # What holds for each answer, once more for all that was left behind.
        for table in ("stage_events", "value_changes", "lifecycle_events"):
            assert not running.rows(
                f"select from raw.{table} where delivery_id not in"  # noqa: S608 - our own names
                " (select delivery_id from raw.deliveries)"
            )


#: Values that are legal JSON, if not what anybody expects, or nearly.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(), max_size=20),
    st.sampled_from(
        [
            "\0",
            "\ud800",
            "",
            " ",
            10**4000,
            -1,
            "2026-02-11 08:30:05",
            "9999-12-31T23:59:59Z",
            "0000-00-00 00:00:00",
            "31/12/2026",
            "2026-03-29 03:30:00",
            1_772_615_560,
            "1772615560123",
            "x" * 600,
            [],
            {},
            [[]],
            {"id": {"id": None}},
        ]
    ),
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A recorded body of which some values, somewhere, are others, or gone."""
    name = draw(st.sampled_from(sorted(each for each in RECORDED if each.endswith(".json"))))
    body = json.loads(RECORDED[name])
    for _ in range(draw(st.integers(0, 4))):
        place: Any = body
        while place and isinstance(place, dict | list):
            key = draw(
                st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
            )
            if not isinstance(place[key], dict | list) or draw(st.integers(0, 4)) == 0:
                if isinstance(place, dict) and draw(st.booleans()):
                    del place[key]
                else:
                    place[key] = copy.deepcopy(draw(ODD))  # it may be changed next
                break
            place = place[key]
    return json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Any body: a recorded one that is changed, in another encoding, cut, or mere bytes."""
    body = draw(
        st.one_of(
            changed(),
            st.sampled_from(sorted(RECORDED.values())),
            st.recursive(
                ODD,
                lambda inner: (
                    st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(max_size=8), inner, max_size=4)
                ),
                max_leaves=12,
            ).map(lambda value: json.dumps(value).encode()),
            st.binary(max_size=200),
            st.sampled_from(
                [
                    b"",
                    b"[" * 9_000,
                    b"NaN",
                    b"1e999999",
                    b'{"event": 1e99999999999999999999}',
                    b"9" * 5_000,
                    b"x" * LIMIT,
                    b"x" * (LIMIT + 1),
                ]
            ),
        )
    )
    match draw(st.integers(0, 9)):
        case 0:
            return body[: draw(st.integers(0, len(body)))]
        case 1:
            return body + draw(st.binary(max_size=8))
        case 2:
            return gzip.compress(body)
        case 3:
            encoding = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "cp1251"]))
            return body.decode("utf-8", "replace").encode(encoding, "replace")
    return body


#: What may stand in a header: what HTTP allows, and now and then what it does not.
ALLOWED = [chr(each) for each in range(256) if each == 9 or (each > 31 and each != 127)]
VALUES = st.one_of(
    st.text(alphabet=ALLOWED, max_size=20),
    st.text(alphabet=ALLOWED, max_size=20),
    st.text(alphabet=[chr(each) for each in range(256) if each not in (10, 13)], max_size=20),
)
HEADERS = st.lists(
    st.one_of(
        st.builds(
            "{}: {}".format,
            st.sampled_from(
                (
                    "Content-Type",
                    "Content-Encoding",
                    "User-Agent",
                    "webhook-id",
                    "webhook-timestamp",
                    "X-Forwarded-For",
                    "Authorization",
                    "Cookie",
                    "X-Odd",
                )
            ),
            VALUES,
        ),
        st.sampled_from(
            (
                "Content-Encoding: gzip",
                "Content-Type: application/x-www-form-urlencoded",
                "Expect: 100-continue",
                "webhook-id: msg_1",
                "Connection: close",
            )
        ),
        VALUES.filter(bool),  # an empty line would be the end of the headers
    ),
    max_size=3,
)
SENDERS = st.sampled_from(sorted(PATHS))
QUERIES = st.sampled_from(["", "", "", "token=", "a=%FF%00&b", "%", "=&&=?/"])


@settings(
    max_examples=700,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    sender=SENDERS,
    body=bodies(),
    headers=HEADERS,
    query=QUERIES,
    is_chunked=st.booleans(),
    is_known=st.integers(0, 5).map(bool),
)
def test_whatever_is_sent_is_landed_whole_or_refused_whole(
    shared: Shared,
    sender: str,
    body: bytes,
    headers: list[str],
    query: str,
    is_chunked: bool,
    is_known: bool,
) -> None:
    target = PATHS[sender].format("p1")
    if query:
        target += ("&" if "?" in target else "?") + query
    token = TOKEN if is_known else "x" * len(TOKEN)
    lines = [f"X-Webhook-Token: {token}", *headers]
    if is_chunked:
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        request = head(target, "Transfer-Encoding: chunked", *lines) + chunks(*parts)
    else:
        request = whole(target, body, *lines)
    before = count(shared)
    answer = send(shared.receiver.port, request)
    assert 200 <= answer.status < 500
    if answer.status == 200:
        assert is_known
        assert_is_whole(shared, answer, sender, body)
    else:
        assert count(shared) == before
        assert not is_known or len(body) > LIMIT or not all(map(is_plain, headers))


def is_plain(line: str) -> bool:
    """Whether a line is a header that a request may have once, with any value that HTTP allows."""
    name, colon, value = line.partition(":")
    return bool(
        colon
        and name in ("User-Agent", "webhook-id", "Connection", "Expect")
        and set(value) <= set(ALLOWED)
    )


def count(shared: Shared) -> int:
    (row,) = shared.rows("select count(*) from raw.deliveries")
    return int(row["count"])


def assert_is_whole(shared: Shared, answer: Answer, sender: str, body: bytes) -> None:
    """That what was acknowledged is there to the byte, and all that is read of it, and no more."""
    delivery_id = UUID(json.loads(answer.body)["delivery_id"])
    row = shared.delivery(delivery_id)
    if row["body"] != body:  # unless a delivery that differs in its attempt alone came before
        assert sender in ("pipedrive", "hubspot")
        assert len(row["body"]) <= len(body) + 20
    assert row["body_sha256"] == hashlib.sha256(row["body"]).digest()
    if "nested too deep" in str(row["unparsed_reason"]):
        return  # hypothesis lets this process recurse deeper than the receiver
    found = read(
        Delivery(
            sender,
            row["project_id"],
            row["received_at"],
            tuple(row["check_ids"]),
            row["headers"],
            row["body"],
            "Europe/Kyiv",
        )
    )
    assert found.delivery_id == delivery_id
    parsed = found.parsed
    assert (row["sender_delivery_id"], row["entity_type"], row["unparsed_reason"]) == (
        parsed.sender_delivery_id,
        parsed.entity_type,
        parsed.unparsed_reason,
    )
    assert tuple(row["entity_ids"]) == parsed.entity_ids
    # An event may have come in an earlier delivery; that it is there is what counts.
    source = row["source_system"]
    for table, keys, events in (
        (
            "stage_events",
            ("entity_type", "entity_id", "stage_id", "entered_at"),
            parsed.stage_events,
        ),
        (
            "value_changes",
            ("entity_type", "entity_id", "field", "changed_at", "new_value"),
            parsed.value_changes,
        ),
        (
            "lifecycle_events",
            ("entity_type", "entity_id", "event", "occurred_at"),
            parsed.lifecycle_events,
        ),
    ):
        is_the_same = " and ".join(f"{key} is not distinct from %s" for key in keys)
        identities = {tuple(getattr(event, key) for key in keys) for event in events}
        for identity in identities:
            assert shared.rows(
                f"select from raw.{table}"
                f" where source_system = %s and project_id = %s and {is_the_same}",
                source,
                row["project_id"],
                *identity,
            )
        of_this = shared.rows(
            f"select {', '.join(keys)} from raw.{table} where delivery_id = %s",  # noqa: S608
            delivery_id,
        )
        assert {tuple(each.values()) for each in of_this} <= identities
