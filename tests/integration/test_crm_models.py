"""What models make of four CRMs, loaded into one database, is what the CRMs themselves know.

All expectations are computed from the truth of the fakes, none is read from the database; it tells
only which deals a load brought.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from psycopg import sql
from psycopg.rows import dict_row

from jobs.pipeline_export import export
from stageline import config
from stageline.database import connect
from tests import flow_oracle, kpi_oracle, orders_oracle
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.crm_loads import PROJECT, load_now, set_up
from tests.fakes.hubspot import STAGES, FakeHubspot, instant, read_moment
from tests.fakes.keycrm import FakeKeycrm
from tests.fakes.pipedrive import REGION, DealTruth, FakePipedrive
from tests.fakes.pipedrive import STAGES as STAGES_OF
from tests.fakes.salesforce import FakeSalesforce, Record
from tests.integration import test_flow_oracle, test_kpi_oracle, test_orders_oracle
from tests.orders_world import Event, Order, Project, Setting
from tests.warm_dbt import WarmDbt

AS_OF = datetime.now(UTC).replace(hour=15, minute=0, second=0, microsecond=0) - timedelta(days=20)
DAY = 86_400_000
#: That of the projects that `set_up` makes.
TIMEZONE = ZoneInfo("Europe/Kyiv")
CRMS = ("hubspot", "pipedrive", "salesforce")

HISTORY = (
    "pipeline_as_of",
    "sales_pipeline_daily",
    "sales_pipeline_changes",
    "pipeline_bridge",
    "stalled_deals",
    "close_date_pushes_by_rep",
)
#: Tables of the KPI oracle that deals and leads fill.
KPIS = ("pipeline_kpis", "weighted_pipeline_scenarios", "conversion_funnel", "cohort_retention")
FLOW = tuple(flow_oracle.GRAIN)
ORDERS = (
    "order_status_intervals",
    "orders_current",
    "order_cycle_metrics",
    "order_cancellations",
    "stage_time_by_period",
)
#: What stages mean, in turn; those of the last of each CRM's stages is not said.
MEANINGS = ("LEAD.GENERATED", "LEAD.RFQ_RECEIVED", "ORDER.RECEIVED", "PAYMENT.INVOICED")


class State(NamedTuple):
    """A deal as it was at some time; columns of ours, ``...`` of which the CRM's past is silent."""

    status: Any
    stage: Any
    amount: Any
    currency: Any = ...
    win_probability: Any = ...
    rep_id: Any = ...
    expected_close_date: Any = ...


#: Every deal's states, each from an instant on; None = it is not there.
Truth = dict[tuple[str, str], list[tuple[datetime, State | None]]]
#: Source and id of a deal -> stage, pipeline and instant of each entry, the first one first.
Entries = dict[tuple[str, str], list[tuple[str, str | None, datetime]]]
Rows = list[dict[str, Any]]

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
_PIPELINES = {each[0]: name for name, stages in STAGES.items() for each in stages}
_CHANCES = {each[0]: each[2] for stages in STAGES.values() for each in stages}
_OUTCOMES = {
    each[0]: {"1.0": "won", "0.0": "lost"}[each[2]] if each[3] else "open"
    for stages in STAGES.values()
    for each in stages
}


@dataclass(frozen=True)
class Crms:
    """The four accounts, and what loads saw of them that they know no more.

    Attributes:
        snapshots: Deal -> Salesforce's history of it, also of one that is deleted.
        seen: Order -> status, group and instant of each of its moves that a load saw; None = of one
            that had not moved yet.
        loaded: Source and id of the deals and leads that were loaded.
    """

    hubspot: FakeHubspot
    pipedrive: FakePipedrive
    salesforce: FakeSalesforce
    keycrm: FakeKeycrm
    snapshots: Mapping[str, list[Record]]
    seen: Mapping[int, list[tuple[str, str, datetime | None]]]
    loaded: frozenset[tuple[str, str]]


def read(query: LiteralString, *names: str) -> Rows:
    """The rows of a query; ``names`` stand in its braces."""
    text = sql.SQL(query).format(*map(sql.Identifier, names))
    with connect("owner") as session, session.cursor(row_factory=dict_row) as cursor:
        cursor.execute("set timezone to 'UTC'")
        return cursor.execute(text).fetchall()


