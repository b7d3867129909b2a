"""What must hold of raw data before it is built on, as data.

What ``loaders/entities.py`` says of a field (required, choices, bounds, key) is taken from there,
and what the loaders of CRMs declare of their tables from these. Here stands only what they cannot
say: which instants follow which, what refers to what, how old is too old.
``jobs/quality.py`` runs these rules with Great Expectations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loaders.entities import ENTITIES, Entity, Type
from loaders.entities import Field as EntityField
from loaders.registry import SOURCES, source
from stageline.errors import StagelineError

Severity = Literal["critical", "warning"]
Kind = Literal[
    "filled",
    "empty",
    "unique",
    "choices",
    "between",
    "order",
    "apart",
    "reference",
    "newest",
    "rows",
]

#: Nothing in a CRM is older; an earlier instant is a default value or a date in the wrong format.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)

#: How far ahead of the check an instant may lie that says what happened (clocks and zones differ).
AHEAD = timedelta(days=1)

#: How far ahead a plan may lie.
PLAN_AHEAD = timedelta(days=3660)

#: Fields that say what is planned, and so may lie ahead.
PLANNED = frozenset(
    {
        "due_at",
        "scheduled_at",
        "expected_close_date",
        "partner_list_due_at",
        "active_from",
        "active_to",
    }
)

#: Per entity: which instant is never before which.
ORDER: dict[str, tuple[tuple[str, str], ...]] = {
    "leads": tuple(
        ("created_at", later) for later in ("sql_at", "opportunity_at", "won_at", "lost_at")
    ),
    "opportunities": (("created_at", "closed_at"),),
    "tickets": (
        ("created_at", "first_response_at"),
        ("created_at", "first_resolved_at"),
        ("created_at", "waiting_since"),
        ("first_resolved_at", "last_resolved_at"),
    ),
    "outreach": (("sent_at", "responded_at"), ("sent_at", "converted_at")),
    "invoices": (("issued_at", "due_at"), ("issued_at", "paid_at")),
    "applications": (("submitted_at", "due_at"), ("submitted_at", "decided_at")),
    "reps": (("active_from", "active_to"),),
    "pipeline_items": (
        *(("created_at", later) for later in ("call_conducted_at", "proposal_at", "closed_at")),
        ("call_booked_at", "call_conducted_at"),
        ("call_conducted_at", "proposal_at"),
        ("proposal_at", "agreement_at"),
        ("agreement_at", "partner_list_due_at"),
        ("agreement_at", "partner_list_sent_at"),
        ("partner_list_sent_at", "first_sale_at"),
    ),
}

#: Per entity: the fields with the first and last day of a time. Two times of one owner, which the
#: rest of the key names, have no day in common.
APART: dict[str, tuple[str, str]] = {"reps": ("active_from", "active_to")}

#: Per entity: the field that names a row of another entity, which has a key of the same name.
REFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "opportunities": (("lead_id", "leads"),),
    "satisfaction": (("ticket_id", "tickets"),),
    "outreach": (("lead_id", "leads"),),
    "invoices": (("opportunity_id", "opportunities"),),
    "activities": (("lead_id", "leads"), ("item_id", "pipeline_items")),
    "pipeline_items": (("lead_id", "leads"), ("sublist_id", "sublists")),
    "sublists": (("item_id", "pipeline_items"),),
    "sales": (("item_id", "pipeline_items"), ("lead_id", "leads")),
}

#: Table and column of a source.
_Place = tuple[str, str]

#: Per CRM: what of a table must be found in which column, or in any of which columns. A row that is
#: marked as gone is there. Left out is what a CRM does not tell all of: KeyCRM's list of statuses
#: omits inactive ones, owners of Salesforce's cases and leads may be queues, and emails and
#: comments come of cases that closed long before the first load.
ANSWER_REFERENCES: dict[str, tuple[tuple[_Place, tuple[_Place, ...]], ...]] = {
    "hubspot": (
        (("deals", "stage_id"), (("deal_stages", "stage_id"),)),
        (("deals", "pipeline_id"), (("deal_pipelines", "pipeline_id"),)),
        (("deals", "owner_id"), (("owners", "owner_id"),)),
        (("deal_history", "deal_id"), (("deals", "deal_id"),)),
        (("tickets", "stage_id"), (("ticket_stages", "stage_id"),)),
    ),
    "salesforce": (
        (("opportunities", "stage_name"), (("stages", "stage_name"),)),
        (("opportunities", "owner_id"), (("users", "user_id"),)),
        (("opportunity_history", "opportunity_id"), (("opportunities", "opportunity_id"),)),
        (("opportunity_history", "stage_name"), (("stages", "stage_name"),)),
        (("opportunity_field_history", "opportunity_id"), (("opportunities", "opportunity_id"),)),
        (("cases", "status"), (("case_statuses", "status_name"),)),
        (("case_history", "case_id"), (("cases", "case_id"),)),
    ),
    "pipedrive": (
        (("listed_deals", "stage_id"), (("stages", "stage_id"),)),
        (("listed_deals", "pipeline_id"), (("pipelines", "pipeline_id"),)),
        (("listed_deals", "owner_id"), (("users", "user_id"),)),
        (("listed_deals", "org_id"), (("organizations", "organization_id"),)),
        # Follow-up work of webhooks asks for deals that no list was read of.
        (("deal_changes", "deal_id"), (("listed_deals", "deal_id"), ("deals", "deal_id"))),
    ),
    "keycrm": (
        (("orders", "source_id"), (("order_sources", "source_id"),)),
        (("order_items", "order_id"), (("orders", "order_id"),)),
    ),
}

#: Per entity: the field whose newest value tells how fresh the data is.
NEWEST: dict[str, str] = {
    "leads": "created_at",
    "opportunities": "created_at",
    "tickets": "created_at",
    "satisfaction": "responded_at",
    "outreach": "sent_at",
    "invoices": "issued_at",
    "applications": "submitted_at",
    "stage_events": "entered_at",
    "activities": "completed_at",
    "reps": "active_from",
    "pipeline_items": "created_at",
    "sublists": "created_at",
    "sales": "sold_at",
}


@dataclass(frozen=True)
class Rule:
    """One thing that must hold of one table.

    Attributes:
        kind: What sort of rule.
        severity: ``critical`` stops the build.
        about: The rule as a person would say it.
        columns: The columns it is about, in the order that ``about`` names them.
        choices: Allowed values (``choices``).
        least, most: Bounds, inclusive; None is open.
        where: Column and value of the rows that it is about; None is all.
        refers_to: Schema, table and column of those that may hold the value, of which one must
            (``reference``).
        within: Columns that must agree with the row referred to (``reference``), or with another
            row of the table for the two to be compared (``apart``).
    """

    kind: Kind
    severity: Severity
    about: str
    columns: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    least: float | datetime | None = None
    most: float | datetime | None = None
    where: tuple[str, str] | None = None
    refers_to: tuple[tuple[str, str, str], ...] = ()
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawTable:
    """A raw table that is checked.

    Attributes:
        schema, table: Its name.
        entity: What its rows are; for the demo source, the entity as that source has it.
        owner_columns: Columns beside the entity's key that make a row unique.
        is_ours: Comes with the product: nothing may be odd in it, and its age means nothing.
        project: ``settings.projects`` row that must be active for the data to count; None: always.
        is_answer: Holds what a CRM answered; there may be none, and its age says nothing, as what
            is loaded again as it was is not written.
    """

    schema: str
    table: str
    entity: Entity
    owner_columns: tuple[str, ...] = ()
    is_ours: bool = False
    project: tuple[str, str] | None = None
    is_answer: bool = False

    @property
    def name(self) -> str:
        """Schema and table, as a person would write them."""
        return f"{self.schema}.{self.table}"

    def sibling(self, entity: str) -> tuple[str, str] | None:
        """Schema and table of another entity of the same source, or None where it has none."""
        return next(
            (
                (other.schema, other.table)
                for other in TABLES
                if other.schema == self.schema and other.entity.name == entity
            ),
            None,
        )


#: The demo source's deals, as it delivers them.
DEMO_OPPORTUNITIES = Entity(
    "opportunities",
    "One row per deal of the demo source.",
    ("id",),
    (
        EntityField("id", "text", "The deal.", required=True),
        EntityField("name", "text", "What it is called.", required=True),
        EntityField("company", "text", "The customer.", required=True),
        EntityField("stage", "text", "Stage as the source names it.", required=True),
        EntityField("value", "numeric", "Value.", required=True, least=0),
        EntityField("probability", "numeric", "Chance of winning.", required=True, least=0, most=1),
        EntityField("owner", "text", "Who owns it."),
        EntityField("created_at", "timestamp", "When it was created.", required=True),
        EntityField("updated_at", "timestamp", "When it last changed."),
    ),
)


def _answers(name: str) -> Iterator[RawTable]:
    """The tables of a CRM."""
    found = source(name)
    for table in found.tables:
        types: dict[str, Type] = {c.name: _TYPES.get(c.type, "text") for c in table.columns}
        yield RawTable(
            table.dataset,
            table.name,
            Entity(
                f"{name}_{table.name}",
                f"What {found.title} answered.",
                table.key,
                (
                    *(
                        EntityField(column, kind, "", required=column in table.key)
                        for column, kind in types.items()
                    ),
                    EntityField("fetched_at", "timestamp", "", required=True),
                ),
            ),
            owner_columns=("project_id",),
            is_answer=True,
        )


#: Types of columns that are types of fields, too; all others are texts.
_TYPES: dict[str, Type] = {
    "numeric": "numeric",
    "integer": "integer",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}

TABLES: tuple[RawTable, ...] = (
    *(
        RawTable("raw_files", entity.name, entity, owner_columns=("project_id",))
        for entity in ENTITIES.values()
    ),
    *(
        RawTable(
            "raw_sample",
            f"sample_{entity.name}",
            entity,
            is_ours=True,
            project=("sample", "sample"),
        )
        for entity in ENTITIES.values()
    ),
    RawTable(
        "raw_demo", "opportunities", DEMO_OPPORTUNITIES, is_ours=True, project=("demo", "demo")
    ),
    *(table for name in SOURCES for table in _answers(name)),
)


class Freshness(BaseModel):
    """How old the newest record may be. Days; None: not checked."""

    model_config = ConfigDict(extra="forbid")
    severity: Severity = "warning"
    default_days: float | None = Field(default=7, gt=0)
    days: dict[str, float | None] = {}

    def limit(self, entity: str) -> float | None:
        """Days for that entity."""
        return self.days.get(entity, self.default_days)


class RowCount(BaseModel):
    """How far the rows of a table may drop from one day to the next."""

    model_config = ConfigDict(extra="forbid")
    drop_pct: float = Field(default=50, gt=0, le=100)
    drop_severity: Severity = "warning"
    empty_severity: Severity = "critical"


class Limits(BaseModel):
    """What ``jobs/quality.yml`` says."""

    model_config = ConfigDict(extra="forbid")
    freshness: Freshness = Freshness()
    row_count: RowCount = RowCount()


@cache
def limits() -> Limits:
    """The limits in ``jobs/quality.yml``.

    Raises:
        StagelineError: the file has a key or a value that means nothing.
    """
    path = Path(__file__).with_name("quality.yml")
    try:
        found = Limits.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (ValidationError, yaml.YAMLError) as error:
        where = (
            " in " + ".".join(str(part) for part in error.errors()[0]["loc"])
            if isinstance(error, ValidationError)
            else ""
        )
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not YAML"
        raise StagelineError(f"jobs/quality.yml cannot be used{where}: {reason}.") from None
    unknown = sorted(set(found.freshness.days) - set(ENTITIES))
    if unknown:
        raise StagelineError(
            f"jobs/quality.yml names {unknown[0]} under freshness.days, which is no entity."
            f" Known: {', '.join(ENTITIES)}."
        )
    return found


def rules(table: RawTable, *, now: datetime, limits: Limits, rows_before: int | None) -> list[Rule]:
    """Everything that must hold of ``table``.

    What a KPI cannot be built without is critical: keys, required fields, choices, bounds. What the
    models keep, flag and leave out of averages (impossible instants, dangling references, negative
    amounts) is a warning in data of the user's, and critical in data that comes with the product.

    Args:
        table: The table.
        now: Instant of the check, or a later ``as_of``.
        limits: Limits of age and row count.
        rows_before: Rows at the last check of an earlier day; None where there was none.
    """
    odd: Severity = "critical" if table.is_ours else "warning"
    return [
        *_keys(table),
        *_fields(table, now, odd),
        *_instant_order(table, odd),
        *_times_apart(table, odd),
        *_references(table, odd),
        *_age(table, now, limits.freshness),
        *row_count_rules(limits.row_count, rows_before),
    ]


def row_count_rules(limit: RowCount, rows_before: int | None) -> list[Rule]:
    """How many rows a table must have, given how many it had; the count is recorded in any case."""
    if not rows_before:
        return [Rule("rows", "warning", "the rows are counted", least=0)]
    share = 1 - Decimal(str(limit.drop_pct)) / 100
    least = int((rows_before * share).to_integral_value(ROUND_CEILING))
    before = f"{rows_before:,} at the last check of an earlier day"
    return [
        Rule("rows", limit.empty_severity, f"there are rows ({before})", least=1),
        Rule("rows", limit.drop_severity, f"at least {least:,} rows ({before})", least=least),
    ]


def _keys(table: RawTable) -> Iterator[Rule]:
    columns = (*table.owner_columns, *table.entity.key)
    for column in columns:
        field = table.entity.field(column)
        if field is None or not field.required:
            yield Rule("filled", "critical", f"{column} is filled in", (column,))
    together = f"{', '.join(columns[:-1])} and {columns[-1]}" if len(columns) > 1 else columns[0]
    verb = "are unique together" if len(columns) > 1 else "is unique"
    yield Rule("unique", "critical", f"{together} {verb}", columns)


def _fields(table: RawTable, now: datetime, odd: Severity) -> Iterator[Rule]:
    if table.is_answer:
        about = "every value fits its column"
        yield Rule("empty", "warning", about, ("unreadable",))
    for field in table.entity.fields:
        name, columns = field.name, (field.name,)
        if field.required:
            yield Rule("filled", "critical", f"{name} is filled in", columns)
        if field.choices:
            listed = ", ".join(field.choices)
            yield Rule("choices", "critical", f"{name} is one of {listed}", columns, field.choices)
        if field.least is not None or field.most is not None:
            bounds = _bounds(field.least, field.most)
            yield Rule(
                "between",
                "critical",
                f"{name} {bounds}",
                columns,
                least=field.least,
                most=field.most,
            )
        elif name == "amount":
            # A credit note is negative by right, so in data of the user's it is only pointed out.
            yield Rule("between", odd, f"{name} is at least 0", columns, least=0)
        if field.type in ("timestamp", "date"):
            most = now + (PLAN_AHEAD if name in PLANNED or table.is_answer else AHEAD)
            about = f"{name} lies between {EARLIEST:%Y-%m-%d} and {most:%Y-%m-%d}"
            yield Rule("between", odd, about, columns, least=EARLIEST, most=most)
    if table.entity.name == "satisfaction":
        about = "score is between 1 and 5 where survey_type is csat"
        where = ("survey_type", "csat")
        yield Rule("between", "critical", about, ("score",), least=1, most=5, where=where)


def _bounds(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"is between {least:g} and {most:g}"
    return f"is at least {least:g}" if least is not None else f"is at most {most:g}"


def _instant_order(table: RawTable, odd: Severity) -> Iterator[Rule]:
    for earlier, later in ORDER.get(table.entity.name, ()):
        if table.entity.field(earlier) and table.entity.field(later):
            yield Rule("order", odd, f"{later} is not before {earlier}", (later, earlier))


def _times_apart(table: RawTable, odd: Severity) -> Iterator[Rule]:
    if table.entity.name in APART:
        first, last = APART[table.entity.name]
        owner = tuple(name for name in table.entity.key if name != first)
        yield Rule(
            "apart",
            odd,
            f"no two rows of one {' and '.join(owner)} have a day from {first} to {last} in common",
            (first, last),
            within=(*table.owner_columns, *owner),
        )


def _references(table: RawTable, odd: Severity) -> Iterator[Rule]:
    for column, entity in REFERENCES.get(table.entity.name, ()):
        target = table.sibling(entity)
        if target is not None and table.entity.field(column):
            yield Rule(
                "reference",
                odd,
                f"{column} exists in {'.'.join(target)}",
                (column,),
                refers_to=((*target, column),),
                within=table.owner_columns,
            )
    crm = table.schema.removeprefix("raw_") if table.is_answer else ""
    for (name, column), targets in ANSWER_REFERENCES.get(crm, ()):
        if name == table.table:
            held = " or ".join(f"{table.schema}.{parent}" for parent, _ in targets)
            yield Rule(
                "reference",
                odd,
                f"{column} exists in {held}",
                (column,),
                refers_to=tuple((table.schema, *target) for target in targets),
                within=table.owner_columns,
            )


def _age(table: RawTable, now: datetime, limit: Freshness) -> Iterator[Rule]:
    days = limit.limit(table.entity.name)
    if table.is_ours or table.is_answer or days is None:
        return
    column = NEWEST[table.entity.name]
    about = f"the newest {column} is at most {days:g} days old"
    yield Rule("newest", limit.severity, about, (column,), least=now - timedelta(days=days))
