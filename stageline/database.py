"""The one way to reach the database: who connects, and how."""

import json
import logging
import os
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from stageline.config import settings
from stageline.errors import StagelineError

# What it cannot clean up after an error that it raises is nobody's to mend.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

#: Short names of the roles, which are called ``stageline_<name>`` in the database; ``owner`` is the
#: login that runs the migrations and owns the database.
Role = Literal["owner", "receiver", "loader", "transformer", "jobs", "reader"]
ROLES: tuple[Role, ...] = get_args(Role)

#: Session settings that go with a role. The roles have them set, too; they are sent here because
#: ``set role`` on a server of the user's does not bring a role's own settings along.
SESSION: dict[Role, dict[str, str]] = {
    "reader": {"default_transaction_read_only": "on", "statement_timeout": "60s"},
    "receiver": {"synchronous_commit": "on"},
    "transformer": {"client_connection_check_interval": "1s"},
}


@dataclass(frozen=True)
class Connection:
    """How one role reaches the database.

    Attributes:
        host, port, dbname, user, password: as libpq means them.
        set_role: role to take on after login, on a server of the user's, where Stageline's roles
            have no password of their own; empty on the embedded server, where each role logs in.
        extra: further libpq parameters of the user's URL (sslmode, ...).
    """

    host: str
    port: int
    dbname: str
    user: str
    password: str = field(repr=False)
    set_role: str = ""
    session: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def libpq(self) -> dict[str, Any]:
        """The parameters as psycopg's ``connect`` takes them."""
        options = {**self.session, **({"role": self.set_role} if self.set_role else {})}
        return {
            "host": self.host,
            "port": self.port,
            "dbname": self.dbname,
            "user": self.user,
            "password": self.password,
            "connect_timeout": 10,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            **self.extra,
            # Else a server in SQL_ASCII, or PGCLIENTENCODING, would turn every text into bytes.
            "client_encoding": "UTF8",
        }

    def environment(self) -> dict[str, str]:
        """The parameters as the ``PG*`` variables of psql and its kin."""
        names = {"dbname": "PGDATABASE", "connect_timeout": "PGCONNECT_TIMEOUT"}
        return {
            names.get(k, f"PG{k.upper()}"): str(v)
            for k, v in self.libpq().items()
            if v != "" and k != "client_encoding"  # psql knows what its terminal can show
        }

    def url(self, scheme: str = "postgresql") -> str:
        """The parameters as a URL. Holds the password: never print or log it."""
        rest = {
            k: v
            for k, v in self.libpq().items()
            if k in {"options", "connect_timeout", *self.extra}
        }
        query = "&".join(f"{k}={quote(str(v), safe='')}" for k, v in rest.items() if v != "")
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{scheme}://{login}@{self.host}:{self.port}/{quote(self.dbname, safe='')}?{query}"


def connection(role: Role) -> Connection:
    """How ``role`` reaches the configured database.

    Raises:
        StagelineError: no server has been set up yet, or the configured URL cannot be read.
    """
    url = settings().database_url
    return _embedded(role) if url is None else _own_server(url.get_secret_value(), role)


def connect(role: Role, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """An open connection as ``role``.

    Raises:
        StagelineError: the server cannot be reached, or refuses the login.
    """
    target = connection(role)
    try:
        return psycopg.connect(**target.libpq(), autocommit=autocommit)
    except psycopg.OperationalError as error:
        hint = (
            "Run `stageline up`."
            if settings().database_url is None
            else "Check STAGELINE_DATABASE_URL, and whether that server runs."
        )
        raise StagelineError(
            f"Cannot reach PostgreSQL at {target.host}:{target.port} as {target.user}:"
            f" {_reason(error)}. {hint}"
        ) from None


def cut_short(error: psycopg.OperationalError, doing: str = "") -> str:
    """What ended a command in its midst, without a full stop.

    Args:
        error: How a session ended, or what the server could not do.
        doing: What was being done, as in " during the load".
    """
    if isinstance(error, psycopg.errors.DiskFull):
        return "PostgreSQL's disk is full: make room on it (`stageline doctor` shows how much)"
    return f"The database went away{doing}"


def _reason(error: psycopg.OperationalError) -> str:
    """What went wrong, without libpq's repetitions of the address and its questions after it."""
    first = str(error).strip().splitlines()[0]
    return re.sub(r"^connection (failed|is bad): (connection to server .*? failed: )?", "", first)


def _embedded(role: Role) -> Connection:
    server, credentials = settings().home / "server.json", settings().home / "credentials.json"
    user = "stageline_owner" if role == "owner" else f"stageline_{role}"
    try:
        where, passwords = json.loads(server.read_text()), json.loads(credentials.read_text())
        return Connection(
            host="127.0.0.1",
            port=int(where["port"]),
            dbname=str(where.get("dbname", "stageline")),
            user=user,
            password=str(passwords[user]),
            session=SESSION.get(role, {}),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise StagelineError(
            "There is no database yet. Run `stageline up` for the embedded PostgreSQL,"
            " or set STAGELINE_DATABASE_URL to a server of yours."
        ) from None
    except PermissionError:
        raise StagelineError(
            f"{settings().home} belongs to another user. Run `stageline` as that user,"
            " or set STAGELINE_HOME to a folder of your own."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StagelineError(
            f"{server} or {credentials} is damaged. Remove both and run `stageline up`:"
            " they are made anew, with new passwords."
        ) from None


def _own_server(url: str, role: Role) -> Connection:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise _unreadable() from None  # libpq's own words would show the password
    # What the URL leaves out comes from libpq's own variables; `postgresql://` leaves out all.
    known = {
        "host": os.environ.get("PGHOST", "127.0.0.1"),
        "port": os.environ.get("PGPORT", "5432"),
        "user": os.environ.get("PGUSER", "postgres"),
        "password": os.environ.get("PGPASSWORD", ""),
        "dbname": os.environ.get("PGDATABASE"),
        "connect_timeout": None,
        "options": None,
    }
    said = {**known, **{name: value for name, value in given.items() if value}}
    if "@" in str(said["host"]) or not re.fullmatch(r"[0-9]+", str(said["port"])):
        raise _unreadable()  # most often the rest of a password with a sign that ends it
    return Connection(
        host=str(said["host"]),
        port=int(str(said["port"])),
        dbname=str(said["dbname"] or said["user"]),
        user=str(said["user"]),
        password=str(said["password"]),
        set_role="" if role == "owner" else f"stageline_{role}",
        session=SESSION.get(role, {}),
        extra={k: str(v) for k, v in given.items() if k not in known},
    )


def _unreadable() -> StagelineError:
    return StagelineError(
        "STAGELINE_DATABASE_URL cannot be read. It looks like"
        " postgresql://user:password@host:5432/database; in the password write @ as %40, / as %2F,"
        " : as %3A and % as %25."
    )
