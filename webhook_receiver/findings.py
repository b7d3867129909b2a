"""Collects what is found in one delivery: its events, and what of it could not be read."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from stageline import crm_values
from webhook_receiver.bodies import Unreadable
from webhook_receiver.events import LifecycleEvent, Parsed, StageEvent, ValueChange

#: How far an instant may lie after the receipt: clocks differ, and zones are mistaken by hours.
AHEAD = timedelta(days=1)
#: Reasons that are told of one delivery; more would repeat themselves.
MOST_REASONS = 5
#: An event type that a reason may quote: a word of the sender's, nothing of a person's.
_PLAIN_TYPE = re.compile(r"(?=.{1,40}$)[A-Za-z_]+(?:\.[A-Za-z_]+)*")

Value = TypeVar("Value")


class Findings:
    """What has been found in one delivery so far; each event once, whatever the order.

    Args:
        received_at: When it was received. An instant more than `AHEAD` after it is not believed.
    """

    def __init__(self, received_at: datetime) -> None:
        self.latest = received_at + AHEAD
        self.reasons: list[str] = []
        self._entities: dict[tuple[str, str], None] = {}
        self._stage_events: dict[tuple[str, str, str, datetime], StageEvent] = {}
        self._value_changes: dict[tuple[object, ...], ValueChange] = {}
        self._lifecycle_events: dict[tuple[object, ...], LifecycleEvent] = {}

    def note(self, reason: str) -> None:
        """Keep why something could not be read. ``reason`` quotes nothing of the delivery."""
        self.reasons.append(reason)

    def note_unknown_type(self, event_type: str) -> None:
        """Keep that events of this type are unknown: they are listed, and can be replayed."""
        named = _PLAIN_TYPE.fullmatch(event_type)
        self.note(f"unknown event type {event_type}" if named else "unknown event type")

    def speaks_of(self, entity_type: str, entity_id: str) -> None:
        """Keep that the delivery speaks of this entity."""
        self._entities[entity_type, entity_id] = None

    def add(self, event: StageEvent | ValueChange | LifecycleEvent) -> None:
        """Keep ``event``, unless one that has the same identity in the event log is kept."""
        match event:
            case StageEvent():
                self._stage_events.setdefault(
                    (event.entity_type, event.entity_id, event.stage_id, event.entered_at), event
                )
            case ValueChange():
                self._value_changes.setdefault(event._replace(old_value=None), event)
            case LifecycleEvent():
                self._lifecycle_events.setdefault(event._replace(merged_into=None), event)

    def parsed(self, sender_delivery_id: str | None, *, told_of: str = "") -> Parsed:
        """All of it. A delivery of several types of entities is listed under the first one's.

        Args:
            sender_delivery_id: The id that the sender gave the delivery.
            told_of: What the reasons are about, before them; nothing where that is plain.
        """
        reasons = list(dict.fromkeys(self.reasons))
        if len(reasons) > MOST_REASONS:
            reasons[MOST_REASONS:] = ["and more"]
        entity_type = next((entity_type for entity_type, _ in self._entities), None)
        return Parsed(
            sender_delivery_id=sender_delivery_id,
            entity_type=entity_type,
            entity_ids=tuple(id_ for type_, id_ in self._entities if type_ == entity_type),
            stage_events=tuple(self._stage_events.values()),
            value_changes=tuple(self._value_changes.values()),
            lifecycle_events=tuple(self._lifecycle_events.values()),
            unparsed_reason=told_of + "; ".join(reasons) if reasons else None,
        )


class Fields:
    """An object of a delivery, whose fields are read one by one.

    An id or instant that cannot be read is None, and noted; so is a required one that is missing or
    empty.

    Args:
        values: The object.
        path: Where it stands in the body, with a point at its end; empty for the body itself.
        findings: Where to note.

    Raises:
        Unreadable: ``values`` is no object.
    """

    def __init__(self, values: object, path: str, findings: Findings) -> None:
        if not isinstance(values, dict):
            raise Unreadable(f"{path.rstrip('.') or 'the body'} is not an object")
        self.values: dict[str, Any] = values
        self._path = path
        self._findings = findings

    def within(self, key: str) -> "Fields":
        """The object in the field ``key``."""
        return Fields(self.values.get(key), f"{self._path}{key}.", self._findings)

    def word(self, key: str) -> str:
        """The text of ``key``, which routes the delivery; empty where it is missing or no text."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def text(self, key: str) -> str | None:
        """The value of ``key``, None being one.

        Raises:
            Unreadable: there is no such field, or it cannot be read.
        """
        if key not in self.values:
            raise Unreadable(f"{self._path}{key} is missing")
        try:
            return crm_values.text(self.values[key])
        except ValueError as error:
            raise Unreadable(f"{self._path}{key} {error}") from None

    def identifier(self, key: str, *, required: bool = False) -> str | None:
        """The id in ``key``."""
        return self._noting(key, crm_values.identifier, self.values.get(key), required)

    def identifiers(self, key: str) -> tuple[str, ...]:
        """The ids in the list in ``key``, which is required."""
        values = self.values.get(key)
        if not isinstance(values, list):
            self._findings.note(f"{self._path}{key} is not a list")
            return ()
        found = (self._noting(key, crm_values.identifier, value, True) for value in values)
        return tuple(filter(None, found))

    def instant(
        self, key: str, *, zone: ZoneInfo | None = None, required: bool = False
    ) -> datetime | None:
        """The instant in ``key``, meant in ``zone`` (None: UTC) if it has no offset."""

        def read(value: object) -> datetime | None:
            instant = crm_values.instant(value, zone)
            if instant is not None and instant > self._findings.latest:
                raise ValueError("lies more than a day after the receipt")
            return instant

        return self._noting(key, read, self.values.get(key), required)

    def _noting(
        self, key: str, read: Callable[[object], Value | None], value: object, required: bool
    ) -> Value | None:
        try:
            found = read(value)
        except ValueError as error:
            self._findings.note(f"{self._path}{key} {error}")
            return None
        if found is None and required:
            state = "empty" if key in self.values else "missing"
            self._findings.note(f"{self._path}{key} is {state}")
        return found


def sender_delivery_id(headers: Mapping[str, str], *parts: object) -> str | None:
    """The id that a sender gave its delivery: the header ``webhook-id``, else ``parts`` together.

    None where there is none, or a part of it is missing or unfit.
    """
    try:
        given = crm_values.identifier(headers.get("webhook-id"))
        if given is not None or not parts:
            return given
        ids = [crm_values.identifier(part) for part in parts]
        return None if None in ids else crm_values.identifier(":".join(filter(None, ids)))
    except ValueError:
        return None
