"""Backups and restores of a small database: what is kept, refused and left untouched."""

import json
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cryptography.fernet import Fernet

from jobs import backups, retention
from jobs.alert_sources import NothingKnownError, backup_conditions
from jobs.build import BusyError, only_build
from jobs.retention import Backups
from jobs.worker import periodic_tasks
from stageline import backup, config, migrate
from stageline.database import Connection, connect
from stageline.errors import StagelineError
from stageline.settings.encryption import encrypt

SEEN: list[int] = []


def watch(count: int) -> None:
    SEEN.append(count)


def deliver(session: psycopg.Connection[object]) -> UUID:
    key = uuid4()
    session.execute(
        "insert into raw.deliveries (delivery_id, sender, source_system, project_id, received_at,"
        " check_ids, body_bytes, body_sha256, entity_ids)"
        " values (%s, 'zapier', 'pipedrive', 'main', now(), '{}', 256, sha256(''), '{}')",
        (key,),
    )
    session.execute(
        "insert into raw.delivery_bodies (delivery_id, received_at, headers, body)"
        " values (%s, now(), '{}', %s)",
        (key, bytes(range(256))),
    )
    return key


def delivered() -> list[UUID]:
    with connect("owner") as session:
        return [key for (key,) in session.execute("select delivery_id from raw.deliveries")]


@pytest.fixture
def made(database: Connection, tmp_path: Path) -> Path:  # noqa: ARG001 - what is backed up
    """A backup of a database with one delivery, into which a second one came afterwards."""
    with connect("owner") as session:
        deliver(session)
    path = tmp_path / "kept" / "one.zip"
    backups.make(path, watch)
    with connect("owner") as session:
        deliver(session)
    return path


def test_what_is_restored_is_what_was_there_and_only_its_owner_reads_the_file(made: Path) -> None:
    assert [stat.S_IMODE(made.stat().st_mode)] == [0o600]
    assert [path.name for path in made.parent.iterdir()] == ["one.zip"]
    first, second = delivered()

    with pytest.raises(StagelineError, match=r"^Database stageline holds data.*--replace st"):
        backup.restore(made, watch)
    with pytest.raises(StagelineError, match="holds data"):
        backup.restore(made, watch, replace="stagelin")
    assert delivered() == [first, second]

    with connect("owner") as session:
        session.execute("create schema mine create table notes (note text)")
    SEEN.clear()
    manifest = backup.restore(made, watch, replace="stageline")
    assert delivered() == [first]
    assert sum(SEEN) == 2 * manifest.dump_bytes, "progress is shown against that"
    assert migrate.is_current()
    with connect("owner") as session:
        ((body,),) = session.execute("select body from raw.delivery_bodies")
        assert body == bytes(range(256))
        session.execute("select from mine.notes")  # a schema of the user's own is left alone
    with connect("receiver", autocommit=True) as session:  # grants are there, too
        deliver(session)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("select body from raw.delivery_bodies")


def test_a_backup_of_older_tables_is_made_and_brought_up_to_date(
    database: Connection,  # noqa: ARG001 - what is backed up
    tmp_path: Path,
) -> None:
    migrate.downgrade("0021")
    with connect("owner") as session:
        session.execute("update ops.follow_up_position set planned = '7:7:'")
    backups.make(tmp_path / "old.zip", watch)
    manifest = backup.restore(tmp_path / "old.zip", watch)
    assert manifest.migration == "0021"
    assert migrate.is_current()
    with connect("owner") as session:
        assert session.execute("select server from ops.follow_up_position").fetchall() == [("",)]


