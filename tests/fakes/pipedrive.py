"""Pipedrive's API as contract pipedrive describes it: deals (v2) and their flow (v1)."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply

#: Stages by pipeline.
STAGES = {1: [11, 12, 13, 14], 2: [21, 22, 23]}
_PAGE = 500


@dataclass(frozen=True)
class ChangeTruth:
    """A change of a field of a deal, as it was."""

    change_id: int
    field_key: str
    old: Any
    new: Any
    at: datetime


@dataclass
class DealTruth:
    """A deal, as it is, with its history in the order of time."""

    deal_id: int
    pipeline_id: int
    first_stage_id: int
    stage_id: int
    added_at: datetime
    changes: list[ChangeTruth] = field(default_factory=list)
    status: str = "open"
    is_deleted: bool = False


class FakePipedrive(CrmServer):
    """A fake Pipedrive account.

    Attributes:
        deals: The truth, by id.
        budget_is_used_up: Whether the tokens of the day are gone.
    """

    def __init__(self, seed: int = 1, *, limit: Limit | None = None) -> None:
        super().__init__(limit)
        self.deals: dict[int, DealTruth] = {}
        self.budget_is_used_up = False
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._change_id = 1000

    def add_deal(self, moves: int = 2) -> DealTruth:
        """A deal that began some months ago and has moved so many times since."""
        pipeline_id = self._random.choice(list(STAGES))
        stage_id = self._random.choice(STAGES[pipeline_id])
        added_at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(
            seconds=self._random.randrange(5_000_000)
        )
        deal = DealTruth(
            deal_id=len(self.deals) + 501,
            pipeline_id=pipeline_id,
            first_stage_id=stage_id,
            stage_id=stage_id,
            added_at=added_at,
        )
        self.deals[deal.deal_id] = deal
        self._change(deal, "add_time", None, _v1(added_at), added_at)
        for _ in range(moves):
            self.move(deal)
        return deal

    def move(self, deal: DealTruth) -> None:
        """The deal goes to another stage of its pipeline."""
        other = self._random.choice([s for s in STAGES[deal.pipeline_id] if s != deal.stage_id])
        self.change(deal, "stage_id", str(deal.stage_id), str(other))
        deal.stage_id = other

    def change(self, deal: DealTruth, field_key: str, old: Any, new: Any) -> None:
        """A field of the deal changes, some time after its last change."""
        at = deal.changes[-1].at + timedelta(seconds=self._random.randrange(1, 90_000))
        self._change(deal, field_key, old, new, at)

    def is_authentic(self, call: Call) -> bool:
        return call.headers.get("x-api-token") == self.token

    def unauthentic(self) -> Reply:
        error = {"success": False, "error": "unauthorized access", "errorCode": 401}
        return Reply(401, error)

    def over_limit(self, wait: float) -> Reply:
        limit = self.limit.calls if self.limit else 0
        return Reply(
            429,
            {"success": False, "error": "request over limit"},
            {
                "x-ratelimit-limit": str(limit),
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": str(max(round(wait), 1)),
            },
        )

    def answer(self, call: Call) -> Reply:
        if self.budget_is_used_up:
            return Reply(
                429,
                {"success": False, "error": "daily request limit reached"},
                {"x-daily-ratelimit-token-remaining": "0", "x-ratelimit-reset": "2"},
            )
        match call.path.strip("/").split("/"):
            case ["api", "v2", "deals", number] if number.isdecimal():
                return self._deal(self.deals.get(int(number)))
            case ["v1", "deals", number, "flow"] if number.isdecimal():
                return self._flow(self.deals.get(int(number)), call)
        return _not_found()

    def _deal(self, deal: DealTruth | None) -> Reply:
        if deal is None:
            return _not_found()
        data = {
            "id": deal.deal_id,
            "title": "Kiosk order",
            "pipeline_id": deal.pipeline_id,
            "stage_id": deal.stage_id,
            "status": deal.status,
            "is_deleted": deal.is_deleted,
            "owner_id": 71,
            "add_time": deal.added_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "update_time": None,
            "custom_fields": {},
        }
        return Reply(body={"success": True, "data": data})

    def _flow(self, deal: DealTruth | None, call: Call) -> Reply:
        if deal is None:
            return _not_found()
        entries = [_entry(deal, change) for change in reversed(deal.changes)]
        if call.query.get("items") != "dealChange":
            entries.insert(0, _future_activity())
        start = int(call.query.get("start", 0))
        limit = min(int(call.query.get("limit", 100)), _PAGE)
        page = entries[start : start + limit]
        has_more = start + limit < len(entries)
        paging = {"start": start, "limit": limit, "more_items_in_collection": has_more}
        if has_more:
            paging["next_start"] = start + limit
        return Reply(
            body={
                "success": True,
                "data": page or None,  # null instead of an empty list
                "additional_data": {"pagination": paging},
                "related_objects": {"user": {"71": {"id": 71, "name": "Someone"}}},
            }
        )

    def _change(self, deal: DealTruth, field_key: str, old: Any, new: Any, at: datetime) -> None:
        self._change_id += 1
        deal.changes.append(ChangeTruth(self._change_id, field_key, old, new, at))


def _v1(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _entry(deal: DealTruth, change: ChangeTruth) -> dict[str, Any]:
    has_names = change.field_key == "stage_id"
    names = {"old_value_formatted": f"S{change.old}", "new_value_formatted": f"S{change.new}"}
    return {
        "object": "dealChange",
        "timestamp": _v1(change.at),
        "data": {
            "id": change.change_id,
            "item_id": deal.deal_id,
            "user_id": 71,
            "field_key": change.field_key,
            "old_value": change.old,
            "new_value": change.new,
            "is_bulk_update_flag": None,
            "log_time": _v1(change.at),
            "change_source": "app",
            "change_source_user_agent": None,
            "additional_data": names if has_names else [],
        },
    }


def _future_activity() -> dict[str, Any]:
    """Activities stand where they are due, and have small ids of their own."""
    return {
        "object": "activity",
        "timestamp": "2099-01-01 09:00:00",
        "data": {"id": 1, "subject": "Call"},
    }


def _not_found() -> Reply:
    return Reply(404, {"success": False, "error": "Deal not found", "error_info": ""})
