"""Brings deliveries to disk: into PostgreSQL, many in one commit, or else into the spool.

Whoever lands a delivery is told once it is safe. One thread writes for all (group commit), so a
burst shares the cost of the disk. While PostgreSQL is away, deliveries go to the spool; the keeper
brings them over as soon as it is back.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import psycopg

from stageline.errors import StagelineError
from stageline.personal_data import frames
from stageline.progress import log
from webhook_receiver.delivery import ReadDelivery
from webhook_receiver.raw_tables import Outcome, written
from webhook_receiver.session import Session, connected, why
from webhook_receiver.spool import Spool, SpoolError

#: Most deliveries, and most bytes of their bodies, that one transaction writes.
BATCH = 64
BATCH_BYTES = 2 * 1024 * 1024

#: Seconds that a delivery waits for others to join, where the last one had company.
COMPANY = 0.0005

#: Told what became of a delivery; None if it is nowhere. It may neither fail nor wait.
Tell = Callable[[Outcome | None], None]


class _Waiting(NamedTuple):
    """A delivery that is to be put on a disk, whom to tell, and when it came (monotonic)."""

    delivery: ReadDelivery
    tell: Tell
    came_at: float


class Landing:
    """The way of deliveries to disk in one process: a queue, and a thread that writes.

    Args:
        spool: Where deliveries wait while PostgreSQL is away.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._had_company = False
        self._is_stopped = False
        self._failed_at = 0.0
        self._session: Session | None = None
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="stageline-landing", daemon=True)

    def start(self) -> None:
        """Starts the thread; after a fork, never before."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it once everything that came before is written."""
        self._waiting.put(None)
        self._thread.join(timeout=5)

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

    def land(self, delivery: ReadDelivery, tell: Tell) -> None:
        """Has ``delivery`` put on a disk.

        Args:
            delivery: What has come.
            tell: Called once, in another thread, when a crash cannot take it any more; with None
                if nothing could take it, so that the sender has to send it again.
        """
        self._waiting.put(_Waiting(delivery, tell, time.monotonic()))

    def _run(self) -> None:
        while batch := self._batch():
            try:
                outcomes = self._outcomes(
                    [each.delivery for each in batch],
                    has_waited=batch[0].came_at < self._failed_at,
                )
            except Exception as error:  # noqa: BLE001 - this thread may not die
                log().error(
                    "landing failed", error=type(error).__name__, at=frames(error.__traceback__)
                )
                outcomes = {}
            for each in batch:
                delivery_id = each.delivery.delivery_id
                outcome = outcomes.get(delivery_id)
                each.tell(outcome)
                if outcome in (Outcome.STORED, Outcome.CONFLICT):
                    outcomes[delivery_id] = Outcome.DUPLICATE  # if it came twice at once
        self._hang_up()

    def _batch(self) -> list[_Waiting]:
        """What waits, as soon as something does; nothing when the thread is to end."""
        batch: list[_Waiting] = []
        size = 0
        while not self._is_stopped and len(batch) < BATCH and size < BATCH_BYTES:
            try:
                first = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if first is None:
                self._is_stopped = True
                break
            if not batch and self._had_company:
                time.sleep(COMPANY)
            batch.append(first)
            size += len(first.delivery.delivery.body)
        self._had_company = len(batch) > 1
        return batch

    def _outcomes(
        self, deliveries: Sequence[ReadDelivery], *, has_waited: bool
    ) -> dict[UUID, Outcome]:
        """What became of each id; of those that are nowhere, nothing.

        What has waited for a statement that failed does not wait for another one to hang.
        """
        if self._trouble is None and not has_waited:
            try:
                if self._session is None:
                    self._session = connected()
                return written(self._session, deliveries)
            except (psycopg.Error, StagelineError) as error:
                self._failed_at = time.monotonic()
                self.saw_postgres(why(error))
                self._hang_up()
        try:
            self._spool.put([each.delivery for each in deliveries])
        except SpoolError:
            return {}
        return dict.fromkeys((each.delivery_id for each in deliveries), Outcome.SPOOLED)

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
