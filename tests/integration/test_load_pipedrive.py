"""Loads of Pipedrive: whatever happens at the CRM and to the loads, they end where the CRM is."""

import itertools
import random
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobs.follow_ups import Rules, run_one
from jobs.follow_ups import claim as claim_follow_up
from jobs.follow_ups import plan as plan_follow_ups
from loaders import pipedrive
from loaders.accounts import chosen
from loaders.crm import BACKFILL, CrmLoad, check
from loaders.pace import Pace
from loaders.pipedrive_tables import (
    ACTIVITIES,
    DEAL_CHANGES,
    DEAL_FIELD_OPTIONS,
    DEAL_HISTORIES,
    LISTED_DEALS,
    ORGANIZATIONS,
    STAGES,
    TABLES,
    USERS,
)
from loaders.records import rejects_of
from stageline import config
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.changes import audit
from stageline.settings.dictionaries import STAGES as STAGE_DICTIONARY
from stageline.settings.field_map import FIELD_MAP, MappedField
from stageline.settings.rule_tables import ProjectKey, changing_project, listed
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
from tests.fakes.crm_server import TOKEN, Limit, Reply
from tests.fakes.pipedrive import NOTE, REGION, DealTruth, FakePipedrive
from tests.integration.test_follow_ups import land

REJECTS = rejects_of(LISTED_DEALS.dataset)


@pytest.fixture(scope="module", autouse=True)
def module_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for this module: a copy for each test would take longer than the tests."""
    folder = short_folder / "load_pipedrive"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        yield


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePipedrive]:
    """A fake account that is set up as the only project, and nothing loaded of it."""
    with connect("owner", autocommit=True) as session:
        tables = ", ".join(f"{t.dataset}.{t.name}" for t in (*TABLES, REJECTS))
        session.execute(
            f"truncate settings.projects, ops.load_positions, ops.api_pace, ops.follow_ups,"
            f" raw.deliveries, raw.delivery_bodies, raw_pipedrive.deals, {tables} cascade"
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


def make_fields_due() -> None:
    """As if the day of the last look at the fields were over."""
    with connect("owner", autocommit=True) as session:
        session.execute("delete from ops.load_positions where resource = 'fields'")


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
    known = {str(deal.deal_id): deal for deal in fake.deals.values() if not deal.is_purged}
    assert {deal_id for deal_id in known if is_wanted(known[deal_id], since)} <= found.keys()
    for deal_id, row in found.items():
        deal = known.get(deal_id)
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


def test_a_first_load_and_a_load_of_nothing(fake: FakePipedrive) -> None:
    fake.populate(50)
    fake.page_size, fake.has_short_pages = 7, True
    since = datetime.now(UTC) - BACKFILL
    done = load(dry_run=True)
    assert done.tables["listed_deals"].read > 0
    assert all(found == set() for found in written().values())
    assert load().left_out == {}
    assert_equal_to_truth(fake, since)
    assert loose_ends("pipedrive") == []
    assert {row["user_id"]: row["is_active"] for row in rows(USERS)} == {
        "71": True,
        "72": True,
        "73": False,
    }
    assert {(r["field_key"], r["option_id"], r["label"]) for r in rows(DEAL_FIELD_OPTIONS)} == {
        (REGION, "1", "North"),
        (REGION, "2", "South"),
    }
    lately = {a.activity_id for a in fake.activities.values() if a.updated_at >= since}
    assert {int(row["activity_id"]) for row in rows(ACTIVITIES)} == lately
    before = written()
    again = load()
    assert written() == before
    assert all(each.touched == 0 for each in again.tables.values())
    for call in fake.calls:
        assert fake.token not in str(call.query)


def test_stages_without_an_order_are_stages_all_the_same(fake: FakePipedrive) -> None:
    stages = [
        {"id": number, "name": name, "pipeline_id": 1, "order_nr": order}
        for number, name, order in ((11, "Second", 2), (12, "Unordered", None))
    ]
    fake.next(Reply(200, {"success": True, "data": stages}), path="v2/stages$")
    load_now("pipedrive")
    assert {row["name"] for row in rows(STAGES)} >= {"Second", "Unordered"}


def test_a_load_costs_what_was_decided(fake: FakePipedrive) -> None:
    fake.populate(12)
    load()
    deals = [deal for deal in fake.deals.values() if deal.status == "open"]
    fake.update(deals[0], title="Renamed")  # nothing that histories are read for
    assert cost_of(fake, load) in (62, 102)  # 40 where its history was not worth any before
    fake.update(deals[0], title="Renamed again")
    fake.create()
    assert cost_of(fake, load) == 62
    fake.update(deals[0], value=1)
    assert cost_of(fake, load) == 102
    fake.update(deals[0], value=2)  # to and fro: it comes with the next change
    fake.update(deals[0], value=1)
    assert cost_of(fake, load) == 62
    deal_id = str(deals[0].deal_id)
    assert loaded_changes({deal_id}) < changes_of(deals[0])
    fake.update(deals[0], value=3)
    load()
    assert loaded_changes({deal_id}) == changes_of(deals[0])


def test_deals_that_change_while_pages_are_read_and_many_within_a_second(
    fake: FakePipedrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page that is read moves some of its deals to the end of the list by time."""
    fake.populate(30)
    since = datetime.now(UTC) - BACKFILL
    fake.page_size = 4
    load()
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    for number, deal in enumerate(list(fake.deals.values())):
        fake.update(deal, start + timedelta(seconds=number), value=1_000_000 + number)
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
    monkeypatch.setattr(pipedrive, "OVERLAP", timedelta(seconds=2))
    load()
    assert_equal_to_truth(fake, since)
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    for number, deal in enumerate(list(fake.deals.values())):
        fake.update(deal, at, value=2_000_000 + number)
    load()
    assert_equal_to_truth(fake, since)


