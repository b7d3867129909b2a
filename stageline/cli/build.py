"""``stageline build``: checks the raw data, then builds and tests the models."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from stageline.cli.instants import instant
from stageline.errors import StagelineError

if TYPE_CHECKING:
    from jobs.quality import Report

#: How many warnings are shown one by one; the rest stands in the report.
_SHOWN = 5

#: Kinds of nodes in the order in which they are told, one and many.
_KINDS = {
    "seed": ("seed", "seeds"),
    "model": ("model", "models"),
    "snapshot": ("snapshot", "snapshots"),
    "test": ("data test", "data tests"),
    "unit_test": ("unit test", "unit tests"),
}


@click.command()
@click.option("-s", "--select", metavar="SELECTION", help="Only these models (dbt selection).")
@click.option("--exclude", metavar="SELECTION", help="Not these models (dbt selection).")
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models from nothing.")
@click.option(
    "--as-of",
    metavar="INSTANT",
    callback=instant,
    help="Make the numbers of this instant again: ISO 8601, UTC where no zone is given;"
    " a date means its first moment.",
)
@click.option("--no-check", is_flag=True, help="Build without the quality checks of the raw data.")
def build(
    select: str | None,
    exclude: str | None,
    full_refresh: bool,
    as_of: datetime | None,
    no_check: bool,
) -> None:
    """Check the data, then build and test the models.

    A critical failure of a check stops the build before anything is touched: the tables of the last
    good build stay as they are.

    \b
    Example:
        stageline build
        stageline build --select conversion_funnel+
        stageline build --as-of 2024-03-01
    """
    from jobs.build import build as run_dbt

    require_migrations()
    if no_check:
        click.echo("warning: the raw data was not checked (--no-check).", err=True)
    else:
        check(as_of)
    with failures_told():
        report = run_dbt(
            select,
            exclude,
            full_refresh=full_refresh,
            as_of=as_of,
        )
    tell_warnings([node.sentence() for node in report.warnings], "target/run_results.json")
    click.echo(f"Done in {report.seconds:.1f} s: {built(report.counts())}.")
    click.echo("Next: `stageline psql` to read the tables in schema kpis.")


def require_migrations() -> None:
    """Makes sure that the tables are there and current.

    Raises:
        StagelineError: they are not, or the database cannot be reached.
    """
    from stageline import migrate

    if migrate.current() != migrate.head():
        raise StagelineError("The database is not up to date. Run `stageline up`, then try again.")


def check(as_of: datetime | None = None) -> "Report":
    """Runs the quality checks and tells their warnings.

    Raises:
        StagelineError: a critical rule does not hold.
    """
    from jobs.quality import run_checks

    report = run_checks(as_of=as_of)
    report.stop_on_critical()
    warnings = [result.sentence() for result in report.failures("warning")]
    tell_warnings(warnings, str(report.docs / "index.html"))
    return report


@contextmanager
def failures_told() -> Iterator[None]:
    """Tells each node that failed, one line each, before the build's own error goes on."""
    from jobs.build import BuildError

    try:
        yield
    except BuildError as error:
        for node in error.report.failures:
            click.echo(f"failed: {node.sentence()}", err=True)
        raise


def tell_warnings(warnings: list[str], rest: str) -> None:
    """Shows warnings on stderr; ``rest`` is where to find those that are not shown."""
    for line in warnings[:_SHOWN]:
        click.echo(f"warning: {line}", err=True)
    if len(warnings) > _SHOWN:
        click.echo(f"warning: and {len(warnings) - _SHOWN} more, see {rest}", err=True)


def built(counts: dict[str, int]) -> str:
    """Counts per kind of node: ``13 seeds and 51 models built; 250 data tests passed``."""

    def listed(kinds: tuple[str, ...], verb: str) -> list[str]:
        found = [
            f"{counts[kind]} {_KINDS[kind][counts[kind] != 1]}"
            for kind in kinds
            if counts.get(kind)
        ]
        return [f"{', '.join(found)} {verb}"] if found else []

    made = listed(("seed", "model", "snapshot"), "built")
    tested = listed(("test", "unit_test"), "passed")
    return "; ".join(made + tested) or "nothing to build"
