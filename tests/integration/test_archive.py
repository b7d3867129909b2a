"""What old deliveries said leaves the database for files and comes back; nothing else changes."""

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from psycopg.types.json import Jsonb
from pyarrow import parquet

from jobs import archive, archive_config, archive_files
from jobs.archive_config import ArchiveConfig
from stageline import config, migrate
from stageline.cli import main
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import projects
from tests.integration.test_deliveries import as_an_older_version_read_it, order
from webhook_receiver.delivery import Delivery, ReadDelivery, read
from webhook_receiver.raw_tables import insert
from webhook_receiver.session import connected

pytestmark = pytest.mark.usefixtures("folder")

#: The name of a project that would lead out of the folder, if it were taken as it is.
OUTWARD = "../../shop"
MARCH, APRIL = datetime(2026, 3, 31, 23, 59, 59, 5, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
#: When March and April are due, and May is not.
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)

#: Everything that may read or count deliveries, but for what they said.
KEPT = ("deliveries", "stage_events", "value_changes", "lifecycle_events", "replays")


@pytest.fixture
def folder(
    database: object,  # noqa: ARG001 - it has to be there
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """A folder that deliveries are archived to, after a month; and two projects."""
    found = tmp_path / "archives"
    found.mkdir()
    configured(monkeypatch, tmp_path, f"folder: {found}\nafter_months: 1\n")
    projects.add("keycrm", "shop")
    with connect("owner") as session:
        session.execute(
            "insert into settings.projects (source_system, project_id) values ('keycrm', %s)",
            [OUTWARD],
        )
    yield found
    config.settings.cache_clear()


def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "archive.yml").write_text(text)
    monkeypatch.setenv("STAGELINE_ARCHIVE", str(tmp_path / "archive.yml"))
    config.settings.cache_clear()


def rules() -> ArchiveConfig:
    found = archive_config.read()
    assert found is not None
    return found


def came(number: int, at: datetime, project: str = "shop", **headers: str) -> ReadDelivery:
    return read(Delivery("keycrm", project, at, (1,), headers, order(number), "UTC"))


def land(*deliveries: ReadDelivery, at_once: bool = True) -> None:
    """Lands deliveries, when they came or just now."""
    with connected() as session:
        insert(session, deliveries)
    if at_once:
        with connect("owner") as session:
            session.execute("update raw.deliveries set landed_at = received_at")


def said() -> dict[UUID, tuple[Any, ...]]:
    """What is said by the deliveries in the database."""
    with connect("transformer") as session:
        rows = session.execute(
            "select delivery_id, received_at, headers, body from raw.delivery_bodies"
        )
        return {key: (at, headers, bytes(body)) for key, at, headers, body in rows}


def expected(*deliveries: ReadDelivery) -> dict[UUID, tuple[Any, ...]]:
    return {
        each.delivery_id: (
            each.delivery.received_at,
            dict(each.delivery.headers),
            each.delivery.body,
        )
        for each in deliveries
    }


def kept() -> dict[str, list[tuple[Any, ...]]]:
    with connect("owner") as session:
        return {
            table: session.execute(f"select * from raw.{table} order by 1, 2, 3, 4, 5").fetchall()  # noqa: S608
            for table in KEPT
        }


def archive_all(now: datetime = NOW) -> list[archive.Archive]:
    return list(archive.archive(rules(), now))


def months() -> set[str]:
    """The tables of months that there are."""
    with connect("owner") as session:
        rows = session.execute(
            "select inhrelid::regclass::text from pg_inherits"
            " where inhparent = 'raw.delivery_bodies'::regclass"
        )
        return {name.removeprefix("raw.delivery_bodies_") for (name,) in rows}


