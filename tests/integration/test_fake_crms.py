"""The made-up CRMs limit calls as their contracts say, and ``--no-limits`` takes that away."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import requests

from tests.fakes.crm_server import TOKEN, CrmServer
from tests.fakes.hubspot import FakeHubspot
from tests.fakes.keycrm import FakeKeycrm
from tests.fakes.pipedrive import FakePipedrive
from tests.fakes.salesforce import FakeSalesforce


def answers(fake: CrmServer, path: str, count: int, **question: object) -> list[requests.Response]:
    """What so many calls in a row are answered."""
    shown = {"Authorization": f"Bearer {fake.token}", "x-api-token": fake.token}
    with requests.Session() as session:
        session.headers.update(shown)
        how = "POST" if question else "GET"
        return [session.request(how, f"{fake.url}{path}", **question) for _ in range(count)]  # type: ignore[arg-type]  # json alone


@pytest.mark.parametrize(
    ("fake_crm", "path", "calls"),
    [
        (FakeHubspot, "/crm/v3/owners", 100),
        (FakePipedrive, "/api/v2/stages", 20),
        (FakeKeycrm, "/v1/order/status", 60),
    ],
)
def test_short_limits_are_those_of_the_contracts(
    fake_crm: type[CrmServer], path: str, calls: int
) -> None:
    with fake_crm() as fake:
        fake.limit = None
        assert {each.status_code for each in answers(fake, path, calls + 1)} == {200}
        fake.keep_limits()
        *allowed, last = answers(fake, path, calls + 1)
        assert {each.status_code for each in allowed} == {200}
        assert last.status_code == 429


def test_hubspot_counts_searches_apart_and_by_the_second() -> None:
    with FakeHubspot() as fake:
        fake.keep_limits()
        fake.properties["deals"].clear()
        asked = {
            "filterGroups": [
                {"filters": [{"propertyName": "hs_object_id", "operator": "GTE", "value": "0"}]}
            ],
            "properties": [],
        }
        *allowed, last = answers(fake, "/crm/v3/objects/deals/search", 6, json=asked)
        assert {each.status_code for each in allowed} == {200}
        assert (last.status_code, last.json()["policyName"]) == (429, "SECONDLY")
        assert "Retry-After" not in last.headers
        fake.calls_left = 1
        of_today, over = answers(fake, "/crm/v3/owners", 2)
        assert of_today.status_code == 200
        assert (over.status_code, over.json()["policyName"]) == (429, "DAILY")


def test_daily_budgets_run_out() -> None:
    with FakePipedrive() as fake:
        fake.keep_limits()
        assert fake.tokens_left == 30_000
        fake.tokens_left = 5
        first, second = answers(fake, "/api/v2/stages", 2)
        assert (first.status_code, second.status_code) == (200, 429)
        assert second.headers["x-daily-ratelimit-token-remaining"] == "0"
    with FakeSalesforce() as org:
        org.keep_limits()
        org.usage = (99_999, 100_000)
        first, second = answers(org, "/services/data/v66.0/sobjects/Lead/describe", 2)
        assert first.headers["Sforce-Limit-Info"] == "api-usage=100000/100000"
        assert (second.status_code, second.json()[0]["errorCode"]) == (
            *(403, "REQUEST_LIMIT_EXCEEDED"),
        )


def test_activities_of_a_made_up_organisation_did_not_all_change_just_now() -> None:
    with FakeSalesforce() as org:
        org.populate(200)
    hour_ago = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    for of in ("Task", "Event"):
        stamps = [each["SystemModstamp"] for each in org.records[of].values()]
        assert max(stamps) < hour_ago
        assert len({stamp[:7] for stamp in stamps}) > 4  # months


@contextmanager
def served(port: int, *options: str) -> Iterator[str]:
    """A made-up CRM of the command; gives where it answers."""
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "stageline", "fake-crm", "keycrm", "--deals", "1"),
            *("--port", str(port), *options),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert child.stdout is not None
        yield child.stdout.readline().partition(" answers at ")[2].partition(". In another")[0]
    finally:
        child.kill()
        child.communicate()


def test_the_command_keeps_to_limits_unless_it_is_told_not_to() -> None:
    for options, expected in (((), {200, 429}), (("--no-limits",), {200})):
        with served(28_417, *options) as url, requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {TOKEN}"
            found = {session.get(f"{url}/order/status").status_code for _ in range(61)}
        assert found == expected
