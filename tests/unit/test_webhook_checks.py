"""Who may call: the vectors of the contracts, rotation, windows, and whatever else callers send."""

import base64
import hashlib
import hmac
import traceback
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline.errors import StagelineError
from stageline.settings.webhook_checks import Kind, signing_key
from webhook_receiver.checks import Call, Check, Refused, client_address, verify

START = datetime(2020, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BODY = b'{"deal_id": 55}'


def check(
    kind: Kind,
    secret: str | None = None,
    *,
    allowed: str | None = None,
    check_id: int = 1,
    valid_from: datetime = START,
    valid_to: datetime | None = None,
) -> Check:
    encoded = None if secret is None else secret.encode()
    return Check(check_id, kind, encoded, allowed, valid_from, valid_to)


def call(
    headers: Mapping[str, str] | None = None,
    *,
    body: bytes = BODY,
    url: str = "https://hooks.example.test/webhooks/pipedrive/main",
    query_token: str | None = None,
    address: str | None = "203.0.113.7",
    now: datetime = NOW,
) -> Call:
    return Call("POST", url, headers or {}, query_token, body, address, now)


def refused(checks: list[Check], attempt: Call) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        verify(checks, attempt)
    return caught.value.status, caught.value.reason


# Standard Webhooks

PUBLIC_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLIC_BODY = b'{"test": 2432232314}'
PUBLIC_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
PUBLIC_NOW = datetime.fromtimestamp(1614265330, UTC)

SECRET = "a shared secret of our own"
SIGNED_AT = int(NOW.timestamp())


def signed(
    secret: str = SECRET, *, at: int = SIGNED_AT, message_id: str = "msg_1", body: bytes = BODY
) -> dict[str, str]:
    """The three headers, made without the code under test."""
    digest = hmac.new(secret.encode(), f"{message_id}.{at}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(digest.digest()).decode(),
    }


def test_the_public_vector_of_standard_webhooks_passes() -> None:
    attempt = call(PUBLIC_HEADERS, body=PUBLIC_BODY, now=PUBLIC_NOW)
    assert verify([check("hmac", PUBLIC_SECRET, check_id=7)], attempt) == (7,)
    changed = replace(attempt, body=PUBLIC_BODY + b" ")
    assert refused([check("hmac", PUBLIC_SECRET)], changed) == (401, "signature_wrong")


def test_a_secret_of_plain_text_signs_with_its_utf_8_bytes() -> None:
    # echo -n 'msg_1.1767225600.{"deal_id": 55}' | openssl dgst -sha256 -hmac 'двадцять знаків тут'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1767225600",
        "webhook-signature": "v1,SOY7KPtD/WMoAS1eDpr6OL6/10WEE8BQzlFkJBR+mfc=",
    }
    assert verify([check("hmac", "двадцять знаків тут")], call(headers)) == (1,)


def test_whsec_secrets_are_decoded_and_others_are_not() -> None:
    raw = bytes(range(32))
    assert signing_key(b"whsec_" + base64.b64encode(raw)) == raw
    assert signing_key(base64.b64encode(raw)) == base64.b64encode(raw)


