"""``stageline archive``: what old deliveries said, as files."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import click

from stageline.cli.build import require_migrations
from stageline.cli.tables import Column, show
from stageline.errors import StagelineError

if TYPE_CHECKING:
    from jobs.archive_config import ArchiveConfig


def _month(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,
    text: str | None,
) -> date | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise StagelineError(f"{param.opts[0]} {text!r} is no month. Write 2026-03.") from None


_PROJECT = click.option("--project", help="Only of this project.")
_MONTH = click.option(
    "--month", metavar="YYYY-MM", callback=_month, help="Only received in this month of UTC."
)


@click.group(invoke_without_command=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be archived.")
@click.pass_context
def archive(ctx: click.Context, dry_run: bool) -> None:
    """Move what old deliveries said from the database to compressed Parquet files.

    jobs/archive.yml says how old, and where to. KPIs do not change: what is known of deliveries,
    and the events that they gave, stay in the database for ever. `stageline worker` does the same
    once a day.

    \b
    Example:
        stageline archive --dry-run
        stageline archive
        stageline archive list
        stageline archive restore --project shop-1 --month 2026-03
    """
    if ctx.invoked_subcommand is not None:
        if dry_run:
            raise StagelineError(f"`stageline archive {ctx.invoked_subcommand}` has no dry run.")
        return
    from jobs.archive import archive as move
    from jobs.archive import due, make_partitions
    from stageline.progress import step

    require_migrations()
    make_partitions()
    config = _config()
    now = datetime.now(UTC)
    found = due(config, now)
    total = sum(each.deliveries for each in found)
    if dry_run:
        if found:
            show(
                [
                    *(Column("project"), Column("month"), Column("deliveries", is_number=True)),
                    Column("MB", is_number=True),
                ],
                [
                    (
                        *(f"{each.source_system}/{each.project_id}", f"{each.month:%Y-%m}"),
                        *(f"{each.deliveries:,}", _megabytes(each.body_bytes)),
                    )
                    for each in found
                ],
            )
        click.echo(f"Would be archived: {total:,} deliveries, to {config.folder}.")
        return
    files = deliveries = size = 0
    with step("Archive deliveries", total) as current:
        for written in move(config, now):
            current.advance(written.delivery_count)
            files += 1
            deliveries += written.delivery_count
            size += written.file_bytes
        current.note(files=files, deliveries=deliveries)
    click.echo(
        f"Archived: {deliveries:,} deliveries in {files} files, {_megabytes(size)} MB."
        if files
        else "Nothing is due."
    )


@archive.command("list", short_help="Show the files.")
@_PROJECT
@_MONTH
@click.option("--verify", is_flag=True, help="Read each file and compare it with its SHA-256.")
def list_(project: str | None, month: date | None, verify: bool) -> None:
    """Show which files there are. Exits with 1 where one is missing, or was changed.

    \b
    Example:
        stageline archive list
        stageline archive list --project shop-1 --verify
    """
    from jobs.archive import archives, require_unchanged

    require_migrations()
    found = archives(project, month)
    if not found:
        click.echo("None.")
        return
    config = _config()
    show(
        [
            *(Column("project"), Column("month"), Column("deliveries", is_number=True)),
            *(Column("MB", is_number=True), Column("archived"), Column("put back")),
            Column("file"),
        ],
        [
            (
                *(f"{each.source_system}/{each.project_id}", f"{each.month:%Y-%m}"),
                *(f"{each.delivery_count:,}", _megabytes(each.file_bytes)),
                f"{each.archived_at:%Y-%m-%d}",
                f"{each.restored_at:%Y-%m-%d}" if each.restored_at else "",
                each.file_name,
            )
            for each in found
        ],
    )
    missing = [each for each in found if not (config.folder / each.file_name).is_file()]
    if missing:
        raise StagelineError(
            f"{len(missing)} of {len(found)} files are missing below {config.folder}:"
            f" {', '.join(each.file_name for each in missing[:3])}"
            f"{' ...' if len(missing) > 3 else ''}. Put them back from a copy."
        )
    if verify:
        for each in found:
            require_unchanged(config, each)
        click.echo("Each is as it was written.")


@archive.command(short_help="Put bodies back into the database.")
@_PROJECT
@_MONTH
@click.option("--all", "everything", is_flag=True, help="Of all projects and months.")
def restore(project: str | None, month: date | None, everything: bool) -> None:
    """Put what deliveries said back into the database, to be read or replayed.

    The files stay, and after 30 days the bodies leave the database again. Doing it twice changes
    nothing.

    \b
    Example:
        stageline archive restore --project shop-1 --month 2026-03
        stageline archive restore --month 2026-03
        stageline archive restore --all
    """
    from jobs.archive import archives
    from jobs.archive import restore as put_back
    from stageline.progress import step

    if everything == bool(project or month):
        raise StagelineError("Say what to restore: --project, --month, or both; or --all.")
    require_migrations()
    chosen = archives(project, month)
    if not chosen:
        raise StagelineError("Nothing of that is archived. `stageline archive list` shows what is.")
    config = _config()
    deliveries = there = 0
    with step("Restore deliveries", sum(each.delivery_count for each in chosen)) as current:
        for each, count in put_back(config, chosen):
            current.advance(each.delivery_count)
            deliveries += count
            there += each.delivery_count - count
        current.note(files=len(chosen), deliveries=deliveries)
    already = f" {there:,} were there already." if there else ""
    click.echo(f"Restored: {deliveries:,} deliveries of {len(chosen)} files.{already}")


def _config() -> "ArchiveConfig":
    from jobs.archive_config import read
    from stageline.config import settings

    config = read()
    if config is None:
        raise StagelineError(
            f"No folder is named in {settings().archive}, so nothing is archived or restored."
            " Set folder and after_months there."
        )
    config.require_folder()
    return config


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"
