"""Finds SQL that only one engine understands, outside of ``macros/engine/``.

Models run on PostgreSQL and on Spark SQL. Where the two differ, a model calls a macro of
``macros/engine/``, which has one form for each. The clock is refused for another reason: models are
made for the instant ``as_of()``, so that yesterday's numbers can be made again.

    python tests/lint/engine_sql.py [PROJECT]

Prints ``file:line: what was found: what to write instead`` and fails if there is anything to print.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Rule(NamedTuple):
    """A pattern of SQL that is not to stand in a model, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


def _rule(pattern: str, instead: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), instead)


MACRO = "a dispatched macro in macros/engine/"
CLOCK = "as_of(), the instant that the numbers are made for"
#: In the order in which they are tried: the first one that matches a piece of SQL names it.
RULES = (
    _rule(r"::", "cast(... as ...)"),
    _rule(r"->>?", f"{MACRO} for the access to JSON"),
    _rule(r"\bat\s+time\s+zone\b", "local_month(), or another macro of macros/engine/time.sql"),
    _rule(r"\bextract\s*\(\s*epoch\b", "seconds_between()"),
    _rule(r"\binterval\s+'", "add_months(), dbt.dateadd(), or a macro of macros/engine/time.sql"),
    _rule(r"\bmake_interval\s*\(", "add_months(), or a macro of macros/engine/time.sql"),
    _rule(
        r"(?<![.\w])date_trunc\s*\(", "dbt.date_trunc(); for a project's own months local_month()"
    ),
    _rule(r"\bgenerate_series\s*\(", "whole_numbers()"),
    _rule(r"\bunnest\s*\(", MACRO),
    _rule(r"\barray\s*\[", MACRO),
    _rule(r"\bjsonb?_\w+\s*\(", f"{MACRO} for the access to JSON"),
    _rule(r"\bdistinct\s+on\b", "row_number over a window, and keep 1"),
    _rule(r"\bn?ilike\b", "lower(...) like"),
    _rule(r"\bsimilar\s+to\b", "like"),
    _rule(r"\s!?~~?\*?\s+'", "like"),
    _rule(r"\bto_(char|date|timestamp|number)\s*\(", MACRO),
    _rule(r"\bstring_agg\s*\(", "dbt.listagg()"),
    _rule(r"\bas\s+(timestamptz|timestamp\s+with\s+time\s+zone)\b", "type_instant()"),
    _rule(r"\bas\s+text\s*\)", "type_label()"),
    _rule(r"\bas\s+numeric\s*[()]", "type_number()"),
    _rule(r"\bas\s+(jsonb?|bytea|double\s+precision)\s*\)", MACRO),
    _rule(r"\b(now|clock_timestamp|statement_timestamp|timeofday)\s*\(", CLOCK),
    _rule(r"\b(current_(timestamp|date|time)|localtimestamp|localtime)\b", CLOCK),
)
COMMENT = re.compile(r"\{#.*?#\}|--[^\n]*|/\*.*?\*/", re.DOTALL)
LITERAL = re.compile(r"(?<=')[^'\n]*(?=')")
#: Jinja's own ``~`` (join) and its strings are not SQL; the text between its tags is.
JINJA_JOIN = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
DISPATCH = re.compile(r"adapter\.dispatch\(\s*['\"](\w+)['\"]")
#: What dbt itself dispatches, with forms of its own for each engine: we may put one in their place.
DISPATCHED_BY_DBT = frozenset({"create_table_as", "drop_relation"})
FORM = re.compile(r"{%-?\s*macro\s+(default|postgres|spark)__(\w+)\s*\(")


class Finding(NamedTuple):
    """One thing to mend: where, what was found, and what to write instead."""

    path: Path
    line: int
    found: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.found}: {self.message}"


def lint(project: Path) -> list[Finding]:
    """All findings in the models, snapshots and macros of the dbt project in ``project``."""
    engine = project / "macros" / "engine"
    paths = (
        p for folder in ("models", "snapshots", "macros") for p in (project / folder).rglob("*.sql")
    )
    findings: list[Finding] = []
    for path in sorted(paths):
        if not path.is_relative_to(engine):
            findings += _sql(path.relative_to(project), path.read_text())
    findings += _forms(project, engine)
    return findings


def _sql(path: Path, text: str) -> Iterator[Finding]:
    bare = LITERAL.sub(_blank, COMMENT.sub(_blank, text))
    bare = JINJA_JOIN.sub(lambda tag: tag.group().replace("~", " "), bare)
    taken: set[int] = set()
    for rule in RULES:
        for match in rule.pattern.finditer(bare):
            if match.start() not in taken:
                taken.update(range(match.start(), match.end()))
                line = (
                    bare.count(
                        "\n", 0, match.start() + len(match.group()) - len(match.group().lstrip())
                    )
                    + 1
                )
                found = " ".join(match.group().split())
                yield Finding(path, line, found, f"write {rule.instead}")


def _blank(match: re.Match[str]) -> str:
    """As many lines, and nothing on them."""
    return re.sub(r"[^\n]", " ", match.group())


def _forms(project: Path, engine: Path) -> Iterator[Finding]:
    """Dispatched macros that lack the form of an engine, and forms that nothing dispatches to."""
    dispatched: dict[str, tuple[Path, int]] = {}
    forms: dict[str, set[str]] = {}
    for path in sorted((project / "macros").rglob("*.sql")):
        text = path.read_text()
        for match in DISPATCH.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            dispatched[match.group(1)] = (path, line)
            if not path.is_relative_to(engine):
                where = path.relative_to(project)
                yield Finding(
                    where, line, match.group(1), "dispatched macros belong to macros/engine/"
                )
        for match in FORM.finditer(text):
            if match.group(2) in DISPATCHED_BY_DBT:
                continue
            forms.setdefault(match.group(2), set()).add(match.group(1))
            dispatched.setdefault(match.group(2), (path, 0))
    for name, (path, line) in sorted(dispatched.items()):
        where = path.relative_to(project)
        has = forms.get(name, set())
        if not line:
            yield Finding(
                where, 1, name, "has forms for engines, but no macro that dispatches to them"
            )
        if not has & {"default", "postgres"}:
            yield Finding(
                where, line or 1, name, "lacks its form for PostgreSQL (postgres__ or default__)"
            )
        if "spark" not in has:
            yield Finding(where, line or 1, name, "lacks its form for Spark (spark__)")


def main() -> int:
    """Prints the findings of a project; 1 if there are any."""
    project = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    findings = lint(project)
    for finding in findings:
        print(finding)
    print(f"{len(findings)} to mend" if findings else "models are SQL of both engines")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
