"""Brings deliveries to disk: into PostgreSQL, many in one commit, or else into the spool.

`Landing.land` returns once its delivery is safe. Of the requests that come together one writes for
all (group commit), so a burst shares the cost of the disk. While PostgreSQL is away, deliveries go
to the spool; the keeper brings them over as soon as it is back.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from uuid import UUID

import psycopg

from stageline.errors import StagelineError
from stageline.progress import log
from webhook_receiver.delivery import ReadDelivery
from webhook_receiver.raw_tables import Outcome, written
from webhook_receiver.session import Session, connected, why
from webhook_receiver.spool import Spool, SpoolError

#: Most deliveries, and most bytes of their bodies, that one transaction writes.
BATCH = 64
BATCH_BYTES = 2 * 1024 * 1024

#: Seconds that a writer waits for others to join, where the last one had company.
COMPANY = 0.002


class LandingError(Exception):
    """Neither PostgreSQL nor the spool could take the delivery."""


class _Ticket:
    """A request that waits for its delivery to be written, or for its turn to write.

    Attributes:
        outcome: What became of it; None while it waits, and if nothing could take it.
        is_done: Whether its wait is over.
        turn: Released when it is done, or when it is to write.
    """

    __slots__ = ("delivery", "is_done", "outcome", "turn")

    def __init__(self, delivery: ReadDelivery) -> None:
        self.delivery = delivery
        self.outcome: Outcome | None = None
        self.is_done = False
        self.turn = threading.Lock()
        self.turn.acquire()


class Landing:
    """The way of deliveries to disk in one process.

    Whoever finds no writer at work writes what waits, his own and all others', and then passes the
    work on to the first one who came meanwhile: there is no thread to hand over to.

    Args:
        spool: Where deliveries wait while PostgreSQL is away.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: deque[_Ticket] = deque()
        self._writing = threading.Lock()
        self._had_company = False
        self._session: Session | None = None
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why PostgreSQL cannot be written to; None while it can."""
        return self._trouble

    def saw_postgres(self, trouble: str | None) -> None:
        """Tells that PostgreSQL answers (None), or why it does not."""
        if trouble != self._trouble:
            if trouble is None:
                log().info("postgres answers")
            else:
                log().error("postgres is away", reason=trouble)
        self._trouble = trouble

    def land(self, delivery: ReadDelivery) -> Outcome:
        """Puts ``delivery`` on a disk; when this returns, a crash cannot take it.

        Raises:
            LandingError: it is nowhere; the sender has to send it again.
        """
        ticket = _Ticket(delivery)
        self._waiting.append(ticket)
        if self._writing.acquire(blocking=False):
            if ticket.is_done:
                self._pass_on()  # the writer before took it along
            else:
                self._write()
        while not ticket.is_done:
            ticket.turn.acquire()
            if not ticket.is_done:
                self._write()
        if ticket.outcome is None:
            raise LandingError
        return ticket.outcome

    def _write(self) -> None:
        """Writes what waits, and passes the work on."""
        if self._had_company:
            time.sleep(COMPANY)
        tickets = self._batch()
        self._had_company = len(tickets) > 1
        try:
            outcomes = self._outcomes([ticket.delivery for ticket in tickets])
            for ticket in tickets:
                delivery_id = ticket.delivery.delivery_id
                ticket.outcome = outcomes[delivery_id]
                if ticket.outcome is not Outcome.SPOOLED:
                    outcomes[delivery_id] = Outcome.DUPLICATE  # where it came twice at once
        except LandingError:
            pass
        finally:
            for ticket in tickets:
                ticket.is_done = True
                ticket.turn.release()
            self._pass_on()

    def _pass_on(self) -> None:
        while True:
            if self._waiting:
                self._waiting[0].turn.release()
                return
            self._writing.release()
            # Who came in between found a writer at work, and waits for it.
            if not self._waiting or not self._writing.acquire(blocking=False):
                return

    def _batch(self) -> list[_Ticket]:
        tickets: list[_Ticket] = []
        size = 0
        while self._waiting and len(tickets) < BATCH and size < BATCH_BYTES:
            tickets.append(self._waiting.popleft())
            size += len(tickets[-1].delivery.delivery.body)
        return tickets

    def _outcomes(self, deliveries: Sequence[ReadDelivery]) -> dict[UUID, Outcome]:
        if self._trouble is None:
            try:
                if self._session is None:
                    self._session = connected()
                return written(self._session, deliveries)
            except (psycopg.Error, StagelineError) as error:
                self.saw_postgres(why(error))
                if self._session is not None:
                    self._session.close()
                    self._session = None
        try:
            self._spool.put([each.delivery for each in deliveries])
        except SpoolError:
            raise LandingError from None
        return dict.fromkeys((each.delivery_id for each in deliveries), Outcome.SPOOLED)
