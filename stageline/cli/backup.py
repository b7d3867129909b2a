"""``stageline backup`` and ``restore``."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stageline.config import settings

if TYPE_CHECKING:
    from stageline.backup import Manifest, Watch


@click.command()
@click.argument("target", required=False, type=click.Path(path_type=Path))
def backup(target: Path | None) -> None:
    """Write everything in the database into one file.

    TARGET is a folder, or a file that is not there yet; without it, the file goes to the folder
    `backups` in the output folder. It holds what was received and loaded, the settings, and all
    tables; secrets in it are encrypted, and the key of them (STAGELINE_SECRET_KEY) is not in it.

    Receiver and worker may go on. A build under way is waited for, and the next one waits.

    \b
    Example:
        stageline backup
        stageline backup /mnt/backups
        stageline backup before-the-move.zip
    """
    from jobs import backups
    from stageline.backup import file_name

    path = target or settings().output / "backups"
    if path.is_dir() or not path.suffix:
        path = path / file_name(datetime.now(UTC))
    with _shown("Back up") as watch:
        manifest = backups.make(path, watch)
    click.echo(f"{path} holds {_described(manifest)}.")
    click.echo("Keep STAGELINE_SECRET_KEY elsewhere: without it, stored secrets cannot be read.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only read the file through, and say what it is.")
@click.option(
    "--replace",
    metavar="DATABASE",
    help="The name of the database, to lose all that Stageline has in it.",
)
def restore(file: Path, check: bool, replace: str | None) -> None:
    """Make an empty database what it was when a backup was made.

    The database is the configured one: the embedded PostgreSQL, which is started if need be, or
    that of STAGELINE_DATABASE_URL. Either everything is restored or nothing is.

    \b
    Example:
        stageline restore stageline-2026-11-22T014000Z.zip
        stageline restore stageline-2026-11-22T014000Z.zip --check
        stageline restore stageline-2026-11-22T014000Z.zip --replace stageline
    """
    from stageline import backup as backups
    from stageline import dbt_environment, server

    size = backups.read_manifest(file).dump_bytes
    if check:
        with _shown("Read the backup", size) as watch:
            manifest = backups.require_whole(file, watch)
        click.echo(f"{file} is whole: {_described(manifest)}.")
        return
    if settings().database_url is None:
        for note in server.start(server.home(), settings().port).notes:
            click.echo(note, err=True)
    with _shown("Restore", 2 * size) as watch:
        manifest = backups.restore(file, watch, replace=replace)
    dbt_environment.write(settings().env_file)
    click.echo(f"Restored: {_described(manifest)}.")
    if unreadable := backups.unreadable_secrets():
        click.echo(
            f"warning: {unreadable} stored secrets cannot be read: STAGELINE_SECRET_KEY is not the"
            " one that they were stored with. Set that one, or store them again with"
            " `stageline projects`.",
            err=True,
        )
    click.echo("The tables can be read. Next: `stageline build`, which builds all of them anew.")


@contextmanager
def _shown(title: str, expected: int | None = None) -> "Iterator[Watch]":
    """Shows how many MiB were worked on, of so many as far as is known."""
    from stageline.progress import step

    with step(title, is_counted=True) as current:
        done = 0

        def watch(count: int) -> None:
            nonlocal done
            done += count
            current.show(done // 2**20, expected and expected // 2**20)

        yield watch


def _described(manifest: "Manifest") -> str:
    size = manifest.dump_bytes / 2**20
    made = datetime.fromisoformat(manifest.made_at)
    return (
        f"the database of {made:%Y-%m-%d %H:%M:%S} UTC, {size:,.1f} MiB,"
        f" migration {manifest.migration}, PostgreSQL {manifest.server_version}"
    )