@pytest.mark.parametrize(
    "secret",
    ["whsec_=", "whsec_c2hvcnQ=", "whsec_***", "whsec_" + "A" * 43, "whsec_" + "QUJD" * 30],
)
def test_a_whsec_secret_that_cannot_be_one_is_told_and_not_shown(secret: str) -> None:
    with pytest.raises(StagelineError, match="24 to 64 bytes") as caught:
        check("hmac", secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_a_timestamp_within_five_minutes_passes(seconds: int) -> None:
    assert verify([check("hmac", SECRET)], call(signed(at=SIGNED_AT + seconds))) == (1,)


@pytest.mark.parametrize("seconds", [-301, 301, -86400, 10**9])
def test_a_timestamp_further_off_is_refused_though_it_is_signed(seconds: int) -> None:
    attempt = call(signed(at=SIGNED_AT + seconds))
    assert refused([check("hmac", SECRET)], attempt) == (401, "timestamp_outside_window")


def test_the_window_closes_within_the_second() -> None:
    late = call(signed(), now=NOW + timedelta(seconds=300, microseconds=1))
    assert refused([check("hmac", SECRET)], late) == (401, "timestamp_outside_window")


@pytest.mark.parametrize(
    "stamp",
    [
        None,
        "",
        " ",
        "nan",
        "1e3",
        "-1",
        "+1",
        "1767225600.0",
        " 1767225600",
        "1767225600 ",
        "1" * 12,
        "9" * 20,
        "١٧٦٧٢٢٥٦٠٠",
        "²",
        "0x10",
        "1_000",
        "1767225600\n",
        "\udc80",
    ],
)
def test_a_timestamp_is_digits_and_nothing_else(stamp: str | None) -> None:
    headers = signed()
    if stamp is None:
        del headers["webhook-timestamp"]
    else:
        headers["webhook-timestamp"] = stamp
    assert refused([check("hmac", SECRET)], call(headers)) == (401, "timestamp_malformed")


RIGHT = signed()["webhook-signature"]
OTHER = signed("another secret, also long")["webhook-signature"]


@pytest.mark.parametrize(
    "header",
    [
        "v1",
        "v1,",
        RIGHT.removeprefix("v1,"),
        RIGHT[:-1],
        RIGHT[:12],
        RIGHT + "=",
        RIGHT.replace(",", ",,"),
        RIGHT.replace(",", ", "),
        RIGHT.replace("v1", "v1a"),
        RIGHT.replace("v1", "V1"),
        RIGHT.replace("v1", "v2"),
        f"{RIGHT},{RIGHT}",
        "v1,***",
        "v1,ї",
        "v1,\udc80",
        "v1," + "A" * 10_000,
        " ".join([RIGHT] * 11),
        RIGHT + " " * 5000,
        "  ",
        ", ,",
        "\0",
    ],
)
def test_a_malformed_signature_header_is_refused(header: str) -> None:
    attempt = call(signed() | {"webhook-signature": header})
    assert refused([check("hmac", SECRET)], attempt) == (401, "signature_malformed")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-signature"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_a_missing_header_is_refused(name: str, is_empty: bool) -> None:
    headers = signed() | {name: ""}
    if not is_empty:
        del headers[name]
    assert refused([check("hmac", SECRET)], call(headers)) == (401, "signature_missing")


@pytest.mark.parametrize("message_id", ["a.b", "x" * 257, "ідентифікатор", "a\nb", "\udc80"])
def test_a_message_id_that_could_be_read_in_two_ways_is_refused(message_id: str) -> None:
    attempt = call(signed() | {"webhook-id": message_id})
    assert refused([check("hmac", SECRET)], attempt) == (401, "signature_malformed")


@pytest.mark.parametrize(
    "header",
    [
        f"{OTHER} {RIGHT}",
        f"{RIGHT} {OTHER}",
        f"{OTHER}  {RIGHT} ",
        f"v1a,{OTHER[3:]} v1 junk {RIGHT}",
        " ".join([OTHER] * 9 + [RIGHT]),
    ],
)
def test_one_right_signature_among_several_suffices(header: str) -> None:
    assert verify([check("hmac", SECRET)], call(signed() | {"webhook-signature": header})) == (1,)


def test_only_wrong_signatures_are_refused() -> None:
    attempt = call(signed() | {"webhook-signature": f"{OTHER} {OTHER}"})
    assert refused([check("hmac", SECRET)], attempt) == (401, "signature_wrong")


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(SIGNED_AT + 1)},
        {"webhook-id": f"msg_1,{SIGNED_AT}"},
    ],
)
def test_what_is_signed_cannot_be_changed(change: dict[str, str]) -> None:
    attempt = call(signed() | change)
    assert refused([check("hmac", SECRET)], attempt) == (401, "signature_wrong")


# HubSpot

HUBSPOT_SECRET = "crm-test-secret-1"
HUBSPOT_URL = "https://loader.example.test/hooks/hubspot"
HUBSPOT_BODY = b'[{"eventId":101,"subscriptionType":"deal.propertyChange","objectId":7}]'
HUBSPOT_STAMP = 1767225600000
FIRST_SIGNATURE = "O1w8lj8UY1D9zc1nAGZmHNOID0FxCRxho1mTBK7lY9I="


