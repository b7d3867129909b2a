"""Makes the Data Docs of Great Expectations readable without a network, and silent.

The pages it renders load styles, scripts and a logo from ten hosts, the logo with an identifier
of this installation in its address. Whoever opens the report would call them all, and without a
network the index, which is drawn by one of those scripts, is empty. So what is loaded from
elsewhere is taken out, a small style sheet is put beside the pages, and the index is a plain table.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.DOTALL | re.IGNORECASE)
_REMOTE_TAG = re.compile(
    r"<(?:link|img)\b[^>]*(?:href|src)\s*=\s*[\"']https?://[^>]*>", re.DOTALL | re.IGNORECASE
)
_REMOTE_STYLE = re.compile(r"url\(\s*[\"']?https?://[^)]*\)", re.IGNORECASE)
_FOOTER = re.compile(r"<footer\b.*?</footer\s*>", re.DOTALL | re.IGNORECASE)
#: The switch between all and failed expectations needs the scripts.
_ACTIONS = re.compile(
    r'<div class="card mb-3">\s*<div class="card-header p-2">\s*<strong>Actions</strong>.*?'
    r"(?=<div class=\"card d-md-block)",
    re.DOTALL,
)
_HEAD_END = re.compile(r"</head\s*>", re.IGNORECASE)

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
nav.navbar { height: auto !important; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; }
th, td { text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
.badge { border: 1px solid #8888; border-radius: .25rem; padding: 0 .3rem; }
.alert { border-left: 4px solid #888; padding-left: .8rem; }
.text-danger { color: #c62828; } .text-success { color: #2e7d32; } .text-warning { color: #b26a00; }
i.fa-times::before { content: "\\2717"; } i.fa-check-circle::before { content: "\\2713"; }
i.fa-exclamation-triangle::before { content: "!"; }
.card-header { font-weight: bold; } .collapse { display: block; font-size: 13px; }
.ge-breadcrumbs, .breadcrumb { list-style: none; padding: 0; }
.breadcrumb li { display: inline; margin-right: 1rem; }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #eee; }
  a { color: #8ab4f8; }
}
"""


@dataclass(frozen=True)
class IndexRow:
    """One table in the index: its name, its figures, and the page with its results (or None)."""

    table: str
    rows: int | None
    passed: int
    warnings: int
    critical: int
    note: str
    page: Path | None


def make_offline(site: Path, title: str, rows: list[IndexRow]) -> None:
    """Rewrites every page below ``site`` to load nothing from elsewhere, and writes the index."""
    (site / "static").mkdir(parents=True, exist_ok=True)
    (site / "static" / "stageline.css").write_text(_STYLE, encoding="utf-8")
    for page in site.rglob("*.html"):
        depth = len(page.relative_to(site).parts) - 1
        text = page.read_text(encoding="utf-8")
        page.write_text(offline(text, "../" * depth + "static/stageline.css"), encoding="utf-8")
    (site / "index.html").write_text(_index(site, title, rows), encoding="utf-8")


def offline(page: str, style: str) -> str:
    """The page without what is loaded from elsewhere, with ``style`` as its style sheet."""
    for pattern in (_SCRIPT, _REMOTE_TAG, _FOOTER, _ACTIONS):
        page = pattern.sub("", page)
    page = _REMOTE_STYLE.sub("none", page)
    return _HEAD_END.sub(
        f'<link rel="stylesheet" href="{html.escape(style)}"></head>', page, count=1
    )


def _index(site: Path, title: str, rows: list[IndexRow]) -> str:
    lines = "\n".join(_index_line(site, row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Data quality</title>
<link rel="stylesheet" href="static/stageline.css">
</head>
<body>
<h1>Data quality</h1>
<p>{html.escape(title)}</p>
<table>
<thead><tr><th>Table</th><th class="number">Rows</th><th class="number">Passed</th>
<th class="number">Warnings</th><th class="number">Critical</th><th></th></tr></thead>
<tbody>
{lines}
</tbody>
</table>
</body>
</html>
"""


def _index_line(site: Path, row: IndexRow) -> str:
    name = html.escape(row.table)
    if row.page is not None:
        name = f'<a href="{html.escape(row.page.relative_to(site).as_posix())}">{name}</a>'
    rows = "" if row.rows is None else f"{row.rows:,}"
    warnings = f'<span class="text-warning">{row.warnings}</span>' if row.warnings else "0"
    critical = f'<span class="text-danger">{row.critical}</span>' if row.critical else "0"
    cells = (rows, str(row.passed), warnings, critical)
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f"<tr><td>{name}</td>{numbers}<td>{html.escape(row.note)}</td></tr>"
