"""Generates the activity of made-up sales departments, into a project of its own or as CSV files.

The project holds nothing else: one that holds other data is refused here, and files for a project
that holds generated data are refused by ``loaders.files``. Rows are written to ``raw_files`` as a
load of files writes them, in portions, so that memory does not grow with their number. Generating
again replaces what is there: rows that are the same are left alone, and what is gone is marked as
deleted, as it is where a CRM deletes, because models that are built by what changed see that.
"""

import io
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import sql

from loaders.columns import TYPES, content, fingerprints
from loaders.destination import FINGERPRINT, exclusive
from loaders.entities import ENTITIES
from loaders.files import DATASET, GENERATED
from loaders.load_log import Entry, logged
from loaders.sales_calendar import Window, WorkingDays, holidays
from loaders.sales_reps import Department, newcomer, teams
from loaders.sales_stories import COLUMNS, rows
from stageline.errors import StagelineError
from stageline.progress import Step, step
from stageline.settings import projects
from stageline.settings.rule_tables import ProjectKey, changing_project
from stageline.settings.sales_targets import REVENUE, TARGETS, KpiTarget
from stageline.settings.working_hours import (
    CALENDARS,
    DayException,
    WorkingHours,
    set_days,
)
from stageline.settings.working_weeks import read_week

SOURCE = "file"
DEFAULT_ZONE, DEFAULT_CURRENCY = "Europe/Kyiv", "EUR"
PROJECT_NAME = "Generated sales"
#: What a project without hours of its own is given; calls are made from 8 to 18 o'clock.
WORKING_WEEK = "mon-fri 08:00-18:00"

#: What each rep is to reach (KPI, period, number), where the project has no targets yet.
_TARGETS = (("calls", "week", 25), ("agreements", "month", 6), ("lists_out", "month", 5))
_REVENUE_TARGET = 4_000
_CALLS_OF_NEWCOMER = 12
_LISTS_OF_TEAM = 16

MOST_LEADS, MOST_SCALE = 100_000, 1_000
LEAST_DAYS_BACK, MOST_DAYS = 7, 3_650
YEARS = range(1990, 2150)

#: Rows of an entity that are written together.
_PORTION = 20_000


@dataclass(frozen=True)
class Plan:
    """What to generate.

    Attributes:
        leads: Leads of a department of eight reps.
        days_back, days_forward: How long before ``as_of`` leads come in, and until how long after
            it calls are booked.
        seed: Other seeds give other data; the same plan gives the same, byte by byte.
        scale: Number of departments.
        as_of: The instant at which all is told; a date is its first moment in the zone.
        timezone, currency: Of the project.
    """

    as_of: date
    leads: int = 150
    days_back: int = 90
    days_forward: int = 30
    seed: int = 1
    scale: int = 1
    timezone: str = DEFAULT_ZONE
    currency: str = DEFAULT_CURRENCY

    def require_valid(self) -> None:
        """Makes sure that it can be generated.

        Raises:
            StagelineError: it cannot; says what of it is wrong.
        """
        for name, value, least, most in (
            ("--leads", self.leads, 1, MOST_LEADS),
            ("--days-back", self.days_back, LEAST_DAYS_BACK, MOST_DAYS),
            ("--days-forward", self.days_forward, 0, MOST_DAYS),
            ("--scale", self.scale, 1, MOST_SCALE),
        ):
            if not least <= value <= most:
                raise StagelineError(f"{name} {value} is out of range: give {least:,} to {most:,}.")
        if self.as_of.year not in YEARS:
            raise StagelineError(
                f"--as-of {self.as_of} is out of range: give a day of the years {YEARS.start} to"
                f" {YEARS.stop - 1}."
            )
        projects.require_zone(self.timezone)
        if not re.fullmatch("[A-Z]{3}", self.currency):
            raise StagelineError(
                f"{self.currency!r} is no currency. Write its ISO 4217 code in capitals, as EUR."
            )

    @property
    def window(self) -> Window:
        """The time that is told of."""
        zone = ZoneInfo(self.timezone)
        as_of = (
            self.as_of
            if isinstance(self.as_of, datetime)
            else datetime(self.as_of.year, self.as_of.month, self.as_of.day, tzinfo=zone)
        )
        today = as_of.astimezone(zone).date()
        return Window(
            as_of,
            today - timedelta(days=self.days_back),
            today + timedelta(days=self.days_forward),
            zone,
        )