def hubspot_call(
    signature: str,
    *,
    url: str = HUBSPOT_URL,
    body: bytes = HUBSPOT_BODY,
    stamp: str = str(HUBSPOT_STAMP),
    now: datetime = NOW,
) -> Call:
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": stamp}
    return call(headers, url=url, body=body, now=now)


def hubspot_signature(url: str = HUBSPOT_URL, stamp: int = HUBSPOT_STAMP) -> str:
    """What HubSpot would send for a URL in which it has decoded what it decodes."""
    base = b"POST" + url.encode() + HUBSPOT_BODY + str(stamp).encode()
    return base64.b64encode(hmac.new(HUBSPOT_SECRET.encode(), base, "sha256").digest()).decode()


@pytest.mark.parametrize(
    ("url", "body", "signature"),
    [
        (HUBSPOT_URL, HUBSPOT_BODY, FIRST_SIGNATURE),
        (
            HUBSPOT_URL + "?src=a%3Ab%2Fc",
            HUBSPOT_BODY,
            "R61KPIndenYj22PGNEyuZBlLD1oBa7pZIhOj8us0T0k=",
        ),
        (
            HUBSPOT_URL,
            '[{"propertyValue":"Zoë – 5 €"}]'.encode(),  # noqa: RUF001 - as in the contract
            "3ZIIDDNQkCGINbFUK7QPZvklexduNiV2uRwaS9Uc05I=",
        ),
    ],
)
def test_the_hubspot_vectors_of_the_contract_pass(url: str, body: bytes, signature: str) -> None:
    attempt = hubspot_call(signature, url=url, body=body)
    assert verify([check("hubspot", HUBSPOT_SECRET)], attempt) == (1,)


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        (HUBSPOT_URL + "?src=a%3Ab%2Fc", "SfccfO1jQjCycNs7f8zxiuZQ0PeLTFUNp0yHr3OL43g="),
        (HUBSPOT_URL + "/", FIRST_SIGNATURE),
        (HUBSPOT_URL.replace("https", "http"), FIRST_SIGNATURE),
        (HUBSPOT_URL, FIRST_SIGNATURE.swapcase()),
    ],
)
def test_what_hubspot_would_not_sign_so_is_refused(url: str, signature: str) -> None:
    attempt = hubspot_call(signature, url=url)
    assert refused([check("hubspot", HUBSPOT_SECRET)], attempt) == (401, "signature_wrong")


@pytest.mark.parametrize(
    ("received", "decoded"),
    [
        (
            "%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B",
            ":/?@!$'()*,;",
        ),
        ("%20%26%3D%25%2B%23", "%20%26%3D%25%2B%23"),
        ("%253A", "%253A"),
        ("%%3A", "%:"),
        ("%3a", "%3a"),
    ],
)
def test_hubspots_url_is_decoded_by_its_table_alone(received: str, decoded: str) -> None:
    url, signature = f"{HUBSPOT_URL}?q={received}", hubspot_signature(f"{HUBSPOT_URL}?q={decoded}")
    assert verify([check("hubspot", HUBSPOT_SECRET)], hubspot_call(signature, url=url)) == (1,)


@pytest.mark.parametrize("milliseconds", [-300_000, -299_999, 0, 1, 300_000])
def test_a_hubspot_timestamp_within_five_minutes_passes(milliseconds: int) -> None:
    stamp = HUBSPOT_STAMP + milliseconds
    attempt = hubspot_call(hubspot_signature(stamp=stamp), stamp=str(stamp))
    assert verify([check("hubspot", HUBSPOT_SECRET)], attempt) == (1,)
    later = NOW + timedelta(milliseconds=-milliseconds, microseconds=400)
    assert verify([check("hubspot", HUBSPOT_SECRET)], hubspot_call(FIRST_SIGNATURE, now=later))


