"""Made-up sales departments: eight reps in three teams each, and who of them does what. Pure."""

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from loaders.sales_calendar import DAY, Window, WorkingDays, drawn_from

_TEAMS = ("north", "south", "east")
_FIRST_NAMES = (
    "Alma",
    "Bruno",
    "Daniel",
    "Elena",
    "Felix",
    "Greta",
    "Ines",
    "Jonas",
    "Katya",
    "Mira",
    "Olena",
    "Stefan",
)
_LAST_NAMES = (
    "Adler",
    "Berg",
    "Costa",
    "Dovzhenko",
    "Fischer",
    "Horvat",
    "Koval",
    "Lindgren",
    "Moreno",
    "Novak",
    "Petrenko",
    "Rossi",
)

#: Team, share of what comes in, and factor on all chances, of each rep; 1 = as usual.
_STAFF = (
    (0, 1.2, 1.1),
    (0, 1.0, 1.0),
    (0, 1.0, 1.0),
    (1, 1.1, 1.04),
    (1, 1.0, 0.97),
    (2, 1.0, 0.98),
    (2, 1.1, 1.05),
    (2, 1.0, 0.95),
)
#: Who of them changes teams (to the second), is in trouble, leaves, takes over from the one who
#: left, and is new.
_MOVES, _IN_TROUBLE, _LEAVES, _TAKES_OVER, _IS_NEW = 2, 4, 5, 6, 7

#: Working days until a new rep is as good as the others, and those that the trouble lasts by now.
_RAMP, _TROUBLE = 40, 25


def newcomer(department: int) -> str:
    """The id of a department's new rep."""
    return _rep_id(department, _IS_NEW)


def teams(department: int) -> list[str]:
    """The ids of a department's teams."""
    return [f"team-{department}-{team}" for team in _TEAMS]


def _rep_id(department: int, number: int) -> str:
    return f"rep-{department}-{number + 1}"


@dataclass
class Rep:
    """A rep of a department.

    Attributes:
        periods: Number of the team, first and last day in it (None = still), in order.
        joined, left: First working day in the window, and the first one without the rep.
        pull: Share of what comes in, 1 = as usual.
        skill: Factor on all chances.
        ramp: Working days that it takes to be as good as the others.
        trouble: Working day from which everything goes down; None = never.
    """

    rep_id: str
    name: str
    periods: list[tuple[int, date, date | None]]
    joined: int
    left: int
    pull: float
    skill: float
    ramp: int = 0
    trouble: int | None = None

    def form(self, number: int) -> float:
        """Factor on what the rep gets done on a working day, 1 = as usual."""
        if self.ramp and number < self.joined + self.ramp:
            return 0.45 + 0.55 * (number - self.joined) / self.ramp
        if self.trouble is not None and number >= self.trouble:
            return max(0.3, 1 - 0.05 * (number - self.trouble))
        return 1.0

    def is_there(self, number: int) -> bool:
        """Whether the rep works here on a working day."""
        return self.joined <= number < self.left

    def team(self, day: date) -> int:
        """The number of the team on a day; where there is none, the one of the nearest day."""
        here = [team for team, _, to in self.periods if to is None or day <= to]
        return here[0] if here else self.periods[-1][0]


class Department:
    """Eight reps: one is new, one in trouble, one left in mid-week, one changed teams.

    Attributes:
        number: Its number, from 1, as it stands in all ids.
        seed: What its chances are drawn from, with what stands behind it.
        days: The working days, from the first of the window to long after it.
        today: Number of the first working day on or after that of ``as_of``.
        end: Number of the first working day after the window.
        until: ``as_of``, in seconds since 1970.
        reps: The reps.
    """

    def __init__(self, window: Window, days: WorkingDays, number: int, seed: int) -> None:
        """Department ``number`` of those that a seed gives; ``days`` are those of the window."""
        self.number = number
        self.seed = f"{seed}/{number}"
        self.days = days
        self.today = self.days.index(window.today)
        self.end = self.days.index(window.last + timedelta(days=1))
        self.until = int(window.as_of.timestamp())
        self._facilities = [f"generated-{number}-{team}" for team in _TEAMS]
        self.reps = self._hired(window, drawn_from(self.seed))

    def roster(self) -> list[tuple[str, str, str, date, date | None]]:
        """Id, name, team, first and last day of each rep in each team."""
        team_ids = teams(self.number)
        return [
            (rep.rep_id, rep.name, team_ids[team], since, to)
            for rep in self.reps
            for team, since, to in rep.periods
        ]

    def known(self, moment: int | None) -> int | None:
        """The instant of a moment, if it has come by ``as_of``."""
        if moment is None:
            return None
        instant = self.days.instant(moment)
        return instant if instant <= self.until else None

    def chosen(self, random: Random, number: int) -> Rep:
        """Who gets what comes in on a working day."""
        there = [(rep, rep.pull * rep.form(number)) for rep in self.reps if rep.is_there(number)]
        mark = random.random() * sum(pull for _, pull in there)
        for rep, pull in there:
            mark -= pull
            if mark < 0:
                return rep
        return there[-1][0]

    def acting(self, rep: Rep, moment: int) -> Rep:
        """The rep, or at a moment when that one has left, who took over."""
        return self.reps[_TAKES_OVER] if moment // DAY >= rep.left else rep

    def facility(self, rep: Rep, moment: int) -> str:
        """Where the rep works at a moment."""
        return self._facilities[rep.team(self.days.days[moment // DAY])]

    def _hired(self, window: Window, random: Random) -> list[Rep]:
        past = self.today
        moves, leaves, joins = (self._week_of(int(share * past)) for share in (0.45, 0.62, 0.5))
        reps = []
        # who was here before is listed from a month that the window cuts, not from years ago
        since = (window.first - timedelta(days=1)).replace(day=1)
        first_names, last_names = list(_FIRST_NAMES), list(_LAST_NAMES)
        for number, (team, pull, skill) in enumerate(_STAFF):
            name = f"{_taken(random, first_names)} {_taken(random, last_names)}"
            rep = Rep(
                _rep_id(self.number, number),
                name,
                [(team, since, None)],
                joined=0,
                left=len(self.days.days),
                pull=pull,
                skill=skill * (0.94 + 0.12 * random.random()),
            )
            if number == _MOVES and moves > window.first:
                rep.periods = [(team, since, moves - timedelta(days=1)), (1, moves, None)]
            elif number == _LEAVES and window.first < leaves + timedelta(days=2) < window.today:
                last_day = leaves + timedelta(days=2)
                rep.periods = [(team, since, last_day)]
                rep.left = self.days.index(last_day + timedelta(days=1))
            elif number == _IN_TROUBLE:
                rep.trouble = max(0, past - _TROUBLE)
            elif number == _IS_NEW:
                starts = max(joins, window.first)
                rep.periods = [(team, starts, None)]
                rep.joined, rep.ramp = self.days.index(starts), _RAMP
            reps.append(rep)
        return reps

    def _week_of(self, number: int) -> date:
        """The Monday of a working day's week."""
        day = self.days.days[number]
        return day - timedelta(days=day.weekday())


def _taken(random: Random, names: list[str]) -> str:
    """One of the names, which is then no longer among them."""
    return names.pop(int(random.random() * len(names)))
