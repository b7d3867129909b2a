"""One deal of Pipedrive and all changes of its fields (contract pipedrive 1.4 and 1.6).

Changes are facts: each is added once and never rewritten. The stages that a deal went through,
the first one included, are derived from them by the models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from loaders.api import Api, FailedError, path_id
from loaders.calls import fitting
from loaders.pace import Pace
from loaders.pipedrive_tables import history_mark
from stageline.crm_values import identifier, instant, text
from stageline.progress import log

#: The smallest plan allows a token 20 requests in any 2 seconds (contract 1.9).
PACE = Pace(calls=19, seconds=2.0)

#: Seconds to wait after a 429 that does not say how long: the span of the limit.
WAIT_UNSAID = 2.0

_PAGE = 500  # the most that /flow gives
#: Pages of /flow after which its paging is taken to go in circles.
_MOST_PAGES = 200


class Change(NamedTuple):
    """A change of a field of a deal: a row of ``raw_pipedrive.deal_changes``."""

    change_id: str
    field_key: str
    old_value: str | None
    new_value: str | None
    old_label: str | None
    new_label: str | None
    user_id: str | None
    change_source: str | None
    changed_at: datetime


class DealState(NamedTuple):
    """A deal as it is: a row of ``raw_pipedrive.deals``."""

    pipeline_id: str | None
    stage_id: str | None
    status: str | None
    is_deleted: bool | None
    added_at: datetime | None
    updated_at: datetime | None = None


@dataclass(frozen=True)
class Deal:
    """What Pipedrive answered about a deal.

    Attributes:
        state: The deal as it is.
        changes: All changes of its fields, in the order of the answer.
        left_out: How many changes could not be read.
        history_mark: For which state of the deal the changes are complete, so that a load does not
            ask for them again.
    """

    state: DealState
    changes: tuple[Change, ...]
    left_out: int
    history_mark: str | None = None


def token_header(token: str) -> tuple[str, str]:
    """Name and value of the header that opens the API."""
    return "x-api-token", token


def fetch(api: Api, deal_id: str) -> Deal | None:
    """Asks for a deal and its changes; None if Pipedrive no longer knows it.

    The deal is asked for first: should it move in between, its stage is then one that it was in
    before the changes that the second answer holds, never one after them.

    Raises:
        ApiError: there is no answer, or none that could be of this deal.
    """
    answer = api.get(f"/api/v2/deals/{path_id(deal_id)}")
    if answer is None:
        return None
    data = answer.get("data")
    if not isinstance(data, dict) or identifier(data.get("id")) != deal_id:
        raise FailedError("an answer without the deal that was asked for")
    state = _read_state(data)
    entries = flow(api.get, deal_id)
    if entries is None:
        raise FailedError("the deal is there, but its changes are not")
    changes, left_out = [], 0
    for row in entries:
        try:
            change = read_change(row, deal_id)
        except ValueError:
            left_out += 1
            continue
        if change is not None:
            changes.append(change)
    return Deal(state, tuple(changes), left_out, history_mark(data))


def store(
    connection: psycopg.Connection[Any],
    project_id: str,
    deal_id: str,
    deal: Deal | None,
    fetched_at: datetime,
) -> None:
    """Keeps what was answered, in one transaction; what is there already is not written again.

    Args:
        connection: Of the loader.
        project_id, deal_id: Whose answer it is.
        deal: The answer; None = Pipedrive no longer knows the deal.
        fetched_at: When it was asked for. A state that was asked for later is not replaced.
    """
    key = {"project_id": project_id, "deal_id": deal_id, "fetched_at": fetched_at}
    with connection.transaction(), connection.cursor() as cursor:
        if deal is None:
            cursor.execute(_STORE_GONE, key)
            return
        cursor.execute(_STORE_STATE, {**key, **deal.state._asdict()})
        cursor.executemany(_STORE_CHANGE, [{**key, **row._asdict()} for row in deal.changes])
        if deal.history_mark is not None:
            cursor.execute(_STORE_HISTORY, {**key, "history_mark": deal.history_mark})
    if deal.left_out:
        log().warning(
            "deal changes that could not be read",
            project=project_id,
            entity_id=deal_id,
            changes=deal.left_out,
        )


def read_change(row: Any, deal_id: str) -> Change | None:
    """The change that an entry of /flow tells of; None if it tells of something else.

    Raises:
        ValueError: it cannot be read, or is about another deal.
    """
    if not isinstance(row, dict):
        raise ValueError("is no object")  # noqa: TRY004 - one kind of error for what cannot be read
    if row.get("object") != "dealChange":
        return None
    data = row.get("data")
    if not isinstance(data, dict):
        raise ValueError("holds no data")  # noqa: TRY004 - as above
    if identifier(data.get("item_id")) not in (None, deal_id):
        raise ValueError("is about another deal")
    change_id, field_key = identifier(data.get("id")), text(data.get("field_key"))
    changed_at = instant(data.get("log_time")) or instant(row.get("timestamp"))
    if change_id is None or field_key is None or changed_at is None:
        raise ValueError("lacks its id, field or time")
    more = data.get("additional_data")
    labels = more if isinstance(more, dict) else {}  # a list where there are none
    return Change(
        change_id=change_id,
        field_key=field_key,
        old_value=text(data.get("old_value")),
        new_value=text(data.get("new_value")),
        old_label=text(labels.get("old_value_formatted")),
        new_label=text(labels.get("new_value_formatted")),
        user_id=identifier(data.get("user_id")),
        change_source=text(data.get("change_source")),
        changed_at=changed_at,
    )


def _read_state(data: Mapping[str, Any]) -> DealState:
    deleted = data.get("is_deleted")
    return DealState(
        pipeline_id=_value(identifier, data, "pipeline_id"),
        stage_id=_value(identifier, data, "stage_id"),
        status=_value(text, data, "status"),
        is_deleted=deleted if isinstance(deleted, bool) else None,
        added_at=_value(instant, data, "add_time"),
        updated_at=_value(instant, data, "update_time"),
    )


def _value(read: Callable[[object], Any], data: Mapping[str, Any], name: str) -> Any:
    try:
        return read(data.get(name))
    except ValueError as error:
        raise FailedError(f"a deal whose {name} {error}") from None


def flow(
    get: Callable[[str, Mapping[str, str | int]], dict[str, Any] | None], deal_id: str
) -> list[Any] | None:
    """All entries of a deal's history, newest first, each page 40 tokens; None if there is none.

    Args:
        get: Asks the API for a path with parameters; gives None for 404.
        deal_id: A number.

    Raises:
        ApiError: there is no answer, or none of that kind.
    """
    entries: list[Any] = []
    start, size = 0, _PAGE

    def page(limit: int) -> dict[str, Any] | None:
        asked: Mapping[str, str | int] = {
            "items": "dealChange",
            "all_changes": 1,
            "limit": limit,
            "start": start,
        }
        return get(f"/v1/deals/{path_id(deal_id)}/flow", asked)

    for _ in range(_MOST_PAGES):
        answer, size = fitting(page, size)
        if answer is None:
            return None
        rows = answer.get("data")
        if not isinstance(rows, list | None):
            raise FailedError("changes that are no list")
        entries += rows or ()
        following = _next_start(answer, start + size)
        if following is None:
            return entries
        if following <= start:
            raise FailedError("pages of changes that go in circles")
        start = following
    raise FailedError(f"more than {_MOST_PAGES} pages of changes")


def _next_start(answer: Mapping[str, Any], usual: int) -> int | None:
    """Where the next page begins, ``usual`` where that is not said; None after the last one."""
    more = answer.get("additional_data")
    paging = more.get("pagination") if isinstance(more, dict) else None
    if not isinstance(paging, dict) or not paging.get("more_items_in_collection"):
        return None
    following = paging.get("next_start")
    return following if isinstance(following, int) else usual


_STORE_GONE = """
insert into raw_pipedrive.deals as deals (project_id, deal_id, is_gone, fetched_at)
values (%(project_id)s, %(deal_id)s, true, %(fetched_at)s)
on conflict (project_id, deal_id) do update
set is_gone = true, fetched_at = excluded.fetched_at, fetched_xid = excluded.fetched_xid
where not deals.is_gone and deals.fetched_at <= excluded.fetched_at
"""

_STORE_STATE = """
insert into raw_pipedrive.deals as deals (
    project_id, deal_id, pipeline_id, stage_id, status, is_deleted, added_at, updated_at,
    fetched_at
)
values (
    %(project_id)s, %(deal_id)s, %(pipeline_id)s, %(stage_id)s, %(status)s, %(is_deleted)s,
    %(added_at)s, %(updated_at)s, %(fetched_at)s
)
on conflict (project_id, deal_id) do update
set
    pipeline_id = excluded.pipeline_id,
    stage_id = excluded.stage_id,
    status = excluded.status,
    is_deleted = excluded.is_deleted,
    added_at = excluded.added_at,
    updated_at = excluded.updated_at,
    is_gone = false,
    fetched_at = excluded.fetched_at,
    fetched_xid = excluded.fetched_xid
