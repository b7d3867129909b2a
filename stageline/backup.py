"""Backups: one file that holds everything of the database, and its way back into an empty one.

A backup is a zip with the dump as ``pg_dump`` writes it (custom format) and a manifest behind it,
which holds its checksum. So whether a file is whole can be told from the file alone, and without
Stageline ``unzip -p FILE database.dump | pg_restore`` reads it.
"""

import hashlib
import json
import os
import re
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql

from stageline import migrate, server
from stageline.database import connect, connection
from stageline.errors import StagelineError
from stageline.roles import WORKERS
from stageline.settings.encryption import decrypt
from stageline.whole_files import whole_file

_DUMP, _MANIFEST = "database.dump", "manifest.json"

#: The layout of the zip.
_FORMAT = 1

#: Schemas of the migrations that belong to the owner; all others belong to roles of Stageline.
_OF_OWNER = ("ops", "raw", "settings")

#: Bytes that are read at once.
_CHUNK = 1024 * 1024

#: Seconds that a restore waits for whoever uses the tables that it replaces.
_LOCK_SECONDS = 10

#: Called with each number of bytes that was read or written. What it raises ends the work.
Watch = Callable[[int], None]


@dataclass(frozen=True)
class Manifest:
    """What a backup holds.

    Attributes:
        made_at: When, ISO 8601 in UTC: what was committed before is in it.
        migration: Which one its tables are at.
        server_version: Major version of the server.
        owner: Login that owned the tables.
        dump_bytes, dump_sha256: Of the dump.
    """

    made_at: str
    migration: str
    server_version: int
    owner: str
    dump_bytes: int
    dump_sha256: str


def file_name(now: datetime) -> str:
    """What a backup of that moment is called; names sort by time."""
    return f"stageline-{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}.zip"


#: Names of that form.
NAMES = "stageline-????-??-??T??????Z.zip"


def write(path: Path, watch: Watch) -> Manifest:
    """Makes a backup, and reads it again to see that it can be restored.

    It shows the database as it was at one moment. Who reads or writes meanwhile is not held up, but
    no table can be dropped: no build may run.

    Args:
        path: The file, which only its owner may read. It is there whole or not at all.
        watch: Told of the bytes; not of how many there will be.

    Raises:
        StagelineError: there is such a file, it cannot be written, the server is newer than
            ``pg_dump`` or says no.
    """
    if path.exists():
        raise StagelineError(f"{path} is there already. Name another file, or remove it.")
    made_at = datetime.now(UTC)
    migration = migrate.current()
    if migration is None:
        raise StagelineError("There is nothing to back up: the database was never set up.")
    with connect("owner") as session:
        schemas = _schemas(session)
        major = session.info.server_version // 10000
        owner = session.info.user
    with whole_file(path, "Free some space, or name another folder.", 0o600) as file:
        with zipfile.ZipFile(file, "w") as archive:
            entry = zipfile.ZipInfo(_DUMP, made_at.timetuple()[:6])
            with (
                archive.open(entry, "w", force_zip64=True) as dump,
                closing(_dumped(schemas)) as chunks,
            ):
                size, digest = _copy(chunks, dump.write, watch)
            manifest = Manifest(
                made_at.isoformat(timespec="seconds"),
                *(migration, major, owner, size, digest),
            )
            about = {"format": _FORMAT, **asdict(manifest)}
            archive.writestr(_MANIFEST, json.dumps(about, indent=2))
        file.flush()
        _require_restorable(Path(file.name), path, watch)
    return manifest


def read_manifest(path: Path) -> Manifest:
    """What the backup in a file says of itself.

    Raises:
        StagelineError: it is no backup, was cut short, or is of a newer Stageline.
    """
    with _opened(path, path) as archive:
        return _manifest(archive, path)


def require_whole(path: Path, watch: Watch) -> Manifest:
    """Reads a backup through.

    Raises:
        StagelineError: it is not as it was written.
    """
    return _require_restorable(path, path, watch)