@pytest.fixture(scope="module")
def crms(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Crms]:
    """Four CRMs in which much happens, in one database that was built as of a past date."""
    folder = short_folder / "crm_models"
    folder.mkdir()
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE),
        FakeHubspot(3) as hubspot,
        FakePipedrive(3) as pipedrive,
        FakeSalesforce(5) as salesforce,
        FakeKeycrm(3, limit=None) as keycrm,
    ):
        set_up(patch, "hubspot", hubspot)
        _live_hubspot(hubspot)
        set_up(patch, "pipedrive", pipedrive)
        _live_pipedrive(pipedrive)
        set_up(patch, "salesforce", salesforce)
        snapshots = _live_salesforce(salesforce)
        set_up(patch, "keycrm", keycrm)
        seen = _live_keycrm(keycrm)
        _settle()
        wanted = ("base_hubspot__activities", *HISTORY, *KPIS, *FLOW, *ORDERS)
        dbt.run(*(f"+{name}" for name in wanted), variables={"as_of": AS_OF.isoformat()})
        loaded = frozenset(
            (row["source_system"], row["id"])
            for row in read(
                "select source_system, opportunity_id as id from staging.stg_opportunities"
                " union all select source_system, lead_id from staging.stg_leads"
            )
        )
        yield Crms(hubspot, pipedrive, salesforce, keycrm, snapshots, seen, loaded)
    config.settings.cache_clear()


def _live_hubspot(fake: FakeHubspot) -> None:
    fake.populate(deals=60)
    fake.archive("companies", next(iter(fake.objects["companies"])))  # it keeps no name
    for number, deal in enumerate(list(fake.deals.values())):
        if number % 3 == 0:
            fake.set(deal, "amount", str(7 * number + 10))
    deals = list(fake.deals)
    fake.archive("deals", deals[0])
    fake.merge(deals[1], deals[2])
    load_now("hubspot")
    fake.delete_stage("900002")  # what was won there stays won
    load_now("hubspot")


def _live_pipedrive(fake: FakePipedrive) -> None:
    fake.populate(deals=60)
    _change_more(fake)
    _move_within_a_month(fake)
    _archive_one_before_and_one_after(fake)
    load_now("pipedrive")
    _delete_one_of_each(fake)
    load_now("pipedrive")


def _change_more(fake: FakePipedrive) -> None:
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


def _move_within_a_month(fake: FakePipedrive) -> None:
    """Of two deals that are to close in the month before AS_OF, one advances and one goes back."""
    last_day = AS_OF.astimezone(TIMEZONE).replace(day=1) - timedelta(days=1)
    for stages in (STAGES_OF[1], STAGES_OF[1][::-1]):
        deal = fake.create()
        deal.changes.clear()
        deal.added_at = last_day.replace(day=1).astimezone(UTC) - timedelta(days=9)
        deal.pipeline_id, deal.probability = 1, None
        deal.first_stage_id = deal.stage_id = stages[0]
        deal.expected_close_date = last_day.date()
        fake.update(deal, last_day.replace(day=15).astimezone(UTC), stage_id=stages[-1])


def _archive_one_before_and_one_after(fake: FakePipedrive) -> None:
    """Of the open deals that were there at AS_OF, one was put aside before it, one is after it."""
    for at in (AS_OF - timedelta(days=1), AS_OF + timedelta(days=1)):
        fake.archive(
            next(
                deal
                for deal in fake.deals.values()
                if _is_there(deal) and deal.status == "open" and deal.changes[-1].at < at
            ),
            at,
        )


def _delete_one_of_each(fake: FakePipedrive) -> None:
    """Of the deals that were there at AS_OF, one that is open, won, lost is deleted today."""
    for status in ("open", "won", "lost"):
        fake.delete(next(d for d in fake.deals.values() if _is_there(d) and d.status == status))


def _is_there(deal: DealTruth) -> bool:
    """Whether a deal was there at AS_OF, and has been since."""
    return deal.added_at < AS_OF and not deal.is_deleted and deal.archived_at is None


def _live_salesforce(fake: FakeSalesforce) -> dict[str, list[Record]]:
    fake.populate(deals=60)
    load_now("salesforce")
    deals = [deal for deal in fake.deals() if not deal["IsClosed"]]
    with fake.changing():
        fake.rename_stage("Closed Won", "Signed")  # what was won before stays won
        for deal in deals[:9]:
            fake.reassign(deal)
            fake.move(deal, "Signed" if deal["StageName"] == "Prospecting" else "Prospecting")
            fake.move(deal, "Signed")
        snapshots: dict[str, list[Record]] = defaultdict(list)
        for each in fake.records["OpportunityHistory"].values():
            snapshots[each["OpportunityId"]].append(each)
        fake.delete(deals[10])
        # One whose pipeline has not to be known.
        fake.purge("Opportunity", next(each for each in deals[11:] if not each["RecordTypeId"]))
    load_now("salesforce", is_full=True)
    for history in snapshots.values():
        history.sort(key=lambda each: (each["CreatedDate"], each["Id"]))
    return dict(snapshots)


