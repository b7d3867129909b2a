"""Pipedrive: deals with their history, and what explains them (contract pipedrive 1.1-1.9).

The daily budget of tokens is what is scarce. A page of 500 deals costs 10 tokens, the history of
one deal 40. So lists are read at every load, and histories of those deals alone whose tracked
fields are not those that their history was last read for (`pipedrive_tables.history_mark`): a
changed deal costs 40 tokens and a 500th of a page, one that was only created or touched the latter
alone; the name of an organization that is new costs a tenth of a token. A load without any change
costs 62 tokens, once a day 60 more and 30 for 500 deals, and once a week 10 for 500 activities.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loaders.api import DAILY_PROBE, Api, ApiError, RefusedError, ThrottledError
from loaders.calls import DEADLINE, Calls, Turns
from loaders.pace import CALLS
from loaders.pipedrive_activities import ACTIVITIES_PATH, SWEEP_OF_ACTIVITIES, activities
from loaders.pipedrive_deals import PACE, WAIT_UNSAID, flow, token_header
from loaders.pipedrive_lists import (
    IDS_AT_ONCE,
    OVERLAP,
    PAGE,
    Params,
    ask,
    by_id,
    by_time,
    every,
    ids_of,
    number_of,
    pages,
    read_instant,
    records_of,
    updated_at,
    written,
)
from loaders.pipedrive_organizations import ORGANIZATIONS_PATH, organizations
from loaders.pipedrive_tables import (
    DATASET,
    DEAL_CHANGES,
    DEAL_FIELD_OPTIONS,
    DEAL_FIELDS,
    DEAL_HISTORIES,
    LISTED_DEALS,
    PIPELINES,
    STAGES,
    TABLES,
    USERS,
)
from loaders.records import Record, Table
from loaders.since import last_look
from loaders.sources import Finding, Page, Position, Pull, Resource, Source, Sweep
from stageline.crm_values import identifier
from stageline.database import connect
from stageline.settings.api_accounts import ApiAccount

DEALS, ARCHIVED = "/api/v2/deals", "/api/v2/deals/archived"
_ALL = "open,won,lost,deleted"
_CLOSED = "won,lost,deleted"

#: New deals are asked for in shorter pages: there are few of them from one load to the next.
_NEW_AT_ONCE = 100
#: People and fields seldom change, and cost more than a page of deals.
_DICTIONARY_EVERY = timedelta(days=1)
#: So many deals in a row whose history is refused mean that all are.
_REFUSED_IN_A_ROW = 3
#: So many answers of 429 in a row are no short limit, which lasts 2 seconds.
_THROTTLED_IN_A_ROW = 10

_ASK_FOR_DEALS = "the scope deals:read"
_ASK_FOR_HISTORY = "the scope recents:read"


class _Api(Api):
    """The API of an account, with what its answers mean that are no success.

    The header that tells a spent daily budget from the short limit is in no document and may be
    missing (contract 1.9): then 429 again and again, without an answer between, means the same.
    """

    def __init__(self, account: ApiAccount) -> None:
        self._throttled_in_a_row = 0
        super().__init__(
            account.base_url,
            token_header(account.token),
            wait_unsaid=WAIT_UNSAID,
            judge=self._meaning,
            deadline=DEADLINE,
        )

    def get(
        self,
        path: str,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        answer = super().get(path, params, headers)
        self._throttled_in_a_row = 0
        return answer

    def _meaning(self, status: int, _headers: Mapping[str, str], _body: bytes) -> ApiError | None:
        if status == 429:
            self._throttled_in_a_row += 1
            if self._throttled_in_a_row >= _THROTTLED_IN_A_ROW:
                return ThrottledError(
                    "HTTP 429 again and again: the daily budget of the CRM account is used up",
                    DAILY_PROBE,
                )
        if status in (400, 410, 422):
            return RefusedError(f"HTTP {status}: the CRM refuses the call", concerns_account=False)
        return None


def _company(calls: Calls) -> object:
    """The id of the company that the token is of; costs two tokens."""
    company = ask(calls, "/v1/users/me").get("data")
    return company.get("company_id") if isinstance(company, dict) else None


def _open(turns: Turns, account: ApiAccount) -> Calls:
    return Calls(_Api(account), turns)


# Pipelines, stages, users, fields


def _stages(pull: Pull, _: Position | None) -> Iterator[Page]:
    pipelines = every(pull.calls, "/api/v2/pipelines")
    stages = every(pull.calls, "/api/v2/stages")
    order = {identifier(each.get("id")): each.get("order_nr") or 0 for each in pipelines}
    named = [each for each in stages if number_of(each)]
    named.sort(
        key=lambda s: (order.get(identifier(s.get("pipeline_id")), 0), s.get("order_nr") or 0)
    )
    yield Page(
        {PIPELINES: pipelines, STAGES: stages},
        stages=[
            {
                "stage_id": str(number_of(each)),
                "pipeline_id": identifier(each.get("pipeline_id")),
                "name": str(each.get("name") or "").strip() or str(number_of(each)),
                "position": place,
                "is_active": not each.get("is_deleted"),
            }
            for place, each in enumerate(named, 1)
        ],
    )


def _users(pull: Pull, position: Position | None) -> Iterator[Page]:
    if _is_due(pull, position):
        yield Page({USERS: records_of(ask(pull.calls, "/v1/users"))}, {"at": written(pull.until)})


def _fields(pull: Pull, position: Position | None) -> Iterator[Page]:
    if not _is_due(pull, position):
        return
    fields = every(pull.calls, "/api/v2/dealFields")
    options = [
        {**option, "field_key": each.get("field_code")}
        for each in fields
        if each.get("is_custom_field")
        for option in each.get("options") or ()
    ]
    yield Page({DEAL_FIELDS: fields, DEAL_FIELD_OPTIONS: options}, {"at": written(pull.until)})


def _is_due(pull: Pull, position: Position | None) -> bool:
    return position is None or read_instant(position["at"]) <= pull.until - _DICTIONARY_EVERY


# Deals


def _deals_of(path: str) -> Callable[[Pull, Position | None], Iterator[Page]]:
    """The resource of the deals in use, or of archived ones, which lists of the others leave out.

    The first load brings all open ones by id, so that those which were never updated, and have no
    time of that, are among them; and by time those that were closed. Its position is a window of
    time and how far that is read; after the window, only where the next one begins.
    """

    def deals(pull: Pull, position: Position | None) -> Iterator[Page]:
        place = dict(position or {})
        if "to" not in place:
            place = _window(place, pull)
        statuses = _CLOSED if place["is_first"] else _ALL

        def page(records: Sequence[Record], **moved: Any) -> Page:
            place.update(moved, newest=max([place["newest"], *map(number_of, records)]))
            return Page({LISTED_DEALS: records}, dict(place))

        if place["part"] == "open":
            for records, cursor in _all_open(pull.calls, path, place["cursor"]):
                yield page(records, cursor=cursor, part="open" if cursor else "changed")
        window = read_instant(place["from"]), read_instant(place["to"])
        for records, seen in by_time(pull.calls, path, {"status": statuses}, *window):
            yield page(records, **{"from": written(seen)})
        if path == DEALS and not place["is_first"]:
            for records in _newer(pull.calls, place["known"]):
                yield page(records)
        yield Page(position={"until": place["to"], "newest": place["newest"]})

    return deals


def _window(ended: Position, pull: Pull) -> dict[str, Any]:
    is_first = "until" not in ended
    since = pull.since if is_first else read_instant(ended["until"]) - OVERLAP
    newest = ended["newest"] if "newest" in ended else _newest(pull.calls)
    return {
        "is_first": is_first,
        "part": "open" if is_first else "changed",
        "cursor": None,
        "from": written(since),
        "to": written(pull.until),
        "known": newest,
        "newest": newest,
    }


def _all_open(
    calls: Calls, path: str, cursor: str | None
) -> Iterator[tuple[list[Record], str | None]]:
    """All open deals, from a cursor on; from the beginning where that is no longer taken."""
    pages = by_id(calls, path, {"status": "open"}, cursor)
    if cursor is not None:
        try:
            yield next(pages)
        except RefusedError:
            pages = by_id(calls, path, {"status": "open"})
    yield from pages


def _newest(calls: Calls) -> int:
    """The highest id of a deal."""
    answer = ask(calls, DEALS, {"sort_by": "id", "sort_direction": "desc", "limit": 1})
    return max(map(number_of, records_of(answer)), default=0)


def _newer(calls: Calls, known: int) -> Iterator[list[Record]]:
    """Deals with a higher id than any before: whether lists by time hold those that were never
    updated is not known (contract 1.6).
    """
    newest_first: Params = {"sort_by": "id", "sort_direction": "desc", "limit": _NEW_AT_ONCE}
    for records, _ in pages(calls, DEALS, newest_first):
        yield [each for each in records if number_of(each) > known]
        if any(number_of(each) <= known for each in records):
            return


# Histories


def _histories(pull: Pull, position: Position | None) -> Iterator[Page]:
    """Changes of the deals whose history is not that of what they are now.

    What is left to do stands in the database, and not in the position: it is looked up by what is
    listed, so that a budget that runs out, or a kill, leaves the rest for the next load. In the
    position stands since when all histories are to be read anew, which is what a full load asks;
    and where there is nothing left to do, so that the next load looks at what came later.
    """
    asked_since = (position or {}).get("asked_since")
    if pull.is_full:
        asked_since, position = datetime.now(UTC).isoformat(), None
        yield Page(position={"asked_since": asked_since})
    with connect("loader", autocommit=True) as session:
        since = last_look(session, position)
        due = session.execute(
            _DUE,
            {
                "project": pull.project_id,
                "since": since.xid,
                "before": since.before,
                "asked_since": asked_since,
            },
        ).fetchall()
    refused, is_left = 0, False
    for deal_id, mark, is_deleted in due:
        asked_at = datetime.now(UTC)
        try:
            entries = flow(pull.calls.get, deal_id)
        except RefusedError as error:
            refused, is_left = refused + 1, True
            if error.concerns_account or refused == min(_REFUSED_IN_A_ROW, len(due)):
                raise
            continue
        refused = 0
        if entries is None and not is_deleted:
            is_left = True  # purged since it was listed: the sweep sees to it
            continue
        history = {"deal_id": deal_id, "history_mark": mark, "asked_at": asked_at.isoformat()}
        yield Page(
            {DEAL_CHANGES: _changes(deal_id, entries or ()), DEAL_HISTORIES: [history]},
            expected=2 * len(due),
        )
    if not is_left:
        yield Page(position={"asked_since": asked_since, **since.position})


def _changes(deal_id: str, entries: Sequence[Any]) -> list[Record]:
    return [
        {**entry, "deal_id": deal_id}
        for entry in entries
        if isinstance(entry, dict)
        and entry.get("object") == "dealChange"
        and isinstance(entry.get("data"), dict)
    ]


#: Deals whose history is to be read, each with its mark and whether it is deleted. Follow-ups of
#: webhooks read histories, too. What is open counts most, should the budget run out.
_DUE = """
with touched as (
    select deal_id from raw_pipedrive.listed_deals
    where
        project_id = %(project)s
        and loaded_xid >= %(since)s::xid8
        and loaded_xid < %(before)s::xid8
    union
    select deal_id from raw_pipedrive.deal_histories
    where
        project_id = %(project)s
        and loaded_xid >= %(since)s::xid8
        and loaded_xid < %(before)s::xid8
)

