"""Cases of Salesforce with what belongs to them: who answered when, and the figures made of it."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from psycopg import sql
from psycopg.rows import dict_row

from jobs.build import build
from loaders.records import Table
from loaders.salesforce import SOURCE
from loaders.salesforce_tables import (
    CASE_COMMENTS,
    CASE_EMAILS,
    CASE_HISTORY,
    CASE_STATUSES,
    CASES,
)
from stageline import config
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.crm_loads import PROJECT, SEEDS, load_now, rows, set_up
from tests.fakes.salesforce import CASE_STATUSES as NAMES
from tests.fakes.salesforce import FakeSalesforce, Record
from tests.flow_database import dbt_project

CRM = "salesforce"

#: What belongs to cases: table, object, and the fields of id and case.
OF_CASES = (
    (CASE_HISTORY, "CaseHistory", "CaseId"),
    (CASE_EMAILS, "EmailMessage", "ParentId"),
    (CASE_COMMENTS, "CaseComment", "ParentId"),
)
MODELS = (
    "docs.md",
    "staging/entity_fields.md",
    "staging/base/settings/_settings__sources.yml",
    "staging/base/settings/base_settings__projects.sql",
    "staging/base/settings/base_settings__field_map.sql",
    "staging/base/settings/base_settings__waiting_stages.sql",
    "staging/base/files/_files__sources.yml",
    "staging/base/files/base_files__tickets.sql",
    "staging/base/sample/base_sample__tickets.sql",
    "staging/base/hubspot/hubspot_fields.md",
    "staging/base/hubspot/_hubspot__sources.yml",
    "staging/base/hubspot/base_hubspot__tickets.sql",
    "staging/base/salesforce/_salesforce__sources.yml",
    "staging/base/salesforce/base_salesforce__case_visits.sql",
    "staging/base/salesforce/base_salesforce__case_answers.sql",
    "staging/base/salesforce/base_salesforce__tickets.sql",
    "staging/stg_projects.sql",
    "staging/stg_tickets.sql",
    "kpis/service/fct_tickets.sql",
    "kpis/service/ticket_sla_compliance.sql",
)
#: Hours to the first answer and to the resolution, by priority (dictionary of KPIs).
TARGETS = {"critical": (1, 4), "high": (2, 24), "medium": (4, 72), "low": (8, 120)}


@pytest.fixture(scope="module", autouse=True)
def of_module(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One database for the module; each test empties it."""
    folder = tmp_path_factory.mktemp("cases")
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        yield
    config.settings.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSalesforce]:
    """An organisation of cases, of which loads bring nothing else."""
    wanted = {"users", "cases", "case statuses", "case history", "case emails", "case comments"}
    resources = tuple(each for each in SOURCE.resources if each.name in wanted)
    sweeps = tuple(each for each in SOURCE.sweeps if each.table in (CASES, CASE_STATUSES))
    monkeypatch.setattr(
        "loaders.salesforce.SOURCE", replace(SOURCE, resources=resources, sweeps=sweeps)
    )
    with connect("owner") as session:
        session.execute("truncate settings.projects, ops.load_positions, ops.api_pace cascade")
        for table in SOURCE.tables:
            session.execute(
                sql.SQL("truncate {}").format(sql.Identifier(table.dataset, table.name))
            )
    with FakeSalesforce(seed=3) as organisation:
        organisation.page_size = 20
        for _ in range(40):
            organisation.live_through(organisation.add_case(some_days_ago()))
        set_up(monkeypatch, CRM, organisation)
        yield organisation


def some_days_ago(days: int = 9) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)


def assert_loaded(fake: FakeSalesforce) -> None:
    """All cases are there, and all that belongs to them."""
    cases = {row["case_id"]: row for row in rows(CASES)}
    assert {key: (row["status"], row["is_closed"]) for key, row in cases.items()} == {
        case["Id"]: (case["Status"], case["IsClosed"]) for case in fake.records["Case"].values()
    }
    for table, of, parent in OF_CASES:
        found = {(row[table.key[0]], row["case_id"]) for row in rows(table)}
        there = fake.records[of].values()
        assert found == {(each["Id"], each[parent]) for each in there if each[parent]}


def written(table: Table) -> dict[str, str]:
    return {row[table.key[0]]: row["written_by"] for row in rows(table)}


