"""How HubSpot's API is called: versions and paths, pages of lists, what its errors mean."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from loaders.api import (
    DAILY_PROBE,
    WALL_PROBE,
    Api,
    ApiError,
    FailedError,
    RefusedError,
    ThrottledError,
)
from loaders.calls import DEADLINE, Calls, Turns, fitting
from stageline.settings.api_accounts import ApiAccount

#: Version of the API: v3, or a date (2026-09), which stands elsewhere in the paths.
VERSION = "v3"

#: Associations have another one, unless it is a date.
_OF_ASSOCIATIONS = "v4"

#: Kind of call that HubSpot counts apart.
SEARCH = "search"

#: Most records of a list (contract 1.2).
LISTED = 100
#: Seconds; a longer Retry-After is not meant for a short limit.
_LONGEST_SHORT_WAIT = 60.0


def path(api: str, *rest: str) -> str:
    """A path of the API in its version, as either style of versions has it."""
    version = _OF_ASSOCIATIONS if api == "associations" and VERSION.startswith("v") else VERSION
    begin = (version, api) if version.startswith("v") else (api, version)
    return "/".join(("/crm", *begin, *rest))


def results(answer: Mapping[str, Any] | None) -> list[Any]:
    """The records of an answer.

    Raises:
        FailedError: it has no place for them.
        RefusedError: the account has no such thing.
    """
    if answer is None:
        raise RefusedError("HTTP 404: the account has no such thing", concerns_account=False)
    if "results" not in answer:  # to take it for an empty list would mark all that is there gone
        raise FailedError("an answer without its list of results")
    return answer["results"] or []


def _next(answer: Mapping[str, Any]) -> str | None:
    """Where the page after this one begins; never the link beside it, which names a host."""
    after = ((answer.get("paging") or {}).get("next") or {}).get("after")
    return None if after is None else str(after)


def listed(calls: Calls, path: str, params: Mapping[str, str]) -> Iterator[list[Any]]:
    """The pages of a list."""
    after: str | None = None
    size = LISTED

    def page(limit: int) -> dict[str, Any] | None:
        more = {} if after is None else {"after": after}
        return calls.get(path, {**params, **more, "limit": limit})

    while True:
        answer, size = fitting(page, size)
        yield results(answer)
        before, after = after, _next(answer or {})
        if after is None:
            return
        if after == before:
            raise FailedError("a list that goes on where it was")


def portal(calls: Calls) -> object:
    """The id that HubSpot gives the account; every token opens it."""
    return (calls.get(f"/account-info/{VERSION}/details") or {}).get("portalId")


def judge(status: int, headers: Mapping[str, str], body: bytes) -> ApiError | None:
    """What HubSpot means by its own errors (contract 1.8)."""
    wait = _seconds(headers.get("Retry-After"))
    match status:
        case 400:
            return RefusedError("HTTP 400: the API refuses the question", concerns_account=False)
        case 423:
            return FailedError("HTTP 423: the record is locked", max(wait or 0.0, 2.0))
        case 429:
            return _over_limit(headers, body, wait)
        case 477:
            return ThrottledError(
                "HTTP 477: HubSpot moves the account to another data centre",
                WALL_PROBE if wait is None else wait,
            )
        case 530:
            return RefusedError("HTTP 530: the API token is malformed")
    return None


def _over_limit(headers: Mapping[str, str], body: bytes, wait: float | None) -> ThrottledError:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    policy = str(answer.get("policyName") if isinstance(answer, dict) else None).upper()
    if (
        policy == "DAILY" or headers.get("X-HubSpot-RateLimit-Daily-Remaining") == "0"
    ):  # renewed at midnight in a zone that is not known
        return ThrottledError(
            "HTTP 429: the daily budget of the HubSpot account is used up",
            DAILY_PROBE if wait is None else max(wait, DAILY_PROBE),
        )
    if wait is not None and wait > _LONGEST_SHORT_WAIT:  # HubSpot writes milliseconds at times
        wait /= 1000
    usual = 1.0 if policy == "SECONDLY" else 10.0
    return ThrottledError("HTTP 429: too many calls", usual if wait is None else wait)


def _seconds(written: str | None) -> float | None:
    return float(written) if written and re.fullmatch("[0-9]{1,9}", written.strip()) else None


def open_account(turns: Turns, account: ApiAccount) -> Calls:
    """The way to the API of an account."""
    api = Api(
        account.base_url,
        ("Authorization", f"Bearer {account.token}"),
        wait_unsaid=10.0,
        judge=judge,
        deadline=DEADLINE,
    )
    return Calls(api, turns)
