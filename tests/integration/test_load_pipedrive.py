"""Loads of Pipedrive: whatever happens at the CRM and to the loads, they end where the CRM is."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs.follow_ups import Rules, run_one
from jobs.follow_ups import claim as claim_follow_up
from jobs.follow_ups import plan as plan_follow_ups
from loaders import pipedrive
from loaders.crm import BACKFILL, CrmLoad, check
from loaders.pace import Pace
from loaders.pipedrive_tables import (
    ACTIVITIES,
    DEAL_CHANGES,
    DEAL_FIELD_OPTIONS,
    DEAL_HISTORIES,
    LISTED_DEALS,
    STAGES,
    TABLES,
    USERS,
)
from loaders.records import rejects_of
from stageline import config
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.dictionaries import STAGES as STAGE_DICTIONARY
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import (
    PROJECT,
    begin_load,
    end_sessions,
    kill_some_time,
    load_now,
    rows,
    set_up,
)
from tests.fakes.crm_server import Limit, Reply
from tests.fakes.pipedrive import NOTE, REGION, DealTruth, FakePipedrive
from tests.integration.test_follow_ups import land

REJECTS = rejects_of(LISTED_DEALS.dataset)


@pytest.fixture(scope="module")
def module_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for this module: a copy for each test would take longer than the tests."""
    folder = short_folder / "load_pipedrive"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        yield


@pytest.fixture
def fake(module_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePipedrive]:  # noqa: ARG001 - what is configured here
    """A fake account that is set up as the only project, and nothing loaded of it."""
    with connect("owner", autocommit=True) as session:
        tables = ", ".join(f"{t.dataset}.{t.name}" for t in (*TABLES, REJECTS))
        session.execute(
            f"truncate settings.projects, ops.load_positions, ops.api_pace, ops.follow_ups,"
            f" raw.deliveries, raw_pipedrive.deals, {tables} cascade"
        )
    with FakePipedrive(7) as server:
        set_up(monkeypatch, "pipedrive", server)
        yield server
        config.settings.cache_clear()


def load(**options: Any) -> CrmLoad:
    return load_now("pipedrive", **options)


def open_account() -> None:
    """As if the time that the account is to be left alone were over."""
    with connect("owner", autocommit=True) as session:
        session.execute("update ops.api_pace set blocked_until = '-infinity'")


def make_sweeps_due() -> None:
    """As if the day of the last one were over."""
    with connect("owner", autocommit=True) as session:
        session.execute("delete from ops.load_positions where resource like 'sweep of %'")


def truth_of(deal: DealTruth) -> dict[str, Any]:
    """What is to be known of a deal."""
    return {
        "deal_id": str(deal.deal_id),
        "title": deal.title,
        "owner_id": str(deal.owner_id),
        "pipeline_id": str(deal.pipeline_id),
        "stage_id": str(deal.stage_id),
        "status": deal.listed_status,
        "value": Decimal(str(deal.value)),
        "currency": deal.currency,
        "probability": deal.probability,
        "expected_close_date": deal.expected_close_date,
        "added_at": deal.added_at,
        "updated_at": deal.updated_at,
        "stage_changed_at": deal.stage_changed_at,
        "closed_at": deal.closed_at,
        "is_archived": deal.archived_at is not None,
        "is_deleted": deal.is_deleted,
    }


def is_wanted(deal: DealTruth, since: datetime) -> bool:
    return deal.listed_status == "open" or (
        deal.updated_at is not None and deal.updated_at >= since
    )


def text(value: Any) -> str | None:
    return None if value is None else str(value)


def changes_of(deal: DealTruth) -> set[tuple[Any, ...]]:
    return {
        (str(deal.deal_id), str(c.change_id), c.field_key, text(c.old), text(c.new), c.at)
        for c in deal.changes
    }


def loaded_deals() -> dict[str, dict[str, Any]]:
    return {row["deal_id"]: row for row in rows(LISTED_DEALS)}


