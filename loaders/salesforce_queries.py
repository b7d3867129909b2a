"""Queries of Salesforce's REST API that lose nothing: by time of change, by ids, and all ids.

Records are asked for in the order of their last change and, as thousands may share a second, of
their ids. So wherever a query breaks off, the next one goes on behind the last record.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from loaders.api import ApiError, FailedError, RefusedError, TooLargeError
from loaders.calls import Calls
from loaders.salesforce_access import LostPlaceError, TooLongError
from loaders.salesforce_objects import CHANGED, Object, written
from stageline.crm_values import identifier, instant

#: The version of the API; all paths are of one.
API_VERSION = "66.0"
DATA = f"/services/data/v{API_VERSION}"

#: Before anything in any organisation.
BEGINNING = datetime(1999, 1, 1, tzinfo=UTC)

#: Bytes that a query may have in an address; with headers it may be 16,384 in all. Those of its
#: fields, so that enough ids fit beside them; and of an id, with quotes and comma.
QUERY_ROOM, FIELDS_ROOM, _ID_ROOM = 13_000, 7_500, 27

#: Ids that are listed by one query where all of them take too long.
IDS_AT_A_TIME = 2_000

#: Records of a page: the most and the least that can be asked for, and fields of all of them.
_MOST_RECORDS, _LEAST_RECORDS, _FIELDS_OF_A_PAGE = 2_000, 200, 200_000

#: Times in a row that records of ids are asked for in vain; each time it is half as many.
_MOST_FAILURES = 12

_LEAST_SPAN = timedelta(seconds=1)
_NEXT = re.compile(r"/services/data/v[0-9]{1,3}\.[0-9]/query(?:All)?/[A-Za-z0-9_-]{1,200}")
_ID = re.compile("[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")

Records = list[dict[str, Any]]
#: The time of change and the id of a record.
Place = tuple[datetime, str]


@dataclass(frozen=True)
class Fields:
    """What is asked for of an object.

    Attributes:
        parts: Field lists, each of which fits into an address; Id is in each.
    """

    parts: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> "Fields":
        """All those names, in as few parts as fit."""
        parts: list[list[str]] = [[]]
        room = 0
        for name in names:
            size = len(name) + 3  # its comma is written as %2C
            if room + size > FIELDS_ROOM:
                parts.append(["Id"])
                room = 0
            parts[-1].append(name)
            room += size
        return cls(tuple(map(tuple, parts)))


@dataclass(frozen=True)
class Found:
    """A page of records.

    Attributes:
        place: Of its last record; None where that cannot be read.
        total: How many there are, this page's and later ones'.
    """

    records: Records
    place: Place | None
    total: int | None


def describe(calls: Calls, of: Object) -> Fields:
    """The fields of an object that the account has and that are wanted.

    Raises:
        RefusedError: it has not the object, or hides what is needed of it.
    """
    answer = calls.get(f"{DATA}/sobjects/{of.name}/describe")
    described = [each for each in _list(answer, "fields") if each.get("name")]
    compound = {each.get("compoundFieldName") for each in described} - {"Name"}
    wanted = [each for each in described if each["name"] not in compound and of.wants(each)]
    names = [str(each["name"]) for each in wanted]
    missing = [name for name in of.needed if name not in names]
    if missing:
        raise RefusedError(
            f"{', '.join(missing)} of {of.name} cannot be read by its user", concerns_account=False
        )
    for each in wanted:
        beside = of.related.get(each["name"])
        if beside and each.get("relationshipName") == beside.split(".")[0]:
            names.append(beside)
    return Fields.of([*of.needed, *(name for name in names if name not in of.needed)])


def clock(calls: Calls, until: datetime) -> datetime:
    """``until`` by Salesforce's clock, where that is behind ours: what is stamped after its now is
    yet to come.
    """
    try:
        now = parsedate_to_datetime(calls.api.headers.get("Date") or "")
    except ValueError:
        return until
    return min(until, now.astimezone(UTC))


def changed(
    calls: Calls,
    of: Object,
    fields: Fields,
    start: datetime | Place,
    end: datetime,
    condition: str = "",
) -> Iterator[Found]:
    """The records of an object that last changed from ``start`` on, before ``end``.

    Args:
        start: An instant, or the place of a record behind which to begin.
        condition: Of SOQL, which they have to meet, too.
    """
    at, behind = (start, None) if isinstance(start, datetime) else (start[0], start)
    span = end - at
    most: int | None = None
    while at < end:
        span_end = min(at + span, end)
        begun_behind = behind
        soql = _between(of, fields, behind or at, span_end, condition)
        given = 0
        try:
            for found in _pages(
                calls, of.operation, soql if most is None else f"{soql} LIMIT {most}", fields
            ):
                given = max(given, found.total or 0)
                behind = found.place or behind
                if behind:
                    at = behind[0]
                _complete(calls, of, fields, found.records)
                yield found
        except TooLongError:
            span = (span_end - at) / 2
            if span < _LEAST_SPAN:
                raise FailedError(f"a second of {of.name} takes Salesforce too long") from None
            span -= timedelta(microseconds=span.microseconds)
            continue
        except TooLargeError:
            # Pages of queries have 200 records at least, whatever is asked for.
            most = (most or _page_size(fields)) // 2
            if most == 0:
                raise
            continue
        except LostPlaceError:
            if behind == begun_behind:
                raise
            continue
        if most is not None and given >= most and behind != begun_behind:
            continue
        at, behind, span = span_end, None, span * 2


def of_ids(
    calls: Calls, of: Object, fields: Fields, ids: Sequence[str], key: str = "Id"
) -> Iterator[Records]:
    """The records of an object whose ``key`` is one of the ids."""
    known = [each for each in ids if _ID.fullmatch(each)]
    first = fields.parts[0]
    at_once, failures = _ids_at_once(first), 0
    while known:
        asked, rest = known[:at_once], known[at_once:]
        condition = f"{key} IN ({','.join(map(_quoted, asked))})"
        try:
            pages = list(
                _pages(calls, of.operation, _select(of, first, condition), Fields((first,)))
            )
        except (TooLongError, TooLargeError, LostPlaceError) as error:
            failures += 1
            is_lost = isinstance(error, LostPlaceError)
            if failures > _MOST_FAILURES or (len(asked) == 1 and not is_lost):
                raise
            at_once = max(1, len(asked) // 2)
            continue
        failures = 0
        for found in pages:
            _complete(calls, of, fields, found.records)
            yield found.records
        known = rest


def all_ids(calls: Calls, of: Object, fields: Sequence[str]) -> Iterator[Records]:
    """All records of an object, those in the recycle bin included, with few fields of each."""
    wanted = Fields((("Id", *fields),))
    last, limit = "", ""
    while True:
        begun_behind, count = last, 0
        condition = f"Id > {_quoted(last)}" if last else ""
        soql = f"{_select(of, wanted.parts[0], _all_of(of.condition, condition))} ORDER BY Id"
        try:
            for found in _pages(calls, of.operation, soql + limit, wanted):
                yield found.records
                count += len(found.records)
                ids = [str(each["Id"]) for each in found.records if each.get("Id")]
                last = ids[-1] if ids and _ID.fullmatch(ids[-1]) else last
        except TooLongError:
            if limit:
                raise
            limit = f" LIMIT {IDS_AT_A_TIME}"
            continue
        except LostPlaceError:
            if last == begun_behind:
                raise
            continue
        if not limit or count < IDS_AT_A_TIME or last == begun_behind:
            return


def _between(
    of: Object, fields: Fields, start: datetime | Place, end: datetime, condition: str
) -> str:
    if isinstance(start, datetime):
        later = f"{CHANGED} >= {written(start)}"
    else:
        at, last = written(start[0]), _quoted(start[1])
        later = f"{CHANGED} >= {at} AND ({CHANGED} > {at} OR Id > {last})"
    conditions = _all_of(later, f"{CHANGED} < {written(end)}", of.condition, condition)
    return f"{_select(of, fields.parts[0], conditions)} ORDER BY {CHANGED},Id"


def organization(calls: Calls) -> object:
    """The id of the organisation."""
    answer = calls.get(f"{DATA}/query", {"q": "SELECT Id FROM Organization"})
    found = _list(answer, "records")
    return found[0].get("Id") if found else None


def _select(of: Object, names: Sequence[str], condition: str) -> str:
    where = ["WHERE", condition] if condition else []
    return " ".join(["SELECT", ",".join(names), "FROM", of.name, *where])


def _all_of(*conditions: str) -> str:
    return " AND ".join(condition for condition in conditions if condition)


def _quoted(entity_id: str) -> str:
    if not _ID.fullmatch(entity_id):
        raise ApiError("an id that is none of Salesforce")
    return f"'{entity_id}'"


def _ids_at_once(names: Sequence[str]) -> int:
    return (QUERY_ROOM - sum(len(name) + 3 for name in names)) // _ID_ROOM


def _pages(calls: Calls, operation: str, soql: str, fields: Fields) -> Iterator[Found]:
    """The pages of a query; only the path of an address is followed, on the host that we know."""
    options = {"Sforce-Query-Options": f"batchSize={_page_size(fields)}"}
    answer = calls.ask(lambda: calls.api.get(f"{DATA}/{operation}", {"q": soql}, options))
    while True:
        if answer is None:
            raise LostPlaceError("the next page of a query is no longer there")
        total = answer.get("totalSize")
        found = _list(answer, "records")
        yield Found(found, _place(found), total if isinstance(total, int) else None)
        if answer.get("done") is not False:
            return
        path = urlsplit(str(answer.get("nextRecordsUrl") or "")).path
        if not _NEXT.fullmatch(path):
            raise LostPlaceError("a query that is not done and has no next page")
        answer = calls.get(path)


def _page_size(fields: Fields) -> int:
    records = _FIELDS_OF_A_PAGE // sum(map(len, fields.parts))
    return min(max(records, _LEAST_RECORDS), _MOST_RECORDS)


def _place(records: Records) -> Place | None:
    for record in reversed(records):
        try:
            at, last = instant(record.get(CHANGED)), identifier(record.get("Id"))
        except ValueError:
            continue
        if at is not None and last is not None and _ID.fullmatch(last):
            return at, last
    return None


def _complete(calls: Calls, of: Object, fields: Fields, records: Records) -> None:
    """Adds the fields that did not fit into the first query."""
    by_id = {str(record.get("Id")): record for record in records}
    for part in fields.parts[1:]:
        for more in of_ids(calls, of, Fields((part,)), list(by_id)):
            for record in more:
                by_id.get(str(record.get("Id")), {}).update(record)


def _list(answer: Mapping[str, Any] | None, name: str) -> Records:
    found = (answer or {}).get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
