"""Readers while a table is built: what they should never have seen is found."""

import psycopg
import pytest

from stageline.database import Connection, connect
from tests.crash.readers import (
    EMPTY,
    MISSING,
    NOT_WHOLE,
    UNREAD,
    Readers,
    Readings,
    counts,
    judge_readings,
    readable,
)
from tests.crash.verdict import Faults
from tests.supervised import until

#: What a refresh does to a table again and again, statement by statement.
REBUILDS = {
    "swaps in one transaction": [
        "begin; create table kpis.new as select * from kpis.good;"
        " grant select on kpis.new to stageline_reader;"
        " alter table kpis.t rename to old; alter table kpis.new rename to t; commit",
        "drop table kpis.old",
    ],
    "deletes and inserts in one transaction": [
        "begin; delete from kpis.t; insert into kpis.t select * from kpis.good; commit",
    ],
    "truncates, then inserts": [
        "truncate kpis.t",
        "insert into kpis.t select * from kpis.good",
    ],
    "inserts, then deletes": [
        "insert into kpis.t select * from kpis.good",
        "delete from kpis.t where ctid in (select ctid from kpis.t limit 1000)",
    ],
    "drops and creates": [
        "drop table kpis.t",
        "create table kpis.t as select * from kpis.good",
        "grant select on kpis.t to stageline_reader",
    ],
    "adds what is left out bit by bit": [
        "delete from kpis.t where n > 500",
        "insert into kpis.t select * from kpis.good where n > 500",
    ],
}

#: Rebuild -> what readers of it should not have seen; none of those that keep to the rule.
FLAWS = {
    "truncates, then inserts": EMPTY,
    "inserts, then deletes": NOT_WHOLE,
    "drops and creates": MISSING,
    "adds what is left out bit by bit": NOT_WHOLE,
}


@pytest.fixture
def table(database: Connection) -> None:
    """A KPI table of a thousand rows, and the rows that it should have."""
    with psycopg.connect(**database.libpq()) as session:
        session.execute("set role stageline_transformer")
        session.execute(
            "create table kpis.good as select generate_series(1, 1000) as n;"
            " create table kpis.t as select * from kpis.good;"
            " grant select on kpis.t, kpis.good to stageline_reader"
        )


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("rebuild", REBUILDS)
def test_a_refresh_that_shows_a_table_before_it_is_whole_is_found_out(rebuild: str) -> None:
    assert "kpis.t" in readable("kpis")
    before, faults = counts(["kpis.t"]), Faults()
    with (
        connect("transformer", autocommit=True) as session,
        Readers(["kpis.t"], number=1) as readers,
    ):
        until(lambda: readers.reads > 0)
        for _ in range(60):
            for statement in REBUILDS[rebuild]:
                session.execute(statement)
        judge_readings(readers.take(), before, counts(["kpis.t"]), faults)
    assert [fault for fault in (MISSING, EMPTY, NOT_WHOLE, UNREAD) if faults.count(fault)] == (
        [FLAWS[rebuild]] if rebuild in FLAWS else []
    ), faults.lines()


def test_a_table_that_nobody_could_read_proves_nothing() -> None:
    faults = Faults()
    judge_readings(Readings(), {"kpis.t": 3}, {"kpis.t": 3}, faults)
    assert faults.count(UNREAD) == 1


def test_rows_may_be_added_from_one_build_to_the_next() -> None:
    faults, seen = Faults(), Readings()
    seen.counts["kpis.t"].update({3: 5, 4: 1, 5: 9})
    judge_readings(seen, {"kpis.t": 3}, {"kpis.t": 5}, faults)
    assert not faults
    judge_readings(seen, {"kpis.t": 3}, {"kpis.t": 4}, faults)
    assert faults.count(NOT_WHOLE) == 9
