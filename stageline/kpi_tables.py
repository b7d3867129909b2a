"""The tables and views of schema ``kpis`` as they stand, and conditions on their rows.

What a person types (``month>=2024-01-01``) becomes a condition of the type of its column, with the
value as a parameter: nothing that was typed is ever part of a statement.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import psycopg
from psycopg import sql

from stageline.errors import StagelineError, nearest
from stageline.explain import models

Kind = Literal["integer", "numeric", "boolean", "date", "instant", "text"]

_SCHEMA = "kpis"

#: Type in PostgreSQL -> kind; a column of another type is read as text.
_KINDS: Mapping[str, Kind] = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "numeric": "numeric",
    "bool": "boolean",
    "date": "date",
    "timestamptz": "instant",
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: As in the database.
        kind: What its values are; an integer has at most 64 bits.
        precision: Digits in all and after the point, of a number that states them.
        unit: Of its values: ``count``, ``seconds``, ``currency of the row`` ...
        description: What it holds; empty where the database does not say.
        formula: What it is made of; empty where nothing is computed.
    """

    name: str
    kind: Kind
    precision: tuple[int, int] | None = None
    unit: str = ""
    description: str = ""
    formula: str = ""

    @property
    def is_percent(self) -> bool:
        """Whether its values are percentages, 0 to 100."""
        return self.kind == "numeric" and self.name.endswith("_pct")


@dataclass(frozen=True)
class Table:
    """A table or view of schema ``kpis``.

    Attributes:
        name: Without the schema.
        columns: By name, in their order.
        grain: Columns that identify a row; empty where no model says so.
    """

    name: str
    columns: Mapping[str, Column]
    grain: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """The table, for a statement."""
        return sql.Identifier(_SCHEMA, self.name)


@dataclass(frozen=True)
class Condition:
    """A condition on rows: SQL with placeholders, the values for them, and how it was typed."""

    predicate: sql.Composable
    values: tuple[Any, ...]
    typed: str


def table_named(session: psycopg.Connection[Any], name: str) -> Table:
    """The table or view ``kpis.<name>``, as far as the session's role may read it.

    Raises:
        StagelineError: there is none, or it is not built yet.
    """
    found = session.execute(
        """
        select
            attribute.attname,
            type.typname,
            attribute.atttypmod,
            coalesce(col_description(class.oid, attribute.attnum), '')
        from pg_class as class
        inner join pg_attribute as attribute on class.oid = attribute.attrelid
        inner join pg_type as type on attribute.atttypid = type.oid
        where
            class.relnamespace = to_regnamespace(%(schema)s)
            and class.relname = %(name)s
            and class.relkind in ('r', 'p', 'v', 'm')
            and has_table_privilege(class.oid, 'select')
            and attribute.attnum > 0
            and not attribute.attisdropped
        order by attribute.attnum
        """,
        {"schema": _SCHEMA, "name": name},
    ).fetchall()
    model = models().get(name)
    if not found and model is not None:
        raise StagelineError(f"{name} is not built yet. Run `stageline build` first.")
    if not found:
        raise StagelineError(f"There is no KPI table {name}. {nearest(name, _names(session))}")
    columns = {}
    for column, typname, modifier, description in found:
        meta = model.columns.get(column, {}) if model else {}
        columns[column] = Column(
            column,
            _KINDS.get(typname, "text"),
            _precision(modifier) if typname == "numeric" else None,
            str(meta.get("unit", "")),
            str(description),
            str(meta.get("formula", "")),
        )
    grain = tuple(name for name in model.grain if name in columns) if model else ()
    return Table(name, columns, grain)


def selection(table: Table, conditions: Iterable[Condition]) -> sql.Composed:
    """The statement that reads the rows in which all conditions hold, in the order of the grain.

    Its parameters are those of ``values_of``.
    """
    statement = sql.SQL("select {} from {} where {}").format(
        sql.SQL(", ").join(_value(column) for column in table.columns.values()),
        table.identifier,
        all_of(conditions),
    )
    if table.grain:
        statement += sql.SQL(" order by ") + sql.SQL(", ").join(map(sql.Identifier, table.grain))
    return statement


def all_of(conditions: Iterable[Condition]) -> sql.Composable:
    """The predicate that holds where all of them do."""
    predicates = [condition.predicate for condition in conditions]
    return sql.SQL(" and ").join(predicates) if predicates else sql.SQL("true")


def values_of(conditions: Iterable[Condition]) -> list[Any]:
    """The parameters of ``all_of``, in its order."""
    return [value for condition in conditions for value in condition.values]


def conditions_on(table: Table, typed: Sequence[str]) -> list[Condition]:
    """What was typed as conditions on rows of ``table``.

    ``COLUMN=VALUE``, with ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``; or ``COLUMN in A,B`` with
    values, and ranges ``A..B`` that hold both ends. ``COLUMN=`` holds where nothing stands, and
    ``COLUMN!=`` where something does; ``!=`` also holds where nothing stands.

    Raises:
        StagelineError: it cannot be read, the table has no such column, or a value does not fit it.
    """
    return [_condition(table, text) for text in typed]


