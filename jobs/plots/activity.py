"""Pictures of what reps do: calls, ranks, targets."""

from typing import Any

import altair as alt
from psycopg import sql

from jobs.plots.picture import (
    BLUE,
    GREEN,
    HEIGHT,
    INK,
    ORANGE,
    SKY,
    counted,
    data,
    framed,
)
from jobs.plots.reading import Reading, day, labels, many, month, span
from stageline.errors import StagelineError
from stageline.settings.projects import NO_CURRENCY

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

#: Subjects that are shown at most, weeks likewise.
_SUBJECTS, _WEEKS = 25, 26

#: Parts of a score: column of the leaderboard, its component of `reference.score_weights`, colour.
_PARTS = (
    ("calls", SKY),
    ("agreements", BLUE),
    ("lists", ORANGE),
    ("sales", GREEN),
)


#: How a week stands to its target, and in which colour.
_REACHED = {
    "target reached": BLUE,
    "below the target": ORANGE,
    "week goes on": SKY,
    "no target": "#8fa3b5",
}


def call_heatmap(chosen: Reading) -> dict[str, Any]:
    """How many calls were conducted in each hour of each weekday."""
    rows = chosen.rows(
        """
        select
            weekday,
            hour,
            sum(conducted) as conducted,
            sum(booked) as booked,
            sum(due) as due,
            sum(held) as held
        from chosen
        group by weekday, hour
        order by weekday, hour
        """
    )
    by_cell = {(row["weekday"], row["hour"]): row for row in rows}
    busy = [row["hour"] for row in rows if row["conducted"] or row["booked"]]
    hours = range(min([8, *busy]), max([17, *busy]) + 1)
    weekdays = [at for at in range(1, 8) if at <= 5 or any((at, hour) in by_cell for hour in hours)]
    made: list[dict[str, Any]] = []
    for weekday in weekdays:
        for hour in hours:
            row = by_cell.get((weekday, hour), {})
            conducted = row.get("conducted") or 0
            made.append(
                {
                    "weekday": _WEEKDAYS[weekday - 1],
                    "hour": f"{hour}:00",
                    "conducted": conducted,
                    "booked": row.get("booked") or 0,
                    "held": f"{row.get('held') or 0:,.0f} of {row.get('due') or 0:,.0f} due",
                    "said": f"{conducted:,.0f}" if conducted else "",
                }
            )
    most = max(row["conducted"] for row in made)
    total = sum(row["conducted"] for row in made)
    base = alt.Chart(data(made)).encode(
        x=alt.X("hour:O", sort=None, title="hour of the day", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("weekday:O", sort=None, title=None),
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color(
            "conducted:Q",
            scale=alt.Scale(
                range=["#f1f3f4", "#9ecae1", BLUE, "#08306b"], domain=[0, max(most, 1)]
            ),
            legend=alt.Legend(title="calls", orient="right", gradientLength=220, tickMinStep=1),
        ),
        tooltip=["weekday:O", "hour:O", "conducted:Q", "booked:Q", "held:N"],
    )
    said = base.mark_text(fontSize=15).encode(
        text="said:N",
        color=alt.condition(f"datum.conducted > {most * 0.45}", alt.value("white"), alt.value(INK)),
    )
    return framed(
        cells + said,
        "Calls conducted, by weekday and hour",
        f"{chosen.about or 'the rows chosen'} · {many(total, 'calls')} of the last weeks, in the"
        f" project's zone · {chosen.built}",
    )


def call_volume(chosen: Reading) -> dict[str, Any]:
    """Calls conducted in each week, with the target where there is one."""
    chosen.narrow("period_type=week")
    # Calls are booked for weeks to come; the present one is the last in which any fell due.
    present_week = chosen.session.execute(
        sql.SQL(
            "select max(period_start) from {} where period_type = 'week'"
            " and (due > 0 or conducted > 0)"
        ).format(chosen.table.identifier)
    ).fetchone()
    if present_week and present_week[0]:
        chosen.narrow(f"period_start<={present_week[0]}")
    chosen.refuse_if_empty()
    rows = chosen.rows(
        """
        select
            period_start,
            sum(conducted) as conducted,
            sum(target) as target,
            sum(held) as held,
            sum(due) as due
        from chosen
        group by period_start
        order by period_start desc
        limit %s
        """,
        _WEEKS,
    )[::-1]
    last = rows[-1]["period_start"]
    is_running = present_week == (last,)
    made = [
        {
            "week": f"{row['period_start'].day} {row['period_start']:%b}",
            "from": day(row["period_start"]),
            "conducted": row["conducted"] or 0,
            "target": row["target"],
            "held": f"{row['held'] or 0:,.0f} of {row['due'] or 0:,.0f} due",
            "said": f"{row['conducted'] or 0:,.0f}",
            "reached": _reached(row, is_running and row["period_start"] == last),
        }
        for row in rows
    ]
    most = max(row["conducted"] for row in made)
    states = {row["reached"] for row in made}
    base = alt.Chart(data(made)).encode(
        x=alt.X(
            "week:O",
            sort=None,
            title="week from Monday",
            axis=alt.Axis(labelAngle=0, labelOverlap="parity", labelSeparation=8),
        )
    )
    bars = base.mark_bar().encode(
        y=alt.Y(
            "conducted:Q",
            title="calls conducted",
            axis=alt.Axis(tickMinStep=1),
            scale=counted(max(most, *(row["target"] or 0 for row in made))),
        ),
        color=alt.Color(
            "reached:N",
            scale=alt.Scale(
                domain=(present := [each for each in _REACHED if each in states]),
                range=[_REACHED[each] for each in present],
            ),
            legend=alt.Legend(title=None, orient="top", direction="horizontal"),
        ),
        tooltip=["from:N", "conducted:Q", "target:Q", "held:N"],
    )
    marks = base.mark_tick(color=INK, opacity=1, thickness=3, width=alt.RelativeBandSize(1)).encode(
        y="target:Q"
    )
    # At the foot of a bar, where no target is in the way.
    said = base.mark_text(baseline="bottom", dy=-6, fontSize=13).encode(
        y=alt.datum(0),
        text="said:N",
        color=alt.condition(
            f"datum.reached == 'target reached' && datum.conducted > {most / 20}",
            alt.value("white"),
            alt.value(INK),
        ),
    )
    has_target = any(row["target"] for row in made)
    return framed(
        bars + marks + said if has_target else bars + said,
        "Calls conducted by week" + (", beside the target (black line)" if has_target else ""),
        f"{chosen.about or 'the rows chosen'} · weeks from"
        f" {span(day(rows[0]['period_start']), day(last))} · {chosen.built}",
    )


def _reached(row: dict[str, Any], is_running: bool) -> str:
    if not row["target"]:
        return "no target"
    if (row["conducted"] or 0) >= row["target"]:
        return "target reached"
    return "week goes on" if is_running else "below the target"


def leaderboard(chosen: Reading) -> dict[str, Any]:
    """Reps by score in the last period, with the parts that the score is the sum of."""
    if not chosen.names("subject_"):
        chosen.narrow("subject_type=rep")
    period = _last_period(chosen, "month")
    _one_project(chosen)
    chosen.choose_one("subject_type", "Ranks are among reps, or among teams")
    rows = chosen.rows(
        """
        select
            subject_id, subject_name, rank, score, rank_change, previous_rank,
            calls, agreements, lists, sales
        from chosen
        order by rank, subject_name, subject_id
        """
    )
    weights = dict(
        chosen.session.execute(
            "select component, weight::float8 from reference.score_weights"
        ).fetchall()
    )
    shown = rows[:_SUBJECTS]
    names = labels([row["subject_name"] or row["subject_id"] for row in shown])
    made: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for name, row in zip(names, shown, strict=True):
        label = name if row["rank"] is None else f"{row['rank']}. {name}"
        for position, (part, _) in enumerate(_PARTS):
            made.append(
                {
                    "who": label,
                    "part": f"{part} x {weights[part]:g}",
                    "position": position,
                    "count": row[part] or 0,
                    "points": (row[part] or 0) * weights[part],
                }
            )
        ends.append({"who": label, "score": row["score"] or 0, "said": _standing(row)})
    most = max(row["score"] for row in ends)
    y = alt.Y("who:N", sort=None, title=None, scale=alt.Scale(paddingInner=0.2))
    bars = (
        alt.Chart(data(made))
        .mark_bar()
        .encode(
            y=y,
            x=alt.X(
                "points:Q",
                title="points",
                axis=alt.Axis(tickCount=8),
                scale=counted(most * 1.18, nice=False),
            ),
            order="position:O",
            color=alt.Color(
                "part:N",
                sort=None,
                scale=alt.Scale(
                    domain=[f"{part} x {weights[part]:g}" for part, _ in _PARTS],
                    range=[colour for _, colour in _PARTS],
                ),
                legend=alt.Legend(title=None, orient="top", direction="horizontal"),
            ),
            tooltip=["who:N", "part:N", "count:Q", "points:Q"],
        )
    )
    said = (
        alt.Chart(data(ends)).mark_text(align="left", dx=8).encode(y=y, x="score:Q", text="said:N")
    )
    kind = (
        "teams"
        if chosen.rows("select 1 from chosen where subject_type = 'team' limit 1")
        else "reps"
    )
    about = many(sum(row["rank"] is not None for row in rows), kind)
    if len(rows) > len(shown):
        about = f"the first {len(shown)} of {about}"
    return framed(
        bars + said,
        f"Leaderboard, {period}",
        f"{about} · with the rank, and places won or lost since the period before · {chosen.built}",
        _height(len(shown)),
    )


def _standing(row: dict[str, Any]) -> str:
    score = f"{row['score'] or 0:,g}"
    if row["rank"] is None:
        return score
    if row["previous_rank"] is None:
        return f"{score} · new"
    moved = row["rank_change"] or 0
    sign = f"▲{moved}" if moved > 0 else f"▼{-moved}" if moved < 0 else "="
    return f"{score} · {sign}"


def attainment(chosen: Reading) -> dict[str, Any]:
    """Which share of each target was attained in the last period, by subject and KPI."""
    if not chosen.names("subject_"):
        chosen.narrow("subject_type in rep,all")
    period = _last_period(chosen, "month")
    _one_project(chosen)
    rows = chosen.rows(
        """
        select
            subject_type, subject_id, subject_name, kpi, currency, actual, target, attainment_pct,
            status
        from chosen
        where target is not null
        order by (subject_type = 'rep'), subject_type, subject_name, subject_id, kpi, currency
        """
    )
    subjects = [*dict.fromkeys((row["subject_type"], row["subject_id"]) for row in rows)]
    named = {(row["subject_type"], row["subject_id"]): row["subject_name"] for row in rows}
    shown = subjects[:_SUBJECTS]
    label = dict(zip(shown, labels([_called(key, named[key]) for key in shown]), strict=True))
    made = [
        {
            "who": label[row["subject_type"], row["subject_id"]],
            "kpi": row["kpi"].replace("_", " ")
            + ("" if row["currency"] == NO_CURRENCY else f" {row['currency']}"),
            "rate": row["attainment_pct"],
            "actual": row["actual"] or 0,
            "target": row["target"],
            "status": row["status"],
            "said": "" if row["attainment_pct"] is None else f"{row['attainment_pct']:,.0f} %",
        }
        for row in rows
        if (row["subject_type"], row["subject_id"]) in label
    ]
    if not made:
        raise StagelineError(
            "No target is set for these rows; no file was written. Set one with `stageline settings"
            " targets`, then run `stageline build`."
        )
    base = alt.Chart(data(made)).encode(
        x=alt.X("kpi:N", title=None, axis=alt.Axis(orient="top", labelAngle=0)),
        y=alt.Y("who:N", sort=None, title=None),
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color(
            "rate:Q",
            scale=alt.Scale(
                domain=[0, 99.99, 100, 150],
                range=[ORANGE, "#fdf3dc", "#d6e8f5", BLUE],
                interpolate="rgb",
                clamp=True,
            ),
            legend=alt.Legend(
                title="% of target",
                orient="right",
                gradientLength=min(220, _height(len(shown)) - 180),
            ),
        ),
        tooltip=[
            "who:N",
            "kpi:N",
            alt.Tooltip("actual:Q", format=",.2f"),
            alt.Tooltip("target:Q", format=",.2f"),
            "status:N",
        ],
    )
    said = base.mark_text(fontSize=15).encode(
        text="said:N",
        color=alt.condition("datum.rate > 128", alt.value("white"), alt.value(INK)),
    )
    about = f"the first {len(shown)} of {len(subjects)} · " if len(subjects) > len(shown) else ""
    return framed(
        cells + said,
        f"Targets attained, {period}",
        f"{about}share of the target attained; orange is below, blue above · {chosen.built}",
        _height(len(shown)),
    )


def _called(subject: tuple[str, str], name: str | None) -> str:
    return "all reps" if subject[0] == "all" else name or subject[1]


def _height(rows: int) -> int:
    """Of a picture with so many rows: few ones are not to be as high as a hand."""
    return min(HEIGHT, 260 + 60 * rows)


def _last_period(chosen: Reading, kind: str) -> str:
    """Keeps the last period of its kind, and says which that is."""
    if not chosen.names("period_type"):
        chosen.narrow(f"period_type={kind}")
    chosen.choose_one("period_type", "Weeks and months are never added up")
    chosen.refuse_if_empty()
    start = chosen.last("period_start")
    chosen.narrow(f"period_start={start}")
    (row,) = chosen.rows("select min(period_type) as kind from chosen")
    so_far = " so far" if chosen.is_newest(row["kind"], start) else ""
    return (f"week of {day(start)}" if row["kind"] == "week" else month(start)) + so_far


def _one_project(chosen: Reading) -> None:
    for column in ("source_system", "project_id"):
        chosen.choose_one(column, "Reps are compared within a project")
