"""``stageline settings metrics``: metrics of the users' own."""

from typing import Any

import click

from stageline.cli.build import require_migrations
from stageline.cli.project_rules import of_project
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.errors import StagelineError
from stageline.settings.durations import read_duration, written_duration
from stageline.settings.flow_metrics import METRICS, FlowMetric, point_columns, written_point
from stageline.settings.rule_tables import ProjectKey, changing_project, listed


@click.group()
def metrics() -> None:
    """Define metrics of your own: from entering one stage or sub-stage to entering another.

    \b
    Example:
        stageline settings metrics set pipedrive main "Won" --start stage:3 --end stage:7
    """


@metrics.command("set")
@of_project
@click.argument("title")
@click.option("--start", metavar="END", help="stage:ID, pipeline:ID/stage:ID or sub:KEY.")
@click.option("--end", metavar="END", help="The same.")
@click.option("--green", metavar="H:MM", help="Green up to this.")
@click.option("--red", metavar="H:MM", help="Red beyond this.")
@click.option("--working/--clock", "is_working_time", default=None, help="Which time counts.")
@click.option("--comment", help="Kept with the number.")
@click.option("--position", type=int, help="Its place among the others.")
@click.option("--on/--off", "is_on", default=None, help="Whether it is computed.")
def set_metric(
    project: ProjectKey,
    title: str,
    start: str | None,
    end: str | None,
    green: str | None,
    red: str | None,
    **given: Any,
) -> None:
    """Make a metric, or change what is given of it.

    \b
    Example:
        stageline settings metrics set pipedrive main "Offer sent" --start stage:3 \\
            --end sub:QUOTE.SENT --green 8:00 --red 24:00 --working
        stageline settings metrics set pipedrive main "Offer sent" --off
    """
    said = {name: value for name, value in given.items() if value is not None}
    for column, text in (("start", start), ("end", end)):
        if text is not None:
            said |= point_columns(column, text)
    for column, text in (("green", green), ("red", red)):
        if text is not None:
            said[f"{column}_limit_seconds"] = read_duration(text, f"The {column} limit")
    require_migrations()
    with changing_project(project) as session:
        before = METRICS.rows(session, project, {"title": title})
        row = FlowMetric(**{**(vars(before[0]) if before else {}), "title": title, **said})
        now = (METRICS.update if before else METRICS.insert)(session, project, row)
    click.echo(f"Metric {title!r} of {project}: {_start(now)} to {_finish(now)}.")


def _start(row: FlowMetric) -> str:
    return written_point(row.start_pipeline_id, row.start_stage_id, row.start_sub_key)


def _finish(row: FlowMetric) -> str:
    return written_point(row.end_pipeline_id, row.end_stage_id, row.end_sub_key)


@metrics.command("remove")
@of_project
@click.argument("title")
def remove_metric(project: ProjectKey, title: str) -> None:
    """Remove a metric; --off of `set` keeps it, without computing it.

    \b
    Example:
        stageline settings metrics remove pipedrive main "Offer sent"
    """
    require_migrations()
    with changing_project(project) as session:
        rows = METRICS.rows(session, project, {"title": title})
        if not rows:
            raise StagelineError(
                f"{project} has no metric {title!r}."
                f" `stageline settings metrics list {project}` lists them."
            )
        METRICS.delete(session, project, rows[0])
    click.echo(f"Metric {title!r} of {project} is removed.")


@metrics.command("list")
@of_project
def list_metrics(project: ProjectKey) -> None:
    """List the metrics, in their order.

    \b
    Example:
        stageline settings metrics list pipedrive main
    """
    require_migrations()
    rows = sorted(
        listed(METRICS, project), key=lambda row: (row.position is None, row.position, row.title)
    )
    titles = ("title", "start", "end", "time", "green", "red", "on", "comment")
    show_or_say(
        [Column(title, is_number=title in ("green", "red")) for title in titles],
        [
            (
                row.title,
                _start(row),
                _finish(row),
                "working" if row.is_working_time else "clock",
                written_duration(row.green_limit_seconds) if row.green_limit_seconds else "",
                written_duration(row.red_limit_seconds) if row.red_limit_seconds else "",
                "yes" if row.is_on else "no",
                row.comment or "",
            )
            for row in rows
        ],
        f"{project} has no metric of its own.",
    )
