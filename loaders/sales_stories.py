"""What becomes of made-up leads, as rows of our entities. Pure.

A lead is called; if it agrees, an e-mail goes to a list of its partners, some of whom buy; each
partner on the list becomes an item of its own, which is called in turn. All of it is drawn for each
lead alone, from the seed and the lead's number: leads can be made one by one, in any number, and a
lead stays what it is when more of them are asked for. Only `Random.random` is drawn from, of which
Python promises that it gives the same for the same seed in every version.

A story is told to its end; the rows say what of it is known at one instant. Told at a later one of
the same day, rows are added and filled in, as in a CRM.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from loaders.sales_calendar import DAY, HOUR, MINUTE, QUARTER, drawn_from
from loaders.sales_reps import Department, Rep

#: Fields that are filled, by entity. Instants are seconds since 1970.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "reps": ("rep_id", "name", "team_id", "active_from", "active_to"),
    "leads": (
        "lead_id",
        "facility_id",
        "rep_id",
        "stage",
        "amount",
        "currency",
        "win_probability",
        "created_at",
        "sql_at",
        "opportunity_at",
        "won_at",
        "lost_at",
        "updated_at",
    ),
    "pipeline_items": (
        "item_id",
        "lead_id",
        "rep_id",
        "facility_id",
        "sublist_id",
        "stage",
        "created_at",
        "call_booked_at",
        "call_conducted_at",
        "proposal_at",
        "agreement_at",
        "partner_list_due_at",
        "partner_list_sent_at",
        "first_sale_at",
        "partner_list_size",
        "total_sales_from_list",
        "closed_at",
        "updated_at",
    ),
    "sublists": ("sublist_id", "item_id", "name", "created_at"),
    "activities": (
        "activity_id",
        "activity_type",
        "rep_id",
        "lead_id",
        "facility_id",
        "channel",
        "scheduled_at",
        "completed_at",
        "outcome",
        "item_id",
        "created_at",
        "updated_at",
    ),
    "sales": (
        "sale_id",
        "item_id",
        "lead_id",
        "rep_id",
        "facility_id",
        "sold_at",
        "amount",
        "currency",
    ),
}

Row = tuple[str, tuple[Any, ...]]


class _Chances(NamedTuple):
    """How likely a step is once the one before it is reached."""

    booked: float
    held: float
    proposal: float
    agreement: float
    sent: float


class _Pace(NamedTuple):
    """Working days, at most: until a call is booked and takes place, for a decision and a list."""

    booking: int
    call: int
    decision: int
    list_out: int


#: Of leads, who were chosen for being promising, and of partners on a list, who were not.
_OF_LEADS = _Chances(booked=0.97, held=0.82, proposal=0.78, agreement=0.72, sent=0.92)
_OF_PARTNERS = _Chances(booked=0.73, held=0.74, proposal=0.34, agreement=0.22, sent=0.85)
_PACE_OF_LEADS = _Pace(booking=1, call=4, decision=5, list_out=5)
_PACE_OF_PARTNERS = _Pace(booking=3, call=8, decision=8, list_out=9)

#: Size of a list below which -> how likely it sells at all.
_SALE_BY_SIZE = ((9, 0.28), (16, 0.42), (21, 0.58))

#: Shares of activities that name no rep, of lists that went out before their agreement was written
#: down, and of sales in another currency.
_WITHOUT_REP, _SENT_EARLY, _FOREIGN = 0.004, 0.015, 0.1

_COMPANY_NAMES = (
    "Amber",
    "Birch",
    "Cedar",
    "Falcon",
    "Granite",
    "Harbour",
    "Juniper",
    "Lantern",
    "Maple",
    "River",
    "Summit",
    "Willow",
)
_COMPANY_KINDS = (
    "Dental",
    "Fitness",
    "Foods",
    "Homes",
    "Logistics",
    "Media",
    "Optics",
    "Travel",
)


def rows(department: Department, leads: int, currency: str) -> Iterator[Row]:
    """The rows of a department: entity, and values in the order of `COLUMNS`.

    Args:
        department: Whose.
        leads: How many leads it has.
        currency: ISO 4217 code of amounts; a few sales have another one.
    """
    for period in department.roster():
        yield "reps", period
    for number in range(1, leads + 1):
        story = _of_lead(department, f"{department.number}-{number:04}", currency)
        waiting = [story]
        while waiting:
            story = waiting.pop()
            if department.known(story.created) is not None:
                story.live()
                yield from story.rows()
                waiting += story.partners()


def _of_lead(department: Department, path: str, currency: str) -> "_Story":
    random = drawn_from(f"{department.seed}/{path} arrives")
    created = department.days.arrival(random, range(department.today))
    return _Story(department, path, created, department.chosen(random, created // DAY), currency)


@dataclass(slots=True)
class _Note:
    """An activity: what it is, when it was booked, planned and done, and what came of it when.

    An e-mail has an outcome from the beginning, and perhaps another once it is answered.
    """

    kind: str
    channel: str
    noted: int
    planned: int | None
    done: int | None
    outcome: str
    ended: int | None
    has_rep: bool
    outcome_before: str | None


class _Sale(NamedTuple):
    """A sale: when, and how much."""

    moment: int
    amount: int
    currency: str


class _Story:
    """What becomes of one item; each moment is one of `loaders.sales_calendar`, or None = never."""

    def __init__(
        self,
        department: Department,
        path: str,
        created: int,
        rep: Rep,
        currency: str,
        sublist_id: str | None = None,
    ) -> None:
        """The item ``path``, a partner on a list; that of a lead where there is none."""
        self.created = created
        self._department = department
        self._days = department.days
        self._path = path
        self._rep = rep
        self._currency = currency
        self._sublist_id = sublist_id
        self._lead_id = None if sublist_id else f"lead-{path}"
        self._chances = _OF_PARTNERS if sublist_id else _OF_LEADS
        self._pace = _PACE_OF_PARTNERS if sublist_id else _PACE_OF_LEADS
        self._activities: list[_Note] = []
        self._booked: int | None = None
        self._conducted: int | None = None
        self._proposal: int | None = None
        self._agreement: int | None = None
        self._due: int | None = None
        self._sent: int | None = None
        self._size = 0
        self._sales: list[_Sale] = []
        self._closed: int | None = None
        self._name = ""
        #: What the lead is worth.
        self._value = 0
        #: What its stage is called once it is a proposal, an agreement, and closed after its list.
        self._words = ("", "", "")

    # What happens

    def live(self) -> None:
        """Tells the story to its end."""
        random, days = drawn_from(f"{self._department.seed}/{self._path}"), self._days
        self._random = random
        self._words = (
            "PROPOSAL_CALLBACK" if random.random() < 0.3 else "PROPOSAL_SOFT_YES",
            "AGREEMENT_VERBAL" if random.random() < 0.2 else "AGREEMENT_HARD_YES",
            "FREE_QA_OFFERED" if random.random() < 0.2 else "LIST_OUT_NOT_SOLD",
        )
        company = _COMPANY_NAMES[int(random.random() * len(_COMPANY_NAMES))]
        kind = _COMPANY_KINDS[int(random.random() * len(_COMPANY_KINDS))]
        self._name = f"Partners of {company} {kind}"
        self._value = 2_500 + 50 * int(random.random() * 151)
        if random.random() < (0.5 if self._lead_id else 0.2):
            self._mail(days.later(random, self.created, 0, 1), replies=0.35)
        if not self._happens(self._chances.booked, self.created):
            if random.random() < 0.6:
                self._closed = days.later(random, self.created, 5, 20)
            return
        self._call_until_held()
        if self._conducted is None:
            return
        if not self._happens(self._chances.proposal, self._conducted):
            if random.random() < 0.75:
                self._closed = days.later(random, self._conducted, 0, 5)
            return
        self._proposal = days.later(random, self._conducted, 0, 1)
        agreed = self._happens(self._chances.agreement, self._proposal)
        decided = days.later(random, self._proposal, 1, self._pace.decision)
        self._follow_up(self._proposal, decided)
        if not agreed:
            if random.random() < 0.7:
                self._closed = days.later(random, decided, 0, 10)
            return
        self._agreement = decided
        self._send_list()

    def partners(self) -> list["_Story"]:
        """The stories of those on the list."""
        if self._sent is None:
            return []
        random, department = self._random, self._department
        sublist_id = f"list-{self._path}"
        found = []
        for number in range(1, self._size + 1):
            created = self._sent + (5 + int(random.random() * 40)) * MINUTE
            rep = department.acting(self._rep, created)
            if random.random() < 0.45:
                rep = department.chosen(random, created // DAY)
            path = f"{self._path}-{number:02}"
            found.append(_Story(department, path, created, rep, self._currency, sublist_id))
        return found

    def _happens(self, chance: float, moment: int) -> bool:
        """Whether a step is made; the better the rep at that time, the likelier."""
        rep = self._department.acting(self._rep, moment)
        form = rep.form(moment // DAY)
        return self._random.random() < min(0.98, chance * rep.skill * (0.4 + 0.6 * form))

    def _call_until_held(self) -> None:
        """The discovery call: booked, put off, missed, booked again, or given up."""
        random, days = self._random, self._days
        noted = days.later(random, self.created, 0, self._pace.booking)
        for _ in range(4):
            least, most = (8, 21) if random.random() < 0.1 else (1, self._pace.call)
            planned = days.slot(random, noted, least, most)
            if planned // DAY >= self._department.end:
                return
            self._booked = self._booked or noted
            held = self._happens(self._chances.held, planned)
            mark = random.random()
            if held:
                self._conducted = planned + (12 + int(random.random() * 45)) * MINUTE
                self._note("call", "phone", noted, planned, self._conducted, "held")
                return
            if mark < 0.35:
                moved = days.soon(random, noted)
                if moved < planned:
                    self._note("call", "phone", noted, planned, None, "rescheduled", moved)
                    noted = moved
                    continue
            if mark > 0.92:
                ended = min(days.soon(random, noted), planned - MINUTE)
                self._note("call", "phone", noted, planned, None, "cancelled", ended)
                self._closed = days.later(random, ended, 0, 3)
                return
            missed = planned + QUARTER
            self._note("call", "phone", noted, planned, None, "no_show", missed)
            noted = days.later(random, missed, 0, 2)
            if random.random() < 0.2:
                break
        if random.random() < 0.8:
            self._closed = days.later(random, noted, 0, 10)

    def _follow_up(self, since: int, until: int) -> None:
        """Calls, e-mails and perhaps a meeting between a proposal and the decision."""
        random, days = self._random, self._days
        self._mail(days.soon(random, since), replies=0.5)
        for _ in range(1 + int(random.random() * 2.4)):
            self._call_again(since, 1, max(1, until // DAY - since // DAY))
        if random.random() < 0.55:
            planned = days.slot(random, since, 1, max(1, until // DAY - since // DAY))
            noted = self._booking(since, planned)
            if self._happens(0.88, planned):
                done = planned + (35 + int(random.random() * 50)) * MINUTE
                self._note("meeting", "video", noted, planned, done, "held")
            else:
                missed = planned + QUARTER
                self._note("meeting", "video", noted, planned, None, "no_show", missed)

    def _call_again(self, since: int, least: int, most: int) -> None:
        """Another call, booked at once or made without having been."""
        random, days = self._random, self._days
        planned = days.slot(random, since, least, most)
        done = planned + (5 + int(random.random() * 25)) * MINUTE
        if random.random() < 0.2:
            self._note("call", "phone", done, None, done, "held")
            return
        noted = self._booking(since, planned)
        if self._happens(0.86, planned):
            self._note("call", "phone", noted, planned, done, "held")
        else:
            self._note("call", "phone", noted, planned, None, "no_show", planned + QUARTER)

    def _booking(self, since: int, planned: int) -> int:
        """When something planned was booked: soon after what led to it, or with it."""
        noted = self._days.soon(self._random, since)
        return noted if noted < planned else since + MINUTE

    def _send_list(self) -> None:
        """From the agreement on: when the list is due and when it goes out, and what it sells."""
        random, days = self._random, self._days
        assert self._agreement is not None  # noqa: S101 - called once it is there
        wait = 2 + int(random.random() * (self._pace.list_out - 1))
        due = (self._agreement // DAY + wait) * DAY + 18 * HOUR
        self._due = None if random.random() < 0.04 else due
        sent = self._happens(self._chances.sent, due)
        if self._happens(0.8, due):
            moment = due - int(random.random() * 3) * DAY
            moment = moment // DAY * DAY + days.time_of_day(random)
            moment = moment if moment > self._agreement else days.soon(random, self._agreement)
        else:
            moment = days.later(random, due, 1, 6)
        if not sent:
            if random.random() < 0.5:
                self._closed = days.later(random, due, 5, 25)
            return
        self._sent = moment
        if random.random() < _SENT_EARLY:
            self._agreement = days.soon(random, self._sent)
        self._size = 3 + int((random.random() + random.random()) * 9)
        self._note("email", "email", self._sent, None, self._sent, "list_sent")
        if random.random() < 0.6:
            self._call_again(self._sent, 2, 7)
        sells = next(chance for below, chance in _SALE_BY_SIZE if self._size < below)
        if not self._happens(sells, self._sent):
            self._closed = days.later(random, self._sent, 15, 25)
            return
        moment = days.later(random, self._sent, 2, 16)
        while True:
            self._sales.append(self._sale(moment))
            if len(self._sales) == self._size or random.random() < 0.5:
                return
            moment = days.later(random, moment, 0, 5)

    def _sale(self, moment: int) -> _Sale:
        """A sale: many small ones, few large ones."""
        random = self._random
        tens = 25 + int(random.random() * random.random() * 375)
        other = "EUR" if self._currency == "USD" else "USD"
        currency = other if random.random() < _FOREIGN else self._currency
        return _Sale(moment, tens * 10, currency)

    def _mail(self, sent: int, replies: float) -> None:
        """An e-mail, which is answered with a chance."""
        outcome, answered = "sent", sent
        if self._random.random() < replies:
            outcome, answered = "replied", self._days.later(self._random, sent, 0, 2)
        self._note("email", "email", sent, None, sent, outcome, answered)

    def _note(
        self,
        kind: str,
        channel: str,
        noted: int,
        planned: int | None,
        done: int | None,
        outcome: str,
        ended: int | None = None,
    ) -> None:
        """Writes an activity down; ``ended``: when its outcome shows, if not when it is done."""
        if planned is not None and planned // DAY >= self._department.end:
            return
        self._activities.append(
            _Note(
                kind,
                channel,
                noted,
                planned,
                done,
                outcome,
                done if ended is None else ended,
                self._random.random() >= _WITHOUT_REP,
                "sent" if kind == "email" and outcome == "replied" else None,
            )
        )

    # What is known of it

    def rows(self) -> Iterator[Row]:
        """The rows of what is known."""
        department, known = self._department, self._department.known
        sales = [sale for sale in self._sales if known(sale.moment) is not None]
        created, booked, conducted, proposal, agreement, sent, closed, *sold = (
            known(moment)
            for moment in (
                self.created,
                self._booked,
                self._conducted,
                self._proposal,
                self._agreement,
                self._sent,
                self._closed,
                *(sale.moment for sale in sales),
            )
        )
        first_sale = sold[0] if sold else None
        steps = (created, booked, conducted, proposal, agreement, sent, closed, *sold)
        updated = max(step for step in steps if step is not None)
        # who has it: for good where it is closed
        has_it = self._closed if closed is not None and self._closed else department.today * DAY
        rep_id = department.acting(self._rep, has_it).rep_id
        facility = department.facility(self._rep, self.created)
        item_id = f"item-{self._path}"
        yield (
            "pipeline_items",
            (
                item_id,
                self._lead_id,
                rep_id,
                facility,
                self._sublist_id,
                self._stage((booked, conducted, proposal, agreement, sent, first_sale), closed),
                created,
                booked,
                conducted,
                proposal,
                agreement,
                None if agreement is None or self._due is None else self._days.instant(self._due),
                sent,
                first_sale,
                None if sent is None else self._size,
                None if sent is None else len(sales),
                closed,
                updated,
            ),
        )
        if self._lead_id:
            stage, chance = _lead_stage(conducted, proposal, first_sale, closed)
            lost = closed if stage == "lost" else None
            yield (
                "leads",
                (
                    self._lead_id,
                    facility,
                    rep_id,
                    stage,
                    self._value,
                    self._currency,
                    chance,
                    created,
                    conducted,
                    proposal,
                    first_sale,
                    lost,
                    updated,
                ),
            )
        yield from self._activity_rows(item_id, facility)
        if sent is not None:
            yield "sublists", (f"list-{self._path}", item_id, self._name, sent)
        for number, (sale, instant) in enumerate(zip(sales, sold, strict=True), start=1):
            sale_id = f"sale-{self._path}.{number}"
            money = (sale.amount, sale.currency)
            yield "sales", (sale_id, item_id, self._lead_id, rep_id, facility, instant, *money)

    def _stage(self, steps: tuple[int | None, ...], closed: int | None) -> str:
        *_, sent, first_sale = steps
        if sent is not None and first_sale is None and closed is not None:
            return self._words[2]
        names = ("CALL_BOOKED", "CALL_CONDUCTED", *self._words[:2], "PARTNER_LIST_SENT", "SOLD")
        reached = [name for name, step in zip(names, steps, strict=True) if step is not None]
        return reached[-1] if reached else "LEAD"

    def _activity_rows(self, item_id: str, facility: str) -> Iterator[Row]:
        department, known = self._department, self._department.known
        for number, note in enumerate(self._activities, start=1):
            noted = known(note.noted)
            if noted is None:
                continue
            ended = known(note.ended)
            when = note.noted if note.planned is None else note.planned
            rep_id = department.acting(self._rep, when).rep_id if note.has_rep else None
            yield (
                "activities",
                (
                    f"act-{self._path}.{number}",
                    note.kind,
                    rep_id,
                    self._lead_id,
                    facility,
                    note.channel,
                    None if note.planned is None else self._days.instant(note.planned),
                    known(note.done),
                    note.outcome if ended is not None else note.outcome_before,
                    item_id,
                    noted,
                    noted if ended is None else ended,
                ),
            )


def _lead_stage(
    conducted: int | None, proposal: int | None, first_sale: int | None, closed: int | None
) -> tuple[str, Decimal]:
    """What a lead is, and its chance of being won."""
    if first_sale is not None:
        return "won", Decimal(1)
    if closed is not None:
        return "lost", Decimal(0)
    if proposal is not None:
        return "opportunity", Decimal("0.5")
    return ("lead", Decimal("0.1")) if conducted is None else ("sql", Decimal("0.25"))
