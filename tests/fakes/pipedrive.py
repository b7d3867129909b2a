"""Pipedrive's API as contract pipedrive describes it: lists (v2), and the flow of deals (v1)."""

import base64
import bisect
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply

#: Stages by pipeline.
STAGES = {1: [11, 12, 13, 14], 2: [21, 22, 23]}
USERS = (71, 72, 73)
#: The custom fields of deals: one with options, and one of free text.
REGION, NOTE = "a" * 39 + "1", "b" * 39 + "2"
_PAGE = 500
#: Deleted deals are listed so long.
_KEPT = timedelta(days=30)
#: Of a company with one seat of the smallest plan.
_TOKENS_OF_A_DAY = 30_000
#: Tokens by path, the first that fits (contract 1.1).
_COSTS = (
    (r"^/v1/deals/\d+/flow", 40),
    (r"^/v1/users/me", 2),
    (r"^/v1/users", 20),
    (r"^/api/v2/deals/archived", 20),
    (r"^/api/v2/deals/\d+", 1),
    (r"^/api/v2/(stages|pipelines)", 5),
    (r"", 10),
)


@dataclass(frozen=True)
class ChangeTruth:
    """A change of a field of a deal, as it was."""

    change_id: int
    field_key: str
    old: Any
    new: Any
    at: datetime


@dataclass(eq=False)
class DealTruth:
    """A deal, as it is, with its history in the order of time.

    Attributes:
        updated_at: None for one that was never updated, where Pipedrive gives no time.
        deleted_at: When it was deleted; 30 days later it is known no more.
    """

    deal_id: int
    pipeline_id: int
    first_stage_id: int
    stage_id: int
    added_at: datetime
    changes: list[ChangeTruth] = field(default_factory=list)
    status: str = "open"
    is_deleted: bool = False
    title: str = "Kiosk order"
    owner_id: int = 71
    org_id: int | None = None
    value: Any = 0
    currency: str = "EUR"
    probability: int | None = None
    expected_close_date: date | None = None
    updated_at: datetime | None = None
    stage_changed_at: datetime | None = None
    won_at: datetime | None = None
    lost_at: datetime | None = None
    archived_at: datetime | None = None
    deleted_at: datetime | None = None
    custom_fields: dict[str, Any] = field(default_factory=dict)

    @property
    def closed_at(self) -> datetime | None:
        """When it was won or lost, if it is."""
        return {"won": self.won_at, "lost": self.lost_at}.get(self.status)

    @property
    def is_purged(self) -> bool:
        """Whether it was deleted so long ago that the account knows it no more."""
        return self.deleted_at is not None and self.deleted_at < _now() - _KEPT

    @property
    def listed_status(self) -> str:
        """What lists call its status."""
        return "deleted" if self.is_deleted else self.status


@dataclass
class StageTruth:
    """A stage; one that was deleted may be in the list, or not."""

    stage_id: int
    pipeline_id: int
    name: str
    order: int
    probability: int
    is_deleted: bool = False


@dataclass
class ActivityTruth:
    """An activity, as it is."""

    activity_id: int
    kind: str
    deal_id: int
    owner_id: int
    due: datetime
    added_at: datetime
    updated_at: datetime
    done_at: datetime | None = None


@dataclass
class OrganizationTruth:
    """An organization, as it is."""

    organization_id: int
    name: str
    updated_at: datetime


