"""``stageline check``: the quality checks of the raw data by themselves."""

from typing import TYPE_CHECKING

import click

from stageline.cli.tables import Column, show

if TYPE_CHECKING:
    from jobs.quality import Report


@click.command()
@click.option("--suite", metavar="ENTITY", help="Only the tables of this entity.")
@click.option("--brief", is_flag=True, help="Say one line, and that only if a build would stop.")
def check(suite: str | None, brief: bool) -> None:
    """Check the raw data, and show what is wrong with it.

    Exits with 1 if a critical rule does not hold: then a build would not start.

    \b
    Example:
        stageline check
        stageline check --suite leads
    """
    from jobs.quality import run_checks
    from stageline.cli.build import require_migrations

    require_migrations()
    report = run_checks(suite)
    if brief:
        report.stop_on_critical()
        return
    _show(report)
    if report.failures("critical"):
        raise SystemExit(1)


def _show(report: "Report") -> None:
    critical, warnings = report.failures("critical"), report.failures("warning")
    lines = [
        (
            table.entity.name,
            table.name,
            f"{report.rows(table) or 0:,}",
            str(len(report.of(table))),
            str(sum(r.table == table for r in warnings)),
            str(sum(r.table == table for r in critical)),
        )
        for table in report.tables
    ]
    numbers = (Column("rows", True), Column("rules", True))
    failed = (Column("warnings", True), Column("critical", True))
    if lines:
        show((Column("suite"), Column("table"), *numbers, *failed), lines)
    for why in ("empty", "absent", "inactive"):
        names = [table.name for table, reason in report.skipped if reason == why]
        if names:
            click.echo(f"Nothing to check, {why}: {', '.join(names)}.")
    for result in critical:
        click.echo(f"critical: {result.sentence()}")
    for result in warnings:
        click.echo(f"warning: {result.sentence()}")
    click.echo(f"Report: {report.docs / 'index.html'}")
