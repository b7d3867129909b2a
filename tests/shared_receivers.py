"""A receiver, and its database, that all tests of a module share: starting one takes seconds."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import requests
from psycopg.rows import dict_row

from stageline.settings.webhook_checks import SENDERS
from tests.conftest import TEMPLATE, TestServer, _clone
from tests.receivers import TOKEN, Receiver, let_in, running_receiver, use_key
from tests.unit.test_senders import RECORDED
from webhook_receiver.events import LifecycleEvent, Parsed, StageEvent, ValueChange

#: Projects that are there from the start, p1 to p160: a receiver takes a second to learn of a new
#: one. Their times are those of Kyiv.
READY = 160

PATHS = {
    "keycrm": "/webhooks/keycrm/{}",
    "pipedrive": "/webhooks/pipedrive/{}",
    "hubspot": "/webhooks/hubspot/{}",
    "zapier": "/api/integrations/pipedrive/final-stage?project={}",
}

#: The deliveries with what they said.
WITH_BODIES = "raw.deliveries inner join raw.delivery_bodies using (delivery_id, received_at)"

Result = TypeVar("Result")


@dataclass
class Shared:
    """A receiver that runs, and what is in its database.

    Attributes:
        session: A session of the database's owner, in autocommit mode.
    """

    receiver: Receiver
    session: psycopg.Connection[Any]
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def project(self) -> str:
        """A project that no other test uses; each sender is known there by `TOKEN`."""
        number = next(self._numbers)
        assert number <= READY
        return f"p{number}"

    def post(
        self, sender: str, project: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Sends a delivery as ``sender``, known by `TOKEN`."""
        return requests.post(
            self.receiver.url + PATHS[sender].format(project),
            data=body,
            headers={"X-Webhook-Token": TOKEN, "Connection": "close", **(headers or {})},
            timeout=20,
        )

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """What a query gives, once nothing waits in the spool.

        A machine that stands still for a second makes the receiver spool what it is sent.
        """
        until(lambda: self.receiver.ready()["spooled"] == 0)
        with self.session.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()

    def deliveries(self, project: str) -> list[dict[str, Any]]:
        """The deliveries of a project, in the order in which they were received."""
        return self.rows(
            f"select * from {WITH_BODIES} where project_id = %s order by received_at",  # noqa: S608
            project,
        )

    def delivery(self, delivery_id: object) -> dict[str, Any]:
        """A delivery by its id."""
        (row,) = self.rows(
            f"select * from {WITH_BODIES} where delivery_id = %s",  # noqa: S608
            delivery_id,
        )
        return row

    def bodies(self, project: str) -> list[bytes]:
        """Their bodies."""
        return [row["body"] for row in self.deliveries(project)]

    def events(self, project: str) -> Parsed:
        """All events of a project, whichever delivery they came in."""
        return Parsed(
            stage_events=tuple(
                StageEvent(**row)
                for row in self.rows(
                    "select entity_type, entity_id, pipeline_id, stage_id, stage_group_id,"
                    " previous_stage_id, entered_at, entity_created_at from raw.stage_events"
                    " where project_id = %s order by entered_at, entity_id",
                    project,
                )
            ),
            value_changes=tuple(
                ValueChange(**row)
                for row in self.rows(
                    "select entity_type, entity_id, field, old_value, new_value, changed_at"
                    " from raw.value_changes where project_id = %s order by changed_at, field",
                    project,
                )
            ),
            lifecycle_events=tuple(
                LifecycleEvent(**row)
                for row in self.rows(
                    "select entity_type, entity_id, event, occurred_at, merged_into"
                    " from raw.lifecycle_events where project_id = %s"
                    " order by occurred_at, entity_id",
                    project,
                )
            ),
        )

    def await_outcomes(self, delivery_id: str, *expected: str) -> None:
        """Waits until it is logged what became of each time that a delivery came, in any order.

        Each worker writes its lines down once a second at least. What was spooled counts as that
        which became of it when it left the spool.
        """
        found: list[str] = []

        def are_there() -> bool:
            found[:] = sorted(
                line["outcome"]
                for line in self.receiver.lines()
                if line.get("delivery_id") == delivery_id
                and line["event"] in ("delivery", "landed from spool")
                and line["outcome"] != "spooled"
            )
            return len(found) >= len(expected)

        until(are_there)
        assert found == sorted(expected)


@contextmanager
def shared_receiver(
    server: TestServer,
    folder: Path,
    prepare: Callable[[], None] = lambda: None,
    **variables: str,
) -> Iterator[Shared]:
    """A receiver on a fresh database, which is also the configured one while the block runs.

    Args:
        server: The server of the test run.
        folder: An empty folder.
        prepare: Is called before the receiver starts.
        variables: More variables of its environment.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch) as owner,
    ):
        use_key(patch)
        with psycopg.connect(**owner.libpq(), autocommit=True) as session:
            _make_projects(session)
            prepare()
            with running_receiver(folder, **variables) as receiver:
                yield Shared(receiver, session)


def order(**context: object) -> bytes:
    """The recorded change of an order's status with other values."""
    body = json.loads(RECORDED["keycrm_order_status.json"])
    return json.dumps(body | {"context": body["context"] | context}).encode()


def at_once(count: int, call: Callable[[int], Result]) -> list[Result]:
    """What ``call`` gives for 0 to ``count`` - 1, all begun at the same moment."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Result:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for ``condition``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _make_projects(session: psycopg.Connection[Any]) -> None:
    for sender in SENDERS:
        let_in(sender, "p0", timezone="Europe/Kyiv")
    # It reads the list of all zones for each row, which takes longer than all else here.
    session.execute("alter table settings.projects drop constraint projects_timezone_exists")
    session.execute(
        """
        insert into settings.projects (source_system, project_id, timezone)
        select source_system, 'p' || number, timezone
        from settings.projects, generate_series(1, %s) as number
        where project_id = 'p0'
        """,
        [READY],
    )
    session.execute(
        """
        insert into settings.webhook_checks (sender, project_id, kind, secret_encrypted)
        select sender, 'p' || number, kind, secret_encrypted
        from settings.webhook_checks, generate_series(1, %s) as number
        where project_id = 'p0'
        """,
        [READY],
    )
