"""The pipeline of past dates is made again, as the CRMs know it."""

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from psycopg.rows import dict_row

from jobs.build import build
from jobs.pipeline_export import export
from stageline.database import connect
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import load_now, set_up
from tests.fakes.hubspot import STAGES, FakeHubspot, instant, read_moment
from tests.fakes.pipedrive import STAGES as STAGES_OF
from tests.fakes.pipedrive import DealTruth, FakePipedrive

MODELS = (
    "pipeline_as_of",
    "sales_pipeline_daily",
    "sales_pipeline_changes",
    "pipeline_bridge",
    "stalled_deals",
    "close_date_pushes_by_rep",
)
#: That of the projects that `set_up` makes.
TIMEZONE = ZoneInfo("Europe/Kyiv")
AS_OF = datetime.now(UTC).replace(hour=15, minute=0, second=0, microsecond=0) - timedelta(days=20)


class State(NamedTuple):
    """A deal as it was at some time; columns of ours."""

    status: str
    stage: str
    amount: Decimal | None
    currency: str | None
    win_probability: Decimal | None
    rep_id: str
    expected_close_date: date | None


Truth = dict[tuple[str, str], list[tuple[datetime, State | None]]]

#: What HubSpot tells the past of.
_TRACKED = (
    "amount",
    "dealstage",
    "deal_currency_code",
    "hs_deal_stage_probability",
    "hubspot_owner_id",
    "closedate",
)
_LABELS = {each[0]: each[1] for stages in STAGES.values() for each in stages}
_OUTCOMES = {
    each[0]: {"1.0": "won", "0.0": "lost"}[each[2]] if each[3] else "open"
    for stages in STAGES.values()
    for each in stages
}


def of_hubspot(fake: FakeHubspot) -> Truth:
    """Every deal's states, each from an instant on; None = it is not there."""
    found: Truth = {}
    for deal_id, deal in fake.deals.items():
        states: list[tuple[datetime, State | None]] = []
        for moment in sorted({entry.at for name in _TRACKED for entry in deal.history[name]}):
            values = {
                name: [entry.value for entry in deal.history[name] if entry.at <= moment]
                for name in _TRACKED
            }
            now = {name: known[-1] if known else None for name, known in values.items()}
            stage, closes = str(now["dealstage"]), read_moment(str(now["closedate"]))
            state = State(
                status=_OUTCOMES[stage],
                stage=_LABELS[stage],
                amount=Decimal(now["amount"]) if now["amount"] else None,
                currency=now["deal_currency_code"],
                win_probability=Decimal(str(now["hs_deal_stage_probability"])),
                rep_id=str(now["hubspot_owner_id"]),
                expected_close_date=instant(closes).astimezone(TIMEZONE).date(),
            )
            states.append((instant(moment), state))
        if deal.archived:
            states.append((instant(deal.archived), None))
        found["hubspot", str(deal_id)] = states
    return found


def of_pipedrive(fake: FakePipedrive) -> Truth:
    """The same of Pipedrive, whose deals tell what they are now, and how they came to it."""
    found: Truth = {}
    for deal in fake.deals.values():
        now: dict[str, Any] = {
            "status": deal.status,
            "stage_id": deal.stage_id,
            "value": deal.value,
            "currency": deal.currency,
            "probability": deal.probability,
            "user_id": deal.owner_id,
            "expected_close_date": deal.expected_close_date,
        }
        changes = [change for change in deal.changes if change.field_key in now]
        states: list[tuple[datetime, State | None]] = []
        for change in reversed(changes):
            states.append((change.at, _state(fake, now)))
            now[change.field_key] = change.old
        states.append((deal.added_at, _state(fake, now)))
        if deal.is_deleted and deal.deleted_at:
            states.insert(0, (deal.deleted_at, None))
        found["pipedrive", str(deal.deal_id)] = [*reversed(states)]
    return found


def _state(fake: FakePipedrive, values: dict[str, Any]) -> State:
    own, day = values["probability"], values["expected_close_date"]
    chance = fake.stages[int(values["stage_id"])].probability if own is None else own
    return State(
        status=values["status"],
        stage=f"Stage {values['stage_id']}",
        amount=None if values["value"] is None else Decimal(str(values["value"])),
        currency=values["currency"],
        win_probability=Decimal(chance) / 100,
        rep_id=str(values["user_id"]),
        expected_close_date=date.fromisoformat(day) if isinstance(day, str) else day,
    )


def change_more(fake: FakePipedrive) -> None:
    """What the account did not do by itself: chances of their own, other days and currencies."""
    for number, deal in enumerate(fake.deals.values()):
        later = deal.changes[-1].at + timedelta(hours=1)
        if number % 2 or later >= datetime.now(UTC) - timedelta(days=1):
            continue
        day = deal.added_at.date() + timedelta(days=100 + number)
        fake.update(deal, later, probability=None if deal.probability else 35)
        fake.update(deal, later, expected_close_date=day)
        fake.update(deal, later + timedelta(hours=1), currency="PLN")
        fake.update(deal, later + timedelta(hours=2), stage_id=STAGES_OF[deal.pipeline_id][0])
        fake.update(deal, later + timedelta(hours=3), stage_id=STAGES_OF[deal.pipeline_id][-1])


def move_within_a_month(fake: FakePipedrive) -> None:
    """Of two deals that are to close in the month before AS_OF, one advances and one goes back."""
    last_day = AS_OF.astimezone(TIMEZONE).replace(day=1) - timedelta(days=1)
    for stages in (STAGES_OF[1], STAGES_OF[1][::-1]):
        deal = fake.create()
        deal.changes.clear()
        deal.added_at = last_day.replace(day=1).astimezone(UTC) - timedelta(days=9)
        deal.pipeline_id, deal.stage_id, deal.probability = 1, stages[0], None
        deal.expected_close_date = last_day.date()
        fake.update(deal, last_day.replace(day=15).astimezone(UTC), stage_id=stages[-1])