def restore(path: Path, watch: Watch, *, replace: str | None = None) -> Manifest:
    """Makes the configured database what it was when the backup was made.

    In one transaction: what was there stays unless all of it comes back. Tables are brought up to
    date afterwards. All that counts transactions begins anew, as those of another server say
    nothing here: so the next build is made from nothing.

    Args:
        path: The backup.
        watch: Told of the bytes that are read: twice those of the dump, and a little more.
        replace: Name of the database, where data of its own are to be lost.

    Raises:
        StagelineError: the file is not whole or of a newer Stageline; the database holds data, is
            in use, or says no.
    """
    manifest = read_manifest(path)
    if manifest.migration > migrate.head():
        raise StagelineError(
            f"{path} was made by a newer Stageline (migration {manifest.migration}; this one knows"
            f" {migrate.head()}). Update this checkout, then restore."
        )
    with connect("owner") as session:
        dbname, login = session.info.dbname, session.info.user
        if replace != dbname and _holds_data(session):
            raise StagelineError(
                f"Database {dbname} holds data, which a restore would replace. Restore into an"
                f" empty one, or lose them with: --replace {dbname}"
            )
        schemas = _schemas(session)
        major = session.info.server_version // 10000
    require_whole(path, watch)
    migrate.make_roles()
    with _transaction() as run:
        run(_before(schemas))
        for section in ("pre-data", "data", "post-data"):
            with _script(path, section, watch if section == "data" else _unwatched) as script:
                for part in _fitting(script, manifest.owner, login, major):
                    run(part)
    migrate.upgrade()
    with connect("owner") as session:
        _count_anew(session)
    with connect("owner", autocommit=True) as session:
        session.execute("set client_min_messages = error")  # those of the server are not ours
        session.execute("analyze")
    return manifest


def _count_anew(session: psycopg.Connection[Any]) -> None:
    """Lets all rows be looked at once more by what goes by transactions.

    That sees itself that a server is another one, but not that the dump was on this one before.
    """
    session.execute("update ops.follow_up_position set server = ''")
    session.execute("update ops.load_positions set position = position - 'server'")
    session.execute("delete from ops.unchanged_nodes")
    for table in ("flow_positions", "int_call_hours_positions", "int_pipeline_items_positions"):
        row = session.execute(
            "select to_regclass(%s) is not null", [f"intermediate.{table}"]
        ).fetchone()
        if row and row[0]:  # there since the first build
            session.execute(
                sql.SQL("update {} set position = '0'").format(
                    sql.Identifier("intermediate", table)
                )
            )


def unreadable_secrets() -> int:
    """How many stored secrets cannot be decrypted with the configured key."""
    with connect("owner") as session:
        tokens = session.execute(
            "select token_encrypted from settings.api_accounts union all"
            " select secret_encrypted from settings.webhook_checks"
            " where secret_encrypted is not null"
        ).fetchall()
    return sum(not _can_decrypt(token) for (token,) in tokens)


def _can_decrypt(token: str) -> bool:
    try:
        decrypt(token)
    except StagelineError:
        return False
    return True


def _unwatched(_: int) -> None:
    pass


def _schemas(session: psycopg.Connection[Any]) -> list[str]:
    """Those of Stageline that are there; schemas of the user's are left alone."""
    rows = session.execute(
        "select nspname from pg_namespace"
        " where pg_get_userbyid(nspowner) = any(%s) or nspname = any(%s) order by nspname",
        [list(WORKERS), list(_OF_OWNER)],
    )
    return [name for (name,) in rows]


def _holds_data(session: psycopg.Connection[Any]) -> bool:
    """Whether anything was received, loaded, set or built."""
    for table in ("raw.deliveries", "ops.loads", "settings.audit_log", "ops.builds"):
        schema, name = table.split(".")
        row = session.execute("select to_regclass(%s) is not null", [table]).fetchone()
        if row and row[0]:
            query = sql.SQL("select exists (select from {})").format(sql.Identifier(schema, name))
            row = session.execute(query).fetchone()
            if row and row[0]:
                return True
    return False


