"""How the user's URL is read, and what is said where it, or the embedded server's files, is bad."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from stageline import config
from stageline.database import connect, connection
from stageline.errors import StagelineError

SECRET = "geheim123"


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HOST", "PORT", "USER", "PASSWORD", "DATABASE"):
        monkeypatch.delenv(f"PG{name}", raising=False)
    monkeypatch.delenv("STAGELINE_DATABASE_URL", raising=False)
    monkeypatch.setenv("STAGELINE_ENV_FILE", str(tmp_path / ".env"))
    monkeypatch.setenv("STAGELINE_HOME", str(tmp_path / "home"))
    config.settings.cache_clear()
    yield
    config.settings.cache_clear()


def refusal(action: object = connection) -> str:
    with pytest.raises(StagelineError) as caught:
        action("owner")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@db.example/crm",
        f"u {SECRET}",
        f"postgresql://u:{SECRET}@db.example:many/crm",
        f"postgresql://u:x@{SECRET}@db.example/crm",
        f"postgresql://u:%zz{SECRET}@db.example/crm",
        f"postgresql://u:x/{SECRET}@db.example/crm",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_DATABASE_URL", url)
    said = refusal()
    assert said.startswith("STAGELINE_DATABASE_URL cannot be read")
    assert SECRET not in said


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_DATABASE_URL", f"postgresql://u:{SECRET}@127.0.0.1:1/crm")
    assert refusal(connect) == (
        "Cannot reach PostgreSQL at 127.0.0.1:1 as u: Connection refused."
        " Check STAGELINE_DATABASE_URL, and whether that server runs."
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            'connection failed: connection to server at "127.0.0.1", port 5 failed:'
            ' FATAL:  database "crm" does not exist',
            'FATAL:  database "crm" does not exist',
        ),
        ('connection is bad: invalid sslmode value: "x"', 'invalid sslmode value: "x"'),
        ("failed to resolve host 'h': [Errno -2] Unknown", "failed to resolve host 'h'"),
    ],
)
def test_the_reason_is_told_once(monkeypatch: pytest.MonkeyPatch, said: str, reason: str) -> None:
    def refuse(**_: object) -> None:
        raise psycopg.OperationalError(f"{said}\n\tIs the server running?")

    monkeypatch.setenv("STAGELINE_DATABASE_URL", "postgresql://u@h/crm")
    monkeypatch.setattr(psycopg, "connect", refuse)
    assert refusal(connect).startswith(f"Cannot reach PostgreSQL at h:5432 as u: {reason}")


def test_no_server_yet(tmp_path: Path) -> None:
    assert "There is no database yet. Run `stageline up`" in refusal()
    (tmp_path / "home").write_text("a file where a folder belongs")
    assert "There is no database yet." in refusal()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"port": "many"}', "\x00\xff"])
def test_damaged_files_of_the_embedded_server(tmp_path: Path, content: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "credentials.json").write_text(json.dumps({"stageline_owner": SECRET}))
    (home / "server.json").write_text(content)
    said = refusal()
    assert "server.json" in said and "is damaged. Remove both and run `stageline up`" in said
    (home / "server.json").write_text(json.dumps({"port": 1}))
    assert connection("owner").password == SECRET
    (home / "credentials.json").write_text(content)
    assert "is damaged" in refusal()


def test_a_secret_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "secrets"
    (folder / "..data").mkdir(parents=True)  # as Kubernetes lays them out
    (folder / "stageline_database_url").symlink_to("..data/stageline_database_url")
    (folder / "stageline_database_url").write_text(f"postgresql://me:{SECRET}@db.example/crm\n")
    (folder / "MY_HOOK").write_text("https://hooks.example/of-mine\n")
    monkeypatch.setenv("STAGELINE_SECRETS_DIR", str(folder))
    config.settings.cache_clear()
    target = connection("owner")
    assert (target.host, target.password, target.dbname) == ("db.example", SECRET, "crm")
    hook = config.secret("MY_HOOK")
    assert hook is not None and hook.get_secret_value() == "https://hooks.example/of-mine"
    assert config.secret("ANOTHER") is None
    monkeypatch.setenv("STAGELINE_DATABASE_URL", "postgresql://other.example/crm")
    config.settings.cache_clear()
    assert connection("owner").host == "other.example"


def test_a_folder_of_secrets_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_SECRETS_DIR", "/nowhere")
    assert refusal().startswith("STAGELINE_SECRETS_DIR names /nowhere, which is no folder.")
    assert refusal(config.secret).startswith("STAGELINE_SECRETS_DIR names /nowhere")


@pytest.mark.parametrize("address", ["localhost", "8125", "a b:1", "::1:8125", "host:many"])
def test_the_address_of_datadog_has_a_port(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGELINE_DOGSTATSD", address)
    assert refusal().startswith(
        "STAGELINE_DOGSTATSD cannot be read: value error, write a host and a port, as"
    )


def test_a_configuration_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(b"STAGELINE_PORT=\xff\n")
    assert refusal().startswith(f"{tmp_path / '.env'} cannot be read: 'utf-8' codec")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dotenv.main.open", refuse, raising=False)
    assert f"{tmp_path / '.env'} belongs to another user." in refusal()
