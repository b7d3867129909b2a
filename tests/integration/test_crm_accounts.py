"""Which account a load is about, and what is said where there is none."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from loaders.accounts import chosen
from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts, projects
from tests.receivers import use_key

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    yield
    config.settings.cache_clear()


def set_variables(patch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        patch.setenv(f"SALES_PIPELINE_{name.upper()}", value)
    config.settings.cache_clear()


def test_without_an_account_it_says_how_to_set_one_up() -> None:
    with pytest.raises(StagelineError, match=r"No account of hubspot .*SALES_PIPELINE_SOURCE"):
        chosen("hubspot", None)
    with pytest.raises(StagelineError, match="stageline projects add hubspot shop"):
        chosen("hubspot", "shop")


def test_stored_accounts_are_all_loaded_or_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_key(monkeypatch)
    for project in ("east", "west"):
        projects.add("hubspot", project)
        api_accounts.store("hubspot", project, f"token-{project}", "https://crm.example.com", 2.5)
    assert [each.project_id for each in chosen("hubspot", None)] == ["east", "west"]
    (west,) = chosen("hubspot", "west")
    assert west.account == api_accounts.ApiAccount("https://crm.example.com", "token-west", 2.5)
    with pytest.raises(StagelineError, match=r"for project north\. There are: east, west"):
        chosen("hubspot", "north")


def test_the_variables_describe_an_account_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(
        monkeypatch,
        source="hubspot",
        api_key=" pat-1 ",
        endpoint="https://api.hubspot.com/crm/v3/objects/deals",
    )
    (found,) = chosen("hubspot", None)
    assert (found.project_id, found.account.base_url) == ("default", "https://api.hubspot.com")
    assert found.account.token == "pat-1"
    assert "pat-1" not in repr(found)
    with pytest.raises(StagelineError, match="No account of keycrm"):
        chosen("keycrm", None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "hubspot"}, "SALES_PIPELINE_API_KEY is not set"),
        ({"source": "hubspot", "api_key": "  "}, "SALES_PIPELINE_API_KEY is not set"),
        ({"source": "hubspot", "api_key": "pat\n1"}, "SALES_PIPELINE_API_KEY .* cannot have"),
        ({"source": "hubspot", "api_key": "päт"}, "SALES_PIPELINE_API_KEY .* cannot have"),
        ({"source": "sugar", "api_key": "x"}, "'sugar', which is no source. There are: .*hubspot"),
        ({"source": "demo", "api_key": "x"}, "'demo', which is no source"),
        (
            {"source": "hubspot", "api_key": "x", "endpoint": "crm.example.com"},
            "The base URL has to look like",
        ),
    ],
)
def test_variables_that_do_not_fit_are_one_line(
    values: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables(monkeypatch, **values)
    with pytest.raises(StagelineError, match=message):
        chosen("hubspot", None)
    with connect("owner") as session:
        assert session.execute("select count(*) from settings.projects").fetchone() == (0,)


def test_the_variables_count_only_without_a_stored_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_key(monkeypatch)
    set_variables(monkeypatch, source="hubspot", api_key="pat-1")
    projects.add("hubspot", "main")
    api_accounts.store("hubspot", "main", "pat-1")
    assert [each.project_id for each in chosen("hubspot", None)] == ["main"]
    assert [each.project_id for each in chosen("hubspot", "default")] == ["default"]
    set_variables(monkeypatch, source="demo")
    assert [each.project_id for each in chosen("hubspot", None)] == ["main"]


def run(*words: str) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.output


def test_fields_of_the_crm_are_named_listed_and_forgotten() -> None:
    projects.add("hubspot", "main")
    assert "has no fields" in run("settings", "fields", "list", "hubspot", "main")
    run("settings", "fields", "set", "hubspot", "main", "deals", "facility_id", "office")
    run("settings", "fields", "set", "hubspot", "main", "deals", "facility_id", "branch")
    listed = run("settings", "fields", "list", "hubspot", "main")
    assert "branch" in listed
    assert "office" not in listed
    assert "office" in run("settings", "audit", "--table", "field_map")
    run("settings", "fields", "remove", "hubspot", "main", "deals", "facility_id")
    assert "has no fields" in run("settings", "fields", "list", "hubspot", "main")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("deal", "facility_id", "branch"), "'deal' is no kind of record. There are: deals"),
        (("deals", "facility", "branch"), "'facility' is no field of ours. There are: facility_id"),
        (("deals", "facility_id", " "), "The field of the CRM"),
    ],
)
def test_fields_that_do_not_exist_are_one_line(words: tuple[str, ...], message: str) -> None:
    projects.add("hubspot", "main")
    done = CliRunner().invoke(main, ["settings", "fields", "set", "hubspot", "main", *words])
    assert done.exit_code == 1
    assert message in done.output
    assert done.output.count("\n") == 1