def _copy(chunks: Iterator[bytes], put: Callable[[bytes], object], watch: Watch) -> tuple[int, str]:
    """Size and checksum of what was copied."""
    size, digest = 0, hashlib.sha256()
    for chunk in chunks:
        put(chunk)
        digest.update(chunk)
        size += len(chunk)
        watch(len(chunk))
    return size, digest.hexdigest()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


# -- Reading a backup ----------------------------------------------------------------------------


@contextmanager
def _opened(path: Path, called: Path) -> Iterator[zipfile.ZipFile]:
    """The zip; mistakes are told of the file as the user knows it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except BrokenPipeError:
        raise  # of a process that takes what is read
    except OSError as error:
        raise StagelineError(f"{called} cannot be read: {error.strerror or error}.") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise StagelineError(
            f"{called} is no backup, or was cut short or changed ({error}). Take another one."
        ) from None


def _manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    try:
        about = json.loads(archive.read(_MANIFEST))
        found = about.pop("format")
        if found != _FORMAT:
            raise StagelineError(
                f"{path} has the layout {found}, this Stageline knows {_FORMAT}."
                " Update this checkout, then restore."
            )
        archive.getinfo(_DUMP)
        return Manifest(**about)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StagelineError(
            f"{path} is no backup: `stageline backup` makes files like"
            f" {file_name(datetime.now(UTC))}."
        ) from None


def _require_restorable(path: Path, called: Path, watch: Watch) -> Manifest:
    """Compares the checksum, and has ``pg_restore`` read all of it."""
    with _opened(path, called) as archive, tempfile.TemporaryFile() as said:
        manifest = _manifest(archive, called)
        reader = subprocess.Popen(
            [server.program("pg_restore"), f"--file={os.devnull}"],
            stdin=subprocess.PIPE,
            stderr=said,
            env=_environment(),
        )
        assert reader.stdin is not None  # noqa: S101 - asked for above
        with reader, archive.open(_DUMP) as dump:
            try:
                size, digest = _copy(_chunks(dump), _put_if_open(reader.stdin), watch)
            except BaseException:
                reader.kill()
                raise
            with suppress(BrokenPipeError):
                reader.stdin.close()
        if (size, digest) != (manifest.dump_bytes, manifest.dump_sha256) or reader.returncode:
            raise StagelineError(
                f"{called} is not as it was written: {_complaint(said) or 'its checksum differs'}."
                " Take another one."
            )
    return manifest


def _put_if_open(pipe: IO[bytes]) -> Callable[[bytes], object]:
    """Writes to a process that may end before it took everything: its exit code tells why."""

    def put(chunk: bytes) -> None:
        with suppress(BrokenPipeError):
            pipe.write(chunk)

    return put


def _complaint(said: IO[bytes]) -> str:
    """The first error that a program of PostgreSQL told, without its prefix."""
    said.seek(0)
    lines = said.read().decode(errors="replace").splitlines()
    found = next((line for line in lines if re.search(r"\berror: |\bERROR: ", line)), "")
    return re.sub(r"^.*?\b(error|ERROR): +", "", found).strip().rstrip(".")


def _environment() -> dict[str, str]:
    """That of PostgreSQL's programs: without a login, and English, as their words are read here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _login() -> dict[str, str]:
    """The same, logged in as the owner."""
    return {**_environment(), **connection("owner").environment()}


# -- pg_dump -------------------------------------------------------------------------------------