def test_deleted_merged_archived_purged_and_untimed_deals_and_stages_that_go(
    fake: FakePipedrive,
) -> None:
    fake.populate(20)
    load()
    live = [deal for deal in fake.deals.values() if deal.status == "open" and not deal.is_deleted]
    deleted, merged, into, archived, purged, restored, old = live[:7]
    fake.delete(deleted)
    fake.merge(merged, into)
    fake.archive(archived)
    fake.purge(purged)
    fake.delete(restored)
    untimed = fake.create()
    untimed.updated_at = None
    load()
    found = loaded_deals()
    assert {d for d, row in found.items() if row["is_deleted"]} >= {
        str(deal.deal_id) for deal in (deleted, merged, restored)
    }
    assert found[str(archived.deal_id)]["is_archived"]
    assert found[str(untimed.deal_id)]["updated_at"] is None
    assert not found[str(purged.deal_id)]["is_gone"]  # no list tells of it
    fake.restore(restored)
    fake.delete(old, datetime.now(UTC) - timedelta(days=31))  # known no more
    fake.stages[11].name = "Renamed"
    fake.stages[12].is_deleted = fake.stages[13].is_deleted = True
    fake.lists_deleted_stages = False
    make_sweeps_due()
    load()
    found = loaded_deals()
    assert not found[str(restored.deal_id)]["is_deleted"]
    gone = {deal_id: row["gone_seen_at"] for deal_id, row in found.items() if row["is_gone"]}
    assert gone.keys() == {str(purged.deal_id), str(old.deal_id)}
    assert None not in gone.values()
    stages = {row["stage_id"]: row for row in rows(STAGES)}
    assert len(stages) == 7
    assert (stages["11"]["name"], stages["11"]["is_gone"]) == ("Renamed", False)
    assert stages["12"]["is_gone"]
    known = {entry.stage_id: entry for entry in STAGE_DICTIONARY.entries("pipedrive", PROJECT)}
    assert {stage for stage, entry in known.items() if not entry.is_active} == {"12", "13"}
    assert (known["11"].name, known["21"].pipeline_id) == ("Renamed", "2")
    fake.deals[purged.deal_id] = purged
    make_sweeps_due()
    load()
    assert not loaded_deals()[str(purged.deal_id)]["is_gone"]


def test_new_custom_fields_and_changed_types_lose_nothing(fake: FakePipedrive) -> None:
    fake.populate(3)
    load()
    first, second, *_ = [fake.create(), fake.create()]
    fake.fields["c" * 40] = ("Size", {7: "Large"})
    fake.set_custom(first, "c" * 40, 7)
    fake.set_custom(second, NOTE, {"value": 5, "currency": "EUR"})
    fake.update(first, value="about a hundred")
    make_fields_due()
    done = load()
    found = loaded_deals()
    assert f'"{"c" * 40}": 7' in found[str(first.deal_id)]["custom_fields"]
    assert '"currency": "EUR"' in found[str(second.deal_id)]["custom_fields"]
    assert found[str(first.deal_id)]["value"] is None
    assert found[str(first.deal_id)]["unreadable"] == '{"value": "about a hundred"}'
    assert set(done.tables["listed_deals"].unreadable) == {"value"}
    assert ("c" * 40, "7", "Large") in {
        (r["field_key"], r["option_id"], r["label"]) for r in rows(DEAL_FIELD_OPTIONS)
    }


