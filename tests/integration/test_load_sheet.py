"""Loads of a sheet: the source that shows how little a source is."""

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from loaders.records import rejects_of
from loaders.sheet import OPPORTUNITIES
from stageline.cli import main
from stageline.errors import StagelineError
from tests.crm_loads import load_now, rows, set_up
from tests.fakes.crm_server import Reply
from tests.fakes.sheet import FakeSheet

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def sheet(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSheet]:
    with FakeSheet() as fake:
        fake.populate()
        set_up(monkeypatch, "sheet", fake)
        yield fake


def test_a_sheet_is_loaded_as_it_is(sheet: FakeSheet) -> None:
    load_now("sheet")
    found = {row["opportunity_id"]: row for row in rows(OPPORTUNITIES)}
    assert {key: (row["name"], row["amount"], row["status"]) for key, row in found.items()} == {
        key: (row["name"], Decimal(row["amount"]), row["status"].lower())
        for key, row in sheet.rows.items()
    }
    assert found["1"]["custom_fields"] == '{"region": "North"}'
    before = {key: row["written_by"] for key, row in found.items()}

    # A row goes, one changes, two no longer fit, and one has no id.
    del sheet.rows["2"]
    sheet.rows["3"] |= {"amount": "7", "new column": "x"}
    sheet.rows["4"] |= {"status": "maybe", "win_probability": "40"}
    sheet.rows["5"] |= {"created_at": ""}
    sheet.rows["6"] |= {"opportunity_id": ""}
    done = load_now("sheet").tables["opportunities"]
    assert done.gone == 2
    assert done.rejected == 1
    assert done.unreadable == {"status": 1, "win_probability": 1, "created_at": 1}
    found = {row["opportunity_id"]: row for row in rows(OPPORTUNITIES)}
    assert {key for key, row in found.items() if row["is_gone"]} == {"2", "6"}
    assert found["3"]["custom_fields"] == '{"new column": "x", "region": "North"}'
    assert found["4"]["unreadable"] == '{"status": ["maybe"], "win_probability": ["40"]}'
    same = {key for key, row in found.items() if row["written_by"] == before[key]}
    assert same == set(before) - {"2", "3", "4", "5", "6"}


def test_of_rows_with_one_id_the_first_counts_and_the_others_are_said(sheet: FakeSheet) -> None:
    first = sheet.rows["3"]
    sheet.again = [
        dict(first),  # the same row again says nothing new
        {**first, "name": "Roof\nof two lines"},
        {**first, "opportunity_id": " 3.0 ", "amount": "1"},
        {**first, "opportunity_id": "new"},
        {**first, "opportunity_id": "new", "amount": "2"},
    ]
    done = load_now("sheet")
    assert done.tables["opportunities"].rejected == 3
    found = {row["opportunity_id"]: row for row in rows(OPPORTUNITIES)}
    assert found.keys() == {*sheet.rows, "new"}
    assert (found["3"]["name"], found["3"]["amount"]) == (first["name"], Decimal(first["amount"]))
    assert found["new"]["amount"] == Decimal(first["amount"])
    rejects = {row["reason"]: json.loads(row["record"]) for row in rows(rejects_of("raw_sheet"))}
    last = len(sheet.rows) + 1  # the first line are the names of the columns
    assert {reason: record["amount"] for reason, record in rejects.items()} == {
        f"line {last + 2}: opportunity_id 3 stands in line 4 already, with other values": (
            first["amount"]
        ),
        f"line {last + 4}: opportunity_id 3 stands in line 4 already, with other values": "1",
        f"line {last + 6}: opportunity_id new stands in line {last + 5} already, with other"
        " values": "2",
    }
    before = {row["opportunity_id"]: row["written_by"] for row in found.values()}
    load_now("sheet")
    assert {row["opportunity_id"]: row["written_by"] for row in rows(OPPORTUNITIES)} == before
    said = CliRunner().invoke(main, ["load", "sheet"])
    assert said.exit_code == 0
    assert "warning: 3 records of opportunities were set aside" in " ".join(said.output.split())


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, sheet: FakeSheet) -> Iterator[FakeSheet]:
    """What publishes the sheet to everyone, at another host; it leads to where the sheet is."""
    with FakeSheet() as publisher:
        publisher.is_published = sheet.is_published = True
        publisher.leads["/pub"] = f"{sheet.url}/deals.csv"
        set_up_open(monkeypatch, publisher, "/pub?output=csv")
        yield publisher


def set_up_open(patch: pytest.MonkeyPatch, publisher: FakeSheet, path: str) -> None:
    netrc = Path(os.environ["STAGELINE_HOME"]) / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    patch.setenv("NETRC", str(netrc))
    address = f"{publisher.url}{path}"
    result = CliRunner().invoke(
        main, ["projects", "api", "sheet", "main", "--no-token", "--base-url", address]
    )
    assert result.exit_code == 0, result.output


def test_a_published_sheet_is_followed_to_where_it_is(
    sheet: FakeSheet, published: FakeSheet
) -> None:
    load_now("sheet")
    assert {row["opportunity_id"] for row in rows(OPPORTUNITIES)} == set(sheet.rows)
    assert {call.query["output"] for call in published.calls} == {"csv"}
    for call in (*sheet.calls, *published.calls):
        assert not {"authorization", "cookie"} & set(call.headers)


def test_an_address_leads_on_five_times_at_most(sheet: FakeSheet, published: FakeSheet) -> None:
    published.leads["/pub"] = "/1"
    published.leads |= {f"/{number}": f"/{number + 1}" for number in range(1, 4)}
    published.leads["/4"] = f"{sheet.url}/deals.csv"
    load_now("sheet")
    assert len(rows(OPPORTUNITIES)) == len(sheet.rows)
    published.leads |= {"/4": "/5", "/5": f"{sheet.url}/deals.csv"}
    sheet.calls.clear()
    with pytest.raises(StagelineError, match="leads on more than 5 times"):
        load_now("sheet")
    assert sheet.calls == []


def test_where_an_address_may_not_lead(published: FakeSheet) -> None:
    for location, words in (
        ("http://sheets.example.com/deals.csv", "does not begin with https://"),
        ("file:///etc/passwd", "none that can be asked"),
        ("ftp://127.0.0.1/deals.csv", "does not begin with https://"),
        ("https://somebody:secret@sheets.example.com/", "none that can be asked"),
        ("http://[half/", "leads to none"),
        ("", "leads to none"),
    ):
        published.calls.clear()
        published.leads["/pub"] = location
        with pytest.raises(StagelineError, match=words) as error:
            load_now("sheet")
        assert "secret" not in str(error.value)
        assert len(published.calls) == 1


def test_with_a_token_no_redirect_is_followed(sheet: FakeSheet) -> None:
    sheet.leads["/deals.csv"] = f"{sheet.url}/elsewhere"
    with pytest.raises(StagelineError, match="a redirect"):
        load_now("sheet")
    assert sheet.calls_of("elsewhere") == []
    result = CliRunner().invoke(main, ["projects", "api", "hubspot", "main", "--no-token"])
    assert result.exit_code == 1
    assert "hubspot has a token" in result.output


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401, b"Unauthorized"), "token is wrong"),
        (Reply(404, b"<html></html>"), "base URL"),
        (Reply(200, b"id,name\n1,Roof\n"), "has no column created_at, opportunity_id, status"),
    ],
)
def test_a_sheet_that_is_none_is_one_clear_line(sheet: FakeSheet, reply: Reply, words: str) -> None:
    sheet.next(reply)
    with pytest.raises(StagelineError, match=words):
        load_now("sheet")
    assert rows(OPPORTUNITIES) == []
