"""What HubSpot's answers mean, without a server: errors, histories, fields, paths."""

from datetime import UTC, datetime
from typing import Any

import pytest

from loaders import hubspot, hubspot_api
from loaders.api import ApiError, FailedError, RefusedError, ThrottledError
from loaders.hubspot_tables import (
    DEAL_HISTORY,
    DEAL_STAGES,
    DEALS,
    deal_records,
)
from loaders.records import Rows

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "seconds"),
    [
        (429, {}, b'{"policyName": "DAILY"}', ThrottledError, 3600.0),
        (429, {}, b'{"policyName": "TEN_SECONDLY_ROLLING"}', ThrottledError, 10.0),
        (429, {}, b'{"policyName": "SECONDLY"}', ThrottledError, 1.0),
        (429, {"X-HubSpot-RateLimit-Daily-Remaining": "0"}, b"{}", ThrottledError, 3600.0),
        (429, {"Retry-After": "4"}, b"[]", ThrottledError, 4.0),
        (429, {"Retry-After": "4000"}, b"<html>", ThrottledError, 4.0),
        (477, {"Retry-After": "7200"}, b"", ThrottledError, 7200.0),
        (477, {}, b"", ThrottledError, 900.0),
        (423, {}, b"", FailedError, 2.0),
        (400, {}, b"", RefusedError, None),
        (530, {}, b"<html>", RefusedError, None),
        (503, {}, b"", None, None),
    ],
)
def test_errors_mean_what_the_contract_says(
    status: int,
    headers: dict[str, str],
    body: bytes,
    kind: type[ApiError] | None,
    seconds: float | None,
) -> None:
    found = hubspot_api.judge(status, headers, body)
    assert (type(found) if found else None) is kind
    if isinstance(found, ThrottledError):
        assert found.seconds == seconds
    if isinstance(found, FailedError):
        assert found.after == seconds


def read(table: Any, *records: dict[str, Any]) -> list[dict[str, Any]]:
    rows = Rows(table)
    rows.read(records, AT)
    found: list[dict[str, Any]] = rows.take("p").to_pylist()
    return found


def test_a_history_is_read_from_the_oldest_on_whatever_its_order() -> None:
    entries = [
        {"value": "c", "timestamp": "2026-02-01T10:15:30.123Z"},
        {"value": "b", "timestamp": "2026-02-01T10:15:30Z", "updatedByUserId": 77},
        {"value": "a", "timestamp": "2026-02-01T10:15:30.000Z"},
        {"value": "", "timestamp": "2026-01-01T10:15:30Z"},
    ]
    for given in (entries, entries[::-1]):
        deal = {"id": "9", "properties": {}, "propertiesWithHistory": {"dealstage": given}}
        found = read(DEAL_HISTORY, *deal_records([deal])[DEAL_HISTORY])
        assert [(row["value"], row["place"]) for row in found] == [
            (None, 0),
            ("a", 0),
            ("b", 1),
            ("c", 0),
        ]
        assert len({row["value_mark"] for row in found}) == 4


def test_all_forms_of_a_value_are_read_and_what_does_not_fit_stays() -> None:
    row, empty, odd = read(
        DEALS,
        {
            "id": "1",
            "properties": {
                "amount": "12000.50",
                "closedate": "1767225600000",
                "createdate": "2026-01-05T09:00:00+02:00",
                "hs_is_closed_won": "false",
                "machine": "M-7",
                "color": None,
            },
        },
        {"id": 2, "properties": None},
        {"id": "3", "properties": {"amount": "", "closedate": "2026-03-31", "createdate": "soon"}},
    )
    assert (str(row["amount"]), row["is_closed_won"]) == ("12000.500000000", False)
    assert row["close_at"] == AT and row["created_at"] == datetime(2026, 1, 5, 7, tzinfo=UTC)
    assert row["custom_fields"] == '{"machine": "M-7"}'
    assert empty["deal_id"] == "2" and empty["custom_fields"] == "{}"
    assert odd["close_at"] == datetime(2026, 3, 31, tzinfo=UTC) and odd["amount"] is None
    assert odd["unreadable"] == '{"created_at": "soon"}'


def test_a_stage_of_hubspots_own_has_no_beginning() -> None:
    (row,) = read(
        DEAL_STAGES,
        {
            "id": "closedwon",
            "createdAt": "1970-01-01T00:00:00Z",
            "metadata": {"isClosed": "true", "probability": "1.0"},
        },
    )
    assert (row["is_closed"], row["created_at"], row["unreadable"]) == (True, None, None)


def test_merged_deals_are_told_apart() -> None:
    deal = {"id": "9", "properties": {"hs_merged_object_ids": "7;8"}}
    assert [
        (merge["deal_id"], merge["merged_into"])
        for table, merges in deal_records([deal]).items()
        if table.name == "merged_deals"
        for merge in merges
    ] == [("7", "9"), ("8", "9")]


def test_a_search_stays_within_what_hubspot_takes() -> None:
    for kind in (hubspot._DEAL, hubspot._TICKET, hubspot._CALL, hubspot._FEEDBACK):
        body = hubspot._search(kind.wanted("1767225600000"), 10**12, ["hs_object_id"])
        groups = [group["filters"] for group in body["filterGroups"]]
        assert len(groups) <= 5 and all(len(group) <= 6 for group in groups)
        assert sum(map(len, groups)) <= 18 and not hubspot._is_long(body)


@pytest.mark.parametrize(
    ("version", "path"),
    [("v3", "/crm/v3/objects/deals/search"), ("2026-09", "/crm/objects/2026-09/deals/search")],
)
def test_the_version_stands_where_its_style_wants_it(
    version: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubspot_api, "VERSION", version)
    assert hubspot_api.path("objects", "deals", "search") == path
