"""Loads KeyCRM: orders with their items, and the lists of statuses, sources and users.

Contract keycrm. Orders are the rows that follow-ups of webhooks write as well
(loaders.keycrm_orders). KeyCRM tells how an order is and never how it was: the database notes what
changes of its row. Of a buyer the id alone is kept. Payments are not asked for: what an order has
to say of them is its ``payment_status``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from loaders.api import Api, ApiError, FailedError, RefusedError, path_id
from loaders.calls import DEADLINE, Calls, Turns, fitting
from loaders.keycrm_orders import PACE, WAIT_UNSAID, token_header
from loaders.keycrm_tables import (
    DATASET,
    ORDER_ITEMS,
    ORDER_SOURCES,
    ORDER_STATUSES,
    ORDERS,
    USERS,
    lines_of,
    part_of,
)
from loaders.pace import CALLS
from loaders.records import Record
from loaders.sources import Finding, Page, Position, Pull, Resource, Source, Sweep
from stageline.crm_values import instant
from stageline.settings.api_accounts import ApiAccount

#: Most records of a page. Where pages overlap, as few as half of them are asked for; where orders
#: are so large that a page of them cannot be read, fewer, but no fewer than that.
LARGEST_PAGE, LEAST_OF_LARGE = 50, 12
#: A load begins so long before the last one did: clocks differ, and what is new is seen late.
OVERLAP = timedelta(minutes=15)
#: Ranges of time end so much later than the load began: it is not said whether the end counts, and
#: fresh orders are missing from ranges that end now (contract 2.3).
LATER_END = timedelta(days=1)
#: Groups of statuses in which an order is done or cancelled (contract 2.3).
CLOSED_GROUPS = {"5", "6"}

_WITH_PARTS = {"include": "products.offer,buyer,manager,marketing,custom_fields"}


@dataclass(frozen=True)
class _Walk:
    """How far a list that is sorted by id has been read.

    KeyCRM has pages by number alone, so records move to earlier pages, and out of sight, when one
    before them goes. Each page therefore begins with the last record that was read, or before it,
    which proves that none between was missed; where that is not so, the walk steps back. The sizes
    of pages are chosen for the least overlap: 41 of 50 records of a page are new.

    Attributes:
        read: How many records stood before the end of the last page.
        last: The greatest id so far.
    """

    read: int = 0
    last: int = 0

    def question(self, most: int) -> tuple[int, int]:
        """Number and size of the page that begins with the last record, or soon before it.

        Args:
            most: The largest size; from `LEAST_OF_LARGE` on, some size always tells something new.
        """
        if self.read == 0:
            return 1, most
        pages = [((self.read - 1) // size + 1, size) for size in range(most // 2, most + 1)]
        return max(pages, key=lambda page: page[0] * page[1])

    def back(self) -> Self:
        """A page earlier."""
        return replace(self, read=max(0, self.read - LARGEST_PAGE))


def _walked(
    calls: Calls, path: str, params: Mapping[str, str], walk: _Walk
) -> Iterator[tuple[list[Record], _Walk, int]]:
    """The rest of a list by id: pages, how far the walk is after each, and the list's length."""
    most = LARGEST_PAGE

    def page(most: int) -> tuple[dict[str, Any], int, int]:
        number, size = walk.question(most)
        asked: dict[str, str | int] = {**params, "sort": "id", "page": number, "limit": size}
        return _asked(calls, path, asked), number, size

    while True:
        (answer, number, size), most = fitting(page, most, LEAST_OF_LARGE)
        records = _records(answer)
        if answer.get("per_page") not in (None, size, str(size)):
            raise FailedError("pages of another size than was asked for")
        ids = [int(record["id"]) for record in records if str(record.get("id")).isdecimal()]
        if ids != sorted(ids):
            raise FailedError("a list that is not sorted by id, as was asked for")
        if walk.read and (not ids or ids[0] > walk.last):
            walk = walk.back()
            continue
        walk = _Walk((number - 1) * size + len(records), max([walk.last, *ids]))
        yield records, walk, int(answer.get("total") or 0)
        if _is_last(answer, len(records), size):
            return


