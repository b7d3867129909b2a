"""Made-up CRMs in which nothing changes any longer answer as those in which something may."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loaders.hubspot_tables import DEALS, PROPERTIES, WITH_HISTORY
from tests.fakes.crm_server import Call, CrmServer, Reply
from tests.fakes.hubspot import FakeHubspot, instant
from tests.fakes.keycrm import FakeKeycrm
from tests.fakes.keycrm import _instant as keycrm_instant
from tests.fakes.pipedrive import FakePipedrive
from tests.fakes.salesforce import OBJECTS, FakeSalesforce

_NOW = datetime.now(UTC)
_SPANS = [
    (_NOW - timedelta(days=since), _NOW - timedelta(days=until))
    for since, until in ((400, -1), (90, 0), (20, 3), (0, 0), (3, 20))
]


def _spans(moments: Iterable[datetime | None]) -> list[tuple[datetime, datetime]]:
    """Spans of all sizes, some of which begin or end when something changed."""
    known = sorted({at for at in moments if at is not None})
    edges = known[:: max(len(known) // 6, 1)]
    return [*_SPANS, *((one, other) for one in edges for other in edges)]


def _get(path: str, **query: object) -> Call:
    return Call(0, path, {name: str(value) for name, value in query.items()}, {})


def _pipedrive(fake: CrmServer) -> Iterator[Call]:
    assert isinstance(fake, FakePipedrive)
    ids = ",".join(str(each) for each in list(fake.deals)[:30])
    for path in ("deals", "deals/archived", "activities", "organizations", "stages", "pipelines"):
        yield _get(f"/api/v2/{path}", limit=10)
        yield _get(f"/api/v2/{path}", limit=7, sort_by="id", sort_direction="desc")
    spans = _spans(deal.updated_at for deal in fake.deals.values())
    for path in ("deals", "deals/archived"):
        yield _get(f"/api/v2/{path}", ids=ids, status="open,won,lost,deleted", limit=500)
        for status in ("open", "won,lost,deleted", "open,won,lost,deleted"):
            for since, until in map(_seconds, spans):
                span = {"updated_since": since, "updated_until": until}
                yield _get(f"/api/v2/{path}", status=status, limit=50, **span)
                yield _get(
                    f"/api/v2/{path}", status=status, limit=50, sort_by="update_time", **span
                )
    for number in (*list(fake.deals)[:40], 1):
        yield _get(f"/v1/deals/{number}/flow", items="dealChange", all_changes=1, limit=500)
        yield _get(f"/v1/deals/{number}/flow", items="dealChange", all_changes=1, limit=1, start=1)
        yield _get(f"/v1/deals/{number}/flow")


def _seconds(span: Iterable[datetime]) -> list[str]:
    return [at.strftime("%Y-%m-%dT%H:%M:%SZ") for at in span]


def _hubspot(fake: CrmServer) -> Iterator[Call]:
    assert isinstance(fake, FakeHubspot)
    for kind in ("deals", "tickets", "calls", "meetings", "feedback_submissions", "companies"):
        for archived in ("true", "false"):
            yield _get(f"/crm/v3/objects/{kind}", archived=archived, limit=30)
        for span in _spans(instant(each.modified) for each in fake.objects[kind].values()):
            low, high = (str(round(each.timestamp() * 1000)) for each in span)
            for first in (0, 9_020):
                yield Call(
                    *(0, f"/crm/v3/objects/{kind}/search", {}, {}),
                    {
                        "filterGroups": [{"filters": [_between(low, high), _from(first)]}],
                        "properties": ["hs_object_id"],
                        "limit": 20,
                    },
                )
    for histories in (WITH_HISTORY, ()):
        yield Call(
            *(0, "/crm/v3/objects/deals/batch/read", {}, {}),
            {
                "properties": [*PROPERTIES[DEALS], "facility_code"],
                "propertiesWithHistory": histories,
                "inputs": [{"id": str(each)} for each in list(fake.deals)[:50]],
            },
        )


def _between(low: str, high: str) -> dict[str, str]:
    name = "hs_lastmodifieddate"
    return {"propertyName": name, "operator": "BETWEEN", "value": low, "highValue": high}


def _from(first: int) -> dict[str, str]:
    return {"propertyName": "hs_object_id", "operator": "GTE", "value": str(first)}


def _salesforce(fake: CrmServer) -> Iterator[Call]:
    assert isinstance(fake, FakeSalesforce)
    deals = ",".join(f"'{each}'" for each in list(fake.records["Opportunity"])[:20])
    for of, fields in OBJECTS.items():
        yield _query(fields, of)
        if "OpportunityId" in fields:
            yield _query(fields, of, f"OpportunityId IN ({deals})")
        if "SystemModstamp" not in fields:
            continue
        stamps = (each["SystemModstamp"] for each in fake.records[of].values())
        spans = _spans(datetime.fromisoformat(each) for each in stamps)
        for since, until in map(_seconds, spans):
            later = f"SystemModstamp >= {since} AND SystemModstamp < {until}"
            beyond = f"SystemModstamp > {since} OR Id > '0060000'"
            yield _query(fields, of, f"{later} AND ({beyond})", "SystemModstamp,Id")
    yield _query(("Id", "Account.Name", "Name"), "Opportunity", f"Id IN ({deals})")
    yield _query(("Id",), "Opportunity", "IsClosed = true OR CloseDate > 2026-01-01")


def _query(names: Iterable[str], of: str, condition: str = "", order: str = "Id") -> Call:
    where = ["WHERE", condition] if condition else []
    soql = ["SELECT", ",".join(names), "FROM", of, *where, "ORDER BY", order]
    return _get("/services/data/v66.0/queryAll", q=" ".join(soql))


def _keycrm(fake: CrmServer) -> Iterator[Call]:
    assert isinstance(fake, FakeKeycrm)
    parts = "products.offer,buyer,manager,marketing,custom_fields"
    yield _get("/v1/order", page=2)
    for status in (1, 51):
        yield _get("/v1/order", **{"filter[status_id]": status, "limit": 50, "include": parts})
    changes = (each["updated_at"] for each in fake.orders.values())
    for span in _spans(keycrm_instant(each) for each in changes if each is not None):
        written = ",".join(f"{each:%Y-%m-%d %H:%M:%S}" for each in span)
        for name in ("filter[updated_between]", "filter[created_between]"):
            yield _get("/v1/order", **{name: written, "sort": "id", "limit": 20})
            yield _get("/v1/order", **{name: written, "include": parts, "page": 2, "limit": 15})
            yield _get("/v1/order", **{name: written, "filter[status_id]": 51})
    yield _get("/v1/order", **{"filter[updated_between]": "yesterday"})


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (FakePipedrive, _pipedrive),
        (FakeHubspot, _hubspot),
        (FakeSalesforce, _salesforce),
        (FakeKeycrm, _keycrm),
    ],
)
def test_a_made_up_account_that_is_still_answers_as_before(kind: Any, calls: Any) -> None:
    fake = kind(3)
    fake.populate(150)
    asked = list(calls(fake))
    state = fake._random.getstate()
    moving = [_told(fake.answer(call)) for call in asked]
    fake.be_still()
    fake._random.setstate(state)
    for call, before in zip(asked, moving, strict=True):
        assert _told(fake.answer(call)) == before, call


def _told(reply: Reply) -> tuple[int, Any]:
    body = json.loads(reply.body) if isinstance(reply.body, bytes) else reply.body
    if isinstance(body, dict):
        # A query has a place of its own each time.
        body.pop("nextRecordsUrl", None)
    return reply.status, json.loads(json.dumps(body))