@dataclass
class Generated:
    """What came of it.

    Attributes:
        rows: How many rows of each entity there are now.
        written: How many of them were not there, or were different.
        gone: Rows of before that are marked as deleted now.
        replaced: Whether the project held generated rows before.
        seconds: How long it took.
    """

    rows: dict[str, int] = field(default_factory=dict)
    written: int = 0
    gone: int = 0
    replaced: bool = False
    seconds: float = 0.0


def generate(plan: Plan, project_id: str) -> Generated:
    """Generates ``plan`` into a project, in place of what was generated there before.

    Raises:
        StagelineError: it cannot be, or the project holds other data; nothing was changed.
    """
    started = time.monotonic()
    plan.require_valid()
    projects.require_plain_id(project_id)
    entry = Entry(SOURCE, None, project_id, f"{GENERATED} --seed {plan.seed}")
    with exclusive(DATASET) as session:
        _require_no_other_data(session, project_id)
        _set_up(plan, project_id)
        with logged(session, entry), _telling(plan) as shown:
            done = _replace(session, plan, project_id, shown)
            entry.read = sum(done.rows.values())
            entry.loaded, entry.unchanged = done.written, entry.read - done.written
            shown.note(rows=entry.read)
        for entity in COLUMNS:
            session.execute(sql.SQL("analyze {}").format(_table(entity)))
    done.seconds = time.monotonic() - started
    return done


def write(plan: Plan, folder: Path) -> Generated:
    """Writes ``plan`` as one CSV file an entity, which ``stageline load file`` takes.

    Raises:
        StagelineError: it cannot be, or the folder holds such files already.
    """
    started = time.monotonic()
    plan.require_valid()
    paths = {entity: folder / f"{entity}.csv" for entity in COLUMNS}
    for path in paths.values():
        if path.exists():
            raise StagelineError(f"{path} is there already. Remove it, or name another folder.")
    done = Generated(rows=dict.fromkeys(COLUMNS, 0))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entity, path in paths.items():
            path.write_text(",".join(COLUMNS[entity]) + "\n")
        with _telling(plan) as shown:
            for entity, table in _portions(plan, shown):
                done.rows[entity] += table.num_rows
                with paths[entity].open("ab") as file:
                    file.write(_text(table.select(list(COLUMNS[entity]))))
            shown.note(rows=sum(done.rows.values()))
    except BaseException as error:
        for path in paths.values():  # half a file would pass for a whole one
            with suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            raise StagelineError(
                f"Cannot write to {folder}: {error.strerror}. Name another folder with --output."
            ) from None
        raise
    done.seconds = time.monotonic() - started
    return done


def remove(project_id: str) -> int:
    """Takes generated rows away, and their project out of the KPIs; gives how many rows there were.

    Raises:
        StagelineError: the project holds other data, or nothing that was generated.
    """
    projects.require_plain_id(project_id)
    with exclusive(DATASET) as session:
        _require_no_other_data(session, project_id)
        if not _is_there(session, project_id):
            raise StagelineError(f"Project {project_id} holds nothing that was generated.")
        # models that are built by what changed see this, but not that rows vanish
        projects.add(SOURCE, project_id, is_active=False)
        with session.transaction():
            return sum(
                session.execute(
                    sql.SQL("delete from {} where project_id = %s").format(_table(entity)),
                    [project_id],
                ).rowcount
                for entity in COLUMNS
            )


# --- rows ----------------------------------------------------------------------------------------


def _portions(plan: Plan, shown: Step) -> Iterator[tuple[str, pa.Table]]:
    """All rows of a plan, some of one entity at a time."""
    waiting: dict[str, list[tuple[Any, ...]]] = {entity: [] for entity in COLUMNS}
    window = plan.window
    days = WorkingDays(window)
    for number in range(1, plan.scale + 1):
        department = Department(window, days, number, plan.seed)
        for entity, row in rows(department, plan.leads, plan.currency):
            held = waiting[entity]
            held.append(row)
            if entity == "leads":
                shown.advance()
            if len(held) == _PORTION:
                yield entity, _arrow(entity, held)
                held.clear()
    for entity, held in waiting.items():
        if held:
            yield entity, _arrow(entity, held)