where
    deals.fetched_at <= excluded.fetched_at
    and (
        deals.pipeline_id, deals.stage_id, deals.status, deals.is_deleted, deals.added_at,
        deals.updated_at, deals.is_gone
    ) is distinct from (
        excluded.pipeline_id, excluded.stage_id, excluded.status, excluded.is_deleted,
        excluded.added_at, excluded.updated_at, false
    )
"""

_STORE_CHANGE = """
insert into raw_pipedrive.deal_changes (
    project_id, deal_id, change_id, field_key, old_value, new_value, old_label, new_label,
    user_id, change_source, changed_at, fetched_at
)
values (
    %(project_id)s, %(deal_id)s, %(change_id)s, %(field_key)s, %(old_value)s, %(new_value)s,
    %(old_label)s, %(new_label)s, %(user_id)s, %(change_source)s, %(changed_at)s, %(fetched_at)s
)
on conflict do nothing
"""

_STORE_HISTORY = """
insert into raw_pipedrive.deal_histories as known (
    project_id, deal_id, history_mark, asked_at, fetched_at
)
values (%(project_id)s, %(deal_id)s, %(history_mark)s, %(fetched_at)s, %(fetched_at)s)
on conflict (project_id, deal_id) do update
set
    history_mark = excluded.history_mark,
    asked_at = excluded.asked_at,
    fetched_at = excluded.fetched_at
where
    known.asked_at <= excluded.asked_at
    and known.history_mark is distinct from excluded.history_mark
"""
