"""Pictures of KPI tables: what there is, and how one is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.plots import activity, flow, sales
from jobs.plots.picture import Format, write
from jobs.plots.reading import Reading, reading
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError, nearest

__all__ = ["PLOTS", "Format", "Plot", "plot", "specification"]


@dataclass(frozen=True)
class Plot:
    """A kind of picture.

    Attributes:
        table: Table of schema ``kpis`` that it is made of.
        about: What it shows.
        draw: Makes its Vega-Lite specification of rows.
        of_subject: Whether it is of one rep or team, or of all.
    """

    table: str
    about: str
    draw: Callable[[Reading], dict[str, Any]]
    of_subject: bool = False


PLOTS: Mapping[str, Plot] = {
    "call_heatmap": Plot(
        "call_heatmap", "when calls are conducted: weekday x hour", activity.call_heatmap, True
    ),
    "call_volume": Plot(
        "call_volume", "calls conducted by week, beside their target", activity.call_volume, True
    ),
    "bdr_leaderboard": Plot(
        "bdr_leaderboard",
        "rank and score of each rep, and what it is made of",
        activity.leaderboard,
    ),
    "target_attainment": Plot(
        "kpi_target_attainment", "how much of each target each rep attained", activity.attainment
    ),
    "funnel": Plot("conversion_funnel", "how far leads come", sales.funnel),
    "cohort": Plot("cohort_retention", "leads not lost, by month of creation", sales.cohort),
    "pipeline_trend": Plot(
        "sales_pipeline_daily", "open pipeline by day and currency", sales.pipeline_trend
    ),
    "pipeline_scenarios": Plot(
        "weighted_pipeline_scenarios", "pipeline by scenario and currency", sales.scenarios
    ),
    "ticket_sla": Plot("ticket_sla_compliance", "SLA of tickets by month", flow.ticket_sla),
    "cumulative_flow": Plot(
        "flow_throughput", "deals that came to each major stage, by day", flow.cumulative_flow
    ),
}


def specification(
    name: str, where: Sequence[str] = (), subject: str | None = None
) -> dict[str, Any]:
    """The picture ``name`` in Vega-Lite, with its data in it.

    Args:
        name: Of ``PLOTS``.
        where: Conditions as they were typed (`kpi_tables.conditions_on`).
        subject: Rep or team, by id, name or ``rep:ID``; all where it is not given.

    Raises:
        StagelineError: there is no such plot or table, a condition or a subject does not fit it,
            or there is nothing to show.
    """
    if name not in PLOTS:
        raise StagelineError(f"There is no plot {name}. {nearest(name, PLOTS)}")
    plot = PLOTS[name]
    if subject is not None and not plot.of_subject:
        raise StagelineError(
            f"{name} shows all of them: choose some with --where instead of --subject."
        )
    with connect("reader") as session:
        chosen = reading(session, plot.table, where)
        chosen.refuse_if_empty()
        if plot.of_subject:
            chosen.choose_subject(subject)
            chosen.refuse_if_empty()
        return plot.draw(chosen)


def plot(
    name: str,
    form: Format,
    where: Sequence[str] = (),
    subject: str | None = None,
    path: Path | None = None,
) -> Path:
    """Draws a picture into a file, ``<name>.<format>`` in the folder of exports by default.

    Raises:
        StagelineError: as of ``specification``, or the file cannot be written.
    """
    made = specification(name, where, subject)
    path = path or settings().output / f"{name}.{form}"
    write(made, form, path)
    return path