def loaded_changes(deal_ids: set[str] | None = None) -> set[tuple[Any, ...]]:
    return {
        (
            row["deal_id"],
            row["change_id"],
            row["field_key"],
            row["old_value"],
            row["new_value"],
            row["changed_at"],
        )
        for row in rows(DEAL_CHANGES)
        if deal_ids is None or row["deal_id"] in deal_ids
    }


def assert_equal_to_truth(fake: FakePipedrive, since: datetime) -> None:
    """Deals as they are, no more and no less, with all their changes; what is gone is marked."""
    found = loaded_deals()
    wanted = {str(d.deal_id): d for d in fake.deals.values() if is_wanted(d, since)}
    assert wanted.keys() <= found.keys()
    for deal_id, row in found.items():
        deal = fake.deals.get(int(deal_id))
        assert row["is_gone"] is (deal is None), deal_id
        if deal is not None:
            truth = truth_of(deal)
            assert {name: row[name] for name in truth} == truth
        assert row["unreadable"] is None
    # A deal in which nothing changed since its creation has no history that is worth 40 tokens.
    changed = {
        deal_id: fake.deals[int(deal_id)]
        for deal_id, row in found.items()
        if not row["is_gone"] and row["history_mark"] is not None
    }
    expected: set[tuple[Any, ...]] = set().union(*map(changes_of, changed.values()))
    assert loaded_changes(set(changed)) == expected
    for deal_id, row in found.items():
        if not row["is_gone"] and row["history_mark"] is None:
            assert {c.field_key for c in fake.deals[int(deal_id)].changes} == {"add_time"}
    assert rows(REJECTS) == []


def written(*tables: Any) -> dict[str, set[tuple[Any, ...]]]:
    """Which transaction wrote each row."""
    return {
        table.name: {(*(row[name] for name in table.key), row["written_by"]) for row in rows(table)}
        for table in tables or TABLES
    }


def cost_of(fake: FakePipedrive, action: Any) -> int:
    """The tokens that an action takes."""
    fake.tokens_left = before = 10**9
    action()
    left, fake.tokens_left = fake.tokens_left, None
    return before - (left or 0)


# What is loaded


def test_the_first_load_brings_everything_and_the_next_one_writes_nothing(
    fake: FakePipedrive,
) -> None:
    fake.populate(60)
    fake.page_size, fake.has_short_pages = 7, True
    since = datetime.now(UTC) - BACKFILL
    done = load()
    assert done.stopped is None
    assert done.left_out == {}
    assert_equal_to_truth(fake, since)
    assert {row["user_id"]: row["is_active"] for row in rows(USERS)} == {
        "71": True,
        "72": True,
        "73": False,
    }
    assert len(rows(STAGES)) == 7
    assert {(r["field_key"], r["option_id"], r["label"]) for r in rows(DEAL_FIELD_OPTIONS)} == {
        (REGION, "1", "North"),
        (REGION, "2", "South"),
    }
    lately = {a.activity_id for a in fake.activities.values() if a.updated_at >= since}
    assert {int(row["activity_id"]) for row in rows(ACTIVITIES)} == lately
    (custom,) = {row["custom_fields"] for row in rows(LISTED_DEALS) if row["deal_id"] == "501"}
    assert f'"{REGION}"' in custom
    before = written()
    again = load()
    assert written() == before
    assert {name: each.touched for name, each in again.tables.items() if each.touched} == {}
    assert fake.calls_of("flow")[-1].query["all_changes"] == "1"
    for call in fake.calls:
        assert fake.token not in str(call.query)


