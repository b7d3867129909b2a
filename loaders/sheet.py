"""Loads a sheet: opportunities out of a CSV behind an address, the whole of it at each load.

The address is the account's base URL, and its token goes along as that of a bearer. An account
without a token is a sheet that is published to everyone: what publishes them answers with a
redirect to another host, which is followed where nothing secret goes along. Columns are
named like the fields of entity `opportunities` (loaders.entities); others are kept as custom
fields. A row that no longer stands in the sheet is gone.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from loaders.api import Api, FailedError, RefusedError
from loaders.calls import DEADLINE, Calls, Turns
from loaders.entities import ENTITIES, Field
from loaders.open_address import OpenAddress
from loaders.pace import CALLS, Pace
from loaders.records import Column, Record, Table
from loaders.sources import Finding, Page, Position, Pull, Resource, Source, Sweep
from stageline.crm_values import identifier
from stageline.settings.api_accounts import ApiAccount

DATASET = "raw_sheet"
KEY = "opportunity_id"

_FIELDS = ENTITIES["opportunities"].fields
_NAMES = {field.name for field in _FIELDS}


def _value_of(field: Field) -> Callable[[Record], object]:
    """Finds the value of a field; one that it may not have is a list, which no column takes."""

    def find(record: Record) -> object:
        value = str(record.get(field.name) or "").strip()
        if field.choices:
            value = value.lower()
        return value if _fits(field, value) else [value]

    return find


def _fits(field: Field, value: str) -> bool:
    if not value:
        return not field.required
    if field.choices:
        return value in field.choices
    if field.least is not None and field.most is not None:
        try:
            return field.least <= float(value) <= field.most
        except ValueError:
            return False
    return True


def _custom_fields(record: Record) -> object:
    return {name: value for name, value in record.items() if name and name not in _NAMES and value}


OPPORTUNITIES = Table(
    DATASET,
    "opportunities",
    (KEY,),
    (
        Column(KEY, "id"),
        *(
            Column(field.name, field.type, _value_of(field))
            for field in _FIELDS
            if field.name != KEY
        ),
        Column("custom_fields", "json", _custom_fields),
    ),
    is_swept=True,
)


def _records(calls: Calls) -> list[tuple[int, Record]]:
    """The rows of the sheet, by the names of its columns, each with the line that it begins in."""
    body = calls.ask(lambda: calls.api.download(""))
    try:
        rows = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""))
        records: list[tuple[int, Record]] = [(_line(rows.line_num, row), row) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FailedError(f"an answer that is no CSV ({type(error).__name__})") from None
    missing = {field.name for field in _FIELDS if field.required} - set(rows.fieldnames or ())
    if missing:
        raise RefusedError(f"the sheet has no column {', '.join(sorted(missing))}")
    return records


def _line(last: int, record: Record) -> int:
    """The line in which a row begins that ends in line ``last``: values may hold line breaks."""
    return last - sum(str(value).count("\n") for value in record.values())


def _opportunities(pull: Pull, _position: Position | None) -> Iterator[Page]:
    """One call a load, however much has changed: a CSV tells of no changes.

    Of rows with one id the first counts, as in files; one that says the same again is no matter.
    """
    firsts: dict[str, tuple[int, Record]] = {}
    records: list[Record] = []
    rejects = []
    for line, record in _records(pull.calls):
        key = _key(record)
        first_line, first = firsts.setdefault(key, (line, record)) if key else (line, record)
        if first is record:
            records.append(record)
        elif {**first, KEY: key} != {**record, KEY: key}:
            rejects.append(
                (
                    record,
                    f"line {line}: {KEY} {key} stands in line {first_line} already, with other"
                    " values",
                )
            )
    yield Page({OPPORTUNITIES: records}, rejects={OPPORTUNITIES: rejects})


def _key(record: Record) -> str | None:
    """The id of a row; None where it has none that can be read."""
    try:
        return identifier(record[KEY])
    except ValueError:
        return None


def _ids(pull: Pull) -> Iterator[Sequence[tuple[str, bool]]]:
    yield [(key, False) for _, each in _records(pull.calls) if (key := _key(each))]


def _none_is_missed(_pull: Pull, _ids: Sequence[str]) -> Iterator[Page]:
    """All rows are loaded each time."""
    return iter(())


def _open(turns: Turns, account: ApiAccount) -> Calls:
    if not account.token:
        return Calls(OpenAddress(account.base_url, wait_unsaid=60.0, deadline=DEADLINE), turns)
    header = ("Authorization", f"Bearer {account.token}")
    return Calls(Api(account.base_url, header, wait_unsaid=60.0, deadline=DEADLINE), turns)


def _check(calls: Calls) -> Iterator[Finding]:
    _records(calls)
    yield Finding("opportunities", None)


SOURCE = Source(
    name="sheet",
    title="Sheet",
    dataset=DATASET,
    tables=(OPPORTUNITIES,),
    resources=(Resource("opportunities", _opportunities, "an address that gives a CSV"),),
    sweeps=(Sweep(OPPORTUNITIES, _ids, _none_is_missed, every=timedelta(0)),),
    open=_open,
    check=_check,
    paces={CALLS: Pace(calls=30, seconds=60.0)},
)
