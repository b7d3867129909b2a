"""``stageline deliveries`` and ``replay``: what the receiver took, and reading it again."""

import sys
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from psycopg import sql

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.tables import Column, show
from stageline.database import connect
from stageline.errors import StagelineError

_SENDER = click.option(
    "--sender",
    type=click.Choice(["keycrm", "pipedrive", "zapier", "hubspot"]),
    help="Only of this.",
)
_PROJECT = click.option("--project", help="Only of this project.")
_SINCE = click.option(
    "--since", metavar="INSTANT", callback=instant, help="Only received at or after this."
)
_UNTIL = click.option("--until", metavar="INSTANT", callback=instant, help="Only received before.")

#: What is listed -> its table, the columns to show, and when a row came.
_LISTS = {
    "all": (
        "deliveries",
        ("received_at", "delivery_id", "sender", "project_id", "entity_ids", "unparsed_reason"),
        "received_at",
    ),
    "unparsed": (
        "unparsed_deliveries",
        ("received_at", "delivery_id", "sender", "project_id", "body_bytes", "unparsed_reason"),
        "received_at",
    ),
    "conflicts": (
        "conflicting_deliveries",
        ("received_at", "delivery_id", "sender", "project_id", "sender_delivery_id"),
        "received_at",
    ),
    "refused": (
        "refusals",
        ("refused_at", "sender", "project_id", "client_address", "body_bytes", "reason"),
        "refused_at",
    ),
}


@click.command()
@click.option(
    "--unparsed", "what", flag_value="unparsed", help="Those of which a part gave no events."
)
@click.option(
    "--conflicts",
    "what",
    flag_value="conflicts",
    help="Those that share the sender's id with another of different content.",
)
@click.option("--refused", "what", flag_value="refused", help="Requests that were not let in.")
@_SENDER
@_PROJECT
@_SINCE
@_UNTIL
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most rows.")
@click.option(
    "--body",
    "delivery_id",
    type=click.UUID,
    metavar="DELIVERY_ID",
    help="Write the body of one delivery to stdout, as it came.",
)
def deliveries(
    what: str | None,
    sender: str | None,
    project: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    delivery_id: UUID | None,
) -> None:
    """Show what the receiver took, newest first, and what it refused.

    \b
    Example:
        stageline deliveries --sender keycrm --since 2027-03-01
        stageline deliveries --unparsed
        stageline deliveries --body 4c740341-8e2e-82f8-af65-af55d23026df
    """
    require_migrations()
    if delivery_id is not None:
        _write_body(delivery_id)
        return
    table, names, came_at = _LISTS[what or "all"]
    chosen = sql.SQL(
        " from {table} where sender is not distinct from coalesce(%(sender)s, sender)"
        " and project_id is not distinct from coalesce(%(project)s, project_id)"
        " and {came_at} >= coalesce(%(since)s::timestamptz, '-infinity')"
        " and {came_at} < coalesce(%(until)s::timestamptz, 'infinity')"
    ).format(table=sql.Identifier("raw", table), came_at=sql.Identifier(came_at))
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    newest_first = sql.SQL(" order by {} desc limit %(limit)s").format(sql.Identifier(came_at))
    given = {"sender": sender, "project": project, "since": since, "until": until, "limit": limit}
    with connect("jobs") as session:
        ((count,),) = session.execute(sql.SQL("select count(*)") + chosen, given).fetchall()
        rows = session.execute(sql.SQL("select ") + columns + chosen + newest_first, given)
        cells = [[_cell(value) for value in row] for row in rows]
    if not count:
        click.echo("None.")
        return
    show(
        [Column(name.replace("_", " "), is_number=name == "body_bytes") for name in names],
        cells,
    )
    click.echo(
        f"The newest {limit} of {count}; more with --limit."
        if count > limit
        else f"{count} in all."
    )
    if what == "unparsed":
        click.echo("What they said: `stageline deliveries --body ID`; again: `stageline replay`.")


@click.command()
@click.argument("delivery_ids", nargs=-1, type=click.UUID)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also those that were read without fault; by default only what `--unparsed` lists.",
)
@_SENDER
@_PROJECT
@_SINCE
@_UNTIL
@click.option("--dry-run", is_flag=True, help="Only say how many that would be.")
def replay(
    delivery_ids: tuple[UUID, ...],
    everything: bool,
    sender: str | None,
    project: str | None,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
) -> None:
    """Read landed deliveries again, after a fix.

    Events that are there stay as they are; doing it twice changes nothing. What is archived is left
    out; `stageline archive restore` brings it back.

    \b
    Example:
        stageline replay
        stageline replay 4c740341-8e2e-82f8-af65-af55d23026df
        stageline replay --all --sender pipedrive --since 2027-03-01 --dry-run
    """
    from stageline.progress import step
    from webhook_receiver.replay import Choice, archived, archived_words, count
    from webhook_receiver.replay import replay as read_again

    require_migrations()
    choice = Choice(
        unparsed=not (everything or delivery_ids),
        delivery_ids=list(delivery_ids) or None,
        sender=sender,
        project_id=project,
        since=since,
        until=until,
    )
    total = count(choice)
    if delivery_ids and total < len(set(delivery_ids)):
        raise StagelineError(
            f"{len(set(delivery_ids)) - total} of these deliveries are not there."
            " `stageline deliveries` lists those that are."
        )
    if left_out := archived(choice):
        if delivery_ids:
            raise StagelineError(archived_words(left_out))
        click.echo(f"note: {archived_words(left_out)}", err=True)
        total -= sum(month.deliveries for month in left_out)
    if dry_run or not total:
        click.echo(f"Would be read again: {total}." if dry_run else "Nothing to replay.")
        return
    unparsed = events = 0
    with step("Read deliveries again", total) as current:
        for batch in read_again(choice):
            current.advance(batch.deliveries)
            unparsed += batch.unparsed
            events += batch.stage_events
        current.note(deliveries=total, new_stage_events=events, still_unparsed=unparsed)
    click.echo(
        f"Read again: {total}. New stage events: {events}. Still not read whole: {unparsed}."
    )


def _write_body(delivery_id: UUID) -> None:
    from webhook_receiver.replay import Choice, archived, archived_words

    with connect("transformer") as session:
        row = session.execute(
            "select body from raw.delivery_bodies where delivery_id = %s", [delivery_id]
        ).fetchone()
    if row is None:
        if left_out := archived(Choice(delivery_ids=[delivery_id])):
            raise StagelineError(archived_words(left_out))
        raise StagelineError(
            f"There is no delivery {delivery_id}. `stageline deliveries` lists them."
        )
    sys.stdout.buffer.write(row[0])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, list):
        more = f" +{len(value) - 3}" if len(value) > 3 else ""
        return ", ".join(value[:3]) + more
    return str(value)