def _arrow(entity: str, held: list[tuple[Any, ...]]) -> pa.Table:
    """Rows as a table of all fields of their entity, typed as a file's rows are."""
    given = dict(zip(COLUMNS[entity], zip(*held, strict=True), strict=True))
    arrays = []
    for each in ENTITIES[entity].fields:
        kind = TYPES[each.type]
        if each.name not in given:
            arrays.append(pa.nulls(len(held), kind))
        elif each.type == "timestamp":
            arrays.append(pa.array(given[each.name], pa.timestamp("s", "UTC")).cast(kind))
        else:
            arrays.append(pa.array(given[each.name], kind))
    return pa.table(arrays, names=[each.name for each in ENTITIES[entity].fields])


def _text(table: pa.Table) -> bytes:
    """Rows as lines of CSV; what is empty is null."""
    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("s", "UTC"))
        elif pa.types.is_decimal(column.type):
            column = column.cast(pa.decimal128(20, 2))
        columns.append(column)
    file = io.BytesIO()
    # nothing made up holds a comma, a quote or a line end; a value that did would be refused
    form = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    pa_csv.write_csv(pa.table(columns, names=table.column_names), file, form)
    return file.getvalue()


# --- the database --------------------------------------------------------------------------------


def _table(entity: str) -> sql.Identifier:
    return sql.Identifier(DATASET, entity)


def _scratch(entity: str) -> sql.Identifier:
    return sql.Identifier(f"{DATASET}_staging", f"generated_{entity}")


def _require_no_other_data(session: psycopg.Connection[Any], project_id: str) -> None:
    for entity in ENTITIES:
        row = session.execute(
            sql.SQL(
                "select source_file from {} where project_id = %s"
                " and source_file is distinct from %s limit 1"
            ).format(_table(entity)),
            [project_id, GENERATED],
        ).fetchone()
        if row:
            raise StagelineError(
                f"Project {project_id} holds {entity} that were not generated"
                f" ({row[0] or 'of an unknown file'}). Give another one with --project."
            )


def _set_up(plan: Plan, project_id: str) -> None:
    """Makes the project and its days off, and hours and targets unless it has some."""
    projects.add(
        SOURCE,
        project_id,
        name=PROJECT_NAME,
        timezone=plan.timezone,
        currency=plan.currency,
        is_active=True,
    )
    window = plan.window
    off = [
        DayException(day=day, name=name)
        for day, name in holidays(window.first, window.last).items()
    ]
    key = ProjectKey(SOURCE, project_id)
    with changing_project(key) as session:
        set_days(session, key, off)
        if not CALENDARS.rows(session, key):
            CALENDARS.set_from(session, key, WorkingHours(week=read_week(WORKING_WEEK)), None)
        if not TARGETS.rows(session, key):
            for target in _targets(plan):
                TARGETS.insert(session, key, target)


def _targets(plan: Plan) -> Iterator[KpiTarget]:
    """What each rep is to reach; less the new ones, and one team of each department together."""
    for kpi, period, number in _TARGETS:
        yield KpiTarget(kpi=kpi, subject_type="rep", period=period, target=Decimal(number))
    yield KpiTarget(
        kpi=REVENUE,
        subject_type="rep",
        period="month",
        target=Decimal(_REVENUE_TARGET),
        currency=plan.currency,
    )
    for department in range(1, plan.scale + 1):
        yield KpiTarget(
            kpi="calls",
            subject_type="rep",
            subject_id=newcomer(department),
            period="week",
            target=Decimal(_CALLS_OF_NEWCOMER),
        )
        yield KpiTarget(
            kpi="lists_out",
            subject_type="team",
            subject_id=teams(department)[0],
            period="month",
            target=Decimal(_LISTS_OF_TEAM),
        )