class FakePipedrive(CrmServer):
    """A fake Pipedrive account.

    Attributes:
        deals: The truth, by id.
        stages, activities, organizations: The same; what was deleted is not there.
        fields: Custom fields: key -> name and options (id -> label).
        page_size: Most records of a page of a list.
        has_short_pages: Whether pages may hold fewer records than they could.
        lists_deleted_stages: Whether the list of stages holds deleted ones.
        budget_is_used_up: Whether the tokens of the day are gone.
        tokens_left: How many are left; None = as many as one likes.
        tells_budget: Whether answers tell so in their headers.
        refused: What paths the token has no right for.
    """

    usual_limit = Limit(20, 2.0)

    def __init__(self, seed: int = 1, *, limit: Limit | None = None) -> None:
        super().__init__(limit)
        self.deals: dict[int, DealTruth] = {}
        self.stages = {
            stage_id: StageTruth(stage_id, pipeline_id, f"Stage {stage_id}", order, 20 * order)
            for pipeline_id, stage_ids in STAGES.items()
            for order, stage_id in enumerate(stage_ids, 1)
        }
        self.activities: dict[int, ActivityTruth] = {}
        self.organizations: dict[int, OrganizationTruth] = {}
        self.fields: dict[str, tuple[str, dict[int, str]]] = {
            REGION: ("Region", {1: "North", 2: "South"}),
            NOTE: ("Note", {}),
        }
        self.page_size = _PAGE
        self.has_short_pages = False
        self.lists_deleted_stages = True
        self.budget_is_used_up = False
        self.tokens_left: int | None = None
        self.tells_budget = True
        self.refused: re.Pattern[str] | None = None
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._is_still = False
        self._lists: dict[tuple[str, ...], _List] = {}
        self._written: dict[int, str] = {}
        self._histories: dict[int, list[str]] = {}
        self._change_id = 1000
        self._deal_id, self._activity_id = 500, 0

    # What happens at the CRM

    def populate(self, deals: int = 200, seed: int | None = None) -> None:
        """Some months of an account: open, won and lost deals with their histories, activities.

        Many deals were changed at one instant, an hour ago.
        """
        chance = self._random if seed is None else random.Random(seed)  # noqa: S311 - no secret
        now = _now() - timedelta(hours=1)
        for name in ("Kiosks of the north", "Kiosks of the south"):
            self.add_organization(name, now - timedelta(days=300))
        numbers = [None, *self.organizations]
        for _ in range(deals):
            added_at = now - timedelta(seconds=chance.randrange(86_400, 200 * 86_400))
            deal = self._new_deal(added_at, chance)
            deal.org_id = numbers[deal.deal_id % len(numbers)]
            at = added_at
            for _ in range(chance.choice((0, 0, 1, 2, 3, 5))):
                at += timedelta(seconds=chance.randrange(1, 15 * 86_400))
                if at >= now:
                    break
                if chance.random() < 0.7:
                    self.update(deal, at, stage_id=self._other_stage(deal, chance))
                else:
                    self.update(deal, at, value=_value(chance), owner_id=chance.choice(USERS))
            at = min(at + timedelta(seconds=chance.randrange(1, 20 * 86_400)), now)
            what = chance.random()
            if what < 0.45:
                self.update(deal, at, status="won" if what < 0.25 else "lost")
            elif what < 0.48:
                self.delete(deal, at)
            if chance.random() < 0.05:
                self.archive(deal, at)
            if chance.random() < 0.5:
                self.add_activity(deal, min(added_at + timedelta(days=1), now), chance)

    def add_deal(self, moves: int = 2) -> DealTruth:
        """A deal that began some months ago and has moved so many times since."""
        added_at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(
            seconds=self._random.randrange(5_000_000)
        )
        deal = self._new_deal(added_at, self._random)
        for _ in range(moves):
            self.move(deal)
        return deal

    def create(self, *, is_timed: bool = True) -> DealTruth:
        """A deal that began a minute ago; one that is not timed has no time of its last update."""
        deal = self._new_deal(_now() - timedelta(minutes=1), self._random)
        deal.updated_at = deal.added_at if is_timed else None
        return deal

    def move(self, deal: DealTruth) -> None:
        """The deal goes to another stage of its pipeline, some time after its last change."""
        self.update(deal, self._later(deal), stage_id=self._other_stage(deal, self._random))

    def change(self, deal: DealTruth, field_key: str, old: Any, new: Any) -> None:
        """A field of the deal is said to change, some time after its last change."""
        self._change(deal, field_key, old, new, self._later(deal))

    def update(self, deal: DealTruth, at: datetime | None = None, **values: Any) -> None:
        """Fields of a deal change at an instant, now where none is given."""
        at = at or _now()
        for name, new in values.items():
            old = getattr(deal, name)
            if new == old:
                continue
            written = {"stage_id": str, "pipeline_id": str}.get(name, _plain)
            key = "user_id" if name == "owner_id" else name
            setattr(deal, name, new)
            self._change(deal, key, written(old), written(new), at)
            if name == "stage_id":
                deal.stage_changed_at = at
            if name == "status" and new in ("won", "lost"):
                setattr(deal, f"{new}_at", at)
        deal.updated_at = at

    def reassign_pipeline(self, deal: DealTruth, at: datetime | None = None) -> None:
        """The deal goes to the first stage of the other pipeline."""
        other = 3 - deal.pipeline_id
        self.update(deal, at, pipeline_id=other, stage_id=STAGES[other][0])

    def set_custom(self, deal: DealTruth, key: str, value: Any) -> None:
        """A custom field of the deal changes now."""
        at = _now()
        self._change(deal, key, deal.custom_fields.get(key), value, at)
        deal.custom_fields = {**deal.custom_fields, key: value}
        deal.updated_at = at

    def archive(self, deal: DealTruth, at: datetime | None = None) -> None:
        """The deal leaves the lists, but for that of archived ones."""
        deal.archived_at = at or _now()
        deal.updated_at = deal.archived_at

    def delete(self, deal: DealTruth, at: datetime | None = None) -> None:
        """The deal is deleted, and still known for 30 days."""
        deal.is_deleted, deal.deleted_at = True, at or _now()
        deal.updated_at = deal.deleted_at

    def restore(self, deal: DealTruth) -> None:
        """A deleted deal comes back."""
        deal.is_deleted, deal.deleted_at, deal.updated_at = False, None, _now()

    def merge(self, deal: DealTruth, into: DealTruth) -> None:
        """A deal is deleted in favour of another one, which gets its value."""
        self.update(into, value=into.value + deal.value)
        self.delete(deal)

    def purge(self, deal: DealTruth) -> None:
        """The account knows the deal no more."""
        del self.deals[deal.deal_id]

    def add_organization(self, name: str, at: datetime | None = None) -> OrganizationTruth:
        """An organization."""
        number = max(self.organizations, default=300) + 1
        self.organizations[number] = OrganizationTruth(number, name, at or _now())
        return self.organizations[number]

    def organization_of(self, deal: DealTruth) -> str | None:
        """Name of the organization that a deal is about."""
        return None if deal.org_id is None else self.organizations[deal.org_id].name

    def add_activity(
        self, deal: DealTruth, at: datetime | None = None, chance: random.Random | None = None
    ) -> ActivityTruth:
        """A call or meeting about a deal, done or planned."""
        chance, at = chance or self._random, at or _now()
        done_at = at + timedelta(hours=1) if chance.random() < 0.6 else None
        self._activity_id += 1
        activity = ActivityTruth(
            self._activity_id,
            chance.choice(("call", "meeting", "email", "task")),
            deal.deal_id,
            deal.owner_id,
            at + timedelta(days=1),
            at,
            at,
            done_at,
        )
        self.activities[activity.activity_id] = activity
        return activity

    # What it answers

    def is_authentic(self, call: Call) -> bool:
        return call.headers.get("x-api-token") == self.token

    def unauthentic(self) -> Reply:
        error = {"success": False, "error": "unauthorized access", "errorCode": 401}
        return Reply(401, error)

    def keep_limits(self) -> None:
        super().keep_limits()
        self.tokens_left = _TOKENS_OF_A_DAY

    def over_limit(self, wait: float, _kind: str) -> Reply:
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
        cost = next(cost for path, cost in _COSTS if re.search(path, call.path))
        if self.tokens_left is not None and self.tokens_left < cost:
            self.budget_is_used_up = True
        if self.budget_is_used_up:
            told = {"x-daily-ratelimit-token-remaining": "0"} if self.tells_budget else {}
            return Reply(
                429,
                {"success": False, "error": "daily request limit reached"},
                {**told, "x-ratelimit-reset": "2"},
            )
        if self.tokens_left is not None:
            self.tokens_left -= cost
        if self.refused is not None and self.refused.search(call.path):
            return Reply(403, {"success": False, "error": "Scope and URL mismatch"})
        match call.path.strip("/").split("/"):
            case ["api", "v2", "deals"]:
                return self._deals(call, is_archived=False)
            case ["api", "v2", "deals", "archived"]:
                return self._deals(call, is_archived=True)
            case ["api", "v2", "deals", number] if number.isdecimal():
                deal = self._known(int(number))
                return _not_found() if deal is None else _one(_deal(deal))
            case ["api", "v2", "activities"]:
                activities = partial(_there, self.activities, _ids_of(call.query))
                kept_as = (call.path,)
                return self._page(call, activities, lambda a: a.activity_id, _activity, kept_as)
            case ["api", "v2", "organizations"]:
                there = partial(_there, self.organizations, _ids_of(call.query))
                kept_as = (call.path,)
                return self._page(call, there, lambda o: o.organization_id, _organization, kept_as)
            case ["api", "v2", "pipelines"]:
                return self._page(call, lambda: STAGES, lambda number: number, _pipeline)
            case ["api", "v2", "stages"]:
                stages = [
                    stage
                    for stage in self.stages.values()
                    if self.lists_deleted_stages or not stage.is_deleted
                ]
                return self._page(call, lambda: stages, lambda stage: stage.stage_id, _stage)
            case ["api", "v2", "dealFields"]:
                return _one([_field(key, *what) for key, what in self.fields.items()])
            case ["v1", "users", "me"]:
                return _one({"id": USERS[0], "company_id": int(self.account_id)})
            case ["v1", "users"]:
                return _one([_user(number) for number in USERS])
            case ["v1", "deals", number, "flow"] if number.isdecimal():
                return self._flow(self._known(int(number)), call)
        return _not_found()

    def _known(self, deal_id: int) -> DealTruth | None:
        deal = self.deals.get(deal_id)
        return deal if deal is not None and not deal.is_purged else None

    def _deals(self, call: Call, *, is_archived: bool) -> Reply:
        query = call.query
        for name in ("updated_since", "updated_until"):
            if name in query and not re.fullmatch(r"[-\d]{10}T[:\d]{8}Z", query[name]):
                return Reply(400, {"success": False, "error": f"{name} is not a valid datetime"})
        asked = _ids_of(query)
        if asked is not None and len(asked) > 100:
            return Reply(400, {"success": False, "error": "too many ids"})
        statuses = query.get("status", "open,won,lost")

        def found() -> Iterator[DealTruth]:
            for deal in _there(self.deals, asked):
                is_asked_for = deal.listed_status in statuses.split(",") and not deal.is_purged
                if is_asked_for and (deal.archived_at is not None) is is_archived:
                    yield deal

        return self._page(call, found, lambda deal: deal.deal_id, _deal, (call.path, statuses))

    def _page(
        self,
        call: Call,
        found: Callable[[], Iterable[Any]],
        number: Callable[[Any], int],
        show: Callable[[Any], dict[str, Any]],
        kept_as: tuple[str, ...] = (),
    ) -> Reply:
        """A page; a cursor keeps an id where ids give the order, and else a mere place.

        Args:
            found: Gives what is listed, of any time and in any order.
            kept_as: A name for that, by which it is found again while nothing changes.
        """
        query = call.query
        is_kept = self._is_still and bool(kept_as) and "ids" not in query
        listed = self._lists.get(kept_as) if is_kept else None
        if listed is None:
            listed = _List(found(), number)
        if is_kept:
            self._lists[kept_as] = listed
        is_down = query.get("sort_direction") == "desc"
        is_by_time = query.get("sort_by") == "update_time"
        chosen = listed.chosen(query, is_by_time)
        if is_down:
            chosen = chosen[::-1]
        start = 0
        if "cursor" in query:
            try:
                kind, place = base64.b64decode(query["cursor"]).decode().split(":")
            except ValueError:
                return Reply(400, {"success": False, "error": "cursor is not valid"})
            if kind == "id" and is_down:
                chosen = [each for each in chosen if number(each) < int(place)]
            elif kind == "id":
                start = bisect.bisect_right(chosen, int(place), key=number)
            else:
                start = int(place)
        size = min(int(query.get("limit", 100)), self.page_size)
        if self.has_short_pages:
            size = self._random.randrange(max(size // 2, 1), size + 1)
        page = chosen[start : start + size]
        more: dict[str, Any] = {}
        if start + size < len(chosen):
            place = f"n:{start + size}" if is_by_time else f"id:{number(page[-1])}"
            more["next_cursor"] = base64.b64encode(place.encode()).decode()
        elif self._random.random() < 0.5:
            more["next_cursor"] = None  # or it is missing
        if self._is_still and show is _deal and page:
            return _written_list([self._written[each.deal_id] for each in page], more)
        data = [show(each) for each in page] or None  # null instead of an empty list
        return Reply(body={"success": True, "data": data, "additional_data": more})

    def _flow(self, deal: DealTruth | None, call: Call) -> Reply:
        if deal is None:
            return _not_found()
        start = int(call.query.get("start", 0))
        limit = min(int(call.query.get("limit", 100)), _PAGE)
        is_of_changes = call.query.get("items") == "dealChange"
        is_of_all = call.query.get("all_changes") == "1"
        if self._is_still and is_of_changes and is_of_all:
            written = self._histories[deal.deal_id]
            return _written_list(written[start : start + limit], *_paging(start, limit, written))
        changes = [
            change
            for change in list(deal.changes)
            if is_of_all or change.field_key not in self.fields
        ]
        entries = [_entry(deal, change) for change in reversed(changes)]
        if not is_of_changes:
            entries.insert(0, _future_activity())
        more, beside = _paging(start, limit, entries)
        page = entries[start : start + limit] or None  # null instead of an empty list
        return Reply(body={"success": True, "data": page, "additional_data": more, **beside})

    def be_still(self) -> None:
        self._is_still = True
        for number, deal in self.deals.items():
            self._written[number] = json.dumps(_deal(deal))
            entries = [json.dumps(_entry(deal, change)) for change in reversed(deal.changes)]
            self._histories[number] = entries

    # How it grows

    def _new_deal(self, added_at: datetime, chance: random.Random) -> DealTruth:
        pipeline_id = chance.choice(list(STAGES))
        stage_id = chance.choice(STAGES[pipeline_id])
        self._deal_id += 1
        deal = DealTruth(
            deal_id=self._deal_id,
            pipeline_id=pipeline_id,
            first_stage_id=stage_id,
            stage_id=stage_id,
            added_at=added_at,
            owner_id=chance.choice(USERS),
            value=_value(chance),
            currency=chance.choice(("EUR", "EUR", "UAH")),
            probability=chance.choice((None, None, 40)),
            expected_close_date=(added_at + timedelta(days=chance.randrange(5, 90))).date(),
            custom_fields={REGION: chance.choice((1, 2, None)), NOTE: None},
        )
        self._change(deal, "add_time", None, _v1(added_at), added_at)
        deal.updated_at = added_at if chance.random() < 0.7 else None
        self.deals[deal.deal_id] = deal
        return deal

    def _other_stage(self, deal: DealTruth, chance: random.Random) -> int:
        return chance.choice([s for s in STAGES[deal.pipeline_id] if s != deal.stage_id])

    def _later(self, deal: DealTruth) -> datetime:
        return deal.changes[-1].at + timedelta(seconds=self._random.randrange(1, 90_000))

    def _change(self, deal: DealTruth, field_key: str, old: Any, new: Any, at: datetime) -> None:
        self._change_id += 1
        deal.changes.append(ChangeTruth(self._change_id, field_key, old, new, at))
        deal.updated_at = at


def _now() -> datetime:
    """The account's clock: it counts seconds, and is one of them behind."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)


def _value(chance: random.Random) -> Any:
    amount = chance.randrange(100, 10_000_000)
    return chance.choice((amount, amount / 100))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


@dataclass
class _List:
    """Records as lists give them: in the order of ids, and of their times of change.

    Attributes:
        by_id: All of them.
        by_time: Those that were ever updated, each behind its time.
    """

    by_id: list[Any]
    by_time: list[tuple[str, int, Any]]

    def __init__(self, found: Iterable[Any], number: Callable[[Any], int]) -> None:
        self.by_id, self._number = sorted(found, key=number), number
        timed = [(_v2(getattr(each, "updated_at", None)), each) for each in self.by_id]
        # What is later in the order of ids is so among those of one time.
        self.by_time = sorted(
            [(at, number(each), each) for at, each in timed if at is not None],
            key=lambda entry: entry[:2],
        )

    def chosen(self, query: Mapping[str, str], is_by_time: bool) -> list[Any]:
        """Those of the times that are asked for; a list by time holds none that has none."""
        if not is_by_time and "updated_since" not in query and "updated_until" not in query:
            return self.by_id
        since, until = query.get("updated_since", ""), query.get("updated_until", "~")
        first = bisect.bisect_left(self.by_time, since, key=lambda entry: entry[0])
        end = bisect.bisect_left(self.by_time, until, key=lambda entry: entry[0])
        chosen = [each for _, _, each in self.by_time[first:end]]
        return chosen if is_by_time else sorted(chosen, key=self._number)


def _ids_of(query: Mapping[str, str]) -> set[int] | None:
    """The ids that are asked for; None where all are."""
    return {int(number) for number in query["ids"].split(",")} if "ids" in query else None


def _there(known: Mapping[int, Any], asked: set[int] | None) -> list[Any]:
    """Of what there is, that which is asked for."""
    assert asked is None or len(asked) <= 100
    if asked is None:
        return list(known.values())
    return [known[number] for number in asked if number in known]


def _paging(start: int, limit: int, entries: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """What stands beside the entries of a history: where it goes on, and records named in it."""
    has_more = start + limit < len(entries)
    paging = {"start": start, "limit": limit, "more_items_in_collection": has_more}
    if has_more:
        paging["next_start"] = start + limit
    related = {"user": {"71": {"id": 71, "name": "Someone"}}}
    return {"pagination": paging}, {"related_objects": related}


def _written_list(
    written: Sequence[str], more: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> Reply:
    """A list of records that were written down before."""
    rest = json.dumps({"additional_data": more, **(beside or {})})
    data = f"[{', '.join(written)}]" if written else "null"
    return Reply(body=f'{{"success": true, "data": {data}, {rest[1:]}'.encode())


def _v1(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _v2(at: datetime | None) -> str | None:
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _deal(deal: DealTruth) -> dict[str, Any]:
    return {
        "id": deal.deal_id,
        "title": deal.title,
        "creator_user_id": 71,
        "owner_id": deal.owner_id,
        "value": deal.value,
        "currency": deal.currency,
        "person_id": 8,
        "org_id": deal.org_id,
        "pipeline_id": deal.pipeline_id,
        "stage_id": deal.stage_id,
        "status": deal.listed_status,
        "probability": deal.probability,
        "lost_reason": None,
        "add_time": _v2(deal.added_at),
        "update_time": _v2(deal.updated_at),
        "stage_change_time": _v2(deal.stage_changed_at),
        "close_time": _v2(deal.closed_at),
        "won_time": _v2(deal.won_at),
        "lost_time": _v2(deal.lost_at),
        "archive_time": _v2(deal.archived_at),
        "is_archived": deal.archived_at is not None,
        "is_deleted": deal.is_deleted,
        "expected_close_date": _plain(deal.expected_close_date),
        "label_ids": [],
        "origin": "ManuallyCreated",
        "acv": None,
        "arr": None,
        "mrr": None,
        "custom_fields": deal.custom_fields,
    }


def _organization(organization: OrganizationTruth) -> dict[str, Any]:
    return {
        "id": organization.organization_id,
        "name": organization.name,
        "is_deleted": False,
        "add_time": _v2(organization.updated_at),
        "update_time": _v2(organization.updated_at),
    }


def _activity(activity: ActivityTruth) -> dict[str, Any]:
    return {
        "id": activity.activity_id,
        "subject": "About the kiosk",
        "type": activity.kind,
        "owner_id": activity.owner_id,
        "deal_id": activity.deal_id,
        "lead_id": None,
        "due_date": activity.due.date().isoformat(),
        "due_time": activity.due.strftime("%H:%M:%S"),
        "done": activity.done_at is not None,
        "marked_as_done_time": _v2(activity.done_at),
        "is_deleted": False,
        "add_time": _v2(activity.added_at),
        "update_time": _v2(activity.updated_at),
    }


def _pipeline(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"Pipeline {number}",
        "order_nr": number,
        "is_deleted": False,
        "is_deal_probability_enabled": True,
        "add_time": "2025-01-01T00:00:00Z",
        "update_time": None,
    }


def _stage(stage: StageTruth) -> dict[str, Any]:
    return {
        "id": stage.stage_id,
        "name": stage.name,
        "order_nr": stage.order,
        "pipeline_id": stage.pipeline_id,
        "deal_probability": stage.probability,
        "is_deleted": stage.is_deleted,
        "is_deal_rot_enabled": False,
        "days_to_rotten": None,
        "add_time": "2025-01-01T00:00:00Z",
        "update_time": None,
    }


def _field(key: str, name: str, options: dict[int, str]) -> dict[str, Any]:
    return {
        "field_code": key,
        "field_name": name,
        "field_type": "enum" if options else "text",
        "is_custom_field": True,
        "options": [{"id": number, "label": label} for number, label in options.items()] or None,
    }


def _user(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"User {number}",
        "email": f"user{number}@example.com",
        "active_flag": number != USERS[-1],
        "created": "2025-01-01 00:00:00",
        "modified": None,
    }


def _one(data: Any) -> Reply:
    return Reply(body={"success": True, "data": data})


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
