"""What a delivery says, in the terms of the event log: the result of every sender's parser."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class StageEvent(NamedTuple):
    """The entry of a deal or order into a stage; a row of ``raw.stage_events``."""

    entity_type: str
    entity_id: str
    pipeline_id: str | None
    stage_id: str
    stage_group_id: str | None
    previous_stage_id: str | None
    entered_at: datetime
    entity_created_at: datetime | None


class ValueChange(NamedTuple):
    """A value of a deal or order that changed; a row of ``raw.value_changes``.

    ``field`` is amount, currency, probability, expected_close_date, owner, status or
    payment_status; the values are texts as the sender wrote them.
    """

    entity_type: str
    entity_id: str
    field: str
    old_value: str | None
    new_value: str | None
    changed_at: datetime


class LifecycleEvent(NamedTuple):
    """The creation, deletion, restoration or merge of a deal or order.

    A row of ``raw.lifecycle_events``; ``event`` is created, deleted, restored or merged.
    """

    entity_type: str
    entity_id: str
    event: str
    occurred_at: datetime
    merged_into: str | None


@dataclass(frozen=True, slots=True)
class Parsed:
    """All that was read from one delivery.

    Attributes:
        sender_delivery_id: The id that the sender gave the delivery; None where it gives none.
        entity_type: ``deal``, ``order``, ...; None where the delivery names no entity.
        entity_ids: The entities that it speaks of, each once, in their order.
        unparsed_reason: Why it, or a part of it, could not be read: never quotes what it said, so
            it can be logged. None where everything was read.
    """

    sender_delivery_id: str | None = None
    entity_type: str | None = None
    entity_ids: tuple[str, ...] = ()
    stage_events: tuple[StageEvent, ...] = ()
    value_changes: tuple[ValueChange, ...] = ()
    lifecycle_events: tuple[LifecycleEvent, ...] = ()
    unparsed_reason: str | None = None