def stageline(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


# What is archived


def test_old_bodies_leave_for_files_and_nothing_else_changes(folder: Path) -> None:
    march = [came(number, MARCH, agent="a\u00df\u2028") for number in range(3)]
    april = [came(number, APRIL) for number in range(3, 5)]
    outward = came(1, MARCH, OUTWARD)
    may = came(9, datetime(2026, 5, 1, tzinfo=UTC))
    land(*march, *april, outward, may)
    before = kept()

    files = archive_all()

    assert [(each.file_name, each.delivery_count) for each in files] == [
        ("keycrm/%2E.%2F..%2Fshop/2026-03.parquet", 1),
        ("keycrm/shop/2026-03.parquet", 3),
        ("keycrm/shop/2026-04.parquet", 2),
    ]
    assert said() == expected(may)
    assert kept() == before
    found = {
        UUID(row["delivery_id"]): row
        for row in parquet.read_table(folder / "keycrm/shop/2026-03.parquet").to_pylist()
    }
    assert set(found) == set(expected(*march))
    for each in march:
        row = found[each.delivery_id]
        assert row["body"] == each.delivery.body
        assert row["received_at"] == MARCH
        assert row["headers"] == '{"agent": "a\u00df\u2028"}'
        assert (row["source_system"], row["project_id"], row["sender"]) == (
            *("keycrm", "shop"),
            "keycrm",
        )
    codec = parquet.ParquetFile(folder / files[1].file_name).metadata.row_group(0).column(0)
    assert codec.compression == "ZSTD"
    every = [path for path in folder.parent.rglob("*") if "2026" in path.name]
    assert len(every) == 3, "and no other file, and none elsewhere"
    for path in every:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert archive_all() == []


def test_a_repeated_delivery_whose_body_is_archived_changes_nothing(folder: Path) -> None:  # noqa: ARG001
    land(came(1, MARCH))
    archive_all()
    before = kept()
    land(came(1, NOW), at_once=False)
    assert (said(), kept()) == ({}, before)


def test_what_somebody_may_be_at_stays(folder: Path) -> None:  # noqa: ARG001
    unread, replayed, late, settled = (came(number, MARCH) for number in range(4))
    land(as_an_older_version_read_it(unread), replayed, settled)
    with connect("owner") as session:
        session.execute(
            "insert into raw.replays (delivery_id, entity_ids, replayed_at) values (%s, '{}', %s)",
            [replayed.delivery_id, NOW - timedelta(days=29)],
        )
    land(late, at_once=False)
    with connect("owner") as session:
        session.execute(
            "update raw.deliveries set landed_at = %s where delivery_id = %s",
            [NOW - timedelta(days=29), late.delivery_id],
        )
    assert [each.delivery_count for each in archive_all()] == [1]
    assert said() == expected(unread, replayed, late)
    later = archive_all(NOW + timedelta(days=2))
    assert [(each.file_name, each.delivery_count) for each in later] == [
        ("keycrm/shop/2026-03.2.parquet", 2)
    ]
    assert said() == expected(unread)


def test_a_file_holds_so_many_and_nothing_is_in_two(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = [came(number, MARCH) for number in range(130)]
    land(*deliveries)
    monkeypatch.setattr(archive, "_BYTES", 64 * len(order(100)) - 200)
    monkeypatch.setattr(archive_files, "_GROUP_ROWS", 20)
    files = archive_all()
    assert [each.delivery_count for each in files] == [64, 64, 2]
    found = [body for each in files for body in archive_files.read(folder / each.file_name)]
    assert sorted(body.body for body in found) == sorted(each.delivery.body for each in deliveries)


def test_whoever_has_to_stop_gives_up_what_is_being_written(folder: Path) -> None:
    deliveries = [came(number, MARCH) for number in range(40)]
    land(*deliveries, came(50, APRIL))
    for looks in range(3):
        answers = iter([*[False] * looks, True])
        assert list(archive.archive(rules(), NOW, lambda: next(answers))) == []  # noqa: B023
        assert said() == expected(*deliveries, came(50, APRIL))
        assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert [each.delivery_count for each in archive_all()] == [40, 1]


# Killed


_KILLED = """
import os
from datetime import UTC, datetime
from jobs import archive, archive_config, archive_files

def die(*_, **__):
    os._exit(9)

{fault}
config = archive_config.read()
{work}
"""

_HALF_WRITTEN = """
read_row = archive._require_body
def after_two(body, *others, seen=[]):
    seen.append(body)
    if len(seen) == 3:
        die()
    read_row(body, *others)
archive._require_body = after_two
"""

_IN_THE_TRANSACTION = """
remove = archive._remove
def remove_and_die(*given, **named):
    remove(*given, **named)
    die()
archive._remove = remove_and_die
"""


def killed(fault: str, work: str) -> None:
    script = _KILLED.format(fault=fault, work=work)
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, check=False)
    assert done.returncode == 9


@pytest.mark.parametrize(
    "fault",
    [
        "archive_files.write = die",
        _HALF_WRITTEN,
        "archive_files.sha256 = die",
        _IN_THE_TRANSACTION,
    ],
    ids=["claimed", "half written", "written", "removing"],
)
def test_whenever_it_is_killed_each_body_is_in_one_place(folder: Path, fault: str) -> None:
    deliveries = [came(number, MARCH) for number in range(4)]
    land(*deliveries)
    killed(fault, f"list(archive.archive(config, datetime.fromisoformat({NOW.isoformat()!r})))")
    assert said() == expected(*deliveries)
    assert archive.archives() == []

    (file,) = archive_all()
    assert (file.file_name, file.delivery_count) == ("keycrm/shop/2026-03.parquet", 4)
    assert said() == {}
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / file.file_name]


