"""Pictures of deals on their way, and of tickets."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import altair as alt
from psycopg import sql

from jobs.plots.picture import BLUE, GREY, ORANGE, counted, data, framed, over_time
from jobs.plots.reading import Reading, day, millis, month, span, thinned


def cumulative_flow(chosen: Reading) -> dict[str, Any]:
    """How many deals had come to each major stage by each day; a band is those that are in it.

    A deal may pass a stage over: who came to a later one counts for it.
    """
    if not chosen.names("report_version"):
        chosen.narrow(f"report_version={chosen.last('report_version')}")
    chosen.choose_one("report_version", "Versions of the stage map are never added up")
    stages = chosen.session.execute(
        "select lower(major_key), display_name from reference.canonical_major_stages"
        " order by sort_order"
    ).fetchall()
    sums = sql.SQL(", ").join(
        sql.SQL("sum({})").format(sql.Identifier(f"cumulative_{key}")) for key, _ in stages
    )
    rows = chosen.rows(
        sql.SQL(
            """
            select date_day as day, array[{}]::bigint[] as came
            from chosen
            group by date_day
            order by date_day
            """
        ).format(sums)
    )
    shown = thinned([row["day"] for row in rows])
    made = []
    for row in rows:
        if row["day"] not in shown:
            continue
        further = 0
        came = []
        for count in reversed(row["came"]):
            further = max(further, count or 0)
            came.append(further)
        came = [*reversed(came), 0]
        made += [
            {
                "at": millis(at),
                "day": day(row["day"]),
                "stage": name,
                "position": position,
                "came": here,
                "there": here - later,
            }
            # The last day goes on to its end.
            for at in [row["day"], row["day"] + timedelta(days=1)][: 1 + (row is rows[-1])]
            for position, ((_, name), (here, later)) in enumerate(
                zip(stages, pairwise(came), strict=True)
            )
        ]
    names = [name for _, name in stages]
    chart = (
        alt.Chart(data(made))
        .mark_area()
        .encode(
            x=over_time(min(shown), max(shown)),
            y=alt.Y(
                "there:Q",
                stack="zero",
                title="deals that came this far",
                axis=alt.Axis(tickCount=8, tickMinStep=1),
                scale=counted(max(row["came"] for row in made)),
            ),
            order=alt.Order("position:Q", sort="descending"),
            color=alt.Color(
                "stage:N",
                sort=names,
                scale=alt.Scale(domain=names, scheme="viridis", reverse=True),
                legend=alt.Legend(title="furthest stage so far", orient="right"),
            ),
            tooltip=["day:N", "stage:N", "came:Q", "there:Q"],
        )
    )
    version = chosen.last("report_version")
    return framed(
        chart,
        "Cumulative flow: deals by the major stage that they came to",
        f"{span(day(rows[0]['day']), day(rows[-1]['day']))} · version {version} of the stage map"
        f" · {chosen.built}",
    )


def ticket_sla(chosen: Reading) -> dict[str, Any]:
    """Which share of the answers and resolutions that were judged met their targets, by month."""
    rows = chosen.rows(
        """
        select
            month,
            sum(first_responses_met) as "first response met",
            sum(first_responses_judged) as "first response",
            sum(resolutions_met) as "resolution met",
            sum(resolutions_judged) as "resolution"
        from chosen
        group by month
        order by month
        """
    )
    made = [
        {
            "month": month(row["month"]),
            "measure": name,
            "rate": 100 * row[f"{name} met"] / row[name],
            "met": row[f"{name} met"],
            "judged": row[name],
            "said": f"{row[f'{name} met']:,.0f} of {row[name]:,.0f}",
        }
        for row in rows[-24:]
        for name in ("first response", "resolution")
        if row[name]
    ]
    base = alt.Chart(data(made)).encode(
        x=alt.X("month:O", sort=None, title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        xOffset=alt.XOffset("measure:N"),
    )
    bars = base.mark_bar().encode(
        y=alt.Y(
            "rate:Q",
            scale=alt.Scale(domain=[0, 100]),
            axis=alt.Axis(tickCount=5),
            title="% within the target",
        ),
        color=alt.Color(
            "measure:N",
            scale=alt.Scale(domain=["first response", "resolution"], range=[BLUE, ORANGE]),
            legend=alt.Legend(title=None, orient="top", direction="horizontal"),
        ),
        tooltip=["month:N", "measure:N", "met:Q", "judged:Q", alt.Tooltip("rate:Q", format=".2f")],
    )
    chart: Any = bars
    if len(rows) <= 8:
        chart = bars + base.mark_text(dy=-9, fontSize=13, color=GREY).encode(
            y="rate:Q", text="said:N"
        )
    return framed(
        chart,
        "Tickets answered and resolved within their SLA",
        f"tickets created {span(month(rows[-24:][0]['month']), month(rows[-1]['month']))}"
        f" · {chosen.built}",
    )
