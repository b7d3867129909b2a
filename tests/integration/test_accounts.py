"""Who may send, as a receiver knows it: from the database, from its spool, or not at all."""

from pathlib import Path

import pytest

from stageline.settings import projects
from tests.receivers import let_in, use_key
from webhook_receiver.accounts import Accounts, closed_projects, open_endpoints
from webhook_receiver.session import connected
from webhook_receiver.spool import Spool

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    use_key(monkeypatch)
    return Spool(tmp_path / "spool.sqlite", 1024 * 1024)


def read_from_the_database(spool: Spool) -> Accounts:
    accounts = Accounts(spool)
    with connected() as session:
        accounts.refresh(session)
    return accounts


def test_a_project_without_a_check_is_told_and_lets_nobody_in(spool: Spool) -> None:
    let_in("keycrm", "shop")
    projects.add("pipedrive", "sales")
    accounts = read_from_the_database(spool)
    assert open_endpoints(accounts) == ["keycrm/shop by token"]
    assert closed_projects(accounts) == ["pipedrive/sales"]
    account = accounts.find("pipedrive", "sales")
    assert account is not None
    assert account.checks == ()


def test_they_are_known_from_the_spool_before_the_database_is_there(spool: Spool) -> None:
    assert not Accounts(spool).are_known
    let_in("keycrm", "shop", timezone="Europe/Kyiv")
    read = read_from_the_database(spool)
    remembered = Accounts(spool)
    assert remembered.are_known
    assert list(remembered) == list(read)


def test_a_secret_under_another_key_makes_nobody_pass_and_is_no_fault_of_the_sender(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in("keycrm", "shop")
    let_in("keycrm", "other")
    use_key(monkeypatch)
    account = read_from_the_database(spool).find("keycrm", "shop")
    assert account is not None
    assert account.checks is None


def test_zapier_needs_no_project_while_there_is_one(spool: Spool) -> None:
    let_in("zapier", "sales")
    projects.add("pipedrive", "without-a-check")
    accounts = read_from_the_database(spool)
    account = accounts.find("zapier", None)
    assert account is not None
    assert account.project_id == "sales"
    let_in("zapier", "more")
    assert read_from_the_database(spool).find("zapier", None) is None