def test_a_restoring_that_is_killed_is_done_again_and_no_body_is_archived_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = [came(number, MARCH) for number in range(4)]
    land(*deliveries)
    archive_all()
    killed(
        "archive._BATCH = 1" + _HALF_WRITTEN,
        "list(archive.restore(config, archive.archives()))",
    )
    assert said() == {}
    monkeypatch.setattr(archive, "_BATCH", 3)
    ((file, count),) = archive.restore(rules(), archive.archives())
    assert (file.delivery_count, count, said()) == (4, 4, expected(*deliveries))
    assert archive_all() == [], "what was put back is in a file already"
    assert [path.name for path in folder.rglob("*.parquet")] == ["2026-03.parquet"]


# What comes back


def test_bodies_come_back_as_they_came_are_replayed_and_leave_again(folder: Path) -> None:  # noqa: ARG001
    deliveries = [came(number, MARCH, agent="\u00e4") for number in range(3)]
    kept_here = came(9, APRIL)
    land(*deliveries, came(1, MARCH, OUTWARD), kept_here)
    archive_all(datetime(2026, 5, 2, tzinfo=UTC))
    one = str(deliveries[0].delivery_id)
    hint = "`stageline archive restore --project shop --month 2026-03`"

    refused = stageline("deliveries", "--body", one)
    assert refused.exit_code == 1
    assert refused.output == (
        "error: The body of 1 delivery is archived, of keycrm/shop in 2026-03."
        f" To have them back: {hint}.\n"
    )
    assert hint in stageline("replay", one).output
    partly = stageline("replay", "--all")
    assert "note: The bodies of 4 deliveries are archived" in partly.output
    assert "and of 1 more months" in partly.output
    assert "Read again: 1. New stage events: 0." in partly.output

    restored = stageline("archive", "restore", "--project", "shop", "--month", "2026-03")
    assert "Restored: 3 deliveries of 1 files.\n" in restored.output
    assert said() == expected(*deliveries, kept_here)
    again = stageline("archive", "restore", "--project", "shop")
    assert "Restored: 0 deliveries of 1 files. 3 were there already." in again.output
    assert stageline("deliveries", "--body", one).stdout_bytes == deliveries[0].delivery.body
    assert "Read again: 1. New stage events: 0." in stageline("replay", one).output

    now = datetime.now(UTC)
    assert archive_all(now + timedelta(days=29)) == [], "it is held for 30 days, April with it"
    assert len(said()) == 4
    archive_all(now + timedelta(days=31))
    assert said() == {}
    assert [each.restored_at for each in archive.archives(month=date(2026, 3, 1))] == [None] * 2


def test_what_a_file_does_not_hold_as_it_was_written_is_not_put_back(folder: Path) -> None:
    land(came(1, MARCH))
    (file,) = archive_all()
    path = folder / file.file_name
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"shop", b"shep"))
    for command in (("list", "--verify"), ("restore", "--all")):
        refused = stageline("archive", *command)
        assert refused.exit_code == 1
        assert f"The archive {path} is not what was written" in refused.output
        assert "Put it back from a copy." in refused.output
    path.unlink()
    assert "1 of 1 files are missing" in stageline("archive", "list").output
    missing = stageline("archive", "restore", "--all")
    assert f"{path} cannot be read: it is missing." in missing.output
    assert said() == {}
    path.write_bytes(whole)
    assert "Each is as it was written." in stageline("archive", "list", "--verify").output
    folder.rename(folder.with_name("unmounted"))
    assert f"There is no folder {folder}" in stageline("archive", "restore", "--all").output


