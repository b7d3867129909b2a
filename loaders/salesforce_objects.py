"""How objects of Salesforce (its word for kinds of records) are asked for and put into columns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from loaders.record_values import Type
from loaders.records import Column, Record, Table
from stageline.crm_values import instant

DATASET = "raw_salesforce"

#: When the records of an object last changed; it moves with changes of the system, too.
CHANGED = "SystemModstamp"

#: Fields that tell what the user of the API looked at last: they change without a change.
_OF_THE_READER = frozenset({"LastViewedDate", "LastReferencedDate"})


@dataclass(frozen=True)
class Scope:
    """What a first load brings of an object: what is open, and what ended on a day or later.

    Attributes:
        ended: The field that says when a record ended.
        is_closed: The field that says whether it has; where empty, each has an end.
        is_date: ``ended`` is a calendar day (UTC), not an instant.
        changed: The field that says when it last changed, where people set ``ended`` as they like:
            what changed since then is brought too.
    """

    ended: str
    is_closed: str = ""
    is_date: bool = False
    changed: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it is judged by."""
        return tuple(filter(None, (self.is_closed, self.ended, self.changed)))

    def condition(self, since: datetime) -> str:
        """It as a condition of SOQL, in which days and instants stand without quotes."""
        start = f"{since.date()}" if self.is_date else written(since)
        late = f"{self.ended} >= {start}"
        if self.changed:
            late += f" OR {self.changed} >= {written(since)}"
        return f"({self.is_closed} = false OR {late})" if self.is_closed else late

    def holds(self, record: Record, since: datetime) -> bool:
        """Whether a record is one of those."""
        if self.is_closed and record.get(self.is_closed) is False:
            return True
        changed_at = instant(record.get(self.changed))
        if changed_at is not None and changed_at >= since:
            return True
        ended = record.get(self.ended)
        if not isinstance(ended, str):
            return False
        if self.is_date:
            return ended[:10] >= f"{since.date()}"
        at = instant(ended)
        return at is not None and at >= since


@dataclass(frozen=True)
class Object:
    """An object (Salesforce's word for a kind of record) that is loaded.

    Attributes:
        name: As the API calls it.
        table: Where its records go.
        needed: Fields without which its records are worth nothing.
        related: Field -> what to ask for beside it, of the record that it refers to.
        scope: What a first load brings; None = everything.
        condition: Of SOQL, which all its records have to meet; "" = none.
        operation: ``queryAll`` also gives what was deleted lately, and archived activities.
    """

    name: str
    table: Table
    needed: tuple[str, ...] = ("Id", CHANGED)
    related: dict[str, str] = field(default_factory=dict)
    scope: Scope | None = None
    condition: str = ""
    operation: str = "queryAll"

    @property
    def has_custom_fields(self) -> bool:
        """Whether fields without a column are brought, too."""
        return any(column.name == "custom_fields" for column in self.table.columns)

    @property
    def columns_of(self) -> frozenset[str]:
        """The fields that have a column."""
        return frozenset(
            column.of for column in self.table.columns if isinstance(column.of, str) and column.of
        )

    def wants(self, described: dict[str, Any]) -> bool:
        """Whether a field that the account has is asked for."""
        name = described["name"]
        if described.get("type") == "base64" or name in _OF_THE_READER:
            return False
        return self.has_custom_fields or name in self.columns_of


def written(at: datetime) -> str:
    """An instant as SOQL has it."""
    utc = at.astimezone(UTC)
    fraction = f".{utc.microsecond // 1000:03}" if utc.microsecond else ""
    return f"{utc:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _others(columns: tuple[Column, ...]) -> Callable[[Record], object]:
    """Gives the fields of a record that have a value and no column."""
    taken = {"attributes"} | {str(column.of).split(".")[0] for column in columns}

    def find(record: Record) -> object:
        return {
            name: value for name, value in record.items() if value is not None and name not in taken
        }

    return find


def columns(fields: list[tuple[str, Type, str]]) -> tuple[Column, ...]:
    """Columns of fields, given name, type and field of each."""
    return tuple(Column(*each) for each in fields)


def with_others(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Columns, and one for all fields that have none."""
    return (*columns, Column("custom_fields", "json", _others(columns)))


#: What most records have.
RECORD: list[tuple[str, Type, str]] = [
    ("owner_id", "id", "OwnerId"),
    ("is_deleted", "boolean", "IsDeleted"),
    ("created_at", "timestamp", "CreatedDate"),
    ("modified_at", "timestamp", "LastModifiedDate"),
    ("system_modified_at", "timestamp", CHANGED),
]
