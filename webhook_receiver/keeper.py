"""What goes on beside the requests: who may send, what waits in the spool, what was refused."""

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from stageline.errors import StagelineError
from stageline.personal_data import frames
from stageline.progress import log, write_gathered
from webhook_receiver.accounts import Accounts
from webhook_receiver.delivery import read
from webhook_receiver.landing import BATCH, BATCH_BYTES, Landing
from webhook_receiver.raw_tables import written
from webhook_receiver.refusals import Refusals
from webhook_receiver.session import Session, connected, why
from webhook_receiver.spool import Spool, SpoolError

#: Seconds between two turns.
INTERVAL = 1.0


class Keeper:
    """A thread with a session of its own that looks after everything but the requests.

    Each second it asks whether PostgreSQL answers, reads who may send, writes down what was
    refused, and brings over what waits in the spool.
    """

    def __init__(
        self, landing: Landing, spool: Spool, accounts: Accounts, refusals: Refusals
    ) -> None:
        self._landing = landing
        self._spool = spool
        self._accounts = accounts
        self._refusals = refusals
        self._stopped = threading.Event()
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name="stageline-keeper", daemon=True)

    def start(self) -> None:
        """Starts the thread; after a fork, never before."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it after the turn that it is at."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._turn()
            except (psycopg.Error, StagelineError) as error:
                self._landing.saw_postgres(why(error))
                self._hang_up()
            except SpoolError:
                pass  # it was logged, and the next turn tries again
            except Exception as error:  # noqa: BLE001 - this thread may not die
                log().error(
                    "keeper failed", error=type(error).__name__, at=frames(error.__traceback__)
                )
            write_gathered()
            self._stopped.wait(INTERVAL)
        self._hang_up()

    def _turn(self) -> None:
        session = self._session = self._session or connected()
        self._accounts.refresh(session)
        self._landing.saw_postgres(None)
        self._drain(session)
        self._refusals.write(session)

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _drain(self, session: Session) -> None:
        """Brings what waits in the spool to PostgreSQL, oldest first."""
        if not self._spool.waiting()[0]:
            return
        with _alone(self._spool) as is_alone:
            while is_alone and not self._stopped.is_set():
                waiting = self._spool.first(BATCH, BATCH_BYTES)
                if not waiting:
                    return
                deliveries = [read(delivery) for _, delivery in waiting]
                outcomes = written(session, deliveries)
                self._spool.remove([position for position, _ in waiting])
                for each in deliveries:
                    log().info(
                        "landed from spool",
                        delivery_id=str(each.delivery_id),
                        sender=each.delivery.sender,
                        project=each.delivery.project_id,
                        outcome=outcomes[each.delivery_id].value,
                    )


@contextmanager
def _alone(spool: Spool) -> Iterator[bool]:
    """Whether this process may drain ``spool``; no other one does while the block runs."""
    with spool.path.with_name(spool.path.name + ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