@pytest.mark.parametrize("milliseconds", [-300_001, 300_001, 10**9])
def test_a_hubspot_timestamp_further_off_is_refused(milliseconds: int) -> None:
    stamp = HUBSPOT_STAMP + milliseconds
    attempt = hubspot_call(hubspot_signature(stamp=stamp), stamp=str(stamp))
    assert refused([check("hubspot", HUBSPOT_SECRET)], attempt) == (401, "timestamp_outside_window")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "signature_missing"),
        ({"x-hubspot-signature-v3": ""}, "signature_missing"),
        ({"x-hubspot-signature": FIRST_SIGNATURE}, "signature_missing"),
        ({"x-hubspot-signature-v3": FIRST_SIGNATURE}, "timestamp_malformed"),
        ({"x-hubspot-signature-v3": "x" * 44}, "signature_malformed"),
        ({"x-hubspot-signature-v3": FIRST_SIGNATURE[:-1]}, "signature_malformed"),
        (
            {"x-hubspot-signature-v3": f"{FIRST_SIGNATURE},{FIRST_SIGNATURE}"},
            "signature_malformed",
        ),
        (
            {"x-hubspot-signature-v3": FIRST_SIGNATURE, "x-hubspot-request-timestamp": "1e12"},
            "timestamp_malformed",
        ),
        (
            {"x-hubspot-signature-v3": FIRST_SIGNATURE, "x-hubspot-request-timestamp": "1" * 15},
            "timestamp_malformed",
        ),
    ],
)
def test_malformed_hubspot_headers_are_refused(headers: dict[str, str], reason: str) -> None:
    assert refused([check("hubspot", HUBSPOT_SECRET)], call(headers)) == (401, reason)


# Passwords and tokens

LOGIN = "pipedrive:пароль: з двокрапкою"
TOKEN = "t" * 20


def basic(login: bytes, scheme: str = "Basic") -> dict[str, str]:
    return {"authorization": f"{scheme} {base64.b64encode(login).decode()}"}


RIGHT_LOGIN = basic(LOGIN.encode())["authorization"]


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "Basic "])
def test_a_login_passes(scheme: str) -> None:
    assert verify([check("basic", LOGIN)], call(basic(LOGIN.encode(), scheme))) == (1,)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "password_missing"),
        ({"authorization": ""}, "password_missing"),
        (basic(LOGIN.encode(), "Bearer"), "password_missing"),
        ({"authorization": "Basic"}, "password_wrong"),
        ({"authorization": "Basic ***"}, "password_wrong"),
        ({"authorization": "Basic ї"}, "password_wrong"),
        ({"authorization": "Basic \udc80"}, "password_wrong"),
        ({"authorization": "Basic YQ"}, "password_wrong"),
        (basic(LOGIN.encode()[:-1]), "password_wrong"),
        (basic(LOGIN.encode() + b"x"), "password_wrong"),
        (basic(b""), "password_wrong"),
        (basic(b"\xff\xfe"), "password_wrong"),
        (basic(b"pipedrive"), "password_wrong"),
        ({"authorization": f"{RIGHT_LOGIN},{RIGHT_LOGIN}"}, "password_wrong"),
    ],
)
def test_another_login_is_refused(headers: dict[str, str], reason: str) -> None:
    assert refused([check("basic", LOGIN)], call(headers)) == (401, reason)


@pytest.mark.parametrize(
    "attempt",
    [
        call({"x-webhook-token": TOKEN}),
        call({"authorization": f"Bearer {TOKEN}"}),
        call({"authorization": f"bearer  {TOKEN}"}),
        call(query_token=TOKEN),
        call({"x-webhook-token": "of another kind"}, query_token=TOKEN),
    ],
)
def test_a_token_passes_wherever_it_stands(attempt: Call) -> None:
    assert verify([check("token", TOKEN)], attempt) == (1,)


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (call(), "token_missing"),
        (call({"x-webhook-token": ""}, query_token=""), "token_missing"),
        (call({"authorization": f"Basic {TOKEN}"}), "token_missing"),
        (call({"x-webhook-token": TOKEN[:-1]}), "token_wrong"),
        (call({"x-webhook-token": f"{TOKEN},{TOKEN}"}), "token_wrong"),
        (call(query_token=TOKEN + "\udc80"), "token_wrong"),
        (call(query_token="ї" * 20), "token_wrong"),
    ],
)
def test_another_token_is_refused(attempt: Call, reason: str) -> None:
    assert refused([check("token", TOKEN)], attempt) == (401, reason)


