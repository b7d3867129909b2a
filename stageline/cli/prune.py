"""``stageline prune``: what is older than it is kept goes."""

import click

from stageline.cli.build import require_migrations
from stageline.cli.tables import Column, show


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(dry_run: bool) -> None:
    """Remove job history and snapshots that are older than they are kept.

    jobs/retention.yml says how long that is. `stageline worker` does the same once a day. Nothing
    that was received or loaded is removed, no setting, and nothing that something still stands on.

    \b
    Example:
        stageline prune --dry-run
        stageline prune
    """
    from jobs.pruning import prune as remove
    from stageline.progress import step

    require_migrations()
    with step("Look for what is old" if dry_run else "Remove what is old"):
        found = remove(is_dry=dry_run)
    if not found:
        click.echo("Nothing is older than it is kept.")
        return
    show(
        [Column("table"), Column("would go" if dry_run else "removed", is_number=True)],
        [(table, f"{rows:,}") for table, rows in found.items()],
    )
