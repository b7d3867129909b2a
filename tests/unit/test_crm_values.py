"""Reading what CRMs write: the same id, instant or amount however it is written, or a reason."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline.crm_values import identifier, instant, text

KYIV = ZoneInfo("Europe/Kyiv")
AT = datetime(2026, 3, 4, 9, 12, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (5, "5"),
        (Decimal("5.0"), "5"),
        (5.0, "5"),
        ("5", "5"),
        ("5.0", "5"),
        (" 5 ", "5"),
        (-5, "-5"),
        (0, "0"),
        (Decimal("1e3"), "1000"),
        ("05", "05"),
        ("1e3", "1e3"),
        ("appointmentscheduled", "appointmentscheduled"),
        ("0b2f6a1e-1111-4222-8333-444455556666", "0b2f6a1e-1111-4222-8333-444455556666"),
        ("Етап 1", "Етап 1"),
        (12345678901234567890123456789, "12345678901234567890123456789"),
        ("x" * 200, "x" * 200),
        (None, None),
        ("", None),
        (" \n ", None),
    ],
)
def test_an_id_is_one_however_it_is_written(value: object, read: str | None) -> None:
    assert identifier(value) == read


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "is true or false"),
        ([], "is a list or an object"),
        ({"value": 5}, "is a list or an object"),
        (Decimal("5.5"), "with a fraction"),
        (5.5, "with a fraction"),
        (Decimal("1e400"), "too large"),
        (Decimal("1e999999999"), "too large"),
        (float("nan"), "too large"),
        (float("inf"), "too large"),
        (10**200, "longer than 200"),
        ("x" * 201, "longer than 200"),
        ("7\x000", "cannot be printed"),
        ("7\ud8000", "cannot be printed"),
        ("7\n0", "cannot be printed"),
        ("7\u202e0", "cannot be printed"),
    ],
)
def test_what_is_no_id_is_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        identifier(value)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1200, "1200"),
        (Decimal("1250.00"), "1250.00"),
        (Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (Decimal("0.0000001"), "0.0000001"),
        (Decimal("1e3"), "1000"),
        (0.1, "0.1"),
        ("1250.00", "1250.00"),
        (" part paid ", " part paid "),
        ("1 250,00 ₴", "1 250,00 ₴"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (None, None),
        ("", None),
        ("  ", None),
    ],
)
def test_a_value_keeps_all_that_was_written(value: object, read: str | None) -> None:
    assert text(value) == read


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1], "is a list or an object"),
        ({"id": 17}, "is a list or an object"),
        ("x" * 501, "longer than 500"),
        (10**500, "longer than 500"),
        (Decimal("1e999999999"), "longer than 500"),
        (Decimal("1e-999999999"), "longer than 500"),
        (float("inf"), "no finite number"),
        ("a\0b", "NUL"),
        ("a\udc80b", "half of a character"),
    ],
)
def test_what_is_no_value_is_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        text(value)


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-04T09:12:40Z",
        "2026-03-04T09:12:40.000000Z",
        "2026-03-04T09:12:40.0000004Z",
        "2026-03-04 09:12:40Z",
        "2026-03-04T11:12:40+02:00",
        "2026-03-04T11:12:40+0200",
        "2026-03-04 04:12:40 -05",
        "2026-03-04 09:12:40",
        " 2026-03-04 09:12:40 ",
        1772615560,
        1772615560.0,
        Decimal("1772615560.000"),
        "1772615560",
        "1772615560.0",
        1772615560000,
        "1772615560000",
        1772615560000000,
        "1772615560000000",
        "Wed, 04 Mar 2026 09:12:40 GMT",
        "Wed, 04 Mar 2026 11:12:40 +0200",
        "4 Mar 2026 09:12:40 +0000",
    ],
)
def test_an_instant_is_one_however_it_is_written(value: object) -> None:
    assert instant(value) == AT
    assert instant(value).utcoffset() == timedelta(0)  # type: ignore[union-attr]


def test_fractions_of_seconds_are_kept() -> None:
    expected = AT + timedelta(milliseconds=123)
    for written in (
        "2026-03-04T09:12:40.123Z",
        "2026-03-04 09:12:40,123",
        1772615560123,
        1772615560.123,
        "1772615560.123",
        Decimal("1772615560.123"),
        1772615560123000,
    ):
        assert instant(written) == expected


def test_a_time_without_an_offset_is_meant_in_the_zone() -> None:
    assert instant("2026-03-04 11:12:40", KYIV) == AT
    assert instant("2026-03-04T09:12:40Z", KYIV) == AT
    assert instant("2026-07-01 12:00", KYIV) == datetime(2026, 7, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_time_is_none(value: object) -> None:
    assert instant(value) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "true or false"),
        ([], "list or an object"),
        ({}, "list or an object"),
        ("2026-03-04", "date without a time"),
        ("03/04/2026", "without guessing"),
        ("03/04/2026 09:12:40", "without guessing"),
        ("04.03.2026 09:12", "without guessing"),
        ("2026-03-04T09:12:40 Europe/Kyiv", "without guessing"),
        ("2026-W10-3T09:12:40Z", "without guessing"),
        ("Wed, 04 Mar 26 09:12:40 GMT", "without guessing"),
        ("Wed, 04 Mar 2026 09:12:40 EST", "without guessing"),
        ("\u0662\u0660\u0662\u0666-03-04T09:12:40Z", "without guessing"),
        ("yesterday", "without guessing"),
        ("9" * 10_000, "without guessing"),
        ("2026-02-30T09:12:40Z", "no real date"),
        ("2026-03-04T24:00:00Z", "no real date"),
        ("2026-03-04T09:12:60Z", "no real date"),
        ("0000-00-00 00:00:00", "no real date"),
        ("31 Feb 2026 09:12:40 GMT", "no real date"),
        ("2026-03-04T09:12:40+99:00", "no real date"),
        ("0001-01-01T00:00:00+02:00", "outside the years"),
        ("1999-12-31T23:59:59Z", "outside the years"),
        ("2000-01-01T00:00:00+02:00", "outside the years"),
        ("2101-01-01T00:00:00Z", "outside the years"),
        ("9999-12-31T23:59:59-02:00", "outside the years"),
        (0, "no count"),
        (-1772615560, "no count"),
        (20260304, "no count"),
        (946684799, "no count"),
        (4133980800, "no count"),
        (10**4000, "no count"),
        (Decimal("1e999999999"), "no count"),
        (float("nan"), "no count"),
    ],
)
def test_what_is_no_instant_is_refused_with_the_reason(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        instant(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [("2026-03-29 03:30:00", "did not exist"), ("2026-10-25 03:30:00", "occurred twice")],
)
def test_local_times_at_a_change_of_clocks_are_not_guessed(value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        instant(value, KYIV)
    assert instant(value) is not None


@pytest.mark.parametrize("read", [identifier, text, instant])
@pytest.mark.parametrize(
    "value",
    ["7391\0" * 3, "7391" * 200, [7391], {"7391": 7391}, Decimal("7391e9999"), "7391-13-01T00:00Z"],
)
def test_reasons_do_not_quote_the_value(read: Callable[[object], object], value: object) -> None:
    try:
        read(value)
    except ValueError as error:
        assert "7391" not in str(error)


instants = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
    datetime(2100, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@settings(deadline=None)
@given(instants, st.integers(-15 * 60, 15 * 60))
def test_every_way_to_write_an_instant_gives_it_back(at: datetime, minutes: int) -> None:
    microseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert instant(microseconds) == at
    assert instant(Decimal(microseconds) / 1000) == at
    assert instant(str(Decimal(microseconds) / 1_000_000)) == at
    there = at.astimezone(timezone(timedelta(minutes=minutes)))
    assert instant(there.isoformat()) == at
    assert instant(there.isoformat(" ")) == at


@settings(deadline=None)
@given(instants)
def test_a_local_time_is_the_one_instant_that_clocks_showed_it(at: datetime) -> None:
    shown = at.astimezone(KYIV)
    twice = shown.utcoffset() != shown.replace(fold=1 - shown.fold).utcoffset()
    written = shown.replace(tzinfo=None).isoformat(" ")
    if twice:
        with pytest.raises(ValueError, match="occurred twice"):
            instant(written, KYIV)
    else:
        assert instant(written, KYIV) == at


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals(allow_nan=True)
    | st.text(st.characters())
    | st.text("0123456789-:.TZ+ ", max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None)
@given(values)
def test_whatever_is_written_gives_a_value_that_can_be_kept_or_a_reason(value: object) -> None:
    for read in (identifier, text):
        try:
            kept = read(value)
        except ValueError as error:
            assert str(error)
        else:
            assert kept is None or (kept.encode() and "\0" not in kept and len(kept) <= 500)
    try:
        at = instant(value, KYIV)
    except ValueError as error:
        assert str(error)
    else:
        assert at is None or (at.tzinfo is UTC and 2000 <= at.year <= 2100)
