"""``stageline generate``: made-up data, to try reports on."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stageline.cli.instants import instant
from stageline.errors import StagelineError
from stageline.settings import projects

if TYPE_CHECKING:
    from loaders.generate_sales import Generated


def _day_or_instant(ctx: click.Context, param: click.Parameter, text: str | None) -> date | None:
    """The day that was given, else the instant; None if nothing was."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        return instant(ctx, param, text)


@click.group()
def generate() -> None:
    """Make data up, to try reports on.

    \b
    Example:
        stageline generate sales
        stageline build
    """


@generate.command(short_help="Make up what a sales department does.")
@click.option("--leads", default=150, show_default=True, help="Leads of a department of 8 reps.")
@click.option(
    "--days-back", default=90, show_default=True, help="How long ago the first leads came in."
)
@click.option(
    "--days-forward", default=30, show_default=True, help="How far ahead calls are booked."
)
@click.option("--seed", default=1, show_default=True, help="Another seed gives other data.")
@click.option("--scale", default=1, show_default=True, help="Number of departments, up to 1000.")
@click.option(
    "--as-of",
    metavar="INSTANT",
    callback=_day_or_instant,
    help="Nothing that happens later is known. A date is its first moment; by default now, to the"
    " full hour.",
)
@click.option("--project", default="generated", show_default=True, help="Project that it goes to.")
@click.option(
    "--timezone", metavar="ZONE", help="IANA name; that of the project, at first Europe/Kyiv."
)
@click.option(
    "--currency", metavar="CODE", help="ISO 4217 code; that of the project, at first EUR."
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write CSV files for `stageline load file` instead; no database is needed.",
)
@click.option("--remove", is_flag=True, help="Take what was generated away again.")
def sales(
    leads: int,
    days_back: int,
    days_forward: int,
    seed: int,
    scale: int,
    as_of: date | None,
    project: str,
    timezone: str | None,
    currency: str | None,
    output: Path | None,
    remove: bool,
) -> None:
    """Make up what a sales department does: leads, calls, agreements, partner lists and sales.

    About 150 leads, 1,500 pipeline items and 3,000 activities, in a project of their own that holds
    nothing else. The same options and --as-of give the same data. Running it again replaces what it
    made there before.

    \b
    Example:
        stageline generate sales --seed 7
        stageline build
        stageline generate sales --remove
        stageline generate sales --as-of 2026-03-02 --output made-up
    """
    from loaders import generate_sales
    from stageline.cli.build import require_migrations

    if output is not None and remove:
        raise StagelineError("--output and --remove do not go together. Give one of them.")
    if output is None:
        require_migrations()
    if remove:
        count = generate_sales.remove(project)
        click.echo(
            f"Removed {count:,} generated rows; project {project} no longer counts."
            " Run `stageline build` to take them out of the KPI tables."
        )
        return
    there = projects.find(generate_sales.SOURCE, project) if output is None else None
    known_currency = (
        None if there is None or there.currency == projects.NO_CURRENCY else there.currency
    )
    plan = generate_sales.Plan(
        as_of=as_of or datetime.now(UTC).replace(minute=0, second=0, microsecond=0),
        leads=leads,
        days_back=days_back,
        days_forward=days_forward,
        seed=seed,
        scale=scale,
        timezone=timezone or (there.timezone if there else generate_sales.DEFAULT_ZONE),
        currency=currency or known_currency or generate_sales.DEFAULT_CURRENCY,
    )
    if output is not None:
        done = generate_sales.write(plan, output)
        click.echo(
            f"Wrote {_counted(done)} to {output}. Load each file, as in"
            f" `stageline load file {output / 'leads.csv'} --as leads --project {project}`."
        )
        return
    done = generate_sales.generate(plan, project)
    as_told = plan.window.as_of.astimezone(plan.window.zone)
    before = (
        f", in place of what was generated there before ({done.written:,} rows are new or changed,"
        f" {done.gone:,} gone)"
        if done.replaced
        else ""
    )
    click.echo(
        f"Generated {_counted(done)} in project {project}, as of {as_told:%Y-%m-%d %H:%M}"
        f" {plan.timezone}{before}. Next: `stageline build`."
    )


def _counted(done: "Generated") -> str:
    parts = [
        f"{done.rows[entity]:,} {entity.replace('_', ' ')}"
        for entity in ("leads", "pipeline_items", "sublists", "activities", "sales")
    ]
    return f"{', '.join(parts)} in {done.seconds:.1f} s"
