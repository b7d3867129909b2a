"""Random records of every entity for the KPI tables, the ugly ones in good measure.

Each seed is a small world with facilities of its own, so that many of them fit into one database
and what goes wrong can be traced to its seed. The projects are shared: their time zones put one
instant into different months.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from tests.kpi_oracle import Project

T = TypeVar("T")
Row = dict[str, Any]
Records = dict[str, list[Row]]

#: Already November in Kyiv and Kathmandu, still October in UTC and New York.
AS_OF = datetime(2024, 10, 31, 22, 30, tzinfo=UTC)

PROJECTS = (
    Project("file", "kyiv", "Europe/Kyiv", "UAH"),
    Project("file", "new-york", "America/New_York", "USD"),
    Project("file", "kathmandu", "Asia/Kathmandu"),
    Project("file", "closed-down", "Europe/Kyiv", "UAH", is_active=False),
    Project("file", "history-whole", "Europe/Kyiv", "EUR"),
    Project("file", "history-cut", "Europe/Kyiv", "EUR"),
    # Another system's project of the same name has nothing to do with it.
    Project("another-crm", "kyiv", "Asia/Tokyo", "JPY", is_active=False),
)

#: Where the records of a random world come from; ``unlisted`` has no row in the settings.
_RANDOM_PROJECTS = (*(["kyiv", "new-york", "kathmandu", "unlisted"] * 4), "closed-down")

#: Instants around which a local month begins, or a clock is put forward or back.
_EDGES = (
    datetime(2024, 2, 29, 18, 15, tzinfo=UTC),  # March begins in Kathmandu
    datetime(2024, 3, 10, 7, tzinfo=UTC),  # summer time begins in New York
    datetime(2024, 3, 31, 1, tzinfo=UTC),  # summer time begins in Kyiv
    datetime(2024, 3, 31, 21, tzinfo=UTC),  # April begins in Kyiv
    datetime(2024, 4, 1, 4, tzinfo=UTC),  # April begins in New York
    datetime(2024, 8, 31, 18, 15, tzinfo=UTC),  # September begins in Kathmandu
    datetime(2024, 9, 30, 21, tzinfo=UTC),  # October begins in Kyiv
    datetime(2024, 10, 1, 0, tzinfo=UTC),  # October begins in UTC
    datetime(2024, 10, 1, 4, tzinfo=UTC),  # October begins in New York
    datetime(2024, 10, 27, 1, tzinfo=UTC),  # summer time ends in Kyiv
    datetime(2024, 10, 31, 18, 15, tzinfo=UTC),  # November begins in Kathmandu
    AS_OF,
)

_HOUR = 3600
_DAY = 24 * _HOUR


class _Dice:
    """Random values of one world."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same worlds in every run

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def choice(self, *values: T) -> T:
        return self.random.choice(values)

    def maybe(self, share: float, value: T) -> T | None:
        """The value in that share of the cases, else nothing."""
        return value if self.chance(share) else None

    def seconds(self, most: int) -> timedelta:
        """Mostly whole seconds, sometimes with a fraction."""
        micros = self.choice(0, 0, 0, 400_000, 500_000, 999_999)
        return timedelta(seconds=self.random.randint(0, most), microseconds=micros)

    def start(self) -> datetime:
        """When a record begins: near a month's edge, in two busy months, or nowhere sensible."""
        kind = self.random.random()
        if kind < 0.3:
            edge: datetime = self.choice(*_EDGES)
            return edge + timedelta(seconds=self.choice(-_HOUR, -1, 0, 1, _HOUR))
        if kind < 0.9:
            return datetime(2024, 9, 1, tzinfo=UTC) + self.seconds(60 * _DAY)
        if kind < 0.94:
            return datetime(1948, 1, 15, 12, tzinfo=UTC) + self.seconds(40 * _DAY)
        if kind < 0.97:
            return AS_OF + self.seconds(40 * _DAY)
        return datetime(2100, 1, 1, tzinfo=UTC) + self.seconds(40 * _DAY)

    def after(self, start: datetime, most: int) -> datetime:
        """An instant that follows ``start``; at times it does not, or is long ago or far off."""
        kind = self.random.random()
        if kind < 0.8:
            return start + self.seconds(most)
        if kind < 0.86:
            return start
        if kind < 0.92:
            return start - self.seconds(most)
        if kind < 0.95:
            return datetime(1948, 5, 5, 5, 5, tzinfo=UTC)
        if kind < 0.98:
            return AS_OF + self.seconds(10 * _DAY)
        return datetime(2100, 1, 1, tzinfo=UTC)

    def amount(self) -> Decimal | None:
        return self.choice(
            None,
            Decimal(0),
            Decimal(self.random.randint(1, 50)) * 1000,
            Decimal(self.random.randint(1, 9_999_999)) / 100,
            Decimal(self.random.randint(1, 99_999_999)) / 10_000,
            Decimal(self.random.randint(-99_999, -1)) / 100,
        )

    def probability(self) -> Decimal | None:
        return self.choice(
            None,
            Decimal(0),
            Decimal(1),
            Decimal("0.5"),
            Decimal("0.9"),
            Decimal(self.random.randint(0, 1000)) / 1000,
        )

    def currency(self) -> str | None:
        return self.choice(None, None, "USD", "USD", "EUR")