def test_what_is_said_of_a_case_arrives_though_the_case_does_not_change(
    fake: FakeSalesforce,
) -> None:
    load_now(CRM)
    assert_loaded(fake)
    assert {"New", "On Hold", "Working", "Closed"} == {
        r["status_name"] for r in rows(CASE_STATUSES)
    }
    before = {table.name: written(table) for table, *_ in OF_CASES}
    columns = set(rows(CASE_EMAILS)[0]) | set(rows(CASE_COMMENTS)[0])
    assert not {"subject", "body", "text_body", "comment_body", "from_address"} & columns

    cases = list(fake.records["Case"].values())
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    fake.send_email(cases[0], at)
    fake.comment(cases[1], at, fake.customer["Id"])
    fake.send_email({"Id": None, "OwnerId": cases[0]["OwnerId"]}, at)  # about no case
    fake.set_status(cases[2], "Working" if cases[2]["Status"] != "Working" else "Closed")
    fake.page_size = 2_000
    fake.calls.clear()
    load_now(CRM)
    assert_loaded(fake)
    # The organisation takes one call, users, cases and statuses two each, history two, emails and
    # comments three; what belongs to the changed case one each.
    assert len(fake.calls) == 1 + 6 + 2 + 3 + 3 + 3
    after = {table.name: written(table) for table, *_ in OF_CASES}
    for name, rows_before in before.items():
        assert {key: after[name][key] for key in rows_before} == rows_before, name


def test_an_old_case_that_is_opened_again_comes_with_all_of_its_past(fake: FakeSalesforce) -> None:
    case = fake.add_case(some_days_ago(300))
    fake.send_email(case, some_days_ago(299))
    fake.set_status(case, "Closed", some_days_ago(298))
    load_now(CRM)
    assert case["Id"] not in {row["case_id"] for row in rows(CASES)}
    fake.set_status(case, "Working")
    load_now(CRM)
    assert_loaded(fake)


def test_a_right_that_comes_later_brings_all_that_it_opens(fake: FakeSalesforce) -> None:
    fake.absent |= {"EmailMessage", "CaseHistory"}
    done = load_now(CRM)
    assert set(done.left_out) == {"case emails", "case history"}
    assert rows(CASE_EMAILS) == []
    missed = fake.add_case(some_days_ago())  # known to a list of all ids alone
    fake.comment(missed, some_days_ago(8), missed["OwnerId"])
    with connect("owner") as session:
        session.execute("delete from ops.load_positions where resource like 'sweep%'")
    load_now(CRM)
    assert missed["Id"] in {row["case_id"] for row in rows(CASE_COMMENTS)}
    fake.absent.clear()
    assert load_now(CRM).left_out == {}
    assert_loaded(fake)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_order_of_events_all_of_them_are_there(fake: FakeSalesforce, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(5):
        with fake.changing():
            for case in dice.sample(list(fake.records["Case"].values()), 6):
                at = datetime.now(UTC) - timedelta(seconds=dice.randrange(2, 300))
                match dice.randrange(4):
                    case 0:
                        fake.set_status(case, dice.choice(NAMES)[0])
                    case 1:
                        fake.send_email(case, at.replace(microsecond=0))
                    case 2:
                        fake.comment(case, at.replace(microsecond=0), case["OwnerId"])
                    case _:
                        fake.add_case()
        if dice.random() < 0.4:
            fake.usage = (0, dice.randrange(8, 20))  # it stops somewhere
        load_now(CRM)
        fake.usage = (0, 10**6)
        with connect("owner") as session:
            session.execute("truncate ops.api_pace")
    assert load_now(CRM).stopped is None
    assert_loaded(fake)


def expected_of(fake: FakeSalesforce, case: Record) -> dict[str, Any]:
    """What the ticket of a case is, by the truth."""
    created_at = instant(case["CreatedDate"])
    changes = sorted(
        (each for each in fake.records["CaseHistory"].values() if each["CaseId"] == case["Id"]),
        key=lambda each: (each["CreatedDate"], each["Id"]),
    )
    statuses = [(created_at, changes[0]["OldValue"])] if changes else []
    statuses += [(instant(each["CreatedDate"]), each["NewValue"]) for each in changes]
    closings = [at for at, status in statuses if status == "Closed"]
    resolved_at = closings[0] if closings else None
    answers = [
        instant(each["MessageDate"])
        for each in fake.records["EmailMessage"].values()
        if each["ParentId"] == case["Id"] and not each["Incoming"] and each["Status"] != "5"
    ] + [
        instant(each["CreatedDate"])
        for each in fake.records["CaseComment"].values()
        if each["ParentId"] == case["Id"]
        and each["IsPublished"]
        and each["CreatedById"] != fake.customer["Id"]
    ]
    counted = [at for at in answers if at >= created_at and (not resolved_at or at <= resolved_at)]
    waited, waiting_since = 0, None
    for (at, status), follows in zip_longest(statuses, statuses[1:]):
        if status == "On Hold" and (resolved_at is None or at < resolved_at):
            if follows is None:
                waiting_since = at
            else:
                waited += int((follows[0] - at).total_seconds())
    return {
        "priority": (case["Priority"] or "medium").lower(),
        "created_at": created_at,
        "first_response_at": min(counted, default=None),
        "first_resolved_at": resolved_at,
        "last_resolved_at": instant(case["ClosedDate"] or f"{closings[-1].isoformat()}")
        if closings
        else None,
        "waiting_since": waiting_since,
        "waiting_seconds": waited,
    }


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("+0000", "+00:00"))


