"""``stageline settings sla`` and ``waiting``: how long is too long, and when no clock runs."""

from datetime import datetime

import click

from stageline.cli.build import require_migrations
from stageline.cli.project_rules import (
    FROM,
    NOTE,
    add_end,
    add_list,
    group_of,
    in_force,
    of_project,
    show_rules,
    times,
    when,
)
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.settings.dictionaries import GROUPS, STAGES, is_final
from stageline.settings.durations import read_duration, written_duration
from stageline.settings.numbers import written_number
from stageline.settings.rule_tables import ProjectKey, changing_project, listed
from stageline.settings.sla_rules import (
    LIMITS,
    THRESHOLDS,
    WAITING,
    NearThreshold,
    SlaLimit,
    WaitingStage,
    read_share,
)

# SLA


@click.group()
def sla() -> None:
    """Say how long an order may stay in a group of stages.

    A visit is judged by the limit that was in force when it began.

    \b
    Example:
        stageline settings sla set keycrm shop-1 production 24:00
        stageline settings sla list keycrm shop-1
    """


@sla.command("set")
@of_project
@click.argument("group")
@click.argument("limit")
@click.option("--urgent", is_flag=True, help="In the grid of urgent orders.")
@FROM
@NOTE
def set_limit(
    project: ProjectKey,
    group: str,
    limit: str,
    urgent: bool,
    starts: datetime | None,
    note: str | None,
) -> None:
    """Set the LIMIT of a GROUP (its id or name) in working time, as 24:00, 24h or 90m.

    \b
    Example:
        stageline settings sla set keycrm shop-1 production 24:00
        stageline settings sla set keycrm shop-1 production 16:00 --urgent
        stageline settings sla set keycrm shop-1 production 20:00 --from 2027-03-01
    """
    seconds = read_duration(limit, "The limit")
    require_migrations()
    with changing_project(project) as session:
        group_id = group_of(session, project, group)
        if is_final(session, project, group_id):
            click.echo(f"note: orders are finished in {group}: no clock runs there.", err=True)
        row = SlaLimit(group_id=group_id, is_urgent=urgent, limit_seconds=seconds, note=note)
        now = LIMITS.set_from(session, project, row, starts)
    grid = "urgent orders" if urgent else "orders"
    click.echo(
        f"Limit of {grid} in group {now.group_id} of {project}:"
        f" {written_duration(now.limit_seconds)}{when(now)}."
    )


@sla.command("list")
@of_project
@in_force
def list_limits(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the limits.

    \b
    Example:
        stageline settings sla list keycrm shop-1
        stageline settings sla list keycrm shop-1 --all
    """
    require_migrations()
    names = {group.group_id: group.name for group in listed(GROUPS, project)}
    show_rules(
        LIMITS,
        project,
        at,
        is_all,
        {
            "group": lambda row: row.group_id,
            "name": lambda row: names.get(row.group_id, ""),
            "grid": lambda row: "urgent" if row.is_urgent else "normal",
            "limit": lambda row: written_duration(row.limit_seconds),
            "note": lambda row: row.note or "",
        },
    )


@sla.command()
@of_project
@click.argument("percent", required=False)
@FROM
def near(project: ProjectKey, percent: str | None, starts: datetime | None) -> None:
    """Set from which share of a limit on a visit is near it; show it, if PERCENT is left out.

    \b
    Example:
        stageline settings sla near keycrm shop-1
        stageline settings sla near keycrm shop-1 75 --from 2027-03-01
    """
    require_migrations()
    if percent is None:
        rows = listed(THRESHOLDS, project)
        show_or_say(
            [Column("near from %", is_number=True), Column("from"), Column("to")],
            [(written_number(row.near_pct), *times(row)) for row in rows],
            f"{project} has no near threshold of its own: it is 80 %.",
        )
        return
    row = NearThreshold(near_pct=read_share(percent))
    with changing_project(project) as session:
        now = THRESHOLDS.set_from(session, project, row, starts)
    click.echo(
        f"Visits of {project} are near from {written_number(now.near_pct)} % of a limit{when(now)}."
    )


add_end(
    sla,
    LIMITS,
    [
        click.argument("group_id", metavar="GROUP"),
        click.option("--urgent", "is_urgent", is_flag=True, help="In the grid of urgent orders."),
    ],
    "Limit of group {group_id}",
    """End the limit of a GROUP, so that its visits are not judged.

    \b
    Example:
        stageline settings sla end keycrm shop-1 production --urgent --at 2027-03-01
    """,
)


# Waiting


@click.group()
def waiting() -> None:
    """Say in which statuses the clock of the SLA pauses.

    \b
    Example:
        stageline settings waiting add keycrm shop-1 15 --for payment
    """


@waiting.command("add")
@of_project
@click.argument("stage")
@click.option("--for", "waits_for", default="", help="What is waited for.")
@FROM
def add_waiting(project: ProjectKey, stage: str, waits_for: str, starts: datetime | None) -> None:
    """Have the clock pause in a STAGE (the id of a status).

    \b
    Example:
        stageline settings waiting add keycrm shop-1 15 --for payment
    """
    require_migrations()
    with changing_project(project) as session:
        stages = STAGES.rows(session, project)
        if stages and stage not in {row.stage_id for row in stages}:
            click.echo(f"note: {project} has no stage {stage} yet.", err=True)
        now = WAITING.set_from(
            session, project, WaitingStage(stage_id=stage, waits_for=waits_for), starts
        )
    click.echo(f"The clock pauses in stage {stage} of {project}{when(now)}.")


add_end(
    waiting,
    WAITING,
    [click.argument("stage_id", metavar="STAGE")],
    "Waiting in stage {stage_id}",
    """Have the clock run in a STAGE again.

    \b
    Example:
        stageline settings waiting end keycrm shop-1 15
    """,
)
add_list(
    waiting,
    WAITING,
    {
        "stage": lambda row: row.stage_id,
        "for": lambda row: row.waits_for,
    },
    """List the statuses in which the clock pauses.

    \b
    Example:
        stageline settings waiting list keycrm shop-1
    """,
)
