"""Pictures of leads and of the pipeline."""

from datetime import timedelta
from typing import Any

import altair as alt

from jobs.plots.picture import BLUE, HEIGHT, INK, PALE, SKY, WIDTH, counted, data, framed, over_time
from jobs.plots.reading import Reading, day, labels, many, millis, month, span, thinned
from stageline.settings.projects import NO_CURRENCY

#: Currencies that have a panel of their own, those with the most in them first.
_PANELS = 4


def funnel(chosen: Reading) -> dict[str, Any]:
    """How many leads reached each stage, and which share of the stage before that is."""
    rows = chosen.rows(
        """
        select
            funnel_stage as stage,
            min(funnel_order) as position,
            coalesce(sum(stage_count), 0) as reached,
            coalesce(sum(lead_count), 0) as leads,
            sum(previous_stage_count) as before,
            min(month) as first,
            max(month) as last
        from chosen
        group by funnel_stage
        order by position, stage
        """
    )
    leads = max(row["leads"] for row in rows)
    made = [
        {
            "stage": row["stage"],
            "reached": row["reached"],
            "leads": row["leads"],
            "said": f"{row['reached']:,.0f}"
            + (
                f" · {100 * row['reached'] / row['before']:.0f} % of the stage before"
                if row["before"]
                else ""
            ),
        }
        for row in rows
    ]
    base = alt.Chart(data(made)).encode(
        y=alt.Y("stage:N", sort=None, title=None, scale=alt.Scale(paddingInner=0.25)),
    )
    scale = counted(max(leads, 1) * 1.3, nice=False)
    bars = base.mark_bar(color=BLUE).encode(
        x=alt.X("reached:Q", scale=scale, axis=None),
        tooltip=["stage:N", "reached:Q", "leads:Q"],
    )
    said = base.mark_text(align="left", dx=10, fontSize=17).encode(x="reached:Q", text="said:N")
    return framed(
        bars + said,
        "Conversion funnel: leads that reached each stage",
        f"{many(leads, 'leads')} created {span(month(rows[0]['first']), month(rows[0]['last']))}"
        f" · {chosen.built}",
    )


