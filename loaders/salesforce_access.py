"""How an organisation's Salesforce is opened, and what its answers mean that are no success.

A stored token is one of three, told by its colons: an access token; ``client_id:client_secret`` of
an app that may act by itself (its base URL is the organisation's My Domain); or these two with a
refresh token behind them, which each use replaces by another one.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from loaders.api import (
    DAILY_PROBE,
    Api,
    ApiError,
    FailedError,
    RefusedError,
    ThrottledError,
)
from loaders.calls import DEADLINE, Calls, LaterError, Turns
from loaders.pace import CALLS
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts
from stageline.settings.api_accounts import ApiAccount

#: Seconds to wait where too many long requests run at once, and after a 429, which says nothing.
CONCURRENCY_WAIT, UNSAID_WAIT = 15.0, 10.0

#: Share of the calls that an organisation has in 24 hours above which a load leaves the rest to
#: others: they are one budget for everything that is connected to it.
_MOST_OF_BUDGET = 0.95

_TOKEN_PATH = "/services/oauth2/token"  # noqa: S105 - a path
_USAGE = re.compile(r"(?:^|[;,\s])api-usage=([0-9]+)/([0-9]+)")
_NO_COLUMN = re.compile(r"No such column '([A-Za-z0-9_.]{1,120})'")

_Answer = TypeVar("_Answer")


class ExpiredError(RefusedError):
    """The session is over, or there never was one."""


class TooLongError(ApiError):
    """Salesforce gave up on a query: to be asked for less at once."""


class LostPlaceError(ApiError):
    """Salesforce no longer knows what the next page of a query is."""


#: What the token endpoint says -> what is wrong.
_REFUSALS = {
    "invalid_client": "it does not know the client id or secret",
    "invalid_client_id": "it does not know the client id",
    "invalid_grant": "the refresh token, or the user that the app runs as, is no longer valid",
    "inactive_user": "the user that the app runs as is inactive",
    "inactive_org": "the organisation is closed",
    "invalid_app_access": "the app is not approved for its user",
    "unauthorized_client": "the app may not sign in this way",
    "unsupported_grant_type": "the app may not sign in this way; is the base URL the My Domain?",
}

#: Code of an error -> what is wrong with the one object that was asked for.
_LACKS = {
    "INVALID_TYPE": "the organisation does not have it, or its user may not see it",
    "NOT_FOUND": "the organisation does not have it, or its user may not see it",
    "INSUFFICIENT_ACCESS": "its user may not see it",
    "INSUFFICIENT_ACCESS_OR_READONLY": "its user may not see it",
}


@dataclass(frozen=True)
class Login:
    """How an app signs in."""

    client_id: str
    client_secret: str
    refresh_token: str | None = None

    @classmethod
    def of(cls, token: str) -> "Login | None":
        """What a stored token says; None where it is an access token.

        Raises:
            StagelineError: it is none of the three.
        """
        parts = token.split(":")
        if len(parts) == 1:
            return None
        if len(parts) > 3 or not all(parts):
            raise StagelineError(
                "A token of salesforce is an access token, client_id:client_secret, or"
                " client_id:client_secret:refresh_token."
            )
        return cls(*parts)

    @property
    def token(self) -> str:
        """As it is stored."""
        parts = [self.client_id, self.client_secret, self.refresh_token]
        return ":".join(part for part in parts if part)

    @property
    def header(self) -> tuple[str, str]:
        """What shows the token endpoint which app asks."""
        shown = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return ("Authorization", f"Basic {shown}")

    @property
    def form(self) -> Mapping[str, str]:
        """What the token endpoint is asked."""
        if self.refresh_token is None:
            return {"grant_type": "client_credentials"}
        return {"grant_type": "refresh_token", "refresh_token": self.refresh_token}


@dataclass(frozen=True)
class _Session:
    """What the token endpoint answered."""

    access_token: str
    instance_url: str
    refresh_token: str | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "_Session":
        access, refresh = answer.get("access_token"), answer.get("refresh_token")
        if not isinstance(access, str) or not access:
            raise FailedError("an answer without an access token")
        try:
            instance = api_accounts.require_url(str(answer.get("instance_url")))
        except StagelineError:
            raise FailedError("an answer that does not say where the API is") from None
        return cls(access, instance, refresh if isinstance(refresh, str) and refresh else None)


class SalesforceCalls(Calls):
    """The way to the API of an organisation: signs in before the first call, and when it has to."""

    def __init__(self, turns: Turns, account: ApiAccount) -> None:
        self._base_url = account.base_url
        self._login = Login.of(account.token)
        self._is_open = self._login is None
        self._is_used_up = False
        super().__init__(
            Api(
                account.base_url,
                ("Authorization", f"Bearer {account.token}" if self._is_open else "none"),
                wait_unsaid=UNSAID_WAIT,
                judge=judge,
                deadline=DEADLINE,
            ),
            turns,
        )

    def ask(self, question: Callable[[], _Answer], kind: str = CALLS) -> _Answer:
        """What ``question`` gives; signs in again, once, where the session is over.

        Raises:
            LaterError: the account may not be called for long.
            ApiError: there is no answer, however often it is asked for.
        """
        if self._is_used_up:
            error = ThrottledError(
                "most calls that the organisation has in 24 hours are used up; the rest is left"
                " to others",
                DAILY_PROBE,
            )
            self._turns.block(error)
            raise LaterError(str(error), error.seconds)
        if not self._is_open:
            self._sign_in()
        try:
            answer = super().ask(question, kind)
        except ExpiredError:
            if self._login is None:
                raise
            self._sign_in()
            answer = super().ask(question, kind)
        if usage := _USAGE.search(self.api.headers.get("Sforce-Limit-Info") or ""):
            self._is_used_up = int(usage[1]) >= int(usage[2]) * _MOST_OF_BUDGET
        return answer

    def _sign_in(self) -> None:
        self._is_open = False
        if self._login is not None and self._login.refresh_token is None:
            session = self._session_of(self._login)
        else:
            session = self._renewed_session()
        # Only now: the new refresh token is on the disk, so that nothing can be lost with it.
        self.api.open_with(
            ("Authorization", f"Bearer {session.access_token}"), session.instance_url
        )
        self._is_open = True

    def _renewed_session(self) -> _Session:
        sessions = []

        def renewed(stored: str) -> str:
            login = Login.of(stored)
            if login is None or login.refresh_token is None:
                raise RefusedError("another token was stored meanwhile; run it again")
            session = self._session_of(login)
            sessions.append(session)
            if session.refresh_token is None:
                return stored
            return replace(login, refresh_token=session.refresh_token).token

        with connect("loader", autocommit=True) as database:
            api_accounts.renew(database, *self._turns.account, renewed)
        return sessions[-1]

    def _session_of(self, login: Login) -> _Session:
        def question() -> _Session:
            self.api.open_with(login.header, self._base_url)
            answer = self.api.post_form(_TOKEN_PATH, login.form)
            if answer is None:
                raise RefusedError("it has no token endpoint: is the base URL the login host?")
            return _Session.of(answer)

        return super().ask(question)


def judge(status: int, _headers: Mapping[str, str], body: bytes) -> ApiError | None:
    """What an answer of Salesforce means that is no success; None = what it means everywhere."""
    said = _said(body)
    if isinstance(said, dict):
        return _refused_login(said) if status in (400, 401) else None
    code, message = said
    if code == "REQUEST_LIMIT_EXCEEDED":
        if "concurrent" in message.lower():
            return ThrottledError("too many long requests at once", CONCURRENCY_WAIT)
        return ThrottledError(
            "the calls that the organisation has in 24 hours are used up", DAILY_PROBE
        )
    if code == "INVALID_SESSION_ID":
        return ExpiredError(f"HTTP {status}: the access token is wrong or no longer valid")
    if code == "QUERY_TIMEOUT":
        return TooLongError("a query that takes Salesforce too long")
    if code == "INVALID_QUERY_LOCATOR":
        return LostPlaceError("the next page of a query is no longer there")
    if code == "INVALID_FIELD":
        named = _NO_COLUMN.search(message)
        which = f"field {named[1]}" if named else "a field"
        return RefusedError(
            f"the organisation has no {which}, or hides it from its user", concerns_account=False
        )
    if code in ("API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED"):
        return RefusedError("the edition of the organisation, or its user, has no API")
    if code in _LACKS:
        return RefusedError(_LACKS[code], concerns_account=False)
    if status == 400 and code:
        return RefusedError(f"HTTP 400: {code}", concerns_account=False)
    return None


def _said(body: bytes) -> dict[str, Any] | tuple[str, str]:
    """Code and message of an error; what the token endpoint says is an object."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if isinstance(said, dict) and "error" in said:
        return said
    first = said[0] if isinstance(said, list) and said else None
    if not isinstance(first, dict):
        return "", ""
    code, message = str(first.get("errorCode")), str(first.get("message"))
    return code if re.fullmatch("[A-Z_]{1,60}", code) else "", message


def _refused_login(said: dict[str, Any]) -> ApiError:
    reason = _REFUSALS.get(str(said["error"]), "it does not say why")
    return RefusedError(f"Salesforce refuses to sign the app in: {reason}")