def test_a_file_of_somebody_else_is_left_alone(folder: Path) -> None:
    land(came(1, MARCH))
    other = folder / "keycrm" / "shop" / "2026-03.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another database")
    assert [each.file_name for each in archive_all()] == ["keycrm/shop/2026-03.2.parquet"]
    assert other.read_bytes() == b"of another database"


# What must not be archived


def test_a_body_that_is_not_what_came_stays(folder: Path) -> None:
    land(came(1, MARCH), came(2, MARCH))
    with connect("owner") as session:
        session.execute(
            "update raw.delivery_bodies set body = 'x' where delivery_id = %s",
            [came(2, MARCH).delivery_id],
        )
    with pytest.raises(StagelineError, match="in the database is not what came"):
        archive_all()
    assert len(said()) == 2
    assert not list(folder.rglob("*.parquet"))


@pytest.mark.parametrize("fault", ["other bytes", "one less"])
def test_a_disk_that_is_not_sound_takes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    land(came(1, MARCH), came(2, MARCH))
    soundly = archive_files.write

    def write(where: Path, name: str, bodies: Iterator[archive_files.Body]) -> None:
        first, *others = bodies
        soundly(
            where, name, [*([] if fault == "one less" else [replace(first, body=b"x")]), *others]
        )

    monkeypatch.setattr(archive_files, "write", write)
    with pytest.raises(StagelineError, match="its disk is not sound"):
        archive_all()
    assert len(said()) == 2
    monkeypatch.undo()
    assert folder.is_dir()


def test_one_process_at_a_time(folder: Path) -> None:  # noqa: ARG001
    land(came(1, MARCH))
    with connect("jobs") as session:
        session.execute("select pg_advisory_lock(%s)", [archive._LOCK])
        refused = stageline("archive")
        assert refused.exit_code == 75
        assert "Another process archives or restores now." in refused.output


# The command and its configuration


def test_the_command_says_what_is_due_and_what_was_done(folder: Path) -> None:
    assert "Nothing is due." in stageline("archive").output
    assert stageline("archive", "list").output == "None.\n"
    land(came(1, MARCH), came(2, MARCH))
    due = stageline("archive", "--dry-run").output
    assert "keycrm/shop  2026-03           2" in due
    assert f"Would be archived: 2 deliveries, to {folder}." in due
    assert len(said()) == 2
    assert "Archived: 2 deliveries in 1 files" in stageline("archive").output
    assert "keycrm/shop/2026-03.parquet" in stageline("archive", "list").output
    assert "Say what to restore" in stageline("archive", "restore").output
    assert "has no dry run" in stageline("archive", "--dry-run", "restore", "--all").output
    assert "is no month" in stageline("archive", "list", "--month", "March").output
    nothing = stageline("archive", "restore", "--project", "other")
    assert "Nothing of that is archived." in nothing.output


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "No folder is named in"),
        ("folder: x\n", "line 1, column 1: after_months is missing: folder needs it."),
        ("after_months: 3\n", "folder is missing: after_months needs it."),
        ("folder: x\nafter_months: 0\n", "line 2, column 1: after_months: "),
        ("folder: x\nafter_month: 3\n", "Did you mean after_months?"),
        ("folder: nowhere/here\nafter_months: 3\n", f"There is no folder {PROJECT_ROOT}/nowhere"),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, problem: str
) -> None:
    configured(monkeypatch, tmp_path, text)
    refused = stageline("archive")
    assert refused.exit_code == 1
    assert problem in refused.output
    assert refused.output.count("\n") == 1


def test_as_shipped_nothing_is_archived() -> None:
    assert archive_config.read(PROJECT_ROOT / "jobs" / "archive.yml") is None


def test_the_worker_makes_months_and_archives_once_a_day() -> None:
    from jobs.worker import periodic_tasks

    (task,) = (task for task in periodic_tasks() if task.name == "archive")
    assert len(task.cron.split()) == 5
    land(came(1, MARCH))
    done = task.work()
    assert done == {"partitions": 1, "files": 1, "deliveries": 1}
    assert task.work() is None


# The tables of months


