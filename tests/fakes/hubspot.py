"""HubSpot's CRM API as contract hubspot describes it: objects, searches, histories, pipelines."""

import bisect
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply

#: Stages of deals: pipeline -> id, label, probability, whether it is closed.
STAGES: dict[str, list[tuple[str, str, str, bool]]] = {
    "default": [
        ("appointmentscheduled", "Appointment scheduled", "0.2", False),
        ("qualifiedtobuy", "Qualified to buy", "0.4", False),
        ("contractsent", "Contract sent", "0.9", False),
        ("closedwon", "Closed won", "1.0", True),
        ("closedlost", "Closed lost", "0.0", True),
    ],
    "818181": [
        ("900001", "Talks", "0.3", False),
        # A name says nothing (contract 1.6).
        ("4b0b7e2a-66c5-4a8e-9d0c-1d2f3a4b5c6d", "Closed lost", "0.8", False),
        ("900002", "Won here", "1.0", True),
        ("900003", "Lost here", "0.0", True),
    ],
}
_TICKET_STAGES = {"1": "OPEN", "2": "OPEN", "3": "OPEN", "4": "CLOSED"}
_WITH_HISTORY = (
    "dealstage",
    "pipeline",
    "amount",
    "closedate",
    "hubspot_owner_id",
    "deal_currency_code",
    "hs_deal_stage_probability",
)
_SCOPES = {
    "deals": "crm.objects.deals.read",
    "tickets": "tickets",
    "companies": "crm.objects.companies.read",
}
_TYPES = ("deals", "tickets", "calls", "meetings", "feedback_submissions", "companies")
#: Kinds of association: of a deal with its first company, with any, and of others.
_PRIMARY, _COMPANY, _OTHER = 5, 341, 205
_DAY = 86_400_000
#: Of the smallest plan.
_CALLS_OF_A_DAY = 250_000
#: Where an account tells of itself, in either style of versions.
_DETAILS = re.compile("/account-info/(v3|[0-9]{4}-[0-9]{2})/details")


@dataclass(frozen=True)
class EntryTruth:
    """A value that a property took, at milliseconds since 1970."""

    value: str
    at: int
    source: str = "CRM_UI"


@dataclass
class ObjectTruth:
    """A CRM object as it is: its properties, and for deals their history, the oldest first."""

    object_id: int
    properties: dict[str, str]
    created: int
    modified: int
    history: dict[str, list[EntryTruth]] = field(default_factory=dict)
    archived: int | None = None


