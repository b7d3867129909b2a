"""``stageline load <crm>``: one command for each CRM that can be loaded."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loaders.registry import SOURCES
from stageline.cli.instants import instant
from stageline.errors import TRY_LATER, StagelineError

if TYPE_CHECKING:
    from loaders.accounts import Chosen
    from loaders.crm import CrmLoad


def add_commands(group: click.Group) -> None:
    """Adds the command of each CRM to ``stageline load``."""
    for name, known in SOURCES.items():
        group.add_command(_command(name, known.title))


def _command(name: str, title: str) -> click.Command:
    def run(
        project: str | None, since: datetime | None, full: bool, dry_run: bool, check: bool
    ) -> None:
        _run(name, project, since, full, dry_run, check)

    run.__doc__ = f"""Load what is new in {title}.

    The first load brings open deals and those closed in the last 90 days, with their whole history;
    later ones bring what changed. It may be stopped at any moment: the next one goes on there.
    Without --project, all accounts are loaded that are stored for {title}.

    \b
    Example:
        stageline load {name} --check
        stageline load {name}
        stageline load {name} --project main --since 2025-01-01
    """
    for option in reversed(_OPTIONS):
        run = option(run)
    return click.command(name, short_help=f"Load what is new in {title}.")(run)


_OPTIONS: tuple[Callable[..., Callable[..., None]], ...] = (
    click.option("--project", help="Only the account of this project."),
    click.option(
        "--since",
        metavar="DATE",
        callback=instant,
        help="Bring closed deals from this day on, also those that an earlier load left out.",
    ),
    click.option("--full", is_flag=True, help="Ask for everything again."),
    click.option("--dry-run", is_flag=True, help="Ask, and say what would come; write nothing."),
    click.option("--check", is_flag=True, help="Only try the token: what it opens, what it lacks."),
)


def _run(
    name: str,
    project: str | None,
    since: datetime | None,
    full: bool,
    dry_run: bool,
    check: bool,
) -> None:
    from loaders.accounts import chosen
    from stageline.cli.build import require_migrations

    require_migrations()
    if since is not None and since > datetime.now(UTC):
        raise StagelineError(f"--since {since:%Y-%m-%d} lies in the future. Write a day gone by.")
    console = Console() if sys.stdout.isatty() else Console(width=200)
    accounts = chosen(name, project)
    if check:
        are_open = [_check(console, each) for each in accounts]
        sys.exit(0 if all(are_open) else 1)
    from loaders.crm import load
    from loaders.registry import source

    is_stopped, problems = False, []
    for each in accounts:
        try:
            done = load(
                source(name),
                each.project_id,
                each.account,
                since=since,
                is_full=full,
                dry_run=dry_run,
            )
        except StagelineError as error:
            problems.append(str(error))
            if len(accounts) > 1:
                click.echo(f"error: {error}", err=True)
            continue
        _show(console, done, is_full=full, dry_run=dry_run)
        is_stopped = is_stopped or done.stopped is not None
    if problems:
        raise StagelineError(
            problems[0]
            if len(accounts) == 1
            else f"{len(problems)} of {len(accounts)} accounts of {name} were not loaded."
        )
    if is_stopped:
        sys.exit(TRY_LATER)
    if not dry_run:
        console.print("\nNext: `stageline build` brings the KPIs up to date.", highlight=False)


def _check(console: Console, chosen: "Chosen") -> bool:
    from loaders.crm import check
    from loaders.registry import source

    found = source(chosen.source_name)
    console.print(
        Text(f"{found.title}, project {chosen.project_id}, at {chosen.account.base_url}"),
        style="bold",
    )
    try:
        findings = check(found, chosen.project_id, chosen.account)
    except StagelineError as error:
        click.echo(f"error: {error}", err=True)
        return False
    for finding in findings:
        said = "can be loaded" if finding.problem is None else finding.problem
        console.print(Text(f"  {finding.resource:<16} {said}"), soft_wrap=True)
    return all(finding.problem is None for finding in findings)


def _show(console: Console, done: "CrmLoad", *, is_full: bool, dry_run: bool) -> None:
    console.print(
        Text(f"{done.source.title}, project {done.project_id}: {done.seconds:.1f} s", style="bold")
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("records of")
    titles = ["read"] if dry_run else ["read", "new or changed", "unchanged", "gone"]
    for title in titles:
        table.add_column(title, justify="right")
    for name, each in done.tables.items():
        if each.read or each.gone:
            counts = [each.read, each.touched, each.unchanged, each.gone][: len(titles)]
            table.add_row(name, *(f"{count:,}" for count in counts))
    if table.row_count:
        console.print(table)
    else:
        console.print("  nothing new")
    calls = ", ".join(f"{count:,} {kind}" for kind, count in sorted(done.calls.items()))
    console.print(f"Asked the CRM: {calls or 'nothing'}.", highlight=False)
    for name, each in done.tables.items():
        for column, count in sorted(each.unreadable.items()):
            console.print(
                Text(
                    f"warning: {count:,} values of {name}.{column} do not fit; they are kept as"
                    f" they came in {done.source.dataset}.{name}, column unreadable."
                ),
                soft_wrap=True,
            )
        if each.rejected:
            console.print(
                Text(
                    f"warning: {each.rejected:,} records of {name} were set aside; they are kept"
                    f" in {done.source.dataset}.rejects, each with its reason."
                ),
                soft_wrap=True,
            )
    for sentence in done.warnings:
        console.print(Text(f"warning: {sentence}"), soft_wrap=True)
    for resource, reason in done.left_out.items():
        console.print(Text(f"left out: {resource}: {reason}."), soft_wrap=True)
    if done.stopped is not None:
        command = "the same command without --full" if is_full else "the same command"
        console.print(
            Text(
                f"Stopped: {done.stopped}. What was loaded stays; from"
                f" {done.stopped.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC on, {command} goes on here."
            ),
            soft_wrap=True,
        )
