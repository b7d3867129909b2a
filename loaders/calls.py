"""Calls of a load: at the account's pace, repeated where that helps, and ended where it does not.

A load asks thousands of questions in a row, so what passes is waited out here: a short limit, a
server that fails, a cut connection. What does not pass within minutes ends the load cleanly
(`LaterError`); the next one goes on where this one stopped.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import psycopg
import tenacity

from loaders.api import (
    DAILY_PROBE,
    Api,
    ApiError,
    FailedError,
    ThrottledError,
    TooLargeError,
    http_date,
)
from loaders.pace import CALLS, Account, BusyError, Pace, block, reserve
from stageline.errors import StagelineError
from stageline.progress import log

#: Seconds that a load waits for an account to be open again; it ends where that takes longer.
PATIENCE = 120.0
#: Times that a question is asked that fails, and seconds of the longest pause in between.
ATTEMPTS, LONGEST_PAUSE = 7, 30.0
#: Times that a question is asked that is answered with a short limit. Not every CRM says that the
#: budget of the day is used up: to be told so again and again means it.
THROTTLED = 20
#: Seconds by which this machine's clock may be ahead of the CRM's.
FAST_CLOCK = 300.0
#: Seconds for which turns hold that were taken beforehand.
HELD = 1.0
#: Seconds that a single answer may take.
DEADLINE = 90.0

_Answer = TypeVar("_Answer")


class LaterError(Exception):
    """The account may not be called for long; the message says why.

    Attributes:
        at: When it may be called again, as far as known.
    """

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.at = datetime.now(UTC) + timedelta(seconds=seconds)


class Turns:
    """The budget of an account, which all processes that call it share. For several threads.

    Args:
        jobs: A connection of the jobs, in autocommit mode.
        account: The account.
        paces: Kind of call -> how often it may be made; holds `pace.CALLS`, which all calls count
            for.

    Attributes:
        account: The account.
    """

    def __init__(
        self, jobs: psycopg.Connection[Any], account: Account, paces: Mapping[str, Pace]
    ) -> None:
        self._jobs, self.account, self._paces = jobs, account, paces
        self._lock = threading.Lock()
        #: Kind of call -> turns that were taken beforehand, and until when they hold.
        self._taken: dict[str, tuple[int, float]] = {}

    def wait(self, kind: str) -> None:
        """Sleeps until the account's turn.

        Raises:
            LaterError: it does not come within `PATIENCE`.
        """
        kinds = (kind, CALLS) if kind != CALLS else (CALLS,)
        until = time.monotonic() + PATIENCE
        for each in kinds:
            while True:
                left = until - time.monotonic()
                try:
                    if pause := self._take(each, left):
                        time.sleep(pause)  # of no time at all, it ends when a processor is free
                    break
                except BusyError as error:
                    if error.seconds > left:
                        raise LaterError(str(error), error.seconds) from None
                    time.sleep(error.seconds)

    def _take(self, kind: str, patience: float) -> float:
        """Takes a turn, or some that lie close together; gives the seconds to wait for it."""
        with self._lock:
            count, until = self._taken.get(kind, (0, 0.0))
            if count and time.monotonic() < until:
                self._taken[kind] = count - 1, until
                return 0.0
        pace = self._paces[kind]
        pause = reserve(self._jobs, self.account, pace, patience, kind, pace.together)
        with self._lock:
            self._taken[kind] = pace.together - 1, time.monotonic() + pause + HELD
        return pause

    def block(self, error: ThrottledError) -> None:
        """Keeps all processes from calling for as long as the CRM wants to be left alone."""
        with self._lock:
            self._taken.clear()
        block(self._jobs, self.account, error.seconds, str(error))


class Calls:
    """The way of a load to the API of an account. Not for several threads.

    Args:
        api: The API, with a deadline for a single answer.
        turns: The account's budget.

    Attributes:
        api: The API.
        made: Kind of call -> how many were made.
    """

    def __init__(self, api: Api, turns: Turns) -> None:
        self.api = api
        self.made: Counter[str] = Counter()
        self._turns = turns

    def get(
        self, path: str, params: Mapping[str, str | int] | None = None, kind: str = CALLS
    ) -> dict[str, Any] | None:
        """The JSON object at ``path``, numbers exact; None where there is none (404).

        Raises:
            LaterError: the account may not be called for long.
            ApiError: there is no answer, however often it is asked for.
        """
        return self.ask(lambda: self.api.get(path, params), kind)

    def post(self, path: str, body: Mapping[str, Any], kind: str = CALLS) -> dict[str, Any] | None:
        """The JSON object that answers a question of JSON; None where there is none (404).

        Raises:
            LaterError: the account may not be called for long.
            ApiError: there is no answer, however often it is asked for.
        """
        return self.ask(lambda: self.api.post(path, body), kind)

    def post_for(
        self, path: str, body: Mapping[str, Any], read: Callable[[bytes], _Answer | None]
    ) -> _Answer | None:
        """What ``read`` makes of the answer to a question of JSON, as `Api.post_for` has it.

        Raises:
            LaterError: the account may not be called for long.
            ApiError: there is no answer, however often it is asked for.
        """
        return self.ask(lambda: self.api.post_for(path, body, read))

    def ask(self, question: Callable[[], _Answer], kind: str = CALLS) -> _Answer:
        """What ``question`` gives, which is one call of the API.

        Raises:
            LaterError: the account may not be called for long.
            ApiError: there is no answer, however often it is asked for.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=_pause,
            stop=_is_hopeless,
            before_sleep=_tell,
            reraise=True,
        )

        def once() -> _Answer:
            self._turns.wait(kind)
            self.made[kind] += 1
            self.api.begin()
            try:
                return question()
            except ThrottledError as error:
                self._turns.block(error)
                if error.seconds > PATIENCE:
                    raise LaterError(str(error), error.seconds) from None
                raise

        try:
            answer = attempts(once)
        except ThrottledError as error:
            raise LaterError(f"{error}, again and again", DAILY_PROBE) from None
        _require_clock(self.api.headers.get("Date"))
        return answer


