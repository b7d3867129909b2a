"""``stageline export``: numbers as files."""

import click


@click.group()
def export() -> None:
    """Write numbers as files.

    \b
    Example:
        stageline export pipeline
    """


@export.command()
@click.option("--source", help="Only the deals of this source.")
def pipeline(source: str | None) -> None:
    """Write the sales pipeline as the last build left it.

    Deals of the demo and of the sample are left out where there are real ones, unless --source
    names them.

    sales_pipeline.json has the totals and the deals that are open or won, daily_summary.json the
    totals alone, and sales_cache keeps a copy of each time for 30 days (SALES_PIPELINE_CACHE names
    another folder).

    \b
    Example:
        stageline export pipeline
        stageline export pipeline --source hubspot
    """
    from jobs.pipeline_export import export as write
    from stageline.cli.build import require_migrations

    require_migrations()
    files = write(source)
    click.echo(f"Wrote {files.pipeline}, {files.summary} and the copy {files.cache}.")
    if files.removed:
        click.echo(f"Removed {files.removed} copies older than 30 days.")
