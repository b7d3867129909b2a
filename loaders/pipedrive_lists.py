"""Lists of Pipedrive's API: pages by id and by time (contract pipedrive 1.3, 1.6 and 1.11)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loaders.api import FailedError, RefusedError
from loaders.calls import Calls, fitting
from loaders.records import Record
from loaders.sources import Pull
from stageline.crm_values import instant

#: A load begins so long before the end of the last one: clocks differ, and answers come late.
OVERLAP = timedelta(minutes=15)

#: The most that lists of v2 give at once.
PAGE = 500
#: The most ids that a question may name.
IDS_AT_ONCE = 100

Params = Mapping[str, str | int]
_Ids = Callable[[Pull], Iterator[Sequence[tuple[str, bool]]]]


def ask(calls: Calls, path: str, params: Params | None = None) -> dict[str, Any]:
    """An answer.

    Raises:
        RefusedError: there is nothing at that path.
    """
    answer = calls.get(path, params)
    if answer is None:
        raise RefusedError(f"HTTP 404 for {path}: is the base URL of the API right?")
    return answer


def records_of(answer: Mapping[str, Any]) -> list[Record]:
    """The records of an answer.

    Raises:
        FailedError: it holds something else.
    """
    data = answer.get("data", ...)
    if data is None:  # in place of an empty list (contract 1.3)
        return []
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise FailedError("an answer without a list of records")
    return data


def _next_cursor(answer: Mapping[str, Any]) -> str | None:
    more = answer.get("additional_data")
    cursor = more.get("next_cursor") if isinstance(more, dict) else None
    return cursor if isinstance(cursor, str) and cursor else None


def pages(
    calls: Calls, path: str, params: Params, cursor: str | None = None
) -> Iterator[tuple[list[Record], str | None]]:
    """Pages of a list, each with the cursor of the next one; pages may be short, or empty.

    Args:
        params: What is asked for, with its ``limit``.
    """
    size = int(params["limit"])

    def page(limit: int) -> dict[str, Any]:
        place = {} if cursor is None else {"cursor": cursor}
        return ask(calls, path, {**params, **place, "limit": limit})

    while True:
        answer, size = fitting(page, size)
        following = _next_cursor(answer)
        yield records_of(answer), following
        if following is None:
            return
        if following == cursor:
            raise FailedError("pages of a list that go in circles")
        cursor = following


def by_id(
    calls: Calls, path: str, params: Params, cursor: str | None = None
) -> Iterator[tuple[list[Record], str | None]]:
    """Pages in the order of ids, which no change of a record moves."""
    whole = {**params, "sort_by": "id", "sort_direction": "asc", "limit": PAGE}
    return pages(calls, path, whole, cursor)


def by_time(
    calls: Calls, path: str, params: Params, since: datetime, until: datetime
) -> Iterator[tuple[list[Record], datetime]]:
    """What changed from one instant until before another; with each page, how far that is read.

    A cursor would miss records while others move to the end of the list (contract 1.11), so each
    page is asked for by the time of the last record of the one before. Of a second that fills more
    than a page, records are asked for by id.
    """
    window = {
        **params,
        "updated_until": written(until),
        "sort_by": "update_time",
        "sort_direction": "asc",
    }
    seen = since.replace(microsecond=0)
    size = PAGE

    def page(limit: int) -> dict[str, Any]:
        return ask(calls, path, {**window, "updated_since": written(seen), "limit": limit})

    while seen < until:
        answer, size = fitting(page, size)
        records = records_of(answer)
        if _next_cursor(answer) is None:
            yield records, until
            return
        last = max((at for each in records if (at := updated_at(each)) is not None), default=seen)
        if last > seen:
            seen = last
            yield records, seen
            continue
        after = seen + timedelta(seconds=1)
        second = {**params, "updated_since": written(seen), "updated_until": written(after)}
        for records, _ in by_id(calls, path, second):
            yield records, seen
        seen = after


def updated_at(record: Record) -> datetime | None:
    """When a record was last updated, to the second; None where that is not said."""
    try:
        read = instant(record.get("update_time"))
    except ValueError:
        return None
    return None if read is None else read.replace(microsecond=0)


def written(at: datetime) -> str:
    """An instant as the API takes it: fractions of a second are an error to it (contract 1.6)."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number_of(record: Record) -> int:
    """The id of a record, to be compared; 0 where it has none."""
    written = str(record.get("id"))
    return int(written) if written.isdecimal() else 0


def read_instant(written: str) -> datetime:
    """What `written` wrote."""
    return datetime.fromisoformat(written)


def every(calls: Calls, path: str) -> list[Record]:
    """All records of a short list."""
    return [each for records, _ in pages(calls, path, {"limit": PAGE}) for each in records]


def _always(_record: Record, _since: datetime) -> bool:
    return True


def ids_of(path: str, is_wanted: Callable[[Record, datetime], bool] = _always) -> _Ids:
    """For a sweep: all ids of a list, each with whether its record is to be loaded."""

    def ids(pull: Pull) -> Iterator[list[tuple[str, bool]]]:
        for records, _ in by_id(pull.calls, path, {}):
            listed = [each for each in records if number_of(each)]
            yield [(str(number_of(each)), is_wanted(each, pull.since)) for each in listed]

    return ids
