"""What the answer of a CRM's API means, and what is never done with a token."""

import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from loaders import api
from loaders.api import Api, FailedError, RefusedError, ThrottledError, read_answer
from tests.fakes.crm_server import WALL, Call, CrmServer, Reply


class Plain(CrmServer):
    """Answers everyone with what it heard."""

    def is_authentic(self, call: Call) -> bool:
        return "authorization" in call.headers

    def answer(self, call: Call) -> Reply:
        return Reply(body={"authorization": call.headers.get("authorization"), "price": 12.10})


def session(url: str, **more: Any) -> Api:
    wait = more.pop("wait_unsaid", 2.0)
    header = ("Authorization", "Bearer hidden-token")
    return Api(url, header, before_call=lambda: None, wait_unsaid=wait, **more)


def meaning(
    status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    return read_answer(status, CaseInsensitiveDict(headers or {}), body, wait_unsaid=30.0)


def test_numbers_keep_their_digits() -> None:
    assert str(meaning(200, b'{"price": 0.1000000000000000055}')) == (
        "{'price': Decimal('0.1000000000000000055')}"
    )


@pytest.mark.parametrize(
    "body",
    [b"null", b"[]", b"", b'{"a": ', b"<html>", b'{"a": NaN}', b"\xff", b"[" * 99_999, b"1e9" * 99],
)
def test_a_success_without_a_json_object_is_tried_again(body: bytes) -> None:
    with pytest.raises(FailedError, match="no JSON object"):
        meaning(200, body)


def test_404_is_an_answer_only_where_the_api_gives_it() -> None:
    assert meaning(404, b'{"message": "Not found"}') is None
    with pytest.raises(RefusedError, match="base URL"):
        meaning(404, b"<html>nginx</html>")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": "0"}, api.SHORTEST_WAIT),
        ({"retry-after": "99999999"}, api.LONGEST_WAIT),
        (
            {
                "retry-after": "Wed, 04 Mar 2026 09:12:45 GMT",
                "Date": "Wed, 04 Mar 2026 09:12:40 GMT",
            },
            5,
        ),
        ({"retry-after": "soon"}, 30),
        ({"x-ratelimit-reset": "2"}, 2),
        ({"x-ratelimit-reset": "nan"}, 30),
        ({}, 30),
        ({"x-daily-ratelimit-token-remaining": "0"}, api.DAILY_PROBE),
        ({"x-daily-ratelimit-token-remaining": "0", "x-ratelimit-reset": "2"}, api.DAILY_PROBE),
        ({"x-daily-ratelimit-token-remaining": "0", "retry-after": "7200"}, 7200),
        ({"x-daily-ratelimit-token-remaining": "12", "x-ratelimit-reset": "2"}, 2),
    ],
)
def test_429_says_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    with pytest.raises(ThrottledError) as caught:
        meaning(429, headers=headers)
    assert caught.value.seconds == seconds


def test_a_wall_before_the_api_is_waited_for_and_a_missing_right_is_not() -> None:
    with pytest.raises(ThrottledError):
        meaning(403, WALL)
    with pytest.raises(RefusedError) as caught:
        meaning(403, b'{"error": "Scope and URL mismatch"}')
    assert not caught.value.concerns_account


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 402])
def test_what_a_person_has_to_mend_concerns_the_account(status: int) -> None:
    with pytest.raises(RefusedError) as caught:
        meaning(status)
    assert caught.value.concerns_account


def test_an_error_of_the_server_may_say_when_to_come_back() -> None:
    with pytest.raises(FailedError, match="HTTP 503") as caught:
        meaning(503, b"", {"Retry-After": "9"})
    assert caught.value.after == 9


def test_a_redirect_does_not_take_the_token_along() -> None:
    with Plain() as other, Plain() as server:
        server.next(Reply(302, {}, {"Location": f"{other.url}/elsewhere"}))
        with session(server.url) as opened, pytest.raises(RefusedError, match="redirect"):
            opened.get("/order/1")
        assert other.calls == []


def test_a_netrc_file_does_not_replace_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Plain() as server, session(server.url) as opened:
        heard = opened.get("/order/1")
    assert heard is not None
    assert heard["authorization"] == "Bearer hidden-token"


def test_no_token_goes_out_in_the_clear() -> None:
    with session("http://crm.example.com") as opened, pytest.raises(RefusedError, match="https"):
        opened.get("/order/1")