class FakeHubspot(CrmServer):
    """A fake HubSpot account.

    Attributes:
        objects: The truth, by type and id; what is purged or merged away is no longer there.
        merged: Deal -> the deal that it was merged into.
        properties: Type -> the definitions of properties that the account has made.
        window: Most results of a search.
        refused: Types that the token's scopes do not cover.
        calls_left: Calls that are left of the day; None = any number.
        search_limit: What it allows of searches, which count for nothing else; None = everything.
        lagging: Ids that searches do not find yet.
        is_terse: Pages are short, and searches do not tell how many there are.
        history_length: Entries that are remembered of a property of a deal.
        meanwhile: Is called before each answer; may change the truth.
        linked: Of a record, as type and id, and of another type: the ids of those that it is
            associated with; of a deal's companies the first one is the primary one.
        clock: Milliseconds since 1970, as the account's clock has it.
    """

    usual_limit = Limit(100, 10.0)

    def __init__(self, seed: int = 1, *, limit: Limit | None = None) -> None:
        super().__init__(limit)
        self.objects: dict[str, dict[int, ObjectTruth]] = {name: {} for name in _TYPES}
        self.merged: dict[int, int] = {}
        self.properties: dict[str, list[dict[str, Any]]] = {name: [] for name in _TYPES}
        self.pipelines = {"deals": _deal_pipelines(), "tickets": _ticket_pipelines()}
        self.owners = [_owner(number) for number in range(41, 47)]
        self.window = 10_000
        self.refused: set[str] = set()
        self.calls_left: int | None = None
        self.search_limit: Limit | None = None
        self.lagging: set[int] = set()
        self.is_terse = False
        self.history_length = 10_000
        self.meanwhile: Callable[[Call], None] = lambda _: None
        # Behind the machine's: of two clocks, no two ever agree.
        self.clock: Callable[[], int] = lambda: int(time.time() * 1000) - 2_000
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._next_id = 9_000
        self.linked: dict[tuple[str, int, str], list[int]] = {}
        self._found: dict[str, list[int]] = {}
        self._listed: dict[tuple[str, bool], list[ObjectTruth]] = {}
        self._by_change: dict[str, list[tuple[int, int]]] = {}
        self._written: dict[int, tuple[str, dict[str, str], dict[str, str]]] = {}

    @property
    def deals(self) -> dict[int, ObjectTruth]:
        """The deals that there are, archived ones included."""
        return self.objects["deals"]

    # What happens in the account.

    def populate(self, deals: int = 200, seed: int | None = None) -> None:
        """A year of deals with what belongs to them; hundreds of them changed at one instant."""
        if seed is not None:
            self._random.seed(seed)
        now = self.clock()
        self.add_property("deals", "facility_code", "string")
        self.add_property("tickets", "facility_code", "string")
        for _ in range(deals):
            created = now - self._random.randrange(_DAY, 365 * _DAY)
            deal = self.add_deal(at=created)
            at = created
            for _ in range(self._random.randrange(5)):
                at += self._random.randrange(1_000, 20 * _DAY)
                if at >= now - 60_000 or deal.properties["hs_is_closed"] == "true":
                    break
                self.move(deal, at=at)
        for _ in range(max(deals // 4, 1)):
            self.add_ticket(at=now - self._random.randrange(_DAY, 200 * _DAY))
            self.add_activity("calls", at=now - self._random.randrange(_DAY, 200 * _DAY))
            self.add_activity("meetings", at=now - self._random.randrange(_DAY, 200 * _DAY))
            self.add_feedback(at=now - self._random.randrange(_DAY, 80 * _DAY))
        companies = [self.add_company().object_id for _ in range(max(deals // 5, 1))]
        for deal in list(self.deals.values()):
            count = self._random.choice((0, 1, 1, 2))
            self.link("deals", deal.object_id, "companies", self._random.sample(companies, count))
        for kind in ("calls", "meetings"):
            for each in list(self.objects[kind]):
                about = self._random.sample(list(self.deals), self._random.randrange(2))
                self.link(kind, each, "deals", about)
        quiet = [each for each in self.deals.values() if each.modified < now - 5 * _DAY]
        same = [each.object_id for each in quiet[: min(300, deals // 2)]]
        self.edit_many(same, "hubspot_owner_id", "46", at=now - 5 * _DAY)

    def add_deal(self, at: int | None = None) -> ObjectTruth:
        """A deal in some stage that is not closed."""
        at = at or self.clock()
        pipeline = self._random.choice(list(STAGES))
        stage = self._random.choice([each[0] for each in STAGES[pipeline] if not each[3]])
        deal = self._add("deals", at, {"dealname": f"Kiosk {self._next_id}"})
        values = {
            "pipeline": pipeline,
            "dealstage": stage,
            "amount": self._money(),
            "hubspot_owner_id": str(self._random.randrange(41, 46)),
            "deal_currency_code": self._random.choice(["EUR", "UAH"]),
            "closedate": self._moment(at + self._random.randrange(_DAY, 90 * _DAY)),
            "facility_code": self._random.choice(["north", "south", ""]),
        }
        for name, value in values.items():
            self.set(deal, name, value, at=at)
        return deal

    def add_ticket(self, at: int | None = None) -> ObjectTruth:
        """A ticket, closed or not."""
        at = at or self.clock()
        stage = self._random.choice(list(_TICKET_STAGES))
        ticket = {
            "subject": "Kiosk is stuck",
            "hs_pipeline": "0",
            "hs_pipeline_stage": stage,
            "hs_ticket_priority": self._random.choice(["LOW", "MEDIUM", "HIGH", "URGENT", ""]),
            "createdate": _iso(at),
            "first_agent_reply_date": self._random.choice(["", _iso(at + 1_800_000)]),
            "closed_date": _iso(at + 40_000_000) if stage == "4" else "",
            "hubspot_owner_id": str(self._random.randrange(41, 46)),
            "facility_code": self._random.choice(["north", "south", ""]),
        }
        return self._add("tickets", at, ticket)

    def add_activity(self, kind: str, at: int | None = None) -> ObjectTruth:
        """A call or a meeting."""
        at = at or self.clock()
        owner = str(self._random.randrange(41, 46))
        if kind == "calls":
            call = {
                "hs_timestamp": _iso(at),
                "hs_call_title": "First call",
                "hs_call_direction": "OUTBOUND",
                "hs_call_status": self._random.choice(["COMPLETED", "NO_ANSWER", ""]),
                "hs_call_duration": str(self._random.randrange(900_000)),
                "hubspot_owner_id": owner,
            }
            return self._add(kind, at, call)
        meeting = {
            "hs_timestamp": _iso(at),
            "hs_meeting_title": "Visit",
            "hs_meeting_start_time": _iso(at),
            "hs_meeting_end_time": _iso(at + 3_600_000),
            "hs_meeting_outcome": self._random.choice(["COMPLETED", "NO_SHOW", "SCHEDULED"]),
            "hubspot_owner_id": owner,
        }
        return self._add(kind, at, meeting)

    def add_feedback(self, at: int | None = None) -> ObjectTruth:
        """An answer to a survey of some kind, with a score that may not fit it."""
        at = at or self.clock()
        kind, scores = self._random.choice(
            [
                ("NPS", ["0", "6", "7", "9", "10"]),
                ("CSAT", ["1", "3", "5", "9"]),
                ("CES", ["1", "7"]),
                ("CUSTOM", ["2", "great"]),
            ]
        )
        return self._add(
            "feedback_submissions",
            at,
            {
                "hs_survey_type": kind,
                "hs_value": self._random.choice(scores),
                "hs_submission_timestamp": _iso(at),
                "hs_createdate": _iso(at),
            },
        )

    def add_company(self, name: str | None = None, at: int | None = None) -> ObjectTruth:
        """A company."""
        at = at or self.clock()
        return self._add("companies", at, {"name": name or f"Kiosks of {self._next_id}"})

    def link(
        self, kind: str, object_id: int, to: str, ids: list[int], at: int | None = None
    ) -> None:
        """A record is associated with these, and no others; a change only where ``at`` is given."""
        self.linked[kind, object_id, to] = ids
        if at is not None:
            of = self.objects[kind][object_id]
            of.modified = max(of.modified, at)
            self._found.clear()

    def company_of(self, deal_id: int) -> str | None:
        """Name of the primary company of a deal; None where there is none, or it is deleted."""
        for number in self.linked.get(("deals", deal_id, "companies"), [])[:1]:
            company = self.objects["companies"][number]
            return None if company.archived else company.properties["name"]
        return None

    def move(self, deal: ObjectTruth, at: int | None = None) -> None:
        """The deal goes to another stage of its pipeline."""
        stages = [each[0] for each in STAGES[deal.properties["pipeline"]]]
        other = [each for each in stages if each != deal.properties["dealstage"]]
        self.set(deal, "dealstage", self._random.choice(other), at=at)

    def set(self, of: ObjectTruth, name: str, value: str, at: int | None = None) -> None:
        """A property takes a value; a deal that comes to a stage takes what the stage means."""
        at = at or self.clock()
        self._take(of, name, value, at)
        if name == "dealstage":
            _, _, probability, is_closed = next(
                each for stages in STAGES.values() for each in stages if each[0] == value
            )
            self._take(of, "hs_deal_stage_probability", probability, at)
            of.properties["hs_is_closed"] = str(is_closed).lower()
            of.properties["hs_is_closed_won"] = str(is_closed and probability == "1.0").lower()
            of.properties["hs_is_closed_lost"] = str(is_closed and probability == "0.0").lower()
            if is_closed:
                self._take(of, "closedate", self._moment(at), at)
        of.modified = max(of.modified, at)
        self._found.clear()

    def edit_many(self, ids: Iterable[int], name: str, value: str, at: int | None = None) -> None:
        """Many deals change at one instant."""
        at = at or self.clock()
        for each in ids:
            self.set(self.deals[each], name, value, at=at)

    def archive(self, kind: str, object_id: int) -> None:
        """An object is deleted; it can be restored for 90 days, and does not count as changed."""
        self.objects[kind][object_id].archived = self.clock()
        self._found.clear()

    def restore(self, kind: str, object_id: int) -> None:
        """A deleted object comes back, which does not count as a change of it."""
        self.objects[kind][object_id].archived = None
        self._found.clear()

    def purge(self, kind: str, object_id: int) -> None:
        """An object goes for good."""
        self.objects[kind].pop(object_id)
        self._found.clear()

    def merge(self, first: int, second: int) -> ObjectTruth:
        """Two deals become one with an id of its own, and the history of the first."""
        one, other = self.deals[first], self.deals[second]
        at = self.clock()
        merged = self._add("deals", at, dict(one.properties))
        merged.history = {name: list(entries) for name, entries in one.history.items()}
        known = [one.properties.get("hs_merged_object_ids"), str(first)]
        known += [other.properties.get("hs_merged_object_ids"), str(second)]
        merged.properties["hs_merged_object_ids"] = ";".join(each for each in known if each)
        merged.properties["hs_object_id"] = str(merged.object_id)
        for each in (first, second):
            self.merged[each] = merged.object_id
            self.purge("deals", each)
        return merged

    def add_property(self, kind: str, name: str, type_: str, *, own: bool = True) -> None:
        """The account has one more property."""
        self.properties[kind].append(
            {"name": name, "label": name, "type": type_, "hubspotDefined": not own}
        )

    def rename_stage(self, stage_id: str, label: str) -> None:
        """A stage of deals is called otherwise."""
        for pipeline in self.pipelines["deals"]:
            for stage in pipeline["stages"]:
                if stage["id"] == stage_id:
                    stage["label"] = label

    def delete_stage(self, stage_id: str) -> None:
        """A stage of deals is no longer listed; deals go on to name it."""
        for pipeline in self.pipelines["deals"]:
            pipeline["stages"] = [s for s in pipeline["stages"] if s["id"] != stage_id]

    # What the API says of it.

    def is_authentic(self, call: Call) -> bool:
        return call.headers.get("authorization") == f"Bearer {self.token}"

    def unauthentic(self) -> Reply:
        return Reply(
            401,
            {
                "status": "error",
                "message": "Authentication credentials not found.",
                "category": "INVALID_AUTHENTICATION",
            },
        )

    def keep_limits(self) -> None:
        super().keep_limits()
        self.search_limit, self.calls_left = Limit(5, 1.0), _CALLS_OF_A_DAY

    def limit_of(self, call: Call) -> tuple[str, Limit | None]:
        if call.path.endswith("/search") and self.search_limit is not None:
            return "search", self.search_limit
        return super().limit_of(call)

    def over_limit(self, wait: float, kind: str) -> Reply:
        if kind == "search":  # which does not say how long (contract 1.8)
            return _too_many("SECONDLY")
        return _too_many("TEN_SECONDLY_ROLLING", str(int(wait) + 1))

    def answer(self, call: Call) -> Reply:
        self.meanwhile(call)
        if self.calls_left is not None:
            if self.calls_left <= 0:
                return _too_many("DAILY")
            self.calls_left -= 1
        if _DETAILS.fullmatch(call.path):
            if "account" in self.refused:
                return _error(403, "MISSING_SCOPES")
            return Reply(body={"portalId": int(self.account_id), "accountType": "STANDARD"})
        match _route(call.path):
            case ["pipelines" | "properties" | "objects", kind, *_] if kind in self.refused:
                scope = _SCOPES.get(kind, "crm.objects.contacts.read")
                return _error(403, "MISSING_SCOPES", requiredGranularScopes=[scope])
            case ["associations", *kinds, "batch", "read"] if set(kinds) & self.refused:
                return _error(403, "MISSING_SCOPES")
            case ["associations", kind, to, "batch", "read"]:
                return self._associations(kind, to, call)
            case ["owners"] if "owners" in self.refused:
                return _error(403, "MISSING_SCOPES")
            case ["owners"]:
                archived = call.query.get("archived") == "true"
                return self._page([o for o in self.owners if o["archived"] is archived], call)
            case ["pipelines", kind] if kind in self.pipelines:
                return Reply(body={"results": self.pipelines[kind]})
            case ["properties", kind] if kind in _TYPES:
                return Reply(body={"results": [*_standard(kind), *self.properties[kind]]})
            case ["objects", kind] if kind in _TYPES:
                return self._list(kind, call)
            case ["objects", kind, "search"] if kind in _TYPES:
                return self._search(kind, call)
            case ["objects", kind, "batch", "read"] if kind in _TYPES:
                return self._read(kind, call)
        if call.path.startswith("/crm/"):
            return _error(404, "OBJECT_NOT_FOUND")
        return Reply(404, b"<html><body>404 Not Found</body></html>")

    def _list(self, kind: str, call: Call) -> Reply:
        is_archived = call.query.get("archived") == "true"
        names = call.query.get("properties", "dealname,amount").split(",")
        listed = self._listed.get((kind, is_archived))
        if listed is None:
            listed = self._list_of(kind, is_archived=is_archived)
        return self._page(listed, call, lambda each: self._shown(each, names))

    def _list_of(self, kind: str, *, is_archived: bool) -> list[ObjectTruth]:
        return [
            each
            for each in list(self.objects[kind].values())  # in the order of their ids
            if (each.archived is not None) is is_archived
        ]

    def _page(
        self, listed: list[Any], call: Call, shown: Callable[[Any], Any] = lambda each: each
    ) -> Reply:
        """A page of a list; the cursor is the id after which it goes on."""

        def id_of(each: Any) -> int:
            return int(each["id"] if isinstance(each, dict) else each.object_id)

        limit = int(call.query.get("limit", 10))
        if limit > 100:
            return _error(400, "VALIDATION_ERROR")
        after = int(call.query.get("after", 0))
        start = bisect.bisect_right(listed, after, key=id_of)
        size = max(limit // 2, 1) if self.is_terse else limit
        page = listed[start : start + size]
        body: dict[str, Any] = {"results": [shown(each) for each in page]}
        if len(listed) > start + size:
            last = str(id_of(page[-1]))
            link = f"https://elsewhere.example/crm/v3/objects?after={last}"
            body["paging"] = {"next": {"after": last, "link": link}}
        return Reply(body=body)

    def _search(self, kind: str, call: Call) -> Reply:
        body = call.body
        groups = [group["filters"] for group in body["filterGroups"]]
        limit, after = int(body.get("limit", 10)), int(body.get("after", 0))
        if (
            limit > 200
            or after + limit > self.window
            or len(groups) > 5
            or any(len(group) > 6 for group in groups)
            or sum(map(len, groups)) > 18
            or len(json.dumps(body)) > 3_000
            or len(body.get("sorts", ())) > 1
        ):
            return _error(400, "VALIDATION_ERROR")
        found = self._matches(kind, groups)
        size = max(limit // 2, 1) if self.is_terse else limit
        page = found[after : after + size]
        answer: dict[str, Any] = {
            "results": [
                self._shown(self.objects[kind][each], body["properties"])
                for each in page
                if each in self.objects[kind]
            ]
        }
        if not self.is_terse:
            answer["total"] = len(found)
            if after + size < len(found):
                answer["paging"] = {"next": {"after": str(after + size)}}
        return Reply(body=answer)

    def _matches(self, kind: str, groups: list[list[Mapping[str, str]]]) -> list[int]:
        """The ids that a search finds, in their order. What differs in the first id alone is found
        at once.
        """
        firsts = {
            int(each["value"])
            for group in groups
            for each in group
            if each["propertyName"] == "hs_object_id" and each["operator"] == "GTE"
        }
        rest = [[each for each in g if each["propertyName"] != "hs_object_id"] for g in groups]
        assert len(firsts) == 1, "searches of which a test knows"
        match rest:
            case [[{"propertyName": "hs_lastmodifieddate", "operator": "BETWEEN", **span}]] if (
                self._by_change
            ):
                low, high = int(span["value"]), int(span["highValue"])
                return self._changed_between(kind, low, high, firsts.pop())
        key = json.dumps([kind, rest, sorted(self.lagging)])
        if key not in self._found:
            self._found[key] = sorted(
                each.object_id
                for each in list(self.objects[kind].values())
                if each.archived is None
                and each.object_id not in self.lagging
                and any(all(_holds(each, condition) for condition in group) for group in rest)
            )
        found = self._found[key]
        return found[bisect.bisect_left(found, firsts.pop()) :]

    def _changed_between(self, kind: str, low: int, high: int, first: int) -> list[int]:
        """Of an account that is still, where the number of those that changed is what counts."""
        known = self._by_change[kind]
        start, end = bisect.bisect_left(known, (low,)), bisect.bisect_left(known, (high + 1,))
        return sorted(each for _, each in known[start:end] if each >= first)

    def _read(self, kind: str, call: Call) -> Reply:
        body = call.body
        histories = body.get("propertiesWithHistory") or []
        ids = [int(each["id"]) for each in body["inputs"]]
        if len(ids) > (50 if histories else 100):
            return _error(400, "VALIDATION_ERROR")
        is_archived = call.query.get("archived") == "true"
        there = [
            found
            for each in ids
            if (found := self.objects[kind].get(each)) is not None
            and (found.archived is not None) is is_archived
        ]
        self._random.shuffle(there)  # HubSpot promises no order
        if self._written and kind == "deals" and len(there) == len(ids):
            written = [self._as_written(each, body["properties"], histories) for each in there]
            text = ", ".join(written)
            return Reply(body=f'{{"status": "COMPLETE", "results": [{text}]}}'.encode())
        results = [self._shown(each, body["properties"], histories) for each in there]
        answer = {"status": "COMPLETE", "results": results}
        if len(there) < len(ids):
            return Reply(207, {**answer, "numErrors": 1, "errors": [{"status": "error"}]})
        return Reply(body=answer)

    def _associations(self, kind: str, to: str, call: Call) -> Reply:
        ids = [int(each["id"]) for each in call.body["inputs"]]
        if len(ids) > 1_000:
            return _error(400, "VALIDATION_ERROR")
        found, errors = [], []
        for each in ids:
            linked = self.linked.get((kind, each, to))
            if not linked:
                errors.append({"status": "error", "category": "OBJECT_NOT_FOUND"})
                continue
            types = [_COMPANY if to == "companies" else _OTHER for _ in linked]
            shown = [
                {
                    "toObjectId": number,
                    "associationTypes": [
                        {"category": "HUBSPOT_DEFINED", "typeId": type_, "label": None},
                        {"category": "USER_DEFINED", "typeId": _PRIMARY, "label": "Primary"},
                    ],
                }
                for number, type_ in zip(linked, types, strict=True)
            ]
            if to == "companies":
                first = {"category": "HUBSPOT_DEFINED", "typeId": _PRIMARY, "label": "Primary"}
                shown[0]["associationTypes"] = [first]
            self._random.shuffle(shown)
            found.append({"from": {"id": str(each)}, "to": shown})
        self._random.shuffle(found)
        answer = {"status": "COMPLETE", "results": found}
        if errors:
            return Reply(207, {**answer, "numErrors": len(errors), "errors": errors})
        return Reply(body=answer)

    def be_still(self) -> None:
        for kind in _TYPES:
            for is_archived in (False, True):
                listed = self._list_of(kind, is_archived=is_archived)
                self._listed[kind, is_archived] = listed
            there = self._listed[kind, False]
            self._by_change[kind] = sorted((each.modified, each.object_id) for each in there)
        for deal in self.deals.values():
            names = [*deal.properties, "hs_object_id", "hs_lastmodifieddate"]
            shown = self._shown(deal, names, _WITH_HISTORY)
            values, histories = shown.pop("properties"), shown.pop("propertiesWithHistory")
            of_values, of_histories = (
                {name: f'"{name}": {json.dumps(value)}' for name, value in of.items()}
                for of in (values, histories)
            )
            self._written[deal.object_id] = json.dumps(shown)[1:-1], of_values, of_histories

    def _as_written(self, of: ObjectTruth, names: Iterable[str], histories: Iterable[str]) -> str:
        """What `_shown` gives, of a deal that was written down."""
        head, values, known = self._written[of.object_id]
        properties = ", ".join([values.get(n) or f'"{n}": null' for n in names])
        told = f'{{{head}, "properties": {{{properties}}}'
        if histories:
            entries = ", ".join([known[n] for n in histories if n in known])
            told += f', "propertiesWithHistory": {{{entries}}}'
        return told + "}"

    def _shown(
        self, of: ObjectTruth, names: Iterable[str], histories: Iterable[str] = ()
    ) -> dict[str, Any]:
        known = {
            **of.properties,
            "hs_object_id": str(of.object_id),
            "hs_lastmodifieddate": _iso(of.modified),
        }
        shown: dict[str, Any] = {
            "id": str(of.object_id),
            "archived": of.archived is not None,
            "createdAt": _iso(of.created),
            "updatedAt": _iso(of.modified),
            "properties": {name: known.get(name) for name in names},
        }
        if of.archived is not None:
            shown["archivedAt"] = _iso(of.archived)
        if histories:
            shown["propertiesWithHistory"] = {
                name: [_entry(entry) for entry in reversed(entries[-self.history_length :])]
                for name in histories
                if (entries := list(of.history.get(name, ())))
            }
        return shown

    def _add(self, kind: str, at: int, properties: dict[str, str]) -> ObjectTruth:
        self._next_id += 1
        created = {"createdate": _iso(at), "hs_createdate": _iso(at)}
        added = ObjectTruth(self._next_id, {**created, **properties}, at, at)
        self.objects[kind][added.object_id] = added
        self._found.clear()
        return added

    def _take(self, of: ObjectTruth, name: str, value: str, at: int) -> None:
        before = of.properties.get(name)
        of.properties[name] = value
        if name in _WITH_HISTORY and of.object_id in self.deals and before != value:
            of.history.setdefault(name, []).append(EntryTruth(value, at))

    def _money(self) -> str:
        whole = self._random.randrange(1_000, 90_000)
        return self._random.choice([str(whole), f"{whole}.50", f"{whole}.0"])

    def _moment(self, at: int) -> str:
        """An instant as a property has it: a few are counts of milliseconds."""
        return str(at) if self._random.random() < 0.2 else _iso(at)


def instant(at: int) -> datetime:
    """Milliseconds since 1970 as an instant."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)


@lru_cache(maxsize=2**16)
def _iso(at: int) -> str:
    """With or without a fraction, and at times with an offset (contract 1.2)."""
    written = instant(at).isoformat(timespec="milliseconds")
    if at % 1000 == 0:
        return written.replace(".000+00:00", "Z")
    return written if at % 10 == 3 else written.replace("+00:00", "Z")


def read_moment(value: str) -> int:
    """The instant that a property has, in milliseconds since 1970."""
    if value.isdecimal():
        return int(value)
    return round(datetime.fromisoformat(value).timestamp() * 1000)


def _holds(of: ObjectTruth, condition: Mapping[str, str]) -> bool:
    name, operator = condition["propertyName"], condition["operator"]
    value = str(of.modified) if name == "hs_lastmodifieddate" else of.properties.get(name) or ""
    match operator:
        case "EQ":
            return value == condition["value"]
        case "NOT_HAS_PROPERTY":
            return not value
        case "GTE":
            return bool(value) and read_moment(value) >= int(condition["value"])
        case "BETWEEN":
            low, high = int(condition["value"]), int(condition["highValue"])
            return bool(value) and low <= read_moment(value) <= high
    raise AssertionError(f"a search with {operator}")


def _route(path: str) -> list[str]:
    """What a path asks for, in either style of versions."""
    if found := re.fullmatch("/crm/v[0-9]+/(.+)", path):
        return found[1].split("/")
    if found := re.fullmatch("/crm/([a-z]+)/[0-9]{4}-[0-9]{2}((?:/.+)?)", path):
        return (found[1] + found[2]).split("/")
    return []


def _entry(entry: EntryTruth) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "value": entry.value,
        "timestamp": _iso(entry.at),
        "sourceType": entry.source,
    }
    if entry.at % 2:
        shown |= {"sourceId": "userId:77", "updatedByUserId": 77}
    return shown


def _error(status: int, category: str, **context: Any) -> Reply:
    body = {"status": "error", "message": "no", "category": category, "correlationId": "c"}
    return Reply(status, {**body, "context": context})


def _too_many(policy: str, wait: str | None = None) -> Reply:
    body = {"status": "error", "message": "limit", "errorType": "RATE_LIMIT", "policyName": policy}
    return Reply(429, body, {"Retry-After": wait} if wait else {})


def _standard(kind: str) -> list[dict[str, Any]]:
    names = {
        "deals": ["dealname", "amount", "dealstage", "hs_v2_date_entered_closedwon", "hs_tcv"],
        "tickets": ["subject", "hs_pipeline_stage", "hs_time_to_close"],
    }
    return [
        {"name": name, "label": name, "type": "string", "hubspotDefined": True}
        for name in names.get(kind, ["hs_timestamp"])
    ]


def _deal_pipelines() -> list[dict[str, Any]]:
    return [
        {
            "id": pipeline,
            "label": pipeline.title(),
            "displayOrder": order,
            "createdAt": "1970-01-01T00:00:00Z",
            "updatedAt": "2026-01-01T00:00:00Z",
            "stages": [
                {
                    "id": stage,
                    "label": label,
                    "displayOrder": place,
                    "metadata": {"isClosed": str(is_closed).lower(), "probability": probability},
                    "createdAt": "1970-01-01T00:00:00Z",
                    "updatedAt": "2026-01-01T00:00:00.250Z",
                }
                for place, (stage, label, probability, is_closed) in enumerate(stages)
            ],
        }
        for order, (pipeline, stages) in enumerate(STAGES.items())
    ]


def _ticket_pipelines() -> list[dict[str, Any]]:
    stages = [
        {"id": s, "label": f"Step {s}", "displayOrder": int(s), "metadata": {"ticketState": state}}
        for s, state in _TICKET_STAGES.items()
    ]
    return [{"id": "0", "label": "Support", "displayOrder": 0, "stages": stages}]


def _owner(number: int) -> dict[str, Any]:
    is_archived = number == 45
    return {
        "id": str(number),
        "userId": None if is_archived else number + 1000,
        "userIdIncludingInactive": number + 1000,
        "type": "PERSON",
        "email": f"rep{number}@example.com",
        "firstName": "Rep",
        "lastName": str(number),
        "teams": None if number % 2 else [{"id": "7", "name": "East", "primary": True}],
        "archived": is_archived,
        "createdAt": "2025-01-01T00:00:00Z",
        "updatedAt": "2025-01-01T00:00:00Z",
    }
