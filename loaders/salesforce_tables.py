"""The objects of Salesforce that are loaded, and the tables that their records go to.

A standard field has a column of its own; all others, the organisation's own among them, go to
``custom_fields``. Columns whose field an organisation does not have stay empty.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from loaders.records import Column, Record, Table, Type
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


def _columns(columns: list[tuple[str, Type, str]]) -> tuple[Column, ...]:
    return tuple(Column(*each) for each in columns)


def _with_others(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    return (*columns, Column("custom_fields", "json", _others(columns)))


_RECORD: list[tuple[str, Type, str]] = [
    ("owner_id", "id", "OwnerId"),
    ("is_deleted", "boolean", "IsDeleted"),
    ("created_at", "timestamp", "CreatedDate"),
    ("modified_at", "timestamp", "LastModifiedDate"),
    ("system_modified_at", "timestamp", CHANGED),
]

OPPORTUNITIES = Table(
    DATASET,
    "opportunities",
    ("opportunity_id",),
    _with_others(
        _columns(
            [
                ("opportunity_id", "id", "Id"),
                ("name", "text", "Name"),
                ("account_id", "id", "AccountId"),
                ("account_name", "text", "Account.Name"),
                ("record_type_id", "id", "RecordTypeId"),
                ("campaign_id", "id", "CampaignId"),
                ("stage_name", "text", "StageName"),
                ("opportunity_type", "text", "Type"),
                ("lead_source", "text", "LeadSource"),
                ("next_step", "text", "NextStep"),
                ("forecast_category", "text", "ForecastCategory"),
                ("forecast_category_name", "text", "ForecastCategoryName"),
                ("currency", "text", "CurrencyIsoCode"),
                ("amount", "numeric", "Amount"),
                ("expected_revenue", "numeric", "ExpectedRevenue"),
                ("probability", "numeric", "Probability"),
                ("is_closed", "boolean", "IsClosed"),
                ("is_won", "boolean", "IsWon"),
                ("has_line_items", "boolean", "HasOpportunityLineItem"),
                ("close_date", "date", "CloseDate"),
                ("last_activity_date", "date", "LastActivityDate"),
                ("last_stage_change_at", "timestamp", "LastStageChangeDate"),
                *_RECORD,
            ]
        )
    ),
    is_swept=True,
)

OPPORTUNITY_HISTORY = Table(
    DATASET,
    "opportunity_history",
    ("history_id",),
    _columns(
        [
            ("history_id", "id", "Id"),
            ("opportunity_id", "id", "OpportunityId"),
            ("created_by_id", "id", "CreatedById"),
            ("stage_name", "text", "StageName"),
            ("forecast_category", "text", "ForecastCategory"),
            ("currency", "text", "CurrencyIsoCode"),
            ("amount", "numeric", "Amount"),
            ("expected_revenue", "numeric", "ExpectedRevenue"),
            ("probability", "numeric", "Probability"),
            ("previous_amount", "numeric", "PrevAmount"),
            ("close_date", "date", "CloseDate"),
            ("previous_close_date", "date", "PrevCloseDate"),
            ("is_deleted", "boolean", "IsDeleted"),
            ("created_at", "timestamp", "CreatedDate"),
            ("system_modified_at", "timestamp", CHANGED),
        ]
    ),
)

OPPORTUNITY_FIELD_HISTORY = Table(
    DATASET,
    "opportunity_field_history",
    ("history_id",),
    _columns(
        [
            ("history_id", "id", "Id"),
            ("opportunity_id", "id", "OpportunityId"),
            ("created_by_id", "id", "CreatedById"),
            ("field", "text", "Field"),
            ("data_type", "text", "DataType"),
            ("old_value", "text", "OldValue"),
            ("new_value", "text", "NewValue"),
            ("is_deleted", "boolean", "IsDeleted"),
            ("created_at", "timestamp", "CreatedDate"),
        ]
    ),
)

#: Deals name their stage by its name, which a renamed one no longer has: so it is the key.
STAGES = Table(
    DATASET,
    "stages",
    ("stage_name",),
    _columns(
        [
            ("stage_name", "id", "StageName"),
            ("stage_id", "id", "Id"),
            ("label", "text", "MasterLabel"),
            ("api_name", "text", "ApiName"),
            ("description", "text", "Description"),
            ("forecast_category", "text", "ForecastCategory"),
            ("forecast_category_name", "text", "ForecastCategoryName"),
            ("default_probability", "numeric", "DefaultProbability"),
            ("sort_order", "integer", "SortOrder"),
            ("is_active", "boolean", "IsActive"),
            ("is_closed", "boolean", "IsClosed"),
            ("is_won", "boolean", "IsWon"),
            ("system_modified_at", "timestamp", CHANGED),
        ]
    ),
    is_swept=True,
)

USERS = Table(
    DATASET,
    "users",
    ("user_id",),
    _columns(
        [
            ("user_id", "id", "Id"),
            ("name", "text", "Name"),
            ("email", "text", "Email"),
            ("user_type", "text", "UserType"),
            ("role_id", "id", "UserRoleId"),
            ("manager_id", "id", "ManagerId"),
            ("profile_id", "id", "ProfileId"),
            ("is_active", "boolean", "IsActive"),
            ("created_at", "timestamp", "CreatedDate"),
            ("system_modified_at", "timestamp", CHANGED),
        ]
    ),
)

LEADS = Table(
    DATASET,
    "leads",
    ("lead_id",),
    _with_others(
        _columns(
            [
                ("lead_id", "id", "Id"),
                ("master_record_id", "id", "MasterRecordId"),
                ("converted_opportunity_id", "id", "ConvertedOpportunityId"),
                ("converted_account_id", "id", "ConvertedAccountId"),
                ("converted_contact_id", "id", "ConvertedContactId"),
                ("company", "text", "Company"),
                ("status", "text", "Status"),
                ("lead_source", "text", "LeadSource"),
                ("is_converted", "boolean", "IsConverted"),
                ("converted_date", "date", "ConvertedDate"),
                *_RECORD,
            ]
        )
    ),
    is_swept=True,
)

TASKS = Table(
    DATASET,
    "tasks",
    ("task_id",),
    _with_others(
        _columns(
            [
                ("task_id", "id", "Id"),
                ("what_id", "id", "WhatId"),
                ("who_id", "id", "WhoId"),
                ("subject", "text", "Subject"),
                ("status", "text", "Status"),
                ("task_type", "text", "Type"),
                ("task_subtype", "text", "TaskSubtype"),
                ("call_disposition", "text", "CallDisposition"),
                ("call_seconds", "integer", "CallDurationInSeconds"),
                ("is_closed", "boolean", "IsClosed"),
                ("is_archived", "boolean", "IsArchived"),
                ("activity_date", "date", "ActivityDate"),
                ("completed_at", "timestamp", "CompletedDateTime"),
                *_RECORD,
            ]
        )
    ),
    is_swept=True,
)

EVENTS = Table(
    DATASET,
    "events",
    ("event_id",),
    _with_others(
        _columns(
            [
                ("event_id", "id", "Id"),
                ("what_id", "id", "WhatId"),
                ("who_id", "id", "WhoId"),
                ("subject", "text", "Subject"),
                ("event_type", "text", "Type"),
                ("is_all_day", "boolean", "IsAllDayEvent"),
                ("is_archived", "boolean", "IsArchived"),
                ("is_group_event", "boolean", "IsGroupEvent"),
                ("is_recurrence", "boolean", "IsRecurrence"),
                ("starts_at", "timestamp", "StartDateTime"),
                ("ends_at", "timestamp", "EndDateTime"),
                *_RECORD,
            ]
        )
    ),
    is_swept=True,
)

CASES = Table(
    DATASET,
    "cases",
    ("case_id",),
    _with_others(
        _columns(
            [
                ("case_id", "id", "Id"),
                ("case_number", "text", "CaseNumber"),
                ("master_record_id", "id", "MasterRecordId"),
                ("account_id", "id", "AccountId"),
                ("status", "text", "Status"),
                ("priority", "text", "Priority"),
                ("origin", "text", "Origin"),
                ("is_closed", "boolean", "IsClosed"),
                ("is_escalated", "boolean", "IsEscalated"),
                ("closed_at", "timestamp", "ClosedDate"),
                *_RECORD,
            ]
        )
    ),
    is_swept=True,
)

OPPORTUNITY = Object(
    "Opportunity",
    OPPORTUNITIES,
    needed=("Id", CHANGED, "StageName", "IsClosed", "IsWon", "CloseDate"),
    related={"AccountId": "Account.Name"},
    scope=Scope("CloseDate", "IsClosed", is_date=True, changed=CHANGED),
)
HISTORY = Object(
    "OpportunityHistory",
    OPPORTUNITY_HISTORY,
    needed=("Id", "OpportunityId", "StageName", "CreatedDate"),
)
FIELD_HISTORY = Object(
    "OpportunityFieldHistory",
    OPPORTUNITY_FIELD_HISTORY,
    needed=("Id", "OpportunityId", "Field", "OldValue", "NewValue", "CreatedDate"),
)
STAGE = Object(
    "OpportunityStage",
    STAGES,
    needed=("Id", "MasterLabel", "IsActive", "IsClosed", "IsWon", "SortOrder"),
    operation="query",
)
USER = Object("User", USERS, operation="query")
LEAD = Object("Lead", LEADS, scope=Scope("ConvertedDate", "IsConverted", is_date=True))
TASK = Object("Task", TASKS, scope=Scope("LastModifiedDate", "IsClosed"))
#: An invitee has a copy of the event, which is no meeting of its own.
EVENT = Object("Event", EVENTS, scope=Scope("StartDateTime"), condition="IsChild = false")
CASE = Object("Case", CASES, scope=Scope("ClosedDate", "IsClosed"))

TABLES = (
    OPPORTUNITIES,
    OPPORTUNITY_HISTORY,
    OPPORTUNITY_FIELD_HISTORY,
    STAGES,
    USERS,
    LEADS,
    TASKS,
    EVENTS,
    CASES,
)
