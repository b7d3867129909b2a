"""The forecast of a month's rest computed a second time, item by item and sale by sale.

Fractions throughout, but for powers and roots, which have forty digits. Numbers of reps, and shares
of an age, have nine decimals: so many the tables promise whatever the order of a sum. Where the
definitions leave a choice, this is what is read here:

- Known on a day is what happened before it; learned from is what entered within the 180 days before
  it. What waits for a step enters with the step before; if the step itself was noted earlier, then.
- To each age has come one item, or list, more than there were: nothing is certain.
- An item that came to its step did so at the age of the step, whenever it was closed. One that was
  closed before it entered was closed as it entered.
- A sale is of a list that was sent by its day; any other stands alone. Sales and lists are each
  their own rep's, who may be two. Money given back lowers the revenue and is no sale.
- Sales of one list come together: squares of amounts are taken times the squared revenue of each
  list over its squared amounts, summed over the lists of a currency.
- Who is there, or sent a list, has a row in each currency that sales are known in, others in those
  of their sales of late. Steps are told of whoever has items to learn from.
"""

import decimal
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache, cached_property
from itertools import accumulate, product

from tests.kpi_oracle import rounded

#: What is counted, and not paid, has the code of ISO 4217 for no currency.
NO_CURRENCY = "XXX"

NOTHING = Fraction(0)

#: Earlier days say nothing.
_FIRST = date(2000, 1, 1)

_ONE_DAY = timedelta(days=1)
_LEARNED = 180 * _ONE_DAY
_RECENT = 60 * _ONE_DAY

#: The oldest that anything learned from is at the end of a month.
_OLDEST = 211

#: Steps, or sales, that a rep is taken to have come to as all do.
_OF_PROJECT = 5

#: What months differ by for all at once.
_SPREAD = Fraction(1, 10)

#: Of the standard normal distribution: so far from the middle lie 10 % and 90 %.
_DEVIATIONS = Fraction("1.2815515655")

_DIGITS = decimal.Context(prec=40)

#: A rep, what is forecast of them, and its currency.
Cell = tuple[str, str, str]


@dataclass(frozen=True)
class Waiting:
    """An item that waits, or waited, for a step."""

    rep: str
    kpi: str
    is_of_list: bool
    entered: date
    came: date | None
    closed: date | None


@dataclass(frozen=True)
class Sale:
    """A sale, or money given back; ``list_out`` is when its item's list was sent, if it was."""

    rep: str
    currency: str
    item: str | None
    sold: date
    list_out: date | None
    amount: Fraction

    @property
    def is_of_list(self) -> bool:
        """Whether its list had been sent by then."""
        return self.list_out is not None and self.list_out <= self.sold


@dataclass(frozen=True)
class Expected:
    """What the rest of a month is to bring."""

    of_in_flight: Fraction = NOTHING
    of_arrivals: Fraction = NOTHING
    variance: Fraction = NOTHING

    @property
    def total(self) -> Fraction:
        """All of it."""
        return self.of_in_flight + self.of_arrivals

    def __add__(self, other: "Expected") -> "Expected":
        return Expected(
            self.of_in_flight + other.of_in_flight,
            self.of_arrivals + other.of_arrivals,
            self.variance + other.variance,
        )

    def bound(self, side: int) -> Fraction:
        """The 10 % (-1) or 90 % (1) quantile of the gamma distribution, by Wilson and Hilferty."""
        mean = self.total
        variance = self.variance + (_SPREAD * mean) ** 2
        if not mean:
            return NOTHING
        root = (
            1
            - variance / (9 * mean**2)
            + side * _DEVIATIONS * Fraction(_DIGITS.sqrt(_decimal(variance))) / (3 * mean)
        )
        return mean * max(root, NOTHING) ** 3


@dataclass(frozen=True)
class History:
    """What a forecast may read of.

    Attributes:
        waiting: The items by what they wait for.
        sales: The sales.
        worked: Whether the project works on a day.
        is_there: Whether a rep is there on a day.
        reps: All who are there on any.
    """

    waiting: Sequence[Waiting]
    sales: Sequence[Sale]
    worked: Callable[[date], bool]
    is_there: Callable[[str, date], bool]
    reps: Collection[str]

    @property
    def lists(self) -> Iterator[tuple[str, date]]:
        """Reps and days of the lists sent."""
        return ((rep, day) for rep, kpi, _, day, _ in self.outcomes if kpi == "lists_out")

    @property
    def outcomes(self) -> Iterator[tuple[str, str, str, date, Fraction]]:
        """What came: rep, KPI, currency, day, and how much."""
        for item in self.waiting:
            if item.came is not None:
                yield item.rep, item.kpi, NO_CURRENCY, item.came, Fraction(1)
        for sale in self.sales:
            yield sale.rep, "revenue", sale.currency, sale.sold, sale.amount

    def is_full_by(self, day: date) -> bool:
        """Whether the time that arrivals are learned from lies within what is recorded."""
        first = min((item.entered for item in self.waiting if item.entered >= _FIRST), default=None)
        return first is not None and day - first >= _RECENT


