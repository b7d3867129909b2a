"""How a plot looks, and how it becomes a file that asks nobody for anything."""

import html
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import altair as alt
import vl_convert

from jobs.plots.reading import millis
from stageline.whole_files import whole_file

Format = Literal["png", "svg", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)

#: Size of a picture; that of a png file is twice as many pixels, for screens that have them.
WIDTH, HEIGHT, _SCALE = 1200, 700, 2

# Colours that people with any kind of colour vision tell apart (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, RED, YELLOW = "#56b4e9", "#d55e00", "#f0e442"
INK, GREY, PALE = "#1a1a1a", "#5f6368", "#e8eaed"


def data(rows: list[dict[str, Any]]) -> alt.InlineData:
    """Rows for a chart."""
    return alt.InlineData(values=rows)


def over_time(first: date, last: date) -> alt.X:
    """A horizontal axis from the first moment of one day to the last of another (field ``at``)."""
    days = (last - first).days + 1
    return alt.X(
        "at:T",
        scale=alt.Scale(type="utc", domain=[millis(first), millis(last + timedelta(days=1))]),
        axis=alt.Axis(
            format="%b %Y" if days > 120 else "%-d %b %Y",
            tickCount=min(8, days),
            grid=False,
            labelOverlap="greedy",
            labelSeparation=12,
            labelFlush=True,
        ),
        title=None,
    )


def counted(most: float, nice: bool = True) -> alt.Scale:
    """A scale from 0 to ``most``, and to something where that is 0."""
    return alt.Scale(domain=[0, max(most, 1)], nice=nice)


def framed(chart: Any, title: str, subtitle: str, height: int = HEIGHT) -> dict[str, Any]:
    """The whole specification of a picture: a chart in the common look, under its title."""
    whole = chart.properties(
        title=alt.TitleParams(title, subtitle=subtitle), description=f"{title}. {subtitle}."
    )
    if not isinstance(chart, alt.VConcatChart):
        whole = whole.properties(
            width=WIDTH, height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding")
        )
    specification: dict[str, Any] = (
        whole.configure(
            background="white",
            padding=24,
            font="Liberation Sans, Arial, Helvetica, sans-serif",
        )
        .configure_view(stroke=None)
        .configure_title(
            anchor="start",
            frame="bounds",
            fontSize=24,
            color=INK,
            subtitleFontSize=15,
            subtitleColor=GREY,
            subtitlePadding=8,
            offset=20,
            limit=WIDTH - 60,
        )
        .configure_axis(
            labelFontSize=14,
            titleFontSize=14,
            titleFontWeight="normal",
            titleColor=GREY,
            labelColor=INK,
            gridColor=PALE,
            domain=False,
            ticks=False,
            labelPadding=8,
            titlePadding=12,
            labelLimit=260,
        )
        .configure_legend(
            labelFontSize=14,
            titleFontSize=14,
            titleFontWeight="normal",
            titleColor=GREY,
            labelColor=INK,
            symbolSize=160,
            labelLimit=260,
        )
        .configure_text(fontSize=14, color=INK)
        .to_dict()
    )
    return specification


def write(specification: dict[str, Any], form: Format, path: Path) -> None:
    """Writes a picture into ``path``, whole or not at all.

    Raises:
        StagelineError: the file cannot be written.
    """
    if form == "png":
        made = vl_convert.vegalite_to_png(specification, scale=_SCALE, allowed_base_urls=[])
    elif form == "svg":
        made = vl_convert.vegalite_to_svg(specification, allowed_base_urls=[]).encode()
    else:
        made = _page(specification).encode()
    with whole_file(path, "Make its folder writable, or name another file with --output.") as file:
        file.write(made)


def _page(specification: dict[str, Any]) -> str:
    """A page that holds all it needs, and tells browsers to let it fetch nothing."""
    program = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    program = program.replace("</script", "<\\/script")
    title = html.escape(str(specification["description"]))
    # A name with "</script>" in it would end the script that it stands in.
    drawn = json.dumps(specification, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
</head>
<body>
<div id="picture"></div>
<script>{program}</script>
<script>
vegaEmbed("#picture", {drawn}, {{actions: false, renderer: "svg"}});
</script>
</body>
</html>
"""
