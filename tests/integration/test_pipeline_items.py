"""Pipeline items, built by what was written, are those of everything, and so is what they bring."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from stageline.database import connect
from tests.warm_dbt import WarmDbt

AS_OF = datetime(2026, 3, 29, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)

INSTANTS = (
    *("created_at", "call_conducted_at", "proposal_at", "agreement_at", "partner_list_due_at"),
    *("partner_list_sent_at", "first_sale_at", "closed_at"),
)

#: Items of three projects, of which steps lie on all days about `AS_OF`; a day after it one of each
#: kind, and of another item each.
ITEMS = """
insert into raw_files.pipeline_items (
    project_id, item_id, rep_id, stage, created_at, call_conducted_at, proposal_at, agreement_at,
    partner_list_due_at, partner_list_sent_at, first_sale_at, closed_at, partner_list_size
)
select
    project, n::text, (array['ann', 'bob'])[1 + n %% 2], 'PROPOSAL',
    day - interval '9 days',
    case when n %% 2 = 0 then day - interval '5 days' end,
    case when n %% 3 > 0 then day - interval '3 days' end,
    case when n %% 3 < 2 then day end,
    case when n %% 4 > 0 then day + interval '4 days' end,
    case when n %% 5 in (1, 2) then day + interval '5 days' end,
    case when n %% 10 < 4 then day + interval '8 days' end,
    case when n %% 5 = 0 then day + interval '6 days' end,
    n %% 20