# Addresses and user agents


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("203.0.113.0/24", "203.0.113.7"),
        ("203.0.113.0/24", "::ffff:203.0.113.7"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("2001:db8::/32", "2001:db8::1"),
    ],
)
def test_an_address_of_the_range_passes(allowed: str, address: str) -> None:
    assert verify([check("address", allowed=allowed)], call(address=address)) == (1,)


@pytest.mark.parametrize(
    "address", [None, "", "203.0.114.1", "2001:db8::1", "203.0.113.7.", "junk", "203.0.113.07"]
)
def test_any_other_address_is_refused(address: str | None) -> None:
    checks = [check("address", allowed="203.0.113.0/24")]
    assert refused(checks, call(address=address)) == (403, "address_not_allowed")


def test_a_user_agent_passes_by_how_it_begins() -> None:
    checks = [check("user_agent", allowed="Zapier")]
    assert verify(checks, call({"user-agent": "Zapier/1.0"})) == (1,)
    for headers in ({}, {"user-agent": "zapier"}, {"user-agent": "not Zapier"}):
        assert refused(checks, call(headers)) == (401, "user_agent_wrong")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "proxies", "address"),
    [
        ("198.51.100.1", None, 0, "198.51.100.1"),
        ("198.51.100.1", "203.0.113.7", 0, "198.51.100.1"),
        ("::ffff:198.51.100.1", None, 0, "198.51.100.1"),
        ("2001:DB8::1", None, 0, "2001:db8::1"),
        ("198.51.100.1", "203.0.113.7", 1, "203.0.113.7"),
        ("198.51.100.1", "10.0.0.1, 203.0.113.7", 1, "203.0.113.7"),
        ("198.51.100.1", "10.0.0.1,203.0.113.7,192.0.2.9", 2, "203.0.113.7"),
        ("198.51.100.1", "192.0.2.1, 192.0.2.2, 192.0.2.3, 203.0.113.7", 1, "203.0.113.7"),
        ("198.51.100.1", "junk, 203.0.113.7, 192.0.2.9", 2, "203.0.113.7"),
        ("", "203.0.113.7", 1, "203.0.113.7"),
        ("", None, 0, None),
        ("198.51.100.1", None, 1, None),
        ("198.51.100.1", "", 1, None),
        ("198.51.100.1", "203.0.113.7", 2, None),
        ("198.51.100.1", "203.0.113.7,", 1, None),
        ("198.51.100.1", "203.0.113.7, unknown", 1, None),
        ("198.51.100.1", "203.0.113.7:4711", 1, None),
        ("198.51.100.1", "\udc80", 1, None),
        ("@", None, 0, None),
    ],
)
def test_the_address_is_what_the_outermost_proxy_of_ours_saw(
    peer: str, forwarded_for: str | None, proxies: int, address: str | None
) -> None:
    assert client_address(peer, forwarded_for, proxies) == address


# Several checks


def test_without_a_check_nobody_gets_in() -> None:
    ended = check("token", TOKEN, valid_to=NOW)
    to_come = check("token", TOKEN, valid_from=NOW + timedelta(microseconds=1))
    for checks in ([], [ended], [to_come], [ended, to_come]):
        assert refused(checks, call(query_token=TOKEN)) == (401, "no_check_configured")


def test_a_check_counts_from_its_beginning_until_before_its_end() -> None:
    checks = [check("token", TOKEN, valid_from=NOW, valid_to=NOW + timedelta(microseconds=1))]
    assert verify(checks, call(query_token=TOKEN)) == (1,)


def test_secrets_are_rotated_without_a_gap() -> None:
    old = check("hmac", SECRET, check_id=1, valid_to=NOW + timedelta(hours=1))
    new = check("hmac", PUBLIC_SECRET, check_id=2)
    with_old, with_both = signed(), signed()
    digest = hmac.new(
        base64.b64decode(PUBLIC_SECRET[6:]), f"msg_1.{SIGNED_AT}.".encode() + BODY, "sha256"
    )
    by_new = "v1," + base64.b64encode(digest.digest()).decode()
    with_both["webhook-signature"] += f" {by_new}"
    assert verify([old, new], call(with_old)) == (1,)
    assert verify([old, new], call(with_both)) == (1, 2)
    assert verify([old, new], call(with_old | {"webhook-signature": by_new})) == (2,)
    later = replace(old, valid_to=NOW)
    assert refused([later, new], call(with_old)) == (401, "signature_wrong")


