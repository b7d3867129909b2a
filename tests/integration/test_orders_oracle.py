"""The order KPIs on thousands of random histories, held against a second computation of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from stageline import config
from stageline.database import Connection, connect
from tests.conftest import DATABASE, TEMPLATE, TestServer, _clone
from tests.flow_database import keep_odd_clock
from tests.orders_oracle import PLAUSIBLE, Table, tables
from tests.orders_world import AS_OF, SOURCE, Project, world
from tests.warm_dbt import WarmDbt

GRAIN = {
    "order_status_intervals": ("source_system", "project_id", "order_id", "visit_number"),
    "orders_current": ("source_system", "project_id", "order_id"),
    "order_cycle_metrics": ("source_system", "project_id", "order_id", "cycle_rule_id"),
    "order_cancellations": ("source_system", "project_id", "order_id"),
    "stage_time_by_period": (
        "source_system",
        "project_id",
        "period_type",
        "period_start",
        "stage_group_id",
        "is_urgent",
    ),
    "flow_metric_values": ("flow_metric_id", "report_version", "period"),
}
#: Columns that say where a row came from, and not what it says.
ASIDE = {"updated_at", "record_origin"}
#: Column of each table of settings that numbers its rows.
NUMBERED = {
    "sla_stage_rules": "sla_rule_id",
    "sla_thresholds": "sla_threshold_id",
    "waiting_stages": "waiting_stage_id",
    "urgent_rules": "urgent_rule_id",
    "cycle_rules": "cycle_rule_id",
    "order_overrides": "order_override_id",
}
#: Statuses and groups that the CRM has no more; orders that are in them stay what they are.
GONE = {"3", "6"}
SEED, ORDERS, SHOWN = 20, 3_000, 12


def _insert(session: psycopg.Connection[Any], table: str, rows: list[dict[str, Any]]) -> None:
    """Writes rows with their own numbers, where the table would give them some."""
    if not rows:
        return
    with session.cursor() as cursor:
        cursor.executemany(
            sql.SQL("insert into {} ({}) overriding system value values ({})").format(
                sql.Identifier(*table.split(".")),
                sql.SQL(", ").join(map(sql.Identifier, rows[0])),
                sql.SQL(", ").join(map(sql.Placeholder, rows[0])),
            ),
            rows,
        )


def load(projects: list[Project]) -> None:
    """Puts settings where operators, events where senders, and items where KeyCRM would."""
    rows: dict[str, list[dict[str, Any]]] = {"settings.projects": []}

    def add(table: str, project: Project, **values: object) -> None:
        rows.setdefault(table, []).append({"project_id": project.project_id, **values})

    keyed = {"source_system": SOURCE}
    for project in projects:
        add(
            "settings.projects",
            project,
            **keyed,
            timezone=project.timezone,
            is_active=project.is_active,
        )
        for group, kind in project.groups.items():
            label = f"Group {group} of {project.project_id}"
            add(
                "settings.stage_group_dictionary",
                project,
                **keyed,
                group_id=group,
                name=label,
                kind=kind,
                is_active=group not in GONE,
            )
        for stage, stage_group in project.stages.items():
            label = f"Status {stage} of {project.project_id}"
            add(
                "settings.stage_dictionary",
                project,
                **keyed,
                stage_id=stage,
                name=label,
                group_id=stage_group,
                is_active=stage not in GONE,
            )
        for week in project.weeks:
            add(
                "settings.calendars",
                project,
                **keyed,
                calendar_id=week.number,
                group_id=week.group,
                is_always_open=week.is_always_open,
                effective_from=week.since,
                effective_to=week.until,
            )
            rows.setdefault("settings.calendar_windows", []).extend(
                {
                    "calendar_id": week.number,
                    "weekday": weekday,
                    "opens_second": opens,
                    "closes_second": closes,
                }
                for weekday, stretches in week.hours.items()
                for opens, closes in stretches
            )
        for day, weekday in project.exceptions.items():
            add("settings.day_exceptions", project, **keyed, day=day, as_weekday=weekday)
        overrides = [row for order in project.orders for row in order.overrides]
        for table, settings in {**project.rules, "order_overrides": overrides}.items():
            for row in settings:
                add(
                    f"settings.{table}",
                    project,
                    **keyed,
                    **{NUMBERED[table]: row.number},
                    **row.values,
                    effective_from=row.since,
                    effective_to=row.until,
                )
        for metric in project.metrics:
            add(
                "settings.flow_metrics",
                project,
                **keyed,
                flow_metric_id=metric.number,
                **metric.values,
            )
        for order in project.orders:
            for event in order.events:
                place = {
                    **keyed,
                    "entity_type": "order",
                    "entity_id": order.order_id,
                    "stage_id": event.stage,
                    "stage_group_id": event.group,
                    "entered_at": event.entered_at,
                }
                if event.delivery:
                    add(
                        "raw.stage_events",
                        project,
                        **place,
                        previous_stage_id=event.came_from,
                        entity_created_at=event.created_at,
                        delivery_id=event.delivery,
                        ingested_at=event.landed_at,
                    )
                else:
                    add("raw_files.stage_events", project, **place)
            add(
                "raw_keycrm.orders",
                project,
                order_id=order.order_id,
                is_gone=order.is_gone,
                fetched_at=AS_OF,
            )
            for position, item in enumerate(order.items, 1):
                add(
                    "raw_keycrm.order_items",
                    project,
                    order_id=order.order_id,
                    position=position,
                    **item,
                )
    with connect("owner") as session:
        for table, values in rows.items():
            _insert(session, table, values)


@dataclass(frozen=True)
class Built:
    """A database in which all orders are loaded and built, and what there should be."""

    owner: Connection
    projects: list[Project]
    expected: dict[str, Table]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table of schema kpis."""
        with psycopg.connect(**self.owner.libpq(), row_factory=dict_row) as session:
            return session.execute(
                sql.SQL("select * from {}").format(sql.Identifier("kpis", name))
            ).fetchall()


