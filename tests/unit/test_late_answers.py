"""What is handled in the main loop, where nothing may wait; and answers that nobody reads."""

import io
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.raw_http import chunks, head, whole
from webhook_receiver import late_answers
from webhook_receiver.plain_urls import addressee

TARGET = "/webhooks/keycrm/shop"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("/webhooks/keycrm/shop", ("keycrm", "shop")),
        ("/webhooks/pipedrive/shop-1.eu_2/", ("pipedrive", "shop-1.eu_2")),
        ("/webhooks/hubspot/shop?token=a&project=b", ("hubspot", "shop")),
        ("/webhooks/keycrm?project=shop", ("keycrm", "shop")),
        ("/webhooks/keycrm?project=shop&token=a", ("keycrm", "shop")),
        ("/webhooks/keycrm/?project=shop", None),
        ("/webhooks/keycrm?token=a&project=shop", None),
        ("/webhooks/keycrm?project=", None),
        ("/webhooks/keycrm?project=caf%C3%A9", None),
        ("/webhooks/keycrm/a%2Fb", None),
        ("/webhooks/keycrm/a/b", None),
        ("/webhooks/keycrm", None),
        ("/webhooks/zapier/shop", None),
        ("http://elsewhere/webhooks/keycrm/shop", None),
        ("/healthz", None),
        ("", None),
    ],
)
def test_a_url_is_plain_or_left_to_flask(target: str, meant: tuple[str, str] | None) -> None:
    assert addressee(target) == meant


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The sender's end of a connection, and ours."""
    sender, ours = socket.socketpair()
    with sender, ours:
        yield sender, ours


def connection(ours: socket.socket, read_before: bytes = b"") -> Any:
    unreader = SimpleNamespace(buf=io.BytesIO(read_before))
    return SimpleNamespace(sock=ours, parser=SimpleNamespace(unreader=unreader))


@pytest.mark.parametrize(
    ("request_bytes", "is_whole"),
    [
        (whole(TARGET, b"{}"), True),
        (whole(TARGET, b""), True),
        (whole(TARGET, b"{}", "X-Other: 1"), True),
        (whole(TARGET, b"{}") + whole(TARGET, b"{}"), True),
        (whole(TARGET, b"x" * 60_000), True),
        (whole(TARGET, b"x" * 66_000), False),
        (whole(TARGET, b"{}")[:-1], False),
        (whole(TARGET, b"{}").partition(b"\r\n\r\n")[0], False),
        (b"", False),
        (head(TARGET), False),
        (head(TARGET, CHUNKED) + chunks(b"{}"), False),
        (head(TARGET, CHUNKED, "Content-Length: 2") + chunks(b"{}"), False),
        (head(TARGET, "Content-Length: 2", "Content-Length: 9") + b"{}", False),
        (head(TARGET, "Content-Length: +2") + b"{}", False),
        (head(TARGET, "Content-Length: 2, 9") + b"{}", False),
        (head(TARGET, "X-Content-Length: 2", "Content-Length: 9") + b"{}", False),
        (whole("/webhooks/keycrm", b"{}"), False),
        (whole("/metrics", b""), False),
        (whole(TARGET, b"{}", method="PUT"), False),
    ],
)
def test_what_could_wait_for_its_sender_is_left_to_a_thread(
    ends: tuple[socket.socket, socket.socket], request_bytes: bytes, is_whole: bool
) -> None:
    sender, ours = ends
    sender.sendall(request_bytes)
    assert late_answers._is_whole_delivery(connection(ours)) is is_whole
    if request_bytes:
        assert ours.recv(100_000) == request_bytes, "it was only looked at"


def test_what_began_in_the_bytes_of_the_request_before_is_left_to_a_thread(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    sender, ours = ends
    # The length that counts is that of the first request: these bytes are part of its body.
    sender.sendall(whole(TARGET, b"{}"))
    begun = head(TARGET, "Content-Length: 99999")
    assert not late_answers._is_whole_delivery(connection(ours, read_before=begun))


def test_a_connection_that_is_gone_is_left_to_a_thread(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    _, ours = ends
    ours.close()
    assert not late_answers._is_whole_delivery(connection(ours))


class _Response:
    """As gunicorn's, as far as an answer needs it."""

    headers = (("Content-Length", "2"),)

    def start_response(self, status: str, _headers: object) -> None:
        self.status = status

    def default_headers(self) -> list[str]:
        return [f"HTTP/1.1 {self.status}\r\n"]

    def should_close(self) -> bool:
        return False


def test_who_reads_no_answers_is_not_waited_for(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    sender, ours = ends
    answer = late_answers._Given(connection(ours), _Response(), "200 OK", (), b"{}")
    assert late_answers._send(answer) is True
    assert sender.recv(1000) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            late_answers._send(answer)
