"""The pipeline of past dates is made again, as the CRMs know it."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg.rows import dict_row

from jobs.build import build
from stageline.database import connect
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import load_now, set_up
from tests.fakes.hubspot import STAGES, FakeHubspot, instant
from tests.fakes.pipedrive import FakePipedrive

MODELS = (
    "pipeline_as_of",
    "sales_pipeline_daily",
    "sales_pipeline_changes",
    "pipeline_bridge",
    "stalled_deals",
    "close_date_pushes_by_rep",
)
AS_OF = datetime.now(UTC).replace(hour=15, minute=0, second=0, microsecond=0) - timedelta(days=20)

#: Status, stage and amount of a deal.
State = tuple[str, str, Decimal | None]
Truth = dict[tuple[str, str], list[tuple[datetime, State | None]]]

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
        at = {entry.at for name in ("amount", "dealstage") for entry in deal.history[name]}
        states: list[tuple[datetime, State | None]] = []
        for moment in sorted(at):
            now = {
                name: [entry.value for entry in deal.history[name] if entry.at <= moment]
                for name in ("amount", "dealstage")
            }
            stage = now["dealstage"][-1]
            amount = Decimal(now["amount"][-1]) if now["amount"] else None
            states.append((instant(moment), (_OUTCOMES[stage], _LABELS[stage], amount)))
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
        }
        changes = [change for change in deal.changes if change.field_key in now]
        states: list[tuple[datetime, State | None]] = []
        for change in reversed(changes):
            states.append((change.at, _state(now)))
            now[change.field_key] = change.old
        states.append((deal.added_at, _state(now)))
        if deal.is_deleted and deal.deleted_at:
            states.insert(0, (deal.deleted_at, None))
        found["pipedrive", str(deal.deal_id)] = [*reversed(states)]
    return found


def _state(values: dict[str, Any]) -> State:
    amount = None if values["value"] is None else Decimal(str(values["value"]))
    return str(values["status"]), f"Stage {values['stage_id']}", amount


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
        for name, fake in (("hubspot", hubspot), ("pipedrive", pipedrive)):
            set_up(patch, name, fake)
            load_now(name)
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


def test_each_deal_is_what_it_was_at_that_instant(truth: Truth) -> None:
    found = {
        (row["source_system"], row["opportunity_id"]): (row["status"], row["stage"], row["amount"])
        for row in read("select * from kpis.pipeline_as_of")
    }
    loaded = {
        (row["source_system"], row["opportunity_id"])
        for row in read("select * from intermediate.int_opportunity_versions")
    }
    expected = {key: at(states, AS_OF) for key, states in truth.items() if key in loaded}
    assert found == {key: state for key, state in expected.items() if state is not None}
    assert {key[0] for key in found} == {"hubspot", "pipedrive"}
    now = {key: states[-1][1] for key, states in truth.items()}
    assert sum(state != now[key] for key, state in found.items()) > 20


def test_versions_are_the_states_one_after_the_other(truth: Truth) -> None:
    versions = defaultdict(list)
    for row in read("select * from intermediate.int_opportunity_versions order by valid_from"):
        key = row["source_system"], row["opportunity_id"]
        versions[key].append((row["valid_from"], row["status"], row["stage"], row["amount"]))
    for key, found in versions.items():
        for since, *state in found:
            known = [each for begins, each in truth[key] if begins <= since and each is not None]
            assert tuple(state) == known[-1], (key, since)


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
