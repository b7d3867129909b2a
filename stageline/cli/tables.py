"""Tables on stdout: drawn on a terminal, aligned plain text elsewhere."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Column:
    """A column: its heading, and whether it holds numbers (set to the right)."""

    heading: str
    is_number: bool = False


def show(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Writes a table to stdout."""
    if sys.stdout.isatty():
        _draw(columns, rows, title)
        return
    if title:
        click.echo(title)
    click.echo(aligned([[column.heading for column in columns], *rows], columns))


def aligned(rows: Sequence[Sequence[str]], columns: Sequence[Column]) -> str:
    """Rows as text, each column as wide as its widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column.is_number else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in rows
    )


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.is_number else "left")
    for row in rows:
        # Text, because a cell is never markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
