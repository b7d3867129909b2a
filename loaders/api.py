"""Calls to the API of a CRM: with its token, bounded in time and size, and with few outcomes.

What a CRM answers is a JSON object, or that it does not know what it was asked for (None). All else
is an `ApiError`, of one of three kinds that differ in what helps: to wait as long as the CRM says,
to have a person correct the account, or to try again. Its reason never holds a token, a query or
anything that the CRM said, so it can be logged and shown.
"""

import ipaddress
import json
import re
import string
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Timeout
from urllib3 import exceptions as transport

#: Largest answer that is read, in bytes after decompression.
LARGEST_ANSWER = 16 * 1024 * 1024

#: Seconds: the least and the most that a CRM's wish to be left alone is taken to mean.
SHORTEST_WAIT, LONGEST_WAIT = 1.0, 86_400.0
#: Seconds after which a daily budget is probed, and an API behind a wall, where neither says when.
DAILY_PROBE, WALL_PROBE = 3_600.0, 900.0
#: A reset sooner than this is the short window's, not that of the daily budget (pipedrive 1.9).
_LEAST_DAILY_RESET = 60.0

_Read = TypeVar("_Read")

_PIECE = 64 * 1024
#: What a parameter holds as it is; but a blank, which is a plus there.
_SAFE = frozenset(string.ascii_letters + string.digits + "_.-~ ")
#: What goes with each call.
_HEADERS = {**requests.utils.default_headers(), "Accept": "application/json"}


class ApiError(Exception):
    """The CRM gave no answer; the message is the reason, for a person to read."""


class FailedError(ApiError):
    """It failed in a way that may pass: to be tried again.

    Attributes:
        after: Seconds to wait at least; None where the CRM did not say.
    """

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class TooLargeError(FailedError):
    """The answer is larger than any that is read: to be asked for in parts."""