def _listed(calls: Calls, path: str) -> list[Record]:
    """A short list, whole."""
    found: list[Record] = []
    number = 0
    while True:
        number += 1
        answer = _asked(calls, path, {"page": number, "limit": LARGEST_PAGE})
        records = _records(answer)
        found += records
        if _is_last(answer, len(records), LARGEST_PAGE):
            return found


def _asked(calls: Calls, path: str, params: Mapping[str, str | int]) -> dict[str, Any]:
    answer = calls.get(path, params)
    if answer is None:
        raise RefusedError(f"HTTP 404 for {path}: is the base URL of the API right?")
    return answer


def _records(answer: Mapping[str, Any]) -> list[Record]:
    records = answer.get("data", ())
    if "data" not in answer or not isinstance(records, list | None):
        raise FailedError("an answer without a list")
    return [record for record in records or () if isinstance(record, dict)]


def _is_last(answer: Mapping[str, Any], count: int, size: int) -> bool:
    # `last_page` is in no contract.
    return count < size or answer.get("next_page_url", "") is None


def _statuses(pull: Pull, _position: Position | None) -> Iterator[Page]:
    """All statuses of orders; only active ones are listed."""
    records = _listed(pull.calls, "/order/status")
    stages = [
        {
            "stage_id": str(record["id"]),
            "name": record.get("name") or record.get("alias") or str(record["id"]),
            "alias": record.get("alias") or None,
            "group_id": None if record.get("group_id") is None else str(record["group_id"]),
            "position": position,
            "is_closing": bool(record.get("is_closing_order")),
        }
        for position, record in enumerate(records, 1)
        if record.get("id") is not None
    ]
    yield Page({ORDER_STATUSES: records}, stages=stages)


def _sources(pull: Pull, _position: Position | None) -> Iterator[Page]:
    yield Page({ORDER_SOURCES: _listed(pull.calls, "/order/source")})


def _users(pull: Pull, _position: Position | None) -> Iterator[Page]:
    yield Page({USERS: _listed(pull.calls, "/users")})


def _orders(pull: Pull, position: Position | None) -> Iterator[Page]:
    """Orders that changed, or were made, since the last round; in the first, open ones as well.

    A round is a list of filters, each read to its end; what a killed load left of one is read
    first. An order that changed is in one of the two ranges of time, a new one in both: where there
    are many, that takes 0.024 or 0.049 calls an order (0.02 is what pages of 50 allow), and a round
    that finds nothing takes two.
    """
    has_begun = False  # the round of this load; one of the same second may have been the last's
    while position is None or position["todo"] or not has_begun:
        has_begun = has_begun or position is None or not position["todo"]
        if position is None:
            open_ids = [
                str(status["id"])
                for status in _listed(pull.calls, "/order/status")
                if not status.get("is_closing_order")
                and str(status.get("group_id")) not in CLOSED_GROUPS
            ]
            position = _round(pull, pull.since, [["status_id", each] for each in open_ids])
        elif not position["todo"]:
            position = _round(pull, datetime.fromisoformat(position["until"]) - OVERLAP, [])
        for page in _read_filter(pull, position):
            position = page.position or position
            yield page


def _round(pull: Pull, since: datetime, first: list[list[str]]) -> Position:
    span = ",".join(
        f"{each.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for each in (since, pull.until + LATER_END)
    )
    # `created_between` is about ordered_at (contract 2.3).
    return {
        "until": pull.until.isoformat(),
        "todo": [*first, ["updated_between", span], ["created_between", span]],
        "read": 0,
        "last": 0,
    }


def _read_filter(pull: Pull, position: Position) -> Iterator[Page]:
    """The orders of the first filter that is to do."""
    (name, value), *rest = position["todo"]
    params = {**_WITH_PARTS, f"filter[{name}]": value}
    count = 0
    for orders, walk, total in _walked(
        pull.calls, "/order", params, _Walk(position["read"], position["last"])
    ):
        count += len(orders)
        yield _page(
            orders,
            {**position, "read": walk.read, "last": walk.last},
            count + max(total - walk.read, 0),
        )
    yield Page(position={**position, "todo": rest, "read": 0, "last": 0})


