"""Reads what a Zap posts when a deal reaches its final stage (contract zapier, spec flow).

The fields are ``deal_id``, ``pipeline_id``, ``stage_id``, ``event_datetime`` and ``raw``, as JSON
or as a form, whatever the content type says. Their values are free: numbers may be text, times may
be local, an empty field is left out (which says that it is unknown, not that it was cleared). The
deal is asked for afterwards, so its id alone is worth having.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from webhook_receiver.bodies import Unreadable, parse_json, unpacked
from webhook_receiver.events import Parsed, StageEvent
from webhook_receiver.findings import Fields, Findings, sender_delivery_id

#: Fields that a form may have.
_MOST_FIELDS = 1_000
_FORM_START = re.compile(rb"\s*[A-Za-z_][A-Za-z0-9_.-]*=")


def parse(body: bytes, headers: Mapping[str, str], received_at: datetime, zone: ZoneInfo) -> Parsed:
    """What ``body`` says; never raises. ``headers`` has lower-case keys.

    A time without an offset is meant in ``zone``.
    """
    findings = Findings(received_at)
    try:
        _read(Fields(_json_or_form(body, headers), "", findings), zone, findings)
    except Unreadable as reason:
        findings.note(str(reason))
    return findings.parsed(sender_delivery_id(headers))


def _json_or_form(body: bytes, headers: Mapping[str, str]) -> object:
    try:
        return parse_json(body, headers)
    except Unreadable:
        plain = unpacked(body, headers)
        named_form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if not plain or not (named_form or _FORM_START.match(plain)):
            raise
    try:
        # What is no UTF-8 must not hide the other fields: it is refused where it is read.
        text = plain.decode(errors="surrogateescape")
        fields = parse_qsl(text, True, errors="surrogateescape", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Unreadable(f"the body is a form with more than {_MOST_FIELDS} fields") from None
    return dict(fields)


def _read(delivery: Fields, zone: ZoneInfo, findings: Findings) -> None:
    deal_id = delivery.identifier("deal_id", required=True)
    if deal_id is None:
        return
    findings.speaks_of("deal", deal_id)
    pipeline_id = delivery.identifier("pipeline_id")
    stage_id = delivery.identifier("stage_id", required=True)
    entered_at = delivery.instant("event_datetime", zone=zone, required=True)
    if stage_id is not None and entered_at is not None:
        findings.add(
            StageEvent("deal", deal_id, pipeline_id, stage_id, None, None, entered_at, None)
        )