def test_loads_from_an_earlier_day_and_of_everything(fake: FakePipedrive) -> None:
    fake.populate(20)
    load()
    earlier = datetime.now(UTC) - timedelta(days=400)
    before = written(LISTED_DEALS, DEAL_CHANGES)
    assert len(fake.deals) > len(loaded_deals())
    load(since=earlier)
    assert_equal_to_truth(fake, earlier)
    assert len(loaded_deals()) == len([d for d in fake.deals.values() if is_wanted(d, earlier)])
    after = written(LISTED_DEALS, DEAL_CHANGES)
    assert all(before[name] <= after[name] for name in before)
    asked = len(fake.calls_of("flow"))
    load()
    assert len(fake.calls_of("flow")) == asked


def test_a_label_that_was_mapped_before_the_first_load_becomes_the_key_with_it(
    fake: FakePipedrive,
) -> None:
    project = ProjectKey("pipedrive", PROJECT)
    fake.fields["d" * 40] = fake.fields["e" * 40] = ("Branch", {})
    wanted = {"facility_id": "Region", "rep_id": "Branch", "lead_id": "Nobody", "company": NOTE}

    def mapped() -> dict[str, str]:
        return {row.field: row.crm_field for row in listed(FIELD_MAP, project)}

    with changing_project(project) as session:
        for field, label in wanted.items():
            row = MappedField(entity="deals", field=field, crm_field=label)  # type: ignore[arg-type]  # one of them
            FIELD_MAP.insert(session, project, row)
    assert mapped() == wanted
    assert load(dry_run=True).warnings == []
    assert mapped() == wanted
    several, none = sorted(load().warnings)
    assert f"are called 'Branch': {'d' * 40}, {'e' * 40}" in several
    assert "has no field 'Nobody'" in none
    assert mapped() == {**wanted, "facility_id": REGION}
    fake.fields[REGION] = ("Area", fake.fields[REGION][1])
    make_fields_due()
    load()
    assert mapped() == {**wanted, "facility_id": REGION}
    assert {change.changed_by for change in audit("field_map")} >= {"load pipedrive"}


# Limits and refusals


def test_a_daily_budget_that_runs_out_ends_the_load_and_the_next_one_goes_on(
    fake: FakePipedrive,
) -> None:
    fake.populate(14)
    since = datetime.now(UTC) - BACKFILL
    stops = 0
    for tokens in (62, 232, 102, 10_000):
        fake.tokens_left, fake.budget_is_used_up = tokens, False
        done = load()
        open_account()
        if done.stopped is not None:
            assert "daily budget" in str(done.stopped)
            assert done.stopped.at > datetime.now(UTC) + timedelta(minutes=50)
            stops += 1
    assert stops == 3
    fake.tokens_left = None
    asked = [call.path for call in fake.calls_of("flow")]
    assert len(asked) - len(set(asked)) <= stops  # but for those that were not answered
    assert_equal_to_truth(fake, since)


