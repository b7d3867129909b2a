"""Salesforce: opportunities with their whole history, stages, users, leads, activities, cases.

Asked through REST queries, by the time of the last change; see `loaders.salesforce_queries`. A load
asks for the field list and the changes of each object, 27 calls where nothing changed. A changed
record takes 1/2000 of a call more, as pages are that large; an opportunity, beside it, about 1/225
for its two histories, which are asked for by the ids of up to 450 opportunities at once, and a case
about 1/150 for its history, emails and comments. That also brings the earlier history of a record
that closed before the first load and was opened again, which a cursor on the history would miss.
Bulk queries would take fewer calls for millions of records, but have no order, so that nothing
could be resumed within one.

Milestones of cases are not asked for: which of them means the first answer, only a name says that
each organisation makes up. Of satisfaction Salesforce has no object of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from loaders.api import RefusedError
from loaders.calls import Calls
from loaders.pace import CALLS, Pace
from loaders.records import Record
from loaders.salesforce_access import SalesforceCalls
from loaders.salesforce_objects import CHANGED, DATASET, Object
from loaders.salesforce_queries import (
    BEGINNING,
    Fields,
    Records,
    all_ids,
    changed,
    clock,
    describe,
    of_ids,
    organization,
)
from loaders.salesforce_tables import (
    CASE,
    CASE_CHANGE,
    CASE_COMMENT,
    CASE_EMAIL,
    CASE_STATUS,
    EVENT,
    FIELD_HISTORY,
    HISTORY,
    LEAD,
    NAMED,
    OPPORTUNITY,
    STAGE,
    TABLES,
    TASK,
    USER,
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
    of: Object,
    fields: Fields,
    keep: bool,
    beside: _Beside,
    pull: Pull,
    position: Position | None,
    own: Callable[[datetime, datetime], Iterator[Page]] | None = None,
) -> Iterator[Page]:
    """Pages of what changed of an object.

    Args:
        keep: Its records are loaded themselves.
        own: Gives the pages of what changed by itself of that which is beside them, between two
            instants; before those of a window, whose positions tell of them, too.
    """
    for window in _windows(pull, position):
        if own is not None and not window.is_first and isinstance(window.start, datetime):
            yield from own(window.start, window.end)
        condition = of.scope.condition(window.since) if of.scope and window.is_first else ""
        for found in changed(pull.calls, of, fields, window.start, window.end, condition):
            yield Page({of.table: found.records} if keep else {}, expected=found.total)
            yield from beside(found.records)
            if found.place is not None:
                yield Page(position=window.behind(found.place))
        yield Page(position=window.after)


def _about(calls: Calls, of: Object, key: str) -> _Beside:
    """Gives the records of an object that name others in their field ``key``."""
    known: list[Fields] = []

    def pages(records: Records) -> Iterator[Page]:
        if not records:
            return
        if not known:
            known.append(describe(calls, of))
        ids = [str(record.get("Id")) for record in records]
        for found in of_ids(calls, of, known[0], ids, key):
            yield Page({of.table: found})

    return pages


def _nothing(_records: Records) -> Iterator[Page]:
    return iter(())


def _plain(of: Object, pull: Pull, position: Position | None) -> Iterator[Page]:
    yield from _changes(of, describe(pull.calls, of), True, _nothing, pull, position)


def _opportunities(pull: Pull, position: Position | None) -> Iterator[Page]:
    fields = describe(pull.calls, OPPORTUNITY)
    history = _about(pull.calls, HISTORY, "OpportunityId")
    yield from _changes(OPPORTUNITY, fields, True, history, pull, position)


def _beside_changed(
    of: Object, key: str, about: Object, pull: Pull, position: Position | None
) -> Iterator[Page]:
    """Pages of an object whose records belong to others, which its field ``key`` names.

    It has a position of its own, so that a right to read it that comes later brings all of it.
    Asked for is all that belongs to records that changed and, where it tells of its own changes,
    what changed alone.
    """
    fields = describe(pull.calls, of)

    def beside(records: Records) -> Iterator[Page]:
        ids = [str(record.get("Id")) for record in records]
        for found in of_ids(pull.calls, of, fields, ids, key):
            yield Page({of.table: found})

    def own(start: datetime, end: datetime) -> Iterator[Page]:
        for found in changed(pull.calls, of, fields, start, end):
            yield Page({of.table: found.records})

    changes_alone = own if CHANGED in of.needed else None
    ids = Fields((("Id", CHANGED),))
    yield from _changes(about, ids, False, beside, pull, position, changes_alone)


def _stages(pull: Pull, _position: Position | None) -> Iterator[Page]:
    listed = list(_named(pull.calls, STAGE))
    yield Page(
        {STAGE.table: listed},
        stages=[
            {
                "stage_id": each[NAMED],
                "name": each.get("MasterLabel") or each[NAMED],
                "position": each.get("SortOrder"),
                "is_closing": each.get("IsClosed") is True,
                "is_active": each.get("IsActive") is not False,
            }
            for each in {str(stage[NAMED]): stage for stage in listed}.values()
        ],
    )


def _case_statuses(pull: Pull, _position: Position | None) -> Iterator[Page]:
    yield Page({CASE_STATUS.table: list(_named(pull.calls, CASE_STATUS))})


def _named(calls: Calls, of: Object) -> Iterator[dict[str, Any]]:
    """Each stage or status by the names that a record may give it; where two claim one, the label
    counts.
    """
    described = describe(calls, of)
    there = [each for records in all_ids(calls, of, described.parts[0][1:]) for each in records]
    for name in ("ApiName", "MasterLabel"):
        for each in there:
            if isinstance(each.get(name), str) and each[name].strip():
                yield {**each, NAMED: each[name].strip()}


def _about_case(calls: Calls) -> _Beside:
    """Gives what belongs to cases, of that which the account opens."""
    all_of_them = [_about(calls, of, key) for of, key in _OF_CASES]

    def pages(cases: Records) -> Iterator[Page]:
        for about in all_of_them:
            with _unless_refused():
                yield from about(cases)

    return pages


@contextmanager
def _unless_refused() -> Iterator[None]:
    """Lets pass that an object is not open to the account; its own resource tells of that."""
    try:
        yield
    except RefusedError as error:
        if error.concerns_account:
            raise


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


def _sweep_of_names(of: Object) -> Sweep:
    """What is no longer listed stays, marked: histories go on to name it."""

    def names(pull: Pull) -> Iterator[Sequence[tuple[str, bool]]]:
        yield [(str(each[NAMED]), False) for each in _named(pull.calls, of)]

    return Sweep(of.table, names, _none_is_missed)


def _none_is_missed(_pull: Pull, _ids: Sequence[str]) -> Iterator[Page]:
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
    "case statuses": CASE_STATUS,
    "case history": CASE_CHANGE,
    "case emails": CASE_EMAIL,
    "case comments": CASE_COMMENT,
}

#: What belongs to cases, each with the field that names its case.
_OF_CASES = ((CASE_CHANGE, "CaseId"), (CASE_EMAIL, "ParentId"), (CASE_COMMENT, "ParentId"))

SOURCE = Source(
    name="salesforce",
    title="Salesforce",
    identify=organization,
    dataset=DATASET,
    tables=TABLES,
    resources=(
        _resource("stages", _stages),
        _resource("users", partial(_plain, USER)),
        _resource("opportunities", _opportunities),
        _resource(
            "field history",
            partial(_beside_changed, FIELD_HISTORY, "OpportunityId", OPPORTUNITY),
            optional=True,
        ),
        *(
            _resource(name, partial(_plain, _DESCRIBED[name]), optional=True)
            for name in ("leads", "tasks", "events", "cases")
        ),
        _resource("case statuses", _case_statuses, optional=True),
        *(
            _resource(name, partial(_beside_changed, of, key, CASE), optional=True)
            for name, (of, key) in zip(
                ("case history", "case emails", "case comments"), _OF_CASES, strict=True
            )
        ),
    ),
    open=SalesforceCalls,
    check=_check,
    paces={CALLS: _PACE},
    api_path="/services/",
    sweeps=(
        _sweep_of_names(STAGE),
        _sweep_of_names(CASE_STATUS),
        _sweep(OPPORTUNITY, partial(_about, of=HISTORY, key="OpportunityId")),
        *(_sweep(of) for of in (LEAD, TASK, EVENT)),
        _sweep(CASE, _about_case),
    ),
)
