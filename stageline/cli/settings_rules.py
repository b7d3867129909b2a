"""``stageline settings``: how time and sales are judged; by default, from and to files."""

from pathlib import Path

import click

from stageline.cli import (
    settings_fields,
    settings_hours,
    settings_metrics,
    settings_orders,
    settings_sales,
    settings_sla,
)
from stageline.cli.build import require_migrations
from stageline.cli.project_rules import of_project
from stageline.errors import StagelineError
from stageline.settings import bundles, defaults
from stageline.settings.rule_tables import ProjectKey


@click.command("defaults")
@of_project
@click.option("--dry-run", is_flag=True, help="Only show what would be set.")
def set_defaults(project: ProjectKey, dry_run: bool) -> None:
    """Set the groups and rules that users of KeyCRM know, where nothing is set yet.

    \b
    Example:
        stageline settings defaults keycrm shop-1 --dry-run
        stageline settings defaults keycrm shop-1
    """
    require_migrations()
    found = defaults.set_defaults(project, dry_run=dry_run)
    for default in found:
        click.echo(default.said)
    what = f"{len(found)} {'would be' if dry_run else 'were'} set for {project}"
    click.echo(f"{what}; {len(defaults.DEFAULTS) - len(found)} were there or left to you.")


@click.command("export")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--project", "only", metavar="SOURCE/PROJECT", help="Only of this project.")
def export_settings(file: Path | None, only: str | None) -> None:
    """Write all settings of projects as YAML, to FILE or stdout.

    \b
    Example:
        stageline settings export settings.yml
        stageline settings export --project keycrm/shop-1
    """
    key = None
    if only is not None:
        source, _, project = only.partition("/")
        if not project:
            raise StagelineError(f"--project {only!r} is no project. Write keycrm/shop-1.")
        key = ProjectKey(source, project)
    require_migrations()
    text = bundles.export(key)
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StagelineError(f"Cannot write {file}: {error.strerror}.") from None
    click.echo(f"Settings written to {file}.")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
def import_settings(file: Path, dry_run: bool) -> None:
    """Make the settings equal to FILE, all or nothing, and show what that changes.

    Projects and sections that it does not name are left alone. Within a section, what the file
    leaves out is removed.

    \b
    Example:
        stageline settings import settings.yml --dry-run
        stageline settings import settings.yml
    """
    require_migrations()
    found = bundles.import_file(file, dry_run=dry_run)
    for change in found:
        where = f"{change.project} {change.section}:"
        if change.before is not None:
            click.echo(f"- {where} {_written(change.before)}")
        if change.after is not None:
            click.echo(f"+ {where} {_written(change.after)}")
    done = "would change" if dry_run else "changed"
    click.echo(f"{len(found)} rows {done}." if found else "Nothing changes: all is as in the file.")


def _written(entry: bundles.Entry) -> str:
    return ", ".join(f"{name}={cell}" for name, cell in entry.items())


#: What `stageline settings` takes from here.
COMMANDS: tuple[click.Command, ...] = (
    settings_sla.sla,
    settings_sla.waiting,
    settings_hours.hours,
    settings_hours.days,
    settings_orders.cycles,
    settings_orders.urgent,
    settings_orders.orders,
    settings_metrics.metrics,
    settings_fields.fields,
    settings_sales.targets,
    settings_sales.alerts,
    set_defaults,
    export_settings,
    import_settings,
)