def test_reading_ends_at_the_deadline_however_slowly_bytes_come() -> None:
    with Plain() as server:
        server.next(Reply(body={"long": "x" * 100}, trickle=0.02))
        started = time.monotonic()
        with (
            session(server.url, deadline=0.3) as opened,
            pytest.raises(FailedError, match="not done"),
        ):
            opened.get("/order/1")
        assert time.monotonic() - started < 1.0


def test_a_silent_server_is_not_waited_for() -> None:
    with Plain() as server:
        server.next(Reply(body={}, wait=1.0))
        with (
            session(server.url, read_timeout=0.1) as opened,
            pytest.raises(FailedError, match="tim"),
        ):
            opened.get("/order/1")


@pytest.mark.parametrize(
    "reply", [Reply(breaks="at once"), Reply(body={}, breaks="within the body")]
)
def test_a_cut_connection_is_tried_again_and_its_reason_tells_no_secret(reply: Reply) -> None:
    with Plain() as server:
        server.next(reply)
        with session(server.url) as opened, pytest.raises(FailedError) as caught:
            opened.get("/order/1", {"phone": "380501112233"})
    assert "connection failed" in str(caught.value)
    for secret in ("hidden-token", "38050", "127.0.0.1"):
        assert secret not in str(caught.value)


def test_an_answer_without_end_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LARGEST_ANSWER", 1000)
    with Plain() as server:
        server.next(Reply(body={"long": "x" * 2000}))
        with session(server.url) as opened, pytest.raises(FailedError, match="1000 bytes"):
            opened.get("/order/1")


def test_a_redirect_is_not_read_further_than_any_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LARGEST_ANSWER", 1000)
    with Plain() as crm, session(crm.url) as endless:
        crm.next(Reply(302, b"x" * 2000, {"Location": "/elsewhere"}))
        with pytest.raises(FailedError, match="more than 1000 bytes"):
            endless.get("/deals")
    assert len(crm.calls) == 1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of this machine that nobody vouches for, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CRM")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    written = tmp_path / "certificate.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    written.write_bytes(
        made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return written


def test_a_server_that_nobody_vouches_for_hears_no_token(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Plain() as server:
        server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
        url = server.url.replace("http://", "https://")
        with session(url) as opened, pytest.raises(FailedError, match="SSL"):
            opened.get("/order/1")
        assert server.calls == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with session(url) as opened:
            assert opened.get("/order/1") is not None


def test_a_proxy_of_the_environment_is_asked_with_the_whole_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Plain() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://us:secret@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with session("http://localhost:9/v1") as opened:
            assert opened.get("/order/1", {"page": 2}) is not None
        (call,) = proxy.calls
        assert (call.path, dict(call.query)) == ("/v1/order/1", {"page": "2"})
        assert call.headers["host"] == "localhost:9"
        assert call.headers["proxy-authorization"].startswith("Basic ")


def test_questions_are_sent_as_json_or_as_a_form() -> None:
    with Plain() as server, session(server.url) as opened:
        opened.post("/search?archived=true", {"name": "Кіоск", "ids": [1]})
        opened.post_form("/token", {"grant_type": "x y", "code": "ї&"})
        opened.get("/q", {"q": "SELECT Id FROM Case WHERE A >= 'b+c'"})
    first, second, third = server.calls
    assert (first.query, first.body) == ({"archived": "true"}, {"name": "Кіоск", "ids": [1]})
    assert second.body == {"grant_type": "x y", "code": "ї&"}
    assert third.query == {"q": "SELECT Id FROM Case WHERE A >= 'b+c'"}
    assert {call.headers["accept"] for call in server.calls} == {"application/json"}


def test_a_token_that_no_header_can_hold_is_refused_in_a_line_without_it() -> None:
    for token in ("hidden\ntoken", "hidden-їтoken"):
        with Plain() as server:
            with (
                Api(server.url, ("Authorization", token), wait_unsaid=1.0) as opened,
                pytest.raises(RefusedError, match="signs that a token cannot have") as caught,
            ):
                opened.get("/order/1")
            assert "hidden" not in str(caught.value)
            assert server.calls == []


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.text("%+ &=é~'\n"))))
def test_parameters_are_written_as_any_form_is(params: dict[str, str | int]) -> None:
    assert api._query(params) == urlencode(params)