def test_a_daily_budget_that_no_header_tells_of_ends_the_load_too(
    fake: FakePipedrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.next(*[Reply(429, {"success": False}, {"Retry-After": "0"})] * 12)
    monkeypatch.setattr("loaders.api.SHORTEST_WAIT", 0.0)
    assert "again and again" in str(load().stopped)


def test_short_limits_and_failures_are_waited_out(fake: FakePipedrive) -> None:
    fake.populate(4)
    since = datetime.now(UTC) - BACKFILL
    fake.limit = Limit(15, 0.5)
    fake.next(
        Reply(500, b"oops"),
        Reply(breaks="at once"),
        Reply(body={"success": True, "data": [], "additional_data": {}}, breaks="within the body"),
        path="/deals$",
    )
    fake.next(Reply(200, b"null"), path="flow")
    load()
    assert_equal_to_truth(fake, since)


def test_what_a_token_or_an_address_does_not_open(fake: FakePipedrive) -> None:
    fake.populate(10)
    fake.token = "another"
    with pytest.raises(StagelineError, match="token is wrong or no longer valid"):
        load()
    fake.token = TOKEN
    fake.next(Reply(404, b"<html>nginx</html>"))
    with pytest.raises(StagelineError, match="is the base URL of the API right"):
        load()
    fake.refused = re.compile("deals$")
    with pytest.raises(StagelineError, match="It needs the scope deals:read"):
        load()
    assert written(LISTED_DEALS) == {"listed_deals": set()}
    (only,) = chosen("pipedrive", PROJECT)
    fake.refused = re.compile("flow|activities")
    findings = {f.resource: f.problem for f in check(pipedrive.SOURCE, PROJECT, only.account)}
    assert "recents:read" in str(findings.pop("histories"))
    assert "activities:read" in str(findings.pop("activities"))
    assert set(findings.values()) == {None}
    asked = len(fake.calls_of("flow"))
    done = load()
    assert set(done.left_out) == {"histories", "activities"}
    assert "recents:read" in done.left_out["histories"]
    assert len(fake.calls_of("flow")) == asked + 3
    assert len(loaded_deals()) > 0


def test_a_history_that_was_refused_is_asked_for_again_though_nothing_changed(
    fake: FakePipedrive,
) -> None:
    fake.populate(20)
    since = datetime.now(UTC) - BACKFILL
    due = next(d for d in fake.deals.values() if d.status == "open" and len(d.changes) > 2)
    fake.refused = re.compile(f"deals/{due.deal_id}/flow")
    for _ in range(2):
        load()
        assert str(due.deal_id) not in {row["deal_id"] for row in rows(DEAL_HISTORIES)}
    fake.refused = None
    load()
    assert_equal_to_truth(fake, since)
    fake.calls.clear()
    load()
    assert fake.calls_of("flow") == []


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


def test_a_full_load_asks_for_all_histories_however_soon_it_follows(
    fake: FakePipedrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        at = datetime.now(UTC)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return cls.at if tz is None else cls.at.astimezone(tz)

    monkeypatch.setattr("loaders.crm.datetime", Stopped)
    for _ in range(3):
        fake.update(fake.create(), value=5)
    load()
    fake.calls.clear()
    load(is_full=True)
    assert len(fake.calls_of("flow")) == 3


def test_names_of_organizations_are_asked_for_once_and_when_they_change(
    fake: FakePipedrive,
) -> None:
    def names() -> dict[str, str | None]:
        return {row["organization_id"]: row["name"] for row in rows(ORGANIZATIONS)}

    north, south, other = (fake.add_organization(each) for each in ("North", "South", "Other"))
    deals = [fake.create() for _ in range(3)]
    for deal, number in zip(deals, (north.organization_id, 999, None), strict=True):
        deal.org_id = number
    load()
    assert names() == {"301": "North", "999": None}  # the second one is no longer listed
    fake.calls.clear()
    fake.update(deals[2], org_id=south.organization_id)
    load()
    assert names() == {"301": "North", "302": "South", "999": None}
    (asked,) = fake.calls_of("organizations")
    assert asked.query["ids"] == "302"
    fake.calls.clear()
    load()
    assert fake.calls_of("organizations") == []
    # The next day, one was renamed and one deleted.
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=2)
    north.name, north.updated_at, other.updated_at = "Far north", at, at
    del fake.organizations[south.organization_id]
    with connect("owner", autocommit=True) as session:
        session.execute(
            "update ops.load_positions set position = jsonb_build_object('at', %s::text)"
            " where resource = 'organizations'",
            [f"{at - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"],
        )
    load()
    assert names() == {"301": "Far north", "302": "South", "999": None}
    load(is_full=True)
    assert names() == {"301": "Far north", "302": "South", "999": None}


def test_a_deleted_activity_is_found_by_a_list_of_all_of_them(fake: FakePipedrive) -> None:
    kept, deleted = (fake.add_activity(fake.create()) for _ in range(2))
    load()
    del fake.activities[deleted.activity_id]
    late = fake.add_activity(fake.create(), datetime.now(UTC) - timedelta(minutes=40))
    make_sweeps_due()
    assert load().tables["activities"].gone == 1
    gone = {int(row["activity_id"]): row["is_gone"] for row in rows(ACTIVITIES)}
    assert gone == {kept.activity_id: False, deleted.activity_id: True, late.activity_id: False}


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


def load_and_cut(fake: FakePipedrive, calls: int) -> None:
    """A load whose sessions at the database end at some call."""
    answer, count = fake.answer, itertools.count(1)

    def and_sessions_end(call: Any) -> Reply:
        if next(count) == calls:
            end_sessions()
        return answer(call)

    fake.answer = and_sessions_end  # type: ignore[method-assign]  # in mid-load
    try:
        load()
    except StagelineError as error:
        assert "database went away" in str(error)
    finally:
        fake.answer = answer  # type: ignore[method-assign]  # as before


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_ends_where_the_crm_is(fake: FakePipedrive, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    fake.populate(40, seed)
    fake.page_size, fake.has_short_pages = 6, True
    since = datetime.now(UTC) - BACKFILL
    child = begin_load("pipedrive")
    for _ in range(4):
        happen(fake, chance)
    kill_some_time(child, chance, 2.5)
    for _ in range(3):
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
                load_and_cut(fake, 10)
            case _:
                load()
    make_sweeps_due()
    assert load().stopped is None
    assert load().stopped is None  # what the sweep found has its history now
    assert_equal_to_truth(fake, since)
    before = written()
    load()
    assert written() == before
