"""Reading one value: exactly, or not at all with a reason; and whole columns by the same rules."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loaders.columns import TYPES, content, fingerprints, read_column
from loaders.mapping import Reading
from loaders.values import UnfitError, read_value

ZONES = (
    "Europe/Kyiv",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Africa/Casablanca",  # clocks go back for Ramadan
    "Asia/Kolkata",
    "Pacific/Apia",  # skipped a whole day in 2011
    "America/Sao_Paulo",  # changed at midnight
    "UTC",
)


def reading(kind: str, **more: Any) -> Reading:
    if "zone" in more:
        more["zone"] = ZoneInfo(more["zone"])
    return Reading(name="x", type=kind, **more)


@pytest.mark.parametrize(
    ("kind", "more", "text", "value"),
    [
        ("text", {}, "  Acme, Inc. ", "Acme, Inc."),
        ("text", {}, "007", "007"),
        ("text", {}, "Київ 🚚", "Київ 🚚"),
        ("text", {}, "", None),
        ("text", {"empty": frozenset({"n/a"})}, "N/A", None),
        ("text", {"choices": ("won", "lost")}, " WON ", "won"),
        ("text", {"values": (("closed won", "won"),)}, "Closed Won", "won"),
        ("text", {"values": (("n/a", ""),)}, "n/a", None),
        ("text", {"default": "deal"}, "", "deal"),
        ("numeric", {}, "0.1", Decimal("0.1")),
        ("numeric", {}, "-12345678901234567890123456789.123456789", None),
        ("numeric", {}, "1e3", Decimal(1000)),
        ("numeric", {}, ".5", Decimal("0.5")),
        ("numeric", {}, "+7", Decimal(7)),
        ("numeric", {"decimal": ",", "thousands": "."}, "1.234.567,89", Decimal("1234567.89")),
        ("numeric", {"thousands": " "}, "1\u00a0234 567.5", Decimal("1234567.5")),
        ("numeric", {"thousands": ","}, "999", Decimal(999)),
        ("numeric", {"thousands": ","}, "-1,234", Decimal(-1234)),
        ("numeric", {"scale": Decimal("0.01"), "most": Decimal(1)}, "30", Decimal("0.3")),
        ("numeric", {"most": Decimal(1)}, "30 %", Decimal("0.3")),
        ("numeric", {"most": Decimal(1)}, "0", Decimal(0)),
        ("numeric", {"round": 2}, "0.30000000000000004", Decimal("0.3")),
        ("numeric", {"round": 1}, "0.25", Decimal("0.2")),
        ("integer", {}, "5.0", 5),
        ("integer", {}, "-9223372036854775808", -(2**63)),
        ("boolean", {}, "Yes", True),
        ("boolean", {}, "0", False),
        ("date", {}, "2024-02-29", date(2024, 2, 29)),
        ("date", {}, "2024-02-29 00:00:00", date(2024, 2, 29)),
        ("date", {"format": "%d/%m/%Y"}, "01/02/2024", date(2024, 2, 1)),
        ("timestamp", {}, "2024-01-31T09:30:00Z", datetime(2024, 1, 31, 9, 30, tzinfo=UTC)),
        ("timestamp", {}, "2024-01-31 09:30+0200", datetime(2024, 1, 31, 7, 30, tzinfo=UTC)),
        (
            "timestamp",
            {},
            "2024-01-31T09:30:00.123456789Z",
            datetime(2024, 1, 31, 9, 30, 0, 123456, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"zone": "Europe/Kyiv"},
            "2024-07-01 12:00",
            datetime(2024, 7, 1, 9, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"zone": "Europe/Kyiv"},
            "2024-07-01",
            datetime(2024, 6, 30, 21, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"zone": "Europe/Kyiv", "format": "%d.%m.%Y %H:%M"},
            "01.07.2024 12:00",
            datetime(2024, 7, 1, 9, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"format": "%b %d %Y %I:%M %p %z"},
            "Jul 01 2024 12:00 PM +0300",
            datetime(2024, 7, 1, 9, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"zone": "Europe/Kyiv", "ambiguous": "earlier"},
            "2024-10-27 03:30",
            datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"zone": "Europe/Kyiv", "ambiguous": "later"},
            "2024-10-27 03:30",
            datetime(2024, 10, 27, 1, 30, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"format": "epoch"},
            "1700000000.5",
            datetime(2023, 11, 14, 22, 13, 20, 500000, tzinfo=UTC),
        ),
        (
            "timestamp",
            {"format": "epoch_ms"},
            "1700000000123",
            datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC),
        ),
    ],
)
def test_good_values(kind: str, more: dict[str, Any], text: str, value: Any) -> None:
    if kind == "numeric" and value is None:
        value = Decimal(text)
    assert read_value(text, reading(kind, **more)) == value
    column = read_column([text, None, text], reading(kind, **more))
    fallback = read_value(None, reading(kind, **more))
    assert column.problems == {}
    assert column.values.to_pylist() == [value, fallback, value]


@pytest.mark.parametrize(
    ("kind", "more", "text", "reason"),
    [
        ("text", {"required": True}, "  ", "is empty"),
        ("text", {"choices": ("won", "lost")}, "maybe", "'maybe' is not one of won, lost"),
        ("text", {}, "a\0b", "NUL"),
        ("text", {}, "caf\udce9", "byte 0xE9"),
        ("text", {}, "\ud83d", "surrogate"),
        ("numeric", {}, "abc", "'abc' is not a number"),
        ("numeric", {}, "1,5", "is not a number"),
        ("numeric", {}, "NaN", "is not a number"),
        ("numeric", {}, "Infinity", "is not a number"),
        ("numeric", {}, "١٢", "is not a number"),
        ("numeric", {}, "$5", "is not a number"),
        ("numeric", {}, "1_000", "is not a number"),
        ("numeric", {}, "0.0000000001", "more than 9 decimals"),
        ("numeric", {}, "123456789012345678901234567890", "more than 29 digits"),
        ("numeric", {}, "1e400", "more than 29 digits"),
        ("numeric", {"thousands": ","}, "1,5", "between thousands"),
        ("numeric", {"thousands": ","}, "1,2345", "between thousands"),
        ("numeric", {"decimal": ","}, "1.5", "decimal mark"),
        ("numeric", {"most": Decimal(1)}, "30", "above 1 (percent?"),
        ("numeric", {"least": Decimal(0)}, "-0.1", "below 0"),
        ("integer", {}, "1.5", "not a whole number"),
        ("integer", {}, "9223372036854775808", "too large"),
        ("integer", {"least": Decimal(0), "most": Decimal(10)}, "11", "above 10"),
        ("boolean", {}, "maybe", "neither true nor false"),
        ("date", {}, "2024-02-30", "no real date"),
        ("date", {}, "2024-02-01 10:00", "time of day"),
        ("date", {}, "01/02/2024", "is not a date or time"),
        ("timestamp", {}, "2024-01-31T09:30", "no time zone"),
        ("timestamp", {}, "2024-01-31T24:00Z", "no real date or time"),
        ("timestamp", {}, "2024-01-31T09:30:60Z", "no real date or time"),
        ("timestamp", {}, "2024-01-31T09:30+25:00", "offset from UTC is impossible"),
        ("timestamp", {}, "0001-01-01T00:00Z", "outside the years"),
        ("timestamp", {}, "9999-12-31T23:59:59Z", "outside the years"),
        ("timestamp", {"zone": "Europe/Kyiv"}, "2024-03-31 03:30", "did not exist in Europe/Kyiv"),
        ("timestamp", {"zone": "Europe/Kyiv"}, "2024-10-27 03:30", "occurred twice"),
        ("timestamp", {"format": "%d.%m.%Y"}, "2024-01-31", "does not have the format"),
        (
            "timestamp",
            {"format": "%d.%m.%Y", "zone": "UTC"},
            "31.02.2024",
            "does not have the format",
        ),
        ("timestamp", {"format": "epoch"}, "soon", "not a count of seconds"),
        ("timestamp", {"format": "epoch_ms"}, "999999999999999", "outside the years"),
    ],
)
def test_bad_values(kind: str, more: dict[str, Any], text: str, reason: str) -> None:
    with pytest.raises(UnfitError, match=re.escape(reason)):
        read_value(text, reading(kind, **more))
    column = read_column([text, text], reading(kind, **more))
    assert set(column.problems) == {0, 1}
    assert reason in column.problems[1]
    assert column.values.to_pylist() == [None, None]


def instants(naive: datetime, zone: ZoneInfo) -> list[datetime]:
    """All instants at which clocks in ``zone`` showed ``naive``, found by trying every offset."""
    around = [naive.replace(tzinfo=UTC) + timedelta(hours=h) for h in range(-50, 51)]
    offsets = {instant.astimezone(zone).utcoffset() for instant in around}
    tried = [naive.replace(tzinfo=UTC) - (offset or timedelta()) for offset in offsets]
    return sorted(u for u in tried if u.astimezone(zone).replace(tzinfo=None) == naive)


@settings(max_examples=300, deadline=None)
@given(
    st.datetimes(datetime(1995, 1, 1), datetime(2060, 12, 31)),  # noqa: DTZ001 - local times
    st.sampled_from(ZONES),
    st.sampled_from(["reject", "earlier", "later"]),
)
@example(datetime(2024, 3, 31, 3, 0), "Europe/Kyiv", "later")  # noqa: DTZ001
@example(datetime(2024, 10, 27, 3, 59, 59, 999999), "Europe/Kyiv", "later")  # noqa: DTZ001
@example(datetime(2011, 12, 30, 12), "Pacific/Apia", "earlier")  # noqa: DTZ001
@example(datetime(2024, 4, 7, 1, 45), "Australia/Lord_Howe", "earlier")  # noqa: DTZ001
@example(datetime(2018, 11, 4, 0, 30), "America/Sao_Paulo", "earlier")  # noqa: DTZ001
@example(datetime(2050, 10, 30, 3, 30), "Europe/Kyiv", "reject")  # noqa: DTZ001
def test_local_times_agree_with_trying_every_offset(
    naive: datetime, zone: str, ambiguous: str
) -> None:
    expected = instants(naive, ZoneInfo(zone))
    rule = reading("timestamp", zone=zone, ambiguous=ambiguous)
    column = read_column([naive.isoformat(" "), naive.isoformat()], rule)
    if len(expected) == 1 or (len(expected) == 2 and ambiguous != "reject"):
        assert column.problems == {}
        wanted = expected[0] if ambiguous == "earlier" else expected[-1]
        assert column.values.to_pylist() == [wanted, wanted]
        assert read_value(naive.isoformat(), rule) == wanted
    else:
        assert set(column.problems) == {0, 1}
        said = "occurred twice" if expected else "did not exist"
        assert said in column.problems[0]


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime(1900, 1, 2), datetime(2199, 12, 30), timezones=st.timezones()),  # noqa: DTZ001
)
def test_times_with_an_offset_keep_their_instant(at: datetime) -> None:
    offset = at.utcoffset() or timedelta()
    if offset.seconds % 60:  # local mean time: ISO 8601 cannot write it
        at = at.astimezone(UTC)
    # a fixed offset: comparing times of a zone that changes its own is a matter of its own
    at = datetime.fromisoformat(at.isoformat())
    column = read_column([at.isoformat()], reading("timestamp", zone="Asia/Tokyo"))
    assert column.problems == {}
    assert column.values.to_pylist() == [at]


def test_typed_timestamps_are_read_like_written_ones() -> None:
    zone = reading("timestamp", zone="Europe/Kyiv")
    naive = datetime(2024, 7, 1, 12)  # noqa: DTZ001
    at = datetime(2024, 7, 1, 9, tzinfo=UTC)
    for unit in ("s", "ms", "us", "ns"):
        local = read_column(pa.array([naive, None], pa.timestamp(unit)), zone)
        aware = read_column(pa.array([at, None], pa.timestamp(unit, "Asia/Tokyo")), zone)
        assert local.values.to_pylist() == aware.values.to_pylist() == [at, None]
        assert not local.problems | aware.problems
    cut = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC"))
    assert read_column(cut, zone).values.cast(pa.int64()).to_pylist() == [1_700_000_000_123_456]
    far = read_column(pa.array([2**60], pa.timestamp("s", "UTC")), zone)
    assert set(far.problems) == {0}
    unzoned = read_column(pa.array([naive], pa.timestamp("us")), reading("timestamp"))
    assert "no time zone" in unzoned.problems[0]


@settings(max_examples=300, deadline=None)
@given(
    st.from_regex(r"\A[+-]?[0-9]{1,31}(\.[0-9]{0,11})?\Z"),
    st.sampled_from([None, "0.01", "1000", "0.333"]),
    st.sampled_from([".", ","]),
)
def test_numbers_are_exact(text: str, scale: str | None, mark: str) -> None:
    whole, _, decimals = text.partition(".")
    exact = Fraction(int(whole + decimals), 10 ** len(decimals)) * Fraction(scale or 1)
    rule = reading("numeric", scale=Decimal(scale) if scale else None, decimal=mark)
    column = read_column([text.replace(".", mark)], rule)
    if abs(exact) >= 10**29 or exact * 10**9 != int(exact * 10**9):
        assert set(column.problems) == {0}
    else:
        assert column.problems == {}
        assert Fraction(column.values[0].as_py()) == exact


SAMPLES = {
    "numeric": ["1", "1.5", "-0.25", "1e2", " 7 ", "x", "", "1.0000000001", "30%", "2"],
    "integer": ["1", "-4", "007", "5.0", "5.5", "", "x", "12345678901234567890", "+3"],
    "date": ["2024-01-31", "2024-02-30", "2024-1-3", "", "2024-01-31T00:00", "1899-12-31"],
    "timestamp": [
        "2024-01-31T09:30:00Z",
        "2024-01-31 09:30",
        "2024-03-31 03:30",
        "2024-10-27 03:30:00.5",
        "2024-06-01",
        "1899-12-31T00:00Z",
        "1950-06-01 12:00",
        "x",
        "",
        "2024-02-30 10:00",
    ],
    "text": ["a", " b ", "", "won", "c\0", "d\udcff"],
    "boolean": ["1", "no", "x", "", "TRUE"],
}


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(SAMPLES)))
def test_a_column_is_read_as_its_values_are(data: st.DataObject, kind: str) -> None:
    cells = data.draw(st.lists(st.one_of(st.none(), st.sampled_from(SAMPLES[kind])), max_size=8))
    bounded = kind in {"numeric", "integer"}
    rule = reading(
        kind,
        required=data.draw(st.booleans()),
        least=data.draw(st.sampled_from([None, Decimal(0), Decimal("0.5")])) if bounded else None,
        most=data.draw(st.sampled_from([None, Decimal(1), Decimal(10)])) if bounded else None,
        zone=data.draw(st.sampled_from(["Europe/Kyiv", "UTC"])),
    )
    column = read_column(cells, rule)
    assert column.values.type == TYPES[kind]
    for row, cell in enumerate(cells):
        try:
            expected = read_value(cell, rule)
        except UnfitError as reason:
            assert column.problems[row] == str(reason)
        else:
            assert row not in column.problems
            assert column.values[row].as_py() == expected


@given(st.lists(st.tuples(st.none() | st.text(max_size=3), st.none() | st.text(max_size=3))))
def test_equal_fingerprints_mean_equal_rows(rows: list[tuple[str | None, str | None]]) -> None:
    columns = [read_column([row[i] for row in rows], reading("text")).values for i in (0, 1)]
    landed = list(zip(*(column.to_pylist() for column in columns), strict=True))
    prints = fingerprints(content(columns)).to_pylist()
    assert len(set(landed)) == len(set(prints))