def forecast(history: History, today: date, month_end: date) -> dict[Cell, Expected]:
    """What each rep is to bring from ``today`` to the end of the month."""
    days = _Days(history, today, month_end)
    cells: dict[Cell, Expected] = defaultdict(Expected)
    for kind in {(item.kpi, item.is_of_list) for item in history.waiting}:
        items = [item for item in history.waiting if (item.kpi, item.is_of_list) == kind]
        for rep, expected in _steps(items, days).items():
            cells[rep, kind[0], NO_CURRENCY] += expected
    revenue = _Revenue(history, days)
    for rep, currency in revenue.cells:
        cells[rep, "revenue", currency] = revenue.of(rep, currency)
    return cells


@dataclass(frozen=True)
class _Days:
    """The day of a forecast, and what lies around it."""

    history: History
    today: date
    month_end: date

    def is_learned_from(self, day: date) -> bool:
        """Whether what entered on a day is known and recent enough."""
        return self.today - _LEARNED <= day < self.today

    def is_recent(self, day: date) -> bool:
        """Whether a known day tells how much is coming in."""
        return self.today - _RECENT <= day

    def age(self, day: date) -> int:
        """How old is by now what was then new."""
        return (self.today - day).days - 1

    def age_at_end(self, day: date) -> int:
        """How old it is at the end of the month."""
        return (self.month_end - day).days

    @cached_property
    def _working(self) -> list[date]:
        days = (self.month_end - self.today + _RECENT).days + 1
        around = [self.today - _RECENT + number * _ONE_DAY for number in range(days)]
        return [day for day in around if self.history.worked(day)]

    def worked(self, rep: str) -> int:
        """On how many recent days the rep worked."""
        return sum(day < self.today and self.history.is_there(rep, day) for day in self._working)

    def ages_of_arrivals(self, rep: str) -> list[int]:
        """How old, at the end of the month, is what comes in on each working day left."""
        if not self.history.is_there(rep, self.today):
            return []
        return [self.age_at_end(day) for day in self._working if day >= self.today]


def _steps(items: Iterable[Waiting], days: _Days) -> dict[str, Expected]:
    """Steps that items of a kind are to come to, by rep."""
    known = [_Known(item, days) for item in items if days.is_learned_from(item.entered)]
    usual = _usual(known)
    of_reps: dict[str, list[_Known]] = defaultdict(list)
    for item in known:
        of_reps[item.rep].append(item)
    return {rep: _steps_of_rep(rep, own, usual, days) for rep, own in of_reps.items()}


class _Known:
    """What is known of an item on the day of a forecast."""

    def __init__(self, item: Waiting, days: _Days) -> None:
        came = item.came if item.came and item.came < days.today else None
        closed = item.closed if item.closed and item.closed < days.today else None
        self.rep = item.rep
        self.entered = item.entered
        self.has_come = came is not None
        self.has_ended = bool(came or closed)
        last = came or (closed and max(closed, item.entered)) or days.today - _ONE_DAY
        self.age = (last - item.entered).days


@dataclass(frozen=True)
class _Usual:
    """How items of a kind go on as they grow older, by age in days.

    Attributes:
        events: Steps that are to be expected of one up to the age.
        come: Share that has come to the step.
        left: Share that still waits.
    """

    events: list[Fraction]
    come: list[Fraction]
    left: list[Fraction]


def _usual(known: Sequence[_Known]) -> _Usual:
    of_ages: dict[int, list[_Known]] = defaultdict(list)
    for item in known:
        of_ages[item.age].append(item)
    usual = _Usual([], [], [])
    had_come_to = len(known) + 1
    events, come, left = NOTHING, NOTHING, Fraction(1)
    for age in range(_OLDEST + 1):
        hazard = Fraction(sum(item.has_come for item in of_ages[age]), had_come_to)
        ending = Fraction(sum(item.has_ended for item in of_ages[age]), had_come_to)
        events, come, left = events + hazard, come + left * hazard, left * (1 - ending)
        usual.events.append(_nine(events))
        usual.come.append(_nine(come))
        usual.left.append(_nine(left))
        had_come_to -= len(of_ages[age])
    return usual


def _steps_of_rep(rep: str, items: Sequence[_Known], usual: _Usual, days: _Days) -> Expected:
    events = sum(item.has_come for item in items)
    pace = (_OF_PROJECT + events) / (_OF_PROJECT + sum(usual.events[item.age] for item in items))

    def chance(share: Fraction) -> Fraction:
        return 1 - _power(1 - share, pace)

    chances = []
    for item in items:
        if not item.has_ended:
            more = usual.come[days.age_at_end(item.entered)] - usual.come[item.age]
            chances.append(chance(min(more / usual.left[item.age], Fraction(1))))
    of_in_flight = sum(chances, NOTHING)

    worked = days.worked(rep)
    per_day = Fraction(1, worked) if worked else NOTHING
    recent = sum(days.is_recent(item.entered) for item in items)
    one_a_day = sum((chance(usual.come[age]) for age in days.ages_of_arrivals(rep)), NOTHING)
    of_arrivals = recent * per_day * one_a_day
    variance = (
        sum((one * (1 - one) for one in chances), NOTHING)
        + of_arrivals
        + of_arrivals * per_day * one_a_day
        + (of_in_flight + of_arrivals) ** 2 / (_OF_PROJECT + events)
    )
    return Expected(_nine(of_in_flight), _nine(of_arrivals), _nine(variance))


