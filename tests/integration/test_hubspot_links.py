"""What HubSpot's records have to do with each other: companies of deals, deals of activities."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.build import build
from stageline.database import connect
from tests.crm_loads import load_now, set_up
from tests.fakes.hubspot import FakeHubspot
from tests.flow_database import dbt_project

pytestmark = pytest.mark.usefixtures("database")

MODELS = (
    "docs.md",
    "staging/entity_fields.md",
    "staging/base/settings/_settings__sources.yml",
    "staging/base/settings/base_settings__projects.sql",
    "staging/base/settings/base_settings__field_map.sql",
    "staging/base/hubspot/hubspot_fields.md",
    "staging/base/hubspot/_hubspot__sources.yml",
    *(
        f"staging/base/hubspot/base_hubspot__{name}.sql"
        for name in (
            "deals",
            "deal_history",
            "deal_stages",
            "deletions",
            "opportunities",
            "activities",
        )
    ),
)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHubspot]:
    """An account with a few deals."""
    with FakeHubspot(1) as running:
        running.populate(deals=30)
        set_up(monkeypatch, "hubspot", running)
        yield running


def test_deals_have_their_company_and_activities_their_deal(
    fake: FakeHubspot, tmp_path: Path
) -> None:
    fake.archive("companies", next(iter(fake.objects["companies"])))  # it keeps no name
    load_now("hubspot")
    deal, other, *_ = (each for each in fake.deals.values() if each.properties["amount"])
    company = fake.add_company("Kiosks of the north")
    second = next(iter(fake.linked["deals", deal.object_id, "companies"]), company.object_id)
    at = fake.clock() - 60_000
    fake.link("deals", deal.object_id, "companies", [company.object_id, second], at=at)
    fake.link("deals", other.object_id, "companies", [], at=at)
    fake.calls.clear()
    load_now("hubspot")
    # Two changed deals: one question for associations, one for the name of the new company.
    (asked,) = fake.calls_of("associations")
    assert {each["id"] for each in asked.body["inputs"]} == {
        str(deal.object_id),
        str(other.object_id),
    }
    (named,) = fake.calls_of("objects/companies")
    assert named.body["inputs"] == [{"id": str(company.object_id)}]
    fake.calls.clear()
    load_now("hubspot")
    assert fake.calls_of("associations|companies") == []

    fake.set(company, "name", "Kiosks of the south")  # which is no change of its deal
    with connect("loader", autocommit=True) as session:
        session.execute(
            "update ops.load_positions set position = %s where resource = 'companies'",
            ['{"at": "2020-01-01T00:00:00+00:00"}'],
        )
    load_now("hubspot")
    folder = dbt_project(tmp_path / "project", MODELS)
    build(project=folder, target_path=tmp_path / "target", command="run")
    with connect("transformer") as session:
        companies = dict(
            session.execute(
                "select opportunity_id, company from intermediate.base_hubspot__opportunities"
            ).fetchall()
        )
        deals = dict(
            session.execute(
                "select activity_id, opportunity_id from intermediate.base_hubspot__activities"
            ).fetchall()
        )
    assert companies[str(deal.object_id)] == "Kiosks of the south"
    assert companies == {each: fake.company_of(int(each)) for each in companies}
    assert None in companies.values()
    kinds = {"call": "calls", "meeting": "meetings"}
    for activity, found in deals.items():
        kind, _, number = activity.partition(" ")
        about = fake.linked[kinds[kind], int(number), "deals"]
        assert found == (str(about[0]) if about else None), activity
    assert any(deals.values())
