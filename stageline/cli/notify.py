"""``stageline notify``: what needs somebody, who was told of it, and whether channels work."""

from datetime import UTC, datetime

import click

from stageline.cli.build import require_migrations
from stageline.cli.tables import Column, show
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.changes import who
from stageline.settings.names import require_one_line


@click.group(short_help="Show what needs somebody, and tell it to channels.")
def notify() -> None:
    """Show what needs somebody, and see that it is told.

    The worker sends alerts to the channels of jobs/notifications.yml; as shipped there is none.

    \b
    Example:
        stageline notify test team
        stageline notify list
        stageline notify acknowledge 'kpi|calls_this_week|file|bdr|rep|r-2'
    """


@notify.command(short_help="Send a test message to a channel.")
@click.argument("channel")
def test(channel: str) -> None:
    """Send a message to CHANNEL now that says it is a test, and tell what the other side answers.

    \b
    Example:
        stageline notify test team
    """
    from jobs.channels import channel_named
    from jobs.notifications import send_test

    chosen = channel_named(channel)
    answer = send_test(chosen)
    click.echo(f"Channel {chosen.name} ({chosen.kind}) took the message: {answer}.")


@notify.command("list", short_help="Show open alerts, and what was told of them.")
@click.option(
    "--resolved",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="Also so many of those resolved last.",
)
def list_alerts(resolved: int) -> None:
    """Show open alerts, the most critical first, and which channels were told of them, and when.

    Instants are in UTC. The worker looks for alerts every minute.

    \b
    Example:
        stageline notify list
        stageline notify list --resolved 20
    """
    require_migrations()
    from jobs.channels import channels
    from jobs.notifications import states

    configured = channels()
    with connect("jobs") as jobs:
        found = states(jobs, with_resolved=resolved)
    if found:
        titles = ("criticality", "opened", "state", "alert", "key", "told")
        show(
            [Column(title) for title in titles],
            [
                (
                    alert.criticality,
                    _minute(alert.opened_at),
                    _state(alert.acknowledged_by, alert.resolved_at),
                    alert.title,
                    alert.key,
                    "; ".join(alert.told) or "nobody",
                )
                for alert in found
            ],
        )
    is_open = sum(alert.resolved_at is None for alert in found)
    click.echo(f"{is_open} open." if is_open else "Nothing is open.")
    if not configured:
        click.echo(
            "note: No channel is configured, so nobody is told. jobs/notifications.yml says how.",
            err=True,
        )


@notify.command(short_help="Say that somebody looks after an alert.")
@click.argument("key")
@click.option("--by", help="Who does; default: you, as settings name who changes them.")
def acknowledge(key: str, by: str | None) -> None:
    """Say that somebody looks after the open alert KEY: reminders and escalation end.

    Its end is told all the same. When it gets worse, it has to be acknowledged again.

    \b
    Example:
        stageline notify acknowledge 'kpi|calls_this_week|file|bdr|rep|r-2'
        stageline notify acknowledge 'quality|raw_files.leads|unique|lead_id' --by Ann
    """
    if by is not None:
        require_one_line(by, "--by")
    require_migrations()
    from jobs.alerts import acknowledge as note

    name = by or who() or "somebody"
    with connect("jobs", autocommit=True) as jobs:
        note(jobs, key, name, datetime.now(UTC))
    click.echo(f"Acknowledged by {name}: no more reminders of {key}.")


@notify.command(short_help="Send again what a channel has not got.")
@click.argument("channel")
def retry(channel: str) -> None:
    """Make due now what CHANNEL has not got: what was given up, and what waits after a failure.

    Only of alerts that are open. For when an address, a key or a server was put right.

    \b
    Example:
        stageline notify retry team
    """
    require_migrations()
    from jobs.channels import channel_named
    from jobs.notifications import retry as make_due

    chosen = channel_named(channel)
    with connect("jobs", autocommit=True) as jobs:
        count = make_due(jobs, chosen.name, datetime.now(UTC))
    if count == 0:
        raise StagelineError(f"Channel {chosen.name} has got everything that was for it.")
    click.echo(f"{count} due now. `stageline worker` sends what is due.")


def _state(acknowledged_by: str | None, resolved_at: datetime | None) -> str:
    if resolved_at is not None:
        return f"resolved {_minute(resolved_at)}"
    return f"acknowledged by {acknowledged_by}" if acknowledged_by else "open"


def _minute(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M}"
