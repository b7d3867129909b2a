"""Deals of HubSpot, read as columns as they are read one by one."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.api import json_object
from loaders.hubspot_columns import deal_columns, read_deals
from loaders.hubspot_tables import (
    DEAL_HISTORY,
    DEALS,
    MERGED_DEALS,
    PROPERTIES,
    WITH_HISTORY,
    deal_records,
)
from loaders.record_values import as_json
from loaders.records import Record, Rows, Table

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
NAMES = (*PROPERTIES[DEALS], "facility_code", "their_note")

_TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_MOMENTS = st.sampled_from(
    [
        *("2026-02-01T10:15:30.123Z", "2026-02-01T10:15:30Z", "2026-02-01T10:15:30.000Z"),
        *("2026-02-01T11:15:30+01:00", "2026-01-01", "1767225600000", "2025-12-31T00:00:00.5Z"),
    ]
)
_ODD_MOMENTS = st.sampled_from([None, "", "soon", "2026-02-30T10:00:00Z", "1999-01-01T00:00:00Z"])
_VALUES = _TEXTS | _MOMENTS | st.sampled_from(["5", "5.50", "true", "9" * 40, "7;8", "a\0b"])


def histories(moments: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    entry = st.fixed_dictionaries(
        {"value": _VALUES, "timestamp": moments},
        optional={
            "sourceType": _TEXTS,
            "sourceId": _TEXTS,
            "updatedByUserId": st.none() | st.integers(-(2**63), 2**63 - 1),
            "sourceLabel": _TEXTS,
        },
    )
    return st.none() | st.dictionaries(
        st.sampled_from(WITH_HISTORY), st.none() | st.lists(entry, max_size=5), max_size=7
    )


def deals(moments: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    deal = st.fixed_dictionaries(
        {"id": st.integers(1, 10**12).map(str)},
        optional={
            "properties": st.none() | st.dictionaries(st.sampled_from(NAMES), _VALUES, max_size=9),
            "propertiesWithHistory": histories(moments),
            "archived": st.booleans(),
            "createdAt": _MOMENTS,
        },
    )
    return st.lists(deal, max_size=6, unique_by=lambda each: each["id"])


def landed(records: dict[Table, Any]) -> dict[str, tuple[list[Any], list[Any], dict[str, int]]]:
    """Rows, rejects and odd values of each table."""
    found = {}
    for table, of_table in records.items():
        rows = Rows(table)
        rows.read(of_table, AT)
        read = rows.take("main")
        told = [] if read is None else read.to_pylist()
        found[table.name] = sorted(map(as_json, told)), sorted(rows.rejects), rows.unreadable
    return found


def one_by_one(found: list[Record]) -> dict[Table, Any]:
    return deal_records(sorted(found, key=lambda each: str(each["id"])))


@settings(max_examples=300, deadline=None)
@given(found=st.one_of(deals(_MOMENTS), deals(_MOMENTS | _ODD_MOMENTS)))
def test_deals_are_read_as_columns_as_they_are_one_by_one(found: list[Any]) -> None:
    body = json.dumps({"status": "COMPLETE", "results": found}).encode()
    read = read_deals(body, NAMES)
    assert read is not None
    assert landed(deal_columns(read)) == landed(one_by_one(found))


def test_rows_come_in_the_order_of_their_keys() -> None:
    entries = [
        {"value": "late", "timestamp": "2026-02-01T10:15:30.123Z"},
        {"value": "early", "timestamp": "2026-01-01T10:15:30Z"},
    ]
    history = {"pipeline": entries, "amount": entries[::-1]}
    found = [{"id": each, "propertiesWithHistory": history} for each in ("9", "10")]
    read = read_deals(json.dumps({"results": found}).encode(), NAMES)
    columns = deal_columns(read)
    assert [row["deal_id"] for row in columns[DEALS]] == ["10", "9"]
    told = [(row["deal_id"], row["property"], row["value"]) for row in columns[DEAL_HISTORY]]
    assert told == [
        (deal, name, value)
        for deal in ("10", "9")
        for name in ("amount", "pipeline")
        for value in ("early", "late")
    ]
    assert not len(columns[MERGED_DEALS])


def test_what_was_not_asked_for_is_left_out() -> None:
    found = [{"id": "1", "properties": {"their_note": "x", "new": "y", "hs_object_id": "1"}}]
    read = read_deals(json.dumps({"results": found}).encode(), NAMES)
    assert deal_columns(read)[DEALS][0]["custom_fields"] == {"their_note": "x"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{}", b'{"results": null}', b'{"results": []', b"<html></html>"),
        *(b'{"results": []} {"results": []}', b'{"results": [null]}', b'{"results": [{}]}'),
        *(
            b'{"results": [{"id": 7}]}',
            b'{"results": [{"id": null}]}',
            b'{"results": [{"id": ""}]}',
        ),
        b'{"results": [{"id": "%s"}]}' % (b"7" * 201),
        b'{"results": [{"id": "7", "properties": {"amount": 5}}]}',
        b'{"results": [{"id": "7", "properties": {"amount": "5", "amount": "6"}}]}',
        b'{"results": [{"id": "7", "properties": {"amount": {"value": "5"}}}]}',
        b'{"results": [{"id": "7", "properties": {"dealname": "\\ud83d"}}]}',
        b'{"results": [{"id": "7", "properties": {"dealname": "\xff"}}]}',
        b'{"results": [{"id": "7", "properties": {"dealname": NaN}}]}',
        b'{"results": [{"id": "7", "propertiesWithHistory": {"amount": {"value": "5"}}}]}',
        b'{"results": [{"id": "7", "propertiesWithHistory": {"amount": [{"value": 5}]}}]}',
        b'{"results": [{"id": "7", "propertiesWithHistory": {"amount": [{"timestamp": 5}]}}]}',
        b'{"results": [{"id": "7", "propertiesWithHistory": {"amount":'
        b' [{"value": "5", "updatedByUserId": "77"}]}}]}',
        b'{"results": [{"id": "7", "propertiesWithHistory": {"amount":'
        b' [{"value": "5", "updatedByUserId": 1%s}]}}]}' % (b"0" * 30),
    ],
)
def test_an_answer_in_another_form_is_left_to_whoever_reads_all_forms(body: bytes) -> None:
    assert read_deals(body, NAMES) is None


def test_an_entry_without_a_value_is_one_as_it_is_when_read_alone() -> None:
    entry = {"timestamp": "2026-02-01T10:15:30.123Z"}
    found = [{"id": "7", "propertiesWithHistory": {"amount": [entry, entry]}}]
    body = json.dumps({"results": found}).encode()
    answer = json_object(body)
    assert answer is not None
    assert landed(deal_columns(read_deals(body, NAMES))) == landed(one_by_one(answer["results"]))