from unnest(array['kyiv', 'honolulu', 'unknown']) as projects (project)
cross join generate_series(1, 60) as numbers (n)
cross join lateral (select %s + (n - 30) * interval '1 day' as day) as days
"""
PROJECTS = """
insert into settings.projects (source_system, project_id, timezone)
values ('file', 'kyiv', 'Europe/Kyiv'), ('file', 'honolulu', 'Pacific/Honolulu')
"""

Session = psycopg.Connection[Any]
Rows = dict[str, str]


def run(dbt: WarmDbt, as_of: datetime, *select: str, full_refresh: bool = False) -> None:
    dbt.run(
        *(select or ("int_pipeline_items",)),
        variables={"as_of": as_of.isoformat()},
        full_refresh=full_refresh,
    )


def kept() -> tuple[Rows, Rows]:
    """The items, and numbers of what they bring to days."""
    with connect("transformer") as session:
        items, contents = (
            dict(session.execute(query).fetchall())
            for query in (
                "select item_key, items::text from intermediate.int_pipeline_items as items",
                "select concat_ws(' ', read_for, project_id, day), contents::text"
                " from intermediate.pipeline_items_contents",
            )
        )
    return items, contents


def versions() -> dict[tuple[str, str], str]:
    """The transactions that built the items."""
    with connect("owner") as session:
        rows = session.execute(
            "select project_id, item_id, xmin::text from intermediate.int_pipeline_items"
        ).fetchall()
    return {(project, item): version for project, item, version in rows}


def execute(*statements: str) -> Callable[[Session], None]:
    """A step that writes."""

    def step(session: Session) -> None:
        for statement in statements:
            session.execute(statement.encode())

    return step


@pytest.mark.usefixtures("database")
def test_items_built_by_what_was_written_are_those_of_everything(dbt: WarmDbt) -> None:
    late = connect("owner")

    def begin_late(_: Session) -> None:
        """Written before what the run sees, and committed after it."""
        late.execute("update raw_files.pipeline_items set rep_id = 'carl' where item_id = '7'")

    steps: list[tuple[Callable[[Session], None], timedelta]] = [
        (begin_late, 0 * DAY),
        (
            execute(
                "update raw_files.pipeline_items set agreement_at = agreement_at + interval '1 h',"
                " closed_at = null, rep_id = null where item_id::int % 10 = 6"
            ),
            0 * DAY,
        ),
        (lambda _: late.commit(), 0 * DAY),
        (lambda _: None, 6 * DAY),
        (lambda _: None, -3 * DAY),
        (execute("delete from raw_files.pipeline_items where item_id::int % 9 = 2"), -3 * DAY),
        (execute("update settings.projects set timezone = 'Asia/Tokyo'"), -3 * DAY),
        (
            execute(
                "update settings.projects set is_active = false where project_id = 'kyiv'",
                "delete from raw_files.pipeline_items"
                " where project_id = 'honolulu' and item_id::int % 9 = 3",
                "insert into raw_files.pipeline_items (project_id, item_id, stage, created_at)"
                " select project_id, (1000 + n)::text, 'CALL_BOOKED', now() - interval '3 years'"
                " from settings.projects cross join generate_series(1, 60) as numbers (n)",
            ),
            0 * DAY,
        ),
        (execute("update settings.projects set is_active = true"), 0 * DAY),
        (
            execute(
                "update reference.sales_stages set sales_stage = 'agreement'"
                " where sales_stage = 'proposal'"
            ),
            0 * DAY,
        ),
        # As if it were a dump, restored to a server that has counted fewer transactions.
        (
            execute(
                "update intermediate.int_pipeline_items_positions set basis = 'another server',"
                " position = ((position::text::bigint + 10^9)::bigint::text)::xid8",
                "update raw_files.pipeline_items set rep_id = 'dan' where item_id::int % 9 = 4",
            ),
            0 * DAY,
        ),
    ]
    with connect("owner") as session:
        session.execute(PROJECTS)
        session.execute(ITEMS, [AS_OF])
    run(dbt, AS_OF, "+int_pipeline_items")
    before = kept()
    for number, (change, later) in enumerate(steps):
        with connect("owner") as session:
            change(session)
        run(dbt, AS_OF + later)
        built = kept()
        run(dbt, AS_OF + later, full_refresh=True)
        assert built == kept(), number
        # Each but the first, of which nothing is to be seen yet, changed what is kept.
        assert (built == before) == (number == 0), number
        before = built
    late.close()


@pytest.mark.usefixtures("database")
def test_only_items_of_which_something_changed_are_built_anew(dbt: WarmDbt) -> None:
    with connect("owner") as session:
        session.execute(PROJECTS)
        session.execute(ITEMS, [AS_OF])
    run(dbt, AS_OF, "+int_pipeline_items")
    before = versions()
    with connect("owner") as session:
        session.execute("update raw_files.pipeline_items set rep_id = 'x' where item_id = '12'")
        session.execute("delete from raw_files.pipeline_items where item_id = '13'")
        passed = session.execute(
            sql.SQL(
                "select project_id, item_id from raw_files.pipeline_items where %s = any(array[{}])"
            ).format(sql.SQL(", ").join(map(sql.Identifier, INSTANTS))),
            [AS_OF + DAY],
        ).fetchall()
    run(dbt, AS_OF + DAY + timedelta(hours=1))
    after = versions()

    projects = ("kyiv", "honolulu", "unknown")
    assert before.keys() - after.keys() == {(project, "13") for project in projects}
    assert len(passed) == 3 * len(INSTANTS)
    assert {key for key in after if after[key] != before[key]} == {
        *((project, "12") for project in projects),
        *((str(project), str(item)) for project, item in passed),
    }


#: What befalls an item, the day before `AS_OF` on which it does, and the days to which that brings
#: something else: those that KPIs read of, and those that forecasts do.
STEPS: tuple[tuple[str, int, set[int], set[int]], ...] = (
    ("call_conducted_at", 20, {20}, {20}),
    ("proposal_at", 15, {20, 15}, set()),
    ("agreement_at", 10, {20, 10}, {10}),
    ("partner_list_due_at", 6, {6}, set()),
    ("partner_list_sent_at", 4, {20, 6, 4}, {4}),
    ("first_sale_at", 2, {20, 4}, set()),
    ("closed_at", 1, set(), {1}),
)


@pytest.mark.usefixtures("database")
def test_each_step_of_an_item_brings_something_to_the_days_that_know_it(dbt: WarmDbt) -> None:
    with connect("owner") as session:
        session.execute(
            "insert into raw_files.pipeline_items (project_id, item_id, stage, created_at)"
            " values ('p', 'i', 'LEAD', %s)",
            [AS_OF - 30 * DAY],
        )
    run(dbt, AS_OF, "+int_pipeline_items")
    before = brought()
    assert before == {}
    for instant, days, *expected in STEPS:
        with connect("owner") as session:
            session.execute(
                sql.SQL("update raw_files.pipeline_items set {} = %s").format(
                    sql.Identifier(instant)
                ),
                [AS_OF - days * DAY],
            )
        run(dbt, AS_OF)
        after = brought()
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed == {
            (read_for, (AS_OF - day * DAY).date())
            for read_for, of_days in zip(("kpis", "forecasts"), expected, strict=True)
            for day in of_days
        }, instant
        before = after


def brought() -> dict[tuple[str, date], Decimal]:
    """Numbers of what items bring to days."""
    with connect("transformer") as session:
        rows = session.execute(
            "select read_for, day, contents from intermediate.pipeline_items_contents"
        ).fetchall()
    return {(read_for, day): contents for read_for, day, contents in rows}