def met(ticket: dict[str, Any], now: datetime) -> tuple[bool | None, bool | None]:
    """Whether a ticket met its targets; None where that is open."""
    hours = TARGETS[ticket["priority"]]
    resolved_at, waited = ticket["first_resolved_at"], timedelta(seconds=ticket["waiting_seconds"])
    ran = (ticket["waiting_since"] or now) - ticket["created_at"] - waited

    def judged(took: timedelta | None, limit: timedelta) -> bool | None:
        if took is None:
            return False if ran > limit else None
        return took <= limit

    answered_at = ticket["first_response_at"] or resolved_at
    return (
        judged(answered_at and answered_at - ticket["created_at"], timedelta(hours=hours[0])),
        judged(
            resolved_at and resolved_at - ticket["created_at"] - waited, timedelta(hours=hours[1])
        ),
    )


def test_figures_of_tickets_are_made_of_salesforce_alone(
    fake: FakeSalesforce, tmp_path: Path
) -> None:
    load_now(CRM)
    with connect("owner") as session:
        session.execute(
            "insert into settings.waiting_stages (source_system, project_id, stage_id)"
            " values (%s, %s, 'On Hold')",
            [CRM, PROJECT],
        )
    project = dbt_project(tmp_path / "dbt", MODELS)
    for seed in ("reference/ticket_sla_targets", "sample/sample_tickets"):
        copy(PROJECT_ROOT / "seeds" / f"{seed}.csv", project / "seeds")
    now = datetime.now(UTC).replace(microsecond=0)
    build(project=project, target_path=tmp_path / "target", as_of=now)
    expected = {key: expected_of(fake, case) for key, case in fake.records["Case"].items()}
    with connect("transformer") as session, session.cursor(row_factory=dict_row) as cursor:
        tickets = {
            row["ticket_id"]: row
            for row in cursor.execute("select * from intermediate.stg_tickets").fetchall()
        }
        sums = cursor.execute(
            "select sum(tickets)::int as tickets, sum(first_responses_judged)::int as judged,"
            " sum(first_responses_met)::int as answered_in_time,"
            " sum(resolutions_met)::int as resolved_in_time, sum(resolutions_judged)::int as ended"
            " from intermediate.ticket_sla_compliance"
        ).fetchone()
    for key, ticket in expected.items():
        assert {name: tickets[key][name] for name in ticket} == ticket, json.dumps(
            fake.records["Case"][key]
        )
    told = [met(ticket, now) for ticket in expected.values()]
    answers, resolutions = Counter(each[0] for each in told), Counter(each[1] for each in told)
    assert all(answers[result] for result in (True, False))  # or the sums would say nothing
    assert all(resolutions[result] for result in (True, False))
    assert sums == {
        "tickets": len(expected),
        "judged": answers[True] + answers[False],
        "answered_in_time": answers[True],
        "ended": resolutions[True] + resolutions[False],
        "resolved_in_time": resolutions[True],
    }
