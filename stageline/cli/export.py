"""``stageline export``: numbers as files."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from stageline.cli.conditions import where_option
from stageline.errors import StagelineError

if TYPE_CHECKING:
    from jobs.table_export import Format

_FORMATS = ("csv", "xlsx", "parquet", "json")


class _Tables(click.Group):
    """Has a subcommand for each table: whether it is there, the database knows."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _command_for(cmd_name)


@click.group(cls=_Tables, subcommand_metavar="TABLE [OPTIONS]")
def export() -> None:
    """Write numbers as files.

    TABLE is any table or view of schema kpis (docs/kpis.md lists them; `stageline psql -- -c '\\d
    kpis.*'` shows those that are built): csv, xlsx, parquet or json, in the folder of exports or
    where --output says. `pipeline` writes the sales pipeline, in files of its own form.

    \b
    Example:
        stageline export conversion_funnel
        stageline export ticket_sla_compliance --format xlsx -w 'month>=2024-01-01'
        stageline export fct_leads -w 'rep_id in rep-ana,rep-ben' -o leads.parquet
        stageline export conversion_funnel --help
        stageline export pipeline
    """


def _command_for(table: str) -> click.Command:
    @click.command(table)
    @click.option(
        "--format",
        "-f",
        "form",
        type=click.Choice(_FORMATS),
        help="How to write it; by default what the name of the file ends in, else csv.",
    )
    @where_option
    @click.option(
        "--output",
        "-o",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The file; by default TABLE.FORMAT in the folder of exports (STAGELINE_OUTPUT).",
    )
    def command(form: str | None, where: tuple[str, ...], output: Path | None) -> None:
        """Write this table, or the rows of it that are chosen, into one file.

        \b
        csv      UTF-8; empty where nothing stands; text that a spreadsheet would take for a
                 formula has an apostrophe before it
        xlsx     dates, instants (UTC), percentages and numbers as such; a second sheet says what
                 the columns hold
        parquet  exact decimals; units, descriptions and formulas stand with the columns
        json     an array of objects, numbers with all their digits

        A file that is there is replaced when the new one is whole.

        \b
        Example:
            stageline export conversion_funnel -f xlsx
            stageline export conversion_funnel -w 'month in 2024-01-01..2024-06-01' -o funnel.csv
            stageline export fct_leads -w won_at!= -w 'amount>=1000' -o won.json
        """
        from jobs.table_export import export as write
        from stageline.cli.build import require_migrations

        require_migrations()
        chosen = form or _format_of(output)
        done = write(table, cast("Format", chosen), where, output)
        said = f" (none where {' and '.join(where)})" if where and not done.rows else ""
        click.echo(f"Wrote {done.path}: {done.rows:,} {_rows(done.rows)}{said}.")

    return command


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


def _format_of(output: Path | None) -> str:
    if output is None or not output.suffix:
        return "csv"
    suffix = output.suffix.removeprefix(".").lower()
    if suffix not in _FORMATS:
        raise StagelineError(
            f"{output.name} does not say what to write: name a --format, or end the name in"
            f" .{', .'.join(_FORMATS)}.",
            exit_code=2,
        )
    return suffix


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
