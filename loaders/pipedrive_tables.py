"""Tables of what Pipedrive lists, and where the columns stand in its answers (contract 1.4-1.7)."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from loaders.records import Column, Record, Table
from stageline.crm_values import identifier

DATASET = "raw_pipedrive"

#: What of a deal its history is read for: all that models ask the past about.
_TRACKED = (
    "stage_id",
    "pipeline_id",
    "stage_change_time",
    "status",
    "won_time",
    "lost_time",
    "value",
    "currency",
    "probability",
    "expected_close_date",
    "owner_id",
)


def history_mark(deal: Mapping[str, Any]) -> str | None:
    """What the tracked fields of a deal of v2 are, as one text; None where none ever changed.

    While it is the one that the history was read for, that history is complete, and need not be
    read again: each reading costs 40 tokens, where a page of 500 deals costs 10. A deal that was
    never updated has no history; what was created with it are its first values.

    What this cannot see: a value that goes to and fro between two loads, for which no time is kept
    (only stage, won and lost have one). Those changes come with the next one that is seen.
    """
    updated = deal.get("update_time")
    if updated in (None, deal.get("add_time")) and deal.get("stage_change_time") is None:
        return None
    tracked = json.dumps([deal.get(name) for name in _TRACKED], default=str)
    return sha256(tracked.encode()).hexdigest()[:32]


def _deal_of_change(record: Record) -> object:
    """The deal whose history was read; none for an entry that tells of another one."""
    told = record["data"].get("item_id")
    return record["deal_id"] if identifier(told) in (None, record["deal_id"]) else None


def _changed_at(record: Record) -> object:
    return record["data"].get("log_time") or record.get("timestamp")


def _label(name: str) -> Any:
    def find(record: Record) -> object:
        more = record["data"].get("additional_data")
        return more.get(name) if isinstance(more, dict) else None  # a list where there are none

    return find


def _due_at(activity: Record) -> object:
    day, clock = activity.get("due_date"), activity.get("due_time")
    return f"{day}T{clock}" if day and clock else None


PIPELINES = Table(
    DATASET,
    "pipelines",
    ("pipeline_id",),
    (
        Column("pipeline_id", "id", "id"),
        Column("name", "text"),
        Column("position", "integer", "order_nr"),
        Column("is_deleted", "boolean"),
        Column("is_probability_enabled", "boolean", "is_deal_probability_enabled"),
        Column("added_at", "timestamp", "add_time"),
        Column("updated_at", "timestamp", "update_time"),
    ),
    is_swept=True,
)

STAGES = Table(
    DATASET,
    "stages",
    ("stage_id",),
    (
        Column("stage_id", "id", "id"),
        Column("pipeline_id", "id"),
        Column("name", "text"),
        Column("position", "integer", "order_nr"),
        Column("deal_probability", "numeric"),
        Column("is_deleted", "boolean"),
        Column("is_deal_rot_enabled", "boolean"),
        Column("days_to_rotten", "integer"),
        Column("added_at", "timestamp", "add_time"),
        Column("updated_at", "timestamp", "update_time"),
    ),
    is_swept=True,
)

USERS = Table(
    DATASET,
    "users",
    ("user_id",),
    (
        Column("user_id", "id", "id"),
        Column("name", "text"),
        Column("is_active", "boolean", "active_flag"),
        Column("created_at", "timestamp", "created"),
        Column("updated_at", "timestamp", "modified"),
    ),
)

DEAL_FIELDS = Table(
    DATASET,
    "deal_fields",
    ("field_key",),
    (
        Column("field_key", "id", "field_code"),
        Column("name", "text", "field_name"),
        Column("field_type", "text"),
        Column("is_custom", "boolean", "is_custom_field"),
    ),
)

#: Options of custom fields; those that were removed keep their labels.
DEAL_FIELD_OPTIONS = Table(
    DATASET,
    "deal_field_options",
    ("field_key", "option_id"),
    (
        Column("field_key", "id"),
        Column("option_id", "id", "id"),
        Column("label", "text"),
    ),
)

#: Deals as the lists give them, beside ``deals``, which holds what follow-up work was answered.
LISTED_DEALS = Table(
    DATASET,
    "listed_deals",
    ("deal_id",),
    (
        Column("deal_id", "id", "id"),
        Column("title", "text"),
        Column("owner_id", "id"),
        Column("creator_user_id", "id"),
        Column("person_id", "id"),
        Column("org_id", "id"),
        Column("pipeline_id", "id"),
        Column("stage_id", "id"),
        Column("status", "text"),
        Column("value", "numeric"),
        Column("currency", "text"),
        Column("probability", "numeric"),
        Column("expected_close_date", "date"),
        Column("lost_reason", "text"),
        Column("added_at", "timestamp", "add_time"),
        Column("updated_at", "timestamp", "update_time"),
        Column("stage_changed_at", "timestamp", "stage_change_time"),
        Column("closed_at", "timestamp", "close_time"),
        Column("won_at", "timestamp", "won_time"),
        Column("lost_at", "timestamp", "lost_time"),
        Column("archived_at", "timestamp", "archive_time"),
        Column("is_archived", "boolean"),
        Column("is_deleted", "boolean"),
        Column("origin", "text"),
        Column("origin_id", "id"),
        Column("channel", "id"),
        Column("channel_id", "id"),
        Column("acv", "numeric"),
        Column("arr", "numeric"),
        Column("mrr", "numeric"),
        Column("label_ids", "json"),
        Column("custom_fields", "json"),
        Column("history_mark", "text", history_mark),
    ),
    is_swept=True,
)

#: Entries of /flow with the ``deal_id`` that it was asked for. Follow-up work adds the same rows.
DEAL_CHANGES = Table(
    DATASET,
    "deal_changes",
    ("deal_id", "change_id"),
    (
        Column("deal_id", "id", _deal_of_change),
        Column("change_id", "id", "data.id"),
        Column("field_key", "text", "data.field_key"),
        Column("old_value", "text", "data.old_value"),
        Column("new_value", "text", "data.new_value"),
        Column("old_label", "text", _label("old_value_formatted")),
        Column("new_label", "text", _label("new_value_formatted")),
        Column("user_id", "id", "data.user_id"),
        Column("change_source", "text", "data.change_source"),
        Column("changed_at", "timestamp", _changed_at),
    ),
)

#: For which `history_mark` the changes of a deal are complete.
DEAL_HISTORIES = Table(
    DATASET,
    "deal_histories",
    ("deal_id",),
    (
        Column("deal_id", "id"),
        Column("history_mark", "text"),
        Column("asked_at", "timestamp"),
    ),
    lands_last=True,
)

#: Without subject, note and people: what was said to whom is nothing that a figure needs.
ACTIVITIES = Table(
    DATASET,
    "activities",
    ("activity_id",),
    (
        Column("activity_id", "id", "id"),
        Column("type", "text"),
        Column("owner_id", "id"),
        Column("deal_id", "id"),
        Column("lead_id", "id"),
        Column("due_date", "date"),
        Column("due_at", "timestamp", _due_at),
        Column("is_done", "boolean", "done"),
        Column("done_at", "timestamp", "marked_as_done_time"),
        Column("is_deleted", "boolean"),
        Column("added_at", "timestamp", "add_time"),
        Column("updated_at", "timestamp", "update_time"),
    ),
    is_swept=True,
)

#: Those that deals are about, without their people and addresses.
ORGANIZATIONS = Table(
    DATASET,
    "organizations",
    ("organization_id",),
    (
        Column("organization_id", "id", "id"),
        Column("name", "text"),
        Column("is_deleted", "boolean"),
        Column("added_at", "timestamp", "add_time"),
        Column("updated_at", "timestamp", "update_time"),
    ),
)

TABLES = (
    PIPELINES,
    STAGES,
    USERS,
    DEAL_FIELDS,
    DEAL_FIELD_OPTIONS,
    LISTED_DEALS,
    ACTIVITIES,
    ORGANIZATIONS,
    DEAL_CHANGES,
    DEAL_HISTORIES,
)
