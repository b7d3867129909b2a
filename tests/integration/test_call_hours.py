"""Calls by hour, built by the days on which something was written, are those of all days."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any, LiteralString

import psycopg
import pytest

from stageline.database import connect
from tests.warm_dbt import WarmDbt

AS_OF = datetime(2026, 3, 29, 9, 30, tzinfo=UTC)

#: Zones of the projects; on the day of `AS_OF` clocks change in two of them.
ZONES = {
    ("file", "kyiv"): "Europe/Kyiv",
    ("file", "kiritimati"): "Pacific/Kiritimati",
    ("file", "unknown"): None,
    ("pipedrive", "new-york"): "America/New_York",
    ("hubspot", "honolulu"): "Pacific/Honolulu",
    ("salesforce", "amsterdam"): "Europe/Amsterdam",
}

BUILT = """
select
    source_system, project_id, rep_id, call_date, call_hour,
    booked, due, held, conducted
from intermediate.int_call_hours
order by 1, 2, 3, 4, 5
"""
#: The same of all calls: int_calls is a view, and knows nothing of what was built before.
COUNTED = """
select
    source_system, project_id, rep_id, call_date, call_hour,
    sum(is_booked), sum(is_due), sum(is_held), sum(is_conducted)
from intermediate.int_calls
where excluded_reason is null
group by 1, 2, 3, 4, 5
order by 1, 2, 3, 4, 5
"""

Session = psycopg.Connection[Any]


def rows(query: LiteralString) -> list[tuple[Any, ...]]:
    with connect("transformer") as session:
        return session.execute(query).fetchall()


def run(
    dbt: WarmDbt, as_of: datetime = AS_OF, *, select: str = "int_calls", full_refresh: bool = False
) -> None:
    dbt.run(
        *(select, "int_call_hours"),
        variables={"as_of": as_of.isoformat()},
        full_refresh=full_refresh,
    )


@dataclass
class Calls:
    """Calls of all sources, and what may happen to them."""

    random: Random = field(default_factory=lambda: Random(20260329))  # noqa: S311 - no secret
    made: int = 0

    def instant(self) -> datetime:
        """About `AS_OF`, some of them at it, or a day from it."""
        hours = self.random.choice([0.0, 1.0, -1.0, 24.0, -24.0, *(self.random.gauss(0, 400),) * 9])
        return AS_OF + timedelta(hours=hours, minutes=self.random.choice([0, 0, 30, -1]))

    def planned(self) -> tuple[datetime | None, datetime | None]:
        """When a call is planned for, and when it took place."""
        scheduled = self.random.choice([None, *(self.instant(),) * 9])
        as_planned = scheduled and scheduled + timedelta(minutes=20)
        completed = self.random.choice([None, None, self.instant(), *(as_planned,) * 4])
        return scheduled, completed

    def rep(self) -> str | None:
        return self.random.choice([None, "ann", "bob", "carl"])

    def begin(self, session: Session) -> None:
        for (source, project), zone in ZONES.items():
            if zone:
                session.execute(
                    "insert into settings.projects (source_system, project_id, timezone)"
                    " values (%s, %s, %s)",
                    (source, project, zone),
                )
        for _ in range(60):
            self.add(session)

    def add(self, session: Session) -> None:
        """One more call in each project; in those of files also what is no call."""
        for source, project in ZONES:
            self.made += 1
            scheduled, completed = self.planned()
            name = str(self.made)
            if source == "file":
                session.execute(
                    "insert into raw_files.activities (project_id, activity_id, activity_type,"
                    " rep_id, scheduled_at, completed_at, created_at)"
                    " values (%s, %s, %s, %s, %s, %s, %s)",
                    (
                        *(project, name, self.random.choice(["call"] * 4 + ["meeting"])),
                        *(self.rep(), scheduled, completed),
                        self.random.choice([None, self.instant()]),
                    ),
                )
            elif source == "pipedrive":
                session.execute(
                    "insert into raw_pipedrive.activities (project_id, activity_id, type, owner_id,"
                    " due_date, due_at, is_done, done_at, fetched_at)"
                    " values (%s, %s, 'call', %s, %s, %s, %s, %s, now())",
                    (
                        *(project, name, self.rep(), self.instant().date(), scheduled),
                        *(self.random.random() < 0.7, completed),
                    ),
                )
            elif source == "hubspot":
                session.execute(
                    "insert into raw_hubspot.calls (project_id, call_id, owner_id, called_at,"
                    " status, fetched_at) values (%s, %s, %s, %s, %s, now())",
                    (
                        *(project, name, self.rep(), scheduled),
                        self.random.choice([None, "COMPLETED", "NO_ANSWER"]),
                    ),
                )
            else:
                session.execute(
                    "insert into raw_salesforce.tasks (project_id, task_id, task_subtype, owner_id,"
                    " activity_date, is_closed, completed_at, created_at, fetched_at)"
                    " values (%s, %s, 'Call', %s, %s, %s, %s, %s, now())",
                    (
                        *(project, name, self.rep(), self.instant().date()),
                        *(self.random.random() < 0.7, completed, self.instant()),
                    ),
                )

    def change(self, session: Session) -> None:
        """Some of each are put off, take place, go to another rep, and are no calls any more."""
        for _ in range(12):
            some = (self.random.randrange(1, self.made), *self.planned(), self.rep())
            values = dict(zip(("some", "scheduled", "completed", "rep"), some, strict=True))
            for statement in (
                "update raw_files.activities set scheduled_at = %(scheduled)s,"
                " completed_at = %(completed)s, rep_id = %(rep)s"
                " where activity_id::int = %(some)s",
                "update raw_files.activities set activity_type = 'email'"
                " where activity_id::int = %(some)s + 1",
                "update raw_files.activities set is_deleted = not coalesce(is_deleted, false)"
                " where activity_id::int %% 40 = %(some)s %% 40",
                "update raw_pipedrive.activities set due_at = %(scheduled)s,"
                " done_at = %(completed)s, owner_id = %(rep)s"
                " where activity_id::int %% 90 = %(some)s %% 90",
                "update raw_hubspot.calls set called_at = %(scheduled)s, owner_id = %(rep)s"
                " where call_id::int %% 90 = %(some)s %% 90",
                "update raw_salesforce.tasks set activity_date = %(scheduled)s::date,"
                " completed_at = %(completed)s"
                " where task_id::int %% 90 = %(some)s %% 90",
            ):
                session.execute(statement, values)

    def remove(self, session: Session) -> None:
        """Some are taken out of their tables."""
        for table, key in (
            (b"raw_files.activities", b"activity_id"),
            (b"raw_pipedrive.activities", b"activity_id"),
            (b"raw_hubspot.calls", b"call_id"),
            (b"raw_salesforce.tasks", b"task_id"),
        ):
            session.execute(
                b"delete from " + table + b" where " + key + b"::int %% 17 = %s",
                [self.random.randrange(17)],
            )


@pytest.mark.usefixtures("database")
def test_days_that_changed_are_counted_as_all_days_are(dbt: WarmDbt) -> None:
    calls = Calls()
    late = connect("owner")

    def begin_late(session: Session) -> None:
        """Written before what the run sees, and committed after it."""
        late.execute(
            "insert into raw_files.activities (project_id, activity_id, activity_type, rep_id,"
            " scheduled_at, completed_at) values ('kyiv', '0', 'call', 'ann', %s, %s)",
            (AS_OF - timedelta(days=300), AS_OF - timedelta(days=299)),
        )
        calls.change(session)

    def move(session: Session) -> None:
        """A project is elsewhere now, another one counts no more."""
        session.execute(
            "update settings.projects set timezone = 'Asia/Tokyo' where project_id = 'kyiv'"
        )
        session.execute(
            "update settings.projects set is_active = false where project_id = 'new-york'"
        )

    def bring_back(session: Session) -> None:
        session.execute("update settings.projects set is_active = true")
        calls.change(session)

    day = timedelta(days=1)
    steps: list[tuple[Callable[[Session], None], timedelta]] = [
        (calls.begin, 0 * day),
        (begin_late, day),
        (lambda _: late.commit(), day),
        (lambda _: None, 9 * day),
        (calls.remove, -9 * day),
        (move, day),
        (restore_elsewhere, day),
        (bring_back, 2 * day),
    ]
    seen: list[list[tuple[Any, ...]]] = []
    for change, later in steps:
        with connect("owner") as session:
            change(session)
        run(dbt, AS_OF + later, select="int_calls" if seen else "+int_call_hours")
        assert rows(BUILT) == rows(COUNTED), len(seen)
        seen.append(rows(BUILT))
    late.close()

    run(dbt, AS_OF + 2 * day, full_refresh=True)
    assert rows(BUILT) == seen[-1]
    # Every step changed what is counted.
    assert all(one != other for one, other in pairwise(seen))
    assert {row[:2] for row in seen[-1]} == set(ZONES)


def restore_elsewhere(session: Session) -> None:
    """As if the database were a dump, restored to a server that has counted fewer transactions."""
    session.execute("update intermediate.int_call_hours_positions set basis = 'another server'")
    session.execute(
        "update raw_files.call_days"
        " set written_xid = ((written_xid::text::bigint + 10^9)::bigint::text)::xid8"
    )
    session.execute("delete from raw_files.activities where activity_id::int % 5 = 0")


@pytest.mark.usefixtures("database")
def test_a_call_that_is_put_off_has_two_days_counted_anew(dbt: WarmDbt) -> None:
    with connect("owner") as session:
        session.execute(
            "insert into raw_files.activities"
            " (project_id, activity_id, activity_type, rep_id, scheduled_at)"
            " select 'p', n::text, 'call', 'ann', %s - n * interval '1 day'"
            " from generate_series(10, 400) as numbers (n)",
            [AS_OF],
        )
    run(dbt, select="+int_call_hours")
    written = "select call_date, xmin::text from intermediate.int_call_hours where project_id = 'p'"
    with connect("transformer") as session:
        before = dict(session.execute(written).fetchall())
    with connect("owner") as session:
        session.execute(
            "update raw_files.activities set scheduled_at = scheduled_at + interval '200 days'"
            " where activity_id = '300'"
        )
    run(dbt)
    with connect("transformer") as session:
        after = dict(session.execute(written).fetchall())

    first, last = (AS_OF - timedelta(days=days) for days in (300, 100))
    near = {(at + timedelta(days=days)).date() for at in (first, last) for days in (-1, 0, 1)}
    assert {date for date, xid in after.items() if before[date] != xid} == near - {first.date()}
    assert before.keys() - after.keys() == {first.date()}
