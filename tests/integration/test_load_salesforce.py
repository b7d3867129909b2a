"""Loads of a Salesforce organisation over real HTTP end with what the organisation knows."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from loaders import salesforce_queries
from loaders.crm import BACKFILL
from loaders.records import Rows, Table
from loaders.salesforce import OVERLAP, SOURCE
from loaders.salesforce_tables import (
    CASE_COMMENTS,
    CASE_EMAILS,
    CASE_HISTORY,
    CASES,
    EVENTS,
    LEADS,
    OPPORTUNITIES,
    OPPORTUNITY_FIELD_HISTORY,
    OPPORTUNITY_HISTORY,
    STAGES,
    TASKS,
    USERS,
)
from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts
from stageline.settings.dictionaries import STAGES as DICTIONARY
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import (
    PROJECT,
    SEEDS,
    begin_load,
    end_sessions,
    kill_some_time,
    load_now,
    loose_ends,
    rows,
    set_up,
)
from tests.fakes.crm_server import TOKEN, Call, Limit, Reply
from tests.fakes.salesforce import CASE_STATUSES, FakeSalesforce, Record

CRM = "salesforce"


@pytest.fixture(scope="module", autouse=True)
def of_module(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One database for the module; each test empties it."""
    folder = tmp_path_factory.mktemp("salesforce")
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        yield
    config.settings.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSalesforce]:
    """An organisation, small, with an account in an empty database."""
    with connect("owner") as session:
        session.execute(
            "truncate settings.projects, ops.load_positions, ops.api_pace, ops.loads,"
            " settings.stage_dictionary cascade"
        )
        for table in SOURCE.tables:
            session.execute(
                sql.SQL("truncate {}").format(sql.Identifier(table.dataset, table.name))
            )
    with FakeSalesforce(seed=5) as organisation:
        organisation.page_size = 8
        organisation.populate(deals=40)
        set_up(monkeypatch, CRM, organisation)
        yield organisation


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads bring the deals and their history alone."""
    deals = tuple(each for each in SOURCE.resources if each.name in ("opportunities", "stages"))
    lean = replace(SOURCE, resources=deals, sweeps=())
    monkeypatch.setattr("loaders.salesforce.SOURCE", lean)


def loaded(table: Table) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a table by key, without what the load adds."""
    names = [column.name for column in table.columns]
    found = {}
    for row in rows(table):
        assert row["unreadable"] is None, row
        found[tuple(row[name] for name in table.key)] = {name: row[name] for name in names}
    return found