def test_a_load_costs_what_was_decided(fake: FakePipedrive) -> None:
    fake.populate(30)
    load()
    assert cost_of(fake, load) == 60
    deals = [deal for deal in fake.deals.values() if deal.status == "open"]
    fake.update(deals[0], stage_id=fake._other_stage(deals[0], random.Random(1)))  # noqa: S311 - no secret
    fake.update(deals[1], value=123)
    fake.update(deals[2], title="Renamed")  # nothing that histories are read for
    fake.create()
    load()
    assert cost_of(fake, load) == 60
    fake.update(deals[3], owner_id=74)
    assert cost_of(fake, load) == 100
    assert_equal_to_truth_but_for(fake, {str(deals[2].deal_id)})


def assert_equal_to_truth_but_for(fake: FakePipedrive, deal_ids: set[str]) -> None:
    """Changes of a title alone come with the next change that histories are read for."""
    expected: set[tuple[Any, ...]] = set()
    found = loaded_deals()
    for deal_id in found.keys() - deal_ids:
        if found[deal_id]["history_mark"] is not None:
            expected |= changes_of(fake.deals[int(deal_id)])
    assert loaded_changes(found.keys() - deal_ids) - expected == set()
    assert expected - loaded_changes() == set()


def test_values_that_went_to_and_fro_come_with_the_next_change(fake: FakePipedrive) -> None:
    deal = fake.create()
    value = deal.value
    fake.update(deal, value=1)
    load()
    fake.update(deal, value=2)
    fake.update(deal, value=1)
    load()
    assert loaded_changes() < changes_of(deal)
    fake.update(deal, value=value)
    load()
    assert loaded_changes() == changes_of(deal)


