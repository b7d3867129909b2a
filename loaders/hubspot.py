"""HubSpot: deals with the history of their properties, tickets, surveys, calls and meetings.

Changed records are found by search, which allows five questions a second and 10,000 results to
each (contract hubspot 1.3). So each question asks for ids beyond the last one, within a span of
changes that is fixed: what changes meanwhile leaves the span, and nothing else shifts. A search
gives no history and no deleted records: the deals found are read 50 at a time, the most that is
allowed with history, and the deleted ones are listed.

Calls per changed deal: 1/200 of a search, 1/50 of a read and 1/1000 for its companies. Per changed
ticket, survey, call or meeting: 1/200 of a search, 1/1000 for the deals of a call or meeting, and
1/100 of a read where an account has so many fields of its own that a search cannot name them. A
load that finds nothing makes 16 calls, and once a day 1/100 more for the name of each company.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from loaders.ahead import at_once
from loaders.api import FailedError, RefusedError, TooLargeError, json_object
from loaders.calls import Calls, fitting
from loaders.hubspot_api import SEARCH, listed, open_account, path, portal, results
from loaders.hubspot_columns import deal_columns, read_deals
from loaders.hubspot_links import RESOURCES as LINKS
from loaders.hubspot_tables import (
    ARCHIVED_DEALS,
    CALLS,
    DATASET,
    DEAL_PIPELINES,
    DEAL_STAGES,
    DEALS,
    FEEDBACK,
    MEETINGS,
    OWNERS,
    PROPERTIES,
    TABLES,
    TICKET_PIPELINES,
    TICKET_STAGES,
    TICKETS,
    WITH_HISTORY,
    deal_records,
    moment,
    properties_of,
)
from loaders.pace import Pace
from loaders.records import Record, Table
from loaders.sources import Finding, Page, Position, Pull, Resource, Source, Sweep
from stageline.crm_values import instant

#: A search finds what changed only after moments, and clocks differ.
OVERLAP = timedelta(minutes=15)

#: Most records of a search, a read, and a read with history (contract 1.3 and 1.4).
SEARCHED, READ, READ_WITH_HISTORY = 200, 100, 50
#: Most characters of a search's body (contract 1.3).
_LONGEST_SEARCH = 3000

#: Clocks of stages, which run on from read to read, and which the history says better.
_STAGE_CLOCK = re.compile(
    "hs_(v2_)?(date_entered|date_exited|time_in|cumulative_time_in|latest_time_in)_"
)

#: When an object changed; a full load has to ask for it, too, or changes of what closed long ago
#: would be passed over.
_CHANGED = "hs_lastmodifieddate"

_Filter = Mapping[str, str]
#: Filters of a search: of one group all have to hold, of the groups any.
_Groups = Sequence[Sequence[_Filter]]


@dataclass(frozen=True)
class _Kind:
    """A kind of CRM object that changes are searched for.

    Attributes:
        name: In paths.
        table: Where it goes.
        wanted: What a first load brings, given how far back (milliseconds since 1970).
        history: Properties whose history is read.
    """

    name: str
    table: Table
    wanted: Callable[[str], _Groups]
    history: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """How many are read at once."""
        return READ_WITH_HISTORY if self.history else READ

    def records(self, read: Sequence[Record]) -> Mapping[Table, Sequence[Record]]:
        """What was read, by table."""
        return deal_records(read) if self.history else {self.table: read}


class _Part(NamedTuple):
    """What some objects say, by table, and how many they are."""

    size: int
    records: Mapping[Table, Sequence[Record]]


def _condition(name: str, operator: str, value: str | None = None) -> _Filter:
    condition = {"propertyName": name, "operator": operator}
    return condition if value is None else {**condition, "value": value}


def _since(name: str, since: str) -> Sequence[_Filter]:
    return [_condition(name, "GTE", since)]


_DEAL = _Kind(
    "deals",
    DEALS,
    lambda since: (
        [_condition("hs_is_closed", "EQ", "false")],
        [_condition("hs_is_closed", "NOT_HAS_PROPERTY")],
        _since("closedate", since),
        _since(_CHANGED, since),
    ),
    WITH_HISTORY,
)
_TICKET = _Kind(
    "tickets",
    TICKETS,
    lambda since: (
        [_condition("closed_date", "NOT_HAS_PROPERTY")],
        _since("closed_date", since),
        _since(_CHANGED, since),
    ),
)
_CALL = _Kind(
    "calls", CALLS, lambda since: (_since("hs_timestamp", since), _since(_CHANGED, since))
)
_MEETING = _Kind(
    "meetings", MEETINGS, lambda since: (_since("hs_timestamp", since), _since(_CHANGED, since))
)
_FEEDBACK = _Kind("feedback_submissions", FEEDBACK, lambda since: (_since(_CHANGED, since),))


def _names(pull: Pull, kind: _Kind) -> list[str]:
    """The properties that are asked for: those with columns, and those of the account.

    Of deals these are all that there are, of other objects the ones that people have made.
    """
    typed = PROPERTIES[kind.table]
    known = results(pull.calls.get(path("properties", kind.name)))
    return [
        *typed,
        *sorted(
            each["name"]
            for each in known
            if each["name"] not in typed
            and not _STAGE_CLOCK.match(each["name"])
            and (kind is _DEAL or each.get("hubspotDefined") is not True)
        ),
    ]


def _read(
    calls: Calls, kind: _Kind, ids: Sequence[str], names: Sequence[str], *, archived: bool = False
) -> Iterator[_Part]:
    """The records of these ids, in parts; those that are gone meanwhile are left out."""
    where = path("objects", kind.name, "batch", "read") + ("?archived=true" if archived else "")
    body: dict[str, Any] = {"properties": names}
    if kind.history:
        body["propertiesWithHistory"] = kind.history

    def read(written: bytes) -> Any:
        deals = read_deals(written, tuple(names)) if kind.history and not archived else None
        return json_object(written) if deals is None else deals

    def ask(part: Sequence[str]) -> list[Any]:
        inputs = [{"id": each} for each in part]
        try:
            given = calls.post_for(where, {**body, "inputs": inputs}, read)
        except TooLargeError:
            if len(part) == 1:
                raise
            half = len(part) // 2
            return ask(part[:half]) + ask(part[half:])
        return [given if isinstance(given, pa.Array) else results(given)]

    in_columns = []
    for start in range(0, len(ids), kind.most):
        part = ids[start : start + kind.most]
        answers = ask(part)
        # Some may only have failed (contract 1.8): what is gone is not there a second time either.
        found = chain.from_iterable(map(_ids_of, answers))
        if lacking := sorted(set(part).difference(found)):
            answers += ask(lacking)
        for answer in answers:
            if isinstance(answer, pa.Array):
                in_columns.append(answer)
                continue
            # In the order of the tables' keys the database has least to do.
            answer.sort(key=lambda each: str(each["id"]))
            records = {ARCHIVED_DEALS: answer} if archived else {}
            yield _Part(len(answer), {**records, **kind.records(answer)})
    if in_columns:  # Arrow has its price for each column, not for each value
        deals = pa.concat_arrays(in_columns)
        yield _Part(len(deals), deal_columns(deals))


def _ids_of(answer: Any) -> list[str]:
    if isinstance(answer, pa.Array):
        ids: list[str] = answer.field("id").to_pylist()
        return ids
    return [str(each["id"]) for each in answer]


def _pull(kind: _Kind, pull: Pull, position: Position | None) -> Iterator[Page]:
    """What the first load brings, then what changed since the position.

    A position is that all changes ``until`` an instant are loaded, or that a walk has come to the
    id ``next``; instants are milliseconds since 1970, as HubSpot's searches want them.
    """
    until = _milliseconds(pull.until)
    if position is None:
        since = _milliseconds(pull.since)
        yield from _walk(pull, kind, {"next": 0, "since": since, "until": until})
        return
    if "next" in position:
        yield from _walk(pull, kind, position)
    start = position["until"] - OVERLAP // timedelta(milliseconds=1)
    yield from _walk(pull, kind, {"next": 0, "from": start, "until": until})


def _walk(pull: Pull, kind: _Kind, walk: Position) -> Iterator[Page]:
    """Goes through what a walk is about in the order of ids, from its ``next`` on."""
    names = _names(pull, kind)
    first = _search(_groups(kind, walk), walk["next"], names)
    is_read_apart = bool(kind.history) or _is_long(first)
    found = _searched(pull, kind, walk, ["hs_object_id"] if is_read_apart else names)

    def read(calls: Calls, found: _Found) -> tuple[_Found, list[_Part]]:
        ids = [str(each["id"]) for each in found.records]
        return found, list(_read(calls, kind, ids, names))

    if is_read_apart:
        parted = at_once(found, [partial(read, calls) for calls in pull.at_once])
    else:
        parted = ((each, [_Part(len(each.records), {kind.table: each.records})]) for each in found)
    seen = given = 0
    for each, parts in parted:
        expected = None
        for part in parts:
            given += sum(map(len, part.records.values()))
            seen += part.size
            if each.left is not None and seen:
                expected = given * max(each.left + seen - part.size, seen) // seen
            yield Page(part.records, expected=expected)
        yield Page(position=each.walk)


class _Found(NamedTuple):
    """What a search found.

    Attributes:
        records: Not one of which was found before.
        left: How many there were, and more that are yet to be found; None where it is not said.
        walk: Where the walk goes on after them.
    """

    records: list[Any]
    left: int | None
    walk: Position


def _searched(pull: Pull, kind: _Kind, walk: Position, names: Sequence[str]) -> Iterator[_Found]:
    """What the searches of a walk find."""
    groups, size = _groups(kind, walk), SEARCHED

    def page(limit: int) -> dict[str, Any] | None:
        body = {**_search(groups, walk["next"], names), "limit": limit}
        return pull.calls.post(path("objects", kind.name, "search"), body, SEARCH)

    is_last = False
    while not is_last:
        answer, size = fitting(page, size)
        found = results(answer)
        ids = [int(record["id"]) for record in found]
        if ids != sorted(set(ids)) or (ids and ids[0] < walk["next"]):
            raise FailedError("a search that is not in the order of ids")
        total = (answer or {}).get("total")
        left = total if isinstance(total, int) else None
        is_last = not found or (left is not None and len(found) >= left)
        walk = {"until": walk["until"]} if is_last else {**walk, "next": ids[-1] + 1}
        yield _Found(found, left, walk)


def _groups(kind: _Kind, walk: Position) -> _Groups:
    """What a walk is about."""
    if "since" in walk:
        return kind.wanted(str(walk["since"]))
    span = {"value": str(walk["from"]), "highValue": str(walk["until"])}
    return [[{**_condition(_CHANGED, "BETWEEN"), **span}]]


def _search(groups: _Groups, first_id: int, names: Sequence[str]) -> dict[str, Any]:
    beyond = _condition("hs_object_id", "GTE", str(first_id))
    return {
        "filterGroups": [{"filters": [*group, beyond]} for group in groups],
        "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
        "properties": names,
        "limit": SEARCHED,
    }


def _is_long(body: Mapping[str, Any]) -> bool:
    # A walk writes longer ids in the end than in the beginning.
    return len(json.dumps(body)) > _LONGEST_SEARCH - 100


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _pipelines(of: _Kind, pipelines: Table, stages: Table, pull: Pull) -> Iterator[Page]:
    there = results(pull.calls.get(path("pipelines", of.name)))
    of_pipelines = [
        {**stage, "pipeline_id": pipeline["id"]}
        for pipeline in there
        for stage in pipeline.get("stages") or ()
    ]
    dictionary = [
        {
            "stage_id": stage["id"],
            "pipeline_id": stage["pipeline_id"],
            "name": str(stage.get("label") or "").strip() or stage["id"],
            "position": stage.get("displayOrder"),
            "is_closing": str((stage.get("metadata") or {}).get("isClosed")).lower() == "true",
        }
        for stage in of_pipelines
    ]
    yield Page(
        {pipelines: there, stages: of_pipelines},
        # Only deals have a history of stages, which the dictionary is for.
        stages=dictionary if of is _DEAL else None,
    )


def _owners(pull: Pull) -> Iterator[Page]:
    for archived in ("false", "true"):
        for page in listed(pull.calls, path("owners"), {"archived": archived}):
            yield Page({OWNERS: page})


def _ids(kind: _Kind, pull: Pull) -> Iterator[list[tuple[str, bool]]]:
    wanted = kind.wanted(str(_milliseconds(pull.since)))
    names = sorted({each["propertyName"] for group in wanted for each in group})
    params = {"archived": "false", "properties": ",".join(names)}
    for page in listed(pull.calls, path("objects", kind.name), params):
        yield [
            (
                str(record["id"]),
                any(all(_holds(each, record) for each in group) for group in wanted),
            )
            for record in page
        ]


def _holds(condition: _Filter, record: Record) -> bool:
    """Whether a condition of `_Kind.wanted` holds for a record, as a search would see it."""
    value = properties_of(record).get(condition["propertyName"])
    match condition["operator"]:
        case "EQ":
            return bool(value == condition["value"])
        case "NOT_HAS_PROPERTY":
            return value in (None, "")
        case _:
            try:
                at = instant(moment(value))
            except ValueError:
                return False
            return at is not None and _milliseconds(at) >= int(condition["value"])


def _fetch(kind: _Kind, pull: Pull, ids: Sequence[str]) -> Iterator[Page]:
    for part in _read(pull.calls, kind, ids, _names(pull, kind)):
        yield Page(part.records)


def _archived_ids(pull: Pull) -> Iterator[list[tuple[str, bool]]]:
    params = {"archived": "true", "properties": "hs_object_id"}
    for page in listed(pull.calls, path("objects", _DEAL.name), params):
        yield [(str(record["id"]), True) for record in page]


def _fetch_archived(pull: Pull, ids: Sequence[str]) -> Iterator[Page]:
    for part in _read(pull.calls, _DEAL, ids, _names(pull, _DEAL), archived=True):
        yield Page(part.records)


def _sweep_of_stages(of: _Kind, pipelines: Table, stages: Table) -> tuple[Sweep, Sweep]:
    """What is no longer listed stays, marked: histories go on to name it."""

    def ids(table: Table, pull: Pull) -> Iterator[list[tuple[str, bool]]]:
        for page in _pipelines(of, pipelines, stages, pull):
            yield [(str(each["id"]), True) for each in page.records[table]]

    def fetch(pull: Pull, _: Sequence[str]) -> Iterator[Page]:
        return _pipelines(of, pipelines, stages, pull)

    return (
        Sweep(pipelines, partial(ids, pipelines), fetch),
        Sweep(stages, partial(ids, stages), fetch),
    )


def _check(calls: Calls) -> Iterator[Finding]:
    """Asks for one record of each resource."""
    for resource in SOURCE.resources:
        try:
            answer = calls.get(_TRIED[resource.name], {"limit": 1})
        except RefusedError as error:
            if error.concerns_account:
                raise
            yield Finding(resource.name, f"{error}; it needs {resource.needs}")
        else:
            problem = None if answer else f"the account has none; it needs {resource.needs}"
            yield Finding(resource.name, problem)


#: Resource -> what is asked for to try it.
_TRIED = {
    "stages": path("pipelines", "deals"),
    "owners": path("owners"),
    "deals": path("objects", "deals"),
    "ticket stages": path("pipelines", "tickets"),
    "tickets": path("objects", "tickets"),
    "calls": path("objects", "calls"),
    "meetings": path("objects", "meetings"),
    "surveys": path("objects", "feedback_submissions"),
    "deal companies": path("objects", "companies"),
    "companies": path("objects", "companies"),
    "activity deals": path("objects", "calls"),
}

_DEAL_SCOPE = "the scope crm.objects.deals.read"
_TICKET_SCOPE = "the scope tickets"
_CONTACT_SCOPE = "the scope crm.objects.contacts.read"
_STAGES = (
    (_DEAL, DEAL_PIPELINES, DEAL_STAGES),
    (_TICKET, TICKET_PIPELINES, TICKET_STAGES),
)
_WEEK = timedelta(days=7)

SOURCE = Source(
    name="hubspot",
    title="HubSpot",
    identify=portal,
    dataset=DATASET,
    tables=TABLES,
    resources=(
        Resource("stages", lambda pull, _: _pipelines(*_STAGES[0], pull), _DEAL_SCOPE),
        Resource(
            "owners",
            lambda pull, _: _owners(pull),
            "the scope crm.objects.owners.read",
            is_optional=True,
        ),
        Resource("deals", partial(_pull, _DEAL), _DEAL_SCOPE),
        Resource(
            "ticket stages",
            lambda pull, _: _pipelines(*_STAGES[1], pull),
            _TICKET_SCOPE,
            is_optional=True,
        ),
        Resource("tickets", partial(_pull, _TICKET), _TICKET_SCOPE, is_optional=True),
        Resource("calls", partial(_pull, _CALL), _CONTACT_SCOPE, is_optional=True),
        Resource("meetings", partial(_pull, _MEETING), _CONTACT_SCOPE, is_optional=True),
        Resource(
            "surveys",
            partial(_pull, _FEEDBACK),
            "the scope crm.objects.feedback_submissions.read and Service Hub Professional",
            is_optional=True,
        ),
        *LINKS,
    ),
    sweeps=(
        # Deleting a deal does not count as a change of it: the deleted ones are listed each time.
        Sweep(ARCHIVED_DEALS, _archived_ids, _fetch_archived, every=timedelta(0)),
        Sweep(DEALS, partial(_ids, _DEAL), partial(_fetch, _DEAL)),
        *(sweep for of in _STAGES for sweep in _sweep_of_stages(*of)),
        Sweep(TICKETS, partial(_ids, _TICKET), partial(_fetch, _TICKET)),
        Sweep(CALLS, partial(_ids, _CALL), partial(_fetch, _CALL), every=_WEEK),
        Sweep(MEETINGS, partial(_ids, _MEETING), partial(_fetch, _MEETING), every=_WEEK),
        Sweep(FEEDBACK, partial(_ids, _FEEDBACK), partial(_fetch, _FEEDBACK), every=_WEEK),
    ),
    open=open_account,
    check=_check,
    # One less than is allowed in any ten seconds, and no more than five searches in any one, which
    # no plan has more of (contract 1.3).
    paces={"calls": Pace(99, 10.0), SEARCH: Pace(9, 2.0, grows=False)},
    lines=3,
    api_path="/crm/",
)