class ThrottledError(ApiError):
    """The account has used up what it may ask for: to be tried again after ``seconds``."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)


class RefusedError(ApiError):
    """Token, rights or address are wrong: a person has to correct them.

    Attributes:
        concerns_account: Whether every other question would be refused, too.
    """

    def __init__(self, reason: str, *, concerns_account: bool = True) -> None:
        super().__init__(reason)
        self.concerns_account = concerns_account


#: What a CRM means by an answer that is no success, given status, headers and body; None = what
#: such an answer means everywhere.
Judge = Callable[[int, Mapping[str, str], bytes], ApiError | None]


class Api:
    """The API of one account during one task. A context manager; not for several threads.

    Args:
        base_url: Without a slash at its end.
        token_header: Name and value of the header that opens it.
        before_call: Is called before each call; waits for the account's turn, or raises.
        wait_unsaid: Seconds to wait after a 429 that does not say how long.
        judge: Is asked first what an answer means that is no success.
        deadline: Seconds that all calls together may take, from the first one or from `begin` on.
            A call in progress is stopped between two reads.
        connect_timeout, read_timeout: Seconds for the connection, and for each read.

    Attributes:
        headers: Those of the last answer; they are found by names in any case.
    """

    def __init__(
        self,
        base_url: str,
        token_header: tuple[str, str],
        *,
        before_call: Callable[[], None] = lambda: None,
        wait_unsaid: float,
        judge: Judge = lambda *_: None,
        deadline: float = 50.0,
        connect_timeout: float = 5.0,
        read_timeout: float = 20.0,
    ) -> None:
        self._before_call = before_call
        self._wait_unsaid, self._judge = wait_unsaid, judge
        self.headers: Mapping[str, str] = {}
        self._deadline = deadline
        self._ends_at = time.monotonic() + deadline
        self._timeouts = (connect_timeout, read_timeout)
        self._token_header = token_header
        self._go_to(base_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._way.close()

    def get(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """The JSON object at ``path``, numbers exact (Decimal); None where there is none (404).

        Raises:
            ApiError: in one of its three kinds.
        """
        return self._ask("GET", path, json_object, params=params, headers=headers)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON object that answers a question of JSON; None where there is none (404).

        Raises:
            ApiError: in one of its three kinds.
        """
        return self.post_for(path, body, json_object)

    def post_for(
        self, path: str, body: Mapping[str, Any], read: Callable[[bytes], _Read | None]
    ) -> _Read | None:
        """What ``read`` makes of the answer to a question of JSON; None where there is none (404).

        Args:
            path, body: The question.
            read: Gives None for what is no JSON object.

        Raises:
            ApiError: in one of its three kinds.
        """
        written = json.dumps(body, allow_nan=False).encode()
        kind = {"Content-Type": "application/json"}
        return self._ask("POST", path, read, body=written, headers=kind)

    def download(self, path: str) -> bytes:
        """The body at ``path`` as it is.

        Raises:
            ApiError: in one of its three kinds.
        """
        body = self._ask("GET", path, bytes)
        if body is None:
            raise RefusedError("HTTP 404: is the address right?")
        return body

    def post_form(self, path: str, fields: Mapping[str, str]) -> dict[str, Any] | None:
        """The JSON object that answers a form; None where there is none (404).

        Raises:
            ApiError: in one of its three kinds.
        """
        written = urlencode(fields).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, json_object, body=written, headers=kind)

    def open_with(self, token_header: tuple[str, str], base_url: str | None = None) -> None:
        """Goes on with another token, and at another address where one is given."""
        self._token_header = token_header
        if base_url is not None:
            self._way.close()
            self._go_to(base_url)

    def begin(self) -> None:
        """The deadline counts from now on."""
        self._ends_at = time.monotonic() + self._deadline

    def _go_to(self, base_url: str) -> None:
        self._base_url = base_url
        self._way = _Way(base_url)

    def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], _Read | None],
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> _Read | None:
        _require_safe(self._base_url)
        self._before_call()
        connect_timeout, read_timeout = self._timeouts
        left = self._left()
        timeouts = Timeout(connect=min(connect_timeout, left), read=min(read_timeout, left))
        asked = f"{path}?{_query(params)}" if params else path
        told = {**_HEADERS, **(headers or {}), **dict([self._token_header])}
        try:
            with self._way.ask(method, asked, told, body, timeouts) as response:
                answer = self._body(response)
        except transport.TimeoutError:
            raise FailedError("no answer in time") from None
        except transport.HTTPError as error:  # its text holds the URL
            raise FailedError(f"the connection failed ({type(error).__name__})") from None
        except ValueError:  # its text holds the token
            raise RefusedError("the token has signs that a token cannot have") from None
        self.headers = response.headers
        status = response.status
        if 200 <= status < 300:
            return _told(status, answer, read)
        judged = None if status < 400 else self._judge(status, self.headers, answer)
        if judged is not None:
            raise judged
        read_answer(status, self.headers, answer, self._wait_unsaid)
        return None

    def _body(self, response: BaseHTTPResponse) -> bytes:
        body = bytearray()
        # Unlike other ways to read, it comes back after each piece, however small.
        while piece := response.read1(_PIECE, decode_content=True):
            body += piece
            if len(body) > LARGEST_ANSWER:
                raise TooLargeError(f"an answer of more than {LARGEST_ANSWER} bytes")
            self._left()
        return bytes(body)

    def _left(self) -> float:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise FailedError(f"not done after {self._deadline:g} s")
        return left


class _Way:
    """The way to an address: by the proxies, and with the certificates, of the environment.

    They are looked up by requests, once. To ask by its sessions, which look at all of that and more
    for each call, takes longer than the call itself. It knows no cookies, and no ~/.netrc.
    """

    def __init__(self, base_url: str) -> None:
        with requests.Session() as session:
            given = session.merge_environment_settings(base_url, {}, None, None, None)
        question = requests.Request("GET", base_url).prepare()
        self._adapter = HTTPAdapter()
        self._pool = self._adapter.get_connection_with_tls_context(
            question, given["verify"], proxies=given["proxies"]
        )
        self._adapter.cert_verify(self._pool, base_url, given["verify"], None)
        # The whole address, where a proxy is to be told it.
        self._begin = self._adapter.request_url(question, given["proxies"]).rstrip("/")
        self._asked = ""
        way = self
        of_scheme: Any = self._pool.ConnectionCls

        class Connection(of_scheme):  # type: ignore[misc]  # of either scheme
            def request(self, method: str, _url: str, *more: Any, **named: Any) -> None:
                super().request(method, way._asked, *more, **named)

        self._pool.ConnectionCls = Connection

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeouts: Timeout,
    ) -> BaseHTTPResponse:
        """The answer to a question, whose body is yet to be read."""
        self._asked = self._begin + path
        return self._pool.urlopen(
            method,
            # It would look at each letter, of which a query has thousands, and none is amiss.
            self._begin + path.partition("?")[0],
            body,
            headers,
            retries=False,
            redirect=False,  # the token is for this host alone
            assert_same_host=False,
            timeout=timeouts,
            preload_content=False,
            decode_content=False,
        )

    def close(self) -> None:
        """Ends its connections."""
        self._adapter.close()