def told(table: Table, records: list[Record]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows that records of the fake are."""
    read = Rows(table)
    read.read(records, datetime.now(UTC))
    assert not read.rejects
    taken = read.take(PROJECT)
    names = [column.name for column in table.columns]
    found = taken.select(names).to_pylist() if taken is not None else []
    return {tuple(row[name] for name in table.key): row for row in found}


def shown(record: Record) -> Record:
    """A record as queries show it."""
    dropped = {"Site__c", "Scan__c", "LastViewedDate"}
    return {name: value for name, value in record.items() if name not in dropped}


def in_scope(fake: FakeSalesforce) -> list[Record]:
    """The deals that every load has to have brought."""
    since = f"{(datetime.now(UTC) - BACKFILL + timedelta(days=1)).date()}"
    return [
        deal
        for deal in fake.deals()
        if not deal["IsClosed"] or max(deal["CloseDate"], deal["SystemModstamp"][:10]) >= since
    ]


def assert_loaded(fake: FakeSalesforce) -> None:
    """What is loaded of deals, histories and leads equals the truth."""
    deals, history = loaded(OPPORTUNITIES), loaded(OPPORTUNITY_HISTORY)
    changes = loaded(OPPORTUNITY_FIELD_HISTORY)
    wanted = in_scope(fake)
    assert {deal["Id"] for deal in wanted} <= {key[0] for key in deals}
    ids = {key[0] for key in deals}
    records = fake.records["Opportunity"]
    there = [shown(records[each]) for each in ids if each in records]
    for key, row in told(OPPORTUNITIES, there).items():
        assert deals[key] == row
    for table, found, of in (
        (OPPORTUNITY_HISTORY, history, "OpportunityHistory"),
        (OPPORTUNITY_FIELD_HISTORY, changes, "OpportunityFieldHistory"),
    ):
        of_them = [each for each in fake.records[of].values() if each["OpportunityId"] in ids]
        expected = told(table, of_them)
        assert {key: found.get(key) for key in expected} == expected
        alive = {deal["Id"] for deal in fake.deals()}
        assert {k for k, row in found.items() if row["opportunity_id"] in alive} <= set(expected)
    cases = loaded(CASES)
    there = [each for key, each in fake.records["Case"].items() if (key,) in cases]
    assert told(CASES, there) == cases
    for table, of, case in (
        (CASE_HISTORY, "CaseHistory", "CaseId"),
        (CASE_EMAILS, "EmailMessage", "ParentId"),
        (CASE_COMMENTS, "CaseComment", "ParentId"),
    ):
        of_them = [each for each in fake.records[of].values() if (each[case],) in cases]
        assert told(table, of_them) == loaded(table)
    leads = loaded(LEADS)
    for key, row in told(LEADS, list(fake.records["Lead"].values())).items():
        assert key not in leads or leads[key] == row


def forget(table: Table, record_id: str) -> None:
    """As if a record had never been loaded."""
    with connect("owner", autocommit=True) as session:
        session.execute(
            sql.SQL("delete from {} where {} = %s").format(
                sql.Identifier(table.dataset, table.name), sql.Identifier(table.key[0])
            ),
            [record_id],
        )


def positions_of(name: str) -> dict[str, Any]:
    with connect("loader") as session:
        row = session.execute(
            "select position from ops.load_positions where resource = %s", [name]
        ).fetchone()
    assert row is not None
    position: dict[str, Any] = row[0]
    return position


def test_a_first_load_brings_what_is_open_or_closed_lately_with_its_history(
    fake: FakeSalesforce,
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=300)
    old = fake.add_deal(long_ago)
    fake.move(old, "Closed Won", long_ago + timedelta(days=2))
    overdue = fake.add_deal(long_ago)
    fake.move(overdue, "Closed Won", datetime.now(UTC) - timedelta(days=7))
    overdue["CloseDate"] = f"{(long_ago + timedelta(days=30)).date()}"
    done = load_now(CRM)
    assert done.stopped is None
    assert done.left_out == {}
    assert_loaded(fake)
    assert loose_ends(CRM) == []
    assert (old["Id"],) not in loaded(OPPORTUNITIES)
    assert (overdue["Id"],) in loaded(OPPORTUNITIES)
    forget(OPPORTUNITIES, overdue["Id"])
    sweep_again()
    load_now(CRM)
    assert (old["Id"],) not in loaded(OPPORTUNITIES)
    assert (overdue["Id"],) in loaded(OPPORTUNITIES)
    assert {key[0] for key in loaded(USERS)} == set(fake.records["User"])
    lately = f"{datetime.now(UTC) - BACKFILL + timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}"
    tasks = [
        task
        for task in fake.records["Task"].values()
        if task["IsArchived"] and (not task["IsClosed"] or task["LastModifiedDate"] > lately)
    ]
    assert tasks
    assert {task["Id"] for task in tasks} <= {key[0] for key in loaded(TASKS)}
    meetings = {
        each["Id"]
        for each in fake.records["Event"].values()
        if not each["IsChild"] and each["StartDateTime"] > lately
    }
    assert meetings
    assert {key[0] for key in loaded(EVENTS)} == meetings
    assert len(loaded(CASES)) == len(fake.records["Case"])
    (deal, *_) = rows(OPPORTUNITIES)
    assert set(json.loads(deal["custom_fields"])) <= {"Region__c", "Site__Street__s"}
    assert deal["account_name"] == "Acme"
    assert {stage.stage_id for stage in DICTIONARY.entries(CRM, PROJECT)} == {
        stage["MasterLabel"] for stage in fake.records["OpportunityStage"].values()
    }
    # The closed one comes with its whole history once somebody opens it again.
    fake.move(old, "Qualification")
    load_now(CRM)
    assert_loaded(fake)
    assert (old["Id"],) in loaded(OPPORTUNITIES)


def test_a_load_without_changes_writes_nothing_and_makes_few_calls(fake: FakeSalesforce) -> None:
    load_now(CRM)
    before = {table.name: rows(table) for table in SOURCE.tables}
    fake.calls.clear()
    fake.page_size = 2_000
    again = load_now(CRM)
    assert {table.name: rows(table) for table in SOURCE.tables} == before
    assert sum(each.touched for each in again.tables.values()) == 0
    assert len(fake.calls_of("describe")) + len(fake.calls_of("query(All)?$")) == len(fake.calls)
    # The organisation, field lists and changes of each object; what changed within the overlap is
    # read again.
    assert len(fake.calls) == 27


def test_changes_deletions_and_merges_arrive(fake: FakeSalesforce) -> None:
    load_now(CRM)
    deals, leads = in_scope(fake), list(fake.records["Lead"].values())
    fake.move(deals[0], "Negotiation/Review")
    fake.change(deals[1], Amount=12.5, CloseDate="2027-01-31")
    fake.reassign(deals[2])
    fake.delete(deals[3])
    fake.purge("Opportunity", deals[4])
    fake.merge(leads[0], leads[1])
    fake.rename_stage("Prospecting", "Prospect")
    fake.change(deals[5], Probability=0.0)
    load_now(CRM)
    assert_loaded(fake)
    found = {row["opportunity_id"]: row for row in rows(OPPORTUNITIES)}
    assert found[deals[3]["Id"]]["is_deleted"] is True
    assert found[deals[4]["Id"]]["is_gone"] is False  # only a list of all ids tells
    assert [row["probability"] for row in rows(OPPORTUNITIES)].count(None) == 0
    merged = {row["lead_id"]: row for row in rows(LEADS)}[leads[0]["Id"]]
    assert (merged["is_deleted"], merged["master_record_id"]) == (True, leads[1]["Id"])
    stages = {row["stage_name"]: row for row in rows(STAGES)}
    assert stages["Prospecting"]["label"] == "Prospect"
    assert stages["Prospect"]["default_probability"] == 10
    sweep_again()
    load_now(CRM)
    found = {row["opportunity_id"]: row for row in rows(OPPORTUNITIES)}
    assert {each for each, row in found.items() if row["is_gone"]} == {deals[4]["Id"]}
    assert found[deals[3]["Id"]]["is_gone"] is False


def sweep_again() -> None:
    """The next load lists all ids."""
    with connect("owner") as session:
        session.execute("delete from ops.load_positions where resource like 'sweep%'")


@pytest.mark.usefixtures("lean")
def test_a_new_field_arrives_and_a_value_of_another_type_is_kept(fake: FakeSalesforce) -> None:
    load_now(CRM)
    fake.add_field("Opportunity", "Tier__c", "string", "gold")
    deal, other, *_ = in_scope(fake)
    fake.change(deal, Tier__c="silver")
    fake.change(other, NextStep=["not", "a", "text"])
    done = load_now(CRM)
    found = {row["opportunity_id"]: row for row in rows(OPPORTUNITIES)}
    assert json.loads(found[deal["Id"]]["custom_fields"])["Tier__c"] == "silver"
    assert json.loads(found[other["Id"]]["unreadable"]) == {"next_step": ["not", "a", "text"]}
    assert done.tables["opportunities"].unreadable == {"next_step": 1}


@pytest.mark.usefixtures("lean")
def test_hundreds_of_fields_are_asked_for_in_parts(fake: FakeSalesforce) -> None:
    for number in range(400):
        fake.add_field("Opportunity", f"A_field_of_the_organisation_{number:03}__c", "string", "x")
    load_now(CRM)
    for row in rows(OPPORTUNITIES):
        assert len(json.loads(row["custom_fields"])) >= 400
    assert_loaded(fake)


def test_a_query_that_takes_too_long_is_asked_for_less(
    fake: FakeSalesforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.most_matches = 30
    monkeypatch.setattr(salesforce_queries, "IDS_AT_A_TIME", 30)
    for deal in fake.records["Opportunity"].values():  # what shares a second cannot be parted
        deal["SystemModstamp"] = deal["CreatedDate"]
    load_now(CRM)
    assert_loaded(fake)


@pytest.mark.usefixtures("lean")
def test_a_place_that_is_forgotten_costs_no_record(
    fake: FakeSalesforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.page_size = 7
    answer, count = fake.answer, iter(range(10**6))

    def forgetting(call: Call) -> Reply:
        if "/query/" in call.path and next(count) % 2:
            fake.forget_places()
        return answer(call)

    monkeypatch.setattr(fake, "answer", forgetting)
    load_now(CRM)
    assert next(count) > 2
    assert_loaded(fake)


@pytest.mark.usefixtures("lean")
def test_limits_are_told_apart_by_what_is_said(
    fake: FakeSalesforce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loaders.salesforce_access.CONCURRENCY_WAIT", 1.0)
    fake.limit = Limit(20, 1.0)
    fake.next(Reply(503, b""), Reply(breaks="within the body", body={"done": True}), path="query")
    assert load_now(CRM).stopped is None
    assert_loaded(fake)


@pytest.mark.usefixtures("lean")
def test_a_budget_that_is_used_up_ends_a_load_cleanly_and_the_next_goes_on(
    fake: FakeSalesforce,
) -> None:
    fake.usage = (0, 14)  # the last twentieth is left to others
    stopped = load_now(CRM).stopped
    assert stopped is not None
    assert "24 hours" in str(stopped)
    assert stopped.at > datetime.now(UTC) + timedelta(minutes=50)
    first = len(rows(OPPORTUNITIES))
    fake.usage, fake.budget_is_used_up = (0, 10**6), True
    with connect("owner") as session:
        session.execute("truncate ops.api_pace")
    stopped = load_now(CRM).stopped
    assert stopped is not None
    assert "used up" in str(stopped)
    fake.budget_is_used_up = False
    with connect("owner") as session:
        session.execute("truncate ops.api_pace")
    assert load_now(CRM).stopped is None
    assert 0 < first < len(rows(OPPORTUNITIES))
    assert_loaded(fake)


@pytest.mark.usefixtures("lean")
def test_a_part_that_was_loaded_is_not_asked_for_again(fake: FakeSalesforce) -> None:
    fake.usage = (0, 14)
    load_now(CRM)
    place = positions_of("opportunities")
    assert "at" in place
    with connect("owner") as session:
        session.execute("truncate ops.api_pace")
    fake.usage = (0, 10**6)
    fake.calls.clear()
    load_now(CRM)
    queries = [call.query["q"] for call in fake.calls_of("queryAll$")]
    first = next(query for query in queries if " FROM Opportunity WHERE" in query)
    assert f"Id > '{place['id']}'" in first
    assert "IsClosed = false OR" in first
    assert_loaded(fake)


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("refresh", [True, False])
def test_a_session_that_ends_is_begun_anew(fake: FakeSalesforce, refresh: bool) -> None:
    set_login(fake, refresh=refresh)
    fake.session_calls = 7
    load_now(CRM)
    fake.end_session()
    load_now(CRM)
    assert_loaded(fake)
    assert len(fake.calls_of("oauth2/token")) >= 3
    with connect("loader") as session:
        token = api_accounts.get(session, CRM, PROJECT).token
    assert token.split(":")[2:] == ([fake.refresh_token] if refresh else [])
    for call in fake.calls:
        assert "secret" not in call.path + str(call.query)
        assert "refresh-" not in call.path + str(call.query)


def set_login(fake: FakeSalesforce, *, refresh: bool) -> None:
    token = fake.login(refresh=refresh)
    api_accounts.store(CRM, PROJECT, token, fake.base_url, 1_000_000)


@pytest.mark.usefixtures("lean")
def test_a_rotated_token_is_on_the_disk_before_anything_is_asked_with_it(
    fake: FakeSalesforce,
) -> None:
    set_login(fake, refresh=True)
    with fake.holding("/services/data") as gate:
        child = begin_load(CRM)
        gate.await_call()  # the first call with the access token
        child.kill()
        child.communicate()
        with connect("loader") as session:
            stored = api_accounts.get(session, CRM, PROJECT).token
    assert stored.endswith(f":{fake.refresh_token}")
    assert fake.refresh_token != "refresh-0"
    load_now(CRM)
    assert_loaded(fake)


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("wrong token", "access token is wrong or no longer valid"),
        ("wrong secret", "it does not know the client id"),
        ("used refresh token", "refresh token"),
        ("wrong endpoint", "base URL"),
        ("strange token", "client_id:client_secret:refresh_token"),
        ("hidden field", "StageName of Opportunity cannot be read"),
        ("foreign host", "https://"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    fake: FakeSalesforce, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    store = {
        "wrong token": lambda: "wrong-token",
        "wrong secret": lambda: "some:thing",
        "used refresh token": lambda: fake.login(refresh=True) + "-used",
        "strange token": lambda: "a:b:c:d",
        "foreign host": lambda: fake.login(refresh=False),
    }.get(change, lambda: TOKEN)()
    base_url = f"{fake.base_url}/elsewhere" if change == "wrong endpoint" else fake.base_url
    api_accounts.store(CRM, PROJECT, store, base_url, 1_000_000)
    if change == "wrong endpoint":
        fake.next(Reply(404, b"<html></html>"), path="elsewhere")
    if change == "foreign host":
        monkeypatch.setattr(FakeSalesforce, "url", "http://crm.example.com")
    if change == "hidden field":
        fake.hidden.add(("Opportunity", "StageName"))
    with pytest.raises(StagelineError, match=says):
        load_now(CRM)
    assert [row for table in (OPPORTUNITIES, OPPORTUNITY_HISTORY) for row in rows(table)] == []


def test_check_says_what_an_account_lacks_and_what_it_lacks_is_left_out(
    fake: FakeSalesforce,
) -> None:
    fake.absent |= {"OpportunityFieldHistory", "Case"}
    result = CliRunner().invoke(main, ["load", CRM, "--check"])
    assert result.exit_code == 1
    assert "can be loaded" in result.output
    assert "the right to read Case" in result.output
    done = load_now(CRM)
    of_cases = {"cases", "case history", "case emails", "case comments"}
    assert set(done.left_out) == {"field history", *of_cases}
    assert done.stopped is None
    assert len(rows(OPPORTUNITIES)) > 0


@pytest.mark.usefixtures("lean")
def test_a_hidden_field_is_not_asked_for(fake: FakeSalesforce) -> None:
    fake.hidden |= {("Opportunity", "Amount"), ("OpportunityHistory", "Amount")}
    load_now(CRM)
    assert {row["amount"] for row in rows(OPPORTUNITIES)} == {None}


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_in_between_the_truth_is_arrived_at(
    fake: FakeSalesforce, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    set_login(fake, refresh=dice.random() < 0.5)
    fake.page_size = dice.choice([3, 20, 200])
    fake.session_calls = dice.choice([None, 25])
    monkeypatch.setattr("loaders.calls._backoff", lambda _: 0.0)
    purged = live_through(fake, dice, steps=5)
    assert load_now(CRM).stopped is None
    assert_loaded(fake)
    sweep_again()
    load_now(CRM)
    gone = {row["opportunity_id"] for row in rows(OPPORTUNITIES) if row["is_gone"]}
    ids = {row["opportunity_id"] for row in rows(OPPORTUNITIES)}
    assert gone == purged & ids
    assert_loaded(fake)


def live_through(fake: FakeSalesforce, dice: random.Random, steps: int) -> set[str]:
    """Changes, loads, kills and cut sessions in some order; gives the ids of deals purged."""
    purged: set[str] = set()
    kills = 1
    for _ in range(steps):
        with fake.changing():
            for _ in range(dice.randrange(12)):
                happen(fake, dice, purged)
        match dice.randrange(5):
            case 0 if kills:
                kills -= 1
                child = begin_load(CRM)
                with fake.changing():
                    happen(fake, dice, purged)
                kill_some_time(child, dice, 2.5)
            case 1:
                _load_and_cut(fake, dice)
            case 2:
                with fake.changing():
                    fake.forget_places()
            case _:
                load_now(CRM)
    return purged


def _load_and_cut(fake: FakeSalesforce, dice: random.Random) -> None:
    """A load in this process whose sessions at the database end at some call."""
    fake.next(*[Reply(500, b"") for _ in range(dice.randrange(3))], path="query")
    calls = dice.randrange(2, 40)
    answer, count = fake.answer, iter(range(10**9))

    def cutting(call: Call) -> Reply:
        if next(count) == calls:
            end_sessions()
        return answer(call)

    fake.answer = cutting  # type: ignore[method-assign]  # it cuts as it answers
    with suppress(StagelineError, psycopg.OperationalError):
        load_now(CRM)
    del fake.answer


def happen(fake: FakeSalesforce, dice: random.Random, purged: set[str]) -> None:
    """Something happens in the organisation."""
    deals = fake.deals()
    deal = dice.choice(deals)
    match dice.randrange(12):
        case 0 | 1:
            fake.add_deal()
        case 2:
            fake.delete(deal)
        case 3 if len(deals) > 20:
            fake.purge("Opportunity", deal)
            purged.add(deal["Id"])
        case 4:
            fake.reassign(deal)
        case 5:
            fake.change(deal, Amount=dice.randrange(10**6) / 100)
        case 6:
            leads = [each for each in fake.records["Lead"].values() if not each["IsDeleted"]]
            if len(leads) > 2:
                fake.merge(leads[0], leads[1])
        case 7:
            fake.add_lead(deal if dice.random() < 0.5 else None)
        case 8:
            case = dice.choice(list(fake.records["Case"].values()))
            at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=dice.randrange(2, 99))
            match dice.randrange(3):
                case 0:
                    fake.set_status(case, dice.choice(CASE_STATUSES)[0])
                case 1:
                    fake.send_email(case, at)
                case _:
                    fake.comment(case, at, case["OwnerId"])
        case _:
            fake.move(deal)


@pytest.mark.usefixtures("lean")
def test_what_commits_late_is_within_the_overlap(fake: FakeSalesforce) -> None:
    load_now(CRM)
    deal = in_scope(fake)[0]
    earlier = datetime.now(UTC) - OVERLAP + timedelta(minutes=1)
    with fake.changing():
        fake.change(deal, Amount=77.0)
        for name in ("LastModifiedDate", "SystemModstamp"):
            deal[name] = earlier.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    load_now(CRM)
    (row,) = (row for row in rows(OPPORTUNITIES) if row["opportunity_id"] == deal["Id"])
    assert row["amount"] == 77


@pytest.mark.usefixtures("lean")
def test_an_address_of_a_next_page_is_followed_on_our_host_alone(fake: FakeSalesforce) -> None:
    fake.next(
        Reply(
            body={
                "done": False,
                "records": [],
                "nextRecordsUrl": "https://crm.example.com/services/oauth2/revoke",
            }
        ),
        path="queryAll",
    )
    with pytest.raises(StagelineError, match="no next page"):
        load_now(CRM)
    assert fake.calls_of("revoke") == []
    assert salesforce_queries.API_VERSION in salesforce_queries.DATA
