"""Which account a load is about, and what is said where there is none."""

from collections.abc import Iterator
from pathlib import Path

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
            "^SALES_PIPELINE_ENDPOINT has to look like",
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
        (("deals", "segment", "tier"), "'segment' is no field of ours"),
        (
            ("leads", "facility_id", "branch"),
            "No model reads fields of leads of hubspot. There are: deals, tickets, surveys,",
        ),
        (
            ("tickets", "company", "branch"),
            "No model reads company of tickets of hubspot. There are: facility_id, rep_id.",
        ),
    ],
)
def test_fields_that_do_not_exist_are_one_line(words: tuple[str, ...], message: str) -> None:
    projects.add("hubspot", "main")
    done = CliRunner().invoke(main, ["settings", "fields", "set", "hubspot", "main", *words])
    assert done.exit_code == 1
    assert message in done.output
    assert done.output.count("\n") == 1


def test_a_source_without_fields_of_its_own_says_so() -> None:
    projects.add("files", "main")
    done = CliRunner().invoke(
        main, ["settings", "fields", "set", "files", "main", "deals", "rep_id", "seller"]
    )
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "No model reads fields of files. There are some of: hubspot, pipedrive" in done.output


def set_field(*words: str) -> str:
    return run("settings", "fields", "set", "pipedrive", "main", "deals", *words)


def mapped(field: str) -> str:
    """The field of Pipedrive that feeds one of ours."""
    with connect("owner") as session:
        row = session.execute(
            "select crm_field from settings.field_map where field = %s", [field]
        ).fetchone()
    assert row is not None
    return str(row[0])


def test_a_label_of_pipedrive_is_kept_as_the_key_that_does_not_change(tmp_path: Path) -> None:
    projects.add("pipedrive", "main")
    projects.add("pipedrive", "other")
    set_field("facility_id", "Office")  # nothing is loaded yet that could tell
    assert mapped("facility_id") == "Office"
    with connect("owner", autocommit=True) as session:
        session.execute(
            "insert into raw_pipedrive.deal_fields (project_id, field_key, name, fetched_at) values"
            " ('main', 'k1', 'Office', now()), ('main', 'k2', 'Seller', now()),"
            " ('main', 'k3', 'Seller', now()), ('main', 'Seller key', 'k1', now()),"
            " ('other', 'k9', 'Office', now()), ('other', 'k8', 'Of another account', now())"
        )
    assert "comes from k1 (Office)" in set_field("facility_id", "Office")
    assert mapped("facility_id") == "k1"
    assert "comes from k1 (Office)" in set_field("facility_id", "k1")  # a key counts before a label
    assert "k1 (Office)" in run("settings", "fields", "list", "pipedrive", "main")
    for label, message in (
        ("Seller", "Several fields of pipedrive main are called 'Seller': k2, k3. Give one of"),
        ("Of another account", "pipedrive main has no field 'Of another account' among those"),
    ):
        done = CliRunner().invoke(
            main, ["settings", "fields", "set", "pipedrive", "main", "deals", "rep_id", label]
        )
        assert (done.exit_code, done.output.count("\n")) == (1, 1)
        assert message in done.output
    file = tmp_path / "settings.yaml"
    run("settings", "export", str(file))
    file.write_text(file.read_text().replace("crm_field: k1", "crm_field: Office"))
    run("settings", "import", str(file))
    assert mapped("facility_id") == "k1"
