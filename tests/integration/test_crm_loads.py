"""What holds for loads of every CRM: shown on the smallest source."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from loaders import api, calls
from loaders.hubspot_tables import ASSOCIATIONS, COMPANIES
from loaders.pipedrive_tables import DEAL_HISTORIES, ORGANIZATIONS
from loaders.registry import source
from loaders.sheet import OPPORTUNITIES
from loaders.since import Since, last_look
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts, projects
from tests.crm_loads import PROJECT, load_now, rows, set_up
from tests.fakes.crm_server import TOKEN, Reply
from tests.fakes.hubspot import FakeHubspot
from tests.fakes.keycrm import FakeKeycrm
from tests.fakes.pipedrive import FakePipedrive
from tests.fakes.salesforce import FakeSalesforce
from tests.fakes.sheet import FakeSheet

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def sheet(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSheet]:
    with FakeSheet() as fake:
        fake.populate()
        set_up(monkeypatch, "sheet", fake)
        yield fake


def last_load() -> tuple[str, str | None, int]:
    """What the book of loads says of the last one."""
    with connect("owner") as session:
        row = session.execute(
            "select status, error, rows_read from ops.loads order by started_at desc limit 1"
        ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_another_account_is_not_loaded_into_the_project_of_one(sheet: FakeSheet) -> None:
    load_now("sheet")
    before = rows(OPPORTUNITIES)
    with FakeSheet() as other:
        other.rows = {"x1": {**sheet.rows["1"], "opportunity_id": "x1"}}
        api_accounts.store("sheet", PROJECT, TOKEN, other.base_url)
        with pytest.raises(StagelineError, match=f"was loaded from {sheet.base_url}.*--full"):
            load_now("sheet")
        assert other.calls == []
        assert rows(OPPORTUNITIES) == before
        load_now("sheet", is_full=True)
        load_now("sheet")
    assert {row["opportunity_id"] for row in rows(OPPORTUNITIES) if not row["is_gone"]} == {"x1"}


FAKES: dict[str, Callable[[], FakeHubspot | FakePipedrive | FakeSalesforce]] = {
    "hubspot": FakeHubspot,
    "pipedrive": FakePipedrive,
    "salesforce": FakeSalesforce,
}


@pytest.mark.parametrize("name", FAKES)
def test_another_account_behind_the_same_address_is_not_loaded_either(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FAKES[name]() as fake:
        fake.populate(12)
        set_up(monkeypatch, name, fake)
        load_now(name)
        before = {table.name: rows(table) for table in source(name).tables}
        kept, fake.account_id = fake.account_id, fake.account_id.replace("4711", "4712")
        fake.populate(12)
        fake.calls.clear()
        for options in ({}, {"is_full": True}, {"dry_run": True}):
            with pytest.raises(StagelineError, match=r"holds account .*4711.*4712.*of its own"):
                load_now(name, **options)
        assert len(fake.calls) == 3
        assert {table.name: rows(table) for table in source(name).tables} == before
        fake.account_id = kept
        assert load_now(name).stopped is None


def test_an_account_whose_name_is_not_to_be_had_is_known_by_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeHubspot() as fake:
        fake.populate(12)
        set_up(monkeypatch, "hubspot", fake)
        fake.refused.add("account")
        load_now("hubspot")
        fake.refused.clear()
        load_now("hubspot")  # from now on it is known
        fake.refused.add("account")
        load_now("hubspot")
        fake.refused.clear()
        fake.account_id = "4712"
        with pytest.raises(StagelineError, match="4711"):
            load_now("hubspot")


#: Tables whose rows are asked for by what is looked up in the database.
LOOKED_UP = {"hubspot": (ASSOCIATIONS, COMPANIES), "pipedrive": (DEAL_HISTORIES, ORGANIZATIONS)}

#: Bytes that the largest list of names takes, but no page of records.
LARGEST = {"pipedrive": 5_000, "keycrm": 30_000}


@pytest.mark.parametrize("name", [*FAKES, "keycrm"])
def test_a_page_that_is_too_large_is_asked_for_in_parts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeKeycrm(limit=None) if name == "keycrm" else FAKES[name]() as fake:
        fake.populate(60)
        set_up(monkeypatch, name, fake)
        with monkeypatch.context() as patch:
            patch.setattr(api, "LARGEST_ANSWER", LARGEST.get(name, 14_000))
            small = load_now(name)
        whole = load_now(name, is_full=True)
        assert sum(each.read for each in whole.tables.values()) > 150
        touched = {name for name, each in whole.tables.items() if each.touched}
        assert touched <= {"deal_histories"}  # which say when they were asked for
        assert sum(small.calls.values()) > sum(whole.calls.values())
        monkeypatch.setattr(api, "LARGEST_ANSWER", 100)
        fake.calls.clear()
        with pytest.raises(StagelineError, match="more than 100 bytes") as caught:
            load_now(name, is_full=True)
        assert "\n" not in str(caught.value)
        assert len(fake.calls) < 15  # it is not asked for again and again


def test_an_address_that_never_answered_is_no_account(sheet: FakeSheet) -> None:
    api_accounts.store("sheet", PROJECT, TOKEN, f"{sheet.url}/nowhere")
    with pytest.raises(StagelineError, match="base URL"):
        load_now("sheet")
    api_accounts.store("sheet", PROJECT, TOKEN, sheet.base_url)
    load_now("sheet")
    assert len(rows(OPPORTUNITIES)) == len(sheet.rows)


def test_a_crm_that_throttles_without_end_ends_the_load_cleanly(
    sheet: FakeSheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "THROTTLED", 2)
    sheet.next(*[Reply(429, b"{}", {"Retry-After": "1"})] * 5)
    done = load_now("sheet")
    assert done.stopped is not None
    assert last_load() == ("success", "HTTP 429: too many calls, again and again", 0)
    assert len(sheet.calls) == 2


def test_a_clock_that_is_ahead_is_said_before_it_costs_a_change(
    sheet: FakeSheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FAST_CLOCK", -3600.0)
    with pytest.raises(StagelineError, match=r"minutes ahead of the CRM's.*Set it right"):
        load_now("sheet")
    assert len(sheet.calls) == 1
    status, error, _ = last_load()
    assert status == "failed"
    assert "clock" in str(error)


def said(*words: str) -> tuple[int, str]:
    """Exit code of a command, and what it said."""
    done = CliRunner().invoke(main, words)
    return done.exit_code, done.output


def test_a_load_that_is_not_to_be_had_is_one_line(sheet: FakeSheet) -> None:
    code, line = said("load", "sugar")
    assert (code, line.count("\n")) == (1, 1)
    assert "'sugar' is nothing that can be loaded. There are: " in line and "hubspot" in line
    code, line = said("load", "sheet", "--since", "2999-01-01")
    assert (code, line.count("\n")) == (1, 1)
    assert "--since 2999-01-01 lies in the future" in line
    assert sheet.calls == []


def test_an_account_that_is_refused_keeps_no_other_from_being_tried(sheet: FakeSheet) -> None:
    projects.add("sheet", "a-first")
    api_accounts.store("sheet", "a-first", "wrong-token", sheet.base_url)
    code, text = said("load", "sheet", "--check")
    assert code == 1
    assert "error: " in text and "gives no access to a-first" in text
    assert text.index("project main") > text.index("project a-first")
    assert "can be loaded" in text


def test_a_full_load_that_stops_says_how_to_go_on(
    sheet: FakeSheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "THROTTLED", 1)
    for words, command in (
        ((), "the same command goes on"),
        (
            ("--full",),
            "the same command without --full goes on",
        ),
    ):
        sheet.next(Reply(429, b"{}", {"Retry-After": "1"}))
        code, text = said("load", "sheet", *words)
        assert code == 75
        assert command in " ".join(text.split())


def test_what_ends_a_load_stands_in_the_book_of_loads(sheet: FakeSheet) -> None:
    sheet.next(Reply(401, b"no"))
    with pytest.raises(StagelineError) as caught:
        load_now("sheet")
    assert last_load() == ("failed", str(caught.value), 0)


def test_what_was_written_since_a_look_is_found_though_it_commits_late() -> None:
    def ids(since: Since) -> set[str]:
        with connect("loader") as session:
            found = session.execute(
                "select deal_id from raw_pipedrive.deal_histories"
                " where loaded_xid >= %s::xid8 and loaded_xid < %s::xid8",
                [since.xid, since.before],
            )
            return {row[0] for row in found}

    def write(session: psycopg.Connection[Any], deal_id: str) -> None:
        session.execute(
            "insert into raw_pipedrive.deal_histories"
            " (project_id, deal_id, asked_at, fetched_at) values ('p', %s, now(), now())",
            [deal_id],
        )

    with connect("loader") as late, connect("loader", autocommit=True) as session:
        write(session, "1")
        write(late, "2")
        first = last_look(session, None)
        assert ids(first) == {"1"}
        late.commit()
        second = last_look(session, {"at": "now", **first.position})
        assert ids(second) == {"2"}
        third = last_look(session, second.position)
        assert ids(third) == set()
        session.execute("update raw_pipedrive.deal_histories set asked_at = now()")
        assert ids(last_look(session, third.position)) == {"1", "2"}
        session.execute(
            "insert into raw_pipedrive.deal_histories"
            " (project_id, deal_id, asked_at, fetched_at, loaded_xid)"
            " values ('p', 'of a dump', now(), now(), '9999999999')"
        )
        assert ids(last_look(session, third.position)) == {"1", "2"}
        of_elsewhere = {**third.position, "server": "another"}
        for anew in (
            last_look(session, of_elsewhere),
            last_look(session, {"at": "now"}),
            last_look(session, third.position, anew=True),
        ):
            assert ids(anew) == {"1", "2", "of a dump"}


@pytest.mark.parametrize(
    ("name", "asked"), [("hubspot", "associations|companies"), ("pipedrive", "flow|organizations")]
)
def test_what_is_due_is_looked_up_anew_on_another_server(
    name: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FAKES[name]() as fake:
        fake.populate(30)
        set_up(monkeypatch, name, fake)
        load_now(name)
        fake.calls.clear()
        load_now(name)
        assert fake.calls_of(asked) == []
        before = {table.name: rows(table) for table in source(name).tables}
        with connect("loader", autocommit=True) as session:
            for table in LOOKED_UP[name]:
                session.execute(
                    sql.SQL("delete from {}").format(sql.Identifier(table.dataset, table.name))
                )
        load_now(name)
        assert fake.calls_of(asked) == []  # what it knows is left alone
        with connect("loader", autocommit=True) as session:
            session.execute(
                "update ops.load_positions"
                """ set position = position || '{"server": "another"}'"""
                " where position ? 'server'"
            )
        load_now(name)
        compared = {table.name: rows(table) for table in source(name).tables}
        assert _facts(compared) == _facts(before)


def _facts(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Rows without what tells when they were loaded."""
    technical = {
        "fetched_at",
        "asked_at",
        "written_by",
        "loaded_xid",
        "fetched_xid",
        "_dlt_load_id",
        "_dlt_id",
    }
    return {
        name: sorted(
            str({column: row[column] for column in row if column not in technical}) for row in found
        )
        for name, found in tables.items()
    }
