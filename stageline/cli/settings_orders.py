"""``stageline settings cycles``, ``urgent`` and ``orders``: how orders are judged."""

from datetime import datetime
from typing import Any

import click

from stageline.cli.build import require_migrations
from stageline.cli.project_rules import FROM, NOTE, add_end, add_list, of_project, step_of, when
from stageline.settings.cycle_rules import CYCLES, CycleRule, written_step
from stageline.settings.order_overrides import OVERRIDES, OrderOverride
from stageline.settings.rule_tables import ProjectKey, changing_project
from stageline.settings.urgent_rules import MATCH_TYPES, URGENT_RULES, UrgentRule

# Cycles


@click.group()
def cycles() -> None:
    """Say which cycles are measured: from entering one group or status to entering another.

    \b
    Example:
        stageline settings cycles set keycrm shop-1 "full cycle" group:new group:done
    """


@cycles.command("set")
@of_project
@click.argument("title")
@click.argument("start")
@click.argument("end")
@click.option(
    "--default/--no-default",
    "is_default",
    default=None,
    help="Whether orders show this one; as before, if not given.",
)
@FROM
def set_cycle(
    project: ProjectKey,
    title: str,
    start: str,
    end: str,
    is_default: bool | None,
    starts: datetime | None,
) -> None:
    """Set the START and END of a cycle: group:ID (or its name), or stage:ID.

    \b
    Example:
        stageline settings cycles set keycrm shop-1 "to delivery" group:new group:delivery --default
        stageline settings cycles set keycrm shop-1 "full cycle" group:new stage:20
    """
    require_migrations()
    with changing_project(project) as session:
        if is_default is None:
            rows = CYCLES.rows(session, project, {"title": title})
            is_default = bool(rows) and rows[-1].is_default
        steps: dict[str, Any] = {
            **step_of(session, project, "start", start),
            **step_of(session, project, "end", end),
        }
        row = CycleRule(title=title, is_default=is_default, **steps)
        now = CYCLES.set_from(session, project, row, starts)
    kind = "Default cycle" if now.is_default else "Cycle"
    click.echo(
        f"{kind} {title!r} of {project}:"
        f" {written_step(now.start_group_id, now.start_stage_id)} to"
        f" {written_step(now.end_group_id, now.end_stage_id)}{when(now)}."
    )


add_end(
    cycles,
    CYCLES,
    [click.argument("title")],
    "Cycle {title!r}",
    """End a cycle.

    \b
    Example:
        stageline settings cycles end keycrm shop-1 "full cycle"
    """,
)
add_list(
    cycles,
    CYCLES,
    {
        "title": lambda row: row.title,
        "start": lambda row: written_step(row.start_group_id, row.start_stage_id) or "",
        "end": lambda row: written_step(row.end_group_id, row.end_stage_id) or "",
        "default": lambda row: "yes" if row.is_default else "",
    },
    """List the cycles.

    \b
    Example:
        stageline settings cycles list keycrm shop-1
    """,
)


# Urgency


@click.group()
def urgent() -> None:
    """Say which items make an order urgent.

    \b
    Example:
        stageline settings urgent add keycrm shop-1 offer_id 16
    """


@urgent.command("add")
@of_project
@click.argument("item", type=click.Choice(MATCH_TYPES))
@click.argument("value")
@click.option("--name", help="What people call the rule; the item, if not given.")
@FROM
def add_urgent(
    project: ProjectKey, item: str, value: str, name: str | None, starts: datetime | None
) -> None:
    """Have orders be urgent that hold an item with this VALUE.

    \b
    Example:
        stageline settings urgent add keycrm shop-1 sku "Термінове виготовлення"
        stageline settings urgent add keycrm shop-1 offer_id 16 --name "Made at once"
    """
    require_migrations()
    row = UrgentRule(match_type=item, match_value=value, rule_name=name or f"{item} {value}")
    with changing_project(project) as session:
        now = URGENT_RULES.set_from(session, project, row, starts)
    click.echo(f"Orders of {project} with {item} {value} are urgent ({now.rule_name}){when(now)}.")


add_end(
    urgent,
    URGENT_RULES,
    [
        click.argument("match_type", type=click.Choice(MATCH_TYPES)),
        click.argument("match_value", metavar="VALUE"),
    ],
    "Urgency by {match_type} {match_value}",
    """End an urgent rule.

    \b
    Example:
        stageline settings urgent end keycrm shop-1 offer_id 16
    """,
)
add_list(
    urgent,
    URGENT_RULES,
    {
        "item": lambda row: row.match_type,
        "value": lambda row: row.match_value,
        "name": lambda row: row.rule_name,
    },
    """List the urgent rules.

    \b
    Example:
        stageline settings urgent list keycrm shop-1
    """,
)


# Orders judged by hand


@click.group()
def orders() -> None:
    """Judge single orders otherwise than the rules do; no webhook or rule changes that.

    \b
    Example:
        stageline settings orders set keycrm shop-1 4021 --urgent --note "promised by phone"
    """


@orders.command("set")
@of_project
@click.argument("order")
@click.option("--urgent/--not-urgent", "is_urgent", default=None, help="Whatever its items.")
@click.option("--sla", "profile", metavar="GRID", help="Grid of limits: normal or urgent.")
@click.option("--start", metavar="STEP", help="Start of its cycle: group:ID or stage:ID.")
@click.option("--end", metavar="STEP", help="End of its cycle.")
@FROM
@NOTE
def set_order(
    project: ProjectKey,
    order: str,
    is_urgent: bool | None,
    profile: str | None,
    start: str | None,
    end: str | None,
    starts: datetime | None,
    note: str | None,
) -> None:
    """Say how an ORDER is judged. What is not given is left to the rules.

    \b
    Example:
        stageline settings orders set keycrm shop-1 4021 --urgent --note "promised by phone"
        stageline settings orders set keycrm shop-1 4022 --sla normal --end stage:20
    """
    require_migrations()
    with changing_project(project) as session:
        steps: dict[str, Any] = {}
        for column, text in (("cycle_start", start), ("cycle_end", end)):
            if text is not None:
                steps |= step_of(session, project, column, text)
        row = OrderOverride(
            order_id=order, is_urgent=is_urgent, sla_profile=profile, note=note, **steps
        )
        now = OVERRIDES.set_from(session, project, row, starts)
    click.echo(f"Order {order} of {project}: {', '.join(_said_of_order(now))}{when(now)}.")


def _said_of_order(row: OrderOverride) -> list[str]:
    start = written_step(row.cycle_start_group_id, row.cycle_start_stage_id)
    end = written_step(row.cycle_end_group_id, row.cycle_end_stage_id)
    said = [
        {True: "urgent", False: "not urgent", None: None}[row.is_urgent],
        row.sla_profile and f"{row.sla_profile} limits",
        start and f"cycle from {start}",
        end and f"cycle to {end}",
    ]
    return [text for text in said if text]


add_end(
    orders,
    OVERRIDES,
    [click.argument("order_id", metavar="ORDER")],
    "What is said of order {order_id}",
    """Leave an ORDER to the rules again.

    \b
    Example:
        stageline settings orders end keycrm shop-1 4021
    """,
)
add_list(
    orders,
    OVERRIDES,
    {
        "order": lambda row: row.order_id,
        "judged": lambda row: ", ".join(_said_of_order(row)),
        "note": lambda row: row.note or "",
    },
    """List the orders that are judged by hand.

    \b
    Example:
        stageline settings orders list keycrm shop-1
    """,
)