select
    listed.deal_id,
    listed.history_mark,
    coalesce(listed.is_deleted, false)
from touched
inner join raw_pipedrive.listed_deals as listed
    on listed.project_id = %(project)s and listed.deal_id = touched.deal_id
left join raw_pipedrive.deal_histories as known
    on known.project_id = listed.project_id and known.deal_id = listed.deal_id
where
    not listed.is_gone
    and listed.history_mark is not null
    and (
        known.history_mark is distinct from listed.history_mark
        or known.asked_at < %(asked_since)s::timestamptz
    )
order by
    coalesce(listed.status = 'open', false) desc,
    listed.updated_at desc,
    listed.deal_id
"""


# What is gone


def _deal_ids(pull: Pull) -> Iterator[list[tuple[str, bool]]]:
    for path in (DEALS, ARCHIVED):
        for records, _ in by_id(pull.calls, path, {"status": _ALL}):
            listed = [each for each in records if number_of(each)]
            yield [(str(number_of(each)), _is_wanted(each, pull.since)) for each in listed]


def _is_wanted(deal: Record, since: datetime) -> bool:
    """Whether a load brings the deal: it is open, or was closed lately."""
    changed_at = updated_at(deal)
    return deal.get("status") == "open" or (changed_at is not None and changed_at >= since)


def _deals_by_id(pull: Pull, ids: Sequence[str]) -> Iterator[Page]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        part = ",".join(ids[start : start + IDS_AT_ONCE])
        for path in (DEALS, ARCHIVED):
            for records, _ in pages(pull.calls, path, {"ids": part, "status": _ALL, "limit": PAGE}):
                yield Page({LISTED_DEALS: records})


def _all_of(table: Table, path: str) -> Callable[[Pull, Sequence[str]], Iterator[Page]]:
    def fetch(pull: Pull, _: Sequence[str]) -> Iterator[Page]:
        yield Page({table: every(pull.calls, path)})

    return fetch


# Check


def _check(calls: Calls) -> Iterator[Finding]:
    """Costs some 135 tokens."""
    deals: list[Record] = []

    def answer(path: str, params: Params) -> str | None:
        try:
            found = records_of(ask(calls, path, params))
        except RefusedError as error:
            if error.concerns_account:
                raise
            return str(error)
        if path == DEALS:
            deals.extend(found)
        return None

    for name, path, needs in (
        ("deals", DEALS, _ASK_FOR_DEALS),
        ("archived deals", ARCHIVED, _ASK_FOR_DEALS),
        ("stages", "/api/v2/stages", _ASK_FOR_DEALS),
        ("users", "/v1/users", "the scope users:read"),
        ("fields", "/api/v2/dealFields", "the scope deal-fields:full"),
        ("activities", ACTIVITIES_PATH, "the scope activities:read"),
        ("organizations", ORGANIZATIONS_PATH, "the scope contacts:read"),
    ):
        problem = answer(path, {} if path.startswith("/v1") else {"limit": 1})
        yield Finding(name, problem and f"{problem}; it needs {needs}")
    if deals:
        path = f"/v1/deals/{number_of(deals[0])}/flow"
        problem = answer(path, {"items": "dealChange", "limit": 1})
        yield Finding("histories", problem and f"{problem}; it needs {_ASK_FOR_HISTORY}")
    else:
        yield Finding("histories", "there is no deal yet to try it with")


SOURCE = Source(
    name="pipedrive",
    title="Pipedrive",
    identify=_company,
    dataset=DATASET,
    tables=TABLES,
    resources=(
        Resource("stages", _stages, _ASK_FOR_DEALS),
        Resource("users", _users, "the scope users:read", is_optional=True),
        Resource("fields", _fields, "the scope deal-fields:full", is_optional=True),
        Resource("deals", _deals_of(DEALS), _ASK_FOR_DEALS),
        Resource("archived deals", _deals_of(ARCHIVED), _ASK_FOR_DEALS),
        Resource("activities", activities, "the scope activities:read", is_optional=True),
        Resource(
            "organizations",
            organizations,
            "the scope contacts:read",
            is_optional=True,
            looks_up=(LISTED_DEALS,),
        ),
        Resource(
            "histories",
            _histories,
            _ASK_FOR_HISTORY,
            is_optional=True,
            looks_up=(LISTED_DEALS, DEAL_HISTORIES),
        ),
    ),
    open=_open,
    check=_check,
    paces={CALLS: PACE},
    api_path="/api/v2",
    sweeps=(
        Sweep(PIPELINES, ids_of("/api/v2/pipelines"), _all_of(PIPELINES, "/api/v2/pipelines")),
        Sweep(STAGES, ids_of("/api/v2/stages"), _all_of(STAGES, "/api/v2/stages")),
        Sweep(LISTED_DEALS, _deal_ids, _deals_by_id),
        SWEEP_OF_ACTIVITIES,
    ),
)
