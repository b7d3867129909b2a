"""Reads a request whole, or says why it cannot be: neither gunicorn nor Flask tells a cut body."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from gunicorn.http.errors import NoMoreData, ParseException

from webhook_receiver.checks import Refused
from webhook_receiver.delivery import KEPT_HEADERS
from webhook_receiver.slow_clients import was_late

#: Names of the query parameter that holds a token; queries are neither kept nor logged.
TOKEN_PARAMETERS = ("token", "secret")


def body(environ: Mapping[str, Any], limit: int) -> bytes:
    """The body as it was sent.

    Args:
        environ: The request, as WSGI means it.
        limit: Most bytes that are taken.

    Raises:
        Refused: it is over the limit, cut short, too slow, or not framed as HTTP demands.
    """
    length = environ.get("CONTENT_LENGTH")
    announced = int(length) if length else None  # gunicorn has refused all but digits
    if announced is not None and announced > limit:
        raise Refused(413, "body_too_large")
    try:
        # A chunked body announces nothing: the byte over the limit tells that there is more.
        content: bytes = environ["wsgi.input"].read(limit + 1 if announced is None else announced)
    except ParseException:
        raise Refused(400, "body_malformed") from None
    except (NoMoreData, OSError):
        raise _cut(environ) from None
    if len(content) > limit:
        raise Refused(413, "body_too_large")
    if announced is not None and len(content) < announced:
        raise _cut(environ)
    return content


def _cut(environ: Mapping[str, Any]) -> Refused:
    connection = environ.get("gunicorn.socket")
    if connection is not None and was_late(connection):
        return Refused(408, "sender_too_slow")
    return Refused(400, "body_cut_short")


class Headers(Mapping[str, str]):
    """The headers of a request by their lower-case names, as the WSGI environment holds them.

    The values of a repeated header are joined by commas.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        value: str = self._environ[_variable(name)]
        return value

    def __iter__(self) -> Iterator[str]:
        for name in self._environ:
            if name.startswith("HTTP_") or name == "CONTENT_TYPE":
                yield name.removeprefix("HTTP_").replace("_", "-").lower()

    def __len__(self) -> int:
        return sum(1 for _ in self)


@cache
def _variable(name: str) -> str:
    """The variable that holds a header; the names are those that the receiver asks for, so few."""
    variable = name.upper().replace("-", "_")
    return variable if name == "content-type" else f"HTTP_{variable}"


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are stored with a delivery."""
    return {name: headers[name].replace("\0", "") for name in KEPT_HEADERS if name in headers}


def token(query: str) -> str | None:
    """The token in a query string; None where there is none."""
    for name, value in parse_qsl(query, errors="surrogateescape"):
        if name in TOKEN_PARAMETERS:
            return value
    return None