def _telling(plan: Plan) -> AbstractContextManager[Step]:
    return step("Generate sales activity", total=plan.leads * plan.scale)


def _replace(
    session: psycopg.Connection[Any], plan: Plan, project_id: str, shown: Step
) -> Generated:
    """Writes all rows in one transaction."""
    done = Generated(rows=dict.fromkeys(COLUMNS, 0))
    with session.transaction():
        # a project without rows takes them as they come; others are compared first
        done.replaced = _is_there(session, project_id)
        target = _scratch if done.replaced else _table
        if done.replaced:
            for entity in COLUMNS:
                session.execute(
                    sql.SQL("create unlogged table {} (like {} including defaults)").format(
                        _scratch(entity), _table(entity)
                    )
                )
        for entity, table in _portions(plan, shown):
            first = done.rows[entity] + 1
            done.rows[entity] += table.num_rows
            _copy(session, target(entity), _identified(table, project_id, first))
        if not done.replaced:
            done.written = sum(done.rows.values())
            return done
        for entity in COLUMNS:
            done.written += _merge(session, entity)
            done.gone += _mark_gone(session, entity, project_id)
            session.execute(sql.SQL("drop table {}").format(_scratch(entity)))
    return done


def _is_there(session: psycopg.Connection[Any], project_id: str) -> bool:
    """Whether a project holds any generated row."""
    return any(
        session.execute(
            sql.SQL("select from {} where project_id = %s limit 1").format(_table(entity)),
            [project_id],
        ).fetchone()
        is not None
        for entity in COLUMNS
    )


def _identified(table: pa.Table, project_id: str, first: int) -> pa.Table:
    """Rows with their project, where they come from, and the fingerprint that a file's have."""
    count = table.num_rows
    own = [pa.repeat(SOURCE, count), pa.repeat(project_id, count)]
    fields = [column.combine_chunks() for column in table.columns]
    prints = fingerprints(content([*own, *fields]))
    origin = [pa.repeat(GENERATED, count), pa.array(range(first, first + count), pa.int64())]
    names = ["source_system", "project_id", *table.column_names]
    names += ["source_file", "source_line", FINGERPRINT]
    return pa.table([*own, *fields, *origin, prints], names=names)


def _copy(session: psycopg.Connection[Any], into: sql.Identifier, table: pa.Table) -> None:
    query = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        into, _listed(table.column_names)
    )
    with session.cursor() as cursor, cursor.copy(query) as copy:
        copy.write(_text(table))


def _listed(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _columns(entity: str) -> list[str]:
    fields = [each.name for each in ENTITIES[entity].fields]
    return ["source_system", "project_id", *fields, "source_file", "source_line", FINGERPRINT]


def _merge(session: psycopg.Connection[Any], entity: str) -> int:
    """Brings what is new or different over; how many rows that were."""
    names = _columns(entity)
    key = ["project_id", *ENTITIES[entity].key]
    return session.execute(
        sql.SQL(
            "insert into {table} as landed ({names}) select {names} from {scratch}"
            " on conflict ({key}) do update set {changes}"
            " where landed.{fingerprint} is distinct from excluded.{fingerprint}"
        ).format(
            table=_table(entity),
            scratch=_scratch(entity),
            names=_listed(names),
            key=_listed(key),
            changes=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
                for name in names
                if name not in key
            ),
            fingerprint=sql.Identifier(FINGERPRINT),
        )
    ).rowcount


def _mark_gone(session: psycopg.Connection[Any], entity: str, project_id: str) -> int:
    """Marks the rows of before that were not generated again; how many were not marked yet."""
    key = ENTITIES[entity].key
    return session.execute(
        sql.SQL(
            "update {table} as landed set is_deleted = true, {fingerprint} = null"
            " where project_id = %s and is_deleted is not true"
            " and not exists (select from {scratch} as scratch where {same})"
        ).format(
            table=_table(entity),
            scratch=_scratch(entity),
            fingerprint=sql.Identifier(FINGERPRINT),
            same=sql.SQL(" and ").join(
                sql.SQL("scratch.{0} = landed.{0}").format(sql.Identifier(name)) for name in key
            ),
        ),
        [project_id],
    ).rowcount