def fitting(question: Callable[[int], _Answer], size: int, least: int = 1) -> tuple[_Answer, int]:
    """What ``question`` gives for a page of so many records, or half as many until it can be read.

    Returns:
        The answer, and the size with which to go on.

    Raises:
        TooLargeError: a page of ``least`` records cannot be read either.
        ApiError: as ``question`` does.
    """
    while True:
        try:
            return question(size), size
        except TooLargeError:
            if size <= least:
                raise
            size = max(size // 2, least)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, FailedError | ThrottledError) and not isinstance(error, TooLargeError)


def _error_of(state: tenacity.RetryCallState) -> ApiError:
    error = state.outcome.exception() if state.outcome else None
    return cast(ApiError, error)  # nothing else is tried again


_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE)


def _pause(state: tenacity.RetryCallState) -> float:
    error = _error_of(state)
    if isinstance(error, ThrottledError):
        return 0.0  # the account is blocked for as long as it takes: its turn comes after that
    asked = error.after if isinstance(error, FailedError) and error.after else 0.0
    return max(_backoff(state), min(asked, PATIENCE))


def _is_hopeless(state: tenacity.RetryCallState) -> bool:
    most = ATTEMPTS if isinstance(_error_of(state), FailedError) else THROTTLED
    return state.attempt_number >= most


def _require_clock(date: str | None) -> None:
    """What changed is asked for up to now by this machine's clock: were it ahead of the CRM's, the
    next load would begin after changes that this one could not see.
    """
    at = http_date(date)
    ahead = (datetime.now(UTC) - at).total_seconds() if at else 0.0
    if ahead > FAST_CLOCK:
        raise StagelineError(
            f"The clock of this machine is {ahead / 60:,.0f} minutes ahead of the CRM's, so changes"
            " could be missed. Set it right and run it again; what was loaded stays."
        )


def _tell(state: tenacity.RetryCallState) -> None:
    log().info("the CRM is asked again", reason=str(_error_of(state)), attempt=state.attempt_number)
