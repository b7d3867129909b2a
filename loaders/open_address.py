"""An address that is open to everyone: nothing secret is sent to it, so redirects are followed.

Where an address leads on, it may lead to https alone, and to addresses of the internet: not into
the network that this machine stands in, whose services trust who can reach them. That is judged by
what a connection has reached, before anything is sent, so that no name can be looked up twice with
two answers. A proxy that the environment names judges for itself.
"""

import ipaddress
import socket
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import exceptions as transport
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from loaders.api import Api, FailedError, RefusedError, is_loopback, read_answer

#: Redirects in a row that are followed.
MOST_REDIRECTS = 5

_ACCEPTS = ("Accept", "text/csv, */*;q=0.1")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LONGEST_ADDRESS = 4_000
#: What of IPv6 is given out (RFC 4291), and what of that stands for other addresses.
_GIVEN_OUT = ipaddress.ip_network("2000::/3")
_STANDING_FOR_OTHERS = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))


class OpenAddress(Api):
    """An address without a token, as an `Api` that can be downloaded from alone.

    Args:
        url: Where it is. Where that is this machine, it may lead on within this machine.
        wait_unsaid, deadline: As of `Api`.
    """

    def __init__(self, url: str, *, wait_unsaid: float, deadline: float) -> None:
        super().__init__(url, _ACCEPTS, wait_unsaid=wait_unsaid, deadline=deadline)
        self._url, self._unsaid = url, wait_unsaid
        self._stays_here = is_loopback(url)
        self._first, self._beyond = _Session(), _Session()
        for scheme in ("http://", "https://"):
            self._beyond.mount(scheme, _Outside(self._stays_here))

    def __exit__(self, *of: object) -> None:
        self._first.close()
        self._beyond.close()
        super().__exit__(*of)

    def download(self, path: str) -> bytes:
        """The body at ``path``, or where that leads to.

        Raises:
            ApiError: in one of its three kinds.
        """
        _require_way(self._url, from_here=self._stays_here)
        session, url = self._first, self._url + path
        for _ in range(MOST_REDIRECTS + 1):
            status, headers, body = self._fetch(session, url)
            if status not in _REDIRECTS:
                if 200 <= status < 300:
                    return body
                read_answer(status, headers, body, self._unsaid)
                raise RefusedError(f"HTTP {status}: is the address right?")
            url = _next(url, headers.get("Location"))
            _require_way(url, from_here=self._stays_here)
            session = self._beyond
        raise RefusedError(f"an address that leads on more than {MOST_REDIRECTS} times")

    def _fetch(self, session: requests.Session, url: str) -> tuple[int, Any, bytes]:
        session.cookies.clear()
        left = self._left()
        connect_timeout, read_timeout = self._timeouts
        try:
            with session.get(
                url,
                timeout=(min(connect_timeout, left), min(read_timeout, left)),
                stream=True,
                allow_redirects=False,
            ) as response:
                return response.status_code, response.headers, self._body(response.raw)
        except _InsideError:
            raise RefusedError("an address that leads into the network of this machine") from None
        except (requests.Timeout, transport.TimeoutError):
            raise FailedError("no answer in time") from None
        except (requests.RequestException, transport.HTTPError) as error:  # its text holds the URL
            raise FailedError(f"the connection failed ({type(error).__name__})") from None


def _next(url: str, location: str | None) -> str:
    """Where an address leads to."""
    try:
        following = urljoin(url, location) if location else ""
    except ValueError:
        following = ""
    if not following or len(following) > _LONGEST_ADDRESS:
        raise RefusedError("an address that leads to none")
    return following


def _require_way(url: str, *, from_here: bool) -> None:
    """Refuses what may not be asked; ``from_here`` = this machine may ask itself."""
    try:
        parts = urlsplit(url)
        host, login = parts.hostname, parts.username or parts.password
    except ValueError:
        host, login = None, None
    if not host or login:
        raise RefusedError("an address that leads to none that can be asked")
    if parts.scheme != "https" and not (from_here and parts.scheme == "http" and is_loopback(url)):
        raise RefusedError("an address that leads to one that does not begin with https://")


class NoRedirects(requests.Session):
    """A session that leaves redirects to its caller: requests would read the whole body of each."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - its name there
        return None


class _Session(NoRedirects):
    def __init__(self) -> None:
        super().__init__()
        self.auth = _Accepts()


class _Accepts(AuthBase):
    """Says what is accepted, and keeps a ~/.netrc from saying who asks."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        name, value = _ACCEPTS
        request.headers[name] = value
        return request


class _InsideError(Exception):
    """A connection that was made is not with the internet."""


def _require_outside(made: socket.socket, *, from_here: bool) -> None:
    address = ipaddress.ip_address(made.getpeername()[0].partition("%")[0])
    if not (is_outside(address) or (from_here and address.is_loopback)):
        made.close()
        raise _InsideError


def is_outside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet, and stands for no other one."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _GIVEN_OUT or any(address in each for each in _STANDING_FOR_OTHERS)
    ):
        return False
    return address.is_global and not address.is_multicast


class _Outside(HTTPAdapter):
    """Makes connections that lead to the internet alone."""

    def __init__(self, from_here: bool) -> None:
        self._from_here = from_here
        super().__init__()

    def init_poolmanager(self, *of: Any, **more: Any) -> None:
        """Has each connection looked at once it is made, which urllib3 does in `_new_conn`."""
        from_here = self._from_here

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                _require_outside(made, from_here=from_here)
                return made

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                made = super()._new_conn()
                _require_outside(made, from_here=from_here)
                return made

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        super().init_poolmanager(*of, **more)
        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