_TYPED = re.compile(
    r"\s*([^\s=!<>]+)\s*(?:(!=|<=|>=|=|<|>)(.*)|\s+in\s(.*))", re.DOTALL | re.IGNORECASE
)


def _condition(table: Table, text: str) -> Condition:
    if not (read := _TYPED.fullmatch(text)):
        raise StagelineError(
            f"--where {text} cannot be read; it looks like --where month=2024-01-01,"
            " 'month>=2024-01-01' or 'priority in high,critical'.",
            exit_code=2,
        )
    name, operator, value, listed = read.groups()
    if name not in table.columns:
        raise StagelineError(f"{table.name} has no column {name}. {nearest(name, table.columns)}")
    column = table.columns[name]
    if listed is not None:
        return _among(column, listed, text.strip())
    return _compared(column, operator, value.strip(), text.strip())


def _compared(column: Column, operator: str, value: str, typed: str) -> Condition:
    subject = _value(column)
    if not value:
        if operator not in ("=", "!="):
            raise StagelineError(f"--where {typed} names no value.", exit_code=2)
        is_empty = sql.SQL("({} is null)").format(subject)
        if column.kind == "text":
            is_empty = sql.SQL("(coalesce({}, '') = '')").format(subject)
        return Condition(
            is_empty if operator == "=" else sql.SQL("not {}").format(is_empty), (), typed
        )
    # A row without a value is another one than any that has one.
    by = {"!=": sql.SQL("is distinct from")}.get(operator, sql.SQL(operator))
    return Condition(
        sql.SQL("{} {} {}").format(subject, by, sql.Placeholder()), (_read(column, value),), typed
    )


def _among(column: Column, listed: str, typed: str) -> Condition:
    items = [item.strip() for item in next(csv.reader([listed], skipinitialspace=True), [])]
    if not items or not all(items):
        raise StagelineError(f"--where {typed} names no value where one should be.", exit_code=2)
    predicates: list[sql.Composable] = []
    values: list[Any] = []
    for item in items:
        first, dots, last = item.partition("..")
        if dots and column.kind not in ("text", "boolean"):
            predicates.append(
                sql.SQL("{} between {} and {}").format(
                    _value(column), sql.Placeholder(), sql.Placeholder()
                )
            )
            values += [_read(column, first.strip()), _read(column, last.strip())]
        else:
            predicates.append(sql.SQL("{} = {}").format(_value(column), sql.Placeholder()))
            values.append(_read(column, item))
    return Condition(sql.SQL("({})").format(sql.SQL(" or ").join(predicates)), (*values,), typed)


def _value(column: Column) -> sql.Composable:
    """A column, for a statement."""
    name = sql.Identifier(column.name)
    return sql.SQL("{}::text").format(name) if column.kind == "text" else name


def _integer(value: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", value):
        raise ValueError
    return int(value)


def _number(value: str) -> Decimal:
    number = Decimal(value)
    if not number.is_finite() or len(value) > 100 or abs(number.adjusted()) > 100:
        raise ValueError
    return number


def _truth(value: str) -> bool:
    return {"true": True, "false": False}[value.lower()]


def _instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError
    return value


#: Kind -> how a value is read, and what it looks like.
_READERS: Mapping[Kind, tuple[Callable[[str], Any], str]] = {
    "integer": (_integer, "a whole number such as 12"),
    "numeric": (_number, "a number such as 12.5"),
    "boolean": (_truth, "true or false"),
    "date": (date.fromisoformat, "a date such as 2024-01-31"),
    "instant": (
        _instant,
        "an instant such as 2024-01-31 (its first moment in UTC) or 2024-01-31T18:00:00+02:00",
    ),
    "text": (_text, "text"),
}


def _read(column: Column, value: str) -> Any:
    read, example = _READERS[column.kind]
    try:
        return read(value)
    except (ValueError, KeyError, InvalidOperation, OverflowError):
        raise StagelineError(f"{column.name} takes {example}, not {value!r}.") from None


def _precision(modifier: int) -> tuple[int, int] | None:
    """Digits of a numeric, as PostgreSQL packs them into a column's modifier."""
    return None if modifier < 4 else ((modifier - 4) >> 16, (modifier - 4) & 0x7FF)


def _names(session: psycopg.Connection[Any]) -> list[str]:
    rows = session.execute(
        """
        select relname
        from pg_class
        where
            relnamespace = to_regnamespace(%s)
            and relkind in ('r', 'p', 'v', 'm')
            and has_table_privilege(oid, 'select')
        order by relname
        """,
        [_SCHEMA],
    )
    return sorted({name for (name,) in rows} | {*models()})