def random_world(seed: int, size: int = 30) -> Records:
    """About ``size`` records of each entity in two facilities of this seed's own, or in none."""
    dice = _Dice(seed)
    records: Records = defaultdict(list)
    numbers: dict[tuple[str, str], int] = defaultdict(int)

    def add(entity: str, id_field: str, make: Callable[[], Row]) -> None:
        project = dice.choice(*_RANDOM_PROJECTS)
        # Ids repeat from project to project, as they do in real accounts.
        numbers[project, entity] += 1
        records[entity].append(
            {
                "source_system": "file",
                "project_id": project,
                id_field: f"{seed}-{numbers[project, entity]}",
                "facility_id": dice.choice(f"{seed}-north", f"{seed}-south", f"{seed}-south")
                if dice.chance(0.9)
                else None,
                "is_deleted": dice.choice(None, False, False, False, False, False, False, True),
                **make(),
            }
        )

    def lead_id() -> str | None:
        """Of a lead that there is, of one that there is not, or none."""
        return dice.maybe(0.7, f"{seed}-{dice.random.randint(1, size // 4)}")

    def lead() -> Row:
        created_at = dice.start()
        return {
            "rep_id": dice.choice(None, "ann", "bob"),
            "stage": dice.choice("lead", "sql", "opportunity", "won", "won", "lost", "lost"),
            "amount": dice.amount(),
            "currency": dice.currency(),
            "win_probability": dice.probability(),
            "created_at": created_at,
            "sql_at": dice.maybe(0.5, dice.after(created_at, 20 * _DAY)),
            "opportunity_at": dice.maybe(0.3, dice.after(created_at, 40 * _DAY)),
            "won_at": dice.maybe(0.2, dice.after(created_at, 60 * _DAY)),
            "lost_at": dice.maybe(0.3, dice.after(created_at, 60 * _DAY)),
            "updated_at": dice.maybe(0.6, dice.after(created_at, 60 * _DAY)),
        }

    def opportunity() -> Row:
        created_at = dice.start()
        return {
            "lead_id": lead_id(),
            "rep_id": dice.choice(None, "ann", "bob"),
            "name": None,
            "company": None,
            "stage": dice.choice(None, "Proposal"),
            "status": dice.choice("open", "won", "won", "lost"),
            "amount": dice.amount(),
            "currency": dice.currency(),
            "win_probability": dice.probability(),
            "created_at": created_at,
            "closed_at": dice.maybe(0.7, dice.after(created_at, 50 * _DAY)),
            "expected_close_date": dice.maybe(0.5, date(2024, 12, 24)),
            "updated_at": dice.maybe(0.6, dice.after(created_at, 60 * _DAY)),
        }

    def ticket() -> Row:
        created_at = dice.start()
        priority = dice.choice("critical", "high", "medium", "low")
        answer, end = {
            "critical": (_HOUR, 4 * _HOUR),
            "high": (2 * _HOUR, 24 * _HOUR),
            "medium": (4 * _HOUR, 72 * _HOUR),
            "low": (8 * _HOUR, 120 * _HOUR),
        }[priority]
        resolved_at = dice.choice(
            created_at + timedelta(seconds=end), dice.after(created_at, 2 * end)
        )
        return {
            "agent_id": None,
            "priority": priority,
            "status": dice.choice("open", "waiting", "resolved", "resolved", "closed"),
            "created_at": created_at,
            "first_response_at": dice.maybe(
                0.7,
                dice.choice(
                    created_at + timedelta(seconds=answer), dice.after(created_at, 2 * answer)
                ),
            ),
            "first_resolved_at": dice.maybe(0.6, resolved_at),
            "last_resolved_at": dice.maybe(0.5, dice.after(resolved_at, 5 * _DAY)),
            "waiting_since": dice.maybe(0.3, dice.after(created_at, 3 * _DAY)),
            "waiting_seconds": dice.choice(None, 0, 0, _HOUR, _DAY, 100 * _DAY),
            "updated_at": None,
        }

    def response() -> Row:
        kind = dice.choice("csat", "nps")
        return {
            "ticket_id": None,
            "survey_type": kind,
            "score": dice.random.randint(0, 6 if kind == "csat" else 10),
            "responded_at": dice.start(),
        }

    def outreach() -> Row:
        sent_at = dice.start()
        return {
            "rep_id": dice.choice(None, "ann", "bob"),
            "lead_id": lead_id(),
            "channel": dice.choice("email", "phone", "linkedin"),
            "sent_at": sent_at,
            "responded_at": dice.maybe(0.5, dice.after(sent_at, 5 * _DAY)),
            "converted_at": dice.maybe(0.3, dice.after(sent_at, 9 * _DAY)),
        }

    def invoice() -> Row:
        issued_at = dice.start()
        return {
            "opportunity_id": None,
            "status": dice.choice("draft", "issued", "issued", "paid", "paid", "paid", "void"),
            "amount": dice.amount() or Decimal(100),
            "currency": dice.currency(),
            "issued_at": issued_at,
            "due_at": dice.maybe(0.8, dice.after(issued_at, 30 * _DAY)),
            "paid_at": dice.maybe(0.6, dice.after(issued_at, 40 * _DAY)),
        }

    def application() -> Row:
        submitted_at = dice.start()
        return {
            "status": dice.choice(
                "submitted", "in_review", "approved", "approved", "rejected", "withdrawn"
            ),
            "submitted_at": submitted_at,
            "due_at": dice.maybe(0.7, dice.after(submitted_at, 20 * _DAY)),
            "decided_at": dice.maybe(0.7, dice.after(submitted_at, 30 * _DAY)),
            "is_compliant": dice.choice(None, False, True, True),
        }

    for entity, id_field, make in (
        ("leads", "lead_id", lead),
        ("opportunities", "opportunity_id", opportunity),
        ("tickets", "ticket_id", ticket),
        ("satisfaction", "response_id", response),
        ("outreach", "outreach_id", outreach),
        ("invoices", "invoice_id", invoice),
        ("applications", "application_id", application),
    ):
        for _ in range(size):
            add(entity, id_field, make)
    return records


