"""Loads of a sheet: the source that shows how little a source is."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from loaders.sheet import OPPORTUNITIES
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
