"""The receiver's way to PostgreSQL: sessions that never wait for long."""

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.types.array import ListBinaryDumper

from stageline.database import connection

#: Seconds that a statement may take. The server's own limits do not help against a server that is
#: frozen, and a sender waits for five seconds at most.
PATIENCE = 1.5

#: A server that is gone without a word (a cable, a frozen machine) is given up within seconds.
_CONNECTION = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
    "application_name": "stageline receiver",
}

_Result = TypeVar("_Result")


class NoAnswerError(psycopg.OperationalError):
    """The server did not answer in time; what it was asked to do may still be done."""


class Session(psycopg.Connection[Any]):
    """A session that is closed when a statement takes longer than `PATIENCE`."""

    def wait(
        self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = PATIENCE
    ) -> _Result:
        """Raises `NoAnswerError` where psycopg's own waits for ever."""
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.errors._WaitTimeout:
            self.close()
            raise NoAnswerError from None


def connected() -> Session:
    """A session as the receiver, each statement a transaction, that is given up soon if it hangs.

    Raises:
        psycopg.OperationalError: the server does not take it.
        StagelineError: there is no database.
    """
    parameters = connection("receiver").libpq()
    session = Session.connect(**{**parameters, **_CONNECTION}, autocommit=True)
    # Bodies in text would be escaped here, byte by byte, and read back there.
    session.adapters.register_dumper(list, ListBinaryDumper)
    return session


def why(error: Exception) -> str:
    """What keeps PostgreSQL from working, without what the rows hold."""
    state = getattr(error, "sqlstate", None)
    if state:
        return f"{type(error).__name__} ({state})"
    if isinstance(error, psycopg.OperationalError) and not isinstance(error, NoAnswerError):
        return "cannot be reached"
    return type(error).__name__
