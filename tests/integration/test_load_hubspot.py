"""Loads of HubSpot: whatever happens at the CRM, to a load or to the database, nothing is lost."""

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg import sql

from loaders import crm, hubspot, hubspot_api
from loaders.accounts import chosen
from loaders.hubspot_tables import (
    ARCHIVED_DEALS,
    CALLS,
    COMPANIES,
    DEAL_HISTORY,
    DEAL_STAGES,
    DEALS,
    FEEDBACK,
    MEETINGS,
    MERGED_DEALS,
    OWNERS,
    TABLES,
    TICKETS,
)
from stageline.cli import main
from stageline.database import Connection, connect
from stageline.errors import StagelineError
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import (
    SEEDS,
    begin_load,
    end_sessions,
    kill_some_time,
    load_now,
    loose_ends,
    rows,
    set_up,
)
from tests.fakes.crm_server import Reply
from tests.fakes.hubspot import FakeHubspot, instant

DAY = 86_400_000
#: As HubSpot has it; of the loads of other tests a fake's account may be searched at will.
SEARCHES = hubspot.SOURCE.paces[hubspot_api.SEARCH]
WEBPAGE = Reply(530, b"<!DOCTYPE html><html><title>error 1016</title></html>")


@pytest.fixture(scope="module", autouse=True)
def _database(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """One database for all tests, each of which has a project of its own."""
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, tmp_path_factory.mktemp("hubspot"), patch) as owner,
    ):
        yield owner


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own."""
    return f"p{abs(hash(request.node.name)) % 10**9}"


@pytest.fixture
def fake(project: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHubspot]:
    """An account with a few deals, which is the project's."""
    with FakeHubspot(1) as running:
        running.populate(deals=30)
        set_up(monkeypatch, "hubspot", running, project=project)
        yield running


def a_day_passes(project: str) -> None:
    """All that is looked for from time to time is due."""
    with connect("loader", autocommit=True) as session:
        session.execute(
            "update ops.load_positions"
            " set position = jsonb_build_object('at', '2020-01-01T00:00:00+00:00')"
            " where project_id = %s and resource like 'sweep of %%'",
            [project],
        )


def written_by(project: str) -> dict[str, set[tuple[Any, ...]]]:
    """The transaction that wrote each row."""
    return {
        table.name: {
            (*(row[column] for column in table.key), row["written_by"])
            for row in rows(table, project)
        }
        for table in TABLES
    }


def assert_is_truth(fake: FakeHubspot, project: str, *, all_deals: bool = True) -> None:
    """What is loaded is what the account has: no deal, no value of the past more or less."""
    since = fake.clock() - 90 * DAY + 60_000
    live = {
        each.object_id: each
        for each in fake.deals.values()
        if each.archived is None
        and (all_deals or each.properties["hs_is_closed"] == "false" or each.modified > since)
    }
    loaded = {int(row["deal_id"]): row for row in rows(DEALS, project)}
    archived = {int(r["deal_id"]) for r in rows(ARCHIVED_DEALS, project) if not r["is_gone"]}
    assert archived == {deal_id for deal_id, deal in fake.deals.items() if deal.archived}
    # A deal is read as it was deleted, and missed by the sweep of the next day alone.
    there = {i: row for i, row in loaded.items() if not row["is_gone"] and i not in archived}
    assert set(there) == set(live)
    for deal_id, deal in live.items():
        row = there[deal_id]
        assert row["stage_id"] == deal.properties["dealstage"]
        assert row["pipeline_id"] == deal.properties["pipeline"]
        assert row["owner_id"] == deal.properties["hubspot_owner_id"]
        assert row["amount"] == pytest.approx(float(deal.properties["amount"]))
        assert row["modified_at"] == instant(deal.modified)
        assert str(row["is_closed_won"]).lower() == deal.properties["hs_is_closed_won"]
    known = {deal_id: deal for deal_id, deal in fake.deals.items() if deal_id in loaded}
    history = [
        (int(row["deal_id"]), row["property"], row["changed_at"], row["value"])
        for row in rows(DEAL_HISTORY, project)
        if int(row["deal_id"]) in known
    ]
    assert sorted(history) == sorted(
        {
            (deal_id, name, instant(entry.at), entry.value)
            for deal_id, deal in known.items()
            for name, entries in deal.history.items()
            for entry in entries
        }
    )
    into = {(int(r["deal_id"]), int(r["merged_into"])) for r in rows(MERGED_DEALS, project)}
    assert into >= {(old, new) for old, new in fake.merged.items() if new in live}
    assert not any(row["unreadable"] for table in TABLES for row in rows(table, project))


