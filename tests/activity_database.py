"""Worlds of sales activity in a database: settings as operators leave them, records as files do."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from loaders.entities import ENTITIES
from stageline.database import connect
from tests.activity_worlds import Row, Target, World
from tests.kpi_oracle import Project
from tests.orders_world import Week

Cursor = psycopg.Cursor[Any]

#: Entities that a world has records of.
RECORDS = (
    *("reps", "activities", "pipeline_items", "sublists", "sales", "leads", "opportunities"),
)


def load(worlds: Iterable[World]) -> None:
    """Puts them into a database that knows nothing of their projects."""
    with connect("owner") as session, session.cursor() as cursor:
        for world in worlds:
            _set(cursor, world.project)
            _load_calendars(cursor, world)
            _load_targets(cursor, world)
            for entity, rows in world.records.items():
                _load_records(cursor, entity, rows)


def change(before: World, after: World) -> None:
    """Makes of a loaded world another one of the same project: writes what differs, a row each."""
    place = _place(before)
    assert place == _place(after)
    with connect("owner") as session, session.cursor() as cursor:
        if before.project != after.project:
            _set(cursor, after.project)
        if (before.weeks, before.exceptions) != (after.weeks, after.exceptions):
            for table in ("calendars", "day_exceptions"):
                _delete_settings(cursor, table, place)
            _load_calendars(cursor, after)
        if before.targets != after.targets:
            _delete_settings(cursor, "kpi_targets", place)
            _load_targets(cursor, after)
        for entity in before.records.keys() | after.records.keys():
            old, new = (keyed(entity, world.records.get(entity, ())) for world in (before, after))
            differing = {
                key: new.get(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)
            }
            _delete_records(cursor, entity, place, differing)
            _load_records(cursor, entity, [row for row in differing.values() if row])


def read(as_of: datetime, source_system: str, project_id: str) -> World:
    """What the database holds of a project."""
    place = {"source_system": source_system, "project_id": project_id}
    with connect("owner") as session, session.cursor(row_factory=dict_row) as cursor:

        def rows(schema: str, name: str) -> list[Row]:
            return cursor.execute(
                sql.SQL(
                    "select * from {} where source_system = %(source_system)s"
                    " and project_id = %(project_id)s"
                ).format(sql.Identifier(schema, name)),
                place,
            ).fetchall()

        (project,) = rows("settings", "projects")
        hours: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for window in cursor.execute("select * from settings.calendar_windows").fetchall():
            stretch = (window["opens_second"], window["closes_second"])
            hours[window["calendar_id"]][window["weekday"]].append(stretch)
        return World(
            as_of,
            Project(
                **place,
                **{name: project[name] for name in ("timezone", "currency", "is_active")},
            ),
            tuple(
                Week(
                    row["calendar_id"],
                    row["group_id"],
                    hours[row["calendar_id"]],
                    row["effective_from"],
                    row["effective_to"],
                    row["is_always_open"],
                )
                for row in rows("settings", "calendars")
            ),
            {row["day"]: row["as_weekday"] for row in rows("settings", "day_exceptions")},
            tuple(
                Target(
                    *(row["kpi"], row["subject_type"], row["subject_id"], row["period"]),
                    *(row["target"], row["currency"], row["effective_from"], row["effective_to"]),
                )
                for row in rows("settings", "kpi_targets")
            ),
            {entity: rows("raw_files", entity) for entity in RECORDS},
        )


def table(name: str) -> list[Row]:
    """The rows of a table of schema kpis."""
    with connect("reader") as session, session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            sql.SQL("select * from {}").format(sql.Identifier("kpis", name))
        ).fetchall()


def keyed(entity: str, rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """Rows of an entity by the fields that identify them within a project."""
    return {tuple(row[field] for field in ENTITIES[entity].key): row for row in rows}


def _place(world: World) -> tuple[str, str]:
    return world.project.source_system, world.project.project_id


def _set(cursor: Cursor, project: Project) -> None:
    """Writes what is known of a project, unless that is nothing."""
    if project != Project(project.source_system, project.project_id):
        cursor.execute(
            "insert into settings.projects"
            " (source_system, project_id, timezone, currency, is_active)"
            " values (%(source_system)s, %(project_id)s, %(timezone)s, %(currency)s, %(is_active)s)"
            " on conflict (source_system, project_id) do update set timezone = excluded.timezone,"
            " currency = excluded.currency, is_active = excluded.is_active",
            asdict(project),
        )


def _delete_settings(cursor: Cursor, table: str, place: tuple[str, str]) -> None:
    cursor.execute(
        sql.SQL("delete from {} where source_system = %s and project_id = %s").format(
            sql.Identifier("settings", table)
        ),
        place,
    )


def _load_calendars(cursor: Cursor, world: World) -> None:
    place = _place(world)
    for week in world.weeks:
        cursor.execute(
            "insert into settings.calendars (calendar_id, source_system, project_id,"
            " group_id, is_always_open, effective_from, effective_to)"
            " overriding system value values (%s, %s, %s, %s, %s, %s, %s)",
            (week.number, *place, week.group, week.is_always_open, week.since, week.until),
        )
        cursor.executemany(
            "insert into settings.calendar_windows"
            " (calendar_id, weekday, opens_second, closes_second) values (%s, %s, %s, %s)",
            [
                (week.number, weekday, *window)
                for weekday, windows in week.hours.items()
                for window in windows
            ],
        )
    cursor.executemany(
        "insert into settings.day_exceptions (source_system, project_id, day, as_weekday)"
        " values (%s, %s, %s, %s)",
        [(*place, day, weekday) for day, weekday in world.exceptions.items()],
    )


def _load_targets(cursor: Cursor, world: World) -> None:
    with cursor.copy(
        "copy settings.kpi_targets (source_system, project_id, kpi, subject_type,"
        " subject_id, period, target, currency, effective_from, effective_to) from stdin"
    ) as copy:
        for row in world.targets:
            copy.write_row(
                [
                    *(*_place(world), row.kpi, row.subject_type, row.subject_id, row.period),
                    *(row.target, row.currency, row.since, row.until),
                ]
            )


def _load_records(cursor: Cursor, entity: str, rows: Collection[Row]) -> None:
    columns = ("source_system", "project_id", *(f.name for f in ENTITIES[entity].fields))
    statement = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier("raw_files", entity), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with cursor.copy(statement) as copy:
        for record in rows:
            copy.write_row([record[column] for column in columns])


def _delete_records(
    cursor: Cursor, entity: str, place: tuple[str, str], keys: Mapping[tuple[Any, ...], object]
) -> None:
    columns = ("source_system", "project_id", *ENTITIES[entity].key)
    statement = sql.SQL("delete from {} where {}").format(
        sql.Identifier("raw_files", entity),
        sql.SQL(" and ").join(
            sql.SQL("{} is not distinct from %s").format(sql.Identifier(column))
            for column in columns
        ),
    )
    cursor.executemany(statement, [(*place, *key) for key in keys])
