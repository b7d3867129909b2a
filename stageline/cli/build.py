"""``stageline build``: checks the raw data, then builds and tests the models."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from stageline.errors import StagelineError

if TYPE_CHECKING:
    from jobs.quality import Report

#: How many warnings are shown one by one; the rest stands in the report.
_SHOWN = 5

#: Kinds of nodes in the order in which they are told, and their plural.
_KINDS = {
    "seed": "seeds",
    "model": "models",
    "snapshot": "snapshots",
    "test": "data tests",
    "unit_test": "unit tests",
}


@click.command()
@click.option("-s", "--select", metavar="SELECTION", help="Only these models (dbt selection).")
@click.option("--exclude", metavar="SELECTION", help="Not these models (dbt selection).")
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models from nothing.")
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="Make the numbers of this instant again: ISO 8601, UTC where no zone is given;"
    " a date means its first moment.",
)
@click.option("--no-check", is_flag=True, help="Build without the quality checks of the raw data.")
def build(
    select: str | None,
    exclude: str | None,
    full_refresh: bool,
    as_of: str | None,
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

    instant = parse_instant(as_of) if as_of else None
    require_migrations()
    if no_check:
        click.echo("warning: the raw data was not checked (--no-check).", err=True)
    else:
        check(instant)
    with failures_told():
        report = run_dbt(
            select,
            exclude,
            full_refresh=full_refresh,
            dbt_vars={"as_of": instant.isoformat()} if instant else None,
        )
    tell_warnings([node.sentence() for node in report.warnings], "target/run_results.json")
    click.echo(f"Built in {report.seconds:.1f} s: {built(report.counts())}. All is well.")
    click.echo("Next: `stageline psql` to read the tables in schema kpis.")


def parse_instant(text: str) -> datetime:
    """An instant as a person writes it, in UTC.

    Raises:
        StagelineError: it cannot be read.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise StagelineError(
            f"--as-of {text!r} is no instant. Write 2024-03-01 or 2024-03-01T18:00:00+02:00."
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


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
    """Counts per kind of node as a phrase: ``13 seeds, 51 models, 250 data tests passed``."""
    made = [f"{counts[kind]} {word}" for kind, word in _KINDS.items() if counts.get(kind)]
    passed = " passed" if any(counts.get(kind) for kind in ("test", "unit_test")) else ""
    return (", ".join(made) or "nothing") + passed