def _live_keycrm(fake: FakeKeycrm) -> dict[int, list[tuple[str, str, datetime | None]]]:
    begun = datetime.now(UTC).replace(microsecond=0) - timedelta(days=80)
    for number in range(60):
        fake.add_order(number % 3, begun + timedelta(hours=number))
    seen: dict[int, list[tuple[str, str, datetime | None]]] = defaultdict(list)
    for step in range(1, 6):
        for order_id, order in fake.orders.items():
            at = None if len(fake.moves[order_id]) == 1 else fake.moves[order_id][-1][1]
            place = str(order["status_id"]), str(order["status_group_id"]), at
            if place not in seen[order_id]:
                seen[order_id].append(place)
        load_now("keycrm", is_full=True)
        if step < 5:
            for number, order_id in enumerate(fake.orders):
                if number % (step + 1) == 0:
                    fake.move(order_id, at=begun + timedelta(days=17 * step, minutes=number))
    return dict(seen)


_GROUPS = {str(n): kind for n, kind in enumerate(["open"] * 4 + ["done", "cancelled"], 1)}
_RULES = {
    "sla_stage_rules": [
        Setting(1, {"group_id": "2", "is_urgent": False, "limit_seconds": 1_000_000})
    ],
    "cycle_rules": [
        Setting(
            1,
            {
                "title": "Production",
                "is_default": True,
                "start_group_id": "2",
                "start_stage_id": None,
                "end_group_id": "5",
                "end_stage_id": None,
            },
        )
    ],
}


def _settle() -> None:
    """A map of the stages, what Pipedrive's field stands for, and rules for orders."""
    with connect("owner") as session:
        session.execute(
            "insert into settings.report_versions (report_version, state, published_at)"
            " values (1, 'published', now())"
        )
        for row in _stage_map():
            session.execute(
                "insert into settings.stage_map_scd"
                " (report_version, source_system, project_id, stage_id, sub_key, effective_from)"
                " values (%s, %s, %s, %s, %s, %s)",
                [row.report_version, *row.project, row.stage_id, row.sub_key, row.effective_from],
            )
        session.execute(
            "insert into settings.field_map values"
            " ('pipedrive', %s, 'deals', 'facility_id', 'Region'),"
            " ('hubspot', %s, 'deals', 'facility_id', 'facility_code')",
            [PROJECT, PROJECT],
        )
        for group, kind in _GROUPS.items():
            session.execute(
                "insert into settings.stage_group_dictionary"
                " (source_system, project_id, group_id, name, kind)"
                " values ('keycrm', %s, %s, %s, %s)",
                [PROJECT, group, f"Group {group} of {PROJECT}", kind],
            )
        for table, rules in _RULES.items():
            key = test_orders_oracle.NUMBERED[table]
            test_orders_oracle._insert(
                session,
                f"settings.{table}",
                [
                    {
                        "source_system": "keycrm",
                        "project_id": PROJECT,
                        key: rule.number,
                        **rule.values,
                        "effective_from": rule.since,
                    }
                    for rule in rules
                ],
            )


_STAGES: dict[str, dict[str, str | None]] = {
    "hubspot": dict(_PIPELINES),
    "pipedrive": {
        str(s): str(p) for p, stages in ((1, (11, 12, 13, 14)), (2, (21, 22, 23))) for s in stages
    },
    "salesforce": dict.fromkeys(
        (
            "Prospecting",
            "Qualification",
            "Negotiation/Review",
            "Closed Won",
            "Closed Lost",
            "Signed",
        )
    ),
}


def _stage_map() -> list[flow_oracle.MapRow]:
    return [
        flow_oracle.MapRow(
            *(1, (source, PROJECT), None, stage, MEANINGS[place % len(MEANINGS)]),
            *(datetime(1900, 1, 1, tzinfo=UTC), None),
        )
        for source, stages in _STAGES.items()
        for place, stage in enumerate([*stages][:-1])
    ]


# What the CRMs know


