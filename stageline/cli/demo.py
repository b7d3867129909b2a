"""``stageline demo``: the whole job on the sample data and the demo source, and its numbers."""

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stageline.cli.tables import Column, show
from stageline.config import settings
from stageline.database import connect, connection
from stageline.settings.projects import NO_CURRENCY

if TYPE_CHECKING:
    import psycopg

    from jobs.quality import Report


@dataclass
class _Course:
    """What the demo did: seconds per step, and what was built and tested."""

    steps: dict[str, float] = field(default_factory=dict)
    built: str = ""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Notes how long the block took."""
        started = time.monotonic()
        yield
        self.steps[name] = time.monotonic() - started


@click.command()
@click.option("--remove", is_flag=True, help="Take the sample and the demo out of the KPIs again.")
def demo(remove: bool) -> None:
    """Run everything on sample data and show the numbers.

    Starts the database, loads the demo source and the sample data, checks them, builds and tests
    the models, and writes the demo's files. Running it again loads nothing twice.

    \b
    Example:
        stageline demo
        stageline demo --remove
    """
    if remove:
        _remove()
        return
    from loaders.demo import activate_sample, load_demo, write_outputs

    course = _Course()
    with course.timed("start the database"):
        _start()
    with course.timed("load the demo source"):
        load_demo()
    with course.timed("load the sample data"):
        activate_sample()
        _seed()
    with course.timed("check the raw data"):
        checks = _check()
    with course.timed("build and test the models"):
        course.built = _build()
    with course.timed("write the demo's files"):
        files = write_outputs()
    _summary(course, checks, [files.pipeline, files.cache, files.summary])


def _remove() -> None:
    from loaders.demo import deactivate_sample
    from stageline.cli.build import require_migrations

    require_migrations()
    deactivate_sample()
    click.echo(
        "The sample data and the demo source no longer count; their rows stay."
        " Run `stageline build` to take them out of the KPI tables."
    )


def _start() -> None:
    """Starts the embedded server, if it is the one to use, and brings the tables up to date."""
    from stageline import dbt_environment, migrate, server
    from stageline.progress import step

    with step("Start PostgreSQL") as current:
        if settings().database_url is None:
            for note in server.start(server.home(), settings().port).notes:
                click.echo(note, err=True)
        if not migrate.is_current():
            migrate.upgrade()
        dbt_environment.write(settings().env_file)
        current.note(migration=migrate.head())


def _seed() -> None:
    from jobs.sample import seed_sample
    from stageline.cli.build import failures_told

    with failures_told():
        seed_sample()


def _check() -> "Report":
    from stageline.cli.build import check

    return check()


def _build() -> str:
    from jobs.build import build
    from stageline.cli.build import built, failures_told, tell_warnings

    with failures_told():
        report = build(title="Build and test the models")
    tell_warnings([node.sentence() for node in report.warnings], "target/run_results.json")
    phrase = built(report.counts())
    return f"{phrase[:1].upper()}{phrase[1:]}."


def _summary(course: _Course, checks: "Report", files: list[Path]) -> None:
    with connect("reader") as kpis:
        _sample_numbers(kpis)
        _demo_numbers(kpis)
    warnings = len(checks.failures("warning"))
    click.echo("What was done")
    click.echo(
        f"  {len(checks.results)} checks of raw data in {len(checks.tables)} tables,"
        f" {warnings or 'no'} warning{'' if warnings == 1 else 's'}."
    )
    click.echo(f"  {course.built}")
    click.echo()
    total = sum(course.steps.values())
    rows = [(name, f"{seconds:.1f}") for name, seconds in course.steps.items()]
    show((Column("step"), Column("seconds", True)), [*rows, ("in all", f"{total:.1f}")])
    click.echo()
    _next(checks, files)


def _sample_numbers(kpis: "psycopg.Connection[Any]") -> None:
    months = kpis.execute(
        """
        with

        funnel as (
            select
                month,
                sum(stage_count) filter (where funnel_stage = 'lead') as leads,
                sum(stage_count) filter (where funnel_stage = 'sql') as sqls,
                sum(stage_count) filter (where funnel_stage = 'won') as won
            from kpis.conversion_funnel
            where facility_id like 'sample-%'
            group by month
        ),

        sla_of_facility as (
            select
                month,
                facility_id,
                (
                    sum(first_responses_met) / nullif(sum(first_responses_judged), 0)
                    + sum(resolutions_met) / nullif(sum(resolutions_judged), 0)
                ) * 50 as compliance_pct
            from kpis.ticket_sla_compliance
            where facility_id like 'sample-%'
            group by month, facility_id
        ),

        sla as (
            select month, avg(compliance_pct) as compliance_pct
            from sla_of_facility
            group by month
        ),

        csat as (
            select month, sum(avg_score * responses) / sum(responses) as score
            from kpis.satisfaction_rollups
            where facility_id like 'sample-%' and survey_type = 'csat'
            group by month
        ),

        health as (
            select month, avg(overall_health_score) as score
            from kpis.health_scores
            where facility_id like 'sample-%'
            group by month
        )

        select
            to_char(funnel.month, 'Mon YYYY'),
            funnel.leads,
            funnel.sqls,
            funnel.won,
            sla.compliance_pct,
            csat.score,
            health.score,
            (
                select thresholds.health_status
                from reference.health_thresholds as thresholds
                where thresholds.min_score <= health.score
                order by thresholds.min_score desc
                limit 1
            )
        from funnel
        left join sla on funnel.month = sla.month
        left join csat on funnel.month = csat.month
        left join health on funnel.month = health.month
        order by funnel.month
        """
    ).fetchall()
    names = [
        ("Leads", "created"),
        ("Reached SQL", "leads, share of all"),
        ("Won", "leads, share of all"),
        ("Ticket SLA compliance", "mean over facilities"),
        ("Customer satisfaction", "CSAT 1 to 5, mean"),
        ("Overall health", "0 to 100, mean over facilities"),
    ]
    cells = [
        (
            str(leads),
            f"{sqls} ({_pct(sqls, leads)})",
            f"{won} ({_pct(won, leads)})",
            _shown(sla, "{:.1f} %"),
            _shown(csat, "{:.2f}"),
            f"{_shown(health, '{:.1f}')} {status or ''}".strip(),
        )
        for _, leads, sqls, won, sla, csat, health, status in months
    ]
    show(
        (Column("KPI"), Column("unit"), *(Column(month[0], True) for month in months)),
        [(*name, *(cell[at] for cell in cells)) for at, name in enumerate(names)],
        title="Sample data: two facilities, fixed dates",
    )
    click.echo()
    tickets = kpis.execute(
        "select coalesce(sum(ticket_met), 0), coalesce(sum(ticket_judged), 0)"
        " from kpis.fct_tickets where source_system = 'sample' and excluded_reason is null"
    ).fetchone() or (0, 0)
    met, judged = tickets
    click.echo(f"Tickets that met both targets: {_pct(met, judged)} ({met} of {judged})")
    for currency, value, weighted in kpis.execute(
        "select currency, sum(total_pipeline_value), sum(weighted_pipeline_value)"
        " from kpis.weighted_pipeline_scenarios"
        " where scenario = 'weighted' and facility_id like 'sample-%'"
        " group by currency order by currency"
    ):
        click.echo(
            f"Weighted pipeline: {weighted:,.0f} {currency} of {value:,.0f} {currency} in all"
        )
    click.echo()


def _demo_numbers(kpis: "psycopg.Connection[Any]") -> None:
    stages = kpis.execute(
        """
        select stage, count(*), sum(amount), sum(amount * win_probability), min(currency)
        from kpis.fct_opportunities
        where source_system = 'demo' and excluded_reason is null
        group by stage
        order by min(win_probability), stage
        """
    ).fetchall()
    rows = [
        (str(stage), str(deals), f"{value:,.0f}", f"{weighted:,.0f}")
        for stage, deals, value, weighted, _ in stages
    ]
    totals = [sum((stage[at] for stage in stages), Decimal(0)) for at in (1, 2, 3)]
    units = sorted({str(stage[4]) for stage in stages} - {NO_CURRENCY, "None"})
    unit = f" ({', '.join(units)})" if units else " (no currency stated)"
    show(
        (
            Column("stage"),
            Column("leads", True),
            Column(f"value{unit}", True),
            Column("weighted by probability", True),
        ),
        [*rows, ("all leads", *(f"{number:,.0f}" for number in totals))],
        title="Demo source",
    )
    click.echo()


def _next(checks: "Report", files: list[Path]) -> None:
    reader = connection("reader")
    if settings().database_url is None:
        login = [
            f"user {reader.user}, its password is in",
            _from_here(settings().home / "credentials.json"),
        ]
    else:
        login = ["any user that is a member of stageline_reader"]
    bin_ = _bin()
    command = f"{bin_}stageline"
    entries = [
        ("Look at the tables", [f"{command} psql", r"(there, \dt kpis.* lists them)"]),
        (
            "Connect a BI tool",
            [f"host {reader.host}, port {reader.port}, database {reader.dbname}", *login],
        ),
        ("Read the docs", [f"{bin_}dbt docs generate", f"{bin_}dbt docs serve"]),
        ("Data quality report", [_from_here(checks.docs / "index.html")]),
        ("Files of the demo", [_from_here(path) for path in files]),
        (
            "Load a file of yours",
            [f"{command} load file leads.csv --as leads", f"{command} build"],
        ),
        ("Without the sample", [f"{command} demo --remove", f"{command} build"]),
    ]
    click.echo("What next")
    width = max(len(name) for name, _ in entries)
    for name, lines in entries:
        for at, line in enumerate(lines):
            click.echo(f"  {'' if at else name:<{width}}  {line}")


def _bin() -> str:
    """What to write before a command of ours so that a shell in this folder finds it."""
    folder = Path(sys.executable).parent
    found = shutil.which("stageline")
    if found is not None and Path(found).parent.resolve() == folder.resolve():
        return ""
    # A blank in the path would end the command there.
    return shlex.quote(f"{_from_here(folder)}/")


def _from_here(path: Path) -> str:
    """The path from the current folder, where it leads down; else the whole of it."""
    cwd = Path.cwd()
    return str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)


def _pct(part: int, whole: int) -> str:
    return _shown(Decimal(part) * 100 / Decimal(whole) if whole else None, "{:.1f} %")


def _shown(number: Decimal | None, form: str) -> str:
    """A number, or a dash where there is none: never a 0 that was not measured."""
    return "-" if number is None else form.format(number)