@pytest.fixture(scope="module")
def built(server: TestServer, dbt: WarmDbt, short_folder: Path) -> Iterator[Built]:
    """All orders in one database, built once."""
    folder = short_folder / "orders"
    folder.mkdir()
    projects = world(SEED, ORDERS)
    with (
        pytest.MonkeyPatch.context() as patch,
        _clone(server, TEMPLATE, folder, patch, DATABASE) as owner,
    ):
        keep_odd_clock(owner)
        load(projects)
        dbt.run(*(f"+{name}" for name in GRAIN), variables={"as_of": AS_OF.isoformat()})
        yield Built(owner, projects, tables(projects, AS_OF))
    config.settings.cache_clear()


@pytest.mark.parametrize("name", GRAIN)
def test_every_cell_is_what_its_definition_says(name: str, built: Built) -> None:
    grain, expected = GRAIN[name], built.expected[name]
    found = {tuple(row[column] for column in grain): row for row in built.rows(name)}
    assert expected
    lines = [
        f"{key}: only in the {'table' if key in found else 'oracle'}"
        for key in sorted(expected.keys() ^ found.keys(), key=str)
    ]
    for key in expected.keys() & found.keys():
        row = {c: v for c, v in found[key].items() if c not in (*grain, *ASIDE)}
        assert row.keys() == expected[key].keys()
        lines += [
            f"{key} {column}: expected {expected[key][column]}, got {value}"
            for column, value in row.items()
            if value != expected[key][column]
        ]
    if lines:
        pytest.fail("\n".join([f"{len(lines)} differences", *lines[:SHOWN]]), pytrace=False)


def test_the_orders_hold_every_case_that_the_rules_speak_of(built: Built) -> None:
    orders = built.expected["orders_current"].values()
    for column, values in {
        "sla_state": {"ok", "near", "over", None},
        "last_status_group_kind": {"open", "done", "cancelled"},
        "is_urgency_overridden": {True, False},
        "is_unknown_status": {True, False},
        "urgent_rule_name": {"Termin", "Offer 16", "Product 2", "Express", None},
    }.items():
        assert {order[column] for order in orders} == values
    assert any(order["sla_due_at"] and order["sla_due_at"] > AS_OF for order in orders)
    assert any(order["sla_paused_working_seconds"] for order in orders)
    # Some of the log is from after the instant that the orders are judged at.
    entries = [e.entered_at for p in built.projects for o in p.orders for e in o.events]
    assert any(AS_OF < entered_at < PLAUSIBLE[1] for entered_at in entries)
    cycles = built.expected["order_cycle_metrics"].values()
    assert {cycle["is_overridden"] for cycle in cycles} == {True, False}
    assert {cycle["has_impossible_duration"] for cycle in cycles} == {0, 1}
    assert any(key[3] == 0 for key in built.expected["order_cycle_metrics"])
