"""Salesforce: opportunities with their whole history, stages, users, leads, activities, cases.

Asked through REST queries, by the time of the last change; see `loaders.salesforce_queries`. A load
asks for the field list and the changes of each object, 16 calls where nothing changed. A changed
record takes 1/2000 of a call more, as pages are that large; an opportunity, beside it, about 1/225
for its two histories, which are asked for by the ids of up to 450 opportunities at once. That also
brings the earlier history of a deal that closed before the first load and was opened again, which a
cursor on the history would miss. Bulk queries would take fewer calls for millions of records, but
have no order, so that nothing could be resumed within one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from loaders.api import RefusedError
from loaders.calls import Calls
from loaders.pace import CALLS, Pace
from loaders.records import Record
from loaders.salesforce_access import SalesforceCalls
from loaders.salesforce_queries import (
    BEGINNING,
    Fields,
    Records,
    all_ids,
    changed,
    clock,
    describe,
    of_ids,
)
from loaders.salesforce_tables import (
    CASE,
    CHANGED,
    DATASET,
    EVENT,
    FIELD_HISTORY,
    HISTORY,
    LEAD,
    OPPORTUNITY,
    STAGE,
    TABLES,
    TASK,
    USER,
    Object,
)
from loaders.sources import Finding, Page, Position, Pull, Resource, Source, Sweep

#: Records may become visible after later ones did: so much of the last load is asked for again.
OVERLAP = timedelta(minutes=15)

#: Salesforce limits what is asked for in 24 hours, and long requests; this is only not to storm it.
_PACE = Pace(20, 1.0)

#: Gives the pages beside those of the records of a page: records of other objects about them.
_Beside = Callable[[Records], Iterator[Page]]


@dataclass(frozen=True)
class _Window:
    """Changes that are asked for: from ``start``, or behind a record, to before ``end``.

    Attributes:
        since: How far back closed records have been brought.
        is_first: Of what is closed, only what ended since then is asked for.
    """

    start: datetime | tuple[datetime, str]
    end: datetime
    since: datetime
    is_first: bool = False

    def behind(self, place: tuple[datetime, str]) -> Position:
        """Where to go on behind a record."""
        return {
            "at": place[0].isoformat(),
            "id": place[1],
            "end": self.end.isoformat(),
            "since": self.since.isoformat(),
            "is_first": self.is_first,
        }

    @property
    def after(self) -> Position:
        """Where to go on once all of it is loaded."""
        return {"end": self.end.isoformat(), "since": self.since.isoformat()}


def _windows(pull: Pull, position: Position | None) -> Iterator[_Window]:
    """What is to be asked for: the rest of a load that was cut short, then what is new."""
    now = clock(pull.calls, pull.until)
    since = pull.since
    if position is not None:
        known = datetime.fromisoformat(position["since"])
        if known > since:  # an unfinished first load that was to reach less far back
            position = None
        since = min(known, since)
    if position is None:
        yield _Window(BEGINNING, now, since, is_first=True)
        return
    end = datetime.fromisoformat(position["end"])
    if "at" in position:
        place = (datetime.fromisoformat(position["at"]), position["id"])
        yield _Window(place, end, since, position["is_first"])
    yield _Window(min(end, now) - OVERLAP, now, since)


def _changes(
    of: Object, fields: Fields, keep: bool, beside: _Beside, pull: Pull, position: Position | None
) -> Iterator[Page]:
    """Pages of what changed of an object; ``keep`` = its records are loaded themselves."""
    for window in _windows(pull, position):
        condition = of.scope.condition(window.since) if of.scope and window.is_first else ""
        for found in changed(pull.calls, of, fields, window.start, window.end, condition):
            yield Page({of.table: found.records} if keep else {}, expected=found.total)
            yield from beside(found.records)
            if found.place is not None:
                yield Page(position=window.behind(found.place))
        yield Page(position=window.after)


def _about(calls: Calls, of: Object) -> _Beside:
    """Gives the records of an object that belong to opportunities."""
    known: list[Fields] = []

    def pages(opportunities: Records) -> Iterator[Page]:
        if not opportunities:
            return
        if not known:
            known.append(describe(calls, of))
        ids = [str(record.get("Id")) for record in opportunities]
        for records in of_ids(calls, of, known[0], ids, "OpportunityId"):
            yield Page({of.table: records})

    return pages


def _nothing(_records: Records) -> Iterator[Page]:
    return iter(())


def _plain(of: Object, pull: Pull, position: Position | None) -> Iterator[Page]:
    yield from _changes(of, describe(pull.calls, of), True, _nothing, pull, position)


def _opportunities(pull: Pull, position: Position | None) -> Iterator[Page]:
    fields, history = describe(pull.calls, OPPORTUNITY), _about(pull.calls, HISTORY)
    yield from _changes(OPPORTUNITY, fields, True, history, pull, position)


def _field_history(pull: Pull, position: Position | None) -> Iterator[Page]:
    fields = describe(pull.calls, FIELD_HISTORY)

    def history(opportunities: Records) -> Iterator[Page]:
        ids = [str(record.get("Id")) for record in opportunities]
        for records in of_ids(pull.calls, FIELD_HISTORY, fields, ids, "OpportunityId"):
            yield Page({FIELD_HISTORY.table: records})

    yield from _changes(OPPORTUNITY, Fields((("Id", CHANGED),)), False, history, pull, position)


def _stages(pull: Pull, _position: Position | None) -> Iterator[Page]:
    listed = list(_named_stages(pull.calls))
    yield Page(
        {STAGE.table: listed},
        stages=[
            {
                "stage_id": each["StageName"],
                "name": each.get("MasterLabel") or each["StageName"],
                "position": each.get("SortOrder"),
                "is_closing": each.get("IsClosed") is True,
                "is_active": each.get("IsActive") is not False,
            }
            for each in {str(stage["StageName"]): stage for stage in listed}.values()
        ],
    )


def _named_stages(calls: Calls) -> Iterator[dict[str, Any]]:
    """Each stage by the names that a deal may give it; where two claim one, the label counts."""
    described = describe(calls, STAGE)
    answer = list(all_ids(calls, STAGE, described.parts[0][1:]))
    stages = [each for records in answer for each in records]
    for name in ("ApiName", "MasterLabel"):
        for each in stages:
            if isinstance(each.get(name), str) and each[name].strip():
                yield {**each, "StageName": each[name].strip()}


def _sweep(of: Object, beside: Callable[[Calls], _Beside] = lambda _: _nothing) -> Sweep:
    def ids(pull: Pull) -> Iterator[Sequence[tuple[str, bool]]]:
        judged = (*(of.scope.fields if of.scope else ()), "IsDeleted")
        for records in all_ids(pull.calls, of, judged):
            yield [
                (str(each["Id"]), _is_wanted(of, each, pull.since))
                for each in records
                if each.get("Id")
            ]

    def fetch(pull: Pull, wanted: Sequence[str]) -> Iterator[Page]:
        about = beside(pull.calls)
        for records in of_ids(pull.calls, of, describe(pull.calls, of), wanted):
            yield Page({of.table: records})
            yield from about(records)

    return Sweep(of.table, ids, fetch)


def _is_wanted(of: Object, record: Record, since: datetime) -> bool:
    return record.get("IsDeleted") is not True and (
        of.scope is None or of.scope.holds(record, since)
    )


def _stage_names(pull: Pull) -> Iterator[Sequence[tuple[str, bool]]]:
    yield [(str(each["StageName"]), False) for each in _named_stages(pull.calls)]


def _no_stages(_pull: Pull, _ids: Sequence[str]) -> Iterator[Page]:
    return iter(())


def _check(calls: Calls) -> Iterator[Finding]:
    for resource, of in _DESCRIBED.items():
        try:
            describe(calls, of)
        except RefusedError as error:
            if error.concerns_account:
                raise
            yield Finding(resource, f"{error}; it needs {_needs(of)}")
        else:
            yield Finding(resource, None)


def _needs(of: Object) -> str:
    return f"the right to read {of.name}"


def _resource(
    name: str, pull: Callable[..., Iterator[Page]], *, optional: bool = False
) -> Resource:
    return Resource(name, pull, _needs(_DESCRIBED[name]), optional)


_DESCRIBED: Mapping[str, Object] = {
    "stages": STAGE,
    "users": USER,
    "opportunities": OPPORTUNITY,
    "history": HISTORY,
    "field history": FIELD_HISTORY,
    "leads": LEAD,
    "tasks": TASK,
    "events": EVENT,
    "cases": CASE,
}

SOURCE = Source(
    name="salesforce",
    title="Salesforce",
    dataset=DATASET,
    tables=TABLES,
    resources=(
        _resource("stages", _stages),
        _resource("users", partial(_plain, USER)),
        _resource("opportunities", _opportunities),
        _resource("field history", _field_history, optional=True),
        *(
            _resource(name, partial(_plain, _DESCRIBED[name]), optional=True)
            for name in ("leads", "tasks", "events", "cases")
        ),
    ),
    open=SalesforceCalls,
    check=_check,
    paces={CALLS: _PACE},
    api_path="/services/",
    sweeps=(
        Sweep(STAGE.table, _stage_names, _no_stages),
        _sweep(OPPORTUNITY, partial(_about, of=HISTORY)),
        *(_sweep(of) for of in (LEAD, TASK, EVENT, CASE)),
    ),
)
