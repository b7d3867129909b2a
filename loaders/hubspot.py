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
from typing import Any

from loaders.api import FailedError, RefusedError, TooLargeError
from loaders.calls import Calls, fitting
from loaders.hubspot_api import SEARCH, listed, open_account, path, portal, results
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
    pull: Pull, kind: _Kind, ids: Sequence[str], names: Sequence[str], *, archived: bool = False
) -> Iterator[list[Any]]:
    """The records of these ids, in parts; those that are gone meanwhile are left out."""
    where = path("objects", kind.name, "batch", "read") + ("?archived=true" if archived else "")
    body: dict[str, Any] = {"properties": names}
    if kind.history:
        body["propertiesWithHistory"] = kind.history

    def read(part: Sequence[str]) -> list[Any]:
        inputs = [{"id": each} for each in part]
        try:
            return results(pull.calls.post(where, {**body, "inputs": inputs}))
        except TooLargeError:
            if len(part) == 1:
                raise
            half = len(part) // 2
            return read(part[:half]) + read(part[half:])

    for start in range(0, len(ids), kind.most):
        part = ids[start : start + kind.most]
        found = read(part)
        # Some may only have failed (contract 1.8): what is gone is not there a second time either.
        if lacking := sorted(set(part) - {str(each["id"]) for each in found}):
            found += read(lacking)
        # In the order of the tables' keys the database has least to do.
        found.sort(key=lambda each: str(each["id"]))
        yield found


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
    if "since" in walk:
        groups = kind.wanted(str(walk["since"]))
    else:
        span = {"value": str(walk["from"]), "highValue": str(walk["until"])}
        groups = [[{**_condition(_CHANGED, "BETWEEN"), **span}]]
    names = _names(pull, kind)
    is_read_apart = bool(kind.history) or _is_long(_search(groups, walk["next"], names))
    asked = ["hs_object_id"] if is_read_apart else names
    seen = given = 0
    size = SEARCHED

    def page(limit: int) -> dict[str, Any] | None:
        body = {**_search(groups, walk["next"], asked), "limit": limit}
        return pull.calls.post(path("objects", kind.name, "search"), body, SEARCH)

    while True:
        answer, size = fitting(page, size)
        found = results(answer)
        ids = [int(record["id"]) for record in found]
        if ids != sorted(set(ids)) or (ids and ids[0] < walk["next"]):
            raise FailedError("a search that is not in the order of ids")
        total = (answer or {}).get("total")
        is_last = not found or (isinstance(total, int) and len(found) >= total)
        walk = {"until": walk["until"]} if is_last else {**walk, "next": ids[-1] + 1}
        parts = _read(pull, kind, [str(each) for each in ids], names) if is_read_apart else [found]
        expected = None
        for part in parts:
            records = kind.records(part)
            given += sum(map(len, records.values()))
            seen += len(part)
            if isinstance(total, int) and seen:
                expected = given * max(total + seen - len(part), seen) // seen
            yield Page(records, expected=expected)
        yield Page(position=walk)
        if is_last:
            return


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
    for part in _read(pull, kind, ids, _names(pull, kind)):
        yield Page(kind.records(part))


def _archived_ids(pull: Pull) -> Iterator[list[tuple[str, bool]]]:
    params = {"archived": "true", "properties": "hs_object_id"}
    for page in listed(pull.calls, path("objects", _DEAL.name), params):
        yield [(str(record["id"]), True) for record in page]


def _fetch_archived(pull: Pull, ids: Sequence[str]) -> Iterator[Page]:
    for part in _read(pull, _DEAL, ids, _names(pull, _DEAL), archived=True):
        yield Page({ARCHIVED_DEALS: part, **deal_records(part)})


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
    api_path="/crm/",
)