def test_there_is_a_table_for_each_month_to_come_and_none_for_what_is_archived() -> None:
    def following(number: int) -> str:
        first = datetime.now(UTC).replace(day=1)
        for _ in range(number):
            first = (first + timedelta(days=31)).replace(day=1)
        return f"{first:%Y_%m}"

    usual = {"default", *(following(number) for number in range(4))}
    assert months() == usual
    land(came(1, MARCH), came(2, APRIL), came(3, datetime(2099, 12, 31, 23, tzinfo=UTC)))
    before = said()
    assert archive.make_partitions() == 3
    assert months() == usual | {"2026_03", "2026_04", "2099_12"}
    assert said() == before
    assert archive.make_partitions() == 0
    archive_all()
    assert months() == usual | {"2099_12"}
    list(archive.restore(rules(), archive.archives()))
    assert said() == before


def test_whoever_reads_holds_up_the_tables_of_months_and_nobody_holds_up_the_receiver() -> None:
    land(came(1, MARCH))
    archive.make_partitions()
    land(came(2, APRIL))
    with connect("transformer") as reading, ThreadPoolExecutor(1) as pool:
        reading.execute("select from raw.delivery_bodies")
        assert archive.make_partitions() == 0
        archiving = pool.submit(archive_all)
        numbers = iter(range(100, 100_000))
        while not archiving.done():  # raises where one takes longer than senders wait
            land(came(next(numbers), datetime.now(UTC)), at_once=False)
        assert len(archiving.result()) == 2
        assert "2026_03" in months()
    archive_all()
    assert "2026_03" not in months()
    assert len(said()) == next(numbers) - 100


def test_deliveries_that_were_there_before_go_to_their_months() -> None:
    migrate.downgrade("0022")
    texts = [os.urandom(3000) for _ in range(40)]
    with connect("owner") as session:
        session.execute("create view staging.of_dbt as select * from raw.deliveries")
        for number, body in enumerate(texts):
            session.execute(
                "insert into raw.deliveries (delivery_id, sender, source_system, project_id,"
                " received_at, landed_at, check_ids, headers, body, body_sha256, entity_ids,"
                " unparsed_reason)"
                " values (%s, 'keycrm', 'keycrm', 'shop', %s, now(), '{1}', %s, %s, sha256(%s),"
                " '{7}', %s)",
                [
                    *(UUID(int=number), (MARCH, APRIL)[number % 2], Jsonb({"n": str(number)})),
                    *(body, body, "why" if number == 3 else None),
                ],
            )
    old = "select delivery_id, received_at, headers, body from raw.deliveries order by 1"
    known = (
        "select delivery_id, sender, received_at, landed_at, landed_xid::text, check_ids,"
        " body_sha256, entity_ids from raw.deliveries order by 1"
    )
    size = "select pg_table_size('raw.deliveries')"
    with connect("owner") as session:
        before = session.execute(old).fetchall()
        about = session.execute(known).fetchall()
        unread = session.execute("select * from raw.unparsed_deliveries").fetchall()

    migrate.upgrade()
    found = said()
    assert found == {key: (at, headers, bytes(body)) for key, at, headers, body in before}
    assert {hashlib.sha256(body).digest() for _, _, body in found.values()} == {
        hashlib.sha256(body).digest() for body in texts
    }
    with connect("owner") as session:
        assert session.execute(known).fetchall() == about
        assert session.execute("select * from raw.unparsed_deliveries").fetchall() == unread
        ((room,),) = session.execute(size).fetchall()
        assert room < sum(map(len, texts)), "the room of the bodies was given back"
        of_months = session.execute(
            "select tableoid::regclass::text, count(*) from raw.delivery_bodies"
            " group by 1 order by 1"
        ).fetchall()
    assert of_months == [
        ("raw.delivery_bodies_2026_03", 20),
        ("raw.delivery_bodies_2026_04", 20),
    ]

    migrate.downgrade("0022")
    with connect("owner") as session:
        assert session.execute(old).fetchall() == before
        assert session.execute(known).fetchall() == about


def test_archived_bodies_are_not_lost_by_a_step_down() -> None:
    land(came(1, MARCH))
    archive_all()
    with pytest.raises(Exception, match="stageline archive restore"):
        migrate.downgrade("0022")
    assert migrate.current() == migrate.head()


# What KPIs are made of


def test_no_model_reads_what_deliveries_said() -> None:
    texts = [
        path
        for folder in ("models", "macros", "snapshots", "tests/data")
        for path in (PROJECT_ROOT / folder).rglob("*")
        if path.suffix in (".sql", ".yml")
    ]
    assert len(texts) > 100
    assert [path for path in texts if "delivery_bodies" in path.read_text()] == []