def together(worlds: Sequence[Records]) -> Records:
    """All records of several worlds."""
    return {entity: [row for world in worlds for row in world[entity]] for entity in worlds[0]}


def history(seed: int, as_of: datetime, size: int = 120) -> tuple[Records, Records]:
    """One orderly world as it is known long after ``as_of``, and as it was known at that instant.

    Both hold the same records under the same ids; the facilities are called ``whole-...`` and
    ``cut-...``. What bears no instant (a deletion, a draft, a void, a withdrawal) is left out,
    because nobody can tell whether it had happened by then.
    """
    dice = _Dice(seed)
    whole: Records = defaultdict(list)

    def add(entity: str, id_field: str, number: int, row: Row) -> None:
        facility = f"whole-{dice.choice('north', 'south')}"
        whole[entity].append(
            {
                "source_system": "file",
                "project_id": "history-whole",
                id_field: str(number),
                "facility_id": facility,
                "is_deleted": False,
                **row,
            }
        )

    def steps(start: datetime, count: int, most: int) -> list[datetime | None]:
        """Instants one after the other, some left out, and none after the last of ``count``."""
        found: list[datetime | None] = []
        for _ in range(count):
            start += dice.seconds(most)
            found.append(dice.maybe(0.8, start))
        return found

    for number in range(size):
        start = as_of + timedelta(seconds=dice.random.randint(-70 * _DAY, 10 * _DAY))
        reps = {"rep_id": dice.choice("ann", "bob")}
        money = {
            "amount": dice.amount(),
            "currency": dice.choice(None, "USD"),
            "win_probability": dice.probability(),
        }

        reached = steps(start, dice.choice(0, 1, 2, 3), 20 * _DAY)
        entered = dict(zip(("sql_at", "opportunity_at", "won_at"), reached, strict=False))
        latest = max((i for i in entered.values() if i), default=start)
        if entered.get("won_at") is None and dice.chance(0.3):
            latest += dice.seconds(20 * _DAY)
            entered["lost_at"] = latest
        lead: Row = {"sql_at": None, "opportunity_at": None, "won_at": None, "lost_at": None}
        lead |= {**reps, **money, **entered, "created_at": start, "updated_at": latest}
        add("leads", "lead_id", number, lead | {"stage": _stage(lead)})

        closed_at = dice.maybe(0.7, start + dice.seconds(40 * _DAY))
        add(
            "opportunities",
            "opportunity_id",
            number,
            {
                **reps,
                **money,
                "lead_id": dice.maybe(0.5, str(dice.random.randint(0, size - 1))),
                "name": None,
                "company": None,
                "stage": None,
                "status": dice.choice("won", "lost") if closed_at else "open",
                "created_at": start,
                "closed_at": closed_at,
                "expected_close_date": None,
                "updated_at": closed_at or start,
            },
        )

        created_at = as_of + timedelta(seconds=dice.random.randint(-8 * _DAY, _DAY))
        resolved_at = dice.maybe(0.6, created_at + dice.seconds(6 * _DAY))
        waiting_since = dice.maybe(0.3, created_at + dice.seconds(3 * _DAY))
        add(
            "tickets",
            "ticket_id",
            number,
            {
                "agent_id": None,
                "priority": dice.choice("critical", "high", "medium", "low"),
                "status": "resolved" if resolved_at else "waiting" if waiting_since else "open",
                "created_at": created_at,
                "first_response_at": dice.maybe(0.7, created_at + dice.seconds(8 * _HOUR)),
                "first_resolved_at": resolved_at,
                "last_resolved_at": resolved_at and resolved_at + dice.seconds(2 * _DAY),
                "waiting_since": None if resolved_at else waiting_since,
                # Waits that were over within two days of the ticket.
                "waiting_seconds": dice.choice(0, _HOUR)
                if (resolved_at or as_of) - created_at > timedelta(days=2)
                and created_at < as_of - timedelta(days=2)
                else 0,
                "updated_at": None,
            },
        )

        kind = dice.choice("csat", "nps")
        add(
            "satisfaction",
            "response_id",
            number,
            {
                "ticket_id": None,
                "survey_type": kind,
                "score": dice.random.randint(1, 5 if kind == "csat" else 10),
                "responded_at": start,
            },
        )
        add(
            "outreach",
            "outreach_id",
            number,
            {
                **reps,
                "lead_id": None,
                "channel": dice.choice("email", "phone"),
                "sent_at": start,
                "responded_at": dice.maybe(0.6, start + dice.seconds(30 * _DAY)),
                "converted_at": dice.maybe(0.4, start + dice.seconds(50 * _DAY)),
            },
        )
        paid_at = dice.maybe(0.6, start + dice.seconds(40 * _DAY))
        add(
            "invoices",
            "invoice_id",
            number,
            {
                "opportunity_id": None,
                "status": "paid" if paid_at else "issued",
                "amount": money["amount"] or Decimal(100),
                "currency": money["currency"],
                "issued_at": start,
                "due_at": dice.maybe(0.8, start + dice.seconds(30 * _DAY)),
                "paid_at": paid_at,
            },
        )
        decided_at = dice.maybe(0.7, start + dice.seconds(30 * _DAY))
        is_compliant = dice.choice(True, True, False) if decided_at else None
        add(
            "applications",
            "application_id",
            number,
            {
                "status": "in_review"
                if is_compliant is None
                else "approved"
                if is_compliant
                else "rejected",
                "submitted_at": start,
                "due_at": dice.maybe(0.8, start + dice.seconds(30 * _DAY)),
                "decided_at": decided_at,
                "is_compliant": is_compliant,
            },
        )
    return whole, _known_at(whole, as_of)


