"""The folder ``.stageline``: where a server's data lie, its port and passwords, and its lock."""

import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from stageline import postgres_install as install
from stageline.config import settings
from stageline.errors import StagelineError
from stageline.postgres_install import Account
from stageline.roles import WORKERS

#: Name of the database, unless ``server.json`` says otherwise.
DBNAME = "stageline"

#: The login that owns the database.
OWNER = "stageline_owner"

_LOCK_SECONDS = 300


@dataclass
class Site:
    """Where a server is and how it is run, and what to tell the user in the end.

    Attributes:
        home: The folder ``.stageline``.
        preferred_port: TCP port to try first, where none is remembered.
        durable: Whether fsync is on (always, but for tests).
        data: The data folder, symbolic links resolved; need not exist yet.
        who: The account that runs the server; None for the user of this process.
        notes: One line each, for the user.
        created: Whether this call made the data folder.
    """

    home: Path
    preferred_port: int
    durable: bool
    data: Path
    who: Account | None
    notes: list[str] = field(default_factory=list)
    created: bool = False


def home() -> Path:
    """The folder of the embedded server, absolute."""
    return settings().home.expanduser().absolute()


def log_file(folder: Path) -> Path:
    """Where the server below ``folder`` writes its log."""
    return folder / "postgres.log"


def remembered_port(folder: Path) -> int | None:
    """The port that the server of ``folder`` had last."""
    port = read(folder / "server.json").get("port")
    return int(port) if port else None


def make_home(folder: Path) -> None:
    """Makes the home, if it does not exist.

    Raises:
        StagelineError: it cannot be made.
    """
    try:
        # Root's server runs under another account, which has to pass through; no more than that.
        folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StagelineError(
            f"Cannot create {folder}: {error.strerror}."
            " Set STAGELINE_HOME to a folder that you may write to."
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the home's lock; the lock ends with the process, so it can never be stale.

    Raises:
        StagelineError: the home is not the user's, or another command holds the lock for minutes.
    """
    try:
        handle = (folder / "lock").open("a")
    except OSError as error:
        raise StagelineError(
            f"Cannot write to {folder} ({error.strerror}): it belongs to another user."
            " Run `stageline` as that user, or set STAGELINE_HOME to a folder of your own."
        ) from None
    with handle:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StagelineError(
                        f"Another `stageline` command has held {folder / 'lock'} for"
                        f" {_LOCK_SECONDS} seconds. End it, then try again."
                    ) from None
                time.sleep(0.1)
        yield


def data_folder(folder: Path, *, create: bool = True) -> tuple[Path, list[str]]:
    """Where the data are or shall be, and what to say about it.

    Raises:
        StagelineError: root's server cannot enter the home, and there is no other place for it.
    """
    link = folder / "postgres"
    if link.is_symlink() or link.exists():
        return link.resolve(), []
    who = install.account(link)
    if who is None or install.can_enter(folder, who) or not create:
        return folder.resolve() / "postgres", []
    refuge = install.REFUGE / sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    try:
        install.REFUGE.mkdir(mode=0o755, parents=True, exist_ok=True)
        refuge.mkdir(mode=0o711, exist_ok=True)
        (refuge / "home").write_text(str(folder.resolve()))
        link.symlink_to(refuge / "postgres")
    except OSError as error:
        raise StagelineError(
            f"Account `{who.name}`, which has to run PostgreSQL for root, cannot enter {folder},"
            f" and {refuge} cannot be made ({error.strerror})."
            " Set STAGELINE_HOME to a folder that every account can enter."
        ) from None
    return refuge / "postgres", [
        f"The data is in {refuge / 'postgres'}: account `{who.name}`, which runs PostgreSQL for"
        f" root, cannot enter {folder}."
    ]


def refuse_if_copied(site: Site) -> None:
    """Refuses to share data that lies elsewhere with a checkout that this one was copied from."""
    marker = site.data.parent / "home"
    if not (site.home / "postgres").is_symlink() or not marker.exists():
        return
    other = Path(marker.read_text())
    if other == site.home.resolve():
        return
    if (other / "postgres").is_symlink() and (other / "postgres").resolve() == site.data:
        raise StagelineError(
            f"{site.home} is a copy of {other} and points to the same data, {site.data}."
            f" Remove {site.home} to start with data of its own."
        )
    marker.write_text(str(site.home.resolve()))  # it was moved, not copied


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file at once, readable by its owner alone (a crash leaves the old one)."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; empty where there is no such file.

    Raises:
        StagelineError: the file is another user's, or damaged.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise StagelineError(
            f"Cannot read {path}: it belongs to another user. Run `stageline` as that user."
        ) from None
    except ValueError:
        raise StagelineError(
            f"{path} is damaged. Remove it and run `stageline up`: it is made anew."
        ) from None
    return content if isinstance(content, dict) else {}


def superuser_password(folder: Path) -> str | None:
    """The superuser's password, if it is known."""
    password = read(folder / "credentials.json").get("postgres")
    return str(password) if password else None


def credentials(folder: Path) -> dict[str, str]:
    """All passwords; those that do not exist yet are made and kept first."""
    path = folder / "credentials.json"
    known = read(path)
    complete = {
        name: str(known.get(name) or secrets.token_urlsafe(24))
        for name in ("postgres", OWNER, *WORKERS)
    }
    if complete != known:
        _write_private(path, complete)
    return complete


def first_port(site: Site) -> int:
    """The port to try first: the last one, unless another was asked for since."""
    known = read(site.home / "server.json")
    if known.get("preferred_port", site.preferred_port) != site.preferred_port:
        return site.preferred_port
    return int(known.get("port") or site.preferred_port)


def remember(site: Site, port: int, *, started: bool) -> None:
    """Writes down where the server listens, if that is news."""
    known = read(site.home / "server.json")
    now = {"dbname": DBNAME, **known, "port": port, "data": str(site.data)}
    if started:
        now["preferred_port"] = site.preferred_port
    if now != known:
        _write_private(site.home / "server.json", now)
