"""``stageline plot``: KPI tables as pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from stageline.cli.conditions import where_option
from stageline.errors import StagelineError

if TYPE_CHECKING:
    from jobs.plots import Format

_FORMATS = ("png", "svg", "html")


@click.command()
@click.argument("name", metavar="PLOT")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file; its ending says how to draw: .png, .svg or .html. By default PLOT.png in the"
    " folder of exports (STAGELINE_OUTPUT).",
)
@click.option("--subject", metavar="WHO", help="One rep or team: id, name or rep:ID; else all.")
@where_option
def plot(name: str, output: Path | None, subject: str | None, where: tuple[str, ...]) -> None:
    """Draw a KPI table.

    An html file shows each number under the mouse; it has all it needs in it and asks nobody.

    \b
    call_heatmap        when calls are conducted: weekday x hour (--subject)
    call_volume         calls conducted by week, beside their target (--subject)
    bdr_leaderboard     rank and score of each rep, and what it is made of
    target_attainment   how much of each target each rep attained
    funnel              how far leads come
    cohort              leads not lost, by month of creation
    pipeline_trend      open pipeline by day and currency
    pipeline_scenarios  pipeline by scenario and currency
    ticket_sla          SLA of tickets by month
    cumulative_flow     deals that came to each major stage, by day

    \b
    Example:
        stageline plot funnel
        stageline plot cohort -o retention.svg -w 'cohort_month>=2024-01-01'
        stageline plot call_heatmap --subject 'Ana Costa' -o ana.html
        stageline plot bdr_leaderboard -w period_type=week -o week.png
        stageline plot bdr_leaderboard -w period_start=2026-10-01 -w subject_type=team
    """
    from jobs.plots import plot as draw
    from stageline.cli.build import require_migrations

    require_migrations()
    form = output.suffix.removeprefix(".").lower() if output else "png"
    if form not in _FORMATS:
        raise StagelineError(
            f"{output} does not say how to draw: end its name in .{', .'.join(_FORMATS)}.",
            exit_code=2,
        )
    click.echo(f"Wrote {draw(name, cast('Format', form), where, subject, output)}.")
