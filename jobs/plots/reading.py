"""What a plot reads: the rows that were asked for, added up by the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from stageline.errors import StagelineError, nearest
from stageline.kpi_tables import Condition, Table, all_of, conditions_on, table_named, values_of


@dataclass
class Reading:
    """The rows of a table that were asked for.

    Attributes:
        session: Of the reader.
        table: Where they stand.
        conditions: That hold for all of them.
        about: What is said of the subject: ``all reps`` or a name; empty where there is none.
    """

    session: psycopg.Connection[Any]
    table: Table
    conditions: list[Condition]
    about: str = ""

    def rows(self, statement: LiteralString | sql.Composable, *values: Any) -> list[dict[str, Any]]:
        """What ``statement`` makes of ``chosen``, the rows; its own placeholders get ``values``.

        Raises:
            StagelineError: the table lacks a column that the statement names.
        """
        query = sql.SQL("with chosen as (select * from {} where {}) ").format(
            self.table.identifier, all_of(self.conditions)
        ) + (sql.SQL(statement) if isinstance(statement, str) else statement)
        with self.session.cursor(row_factory=dict_row) as cursor:
            try:
                cursor.execute(query, [*values_of(self.conditions), *values])
            except psycopg.errors.UndefinedColumn:
                raise StagelineError(
                    f"{self.table.name} was built by an older version. Run `stageline build`."
                ) from None
            return [
                {name: _plain(value) for name, value in row.items()} for row in cursor.fetchall()
            ]

    def narrow(self, *typed: str) -> None:
        """Adds conditions."""
        self.conditions += conditions_on(self.table, typed)

    def names(self, column: str) -> bool:
        """Whether a condition that was typed is on ``column``."""
        return any(each.typed.startswith(column) for each in self.conditions)

    def last(self, column: str) -> Any:
        """The greatest value of a column."""
        (row,) = self.rows(
            sql.SQL("select max({}) as last from chosen").format(sql.Identifier(column))
        )
        return row["last"]

    def is_newest(self, period_type: str, period_start: date) -> bool:
        """Whether the table has no later period of its kind: then it may go on."""
        newest = self.session.execute(
            sql.SQL("select max(period_start) from {} where period_type = {}").format(
                self.table.identifier, sql.Placeholder()
            ),
            [period_type],
        ).fetchone()
        return newest == (period_start,)

    @property
    def built(self) -> str:
        """When the rows were built, for a subtitle."""
        return f"built {instant(self.last('updated_at'))}"

    def refuse_if_empty(self) -> None:
        """Raises StagelineError: there is no row."""
        if self.rows("select 1 as one from chosen limit 1"):
            return
        typed = " and ".join(each.typed for each in self.conditions)
        raise StagelineError(
            f"{self.table.name} has no row where {typed}; no file was written."
            " Leave out a condition to see more."
            if typed
            else f"{self.table.name} is empty; no file was written."
            " Load data, then run `stageline build`."
        )

    def choose_subject(self, asked: str | None) -> None:
        """Keeps the rows of one subject: all, a rep or a team, by id, name or ``rep:ID``.

        Raises:
            StagelineError: nobody is called so, or several are.
        """
        if asked is None and self.names("subject_"):
            return
        if asked in (None, "all"):
            self.narrow("subject_type=all")
            self.about = "all reps"
            return
        found = self.rows(
            """
            select distinct
                subject_type || ':' || subject_id as key,
                subject_name as name,
                subject_type as type,
                subject_id as id
            from chosen
            where subject_type != 'all'
            order by key
            """
        )
        fitting = [each for each in found if asked in (each["key"], each["id"], each["name"])]
        if not fitting:
            by = "key" if ":" in str(asked) else "name"
            known = dict.fromkeys(str(each[by]) for each in found) or ["all"]
            raise StagelineError(
                f"{self.table.name} knows no rep or team {asked}. {nearest(str(asked), known)}"
            )
        if len(fitting) > 1:
            raise StagelineError(
                f"{asked} stands for several: name one of"
                f" {', '.join(each['key'] for each in fitting)}."
            )
        (one,) = fitting
        self.conditions += [
            Condition(
                sql.SQL("subject_type = {} and subject_id = {}").format(
                    sql.Placeholder(), sql.Placeholder()
                ),
                (one["type"], one["id"]),
                f"subject={asked}",
            )
        ]
        self.about = f"{one['type']} {cut(one['name'] or one['id'])}"

    def choose_one(self, column: str, why: str) -> None:
        """Makes sure that all rows have one value in ``column``.

        Raises:
            StagelineError: they have several, with the conditions that would choose.
        """
        found = self.rows(
            sql.SQL("select distinct {} as value from chosen order by 1").format(
                sql.Identifier(column)
            )
        )
        if len(found) > 1:
            raise StagelineError(
                f"{why}: choose one with "
                + " or ".join(f"--where {column}={each['value']}" for each in found[:5])
                + "."
            )


def reading(session: psycopg.Connection[Any], table: str, where: Sequence[str]) -> Reading:
    """The rows of ``kpis.<table>`` in which what was typed holds.

    Raises:
        StagelineError: there is no such table, or a condition does not fit it.
    """
    session.execute("set time zone 'UTC'")
    found = table_named(session, table)
    return Reading(session, found, conditions_on(found, where))


def cut(text: str, longest: int = 26) -> str:
    """``text`` on one line, with an ellipsis where it is longer."""
    text = " ".join(str(text).split())
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def labels(names: Sequence[str]) -> list[str]:
    """A short label for each name, no two of them alike."""
    seen: dict[str, int] = {}
    made = []
    for name in names:
        label = cut(name) or "(no name)"
        seen[label] = seen.get(label, 0) + 1
        made.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return made


def instant(at: datetime) -> str:
    """An instant for people."""
    return f"{day(at.astimezone(UTC).date())} {at.astimezone(UTC):%H:%M} UTC"


def day(at: date) -> str:
    """A day for people: 3 May 2026."""
    return f"{at.day} {at:%b %Y}"


def month(at: date) -> str:
    """A month for people: May 2026."""
    return f"{at:%b %Y}"


def span(first: str, last: str) -> str:
    """From one to the other, or the one that both are."""
    return first if first == last else f"{first} to {last}"


def many(count: float, things: str) -> str:
    """A count and what is counted: ``1 lead``, ``12 leads``."""
    return f"{count:,.0f} {things.removesuffix('s') if count == 1 else things}"


def millis(at: date) -> int:
    """The first moment of a day in UTC, as charts count time."""
    return int(datetime(at.year, at.month, at.day, tzinfo=UTC).timestamp()) * 1000


def thinned(days: Sequence[date], most: int = 400) -> set[date]:
    """So many of the days, evenly, the last one among them."""
    step = -(-len(days) // most)
    return {*sorted(days)[::-1][::step]}


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
