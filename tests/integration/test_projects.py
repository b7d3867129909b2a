"""``stageline projects``: who may send, by what, and the keys of APIs, on a real database."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stageline import config
from stageline.cli import main
from stageline.database import Connection, connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts, encryption, projects, webhook_checks
from stageline.settings.webhook_checks import Kind, Sender, StoredCheck
from webhook_receiver.checks import Call, Check, verify

MARKER = "marker-of-a-secret-5f1c"


pytestmark = pytest.mark.usefixtures("database", "with_a_key")


@pytest.fixture
def with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
    config.settings.cache_clear()


@pytest.fixture
def shop(database: Connection) -> None:  # noqa: ARG001 - the configured one
    """A project of each CRM, all called shop-1."""
    for source in ("keycrm", "pipedrive", "hubspot", "salesforce"):
        projects.add(source, "shop-1")


def run(*arguments: str, typed: str | bytes = "", secret: str = MARKER) -> Result:
    """The command, of which no output may show ``secret``."""
    result = CliRunner().invoke(main, ["projects", *arguments], input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert secret not in result.output
    return result


def done(*arguments: str, typed: str | bytes = "", secret: str = MARKER) -> str:
    result = run(*arguments, typed=typed, secret=secret)
    assert result.exit_code == 0, result.output
    return result.output


def error(*arguments: str, typed: str | bytes = "") -> str:
    """What a command says that fails: one line."""
    result = run(*arguments, typed=typed)
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    return line


def loaded() -> list[StoredCheck]:
    """The checks as the receiver reads them, with its own rights."""
    with connect("receiver") as session:
        return webhook_checks.load(session)


def rows(query: str) -> Sequence[tuple[object, ...]]:
    with connect("owner") as session:
        return session.execute(query).fetchall()  # type: ignore[arg-type]  # texts of this module


# Projects


def test_a_project_is_made_and_changed_by_the_same_command() -> None:
    assert "time zone UTC, currency XXX" in done("add", "keycrm", "shop-1")
    done("add", "keycrm", "shop-1", "--timezone", "Europe/Kyiv", "--name", "Крамниця")
    assert "Europe/Kyiv, currency UAH" in done("add", "keycrm", "shop-1", "--currency", "UAH")
    done("add", "keycrm", "shop-1")
    listed = done("list")
    assert re.search(r"keycrm +shop-1 +Крамниця +Europe/Kyiv +UAH +yes", listed)
    assert "does not count" in done("add", "keycrm", "shop-1", "--inactive")
    done("add", "keycrm", "shop-1", "--name", "Shop")
    assert re.search(r"keycrm +shop-1 +Shop +Europe/Kyiv +UAH +no", done("list"))
    assert "count" not in done("add", "keycrm", "shop-1", "--active")
    assert rows("select count(*) from settings.projects") == [(1,)]


#: Cases stand in tables that one test goes through: a database for each would cost seconds.
NO_PROJECTS: list[tuple[list[str], str]] = [
    (["KeyCRM", "shop-1"], "plain word"),
    (["key crm", "shop-1"], "plain word"),
    (["zapier", "shop-1"], "stageline projects add pipedrive shop-1"),
    (["keycrm", "shop 1"], "stands in URLs"),
    (["keycrm", "крамниця"], "stands in URLs"),
    (["keycrm", ".."], "stands in URLs"),
    (["keycrm", "a/b"], "stands in URLs"),
    (["keycrm", "a" * 101], "stands in URLs"),
    (["keycrm", "shop-1\n"], "stands in URLs"),
    (["keycrm", "shop-1", "--timezone", "Europe/Kiew"], "no time zone 'Europe/Kiew'"),
    (["keycrm", "shop-1", "--timezone", "../passwd"], "no time zone"),
    (["keycrm", "shop-1", "--timezone", ""], "no time zone"),
    (["keycrm", "shop-1", "--currency", "uah"], "ISO 4217"),
    (["keycrm", "shop-1", "--name", "\x1b[2J"], "one line"),
]


def test_what_cannot_be_a_project_is_one_line() -> None:
    for arguments, said in NO_PROJECTS:
        assert said in error("add", *arguments)
    assert rows("select count(*) from settings.projects") == [(0,)]


def test_an_empty_list_says_what_to_do() -> None:
    assert "stageline projects add" in done("list")
    assert "stageline projects allow" in done("checks")


# Keys


def stageline(*arguments: str, output: Path) -> None:
    """The command as a shell runs it with ``>>``."""
    with output.open("a") as file:
        subprocess.run(
            [sys.executable, "-m", "stageline", *arguments], stdout=file, timeout=60, check=True
        )


def test_a_key_can_be_appended_to_env_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STAGELINE_SECRET_KEY")
    env_file = tmp_path / ".env"
    env_file.write_text("STAGELINE_PORT=54399")  # a last line without an end
    env_file.chmod(0o644)
    stageline("projects", "new-key", output=env_file)
    config.settings.cache_clear()
    stored = encryption.encrypt(MARKER)
    stageline("projects", "new-key", output=env_file)
    config.settings.cache_clear()
    assert encryption.decrypt(stored) == MARKER
    assert config.settings().port == 54399
    assert env_file.stat().st_mode & 0o777 == 0o600
    keys = [line for line in env_file.read_text().splitlines() if "SECRET_KEY" in line]
    assert [line.count(",") for line in keys] == [0, 1]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("key", ["", MARKER])
def test_without_a_usable_key_no_secret_is_taken(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STAGELINE_SECRET_KEY", key)
    config.settings.cache_clear()
    for command in (["allow", "keycrm", "shop-1", "token"], ["api", "keycrm", "shop-1"]):
        assert "stageline projects new-key >> .env" in error(*command, "--stdin", typed="t" * 20)
    assert loaded() == []


# Who may send

SECRETS: list[tuple[Sender, Kind, str]] = [
    ("zapier", "hmac", f"{MARKER}-and-more"),
    ("zapier", "hmac", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("hubspot", "hubspot", f"{MARKER}-and-more"),
    ("pipedrive", "basic", f"user:{MARKER}"),
    ("keycrm", "token", MARKER),
]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("how", [["--stdin"], ["--from-env", "MY_SECRET"]])
def test_a_secret_of_the_users_reaches_the_receiver_and_no_output(
    how: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sender, kind, secret in SECRETS:
        monkeypatch.setenv("MY_SECRET", secret)
        said = done("allow", sender, "shop-1", kind, *how, typed=f"{secret}\r\n", secret=secret)
        stored = loaded()[-1]
        assert f"Check {stored.check_id}: " in said
        assert (stored.sender, stored.project_id, stored.kind) == (sender, "shop-1", kind)
        assert webhook_checks.decrypted(stored) == secret.encode()
        everything = str(rows("select to_jsonb(c)::text from settings.webhook_checks as c"))
        assert secret not in everything + repr(stored) + done("checks", secret=secret)


@pytest.mark.usefixtures("shop")
def test_a_terminal_is_asked_without_showing_what_is_typed() -> None:
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "stageline", "projects", "allow", "keycrm", "shop-1"]
        os.execv(sys.executable, [*command, "token"])  # noqa: S606 - on the terminal made above
    shown = b""
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        while not shown.endswith(b"Secret: "):
            shown += screen.read(1)
        screen.write(MARKER.encode() + b"\n")
        try:
            while more := screen.read(1024):
                shown += more
        except OSError:  # the other end of a terminal that closes
            pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert MARKER.encode() not in shown
    (stored,) = loaded()
    assert webhook_checks.decrypted(stored) == MARKER.encode()


@pytest.mark.usefixtures("shop")
def test_a_generated_token_is_shown_once_and_opens_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAGELINE_RECEIVER_PUBLIC_URL", "https://hooks.example.test/")
    config.settings.cache_clear()
    said = done("allow", "keycrm", "shop-1", "token", "--generate")
    url = "https://hooks.example.test/webhooks/keycrm/shop-1"
    token = re.findall(rf"URL +{re.escape(url)}\?token=(\S+)\n", said)[0]
    assert f"curl -i -H 'X-Webhook-Token: {token}'" in said
    assert "note:" not in said
    (stored,) = loaded()
    secret = webhook_checks.decrypted(stored)
    check = Check(
        stored.check_id, stored.kind, secret, stored.allowed, stored.valid_from, stored.valid_to
    )
    call = Call("POST", url, {}, token, b"{}", None, datetime.now(UTC) + timedelta(seconds=1))
    assert verify([check], call) == (stored.check_id,)
    assert token not in done("checks")


@pytest.mark.usefixtures("shop")
def test_what_is_generated_is_shown_with_where_to_post_to() -> None:
    for sender, kind, shown, url in (
        ("zapier", "hmac", r"Secret +whsec_\S{44}\n", "stage?project=shop-1\n"),
        ("zapier", "token", r"Header +X-Webhook-Token: \S{43}\n", "stage?project=shop-1\n"),
        ("pipedrive", "basic", r"User +pipedrive\nPassword +\S{43}\n", "/pipedrive/shop-1\n"),
        ("hubspot", "token", r"Try it: +curl ", "/hubspot/shop-1?token="),
    ):
        said = done("allow", sender, "shop-1", kind, "--generate")
        assert re.search(shown, said)
        assert url in said
        assert "STAGELINE_RECEIVER_PUBLIC_URL" in said


@pytest.mark.usefixtures("shop")
def test_an_address_range_is_kept_in_one_form() -> None:
    for given, kept in (
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.7", "203.0.113.7/32"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
        ("2001:DB8::/32", "2001:db8::/32"),
    ):
        done("allow", "pipedrive", "shop-1", "address", given)
        stored = loaded()[-1]
        assert (stored.kind, stored.allowed, stored.secret_encrypted) == ("address", kept, None)


NO_CHECKS: list[tuple[list[str], str | bytes, str]] = [
    (["keycrm", "shop-1", "token", MARKER], "", "others"),
    (["keycrm", "shop-1", "token", "--stdin"], "", "is empty"),
    (["keycrm", "shop-1", "token", "--stdin"], "\n", "is empty"),
    (["keycrm", "shop-1", "token", "--stdin"], "short", "16 to 1000"),
    (["keycrm", "shop-1", "token", "--stdin"], f"{MARKER}/{MARKER}", "letters, digits"),
    (["keycrm", "shop-1", "token", "--stdin"], f"{MARKER}\n{MARKER}", "letters, digits"),
    (["keycrm", "shop-1", "token", "--stdin"], MARKER * 999, "too long"),
    (["keycrm", "shop-1", "token", "--stdin"], MARKER.encode("utf-16"), "UTF-8"),
    (["keycrm", "shop-1", "token", "--stdin", "--from-env", "PATH"], "", "one way"),
    (["keycrm", "shop-1", "token", "--stdin", "--generate"], "", "--generate"),
    (["keycrm", "shop-1", "token", "--from-env", MARKER], "", "Export it"),
    (["keycrm", "shop-1", "token"], MARKER, "no terminal"),
    (["pipedrive", "shop-1", "basic", "--stdin"], MARKER, "user:password"),
    (["pipedrive", "shop-1", "basic", "--stdin"], ":", "user:password"),
    (["zapier", "shop-1", "hmac", "--stdin"], f"whsec_{MARKER}", "24 to 64 bytes"),
    (["zapier", "shop-1", "hmac", "--stdin"], "short", "16 to 1000"),
    (["hubspot", "shop-1", "hubspot", "--generate"], "", "client secret"),
    (["keycrm", "shop-1", "hubspot", "--stdin"], MARKER, "Only HubSpot"),
    (["keycrm", "shop-1", "address"], "", "Say what is allowed"),
    (["keycrm", "shop-1", "address", "--stdin"], "", "no secret"),
    (["keycrm", "shop-1", "address", "203.0.113.7/24"], "", "Write 203.0.113.0/24"),
    (["keycrm", "shop-1", "address", "example.com"], "", "no address range"),
    (["keycrm", "shop-1", "address", "0.0.0.0/0"], "", "lets everyone in"),
    (["keycrm", "shop-1", "address", "::ffff:203.0.113.0/120"], "", "range of IPv4"),
    (["keycrm", "shop-1", "user-agent", "ї"], "", "ASCII"),
    (["keycrm", "shop-1", "user-agent", "a\nb"], "", "one line"),
    (["keycrm", "shop-1", "token", "--generate", "--label", "\x1b[2J"], "", "The label"),
    (["keycrm", "shop-1", "token", "--generate", "--until", "2020-01-01"], "", "later end"),
    (["keycrm", "shop-1", "token", "--generate", "--until", "soon"], "", "--until 'soon'"),
    (
        ["zapier", "shop-2", "token", "--generate"],
        "",
        "no project shop-2 of pipedrive. Run `stageline projects add pipedrive shop-2`",
    ),
    (["zapier", "a/b", "token", "--generate"], "", "stands in URLs"),
]


@pytest.mark.usefixtures("shop")
def test_what_does_not_fit_is_one_line_and_stores_nothing() -> None:
    for arguments, typed, said in NO_CHECKS:
        assert said in error("allow", *arguments, typed=typed)
    assert rows("select count(*) from settings.webhook_checks") == [(0,)]


def test_a_secret_that_is_half_a_character_is_not_shown() -> None:
    with pytest.raises(StagelineError, match="UTF-8") as caught:
        webhook_checks.allow("keycrm", "shop-1", "hmac", secret=MARKER + "\udc80")
    assert MARKER not in str(caught.value)


@pytest.mark.usefixtures("shop")
def test_too_little_to_know_a_sender_by_is_warned_about() -> None:
    assert "proves nothing by itself" in done("allow", "zapier", "shop-1", "user-agent", "Zapier")
    generated = ["token", "--generate", "--until", "2099-01-01"]
    said = done("allow", "zapier", "shop-1", *generated)
    assert "from 2099-01-01T00:00:00Z on, only the user agent" in said
    assert "warning" not in done("allow", "zapier", "shop-1", "hmac", "--generate")
    user_agent, token, _ = (row.check_id for row in loaded())
    assert "warning" not in done("revoke", str(user_agent))
    assert "warning" not in done("revoke", str(token))
    (last,) = loaded()
    assert "all is refused" in done("revoke", str(last.check_id))


@pytest.mark.usefixtures("shop")
def test_checks_are_listed_with_their_ends() -> None:
    done("allow", "keycrm", "shop-1", "user-agent", "KeyCRM", "--label", "by hand")
    until = ["--until", "2099-01-01T02:00+02:00"]
    done("allow", "zapier", "shop-1", "hmac", "--generate", *until)
    listed = done("checks", "shop-1").splitlines()
    assert re.search(r"^id +sender +project +kind +label +allowed +valid from +valid to", listed[0])
    assert re.search(r"keycrm +shop-1 +user-agent +by hand +KeyCRM +\S+Z$", listed[1])
    assert re.search(r"zapier +shop-1 +hmac +\S+Z +2099-01-01T00:00:00Z$", listed[2])
    assert "There is no check" in done("checks", "shop-2")


@pytest.mark.usefixtures("shop")
def test_a_revoked_check_stays_in_the_list_and_leaves_the_receiver() -> None:
    first = webhook_checks.allow("keycrm", "shop-1", "token", secret=MARKER)
    second = webhook_checks.allow("keycrm", "shop-1", "token", secret=MARKER * 2)
    done("revoke", str(first))
    done("revoke", str(second), "--at", "2099-01-01")
    assert [(row.check_id, row.valid_to) for row in loaded()] == [
        (second, datetime(2099, 1, 1, tzinfo=UTC))
    ]
    assert len(webhook_checks.checks()) == 2
    ended = webhook_checks.checks()[0].valid_to
    assert webhook_checks.revoke(first).valid_to == ended, "it must not come to life again"


@pytest.mark.usefixtures("shop")
def test_a_check_that_cannot_be_revoked_is_one_line() -> None:
    assert "There is no check 99999999999" in error("revoke", "99999999999")
    check_id = webhook_checks.allow("keycrm", "shop-1", "token", secret=MARKER)
    assert "begins only after" in error("revoke", str(check_id), "--at", "2020-01-01")


@pytest.mark.usefixtures("shop")
def test_the_receiver_reads_what_is_valid_now_or_later() -> None:
    now = datetime.now(UTC)
    days = [(-2, -1), (-1, 1), (-1, None), (1, 2), (1, None)]
    ids = [
        webhook_checks.allow(
            "keycrm",
            "shop-1",
            "token",
            secret=MARKER,
            valid_from=now + timedelta(days=begin),
            valid_to=None if end is None else now + timedelta(days=end),
        )
        for begin, end in days
    ]
    assert [row.check_id for row in loaded()] == ids[1:]


# APIs


@pytest.mark.usefixtures("shop")
def test_an_api_token_is_kept_encrypted_and_read_by_the_loader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_TOKEN", MARKER)
    assert "https://openapi.keycrm.app/v1" in done(
        "api", "keycrm", "shop-1", "--from-env", "MY_TOKEN"
    )
    done("api", "pipedrive", "shop-1", "--stdin", typed=f"{MARKER}\n")
    own = ["--base-url", "http://127.0.0.1:8080/api/"]
    done("api", "hubspot", "shop-1", "--stdin", *own, typed=MARKER)
    done("api", "hubspot", "shop-1", "--stdin", typed=f"{MARKER}-2")
    with connect("loader") as session:
        found = [
            api_accounts.get(session, source, "shop-1")
            for source in ("keycrm", "pipedrive", "hubspot")
        ]
    assert [(account.base_url, account.token) for account in found] == [
        ("https://openapi.keycrm.app/v1", MARKER),
        ("https://api.pipedrive.com", MARKER),
        ("http://127.0.0.1:8080/api", f"{MARKER}-2"),
    ]
    stored = str(rows("select to_jsonb(a)::text from settings.api_accounts as a"))
    assert MARKER not in stored + repr(found)
    assert re.search(r"hubspot +shop-1.*http://127\.0\.0\.1:8080/api", done("list"))


NO_APIS: list[tuple[list[str], str, str]] = [
    (["keycrm", "shop-2", "--stdin"], MARKER, "stageline projects add keycrm shop-2"),
    (["salesforce", "shop-1", "--stdin"], MARKER, "--base-url"),
    (["keycrm", "shop-1", MARKER], "", "others"),
    (["keycrm", "shop-1", "--stdin"], "", "is empty"),
    (["keycrm", "shop-1", "--stdin"], f"{MARKER} {MARKER}", "signs that a token cannot have"),
    (["keycrm", "shop-1", "--stdin", "--base-url", "ftp://x.test"], MARKER, "has to look like"),
    (["keycrm", "shop-1", "--stdin", "--base-url", "https://"], MARKER, "has to look like"),
    (["keycrm", "shop-1", "--stdin", "--base-url", "https://[x"], MARKER, "has to look like"),
    (["keycrm", "shop-1", "--stdin", "--base-url", "http://x:y"], MARKER, "has to look like"),
    (
        ["keycrm", "shop-1", "--stdin", "--base-url", f"https://u:{MARKER}@x.test"],
        MARKER,
        "has to look like",
    ),
    (
        ["keycrm", "shop-1", "--stdin", "--base-url", f"https://x.test/?api_token={MARKER}"],
        MARKER,
        "has to look like",
    ),
]


@pytest.mark.usefixtures("shop")
def test_an_api_that_cannot_be_stored_is_one_line() -> None:
    for arguments, typed, said in NO_APIS:
        assert said in error("api", *arguments, typed=typed)
    assert api_accounts.accounts() == []


def test_an_api_whose_token_is_missing_or_unreadable_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    projects.add("keycrm", "shop-1")
    with connect("jobs") as session:
        with pytest.raises(StagelineError, match="stageline projects api keycrm shop-1"):
            api_accounts.get(session, "keycrm", "shop-1")
        api_accounts.store("keycrm", "shop-1", MARKER)
        monkeypatch.setenv("STAGELINE_SECRET_KEY", encryption.new_key())
        config.settings.cache_clear()
        with pytest.raises(StagelineError, match="another key"):
            api_accounts.get(session, "keycrm", "shop-1")


def test_every_command_explains_itself_with_an_example() -> None:
    for name in ("new-key", "add", "list", "allow", "checks", "revoke", "api"):
        assert f"Example:\n      stageline projects {name}" in done(name, "--help")
