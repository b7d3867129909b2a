"""What can be wrong with a machine or a configuration, and how to mend it: one check each."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import psycopg

from stageline import dbt_environment, migrate, roles, server
from stageline import postgres_install as install
from stageline.config import PROJECT_ROOT, settings
from stageline.database import ROLES, connect, connection
from stageline.errors import StagelineError

#: Bytes that have to be free for the database to work at all.
_LEAST_FREE = 1_000_000_000

#: Seconds that the clock of a database server may differ from this machine's.
_CLOCK_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was looked at.
        is_ok: Whether it is as it should be.
        detail: What was found.
        remedy: What to do, where it is not ok and ``detail`` does not say it already.
    """

    check: str
    is_ok: bool
    detail: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Runs every check, in the order in which they build on one another."""
    own_server = settings().database_url is not None
    local: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("configuration file", _env_file),
        ("clock", _clock),
    ]
    if not own_server:
        local += [
            ("PostgreSQL's programs", _programs),
            ("folder", _folder),
            ("free disk", _free_disk),
            ("port", _port),
        ]
    for name, check in local:
        yield _safely(name, check)
    reachable = _safely("server", _server)
    yield reachable
    if not reachable.is_ok:
        return
    for name, check in (
        ("migrations", _migrations),
        ("roles", _roles),
        ("rights on the database", _rights),
        ("logins", _logins),
        ("server's clock", _server_clock),
        ("variables for dbt", _dbt_variables),
        ("dbt", _dbt),
    ):
        yield _safely(name, check)


def _safely(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except StagelineError as error:
        return Finding(name, False, str(error).splitlines()[0])  # it says itself what to do
    except (OSError, psycopg.Error) as error:
        return Finding(name, False, str(error).strip().splitlines()[0], "Run `stageline up`.")


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding(
        "Python",
        sys.version_info >= (3, 11),
        f"{version} at {sys.executable}",
        "Install Python 3.11 or newer, remove .venv, then run `make demo`.",
    )


def locked(text: str) -> dict[str, str]:
    """Package -> version of a lock file; entries for another platform are left out."""
    from packaging.markers import InvalidMarker, Marker

    found: dict[str, str] = {}
    for line in text.splitlines():
        entry = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]+))?", line)
        if entry is None:
            continue
        name, version, marker = entry.groups()
        try:
            if marker and not Marker(marker.strip()).evaluate():
                continue
        except InvalidMarker:
            continue
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found


def _packages() -> Finding:
    lock = PROJECT_ROOT / "requirements.lock"
    wanted = locked(lock.read_text())
    wrong: list[str] = []
    for name, version in wanted.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if installed != version:
            wrong.append(f"{name} is {installed}, not {version}")
    detail = f"{len(wanted)} as in {lock.name}"
    if wrong:
        detail = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return Finding(
        "packages",
        not wrong,
        detail,
        f"Run `{sys.executable} -m pip install --no-deps --require-hashes -r {lock}`.",
    )


def _env_file() -> Finding:
    path = settings().env_file
    if not path.is_file():
        return Finding("configuration file", True, f"{path}: none, all defaults")
    is_private = not path.stat().st_mode & 0o077
    return Finding(
        "configuration file",
        is_private,
        f"{path}, "
        + ("for its owner alone" if is_private else "others can read the passwords in it"),
        f"Run `chmod 600 {path}`.",
    )


def _clock() -> Finding:
    """A clock far behind its own software is wrong: then freshness and `as_of` are wrong, too."""
    newest = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
    now = datetime.now(UTC)
    is_ok = now >= newest and now.year < 2100
    return Finding(
        "clock",
        is_ok,
        f"{now:%Y-%m-%d %H:%M:%S} UTC"
        + ("" if is_ok else ", which is before Stageline was installed"),
        "Set the clock of this machine (NTP).",
    )


def _programs() -> Finding:
    who = install.account(server.home() / "postgres")
    folder = install.programs(who)
    result = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    detail = f"{result.stdout.strip()} in {folder}"
    return Finding(
        "PostgreSQL's programs", True, detail + (f", run as `{who.name}`" if who else "")
    )


def _folder() -> Finding:
    home = server.home()
    place = home if home.exists() else next(p for p in home.parents if p.exists())
    is_ok = os.access(place, os.W_OK | os.X_OK)
    credentials = home / "credentials.json"
    if is_ok and credentials.exists() and credentials.stat().st_mode & 0o077:
        return Finding(
            "folder", False, f"others can read {credentials}", f"Run `chmod 600 {credentials}`."
        )
    return Finding(
        "folder",
        is_ok,
        f"{home}" + ("" if is_ok else f": {place} is not writable"),
        "Run `stageline` as the owner of that folder, or set STAGELINE_HOME to another.",
    )


def _free_disk() -> Finding:
    home = server.home()
    place = (home / "postgres").resolve()
    place = place if place.exists() else next(p for p in place.parents if p.exists())
    free = shutil.disk_usage(place).free
    return Finding(
        "free disk",
        free >= _LEAST_FREE,
        f"{free / 1e9:.1f} GB at {place}",
        f"Free at least {_LEAST_FREE / 1e9:.0f} GB there, or set STAGELINE_HOME to another disk.",
    )


def _port() -> Finding:
    found = server.find(server.home())
    if found is not None:
        return Finding("port", True, f"{found.port}, ours")
    port = server.remembered_port(server.home()) or settings().port
    if server.is_free(port):
        return Finding("port", True, f"{port} is free")
    return Finding(
        "port", True, f"{port} is in use by another program; `stageline up` takes the next"
    )


def _server() -> Finding:
    if settings().database_url is None and server.find(server.home()) is None:
        return Finding(
            "server", False, "the embedded PostgreSQL does not run", "Run `stageline up`."
        )
    with connect("owner") as session:
        number = session.info.server_version
        target = connection("owner")
        return Finding(
            "server",
            number >= roles.LEAST_VERSION * 10000,
            f"PostgreSQL {number // 10000}.{number % 10000} on {target.host}:{target.port},"
            f" database {target.dbname}",
            f"Use PostgreSQL {roles.LEAST_VERSION} or newer.",
        )


def _migrations() -> Finding:
    current = migrate.current()
    return Finding(
        "migrations",
        current == migrate.head(),
        f"at {current or 'none'}, the newest is {migrate.head()}",
        "Run `stageline up`.",
    )


def _roles() -> Finding:
    with connect("owner") as session:
        lacking = roles.missing(session)
    return Finding(
        "roles",
        not lacking,
        f"{len(roles.WORKERS)} exist" if not lacking else f"not to be had: {', '.join(lacking)}",
        "Run `stageline up`.",
    )


def _rights() -> Finding:
    with connect("owner") as session:
        is_ok = roles.rights_are_set(session)
    return Finding(
        "rights on the database",
        is_ok,
        "only Stageline's roles may connect" if is_ok else "not as Stageline sets them",
        "Run `stageline up`.",
    )


def _logins() -> Finding:
    """Each role logs in and is who it should be."""
    wrong: list[str] = []
    for role in ROLES:
        if role == "owner":
            continue
        try:
            with connect(role) as session:
                row = session.execute("select current_user").fetchone()
            if row != (f"stageline_{role}",):
                wrong.append(f"{role} is {row[0] if row else 'nobody'}")
        except (StagelineError, psycopg.Error) as error:
            wrong.append(f"{role}: {str(error).splitlines()[0]}")
    return Finding(
        "logins",
        not wrong,
        "every role connects" if not wrong else wrong[0],
        "Run `stageline down`, then `stageline up`."
        if settings().database_url is None
        else "Run `stageline up`.",
    )


def _server_clock() -> Finding:
    with connect("owner") as session:
        row = session.execute("select clock_timestamp()").fetchone()
    difference = abs((datetime.now(UTC) - row[0]).total_seconds()) if row else 0.0
    return Finding(
        "server's clock",
        difference <= _CLOCK_SECONDS,
        f"differs by {difference:.1f} s",
        "Set the clocks of both machines (NTP).",
    )


def _dbt_variables() -> Finding:
    from dotenv import dotenv_values

    path = settings().env_file
    kept = dotenv_values(path) if path.is_file() else {}
    wrong = [
        name
        for name, value in dbt_environment.variables().items()
        if (os.environ.get(name) if name in os.environ else kept.get(name)) != value
    ]
    overridden = [name for name in wrong if name in os.environ]
    remedy = "Run `stageline up`."
    if overridden:
        remedy = f"Unset {', '.join(overridden)}: the environment wins over {path}."
    return Finding(
        "variables for dbt",
        not wrong,
        f"as in {path}" if not wrong else f"missing or old: {', '.join(wrong)}",
        remedy,
    )


def _dbt() -> Finding:
    if not (PROJECT_ROOT / "dbt_project.yml").exists():
        return Finding(
            "dbt",
            False,
            f"{PROJECT_ROOT} holds no dbt project",
            "Run `stageline` from a whole checkout.",
        )
    if find_spec("dbt") is None:
        return Finding("dbt", False, "not installed", "See `packages` above.")
    result = subprocess.run(
        [
            *(sys.executable, "-c", "from dbt.cli.main import cli; cli()"),
            *("--no-use-colors", "debug", "--connection"),
        ],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        env=os.environ | dbt_environment.variables() | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        timeout=120,
        check=False,
    )
    said = [line.strip() for line in (result.stderr + result.stdout).splitlines() if line.strip()]
    reason = re.search(r">Database Error\s+(.+)", result.stdout)
    detail = reason.group(1) if reason else (said or ["it said nothing"])[-1]
    return Finding(
        "dbt",
        result.returncode == 0,
        "connects" if result.returncode == 0 else detail,
        f"Run `dbt debug` in {PROJECT_ROOT}.",
    )