def test_nothing_is_kept_of_what_came_after_a_part_that_did_not_land(
    fake: FakeHubspot, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ever = datetime(2000, 1, 1, tzinfo=UTC)
    refused = sorted(fake.deals)[17]  # of the fourth part
    with connect("owner", autocommit=True) as owner:
        owner.execute(
            sql.SQL(
                "alter table raw_hubspot.deals add constraint refused"
                " check (project_id != {} or deal_id != {}) not valid"
            ).format(project, str(refused))
        )
        with monkeypatch.context() as patch, pytest.raises(StagelineError, match="refused"):
            patch.setattr(crm, "EARLY_ROWS", 1)
            patch.setattr(crm, "PART_ROWS", 1)
            patch.setattr(hubspot, "SEARCHED", 5)
            patch.setattr(hubspot, "READ_WITH_HISTORY", 5)
            load_now("hubspot", project, since=ever)
        there = sorted(int(row["deal_id"]) for row in rows(DEALS, project))
        assert there == sorted(fake.deals)[:15]  # a sweep would find what was passed over
        owner.execute("alter table raw_hubspot.deals drop constraint refused")
    load_now("hubspot", project, since=ever)
    assert_is_truth(fake, project)


def test_no_plan_makes_searches_faster(
    fake: FakeHubspot, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = {**hubspot.SOURCE.paces, hubspot_api.SEARCH: SEARCHES}
    monkeypatch.setattr(hubspot, "SOURCE", replace(hubspot.SOURCE, paces=paces))
    load_now("hubspot", project)
    times = [call.at for call in fake.calls_of("search$")]
    assert len(times) >= 5
    # The account may do a million times as much as one of the smallest plan.
    assert times[-1] - times[0] > (len(times) - 2) * SEARCHES.slot


def test_a_first_load_brings_what_is_open_and_what_closed_lately(
    fake: FakeHubspot, project: str
) -> None:
    old = fake.add_deal(at=fake.clock() - 300 * DAY)
    fake.set(old, "dealstage", "900002", at=fake.clock() - 200 * DAY)
    done = load_now("hubspot", project)

    assert done.left_out == {} and done.stopped is None
    assert_is_truth(fake, project, all_deals=False)
    assert loose_ends("hubspot", project) == []
    assert str(old.object_id) not in {row["deal_id"] for row in rows(DEALS, project)}
    some = next(row for row in rows(DEALS, project) if row["deal_id"] == "9001")
    assert (some["custom_fields"] == "{}") is not fake.deals[9001].properties["facility_code"]
    assert {r["owner_id"]: r["is_archived"] for r in rows(OWNERS, project)}["45"] is True
    assert len(rows(DEAL_STAGES, project)) == 9
    for table, kind in ((CALLS, "calls"), (MEETINGS, "meetings"), (TICKETS, "tickets")):
        assert 0 < len(rows(table, project)) <= len(fake.objects[kind]), kind
    assert len(rows(FEEDBACK, project)) == len(fake.objects["feedback_submissions"])
    with connect("owner") as session:
        names = session.execute(
            "select stage_id, pipeline_id, name, is_closing from settings.stage_dictionary"
            " where project_id = %s and stage_id like 'closed%%' order by 1",
            [project],
        ).fetchall()
    assert names == [
        ("closedlost", "default", "Closed lost", True),
        ("closedwon", "default", "Closed won", True),
    ]
    assert "right-token" not in str([(c.path, c.query, c.body) for c in fake.calls])


def test_a_load_that_finds_nothing_writes_nothing_and_a_later_one_what_changed(
    fake: FakeHubspot, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_now("hubspot", project)
    before = written_by(project)
    again = load_now("hubspot", project)
    assert again.calls == {"calls": 11, "search": 5}
    assert load_now("hubspot", project, is_full=True).tables["deals"].touched == 0
    assert written_by(project) == before

    monkeypatch.setattr(hubspot_api, "VERSION", "2026-09")
    fake.history_length = 1  # what HubSpot has forgotten stays
    fake.add_property("deals", "machine", "string")
    one, other, third = list(fake.deals.values())[:3]
    fake.set(one, "machine", "M-7")
    fake.move(other)
    fake.set(third, "hs_forecast_amount", "about 5")
    new = fake.add_deal()
    fake.set(new, "hubspot_owner_id", "45")
    done = load_now("hubspot", project)

    there = {row["deal_id"]: row for row in rows(DEALS, project)}
    assert '"machine": "M-7"' in there[str(one.object_id)]["custom_fields"]
    assert there[str(third.object_id)]["unreadable"] == '{"forecast_amount": "about 5"}'
    assert done.tables["deals"].unreadable == {"forecast_amount": 1}
    assert done.tables["deals"].touched == 4
    assert fake.calls_of("^/crm/objects/2026-09/deals/search$")
    fake.set(third, "hs_forecast_amount", "5")
    fake.history_length = 100
    fake.set(new, "amount", "1")
    load_now("hubspot", project)
    assert_is_truth(fake, project, all_deals=False)


def test_what_is_deleted_restored_merged_or_purged_is_seen(fake: FakeHubspot, project: str) -> None:
    load_now("hubspot", project)
    deals = [each for each in fake.deals if fake.deals[each].properties["hs_is_closed"] == "false"]
    deleted, restored, purged, first, second, unseen = deals[:6]
    fake.set(fake.deals[deleted], "amount", "77")  # just before it goes
    for each in (deleted, restored):
        fake.archive("deals", each)
    fake.purge("deals", purged)
    merged = fake.merge(first, second)
    fake.delete_stage("900003")
    fake.rename_stage("900001", "First talks")
    ticket = next(iter(fake.objects["tickets"]))
    fake.archive("tickets", ticket)
    load_now("hubspot", project)

    there = {int(row["deal_id"]): row for row in rows(DEALS, project)}
    assert there[deleted]["amount"] == 77
    assert {int(r["deal_id"]) for r in rows(ARCHIVED_DEALS, project)} == {deleted, restored}
    assert {(int(r["deal_id"]), int(r["merged_into"])) for r in rows(MERGED_DEALS, project)} == {
        (first, merged.object_id),
        (second, merged.object_id),
    }
    fake.restore("deals", restored)
    fake.lagging.add(fake.add_deal().object_id)  # a search that never finds it
    fake.purge("deals", unseen)
    a_day_passes(project)
    time.sleep(1)  # what was read in the second in which a load begins may still be there
    load_now("hubspot", project)
    assert_is_truth(fake, project, all_deals=False)
    stages = {row["stage_id"]: row for row in rows(DEAL_STAGES, project)}
    assert stages["900003"]["is_gone"] and stages["900003"]["probability"] == 0
    assert stages["900001"]["label"] == "First talks" and not stages["900001"]["is_gone"]
    gone = {row["ticket_id"] for row in rows(TICKETS, project) if row["is_gone"]}
    assert gone <= {str(ticket)}


def test_windows_limits_short_pages_and_changes_between_pages_lose_nothing(
    fake: FakeHubspot, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubspot, "SEARCHED", 7)
    monkeypatch.setattr(hubspot_api, "LISTED", 5)
    fake.window = 7  # no second page of any search
    changed = iter(sorted(fake.deals))

    def change(call: Any) -> None:
        if call.path.endswith("deals/search") and (each := next(changed, None)):
            fake.set(fake.deals[each], "amount", str(each))

    fake.meanwhile = change
    fake.next(
        Reply(429, {"errorType": "RATE_LIMIT", "policyName": "SECONDLY"}), path="deals/search"
    )
    fake.next(
        Reply(502, b"<html>"),
        Reply(breaks="within the body"),
        Reply(breaks="at once"),
        path="batch/read",
    )
    load_now("hubspot", project)
    late = fake.add_deal()
    fake.lagging.add(late.object_id)
    load_now("hubspot", project)
    fake.lagging.clear()
    fake.is_terse = True
    fake.meanwhile = lambda _: None
    load_now("hubspot", project)
    assert_is_truth(fake, project, all_deals=False)


def test_a_used_up_day_stops_the_load_and_the_next_one_goes_on(
    fake: FakeHubspot, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubspot, "SEARCHED", 5)
    load_now("hubspot", project)
    since = datetime.now(UTC) - timedelta(days=2000)
    fake.calls_left = 10
    stopped = load_now("hubspot", project, since=since)
    assert stopped.stopped is not None and "daily budget" in str(stopped.stopped)
    assert stopped.stopped.at > datetime.now(UTC) + timedelta(minutes=50)
    before = len(fake.calls)
    assert load_now("hubspot", project, since=since).stopped is not None
    assert len(fake.calls) == before  # nobody asks until then
    with connect("jobs", autocommit=True) as session:
        session.execute("delete from ops.api_pace where project_id = %s", [project])
    fake.calls_left = None
    load_now("hubspot", project, since=since)
    first = fake.calls[before:][
        [c.path for c in fake.calls[before:]].index("/crm/v3/objects/deals/search")
    ]
    assert {"propertyName": "hs_object_id", "operator": "GTE", "value": "0"} not in (
        first.body["filterGroups"][0]["filters"]
    )
    assert_is_truth(fake, project)


def test_what_an_answer_lacks_is_asked_for_again_and_no_answer_means_that_all_is_gone(
    fake: FakeHubspot, project: str
) -> None:
    partial = {"status": "COMPLETE", "results": [], "numErrors": 1, "errors": [{"status": "error"}]}
    fake.next(Reply(207, partial), path="deals/batch/read$")
    load_now("hubspot", project)
    assert_is_truth(fake, project, all_deals=False)
    before = written_by(project)
    fake.next(Reply(200, {"status": "error"}), path="objects/deals$")
    with pytest.raises(StagelineError, match="without its list of results"):
        load_now("hubspot", project)
    assert written_by(project) == before


def test_a_daily_look_is_not_put_off_by_a_load_that_comes_a_little_early(
    fake: FakeHubspot, project: str
) -> None:
    def purge_and_load(hours: float) -> int:
        """How many deals are found gone, so long after the last look."""
        fake.purge("deals", next(iter(fake.deals)))
        at = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        with connect("loader", autocommit=True) as session:
            session.execute(
                "update ops.load_positions set position = jsonb_build_object('at', %s::text)"
                " where project_id = %s and resource = 'sweep of deals'",
                [at, project],
            )
        return load_now("hubspot", project).tables["deals"].gone

    load_now("hubspot", project, since=datetime(2020, 1, 1, tzinfo=UTC))
    assert purge_and_load(22) == 0
    assert purge_and_load(23.5) == 2


def test_what_the_account_refuses_is_said_in_one_line(fake: FakeHubspot, project: str) -> None:
    fake.refused = {"feedback_submissions", "tickets"}
    done = load_now("hubspot", project)
    assert set(done.left_out) == {"ticket stages", "tickets", "surveys"}
    assert "Service Hub Professional" in done.left_out["surveys"]
    assert_is_truth(fake, project, all_deals=False)
    (only,) = chosen("hubspot", project)
    problems = {
        each.resource: each.problem
        for each in crm.check(hubspot.SOURCE, project, only.account)
        if each.problem
    }
    assert set(problems) == {"ticket stages", "tickets", "surveys"}
    assert "the scope tickets" in str(problems["tickets"])

    before = written_by(project)
    fake.refused = {"deals"}
    with pytest.raises(StagelineError, match=r"refuses stages .* crm\.objects\.deals\.read\.$"):
        load_now("hubspot", project)
    fake.refused = set()
    fake.next(WEBPAGE)
    with pytest.raises(StagelineError, match="malformed"):
        load_now("hubspot", project)
    fake.token = "another"
    with pytest.raises(StagelineError, match="wrong or no longer valid") as refused:
        load_now("hubspot", project)
    assert "right-token" not in str(refused.value) and "\n" not in str(refused.value)
    fake.token = "right-token"
    with connect("owner", autocommit=True) as session:
        session.execute(
            "update settings.api_accounts set base_url = base_url || '/elsewhere'"
            " where project_id = %s",
            [project],
        )
    shown = CliRunner().invoke(main, ["load", "hubspot", "--project", project, "--full"])
    assert shown.exit_code == 1
    assert "is the base URL of the API right?" in shown.output
    assert written_by(project) == before


@pytest.mark.parametrize("seed", SEEDS)
def test_kills_changes_and_reruns_end_with_the_truth(
    seed: int, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    with FakeHubspot(seed) as fake:
        set_up(monkeypatch, "hubspot", fake, project=project)
        for _ in range(40):
            fake.add_deal(at=fake.clock() - chance.randrange(80 * DAY))
        for _ in range(6):
            change(fake, chance)
            match chance.randrange(4):
                case 0:
                    load_now("hubspot", project)
                case 1:
                    a_day_passes(project)
                case 2:
                    kill_some_time(begin_load("hubspot", project), chance, 3.0)
                case 3:
                    child = begin_load("hubspot", project)
                    time.sleep(chance.uniform(0.5, 2.5))
                    change(fake, chance)
                    end_sessions()
                    finish(child)
        change(fake, chance)
        a_day_passes(project)
        time.sleep(1)  # what was read in the second in which a load begins may still be there
        load_now("hubspot", project)
        assert_is_truth(fake, project)
        before = written_by(project)
        load_now("hubspot", project)
        assert written_by(project) == before


def finish(child: "subprocess.Popen[bytes]") -> None:
    """Waits for a load whose sessions were ended; it says so in a line."""
    _, errors = child.communicate(timeout=60)
    assert child.returncode in (0, 1)
    assert b"Traceback" not in errors


def change(fake: FakeHubspot, chance: random.Random) -> None:
    """Some things happen in the account."""
    for _ in range(chance.randrange(1, 12)):
        live = [each for each in fake.deals if fake.deals[each].archived is None]
        archived = [each for each in fake.deals if fake.deals[each].archived is not None]
        match chance.randrange(8):
            case 0 | 1:
                fake.move(fake.deals[chance.choice(live)])
            case 2:
                fake.add_deal()
            case 3:
                fake.set(fake.deals[chance.choice(live)], "amount", str(chance.randrange(9_999)))
            case 4:
                fake.edit_many(chance.sample(live, 15), "hubspot_owner_id", chance.choice("123"))
            case 5:
                fake.archive("deals", chance.choice(live))
            case 6 if archived:
                getattr(fake, chance.choice(["restore", "purge"]))("deals", chance.choice(archived))
            case 7:
                fake.merge(*chance.sample(live, 2))


def test_companies_are_asked_for_where_a_deal_has_changed_and_once_a_day(
    fake: FakeHubspot, project: str
) -> None:
    load_now("hubspot", project)
    deal, other, *_ = (each for each in fake.deals.values() if each.properties["amount"])
    company = fake.add_company("Kiosks of the north")
    second = next(iter(fake.linked["deals", deal.object_id, "companies"]), company.object_id)
    at = fake.clock() - 60_000
    fake.link("deals", deal.object_id, "companies", [company.object_id, second], at=at)
    fake.link("deals", other.object_id, "companies", [], at=at)
    fake.calls.clear()
    load_now("hubspot", project)
    # Two changed deals: one question for associations, one for the name of the new company.
    (asked,) = fake.calls_of("associations")
    assert {each["id"] for each in asked.body["inputs"]} == {
        str(deal.object_id),
        str(other.object_id),
    }
    (named,) = fake.calls_of("objects/companies")
    assert named.body["inputs"] == [{"id": str(company.object_id)}]
    fake.calls.clear()
    load_now("hubspot", project)
    assert fake.calls_of("associations|companies") == []

    fake.set(company, "name", "Kiosks of the south")  # which is no change of its deal
    with connect("loader", autocommit=True) as session:
        session.execute(
            "update ops.load_positions set position = %s"
            " where project_id = %s and resource = 'companies'",
            ['{"at": "2020-01-01T00:00:00+00:00"}', project],
        )
    load_now("hubspot", project)
    names = {row["company_id"]: row["name"] for row in rows(COMPANIES, project)}
    assert names[str(company.object_id)] == "Kiosks of the south"