def of_hubspot(fake: FakeHubspot) -> Truth:
    """Every deal's states, by its properties' histories."""
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
                amount=_number(now["amount"] or None),
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
        values: list[tuple[datetime, State]] = []
        for change in reversed(changes):
            values.append((change.at, _state(fake, now)))
            now[change.field_key] = change.old
        values.append((deal.added_at, _state(fake, now)))
        states: list[tuple[datetime, State | None]] = [*values]
        if deal.status == "open" and deal.archived_at:
            # What was put aside is still what it was.
            states.insert(0, (deal.archived_at, values[0][1]._replace(status="archived")))
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
        amount=_number(values["value"]),
        currency=values["currency"],
        win_probability=Decimal(chance) / 100,
        rep_id=str(values["user_id"]),
        expected_close_date=date.fromisoformat(day) if isinstance(day, str) else day,
    )


def _number(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def of_salesforce(crms: Crms) -> Truth:
    """The same of Salesforce, which keeps a snapshot of each change."""
    fake = crms.salesforce
    labels = {each["ApiName"]: each["MasterLabel"] for each in _stages(fake)}
    found: Truth = {}
    for deal_id, snapshots in crms.snapshots.items():
        states: list[tuple[datetime, State | None]] = []
        for each in snapshots:
            stage = labels.get(each["StageName"], each["StageName"])
            outcome = _outcome(fake, each["StageName"])
            state = State(outcome, stage, _number(each["Amount"]))
            states.append((_at(each["CreatedDate"]), state))
        if fake.records["Opportunity"].get(deal_id, {"IsDeleted": True})["IsDeleted"]:
            states.append((datetime.now(UTC), None))
        found["salesforce", deal_id] = states
    return found


def _stages(fake: FakeSalesforce) -> list[Record]:
    return list(fake.records["OpportunityStage"].values())


def _outcome(fake: FakeSalesforce, stage: str) -> str:
    (of,) = (each for each in _stages(fake) if stage in (each["ApiName"], each["MasterLabel"]))
    return "won" if of["IsWon"] else "lost" if of["IsClosed"] else "open"


def _at(written: str) -> datetime:
    return datetime.fromisoformat(written.replace("+0000", "+00:00"))


def entries_of(crms: Crms) -> Entries:
    """Where each deal was, and since when; twice in a row in a stage is once.

    HubSpot's stages tell their pipelines, Pipedrive's deals that of the stage that they are in,
    Salesforce's deals theirs.
    """
    told: Entries = {}
    for deal_id, deal in crms.hubspot.deals.items():
        told["hubspot", str(deal_id)] = [
            (entry.value, _PIPELINES[entry.value], instant(entry.at))
            for entry in deal.history["dealstage"]
        ]
    for truth in crms.pipedrive.deals.values():
        moves = [change for change in truth.changes if change.field_key == "stage_id"]
        told["pipedrive", str(truth.deal_id)] = [
            (stage, str(truth.pipeline_id) if stage == str(truth.stage_id) else None, at)
            for stage, at in (
                (str(truth.first_stage_id), truth.added_at),
                *((str(change.new), change.at) for change in moves),
            )
        ]
    for opportunity_id, snapshots in crms.snapshots.items():
        is_of = crms.salesforce.records["Opportunity"].get(opportunity_id, {}).get("RecordTypeId")
        told["salesforce", opportunity_id] = [
            (each["StageName"], is_of, _at(each["CreatedDate"])) for each in snapshots
        ]
    found: Entries = {}
    for key, steps in told.items():
        if key in crms.loaded:
            stages = [None, *(stage for stage, _, _ in steps)]
            moved = [step for step, before in zip(steps, stages, strict=False) if step[0] != before]
            # Of two entries into a stage at one instant, one is kept.
            found[key] = list(
                {(stage, at): (stage, p, at) for stage, p, at in reversed(moved)}.values()
            )[::-1]
    return found


def deals_of(crms: Crms) -> list[dict[str, Any]]:
    """The deals as they are now, in the fields of files."""
    found = []
    for deal_id, deal in crms.hubspot.deals.items():
        has = deal.properties
        status = _OUTCOMES[has["dealstage"]]
        found.append(
            {
                "source_system": "hubspot",
                "opportunity_id": str(deal_id),
                "lead_id": None,
                "name": has["dealname"],
                "company": crms.hubspot.company_of(deal_id),
                "record_origin": f"deal {deal_id}",
                "expected_close_date": _day(read_moment(has["closedate"])),
                "facility_id": has["facility_code"] or None,
                "rep_id": has["hubspot_owner_id"],
                "status": status,
                "stage": _LABELS[has["dealstage"]],
                "amount": _number(has["amount"] or None),
                "currency": has["deal_currency_code"],
                "win_probability": Decimal(_CHANCES[has["dealstage"]]),
                "created_at": instant(read_moment(has["createdate"])),
                "closed_at": None if status == "open" else instant(read_moment(has["closedate"])),
                "updated_at": instant(deal.modified),
                "is_deleted": deal.archived is not None,
            }
        )
    regions = {1: "North", 2: "South", None: None}
    for truth in crms.pipedrive.deals.values():
        stage = crms.pipedrive.stages[truth.stage_id]
        chance = truth.probability or stage.probability
        put_aside_at = truth.archived_at if truth.status == "open" else None
        found.append(
            {
                "source_system": "pipedrive",
                "opportunity_id": str(truth.deal_id),
                "lead_id": None,
                "name": truth.title,
                "company": crms.pipedrive.organization_of(truth),
                "record_origin": f"deal {truth.deal_id}",
                "expected_close_date": truth.expected_close_date,
                "facility_id": regions[truth.custom_fields[REGION]],
                "rep_id": str(truth.owner_id),
                "status": "archived" if put_aside_at else truth.status,
                "stage": stage.name,
                "amount": _number(truth.value),
                "currency": truth.currency,
                "win_probability": Decimal(chance) / 100,
                "created_at": truth.added_at,
                "closed_at": put_aside_at or truth.closed_at,
                "updated_at": truth.updated_at,
                "is_deleted": truth.is_deleted,
            }
        )
    leads = {
        lead["ConvertedOpportunityId"]: lead["Id"]
        for lead in crms.salesforce.records["Lead"].values()
        if lead["IsConverted"] and ("salesforce", lead["Id"]) in crms.loaded
    }
    for record in crms.salesforce.records["Opportunity"].values():
        moved_at = record.get("LastStageChangeDate")
        found.append(
            {
                "source_system": "salesforce",
                "opportunity_id": record["Id"],
                "lead_id": leads.get(record["Id"]),
                "name": record["Name"],
                "company": "Acme",
                "record_origin": f"opportunity {record['Id']}",
                "expected_close_date": date.fromisoformat(record["CloseDate"]),
                "facility_id": None,
                "rep_id": record["OwnerId"],
                "status": _outcome(crms.salesforce, record["StageName"]),
                "stage": record["StageName"],
                "amount": _number(record["Amount"]),
                "currency": record["CurrencyIsoCode"],
                "win_probability": Decimal(str(record["Probability"])) / 100,
                "created_at": _at(record["CreatedDate"]),
                "closed_at": _at(moved_at) if record["IsClosed"] else None,
                "updated_at": _at(record["LastModifiedDate"]),
                "is_deleted": record["IsDeleted"],
            }
        )
    return [
        {**deal, "project_id": PROJECT}
        for deal in found
        if (deal["source_system"], deal["opportunity_id"]) in crms.loaded
    ]


def _day(moment: int) -> date:
    """The day on the clock of the projects."""
    return instant(moment).astimezone(ZoneInfo("Europe/Kyiv")).date()


def leads_of(crms: Crms, deals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Salesforce's leads: how far each is, is told by the deal that it became."""
    of = {deal["lead_id"]: deal for deal in deals if deal["lead_id"]}
    found = []
    for lead in crms.salesforce.records["Lead"].values():
        if ("salesforce", lead["Id"]) not in crms.loaded:
            continue
        deal = of.get(lead["Id"], {})
        created_at, converted_at = _at(lead["CreatedDate"]), None
        if lead["IsConverted"]:
            day = datetime.combine(date.fromisoformat(lead["ConvertedDate"]), time(), UTC)
            converted_at = max(created_at, day)
        status = deal.get("status")
        closed_at = deal.get("closed_at")
        found.append(
            {
                "source_system": "salesforce",
                "project_id": PROJECT,
                "lead_id": lead["Id"],
                "facility_id": None,
                "rep_id": lead["OwnerId"],
                "stage": {None: "sql" if converted_at else "lead", "open": "opportunity"}.get(
                    status, status
                ),
                "amount": deal.get("amount"),
                "currency": deal.get("currency"),
                "win_probability": deal.get("win_probability"),
                "created_at": created_at,
                "sql_at": converted_at,
                "opportunity_at": converted_at if deal else None,
                "won_at": closed_at if status == "won" else None,
                "lost_at": closed_at if status == "lost" else None,
                "updated_at": _at(lead["LastModifiedDate"]),
                "is_deleted": lead["IsDeleted"],
            }
        )
    return found


# Opportunities and their changes as they are told


def test_deals_are_told_as_the_crms_have_them(crms: Crms) -> None:
    columns = (
        *("lead_id", "facility_id", "rep_id", "stage", "status", "amount", "currency"),
        *("win_probability", "created_at", "closed_at", "updated_at", "name", "company"),
        *("expected_close_date", "record_origin"),
    )
    deals = {(deal["source_system"], deal["opportunity_id"]): deal for deal in deals_of(crms)}
    assert {source for source, _ in deals} == {*CRMS}
    for source in CRMS:
        found = {
            row["opportunity_id"]: row
            for row in read("select * from staging.{}", f"base_{source}__opportunities")
        }
        there = {i: row for i, row in found.items() if not row["is_deleted"]}
        known = {i: deal for (of, i), deal in deals.items() if of == source}
        assert there.keys() == {i for i, deal in known.items() if not deal["is_deleted"]}, source
        assert len(there) < len(found), source
        for opportunity_id, row in there.items():
            said = {name: row[name] for name in columns}
            deal = known[opportunity_id]
            assert said == {name: deal[name] for name in columns}, (source, opportunity_id)


def test_hubspots_activities_know_their_deal(crms: Crms) -> None:
    found = read("select activity_id, opportunity_id from staging.base_hubspot__activities")
    kinds = {"call": "calls", "meeting": "meetings"}
    for row in found:
        kind, _, number = row["activity_id"].partition(" ")
        about = crms.hubspot.linked[kinds[kind], int(number), "deals"]
        assert row["opportunity_id"] == (str(about[0]) if about else None), row
    assert len({row["opportunity_id"] for row in found}) > 2


def test_entries_into_stages_are_those_of_the_truth(crms: Crms) -> None:
    entries = entries_of(crms)
    found: Entries = defaultdict(list)
    for row in read(
        "select * from staging.stg_stage_events where entity_type = 'deal'"
        " order by entered_at, source_sequence"
    ):
        key = row["source_system"], row["entity_id"]
        before = found[key][-1][0] if found[key] else None
        assert row["previous_stage_id"] == before or row["previous_stage_id"] is None
        if key[0] == "pipedrive":
            assert row["source_sequence"] == len(found[key])
        found[key].append((row["stage_id"], row["pipeline_id"], row["entered_at"]))
    assert found == entries


@pytest.fixture(scope="module")
def changes(crms: Crms) -> Mapping[tuple[str, str, str], Rows]:
    """Source, deal and field -> its changes as they are told, in the order of time."""
    assert crms
    found = defaultdict(list)
    for row in read(
        "select * from staging.stg_value_changes where entity_type = 'deal'"
        " order by changed_at, ingested_at, old_value is not null"
    ):
        found[row["source_system"], row["entity_id"], row["field"]].append(row)
    return found


def test_changes_of_values_lead_from_the_first_to_what_is_there_now(
    crms: Crms, changes: Mapping[tuple[str, str, str], Rows]
) -> None:
    told = entries_of(crms)
    for deal in deals_of(crms):
        key = deal["source_system"], deal["opportunity_id"]
        if deal["is_deleted"]:
            continue
        last = {
            field: changes[*key, field][-1]["new_value"]
            for field in ("stage", "owner", "status", "amount", "expected_close_date")
            if (*key, field) in changes
        }
        entries = told[key]
        assert (last["stage"], last["owner"]) == (entries[-1][0], deal["rep_id"]), key
        assert last["status"] == deal["status"], key
        assert changes[*key, "stage"][0]["old_value"] is None
        if deal["amount"] is not None:
            assert Decimal(last["amount"]) == deal["amount"], key
        if deal["expected_close_date"] is not None and deal["source_system"] != "hubspot":
            assert last["expected_close_date"] == str(deal["expected_close_date"]), key


def test_each_change_of_an_amount_at_pipedrive_is_told(
    crms: Crms, changes: Mapping[tuple[str, str, str], Rows]
) -> None:
    for deal in crms.pipedrive.deals.values():
        key = "pipedrive", str(deal.deal_id)
        if key not in crms.loaded:
            continue
        changed = [change for change in deal.changes if change.field_key == "value"]
        first = changed[0].old if changed else deal.value
        assert [
            (_number(row["old_value"]), _number(row["new_value"]), row["changed_at"])
            for row in changes[*key, "amount"]
        ] == [
            (None, _number(first), deal.added_at),
            *((_number(each.old), _number(each.new), each.at) for each in changed),
        ]
        moves = [change for change in deal.changes if change.field_key == "stage_id"]
        assert len(changes[*key, "stage"]) == 1 + len(moves)


# The pipeline of past dates


@pytest.fixture(scope="module")
def truth(crms: Crms) -> Truth:
    """What each deal has ever been."""
    return of_hubspot(crms.hubspot) | of_pipedrive(crms.pipedrive) | of_salesforce(crms)


def at(states: list[tuple[datetime, State | None]], moment: datetime) -> State | None:
    """The state of a deal at an instant."""
    past = [state for since, state in states if since <= moment]
    return past[-1] if past else None


def state_of(row: dict[str, Any], truth: State) -> State:
    """The state that a row of a model tells of, as far as the truth does."""
    return State(
        **{name: ... if known is ... else row[name] for name, known in truth._asdict().items()}
    )


def test_each_deal_is_what_it_was_at_that_instant(crms: Crms, truth: Truth) -> None:
    rows = {
        (row["source_system"], row["opportunity_id"]): row
        for row in read("select * from kpis.pipeline_as_of")
    }
    states = {key: at(truth[key], AS_OF) for key in crms.loaded if key in truth}
    there = {key: state for key, state in states.items() if state is not None}
    assert rows.keys() == there.keys()
    closed = {"won": Decimal(1), "lost": Decimal(0), "archived": Decimal(0)}
    for key, state in there.items():
        chance = ... if state.win_probability is ... else closed.get(state.status)
        expected = state if chance is None else state._replace(win_probability=chance)
        assert state_of(rows[key], expected) == expected, key
    assert {row["status"] for key, row in rows.items() if key[0] == "pipedrive"} == {
        *("open", "won", "lost", "archived")
    }
    for source in CRMS:
        changed = sum(
            state != truth[key][-1][1] for key, state in there.items() if key[0] == source
        )
        assert changed > 5, source


def test_versions_are_the_states_one_after_the_other(truth: Truth) -> None:
    versions = read("select * from intermediate.int_opportunity_versions")
    for row in versions:
        states = truth[row["source_system"], row["opportunity_id"]]
        state = [each for since, each in states if since <= row["valid_from"] and each][-1]
        assert state is not None
        assert state_of(row, state) == state, row
    assert len(versions) > len(truth)


def test_days_and_changes_agree_with_the_pipeline(crms: Crms) -> None:
    assert crms
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
    names = {"hubspot": "Rep", "pipedrive": "User"}
    assert {lead["source"] for lead in leads} == {*CRMS}
    for lead in leads:
        state = at(truth[lead["source"], lead["id"]], AS_OF)
        assert state is not None
        if lead["source"] in names:
            assert lead["owner"] == f"{names[lead['source']]} {state.rep_id}"
        created_at, updated_at = (
            datetime.fromisoformat(lead[name]) for name in ("created_at", "updated_at")
        )
        assert created_at <= updated_at <= AS_OF


def test_a_month_tells_of_deals_that_came_nearer_or_went_back(crms: Crms) -> None:
    assert crms
    (found,) = read(
        "select sum(advanced_opportunities) as advanced, sum(moved_back_opportunities) as back"
        " from kpis.pipeline_bridge where source_system = 'pipedrive'"
    )
    assert found["advanced"] > 0
    assert found["back"] > 0


# KPIs


@pytest.fixture(scope="module")
def kpis(crms: Crms) -> Mapping[str, kpi_oracle.Table]:
    """The tables as the oracle makes them of the truth."""
    deals = deals_of(crms)
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    records |= {"opportunities": deals, "leads": leads_of(crms, deals)}
    projects = tuple(kpi_oracle.Project(source, PROJECT, "Europe/Kyiv", "EUR") for source in CRMS)
    return kpi_oracle.kpis(kpi_oracle.World(AS_OF, projects, records))


@pytest.mark.parametrize("name", KPIS)
def test_every_cell_of_the_kpis_is_what_the_truth_makes(
    name: str, crms: Crms, kpis: Mapping[str, kpi_oracle.Table]
) -> None:
    assert crms
    assert kpis[name]
    found = read("select * from kpis.{}", name)
    assert test_kpi_oracle.differences(name, kpis[name], found)[:12] == []


# Flow


@pytest.fixture(scope="module")
def flow(crms: Crms) -> Mapping[str, flow_oracle.Table]:
    """The tables as the oracle makes them of the truth."""
    deals = {(deal["source_system"], deal["opportunity_id"]): deal for deal in deals_of(crms)}
    events = [
        flow_oracle.Event(
            *((source, PROJECT), "deal", deal_id, stage, at),
            pipeline_id=pipeline,
            previous_stage_id=steps[place - 1][0] if place else None,
            created_at=deals[source, deal_id]["created_at"] if (source, deal_id) in deals else at,
            sequence=place,
        )
        for (source, deal_id), steps in entries_of(crms).items()
        for place, (stage, pipeline, at) in enumerate(steps)
    ]
    world = flow_oracle.World(
        as_of=AS_OF,
        projects=tuple(
            flow_oracle.Project(
                (source, PROJECT),
                "Europe/Kyiv",
                stages={i: flow_oracle.Stage(pipeline, None) for i, pipeline in stages.items()},
            )
            for source, stages in _STAGES.items()
        ),
        versions=(1,),
        stage_map=tuple(_stage_map()),
        events=tuple(events),
        deletions=tuple(
            (("pipedrive", PROJECT), "deal", str(deal.deal_id), "deleted", deal.deleted_at)
            for deal in crms.pipedrive.deals.values()
            if deal.deleted_at is not None
        ),
        days=((AS_OF - timedelta(days=500)).date(), (AS_OF + timedelta(days=30)).date()),
    )
    return flow_oracle.Flow(world).tables()


@pytest.mark.parametrize("name", FLOW)
def test_every_cell_of_flow_is_what_the_truth_makes(
    name: str, crms: Crms, flow: Mapping[str, flow_oracle.Table]
) -> None:
    assert crms
    schema = "intermediate" if name.startswith("int_") else "kpis"
    rows = read("select * from {}.{}", schema, name)
    rows = [row for row in rows if row.get("source_system") != "keycrm"]
    compare(flow_oracle.GRAIN[name], flow[name], rows, test_flow_oracle.NOT_COMPARED)


def compare(
    grain: tuple[str, ...], expected: Mapping[Any, Any], found: Rows, aside: set[str]
) -> None:
    """Every cell of a table, but of some columns."""
    assert expected
    rows = {tuple(row[column] for column in grain): row for row in found}
    lines = [f"{key}: row is missing" for key in expected.keys() - rows.keys()]
    lines += [f"{key}: row is not expected" for key in rows.keys() - expected.keys()]
    for key in expected.keys() & rows.keys():
        said = {c: v for c, v in rows[key].items() if c not in (*grain, *aside)}
        lines += [
            f"{key} {column}: expected {expected[key][column]}, got {value}"
            for column, value in said.items()
            if value != expected[key][column]
        ]
    assert lines[:12] == [], len(lines)


# Orders


@pytest.fixture(scope="module")
def orders(crms: Crms) -> Mapping[str, orders_oracle.Table]:
    """The tables as the oracle makes them of what loads saw of the truth."""
    shop = crms.keycrm
    listed = {str(i): s for i, s in shop.statuses.items() if s["is_active"]}
    project = Project(
        PROJECT,
        "Europe/Kyiv",
        groups=_GROUPS,
        stages={i: str(status["group_id"]) for i, status in listed.items()},
        rules=_RULES,
    )
    for order_id, seen in crms.seen.items():
        created_at = shop.moves[order_id][0][1]
        project.orders.append(
            Order(
                str(order_id),
                [
                    Event(
                        status,
                        group,
                        moved_at or created_at,
                        created_at=None if moved_at else created_at,
                    )
                    for status, group, moved_at in seen
                ],
            )
        )
    return orders_oracle.tables([project], AS_OF)


@pytest.mark.parametrize("name", ORDERS)
def test_every_cell_of_the_order_kpis_is_what_the_truth_makes(
    name: str, crms: Crms, orders: Mapping[str, orders_oracle.Table]
) -> None:
    found = read("select * from kpis.{}", name)
    names = {column for row in found for column in row if column.endswith("_name")}
    compare(
        test_orders_oracle.GRAIN[name],
        orders[name],
        found,
        {*test_orders_oracle.ASIDE, "delivery_id", *names},
    )
    for row in found:
        if "status_name" in row:
            assert row["status_name"] == crms.keycrm.statuses[int(row["status_id"])]["name"]
