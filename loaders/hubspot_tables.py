"""The tables of HubSpot, and how its records are read into them (contract hubspot 1.2 to 1.7).

HubSpot gives every value of a property as text. Properties that every account knows have columns of
their own; all others of a record go to its ``custom_fields``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from loaders.record_values import Type
from loaders.records import Column, Columns, Record, Table
from stageline.crm_values import instant

DATASET = "raw_hubspot"

#: Properties of a deal whose history is kept.
WITH_HISTORY = (
    "dealstage",
    "pipeline",
    "amount",
    "closedate",
    "hubspot_owner_id",
    "deal_currency_code",
    "hs_deal_stage_probability",
)
#: Of these, the properties that are numbers, and those that are instants.
NUMBERS = {"amount", "hs_deal_stage_probability"}
INSTANTS = {"closedate"}
#: A property that says the id of its record once more.
OWN_ID = "hs_object_id"
#: Characters of an instant that is written as a date alone.
WITHOUT_TIME = 10
_NEVER = datetime.min.replace(tzinfo=UTC)


#: What HubSpot means by a date alone goes on with this.
MIDNIGHT = "T00:00:00Z"


def moment(value: object) -> object:
    """A value of a property that is an instant; HubSpot means midnight UTC by a date alone."""
    is_date = isinstance(value, str) and len(value) == WITHOUT_TIME
    return f"{value}{MIDNIGHT}" if is_date else value


def _moments(values: list[Any]) -> list[object]:
    return list(map(moment, values))


def properties_of(record: Record) -> Mapping[str, Any]:
    """The properties of a record, none where it has none."""
    return record.get("properties") or {}


@lru_cache(maxsize=10_000)
def mark(value: str) -> str:
    """What tells a value of a history from others; an empty one is one, too."""
    return blake2b(value.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _property(column: str, name: str, kind: Type) -> Column:
    return Column(
        column, kind, f"properties.{name}", meant=_moments if kind == "timestamp" else None
    )


def _object_table(
    name: str, key: str, properties: Mapping[str, tuple[str, Type]], *, is_swept: bool = True
) -> Table:
    """A table of CRM objects: column -> property and type, and all others as custom fields."""
    typed = frozenset(name for name, _ in properties.values())

    def custom(record: Record) -> object:
        return {
            name: value
            for name, value in properties_of(record).items()
            if name not in typed and name != OWN_ID and value not in (None, "")
        }

    return Table(
        DATASET,
        name,
        (key,),
        (
            Column(key, "id", "id"),
            *(_property(column, *of) for column, of in properties.items()),
            Column("custom_fields", "json", custom),
        ),
        is_swept=is_swept,
    )


_DEAL: dict[str, tuple[str, Type]] = {
    "name": ("dealname", "text"),
    "amount": ("amount", "numeric"),
    "amount_in_home_currency": ("amount_in_home_currency", "numeric"),
    "currency": ("deal_currency_code", "text"),
    "pipeline_id": ("pipeline", "id"),
    "stage_id": ("dealstage", "id"),
    "stage_probability": ("hs_deal_stage_probability", "numeric"),
    "deal_type": ("dealtype", "text"),
    "owner_id": ("hubspot_owner_id", "id"),
    "team_id": ("hubspot_team_id", "id"),
    "is_closed": ("hs_is_closed", "boolean"),
    "is_closed_won": ("hs_is_closed_won", "boolean"),
    "is_closed_lost": ("hs_is_closed_lost", "boolean"),
    "forecast_amount": ("hs_forecast_amount", "numeric"),
    "forecast_probability": ("hs_forecast_probability", "numeric"),
    "forecast_category": ("hs_manual_forecast_category", "text"),
    "closed_won_reason": ("closed_won_reason", "text"),
    "closed_lost_reason": ("closed_lost_reason", "text"),
    "next_step": ("hs_next_step", "text"),
    "merged_deal_ids": ("hs_merged_object_ids", "text"),
    "close_at": ("closedate", "timestamp"),
    "created_at": ("createdate", "timestamp"),
    "added_at": ("hs_createdate", "timestamp"),
    "owner_assigned_at": ("hubspot_owner_assigneddate", "timestamp"),
    "modified_at": ("hs_lastmodifieddate", "timestamp"),
}
_TICKET: dict[str, tuple[str, Type]] = {
    "subject": ("subject", "text"),
    "pipeline_id": ("hs_pipeline", "id"),
    "stage_id": ("hs_pipeline_stage", "id"),
    "priority": ("hs_ticket_priority", "text"),
    "category": ("hs_ticket_category", "text"),
    "origin": ("source_type", "text"),
    "owner_id": ("hubspot_owner_id", "id"),
    "resolution": ("hs_resolution", "text"),
    "is_closed": ("hs_is_closed", "boolean"),
    "created_at": ("createdate", "timestamp"),
    "first_reply_at": ("first_agent_reply_date", "timestamp"),
    "reopened_at": ("hs_ticket_reopened_at", "timestamp"),
    "closed_at": ("closed_date", "timestamp"),
    "modified_at": ("hs_lastmodifieddate", "timestamp"),
}
_CALL: dict[str, tuple[str, Type]] = {
    "title": ("hs_call_title", "text"),
    "direction": ("hs_call_direction", "text"),
    "disposition": ("hs_call_disposition", "text"),
    "status": ("hs_call_status", "text"),
    "activity_type": ("hs_activity_type", "text"),
    "owner_id": ("hubspot_owner_id", "id"),
    "duration_milliseconds": ("hs_call_duration", "numeric"),
    "called_at": ("hs_timestamp", "timestamp"),
    "modified_at": ("hs_lastmodifieddate", "timestamp"),
}
_MEETING: dict[str, tuple[str, Type]] = {
    "title": ("hs_meeting_title", "text"),
    "outcome": ("hs_meeting_outcome", "text"),
    "location": ("hs_meeting_location", "text"),
    "owner_id": ("hubspot_owner_id", "id"),
    "planned_at": ("hs_timestamp", "timestamp"),
    "started_at": ("hs_meeting_start_time", "timestamp"),
    "ended_at": ("hs_meeting_end_time", "timestamp"),
    "modified_at": ("hs_lastmodifieddate", "timestamp"),
}
_FEEDBACK: dict[str, tuple[str, Type]] = {
    "survey_id": ("hs_survey_id", "id"),
    "survey_name": ("hs_survey_name", "text"),
    "survey_type": ("hs_survey_type", "text"),
    "survey_channel": ("hs_survey_channel", "text"),
    "value": ("hs_value", "text"),
    "response_group": ("hs_response_group", "text"),
    "sentiment": ("hs_sentiment", "text"),
    "contact_id": ("hs_contact_id", "id"),
    "ticket_id": ("hs_ticket_id", "id"),
    "submitted_at": ("hs_submission_timestamp", "timestamp"),
    "created_at": ("hs_createdate", "timestamp"),
    "modified_at": ("hs_lastmodifieddate", "timestamp"),
}

DEALS = _object_table("deals", "deal_id", _DEAL)
TICKETS = _object_table("tickets", "ticket_id", _TICKET)
CALLS = _object_table("calls", "call_id", _CALL)
MEETINGS = _object_table("meetings", "meeting_id", _MEETING)
FEEDBACK = _object_table("feedback_submissions", "submission_id", _FEEDBACK)

#: Table of CRM objects -> the properties that have columns of their own.
PROPERTIES = {
    table: tuple(name for name, _ in properties.values())
    for table, properties in (
        (DEALS, _DEAL),
        (TICKETS, _TICKET),
        (CALLS, _CALL),
        (MEETINGS, _MEETING),
        (FEEDBACK, _FEEDBACK),
    )
}

#: Facts, each its own key: what HubSpot forgets of a long history stays here.
DEAL_HISTORY = Table(
    DATASET,
    "deal_history",
    ("deal_id", "property", "changed_at", "value_mark"),
    (
        Column("deal_id", "id"),
        Column("property", "text"),
        Column("changed_at", "timestamp"),
        # Two entries may have one instant.
        Column("value_mark", "id"),
        Column("value", "text"),
        Column("number", "numeric"),
        Column("instant", "timestamp"),
        Column("place", "integer"),
        Column("source_type", "text"),
        Column("source_id", "text"),
        Column("updated_by", "id"),
    ),
)

ARCHIVED_DEALS = Table(
    DATASET,
    "archived_deals",
    ("deal_id",),
    (Column("deal_id", "id", "id"), Column("archived_at", "timestamp", "archivedAt")),
    is_swept=True,
)

MERGED_DEALS = Table(
    DATASET,
    "merged_deals",
    ("deal_id", "merged_into"),
    (Column("deal_id", "id"), Column("merged_into", "id")),
)

#: What a record is associated with; what there is none of is a row, too, with an empty list.
ASSOCIATIONS = Table(
    DATASET,
    "associations",
    ("from_id", "from_type", "to_type"),
    (
        Column("from_id", "id"),
        Column("from_type", "id"),
        Column("to_type", "id"),
        # The primary one, or else the oldest.
        Column("to_id", "id", lambda link: next(iter(link["to"]), None)),
        Column("to_ids", "json", "to"),
        Column("read_for", "timestamp"),
    ),
)

#: Companies that deals are associated with.
COMPANIES = Table(
    DATASET,
    "companies",
    ("company_id",),
    (
        Column("company_id", "id", "id"),
        Column("name", "text", "properties.name"),
        Column("is_archived", "boolean", "archived"),
    ),
)

#: Where an archived owner's user stands, who is null where others' stand.
_INACTIVE_USER = "userIdIncludingInactive"

OWNERS = Table(
    DATASET,
    "owners",
    ("owner_id",),
    (
        Column("owner_id", "id", "id"),
        # That of an archived owner is under the other name alone.
        Column(
            "user_id",
            "id",
            lambda owner: owner.get("userId") or owner.get("userIdIncludingInactive"),
        ),
        Column("type", "text"),
        Column("email", "text"),
        Column("first_name", "text", "firstName"),
        Column("last_name", "text", "lastName"),
        Column("teams", "json"),
        Column("is_archived", "boolean", "archived"),
        Column("created_at", "timestamp", "createdAt"),
        Column("updated_at", "timestamp", "updatedAt"),
    ),
)


def _since_beginning(name: str) -> Callable[[Record], object]:
    """An instant that is 1970 for what HubSpot made itself."""

    def find(record: Record) -> object:
        value = record.get(name)
        return None if isinstance(value, str) and value.startswith("1970-01-01") else value

    return find


def _pipelines_of(of: str) -> Table:
    return Table(
        DATASET,
        f"{of}_pipelines",
        ("pipeline_id",),
        (
            Column("pipeline_id", "id", "id"),
            Column("label", "text"),
            Column("position", "integer", "displayOrder"),
            Column("created_at", "timestamp", _since_beginning("createdAt")),
            Column("updated_at", "timestamp", _since_beginning("updatedAt")),
        ),
        is_swept=True,
    )


def _stages_of(of: str, *meaning: Column) -> Table:
    return Table(
        DATASET,
        f"{of}_stages",
        ("stage_id",),
        (
            Column("stage_id", "id", "id"),
            Column("pipeline_id", "id"),
            Column("label", "text"),
            Column("position", "integer", "displayOrder"),
            *meaning,
            Column("created_at", "timestamp", _since_beginning("createdAt")),
            Column("updated_at", "timestamp", _since_beginning("updatedAt")),
        ),
        is_swept=True,
    )


DEAL_PIPELINES, TICKET_PIPELINES = _pipelines_of("deal"), _pipelines_of("ticket")
DEAL_STAGES = _stages_of(
    "deal",
    Column("is_closed", "boolean", "metadata.isClosed"),
    Column("probability", "numeric", "metadata.probability"),
)
TICKET_STAGES = _stages_of("ticket", Column("ticket_state", "text", "metadata.ticketState"))

TABLES = (
    DEAL_PIPELINES,
    DEAL_STAGES,
    OWNERS,
    DEALS,
    DEAL_HISTORY,
    MERGED_DEALS,
    ARCHIVED_DEALS,
    TICKET_PIPELINES,
    TICKET_STAGES,
    TICKETS,
    CALLS,
    MEETINGS,
    FEEDBACK,
    ASSOCIATIONS,
    COMPANIES,
)


def deal_records(deals: Sequence[Record]) -> dict[Table, Sequence[Record]]:
    """What deals that were read with their history say, by table."""
    return {
        DEALS: deals,
        DEAL_HISTORY: _history(deals),
        MERGED_DEALS: merges(
            (deal.get("id"), properties_of(deal).get("hs_merged_object_ids")) for deal in deals
        ),
    }


def merges(deals: Iterable[tuple[object, str | None]]) -> list[Record]:
    """What deals tell of those that were merged into them, given the id and the ids of each."""
    return [
        {"deal_id": each, "merged_into": deal_id}
        for deal_id, merged in deals
        for each in (merged or "").split(";")
        if each
    ]


def _history(deals: Sequence[Record]) -> Columns:
    """The entries of the deals' histories, the oldest of each first.

    HubSpot gives the newest first. Entries of one instant are told apart by their place among
    them, which stays the same when more follow. They come in the order of the table's key, which
    the database keeps them in; and as columns, as they are most of all that there is to read.
    """
    entries: list[Mapping[str, Any]] = []
    ids: list[object] = []
    names: list[str] = []
    for deal in deals:
        deal_id, histories = deal.get("id"), deal.get("propertiesWithHistory") or {}
        for name in sorted(histories):
            given: Sequence[Record] = histories[name] or ()
            count = len(given)
            is_newest_first = count > 1 and not _is_earlier(given[0], given[-1])
            entries += reversed(given) if is_newest_first else given
            ids += [deal_id] * count
            names += [name] * count
    changed_at = [entry.get("timestamp") for entry in entries]
    values = [entry.get("value") for entry in entries]
    return Columns(
        {
            "deal_id": ids,
            "property": list(names),
            "changed_at": changed_at,
            "value_mark": [mark(str(value or "")) for value in values],
            "value": list(values),
            "number": [
                value if name in NUMBERS else None
                for name, value in zip(names, values, strict=True)
            ],
            "instant": [
                moment(value) if name in INSTANTS else None
                for name, value in zip(names, values, strict=True)
            ],
            "place": list(places(ids, names, changed_at)),
            "source_type": [entry.get("sourceType") for entry in entries],
            "source_id": [entry.get("sourceId") for entry in entries],
            "updated_by": [entry.get("updatedByUserId") for entry in entries],
        }
    )


def places(
    ids: Sequence[object], names: Sequence[str], changed_at: Sequence[object]
) -> Iterator[int]:
    """Of each entry, how many before it have its deal, property and instant."""
    place = 0
    last: tuple[object, ...] = ()
    for entry in zip(ids, names, [str(at).replace(".000Z", "Z") for at in changed_at], strict=True):
        place, last = (place + 1 if entry == last else 0), entry
        yield place


def _is_earlier(entry: Record, other: Record) -> bool:
    one, two = str(entry.get("timestamp")), str(other.get("timestamp"))
    if one[10:11] == two[10:11] == "T" and one[-1] == two[-1] == "Z" and one[:19] != two[:19]:
        return one < two  # as it is to the second
    return _instant_of(entry) < _instant_of(other)


def _instant_of(entry: Record) -> datetime:
    try:
        return instant(entry.get("timestamp")) or _NEVER
    except ValueError:
        return _NEVER