class _Revenue:
    """What lists and sales tell of the revenue to come."""

    def __init__(self, history: History, days: _Days) -> None:
        self._days = days
        known = [sale for sale in history.sales if sale.sold < days.today]
        of_lists = [
            (sale, sale.list_out)
            for sale in known
            if sale.is_of_list and sale.list_out and days.is_learned_from(sale.list_out)
        ]
        alone = [sale for sale in known if not sale.is_of_list and days.is_learned_from(sale.sold)]
        self._of_late = [sale for sale in alone if days.is_recent(sale.sold)]
        self._sent: dict[str, list[date]] = defaultdict(list)
        for rep, day in history.lists:
            if days.is_learned_from(day):
                self._sent[rep].append(day)
        ages = [days.age(day) for sent in self._sent.values() for day in sent]
        had_come_to = [1 + sum(age >= least for age in ages) for least in range(_OLDEST + 1)]
        self._usual = {
            currency: _Brought(
                [(sale, sent) for sale, sent in of_lists if sale.currency == currency], had_come_to
            )
            for currency in {sale.currency for sale in alone + [sale for sale, _ in of_lists]}
        }
        self._sold = Counter(sale.rep for sale, _ in of_lists if sale.amount >= 0)
        selling = {*self._sent, *(rep for rep in history.reps if days.ages_of_arrivals(rep))}
        self.cells = {
            *product(selling, self._usual),
            *((sale.rep, sale.currency) for sale in self._of_late),
        }

    def of(self, rep: str, currency: str) -> Expected:
        """What is to come of a rep in a currency."""
        days, usual, sent = self._days, self._usual[currency], self._sent[rep]
        # Who sent no list has none that their sales of lists could tell of.
        sold = self._sold[rep] if sent else 0
        to_be_sold = sum(
            brought.sales[days.age(day)] for brought in self._usual.values() for day in sent
        )
        pace = (_OF_PROJECT + sold) / (_OF_PROJECT + to_be_sold)

        def more(curve: Sequence[Fraction]) -> Fraction:
            """Of the lists that were sent."""
            return pace * sum(
                (curve[days.age_at_end(day)] - curve[days.age(day)] for day in sent), NOTHING
            )

        def one_a_day(curve: Sequence[Fraction]) -> Fraction:
            """Of one list more on each working day left."""
            return pace * sum((curve[age] for age in days.ages_of_arrivals(rep)), NOTHING)

        worked, left = days.worked(rep), len(days.ages_of_arrivals(rep))
        per_day = Fraction(1, worked) if worked else NOTHING
        lists_a_day = per_day * sum(map(days.is_recent, sent))
        alone = [
            sale.amount for sale in self._of_late if (sale.rep, sale.currency) == (rep, currency)
        ]
        of_lists = more(usual.revenue)
        of_arrivals = lists_a_day * one_a_day(usual.revenue) + left * per_day * sum(alone)
        variance = (
            more(usual.squares)
            + lists_a_day * one_a_day(usual.squares)
            + lists_a_day * per_day * one_a_day(usual.revenue) ** 2
            + left * per_day * sum(amount**2 for amount in alone)
            + (of_lists + of_arrivals) ** 2
            / (_OF_PROJECT + sold + sum(amount >= 0 for amount in alone))
        )
        return Expected(_nine(of_lists), _nine(of_arrivals), _nine(variance))


class _Brought:
    """What one list brings up to an age in days: sales, revenue, and squares of amounts."""

    def __init__(self, of_lists: Iterable[tuple[Sale, date]], had_come_to: Sequence[int]) -> None:
        sales, revenue, squares = ([NOTHING] * len(had_come_to) for _ in range(3))
        amounts: dict[str | None, list[Fraction]] = defaultdict(list)
        for sale, sent in of_lists:
            age = (sale.sold - sent).days
            sales[age] += Fraction(sale.amount >= 0, had_come_to[age])
            revenue[age] += sale.amount / had_come_to[age]
            squares[age] += sale.amount**2 / had_come_to[age]
            amounts[sale.item].append(sale.amount)
        apart = sum((amount**2 for of_one in amounts.values() for amount in of_one), NOTHING)
        together = sum((sum(of_one) ** 2 for of_one in amounts.values()), NOTHING)
        clustering = together / apart if apart else NOTHING
        self.sales = list(accumulate(sales))
        self.revenue = list(accumulate(revenue))
        self.squares = [clustering * value for value in accumulate(squares)]


@cache
def _nine(value: Fraction) -> Fraction:
    result = rounded(value, 9)
    assert result is not None
    return Fraction(result)


def _decimal(value: Fraction) -> Decimal:
    return _DIGITS.divide(Decimal(value.numerator), Decimal(value.denominator))


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    return Fraction(_DIGITS.power(_decimal(base), _decimal(exponent))) if base else NOTHING
