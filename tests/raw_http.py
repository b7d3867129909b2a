"""HTTP as it is on the wire, for what clients with good manners cannot send."""

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What came back on a connection.

    Attributes:
        status: 0 where the connection ended without an answer.
        headers: By name in lower case.
        seconds: From the first byte that was sent to the end of the answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def head(target: str, *lines: str | bytes, method: str = "POST", version: str = "1.1") -> bytes:
    """A request line and headers, to the empty line after them; ``Host`` comes by itself."""
    first = (f"{method} {target} HTTP/{version}", "Host: receiver.test", *lines)
    encoded = [line.encode("latin-1") if isinstance(line, str) else line for line in first]
    return b"\r\n".join((*encoded, b"", b""))


def whole(target: str, body: bytes, *lines: str | bytes, method: str = "POST") -> bytes:
    """A request with its body, of a length that is told."""
    return head(target, f"Content-Length: {len(body)}", *lines, method=method) + body


def chunks(*parts: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def send(port: int, *pieces: bytes | float, hang_up: bool = False, timeout: float = 15.0) -> Answer:
    """Sends ``pieces`` on a connection of its own and reads the answer.

    Args:
        port: Where on 127.0.0.1.
        pieces: Bytes, and in between the seconds to wait.
        hang_up: Say that nothing more will come, and go on listening (a half-closed connection).
        timeout: Seconds after which silence is an error.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.monotonic()
        try:
            _write(connection, pieces)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was answered before it was read whole
        return read(connection, started, has_body=not any(map(_is_head, pieces[:1])))


def read(
    connection: socket.socket, started: float | None = None, *, has_body: bool = True
) -> Answer:
    """The next answer on an open connection; one to HEAD tells of a body and has none."""
    began = time.monotonic() if started is None else started
    received = b""
    wanted: int | None = None
    while wanted is None or len(received) < wanted:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            break
        received += more
        received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        if wanted is None:
            wanted = _length(received, has_body)
    seconds = time.monotonic() - began
    top, _, body = received.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    if not first:
        return Answer(0, {}, b"", seconds)
    headers = dict(_header(line) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, body, seconds)


def _write(connection: socket.socket, pieces: Iterable[bytes | float]) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            connection.sendall(piece)
        else:
            time.sleep(piece)


def _is_head(piece: bytes | float) -> bool:
    return isinstance(piece, bytes) and piece.startswith(b"HEAD ")


def _length(received: bytes, has_body: bool) -> int | None:
    """Bytes of the whole answer, once its headers are there and if they tell."""
    top, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        return None
    headers = dict(_header(line) for line in top.decode("latin-1").split("\r\n")[1:])
    length = headers.get("content-length") if has_body else "0"
    return None if length is None else len(top) + len(end) + int(length)


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()