def delete_one_of_each(fake: FakePipedrive) -> None:
    """Of the deals that were there at AS_OF, one that is open, won, lost is deleted today."""
    for status in ("open", "won", "lost"):
        fake.delete(next(d for d in fake.deals.values() if is_there(d) and d.status == status))


def is_there(deal: DealTruth) -> bool:
    """Whether a deal was there at AS_OF, and has been since."""
    return deal.added_at < AS_OF and not deal.is_deleted and deal.archived_at is None


def at(states: list[tuple[datetime, State | None]], moment: datetime) -> State | None:
    """The state of a deal at an instant."""
    past = [state for since, state in states if since <= moment]
    return past[-1] if past else None


@pytest.fixture(scope="module")
def truth(server: TestServer, short_folder: Path) -> Iterator[Truth]:
    """Two CRMs, loaded into one database and built as of a past date."""
    folder = short_folder / "history"
    folder.mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch),
        FakeHubspot(3) as hubspot,
        FakePipedrive(3) as pipedrive,
    ):
        hubspot.populate(deals=60)
        pipedrive.populate(deals=60)
        for number, deal in enumerate(hubspot.deals.values()):
            if number % 3 == 0:
                hubspot.set(deal, "amount", str(7 * number + 10))
        change_more(pipedrive)
        move_within_a_month(pipedrive)
        for name, fake in (("hubspot", hubspot), ("pipedrive", pipedrive)):
            set_up(patch, name, fake)
            load_now(name)
        delete_one_of_each(pipedrive)
        load_now("pipedrive")
        build(
            select=" ".join(f"+{name}" for name in MODELS),
            exclude="resource_type:test resource_type:unit_test",
            dbt_vars={"as_of": AS_OF.isoformat()},
            target_path=folder / "target",
        )
        yield of_hubspot(hubspot) | of_pipedrive(pipedrive)


def read(query: str) -> list[dict[str, Any]]:
    with connect("owner") as session, session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def state_of(row: dict[str, Any]) -> State:
    """The state that a row of a model tells of."""
    return State(**{name: row[name] for name in State._fields})


def test_each_deal_is_what_it_was_at_that_instant(truth: Truth) -> None:
    rows = read("select * from kpis.pipeline_as_of")
    found = {(row["source_system"], row["opportunity_id"]): state_of(row) for row in rows}
    loaded = {
        (row["source_system"], row["opportunity_id"])
        for row in read("select * from intermediate.int_opportunity_versions")
    }
    expected = {key: at(states, AS_OF) for key, states in truth.items() if key in loaded}
    closed = {"won": Decimal(1), "lost": Decimal(0)}
    assert found == {
        key: state._replace(win_probability=closed.get(state.status, state.win_probability))
        for key, state in expected.items()
        if state is not None
    }
    assert {key[0] for key in found} == {"hubspot", "pipedrive"}
    now = {key: states[-1][1] for key, states in truth.items()}
    assert sum(state != now[key] for key, state in found.items()) > 20


def test_versions_are_the_states_one_after_the_other(truth: Truth) -> None:
    versions = defaultdict(list)
    for row in read("select * from intermediate.int_opportunity_versions order by valid_from"):
        key = row["source_system"], row["opportunity_id"]
        versions[key].append((row["valid_from"], state_of(row)))
    for key, found in versions.items():
        for since, state in found:
            known = [each for begins, each in truth[key] if begins <= since and each is not None]
            assert state == known[-1], (key, since)


def test_days_and_changes_agree_with_the_pipeline(truth: Truth) -> None:
    assert truth
    per_day = read(
        """
        select source_system, currency, sum(open_value_change) as change,
            (
                select open_value from kpis.sales_pipeline_daily as daily
                where daily.source_system = changes.source_system
                    and daily.currency = changes.currency
                order by day desc limit 1
            ) as open_value
        from kpis.sales_pipeline_changes as changes
        group by source_system, currency
        """
    )
    assert per_day
    assert all(row["change"] == row["open_value"] for row in per_day)
    now = read(
        "select source_system, currency, sum(amount * is_open) as open_value"
        " from kpis.pipeline_as_of group by source_system, currency"
    )
    assert {(r["source_system"], r["currency"], r["open_value"]) for r in now} == {
        (r["source_system"], r["currency"], r["open_value"]) for r in per_day
    }


def test_the_file_names_owners_and_says_when_a_deal_was_updated(truth: Truth) -> None:
    leads = json.loads(export().pipeline.read_text())["leads"]
    names = {
        "hubspot": lambda owner_id: f"Rep {owner_id}",
        "pipedrive": lambda owner_id: f"User {owner_id}",
    }
    assert {lead["source"] for lead in leads} == set(names)
    for lead in leads:
        state = at(truth[lead["source"], lead["id"]], AS_OF)
        assert state is not None
        assert lead["owner"] == names[lead["source"]](state.rep_id)
        created_at, updated_at = (
            datetime.fromisoformat(lead[name]) for name in ("created_at", "updated_at")
        )
        assert created_at <= updated_at <= AS_OF


def test_a_month_tells_of_deals_that_came_nearer_or_went_back(truth: Truth) -> None:
    assert truth
    (found,) = read(
        "select sum(advanced_opportunities) as advanced, sum(moved_back_opportunities) as back"
        " from kpis.pipeline_bridge where source_system = 'pipedrive'"
    )
    assert found["advanced"] > 0
    assert found["back"] > 0
