"""Sixty days of alerts, build by build, open and resolve as a computation from raw rows has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from graphlib import TopologicalSorter
from random import Random
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from stageline.cli import main
from stageline.database import connect
from tests.alerts_oracle import Episodes, Key, Numbers, World
from tests.warm_dbt import WarmDbt

Session = psycopg.Connection[Any]

#: Christmas, new year, a rep who leaves and one who comes lie in between.
FIRST, DAYS = date(2025, 12, 5), 60
GENERATED_AS_OF = "2026-02-02T10:00:00+00:00"
#: Projects that are made here, to be nasty, with their zones; data alone tell of the last.
NASTY = {"apia": "Pacific/Apia", "closing": "America/New_York", "told": None}
PROJECTS = ("generated", *NASTY)
RULES = {"calls_this_week", "calls_next_week", "rep_needs_support", "partner_lists_overdue"}

FOLDERS = ("models/intermediate/activity/", "models/kpis/activity/")
#: What alerts stand on: the models between the sources and them.
SELECTED = tuple(f"+active_alerts,path:{folder}" for folder in FOLDERS)


def instants() -> list[datetime]:
    """One a day, at any hour; now and then two, one of them a second before midnight somewhere."""
    random = Random(6)  # noqa: S311 - no secret
    found = []
    for count in range(DAYS):
        day = FIRST + timedelta(days=count)
        found.append(datetime.combine(day, time(random.randrange(20), 7), UTC))
        if count % 10 == 4:
            found.append(datetime.combine(day, time(21, 59, 59), UTC))
            found.append(datetime.combine(day, time(22), UTC))
    return found


@dataclass
class Nasty:
    """Projects of which something is to go wrong."""

    session: Session
    random: Random = field(default_factory=lambda: Random(20251205))  # noqa: S311 - no secret
    made: int = 0

    def begin(self) -> None:
        for project, zone in NASTY.items():
            if zone:
                self.insert(
                    "settings.projects",
                    {"source_system": "file", "project_id": project, "timezone": zone},
                )
            for rep, active_from, active_to in (
                ("always", "2025-01-01", None),
                ("comes", "2025-12-10", None),
                ("leaves", "2025-01-01", "2026-01-15"),
                ("pauses", "2025-01-01", "2025-12-15"),
                ("pauses", "2025-12-18", None),
                ("twice", "2025-01-01", "2026-01-08"),
                ("twice", "2026-01-07", None),
                ("never", "2026-01-01", "2025-12-01"),
                ("idle", "2025-12-01", None),
            ):
                self.insert(
                    "raw_files.reps",
                    {
                        "project_id": project,
                        "rep_id": rep,
                        "name": f"{rep} {active_from}",
                        "active_from": active_from,
                        "active_to": active_to,
                    },
                )
            self.insert(
                "raw_files.reps",
                {
                    "project_id": project,
                    "rep_id": "deleted",
                    "active_from": "2025-01-01",
                    "is_deleted": True,
                },
            )
            for _ in range(700):
                self.record(project)
        for day, as_weekday in (("2025-12-06", 1), ("2026-01-14", None), ("2026-01-18", 3)):
            self.day("apia", date.fromisoformat(day), as_weekday)
        for count in range(7):  # nobody works
            self.day("apia", date(2025, 12, 29) + timedelta(days=count), None)
        for rule, threshold, first, end in (
            ("calls_this_week", 7, "1900-01-01", "2025-12-17"),
            ("calls_this_week", "10.5", "2025-12-17", "2026-01-15"),
            ("calls_this_week", 0, "2026-01-15", "2026-01-22"),
            ("calls_next_week", 60, "1900-01-01", "2026-01-09"),
            ("partner_lists_overdue", 2, "2025-12-20", None),
            ("rep_needs_support_score", "40", "2025-12-15", None),
            ("rep_needs_support_calls", "9", "2025-12-15", None),
        ):
            self.insert(
                "settings.alert_thresholds",
                {
                    "source_system": "file",
                    "project_id": "apia",
                    "rule": rule,
                    "threshold": threshold,
                    "effective_from": first,
                    "effective_to": end,
                },
            )
        for first, end, weekdays in (
            ("1900-01-01", "2026-01-07", [2, 3, 4, 5, 6]),
            ("2026-01-07", None, [1, 3]),
        ):
            calendar = self.session.execute(
                "insert into settings.calendars (source_system, project_id, effective_from,"
                " effective_to) values ('file', 'closing', %s, %s) returning calendar_id",
                (first, end),
            ).fetchone()
            assert calendar
            for weekday in weekdays:
                self.insert(
                    "settings.calendar_windows",
                    {
                        "calendar_id": calendar[0],
                        "weekday": weekday,
                        "opens_second": 32400,
                        "closes_second": 64800,
                    },
                )

    def insert(self, table: str, row: dict[str, Any]) -> None:
        self.session.execute(
            sql.SQL("insert into {} ({}) values ({})").format(
                sql.Identifier(*table.split(".")),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
            ),
            list(row.values()),
        )

    def day(self, project: str, day: date, as_weekday: int | None) -> None:
        self.insert(
            "settings.day_exceptions",
            {
                "source_system": "file",
                "project_id": project,
                "day": day,
                "as_weekday": as_weekday,
                "name": "another day",
            },
        )

    def instant(self, *, always: bool = True) -> datetime | None:
        """In the time of the replay or near it; some at the very instant of a build."""
        if not always and self.random.random() < 0.35:
            return None
        if self.random.random() < 0.05:
            return self.random.choice(instants())
        return datetime.combine(FIRST, time(), UTC) + timedelta(
            days=self.random.uniform(-12, DAYS + 12)
        )

    def record(self, project: str) -> None:
        """A call, or now and then something else."""
        self.made += 1
        who = {
            "project_id": project,
            "rep_id": self.random.choice(
                ["always", "comes", "leaves", "pauses", "twice", "unlisted", "never", None]
            ),
            "is_deleted": self.random.choice([None, False, False, False, True]),
        }
        kind = self.random.choice(["call"] * 12 + ["meeting", "item", "item", "item", "sale"])
        made = f"n-{self.made}"
        if who["rep_id"] == "unlisted" and self.random.random() < 0.7:
            return  # of whom little is known
        if kind == "item":
            due_at = self.instant(always=False)
            later = timedelta(days=self.random.expovariate(1 / 4))
            self.insert(
                "raw_files.pipeline_items",
                {
                    "item_id": made,
                    "stage": "LEAD",
                    "created_at": self.instant(),
                    "agreement_at": self.instant(always=False),
                    "partner_list_due_at": due_at,
                    "partner_list_sent_at": due_at and due_at + later,
                    "closed_at": self.random.choice([None, None, None, self.instant()]),
                    **who,
                },
            )
        elif kind == "sale":
            item = self.random.choice([None, f"n-{self.random.randrange(1, self.made + 1)}"])
            self.insert(
                "raw_files.sales",
                {
                    "sale_id": made,
                    "item_id": item,
                    "sold_at": self.instant(),
                    "amount": self.random.choice([5, 5, -5]),
                    **who,
                },
            )
        else:
            planned = self.instant(always=False)
            self.insert(
                "raw_files.activities",
                {
                    "activity_id": made,
                    "activity_type": kind,
                    "scheduled_at": planned,
                    "completed_at": self.random.choice([planned, planned, self.instant(), None]),
                    **who,
                },
            )

    def happen(self, count: int) -> bool:
        """What changes on a day of the replay; whether anything does."""
        if count == 21:  # late, and not at all
            for _ in range(40):
                self.record("apia")
            self.session.execute(
                "update raw_files.activities set is_deleted = not coalesce(is_deleted, false)"
                " where project_id = 'apia' and activity_id like '%7'"
            )
        elif count == 30:
            self.session.execute(
                "update raw_files.pipeline_items set is_deleted = true"
                " where project_id = 'generated' and item_id like '%3'"
            )
        elif count in {40, 50}:
            self.session.execute(
                "update settings.projects set is_active = %s where project_id = 'closing'",
                (count == 50,),
            )
        else:
            return False
        return True


class Builds:
    """The models that alerts stand on, built again and again.

    dbt compiles them once, for the first instant. Later ones differ in ``as_of`` alone, so that
    their queries are run with another one, in the order and into the tables that dbt has for them:
    sixty runs of dbt take minutes. The last build is dbt's own again, and has to find the same.
    """

    def __init__(self, dbt: WarmDbt, as_of: datetime) -> None:
        self.dbt, self.first = dbt, as_of
        self.build(as_of, full_refresh=True)
        nodes = dbt.nodes()
        models = {
            node["unique_id"]: node
            for node in nodes.values()
            if node["original_file_path"].startswith(FOLDERS)
        }
        parents = {
            name: {parent for parent in node["depends_on"]["nodes"] if parent in models}
            for name, node in models.items()
        }
        needed = set[str]()
        more = {nodes["active_alerts"]["unique_id"]}
        while more:
            needed |= more
            more = set().union(*(parents[name] for name in more)) - needed
        self.models = [
            models[name]
            for name in TopologicalSorter({name: parents[name] for name in needed}).static_order()
        ]
        self.queries = {node["name"]: dbt.compiled(node["name"]) for node in self.models}
        with connect("transformer") as session:
            self.columns = {node["name"]: columns(session, node) for node in self.models}

    def build(self, as_of: datetime, *, full_refresh: bool = False) -> None:
        """By dbt."""
        self.dbt.run(*SELECTED, variables={"as_of": as_of.isoformat()}, full_refresh=full_refresh)

    def run(self, session: Session, as_of: datetime) -> None:
        """By the queries alone."""
        for node in self.models:
            name, config = node["name"], node["config"]
            query = self.queries[name].replace(
                f"'{self.first.isoformat()}'", f"'{as_of.isoformat()}'"
            )
            parts = {
                "table": sql.Identifier(node["schema"], name),
                "columns": self.columns[name],
                "query": sql.SQL(query),  # what dbt has compiled
            }

            def execute(text: str, parts: dict[str, Any] = parts) -> None:
                session.execute(sql.SQL(text).format(**parts))

            if config["materialized"] == "view":
                execute("create or replace view {table} as select {columns} from ({query}) as q")
            elif config["incremental_strategy"] == "delete+insert":
                parts["key"] = sql.SQL(", ").join(
                    map(sql.Identifier, as_list(config["unique_key"]))
                )
                execute("create temp table new on commit drop as {query}")
                execute("delete from {table} where ({key}) in (select {key} from new)")
                execute("insert into {table} ({columns}) select {columns} from new")
                execute("drop table new")
            else:
                execute("truncate {table}")
                execute("insert into {table} ({columns}) select {columns} from ({query}) as q")
        session.commit()


def as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def columns(session: Session, node: dict[str, Any]) -> sql.Composed:
    """Columns of the relation of a model, in order."""
    rows = session.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
        " and not attisdropped order by attnum",
        (f"{node['schema']}.{node['name']}",),
    )
    return sql.SQL(", ").join(sql.Identifier(name) for (name,) in rows)


def told() -> tuple[dict[Key, Numbers], dict[Key, datetime]]:
    """Numbers and beginnings in active_alerts."""
    with connect("reader") as session:
        rows = session.execute(
            "select rule, project_id, subject_id, value, threshold, since from kpis.active_alerts"
            " where project_id = any(%s) and rule = any(%s)",
            ([*PROJECTS], [*RULES]),
        ).fetchall()
    return (
        {(a, b, c): (Fraction(value), Fraction(limit)) for a, b, c, value, limit, _ in rows},
        {(a, b, c): since for a, b, c, _, _, since in rows},
    )


def episodes() -> dict[tuple[Key, datetime], datetime | None]:
    """Openings and resolutions in alert_episodes."""
    with connect("reader") as session:
        return {
            ((rule, project, subject), opened_at): resolved_at
            for rule, project, subject, opened_at, resolved_at in session.execute(
                "select rule, project_id, subject_id, opened_at, resolved_at"
                " from kpis.alert_episodes where project_id = any(%s) and rule = any(%s)",
                ([*PROJECTS], [*RULES]),
            )
        }


def rounded(alerts: dict[Key, Numbers]) -> dict[Key, Numbers]:
    return {key: (value, Fraction(round(limit, 4))) for key, (value, limit) in alerts.items()}


@contextmanager
def department() -> Iterator[Nasty]:
    """What is generated, and what is nasty; no alert has been built yet."""
    made = CliRunner().invoke(
        main, ["generate", "sales", "--seed", "3", "--as-of", GENERATED_AS_OF]
    )
    assert made.exit_code == 0, made.output
    with connect("owner") as session:
        session.execute("truncate kpis.alert_episodes, intermediate.int_alert_builds")
        nasty = Nasty(session)
        nasty.begin()
        session.commit()
        yield nasty


@pytest.mark.usefixtures("sample_database")
def test_alerts_open_and_resolve_as_the_raw_rows_have_it(dbt: WarmDbt) -> None:
    days = instants()
    assert len({as_of.date() for as_of in days}) == DAYS
    expected = Episodes()
    seen = dict.fromkeys(RULES, 0)

    def check(as_of: datetime) -> None:
        alerts = world.alerts(as_of)
        is_look_back = expected.known_at is not None and as_of < expected.known_at
        expected.follow(alerts, as_of)
        numbers, since = told()
        assert numbers == rounded(alerts), as_of
        begun = expected.at(as_of) if is_look_back else expected.running()
        assert since == {key: begun.get(key, as_of) for key in alerts}, as_of
        assert episodes() == expected.resolved, as_of
        for rule, _, _ in alerts:
            seen[rule] += 1

    with department() as nasty, connect("transformer") as session:
        builds, world = Builds(dbt, days[0]), World.read(PROJECTS)
        check(days[0])
        for count, as_of in enumerate(days[1:], 1):
            if nasty.happen((as_of.date() - FIRST).days):
                nasty.session.commit()
                world = World.read(PROJECTS)
            builds.run(session, as_of)
            check(as_of)
            if count % 20 == 0:  # the same again, and a look back
                for another in (as_of, days[count - 9]):
                    builds.run(session, another)
                    check(another)

    opened = list(expected.resolved)
    assert len(opened) > len({key for key, _ in opened}) > len(expected.running()) > 5
    assert min(seen.values()) > 20, seen

    as_of = days[-1] + timedelta(hours=1)
    builds.build(as_of)
    check(as_of)
    # What has been is not computed anew, whatever is.
    as_of += timedelta(hours=1)
    dbt.run("int_alert_thresholds+", variables={"as_of": as_of.isoformat()}, full_refresh=True)
    check(as_of)
