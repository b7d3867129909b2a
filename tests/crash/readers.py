"""Readers who ask KPI tables for their rows again and again, and what they should never have seen.

Whatever a refresh does, a table holds the rows of its last good build or those of the next one. So
a count that is in neither, nor between the two where rows are added from one to the other, is of a
table that was not whole.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg import sql

from stageline.database import connect
from stageline.errors import StagelineError
from tests.crash.verdict import Faults

MISSING = "a read that PostgreSQL refused"
EMPTY = "a table without a row that should have some"
NOT_WHOLE = "a table with other rows than before or after"
UNREAD = "a table that was never read"

#: Seconds from one read to the next, and between attempts while PostgreSQL is away.
_BREATH, _AWAY = 0.002, 0.1


@dataclass
class Readings:
    """What readers saw.

    Attributes:
        counts: Relation -> how often it had so many rows.
        refusals: Relation and error -> how often.
        outages: How often PostgreSQL was away.
    """

    counts: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    outages: int = 0

    @property
    def reads(self) -> int:
        """Those that were answered."""
        return sum(each.total() for each in self.counts.values())


def readable(*schemas: str) -> list[str]:
    """The tables and views of some schemas."""
    with connect("reader") as session:
        return [
            f"{schema}.{name}"
            for schema, name in session.execute(
                "select relnamespace::regnamespace::text, relname from pg_class"
                " where relkind in ('r', 'v') and relnamespace::regnamespace::text = any(%s)"
                " order by 1, 2",
                [list(schemas)],
            )
        ]


def counts(relations: Sequence[str]) -> dict[str, int]:
    """How many rows each has now."""
    with connect("reader") as session:
        return {relation: _count(session, relation) for relation in relations}


def _count(session: psycopg.Connection[Any], relation: str) -> int:
    query = sql.SQL("select count(*) from {}").format(sql.Identifier(*relation.split(".")))
    row = session.execute(query).fetchone()
    assert row is not None
    return int(row[0])


class Readers:
    """Readers at work; a context manager.

    Args:
        relations: What they read, in turn.
        number: How many there are.
    """

    def __init__(self, relations: Sequence[str], number: int = 2) -> None:
        self._relations = relations
        self._readings = Readings()
        self._lock = threading.Lock()
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(relations[first:] + relations[:first],))
            for first in range(0, len(relations), -(-len(relations) // number))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    @property
    def reads(self) -> int:
        """How many were answered since `take` was called last."""
        with self._lock:
            return self._readings.reads

    def take(self) -> Readings:
        """What they saw since this was called last."""
        with self._lock:
            taken, self._readings = self._readings, Readings()
        return taken

    def _read(self, relations: Sequence[str]) -> None:
        while not self._enough.is_set():
            try:
                with connect("reader", autocommit=True) as session:
                    while not self._enough.is_set():
                        for relation in relations:
                            self._read_one(session, relation)
                            self._enough.wait(_BREATH)
            except (StagelineError, psycopg.Error):
                with self._lock:
                    self._readings.outages += 1
                self._enough.wait(_AWAY)

    def _read_one(self, session: psycopg.Connection[Any], relation: str) -> None:
        try:
            found = _count(session, relation)
        except psycopg.Error as error:
            if session.closed:
                raise
            with self._lock:
                self._readings.refusals[relation, str(error).splitlines()[0]] += 1
        else:
            with self._lock:
                self._readings.counts[relation][found] += 1


def judge_readings(
    readings: Readings, before: Mapping[str, int], after: Mapping[str, int], faults: Faults
) -> None:
    """Adds to ``faults`` what readers should not have seen.

    Args:
        readings: What they saw.
        before, after: Relation -> its rows before the first of the readings, and after the last,
            when nothing was being refreshed.
        faults: Gets what is found.
    """
    for (relation, words), times in readings.refusals.items():
        faults.note(MISSING, f"{relation}: {words}", times)
    for relation in before:
        least, most = sorted((before[relation], after[relation]))
        for found, times in readings.counts[relation].items():
            if not found and least:
                faults.note(EMPTY, relation, times)
            elif not least <= found <= most:
                faults.note(NOT_WHOLE, f"{relation}: {found} of {least} to {most}", times)
        if not readings.counts[relation]:
            faults.note(UNREAD, relation)
