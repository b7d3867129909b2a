"""What a CRM is to the loader: tables, resources that fill them, and how its API is called.

A CRM is one module of ``loaders`` with a `SOURCE`, which ``loaders.registry`` names.
docs/add-a-crm.md is the recipe.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from loaders.calls import Calls, Turns
from loaders.pace import Pace
from loaders.records import Record, Table
from stageline.settings.api_accounts import ApiAccount

#: From where on a resource goes on; plain values of JSON, known to the resource alone.
Position = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """Records that were fetched together.

    Attributes:
        records: For each table, the records as they came.
        position: Where to go on once these, and all before them, are on the disk; None = where the
            last position was. Never one after records that are yet to come.
        stages: The stages of the account, all of them, as fields of
            `stageline.settings.dictionaries.Stage`.
        expected: How many records the resource will give in all, as far as it can be told.
        rejects: For each table, records that are to be set aside, each with the reason.
    """

    records: Mapping[Table, Sequence[Record]] = field(default_factory=dict)
    position: Position | None = None
    stages: Sequence[Mapping[str, Any]] | None = None
    expected: int | None = None
    rejects: Mapping[Table, Sequence[tuple[Record, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pull:
    """What a resource is told about the load that it is part of.

    Attributes:
        project_id: Whose account it is.
        calls: The way to its API.
        until: The beginning of the load, by this machine's clock, to the second. What changes
            later is for the next load, which begins an overlap before it: so pages may shift, and
            clocks differ, and nothing is missed.
        since: How far back closed deals are brought.
        is_full: Everything is asked for again.
        lines: More ways to the API, each for one thread; none where the source has but one.
    """

    project_id: str
    calls: Calls
    until: datetime
    since: datetime
    is_full: bool = False
    lines: Sequence[Calls] = ()

    @property
    def at_once(self) -> Sequence[Calls]:
        """Ways to the API for questions that are asked at the same time."""
        return self.lines or (self.calls,)


@dataclass(frozen=True)
class Resource:
    """A part of what is loaded, with a position of its own.

    Attributes:
        name: What people call it.
        pull: Gives its pages, from a position on; None at first, and in a full load.
        needs: The scope or plan that the account needs for it.
        is_optional: An account that lacks it is loaded without, and told so.
        looks_up: Tables in which it looks up what the resources before it brought.
    """

    name: str
    pull: Callable[[Pull, Position | None], Iterator[Page]]
    needs: str
    is_optional: bool = False
    looks_up: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """From time to time, all ids that the CRM still has; what is no longer among them is gone.

    It also finds what no change ever told of, as CRMs forget to: that is fetched.

    Attributes:
        table: Its rows are marked; its key is one id.
        ids: Gives all ids in parts, each with whether its record is to be loaded.
        fetch: Gives the records of some ids.
        every: How often.
    """

    table: Table
    ids: Callable[[Pull], Iterator[Sequence[tuple[str, bool]]]]
    fetch: Callable[[Pull, Sequence[str]], Iterator[Page]]
    every: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class Finding:
    """What trying a resource of an account showed; ``problem`` is None where it can be loaded."""

    resource: str
    problem: str | None


@dataclass(frozen=True)
class Source:
    """A CRM.

    Attributes:
        name: As in ``settings.projects``.
        title: As its maker writes it.
        dataset: Schema of its tables.
        tables: All its tables.
        resources: In the order in which they are loaded.
        sweeps: Done after them.
        open: Gives the way to the API of an account.
        check: Tries each resource of an account, with as few calls as it can.
        paces: Kind of call -> pace of the smallest plan.
        lines: How many of its questions are asked at the same time, where a resource has many that
            do not depend on each other: one after the other would use a part of the pace alone, as
            most of the time goes with waiting for answers.
        api_path: How the paths of its API begin. An address that holds it, as spec pulls gives one,
            is cut there.
        identify: Asks, with one call, what the CRM itself calls the account that the token opens;
            None where it does not say.
    """

    name: str
    title: str
    dataset: str
    tables: tuple[Table, ...]
    resources: tuple[Resource, ...]
    open: Callable[[Turns, ApiAccount], Calls]
    check: Callable[[Calls], Iterator[Finding]]
    paces: Mapping[str, Pace]
    lines: int = 0
    api_path: str = ""
    sweeps: tuple[Sweep, ...] = ()
    identify: Callable[[Calls], object] = lambda _: None