def test_deals_that_change_while_pages_are_read_are_missed_by_none(
    fake: FakePipedrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page that is read moves some of its deals to the end of the list by time."""
    monkeypatch.setattr(pipedrive, "OVERLAP", timedelta(seconds=2))
    fake.populate(60)
    since = datetime.now(UTC) - BACKFILL
    fake.page_size = 5
    answer = fake.answer

    def and_something_changes(call: Any) -> Reply:
        reply = answer(call)
        if call.path == pipedrive.DEALS:
            for shown in (reply.body["data"] or ())[:2]:
                fake.update(fake.deals[shown["id"]], value=fake._random.randrange(10**9))
        return reply

    monkeypatch.setattr(fake, "answer", and_something_changes)
    load()
    monkeypatch.setattr(fake, "answer", answer)
    load()
    assert_equal_to_truth(fake, since)


def test_a_second_in_which_more_changed_than_a_page_holds(fake: FakePipedrive) -> None:
    fake.populate(50)
    load()
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    for number, deal in enumerate(list(fake.deals.values())):
        fake.update(deal, at, value=1_000_000 + number)
    fake.page_size = 4
    load()
    assert_equal_to_truth(fake, at - BACKFILL)


def test_deals_without_a_time_of_update_are_found(fake: FakePipedrive) -> None:
    fake.populate(5)
    load()
    deal = fake.create(is_timed=False)
    deal.updated_at = None
    load()
    row = loaded_deals()[str(deal.deal_id)]
    assert (row["updated_at"], row["history_mark"]) == (None, None)


def test_deleted_merged_archived_and_purged_deals(fake: FakePipedrive) -> None:
    fake.populate(20)
    load()
    live = [deal for deal in fake.deals.values() if deal.status == "open" and not deal.is_deleted]
    deleted, merged, into, archived, purged, restored, old = live[:7]
    fake.delete(deleted)
    fake.merge(merged, into)
    fake.archive(archived)
    fake.purge(purged)
    fake.delete(restored)
    load()
    found = loaded_deals()
    assert {d for d, row in found.items() if row["is_deleted"]} >= {
        str(deal.deal_id) for deal in (deleted, merged, restored)
    }
    assert found[str(archived.deal_id)]["is_archived"]
    assert not found[str(purged.deal_id)]["is_gone"]  # no list tells of it
    fake.restore(restored)
    fake.delete(old, datetime.now(UTC) - timedelta(days=31))  # known no more
    make_sweeps_due()
    load()
    found = loaded_deals()
    assert not found[str(restored.deal_id)]["is_deleted"]
    gone = {deal_id for deal_id, row in found.items() if row["is_gone"]}
    assert gone == {str(purged.deal_id), str(old.deal_id)}
    assert found[str(purged.deal_id)]["gone_seen_at"] is not None
    fake.deals[purged.deal_id] = purged
    make_sweeps_due()
    load()
    assert not loaded_deals()[str(purged.deal_id)]["is_gone"]


def test_stages_that_were_renamed_and_deleted_are_kept(fake: FakePipedrive) -> None:
    fake.populate(5)
    load()
    fake.stages[11].name = "Renamed"
    fake.stages[12].is_deleted = True
    fake.stages[13].is_deleted = True
    fake.lists_deleted_stages = False
    make_sweeps_due()
    load()
    found = {row["stage_id"]: row for row in rows(STAGES)}
    assert len(found) == 7
    assert (found["11"]["name"], found["11"]["is_gone"]) == ("Renamed", False)
    assert found["12"]["is_gone"]
    known = {entry.stage_id: entry for entry in STAGE_DICTIONARY.entries("pipedrive", PROJECT)}
    assert {stage for stage, entry in known.items() if not entry.is_active} == {"12", "13"}
    assert known["11"].name == "Renamed"
    assert known["21"].pipeline_id == "2"


def test_new_custom_fields_and_changed_types_lose_nothing(fake: FakePipedrive) -> None:
    fake.populate(3)
    load()
    first, second, *_ = fake.deals.values()
    fake.fields["c" * 40] = ("Size", {7: "Large"})
    fake.set_custom(first, "c" * 40, 7)
    fake.set_custom(second, NOTE, {"value": 5, "currency": "EUR"})
    fake.update(first, value="about a hundred")
    with connect("owner", autocommit=True) as session:
        session.execute("delete from ops.load_positions where resource = 'fields'")
    done = load()
    found = loaded_deals()
    assert f'"{"c" * 40}": 7' in found[str(first.deal_id)]["custom_fields"]
    assert '"currency": "EUR"' in found[str(second.deal_id)]["custom_fields"]
    assert found[str(first.deal_id)]["value"] is None
    assert found[str(first.deal_id)]["unreadable"] == '{"value": "about a hundred"}'
    assert done.tables["listed_deals"].unreadable == {"value": 1}
    assert ("c" * 40, "7", "Large") in {
        (r["field_key"], r["option_id"], r["label"]) for r in rows(DEAL_FIELD_OPTIONS)
    }


def test_a_load_from_an_earlier_day_brings_what_was_left_out(fake: FakePipedrive) -> None:
    fake.populate(40)
    load()
    earlier = datetime.now(UTC) - timedelta(days=400)
    left_out = len(fake.deals) - len(loaded_deals())
    assert left_out > 0
    load(since=earlier)
    assert_equal_to_truth(fake, earlier)
    assert len(loaded_deals()) == len([d for d in fake.deals.values() if is_wanted(d, earlier)])


def test_a_full_load_reads_all_histories_again_and_writes_none_twice(fake: FakePipedrive) -> None:
    fake.populate(10)
    load()
    before = written(LISTED_DEALS, DEAL_CHANGES)
    asked = len(fake.calls_of("flow"))
    load(is_full=True)
    assert written(LISTED_DEALS, DEAL_CHANGES) == before
    assert len(fake.calls_of("flow")) == 2 * asked
    load()
    assert len(fake.calls_of("flow")) == 2 * asked


def test_a_dry_run_writes_nothing(fake: FakePipedrive) -> None:
    fake.populate(5)
    done = load(dry_run=True)
    assert done.tables["listed_deals"].read > 0
    assert all(found == set() for found in written().values())


# Limits and refusals


def test_a_daily_budget_that_runs_out_ends_the_load_and_the_next_one_goes_on(
    fake: FakePipedrive,
) -> None:
    fake.populate(24)
    since = datetime.now(UTC) - BACKFILL
    rounds = 0
    while rounds < 20:
        fake.tokens_left, fake.budget_is_used_up = 250, False
        done = load()
        open_account()
        if done.stopped is None:
            break
        assert "daily budget" in str(done.stopped)
        assert done.stopped.at > datetime.now(UTC) + timedelta(minutes=50)
        rounds += 1
    assert 2 < rounds < 20
    fake.tokens_left = None
    assert len(fake.calls_of("flow")) < 40  # none is read twice
    assert_equal_to_truth(fake, since)


def test_a_daily_budget_that_no_header_tells_of_ends_the_load_too(fake: FakePipedrive) -> None:
    fake.populate(3)
    fake.budget_is_used_up, fake.tells_budget = True, False
    reply = Reply(429, {"success": False}, {"Retry-After": "0"})
    fake.next(*[reply] * 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loaders.api.SHORTEST_WAIT", 0.0)
        done = load()
    assert "again and again" in str(done.stopped)


def test_short_limits_and_failures_are_waited_out(fake: FakePipedrive) -> None:
    fake.populate(8)
    since = datetime.now(UTC) - BACKFILL
    fake.limit = Limit(20, 0.5)
    fake.next(
        Reply(500, b"oops"),
        Reply(breaks="at once"),
        Reply(body={"success": True, "data": [], "additional_data": {}}, breaks="within the body"),
        path="/deals$",
    )
    fake.next(Reply(200, b"null"), path="flow")
    load()
    assert_equal_to_truth(fake, since)


def test_a_wrong_token_changes_nothing(fake: FakePipedrive) -> None:
    fake.populate(3)
    fake.token = "another"
    with pytest.raises(StagelineError, match="token is wrong or no longer valid"):
        load()
    assert all(found == set() for found in written().values())


def test_a_wrong_address_changes_nothing(fake: FakePipedrive) -> None:
    fake.next(*[Reply(404, b"<html>nginx</html>")] * 5)
    with pytest.raises(StagelineError, match="is the base URL of the API right"):
        load()


def test_what_the_token_has_no_right_for_is_left_out_and_said(fake: FakePipedrive) -> None:
    import re

    fake.populate(10)
    fake.refused = re.compile("flow|activities")
    done = load()
    assert set(done.left_out) == {"histories", "activities"}
    assert "recents:read" in done.left_out["histories"]
    assert len(fake.calls_of("flow")) == 3
    assert len(loaded_deals()) > 0
    fake.refused = re.compile("deals$")
    with pytest.raises(StagelineError, match="It needs the scope deals:read"):
        load()


def test_a_check_says_what_is_missing(fake: FakePipedrive) -> None:
    import re

    from loaders.accounts import chosen

    fake.populate(3)
    (only,) = chosen("pipedrive", PROJECT)
    findings = {f.resource: f.problem for f in check(pipedrive.SOURCE, PROJECT, only.account)}
    assert set(findings.values()) == {None}
    fake.refused = re.compile("flow")
    findings = {f.resource: f.problem for f in check(pipedrive.SOURCE, PROJECT, only.account)}
    assert "recents:read" in str(findings.pop("histories"))
    assert set(findings.values()) == {None}
    assert written(LISTED_DEALS) == {"listed_deals": set()}


# One deal, seen by a webhook and by a load


def follow_up(deal: DealTruth) -> None:
    """A webhook names the deal, and follow-up work asks about it."""
    rules = Rules(quiet=0, paces={"pipedrive_deal": Pace(1000, 1.0)})
    with (
        connect("owner", autocommit=True) as owner,
        connect("jobs", autocommit=True) as jobs,
        connect("loader", autocommit=True) as loader,
    ):
        land(owner, "pipedrive", "pipedrive", PROJECT, "deal", str(deal.deal_id))
        plan_follow_ups(jobs, rules)
        claimed = claim_follow_up(jobs, "test", rules)
        assert claimed is not None
        assert run_one(claimed, jobs, loader, rules) == "answered"


def test_a_deal_that_a_webhook_named_is_not_read_twice(fake: FakePipedrive) -> None:
    deal = fake.create()
    fake.update(deal, value=5)
    follow_up(deal)
    before = written(DEAL_CHANGES)
    asked = len(fake.calls_of("flow"))
    load()
    assert len(fake.calls_of("flow")) == asked
    assert written(DEAL_CHANGES) == before
    assert_equal_to_truth(fake, datetime.now(UTC) - BACKFILL)
    (first,) = {row["fetched_at"] for row in rows(DEAL_CHANGES)}
    load(is_full=True)  # the same facts, with the marks of a load
    assert {row["fetched_at"] for row in rows(DEAL_CHANGES)} == {first}
    assert loaded_changes() == changes_of(deal)
    marked = written(DEAL_CHANGES, DEAL_HISTORIES)
    follow_up(deal)
    load()
    assert written(DEAL_CHANGES, DEAL_HISTORIES) == marked


# Whatever happens


def happen(fake: FakePipedrive, chance: random.Random) -> None:
    """Something changes at the CRM. Values are never what they were before."""
    live = [deal for deal in fake.deals.values() if not deal.is_deleted]
    deal = chance.choice(live)
    match chance.randrange(12):
        case 0 | 1:
            fake.create(is_timed=chance.random() < 0.5)
        case 2 | 3 | 4:
            fake.update(deal, stage_id=fake._other_stage(deal, chance))
        case 5:
            fake.update(deal, value=chance.randrange(10**9), owner_id=chance.randrange(100, 10**6))
        case 6:
            fake.update(deal, status={"open": "won", "won": "open", "lost": "open"}[deal.status])
            fake.update(deal, value=chance.randrange(10**9))
        case 7:
            fake.reassign_pipeline(deal)
        case 8:
            fake.delete(deal)
        case 9:
            fake.purge(deal)
        case 10:
            fake.archive(deal)
        case 11:
            at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
            for each in live[:30]:
                day = (each.expected_close_date or date(2027, 1, 1)) + timedelta(days=1)
                fake.update(each, at, expected_close_date=day)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_ends_where_the_crm_is(fake: FakePipedrive, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    fake.populate(40, seed)
    fake.page_size, fake.has_short_pages = 6, True
    since = datetime.now(UTC) - BACKFILL
    child = begin_load("pipedrive")
    for _ in range(4):
        happen(fake, chance)
    kill_some_time(child, chance, 2.5)
    for _ in range(4):
        for _ in range(chance.randrange(1, 6)):
            happen(fake, chance)
        match chance.randrange(4):
            case 0:
                child = begin_load("pipedrive")
                happen(fake, chance)
                kill_some_time(child, chance, 2.5)
            case 1:
                fake.tokens_left, fake.budget_is_used_up = chance.randrange(50, 1500), False
                load()
                fake.tokens_left, fake.budget_is_used_up = None, False
                open_account()
            case 2:
                answer = fake.answer
                calls = [0]

                def and_sessions_end(call: Any) -> Reply:
                    calls[0] += 1  # noqa: B023 - called in this round alone
                    if calls[0] == 10:  # noqa: B023
                        end_sessions()
                    return answer(call)  # noqa: B023

                fake.answer = and_sessions_end  # type: ignore[method-assign]
                try:
                    load()
                except StagelineError as error:
                    assert "database went away" in str(error)
                finally:
                    fake.answer = answer  # type: ignore[method-assign]
            case _:
                load()
    make_sweeps_due()
    load()
    load()  # what the sweep found has its history now
    assert_equal_to_truth(fake, since)
    before = written()
    load()
    assert written() == before
