"""The option by which rows of a KPI table are chosen."""

import click

where_option = click.option(
    "--where",
    "-w",
    "where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only rows where this holds; repeatable, all hold together. =, !=, <, <=, > and >=, or"
    " 'COLUMN in A,B' with values and ranges A..B; COLUMN= where nothing stands. Instants"
    " without a zone are in UTC.",
)