def _dumped(schemas: list[str]) -> Generator[bytes]:
    """The dump as it comes.

    Raises:
        StagelineError: it did not come whole.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [
                server.program("pg_dump"),
                *("--format=custom", "--compress=gzip:1", "--no-password"),
                f"--lock-wait-timeout={_LOCK_SECONDS}s",
                *(f'--schema="{name}"' for name in schemas),
            ],
            stdout=subprocess.PIPE,
            stderr=said,
            env=_login(),
        )
        assert process.stdout is not None  # noqa: S101 - asked for above
        with process:
            try:
                yield from _chunks(process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            said.seek(0)
            if b"server version mismatch" in said.read():
                raise StagelineError(
                    "The server is newer than pg_dump, which comes with Stageline. Update this"
                    " checkout, or use the pg_dump of that server."
                )
            raise StagelineError(f"pg_dump failed: {_complaint(said)}. Nothing was written.")


# -- psql ----------------------------------------------------------------------------------------


@contextmanager
def _transaction() -> Iterator[Callable[[bytes], object]]:
    """Takes a script for psql, in a transaction that is committed only if the block ends well.

    Raises:
        StagelineError: the server said no; nothing was changed.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [
                server.program("psql"),
                *("--no-psqlrc", "--quiet", "--no-password"),
                *("--set=ON_ERROR_STOP=1", "--file=-"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=_login(),
        )
        assert process.stdin is not None  # noqa: S101 - asked for above
        try:
            # A script that ends early, as when this process is killed, is not committed.
            process.stdin.write(b"begin;\n")
            yield process.stdin.write
            process.stdin.write(b"commit;\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended, and says why
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        if process.returncode:
            reason = _complaint(said) or f"psql ended with code {process.returncode}"
            if "lock timeout" in reason:
                reason = "its tables are in use; stop the receiver, the worker and builds"
            raise StagelineError(f"Nothing was restored: {reason}.")


def _before(schemas: list[str]) -> bytes:
    """Makes room. That it may not wait for long is undone by the first line of a dump."""
    script = f"set client_min_messages = warning; set lock_timeout = '{_LOCK_SECONDS}s';\n"
    if schemas:
        names = sql.SQL(", ").join(map(sql.Identifier, schemas)).as_string(None)
        script += f"drop schema {names} cascade;\n"
    return script.encode()


@contextmanager
def _script(path: Path, section: str, watch: Watch) -> Iterator[IO[bytes]]:
    """A section of the dump as SQL.

    Raises:
        StagelineError: ``pg_restore`` failed.
    """
    with tempfile.TemporaryFile() as said, _opened(path, path) as archive:
        process = subprocess.Popen(
            [
                server.program("pg_restore"),
                *("--file=-", f"--section={section}", "--no-tablespaces"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=_environment(),
        )
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - asked for above
        feeding = threading.Thread(target=_feed, args=(archive, process.stdin, watch), daemon=True)
        with process:
            feeding.start()
            try:
                yield process.stdout
            except BaseException:
                process.kill()
                raise
            finally:
                feeding.join()
        if process.returncode:
            raise StagelineError(f"Nothing was restored: {_complaint(said)}.")


def _feed(archive: zipfile.ZipFile, pipe: IO[bytes], watch: Watch) -> None:
    with suppress(BrokenPipeError), archive.open(_DUMP) as dump:
        _copy(_chunks(dump), pipe.write, watch)
    with suppress(BrokenPipeError):
        pipe.close()


def _fitting(script: IO[bytes], owner: str, login: str, major: int) -> Iterator[bytes]:
    """The script for another owner, and for a server that may know fewer settings.

    Lines are looked at up to the first data: of a section with data, only its head is more.
    """
    names = [re.escape(name.encode()) for name in (owner, f'"{owner}"')]
    owned = re.compile(
        rb"(?P<head>ALTER .* OWNER TO |ALTER DEFAULT PRIVILEGES FOR ROLE |"
        rb"(?:GRANT|REVOKE) .* (?:TO|FROM) )(?:%s)(?P<tail>;| IN SCHEMA .*;)\n" % b"|".join(names)
    )
    new = sql.Identifier(login).as_string(None).encode()
    for line in script:
        if line.startswith(b"COPY "):
            yield line
            yield from _chunks(script)
        elif line == b"SET transaction_timeout = 0;\n" and major < 17:
            continue
        elif owner != login and (found := owned.fullmatch(line)):
            yield found["head"] + new + found["tail"] + b"\n"
        else:
            yield line