def _page(
    orders: Sequence[Record], position: Position | None = None, expected: int | None = None
) -> Page:
    lines = [line for order in orders for line in lines_of(order)]
    kept = [_without_people(order) for order in orders]
    return Page({ORDERS: kept, ORDER_ITEMS: lines}, position, expected=expected)


def _without_people(order: Record) -> Record:
    """What is kept where an order fits into no row: of people only ids, and nothing they wrote."""
    ids = {part: {"id": part_of(order, part).get("id")} for part in ("buyer", "manager")}
    written = ("manager_comment", "buyer_comment", "gift_message")
    return {name: value for name, value in order.items() if name not in written} | ids


def _order_ids(pull: Pull) -> Iterator[Sequence[tuple[str, bool]]]:
    """All orders that there are: 50 a call; those are wanted that a first load would bring."""
    for orders, _, _ in _walked(pull.calls, "/order", {}, _Walk()):
        yield [
            (str(order["id"]), _is_wanted(order, pull.since)) for order in orders if order.get("id")
        ]


def _is_wanted(order: Record, since: datetime) -> bool:
    is_closed = str(order.get("status_group_id")) in CLOSED_GROUPS
    try:
        changed_at = instant(order.get("updated_at"))
    except ValueError:
        changed_at = None
    return not is_closed or (changed_at is not None and changed_at >= since)


def _fetched_orders(pull: Pull, order_ids: Sequence[str]) -> Iterator[Page]:
    """A call an order, for the few that no range of time held."""
    for order_id in order_ids:
        order = pull.calls.get(f"/order/{path_id(order_id)}", _WITH_PARTS)
        if order is not None:
            yield _page([order])


def _status_ids(pull: Pull) -> Iterator[Sequence[tuple[str, bool]]]:
    yield [
        (str(each["id"]), False) for each in _listed(pull.calls, "/order/status") if each.get("id")
    ]


def _no_statuses(_pull: Pull, _ids: Sequence[str]) -> Iterator[Page]:
    """None is missed: all of them are loaded each time."""
    return iter(())


def _judge(status: int, _headers: Mapping[str, str], _body: bytes) -> ApiError | None:
    if status in (400, 422):
        return RefusedError(
            f"HTTP {status}: KeyCRM does not take the question", concerns_account=False
        )
    return None


def _open(turns: Turns, account: ApiAccount) -> Calls:
    api = Api(
        account.base_url,
        token_header(account.token),
        wait_unsaid=WAIT_UNSAID,
        judge=_judge,
        deadline=DEADLINE,
    )
    return Calls(api, turns)


def _check(calls: Calls) -> Iterator[Finding]:
    for name, path in (
        ("statuses", "/order/status"),
        ("sources", "/order/source"),
        ("users", "/users"),
        ("orders", "/order"),
    ):
        problem = None
        try:
            _asked(calls, path, {"page": 1, "limit": 1})
        except RefusedError as error:
            if error.concerns_account:
                raise
            problem = str(error)
        yield Finding(name, problem)


_NEEDS = "an API key of KeyCRM, from Settings, General, API"

SOURCE = Source(
    name="keycrm",
    title="KeyCRM",
    dataset=DATASET,
    tables=(ORDERS, ORDER_ITEMS, ORDER_STATUSES, ORDER_SOURCES, USERS),
    resources=(
        Resource("statuses", _statuses, _NEEDS),
        Resource("sources", _sources, _NEEDS, is_optional=True),
        Resource("users", _users, _NEEDS, is_optional=True),
        Resource("orders", _orders, _NEEDS),
    ),
    sweeps=(
        Sweep(ORDER_STATUSES, _status_ids, _no_statuses),
        Sweep(ORDERS, _order_ids, _fetched_orders),
    ),
    open=_open,
    check=_check,
    paces={CALLS: PACE},
    api_path="/order",
)