def test_a_file_that_is_there_stays(made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(StagelineError, match="is there already"):
        backups.make(made, watch)
    assert made.read_bytes() == before


def rewritten(path: Path, **changes: object) -> None:
    """The same dump with another manifest."""
    with zipfile.ZipFile(path) as archive:
        dump, about = archive.read("database.dump"), json.loads(archive.read("manifest.json"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("database.dump", dump)
        archive.writestr("manifest.json", json.dumps({**about, **changes}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "was cut short or changed"),
        (lambda path: path.write_bytes(b"some text"), "is no backup"),
        (lambda path: path.write_bytes(b""), "is no backup"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "is no backup"),
        (lambda path: rewritten(path, migration="9999"), "a newer Stageline .migration 9999"),
        (lambda path: rewritten(path, format=2), "has the layout 2"),
        (lambda path: rewritten(path, dump_sha256="0" * 64), "its checksum differs"),
        (
            lambda path: path.write_bytes(
                path.read_bytes()[:5000] + b"\0\1\2" + path.read_bytes()[5003:]
            ),
            "was cut short or changed|is not as it was written",
        ),
    ],
    ids=("cut", "text", "empty", "missing", "zip", "newer", "layout", "checksum", "byte"),
)
def test_a_file_that_is_not_whole_changes_nothing(made: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]  # a lambda
    before = delivered()
    damage(made)
    with pytest.raises(StagelineError, match=said) as told:
        backup.restore(made, watch, replace="stageline")
    assert "\n" not in str(told.value)
    assert delivered() == before


def test_a_dump_that_ends_early_is_found_though_its_checksum_fits(made: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        dump, about = archive.read("database.dump"), json.loads(archive.read("manifest.json"))
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("database.dump", dump[:-500])
        about |= {
            "dump_bytes": len(dump) - 500,
            "dump_sha256": backup.hashlib.sha256(dump[:-500]).hexdigest(),
        }
        archive.writestr("manifest.json", json.dumps(about))
    with pytest.raises(StagelineError, match="is not as it was written"):
        backup.require_whole(made, watch)


def test_tables_in_use_are_neither_dumped_nor_replaced(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_LOCK_SECONDS", 1)
    with connect("owner") as busy:
        busy.execute("lock table raw.deliveries in access exclusive mode")
        with pytest.raises(StagelineError, match=r"^pg_dump failed: .*Nothing was written"):
            backups.make(made.parent / "two.zip", watch)
        busy.rollback()
        busy.execute("select from raw.deliveries")
        with pytest.raises(StagelineError, match=r"Nothing was restored: .* in use; stop"):
            backup.restore(made, watch, replace="stageline")
    assert [path.name for path in made.parent.iterdir()] == ["one.zip"]
    assert len(delivered()) == 2


def test_what_the_server_refuses_leaves_everything_as_it_was(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = backup._fitting

    def failing(*given: Any) -> Iterator[bytes]:
        yield from fitting(*given)
        yield b"select 1 / 0;\n"

    monkeypatch.setattr(backup, "_fitting", failing)
    with pytest.raises(StagelineError, match="Nothing was restored: division by zero"):
        backup.restore(made, watch, replace="stageline")
    assert len(delivered()) == 2


def test_a_backup_waits_for_a_build(database: Connection, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # noqa: ARG001
    monkeypatch.setattr(backups, "_PATIENCE", 0.0)
    with only_build(), pytest.raises(BusyError, match="is being made, or another build"):
        backups.make(tmp_path / "one.zip", watch)
    backups.make(tmp_path / "one.zip", watch)


def test_secrets_that_the_key_does_not_open_are_counted(
    database: Connection,  # noqa: ARG001 - what the secrets are in
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def use(key: bytes) -> None:
        monkeypatch.setenv("STAGELINE_SECRET_KEY", key.decode())
        config.settings.cache_clear()

    use(Fernet.generate_key())
    with connect("owner") as session:
        session.execute(
            "insert into settings.projects (source_system, project_id, timezone, currency)"
            " values ('pipedrive', 'main', 'UTC', 'EUR')"
        )
        session.execute(
            "insert into settings.api_accounts"
            " (source_system, project_id, base_url, token_encrypted)"
            " values ('pipedrive', 'main', 'https://example.com', %s)",
            [encrypt("a token")],
        )
    assert backup.unreadable_secrets() == 0
    use(Fernet.generate_key())
    assert backup.unreadable_secrets() == 1


def test_by_the_clock_the_newest_stay_and_what_was_never_whole_goes(
    database: Connection,  # noqa: ARG001 - what is backed up
    tmp_path: Path,
) -> None:
    names = [f"stageline-2020-01-0{day}T000000Z.zip" for day in (1, 2, 3)]
    parts = [f".{names[0]}.abc", f".{names[1]}.def"]
    folder = tmp_path / "kept"
    folder.mkdir()
    for name in (*names, *parts, "mine.zip"):
        (folder / name).touch()
    os.utime(folder / parts[0], (0, 0))
    configured = Backups(folder, "30 2 * * *", ZoneInfo("UTC"), 2)

    stop = threading.Event()
    stop.set()
    with pytest.raises(backups.StoppedError):
        backups.make_by_the_clock(configured, stop)
    assert {path.name for path in folder.iterdir()} == {*names, *parts, "mine.zip"}

    told = backups.make_by_the_clock(configured, threading.Event())
    left = {path.name for path in folder.iterdir()}
    assert left == {str(told["file"]), names[2], "mine.zip", parts[1]}
    assert told["removed"] == 3


def test_a_backup_that_fails_or_does_not_come_is_told_until_there_is_a_good_one(
    database: Connection,  # noqa: ARG001 - what is backed up
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def titles() -> list[str]:
        with connect("jobs") as session:
            return [each.title for each in backup_conditions(session)]

    assert titles() == []
    by_the_clock = Backups(tmp_path, "30 2 * * *", ZoneInfo("UTC"), 2)
    configured = replace(retention.read(), backups=by_the_clock)
    monkeypatch.setattr(retention, "read", lambda: configured)
    with pytest.raises(NothingKnownError):
        titles()
    (tmp_path / "file").touch()
    in_the_way = replace(by_the_clock, folder=tmp_path / "file")
    with pytest.raises(StagelineError, match="There is no folder"):
        backups.make_by_the_clock(in_the_way, threading.Event())
    (title,) = titles()
    assert title.startswith(f"No backup yet: There is no folder {tmp_path}/file, where backups go")
    backups.make_by_the_clock(by_the_clock, threading.Event())
    assert titles() == []
    with connect("owner") as session:
        session.execute("update ops.backups set started_at = started_at - interval '2 days'")
    (title,) = titles()
    assert title.startswith("No backup since ")


def test_the_worker_backs_up_where_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {task.name for task in periodic_tasks()} >= {"prune"}
    assert "back up" not in {task.name for task in periodic_tasks()}
    configured = Backups(tmp_path, "0 4 * * 0", ZoneInfo("Europe/Kyiv"), 2)
    monkeypatch.setattr(retention, "read", lambda: retention.Retention(None, None, configured))
    assert "back up" in {task.name for task in periodic_tasks()}


@pytest.mark.usefixtures("database")
def test_one_is_made_after_each_slot_whatever_stopped_the_worker(tmp_path: Path) -> None:
    kept, elsewhere = tmp_path / "kept", tmp_path / "elsewhere"
    for folder in (kept, elsewhere):
        folder.mkdir()
    weekly = Backups(kept, "0 4 * * 0", ZoneInfo("Europe/Kyiv"), 9)
    stop = threading.Event()
    stop.set()

    def a_week_passes() -> None:
        for path in kept.iterdir():
            path.unlink()  # two of a second would have the same name
        with connect("jobs") as session:
            session.execute("update ops.backups set started_at = started_at - interval '7 days'")

    with pytest.raises(backups.StoppedError):
        backups.make_if_due(weekly, stop)
    assert backups.make_if_due(weekly, threading.Event()) is not None
    assert backups.make_if_due(weekly, threading.Event()) is None

    a_week_passes()
    backups.make(elsewhere / "by-hand.zip", lambda _: None)
    assert backups.make_if_due(weekly, threading.Event()) is not None

    a_week_passes()
    with pytest.raises(StagelineError, match="There is no folder"):
        backups.make_if_due(replace(weekly, folder=kept / "gone"), threading.Event())
    # One that failed is an alert, and tried again at the next slot.
    assert backups.make_if_due(weekly, threading.Event()) is None


def test_names_sort_by_time() -> None:
    name = backup.file_name(datetime(2026, 11, 22, 1, 40, 5, tzinfo=UTC))
    assert name == "stageline-2026-11-22T014005Z.zip"
    assert Path(name).match(backup.NAMES)