def _query(params: Mapping[str, str | int]) -> str:
    """Parameters as an address has them."""
    return "&".join(f"{_encoded(name)}={_encoded(str(value))}" for name, value in params.items())


def _encoded(text: str) -> str:
    """As ``quote_plus`` writes it, which looks at one letter after the other."""
    if not text.isascii():
        return quote_plus(text)
    unsafe = set(text) - _SAFE
    for letter in sorted(unsafe, key="%".__ne__):  # before it stands for others
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text.replace(" ", "+")


def path_id(entity_id: str) -> str:
    """An id for use in a path; deliveries can hold any text where one is meant.

    Raises:
        RefusedError: it is not a number, which all ids of these APIs are.
    """
    if not re.fullmatch("[0-9]+", entity_id):
        raise RefusedError("its id is not a number", concerns_account=False)
    return entity_id


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is, numbers exact (Decimal); None where it is none."""
    try:
        answer = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, wait_unsaid: float
) -> dict[str, Any] | None:
    """What an HTTP answer means: its JSON object, or None for 404.

    Args:
        status, headers, body: The answer; ``headers`` finds names in any case.
        wait_unsaid: Seconds to wait after a 429 that does not say how long.

    Raises:
        ApiError: in one of its three kinds.
    """
    if 200 <= status < 300:
        return _told(status, body, json_object)
    if status == 404:
        if json_object(body) is None:  # a web server's page, not the API's word (contract 2.1)
            raise RefusedError("HTTP 404 without JSON: is the base URL of the API right?")
        return None
    if status == 429:
        raise _throttled(headers, wait_unsaid)
    if status == 403 and _is_page(headers, body):  # for clients that ignore 429 (pipedrive 1.9)
        wait = retry_after(headers)
        raise ThrottledError(
            "HTTP 403 with a page instead of JSON: a wall before the API keeps us out",
            WALL_PROBE if wait is None else wait,
        )
    if refusal := _refusal(status):
        raise refusal
    raise FailedError(f"HTTP {status}", retry_after(headers))


def _told(status: int, body: bytes, read: Callable[[bytes], _Read | None]) -> _Read:
    answer = read(body)
    if answer is None:  # Pipedrive answers /flow with 200 and `null` at times (contract 1.3)
        raise FailedError(f"HTTP {status} with a body that is no JSON object")
    return answer


def _refusal(status: int) -> RefusedError | None:
    if 300 <= status < 400:
        return RefusedError(f"HTTP {status}: a redirect; is the base URL of the API right?")
    if status == 403:  # may be about this one deal or order
        return RefusedError("HTTP 403: the API token lacks a right", concerns_account=False)
    reasons = {
        401: "the API token is wrong or no longer valid",
        402: "the account at the CRM is closed, or not paid for",
    }
    return RefusedError(f"HTTP {status}: {reasons[status]}") if status in reasons else None


def _throttled(headers: Mapping[str, str], wait_unsaid: float) -> ThrottledError:
    wait = retry_after(headers)
    if wait is None:
        wait = _seconds(headers.get("x-ratelimit-reset"))
    if (headers.get("x-daily-ratelimit-token-remaining") or "").strip() == "0":
        if wait is None or wait < _LEAST_DAILY_RESET:
            wait = DAILY_PROBE
        return ThrottledError("HTTP 429: the daily budget of the CRM account is used up", wait)
    return ThrottledError("HTTP 429: too many calls", wait_unsaid if wait is None else wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks to wait for, given as such or as an HTTP date."""
    written = headers.get("Retry-After")
    seconds = _seconds(written)
    if seconds is not None or not written:
        return seconds
    now = http_date(headers.get("Date")) or datetime.now(UTC)
    until = http_date(written)
    return None if until is None else max((until - now).total_seconds(), 0.0)


def _seconds(written: str | None) -> float | None:
    try:
        seconds = float(written or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def http_date(written: str | None) -> datetime | None:
    """The instant that a header of HTTP tells; None where it tells none."""
    try:
        read = parsedate_to_datetime(written or "")
    except ValueError:
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_page(headers: Mapping[str, str], body: bytes) -> bool:
    kind = headers.get("Content-Type") or ""
    return "html" in kind.lower() or body.lstrip()[:1] == b"<"


def _require_safe(base_url: str) -> None:
    """Keeps a token from going through a network in the clear; on this machine it may."""
    if urlsplit(base_url).scheme != "https" and not is_loopback(base_url):
        raise RefusedError("the base URL of the API does not begin with https://")


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
