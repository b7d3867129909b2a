"""Values of CRMs, read by columns as they are one by one."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.record_values import READERS, Type, as_json, read_values
from loaders.records import Column, Rows, Table

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)

_DIGITS = st.integers(-(10**20), 10**20)
_ODD = (
    *("", " ", "\t", "5.0", "05", " 7 ", "1e3", "-0", "NaN", "true", "False", "1", "9" * 40),
    *("a\0b", "\ud83d", "\u2003", "é", "x" * 201, "x" * 100_001, "1767225600000", "2026-W01-1"),
    *("2026-02-30", "2026-03-01", "2026-03-01x", "2026-03-01T25:00:00Z", "2026-03-01 10:00:00"),
    *("2026-03-01T10:00Z", "2026-03-01T10:00:00.123456789Z", "2026-03-01T10:00:00+0200"),
    *("1999-12-31T23:59:59Z", "2026-03-01T10:00:00-1630", "2026-03-01T10Z", "2026-03-01T10:00Z"),
    *("2026-03-01T10:00:00:00Z", "2026-03-01T10:00:00+16:00", "999999999999"),
    *("4102444800000", "4133980800000", "2100-06-01T00:00:00Z", "2026-03-01T10:00Z+00:00"),
    *("2026-03-01T10:00:00-05:30", "0001-01-01", "1999-12-31T23:59:59-01:00"),
    *("2000-01-01T00:00:00+03:00", "2100-12-31T23:59:59-05:00", "2100-12-31T23:59:59Z"),
    "2101-01-01T00:00:00Z",
)
_FIRST, _LAST = (datetime(year, 1, 2, tzinfo=UTC) for year in (1999, 2101))
_STAMPS = st.datetimes(_FIRST.replace(tzinfo=None), _LAST.replace(tzinfo=None)).map(
    lambda at: (
        at.isoformat(" " if at.second % 2 else "T") + ["", "Z", "+02:00", "-0330"][at.minute % 4]
    )
)
#: What CRMs write: in UTC, and counts of milliseconds.
_IN_UTC = st.datetimes(_FIRST.replace(tzinfo=None), _LAST.replace(tzinfo=None)).map(
    lambda at: at.isoformat(timespec="milliseconds") + ["Z", "Z", "+00:00"][at.minute % 3]
)
_COUNTS = st.integers(900_000_000_000, 4_200_000_000_000).map(str)
_TEXTS = st.one_of(
    st.sampled_from(_ODD),
    _STAMPS,
    _STAMPS.map(lambda written: written[:10]),
    st.text(max_size=6),
    st.decimals(-(10**6), 10**6, places=4).map(str),
    _DIGITS.map(str),
)
_DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
#: Columns as CRMs send them: of one kind of value mostly, and of any at times.
_COLUMNS = st.one_of(
    *(
        st.lists(st.none() | each, max_size=8)
        for each in (
            _TEXTS,
            _STAMPS,
            _IN_UTC,
            _IN_UTC | _COUNTS,
            _IN_UTC | st.sampled_from(_ODD),
            st.booleans(),
            _DIGITS,
            _DECIMALS,
            _DIGITS | _DECIMALS,
            st.one_of(_TEXTS, st.booleans(), _DIGITS, _DECIMALS, st.just([1]), st.just({"a": 1})),
        )
    )
)


def one_by_one(values: list[Any], kind: Type) -> tuple[list[Any], dict[int, Any]]:
    """What the reader of a type makes of each value."""
    read: list[Any] = []
    unfit = {}
    for place, value in enumerate(values):
        try:
            read.append(None if value is None else READERS[kind](value))
        except ValueError:
            read.append(None)
            unfit[place] = value
    return read, unfit


@pytest.mark.parametrize("kind", get_args(Type))
@settings(max_examples=120, deadline=None)
@given(values=_COLUMNS)
def test_a_column_is_read_as_its_values_are_one_by_one(kind: Type, values: list[Any]) -> None:
    array, unfit = read_values(values, kind)
    assert (array.to_pylist(), unfit) == one_by_one(values, kind)


@pytest.mark.parametrize("kind", get_args(Type))
@settings(max_examples=80, deadline=None)
@given(
    values=st.one_of(
        *(
            st.lists(st.none() | each, max_size=8)
            for each in (
                st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
                _STAMPS,
                _IN_UTC | _COUNTS,
                st.sampled_from([each for each in _ODD if each != "\ud83d"]),
                st.integers(-(2**63), 2**63 - 1),
            )
        )
    ),
    first=st.integers(0, 2),
)
def test_a_column_of_arrow_is_read_as_its_values_are_one_by_one(
    kind: Type, values: list[Any], first: int
) -> None:
    are_numbers = any(isinstance(each, int) for each in values)
    column = pa.array(values, pa.int64() if are_numbers else pa.string())[first:]
    array, unfit = read_values(column, kind)
    assert (array.to_pylist(), unfit) == one_by_one(values[first:], kind)


@pytest.mark.parametrize("kind", get_args(Type))
def test_a_text_in_odd_form_is_read_as_it_is_alone(kind: Type) -> None:
    for value in _ODD:
        array, unfit = read_values([value, None], kind)
        assert (array.to_pylist(), unfit) == one_by_one([value, None], kind), value


@pytest.mark.parametrize("kind", get_args(Type))
def test_an_odd_text_is_read_in_a_column_of_its_own_as_it_is_alone(kind: Type) -> None:
    for value in _ODD:
        array, unfit = read_values([value], kind)
        assert (array.to_pylist(), unfit) == one_by_one([value], kind), repr(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("integer", 2**63 - 1), ("integer", 2**63), ("integer", -(2**63)), ("id", 2**80)),
        *(("int32", 2**31 - 1), ("int32", -(2**31)), ("text", True), ("numeric", 10**29)),
        *(("numeric", Decimal(each)) for each in ("1e28", "1e29", "0.0000000005")),
    ],
)
def test_a_number_at_the_edge_of_its_column_is_read_as_it_is_alone(kind: Type, value: Any) -> None:
    array, unfit = read_values([value, None, 7], kind)
    assert (array.to_pylist(), unfit) == one_by_one([value, None, 7], kind)


THINGS = Table(
    "raw_things",
    "things",
    ("thing_id",),
    (
        Column("thing_id", "id", "id"),
        Column("price", "numeric", "of.price"),
        Column("unit", "text", "of.unit.name"),
        Column("size", "integer", lambda record: len(record)),
    ),
)


def test_objects_within_records_are_found_also_where_they_are_none() -> None:
    rows = Rows(THINGS)
    rows.read(
        [
            {"id": 1, "of": {"price": "2.50", "unit": {"name": "kg"}}},
            {"id": 2, "of": None},
            {"id": 3, "of": [1]},
            {"id": 4},
            {"id": 5, "of": {"price": 3, "unit": "kg"}},
        ],
        AT,
    )
    read = rows.take("main").to_pylist()
    assert [(each["thing_id"], each["price"], each["unit"], each["size"]) for each in read] == [
        ("1", Decimal("2.50"), "kg", 2),
        ("2", None, None, 2),
        ("3", None, None, 2),
        ("4", None, None, 1),
        ("5", Decimal(3), None, 2),
    ]


def test_of_equal_keys_the_last_stays_whenever_it_was_read() -> None:
    rows = Rows(THINGS)
    rows.read([{"id": 1, "of": {"price": 1}}, {"id": 2}, {"id": "1", "of": {"price": 2}}], AT)
    rows.read([{"id": 3}, {"id": 2, "of": {"price": 4}}], AT)
    assert [(each["thing_id"], each["price"]) for each in rows.take("main").to_pylist()] == [
        ("1", Decimal(2)),
        ("3", None),
        ("2", Decimal(4)),
    ]
    assert len(rows) == 0


def test_what_does_not_fit_stays_with_its_row_and_what_has_no_key_is_kept_apart() -> None:
    rows = Rows(THINGS)
    rows.read(
        [{"id": 1, "of": {"price": "much"}}, {"id": [2], "of": {"price": "few"}}, {"id": 3}], AT
    )
    rows.finish()
    assert rows.unreadable == {"price": 1}
    assert rows.rejects == [('{"id": [2], "of": {"price": "few"}}', "without a readable thing_id")]
    read = rows.take("main").to_pylist()
    assert [each["unreadable"] and json.loads(each["unreadable"]) for each in read] == [
        {"price": "much"},
        None,
    ]


_KEPT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _KEPT
_JSON = st.recursive(_LEAVES, lambda of: st.lists(of) | st.dictionaries(_KEPT, of), max_leaves=12)


@given(_JSON)
def test_json_is_written_as_the_standard_library_writes_it(value: object) -> None:
    assert as_json(value) == json.dumps(value, ensure_ascii=False, sort_keys=True)


def test_json_holds_exact_numbers_and_nothing_that_no_database_keeps() -> None:
    value = {"b": Decimal("1.10"), "a": datetime(2026, 1, 1, tzinfo=UTC), "c": "\0\ud800"}
    written = '{"a": "2026-01-01T00:00:00+00:00", "b": "1.10", "c": "\N{REPLACEMENT CHARACTER}'
    assert as_json(value) == written + '\N{REPLACEMENT CHARACTER}"}'