#: The field that says when a record of each entity began.
_BEGAN = {
    "leads": "created_at",
    "opportunities": "created_at",
    "tickets": "created_at",
    "satisfaction": "responded_at",
    "outreach": "sent_at",
    "invoices": "issued_at",
    "applications": "submitted_at",
}


def _stage(lead: Row) -> str:
    """The stage that the instants of an orderly lead say it is in."""
    for stage in ("lost", "won", "opportunity", "sql"):
        if lead[f"{stage}_at"] is not None:
            return stage
    return "lead"


def _known_at(whole: Records, as_of: datetime) -> Records:
    """The records as they would have been loaded at ``as_of``."""
    known: Records = {}
    for entity, rows in whole.items():
        known[entity] = []
        for row in rows:
            if row[_BEGAN[entity]] > as_of:
                continue
            # A due date is a plan, and was known before it came.
            seen = {
                name: None
                if isinstance(value, datetime) and value > as_of and name != "due_at"
                else value
                for name, value in row.items()
            }
            if entity == "leads":
                instants = [seen[f"{s}_at"] for s in ("sql", "opportunity", "won", "lost")]
                seen["stage"] = _stage(seen)
                seen["updated_at"] = max(i for i in (*instants, seen["created_at"]) if i)
            elif entity == "opportunities" and seen["closed_at"] is None:
                seen |= {"status": "open", "updated_at": seen["created_at"]}
            elif entity == "tickets" and seen["first_resolved_at"] is None:
                seen["status"] = "waiting" if seen["waiting_since"] else "open"
            elif entity == "invoices" and seen["paid_at"] is None:
                seen["status"] = "issued"
            elif entity == "applications" and seen["decided_at"] is None:
                seen |= {"status": "in_review", "is_compliant": None}
            known[entity].append(
                {
                    **seen,
                    "project_id": "history-cut",
                    "facility_id": row["facility_id"].replace("whole", "cut"),
                }
            )
    return known