def test_every_kind_that_is_configured_has_to_pass() -> None:
    checks = [
        check("hmac", SECRET, check_id=1),
        check("token", TOKEN, check_id=2),
        check("token", TOKEN[:-1] + "u", check_id=3),
        check("address", allowed="203.0.113.0/24", check_id=4),
        check("address", allowed="198.51.100.0/24", check_id=5),
        check("user_agent", allowed="Zapier", check_id=6),
    ]
    headers = signed() | {"user-agent": "Zapier", "x-webhook-token": TOKEN}
    assert sorted(verify(checks, call(headers))) == [1, 2, 4, 6]
    assert refused(checks, call(headers, address="192.0.2.1")) == (403, "address_not_allowed")
    assert refused(checks, call(headers | {"user-agent": "x"})) == (401, "user_agent_wrong")
    assert refused(checks, call(headers | {"x-webhook-token": "x"})) == (401, "token_wrong")
    assert refused(checks, call(headers, body=b"")) == (401, "signature_wrong")


@pytest.mark.parametrize("kind", ["hmac", "hubspot", "basic", "token", "address", "user_agent"])
def test_an_empty_check_cannot_be_made(kind: Kind) -> None:
    with pytest.raises(ValueError, match="everyone"):
        Check(1, kind, b"", "", START, None)


# Whatever is sent

KINDS_WITH_SECRETS = [
    check("hmac", SECRET),
    check("hubspot", HUBSPOT_SECRET),
    check("basic", LOGIN),
    check("token", TOKEN),
]

#: Any text, lone surrogates included, and pieces of what would be right.
pieces = st.sampled_from(
    [
        "v1,",
        " ",
        ",",
        "=",
        ".",
        "Basic ",
        "Bearer ",
        RIGHT,
        OTHER,
        FIRST_SIGNATURE,
        "1767225600",
        "A" * 43 + "=",
        "msg_1",
        "1767225600000",
        "+",
        "\x00",
        "\n",
        "ÿ",
    ]
)
texts = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=[]), max_size=60),
    st.lists(pieces, max_size=6).map("".join),
)
names = st.sampled_from(
    [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "x-hubspot-signature-v3",
        "x-hubspot-request-timestamp",
        "authorization",
        "x-webhook-token",
        "user-agent",
    ]
)


@given(
    headers=st.dictionaries(names, texts),
    body=st.binary(max_size=40),
    url=texts,
    query_token=st.none() | texts,
    address=st.none() | texts,
    each=st.sampled_from(KINDS_WITH_SECRETS),
)
def test_whatever_is_sent_without_the_secret_is_refused(
    headers: dict[str, str],
    body: bytes,
    url: str,
    query_token: str | None,
    address: str | None,
    each: Check,
) -> None:
    # No body above is signed by the pieces: all their signatures belong to other bodies.
    attempt = call(headers, body=body, url=url, query_token=query_token, address=address)
    with pytest.raises(Refused):
        verify([each], attempt)


@given(peer=texts, forwarded_for=st.none() | texts, proxies=st.integers(0, 10))
def test_any_forwarded_for_gives_an_address_or_none(
    peer: str, forwarded_for: str | None, proxies: int
) -> None:
    found = client_address(peer, forwarded_for, proxies)
    checks = [check("address", allowed="203.0.113.0/24")]
    try:
        assert verify(checks, call(address=found)) == (1,)
    except Refused as refusal:
        assert refusal.status == 403


def test_no_secret_shows_up_in_what_can_be_logged() -> None:
    marker = "marker-5f1c"
    headers = {"authorization": f"Bearer {marker}", "x-webhook-token": marker}
    attempt: Any = call(headers, query_token=marker, url=f"https://x.test/?token={marker}")
    each = check("token", f"{marker}-of-the-check")
    with pytest.raises(Refused) as caught:
        verify([each], attempt)
    shown = [repr(each), repr(attempt), "".join(traceback.format_exception(caught.value))]
    assert marker not in "".join(shown)