def cohort(chosen: Reading) -> dict[str, Any]:
    """Which share of the leads of each month was not lost, by months since."""
    most = 24
    rows = chosen.rows(
        """
        select cohort_month, months_since, cohort_size, retained_leads, retention_rate_pct
        from chosen
        where
            cohort_month in (select distinct cohort_month from chosen order by 1 desc limit %s)
            and months_since < %s
        order by cohort_month, months_since
        """,
        most,
        most,
    )
    (seen,) = chosen.rows(
        "select count(distinct cohort_month) as cohorts, max(months_since) as months from chosen"
    )
    made = [
        {
            "cohort": f"{month(row['cohort_month'])} · {many(row['cohort_size'] or 0, 'leads')}",
            "months": row["months_since"],
            "rate": row["retention_rate_pct"],
            "said": "" if row["retention_rate_pct"] is None else f"{row['retention_rate_pct']:.0f}",
            "retained": row["retained_leads"],
        }
        for row in rows
    ]
    # Cells of a few months would be as high as a hand.
    height = min(HEIGHT, 260 + 70 * len({row["cohort"] for row in made}))
    base = alt.Chart(data(made)).encode(
        x=alt.X("months:O", title="months since the lead was created", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("cohort:N", sort=None, title=None),
    )
    cells = base.mark_rect(stroke="white").encode(
        color=alt.Color(
            "rate:Q",
            scale=alt.Scale(scheme="blues", domain=[0, 100]),
            legend=alt.Legend(
                title="% not lost", orient="right", gradientLength=min(220, height - 180)
            ),
        ),
        tooltip=["cohort:N", "months:O", "retained:Q", "rate:Q"],
    )
    said = base.mark_text(fontSize=13).encode(
        text="said:N",
        color=alt.condition("datum.rate > 55", alt.value("white"), alt.value(INK)),
    )
    left_out = [
        f"the last {most} of {seen['cohorts']} months" if seen["cohorts"] > most else "",
        f"the first {most} of {seen['months'] + 1} months since" if seen["months"] >= most else "",
    ]
    return framed(
        cells + said,
        "Retention: leads not lost, in % of those created in the month",
        " · ".join(
            [
                "leads created "
                + span(month(rows[0]["cohort_month"]), month(rows[-1]["cohort_month"])),
                *filter(None, left_out),
                chosen.built,
            ]
        ),
        height,
    )


def pipeline_trend(chosen: Reading) -> dict[str, Any]:
    """The open pipeline by day: its value, and that weighted by the chance to win."""
    rows = chosen.rows(
        """
        select
            currency,
            day,
            sum(open_value) as open,
            sum(open_weighted_value) as weighted
        from chosen
        group by currency, day
        order by currency, day
        """
    )
    by_currency: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_currency.setdefault(row["currency"], []).append(row)
    panels = sorted(by_currency, key=lambda each: -(by_currency[each][-1]["open"] or 0))
    shown = {*thinned([*{row["day"] for row in rows}])}
    charts = []
    for currency in panels[:_PANELS]:
        days = by_currency[currency]
        most = max(row["open"] or 0 for row in days)
        made = [
            {"at": millis(at), "day": day(row["day"]), "measure": name, "value": row[key]}
            for row in days
            for at in [row["day"], row["day"] + timedelta(days=1)][: 1 + (row is days[-1])]
            if row["day"] in shown
            for name, key in (("open", "open"), ("weighted by chance", "weighted"))
        ]
        charts.append(
            alt.Chart(data(made))
            .mark_area(line={"strokeWidth": 2}, fillOpacity=0.25, interpolate="step-after")
            .encode(
                x=over_time(min(shown), max(shown)),
                y=alt.Y(
                    "value:Q",
                    stack=None,
                    title=_named(currency),
                    axis=_money(),
                    scale=counted(most),
                ),
                color=alt.Color(
                    "measure:N",
                    scale=alt.Scale(domain=["open", "weighted by chance"], range=[SKY, BLUE]),
                    legend=alt.Legend(title=None, orient="top", direction="horizontal"),
                ),
                tooltip=["day:N", "measure:N", alt.Tooltip("value:Q", format=",.2f")],
            )
        )
    return framed(
        _stacked(charts),
        "Open pipeline by day",
        " · ".join(
            [
                span(day(min(shown)), day(max(shown))),
                *_left_out(len(panels)),
                "each currency by itself",
                chosen.built,
            ]
        ),
    )


def scenarios(chosen: Reading) -> dict[str, Any]:
    """What the open pipeline is worth in each scenario."""
    rows = chosen.rows(
        """
        select
            currency,
            scenario,
            sum(weighted_pipeline_value) as weighted,
            sum(total_pipeline_value) as total,
            sum(deal_count) as deals
        from chosen
        group by currency, scenario
        order by currency, weighted desc, scenario
        """
    )
    by_currency: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_currency.setdefault(row["currency"], []).append(row)
    panels = sorted(by_currency, key=lambda each: -(by_currency[each][0]["total"] or 0))
    charts = []
    for currency in panels[:_PANELS]:
        of_currency = by_currency[currency]
        names = labels([row["scenario"].replace("_", " ") for row in of_currency])
        made = [
            {
                "scenario": name,
                "weighted": row["weighted"] or 0,
                "total": row["total"] or 0,
                "deals": row["deals"],
            }
            for name, row in zip(names, of_currency, strict=True)
        ]
        scale = counted(1.15 * max(max(row["weighted"], row["total"]) for row in made), nice=False)
        base = alt.Chart(data(made)).encode(y=alt.Y("scenario:N", sort=None, title=None))
        charts.append(
            base.mark_bar(color=PALE).encode(
                x=alt.X("total:Q", scale=scale, title=_named(currency), axis=_money())
            )
            + base.mark_bar(color=BLUE).encode(
                x="weighted:Q",
                tooltip=["scenario:N", "deals:Q", alt.Tooltip("weighted:Q", format=",.2f")],
            )
            + base.mark_text(align="left", dx=8).encode(
                x="weighted:Q", text=alt.Text("weighted:Q", format=",.0f")
            )
        )
    return framed(
        _stacked(charts),
        "Pipeline by scenario",
        " · ".join(
            [
                "blue: weighted value, grey: value of all deals that are in it",
                *_left_out(len(panels)),
                chosen.built,
            ]
        ),
    )


def _stacked(charts: list[Any]) -> Any:
    """One panel below the other, in a picture of the common size."""
    if len(charts) == 1:
        return charts[0]
    height = (HEIGHT - 170) // len(charts) - 50
    return alt.vconcat(*(each.properties(width=WIDTH - 170, height=height) for each in charts))


def _money() -> alt.Axis:
    return alt.Axis(format="~s", tickCount=5, labelExpr="datum.value == 0 ? '0' : datum.label")


def _named(currency: str) -> str:
    return "no currency stated" if currency == NO_CURRENCY else currency


def _left_out(panels: int) -> list[str]:
    return [f"the largest {_PANELS} of {panels} currencies"] if panels > _PANELS else []
