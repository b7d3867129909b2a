"""The objects of Salesforce that are loaded, and the tables that their records go to.

A standard field has a column of its own; all others, the organisation's own among them, go to
``custom_fields``. Columns whose field an organisation does not have stay empty.
"""

from loaders.record_values import Type
from loaders.records import Table
from loaders.salesforce_objects import (
    CHANGED,
    DATASET,
    RECORD,
    Object,
    Scope,
    columns,
    with_others,
)

#: A name by which records call their stage or status: not a field, but either of two.
NAMED = "PicklistName"

_CHANGE_OF_A_FIELD: list[tuple[str, Type, str]] = [
    ("created_by_id", "id", "CreatedById"),
    ("field", "text", "Field"),
    ("data_type", "text", "DataType"),
    ("old_value", "text", "OldValue"),
    ("new_value", "text", "NewValue"),
    ("is_deleted", "boolean", "IsDeleted"),
    ("created_at", "timestamp", "CreatedDate"),
]

OPPORTUNITIES = Table(
    DATASET,
    "opportunities",
    ("opportunity_id",),
    with_others(
        columns(
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
                *RECORD,
            ]
        )
    ),
    is_swept=True,
)

OPPORTUNITY_HISTORY = Table(
    DATASET,
    "opportunity_history",
    ("history_id",),
    columns(
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
    columns(
        [
            ("history_id", "id", "Id"),
            ("opportunity_id", "id", "OpportunityId"),
            *_CHANGE_OF_A_FIELD,
        ]
    ),
)

#: Deals name their stage by its name, which a renamed one no longer has: so it is the key.
STAGES = Table(
    DATASET,
    "stages",
    ("stage_name",),
    columns(
        [
            ("stage_name", "id", NAMED),
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
    columns(
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
    with_others(
        columns(
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
                *RECORD,
            ]
        )
    ),
    is_swept=True,
)

TASKS = Table(
    DATASET,
    "tasks",
    ("task_id",),
    with_others(
        columns(
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
                *RECORD,
            ]
        )
    ),
    is_swept=True,
)

EVENTS = Table(
    DATASET,
    "events",
    ("event_id",),
    with_others(
        columns(
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
                *RECORD,
            ]
        )
    ),
    is_swept=True,
)

CASES = Table(
    DATASET,
    "cases",
    ("case_id",),
    with_others(
        columns(
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
                *RECORD,
            ]
        )
    ),
    is_swept=True,
)

#: Cases name their status by its name, which a renamed one no longer has: so it is the key.
CASE_STATUSES = Table(
    DATASET,
    "case_statuses",
    ("status_name",),
    columns(
        [
            ("status_name", "id", NAMED),
            ("status_id", "id", "Id"),
            ("label", "text", "MasterLabel"),
            ("api_name", "text", "ApiName"),
            ("sort_order", "integer", "SortOrder"),
            ("is_closed", "boolean", "IsClosed"),
        ]
    ),
    is_swept=True,
)

CASE_HISTORY = Table(
    DATASET,
    "case_history",
    ("history_id",),
    columns(
        [
            ("history_id", "id", "Id"),
            ("case_id", "id", "CaseId"),
            *_CHANGE_OF_A_FIELD,
        ]
    ),
)

#: Without addresses and words: that a customer was answered, and when, is all that is asked.
CASE_EMAILS = Table(
    DATASET,
    "case_emails",
    ("email_id",),
    columns(
        [
            ("email_id", "id", "Id"),
            ("case_id", "id", "ParentId"),
            ("created_by_id", "id", "CreatedById"),
            ("status", "text", "Status"),
            ("automation_type", "text", "AutomationType"),
            ("is_incoming", "boolean", "Incoming"),
            ("is_deleted", "boolean", "IsDeleted"),
            ("sent_at", "timestamp", "MessageDate"),
            ("created_at", "timestamp", "CreatedDate"),
            ("system_modified_at", "timestamp", CHANGED),
        ]
    ),
)

CASE_COMMENTS = Table(
    DATASET,
    "case_comments",
    ("comment_id",),
    columns(
        [
            ("comment_id", "id", "Id"),
            ("case_id", "id", "ParentId"),
            ("created_by_id", "id", "CreatedById"),
            ("is_published", "boolean", "IsPublished"),
            ("is_deleted", "boolean", "IsDeleted"),
            ("created_at", "timestamp", "CreatedDate"),
            ("system_modified_at", "timestamp", CHANGED),
        ]
    ),
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
CASE_STATUS = Object(
    "CaseStatus", CASE_STATUSES, needed=("Id", "MasterLabel", "IsClosed"), operation="query"
)
CASE_CHANGE = Object(
    "CaseHistory",
    CASE_HISTORY,
    needed=("Id", "CaseId", "Field", "OldValue", "NewValue", "CreatedDate"),
)
#: Emails about anything else have no case.
CASE_EMAIL = Object(
    "EmailMessage",
    CASE_EMAILS,
    needed=("Id", CHANGED, "ParentId", "Incoming", "Status", "MessageDate"),
    condition="ParentId != null",
)
CASE_COMMENT = Object(
    "CaseComment",
    CASE_COMMENTS,
    needed=("Id", CHANGED, "ParentId", "CreatedById", "IsPublished", "CreatedDate"),
)

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
    CASE_STATUSES,
    CASE_HISTORY,
    CASE_EMAILS,
    CASE_COMMENTS,
)
