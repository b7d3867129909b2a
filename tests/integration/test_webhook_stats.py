"""webhook_stats, built by what changed, against a count of everything that landed."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from stageline.database import connect
from tests import webhook_oracle
from tests.warm_dbt import WarmDbt

START = datetime(2026, 3, 1, tzinfo=UTC)


class Traffic:
    """Deliveries of ten days in two projects, some late, repeated, unread or refused."""

    def __init__(self) -> None:
        self.random = random.Random(48)  # noqa: S311 - the same ones in every run
        self.delivered: list[UUID] = []

    def instant(self, day: int) -> datetime:
        """Within an hour of the day at most three apart, so that hours hold several."""
        hour = self.random.randrange(4) * 7
        seconds = self.random.choice([0, 3599.5, self.random.uniform(0, 3599)])
        return START + timedelta(days=day, hours=hour, seconds=seconds)

    def come(self, session: psycopg.Connection[Any], number: int, first_day: int) -> None:
        """So many deliveries from a day on, with what happens beside them."""
        for _ in range(number):
            self._deliver(session, self.instant(first_day + self.random.randrange(2)))
            if self.random.random() < 0.2:
                self._refuse(session, self.instant(first_day))
            if self.random.random() < 0.1:
                self.replay(session, self.random.choice(self.delivered))

    def _deliver(self, session: psycopg.Connection[Any], at: datetime) -> None:
        some, key = self.random, uuid4()
        self.delivered.append(key)
        session.execute(
            "insert into raw.deliveries (delivery_id, sender, source_system, project_id,"
            " sender_delivery_id, received_at, check_ids, body_bytes, body_sha256, entity_ids,"
            " unparsed_reason)"
            " values (%s, %s, 'pipedrive', %s, %s, %s, '{}', 0, sha256(''), '{}', %s)",
            (
                *(key, some.choice(["pipedrive", "zapier"]), some.choice(["east", "west"])),
                *(some.choice([None, str(some.randrange(60))]), at),
                some.choice([None, None, "no JSON"]),
            ),
        )
        for _ in range(some.randrange(4)):
            self._event(session, key, at)

    def _event(self, session: psycopg.Connection[Any], key: UUID, at: datetime) -> None:
        """An entry of just now, of long ago, of tomorrow, or of the year 1948."""
        lag = self.random.choice([0.4, self.random.uniform(0, 900), 1e6, -86400, 2.46e9])
        session.execute(
            "insert into raw.stage_events (source_system, project_id, entity_type, entity_id,"
            " stage_id, entered_at, delivery_id, ingested_at)"
            " values ('pipedrive', 'east', 'deal', %s, 's', %s, %s, %s)",
            (str(uuid4()), at - timedelta(seconds=lag), key, at + timedelta(seconds=0.25)),
        )

    def _refuse(self, session: psycopg.Connection[Any], at: datetime) -> None:
        some = self.random
        session.execute(
            "insert into raw.refusals (refused_at, sender, project_id, reason)"
            " values (%s, %s, %s, %s)",
            (
                *(at, some.choice(["zapier", "keycrm"])),
                *some.choice(
                    [("east", "signature_wrong"), ("nowhere", "unknown_project"), (None, "x")]
                ),
            ),
        )

    def replay(self, session: psycopg.Connection[Any], key: UUID) -> None:
        """Reads a delivery again, which may bring events and may still be in vain."""
        session.execute(
            "insert into raw.replays (delivery_id, entity_ids, unparsed_reason)"
            " values (%s, '{}', %s)",
            (key, self.random.choice([None, "still none"])),
        )
        self._event(session, key, START)


def built() -> dict[webhook_oracle.Cell, tuple[int | None, ...]]:
    with connect("transformer") as session:
        rows = session.execute("select * from kpis.webhook_stats").fetchall()
    return {(row[0], row[1], row[2].astimezone(UTC)): row[3:-1] for row in rows}


def counted() -> dict[webhook_oracle.Cell, tuple[int | None, ...]]:
    with connect("owner") as session:
        return {cell: hour.row() for cell, hour in webhook_oracle.hours(session).items()}


def when_built(cell: webhook_oracle.Cell) -> datetime:
    with connect("transformer") as session:
        ((instant,),) = session.execute(
            "select updated_at from kpis.webhook_stats"
            " where (source_system, project_id, hour_at) = (%s, %s, %s)",
            cell,
        ).fetchall()
        return instant  # type: ignore[no-any-return]


@pytest.mark.usefixtures("database")
def test_every_run_ends_at_what_is_counted_in_all_that_landed(dbt: WarmDbt) -> None:
    def run() -> None:
        dbt.run("int_flow_changes", "webhook_stats")

    traffic = Traffic()
    with connect("owner") as session:
        traffic.come(session, 300, first_day=0)
    dbt.run("+webhook_stats")
    assert built() == counted()
    earliest = min(built())
    first_run = when_built(earliest)

    with connect("owner") as late, connect("owner") as session:
        # Written before what the next run sees, and committed after it.
        traffic.come(late, 10, first_day=3)
        traffic.delivered.clear()  # nobody reads again what is not there yet
        traffic.come(session, 40, first_day=4)
        session.commit()
        run()
        assert built() == counted()
        assert when_built(earliest) == first_run, "hours before the first change stay as they are"
        late.commit()
    run()
    assert built() == counted()

    with connect("owner") as session:  # what waited in a spool for days
        traffic.come(session, 5, first_day=0)
    run()
    assert built() == counted()
    assert len(built()) > 40

    # As a dump is restored elsewhere: its rows are of transactions that are still to come here.
    written = {
        "deliveries": "landed_xid",
        "stage_events": "ingested_xid",
        "replays": "landed_xid",
        "refusals": "written_xid",
    }
    with connect("owner") as session:
        for table, xid in written.items():
            session.execute(
                sql.SQL(
                    "update raw.{table} set {xid} = ({xid}::text::bigint + 1000000000)::text::xid8"
                ).format(table=sql.Identifier(table), xid=sql.Identifier(xid))
            )
        session.execute("update intermediate.flow_basis set basis = 'another server'")
    run()
    with connect("owner") as session:
        traffic.replay(session, traffic.delivered[-1])
    run()
    assert built() == counted()
    assert when_built(earliest) > first_run
    first_run = when_built(earliest)
    with connect("owner") as session:
        traffic.come(session, 5, first_day=9)
    run()
    assert built() == counted()
    assert when_built(earliest) == first_run, "what came with the dump is not counted each time"
