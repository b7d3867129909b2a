"""``stageline worker`` and ``follow-ups``: asking CRMs for what their webhooks leave out."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import psycopg

from stageline import config
from stageline.cli.build import require_migrations
from stageline.cli.tables import Column, show
from stageline.database import connect, cut_short
from stageline.errors import StagelineError

if TYPE_CHECKING:
    from jobs.follow_ups import FollowUp, State

#: Kinds of follow-up work, as the database has them.
_KINDS = ("keycrm_order", "pipedrive_deal")

#: Value of --state -> the word for it in lists.
_STATES = {
    "waiting": "waiting",
    "running": "running",
    "no-token": "no token",
    "gave-up": "gave up",
    "done": "done",
}

#: How an attempt ended -> the words for it in the summary of `worker --once`.
_OUTCOMES = {
    "answered": "answered",
    "waits": "put off",
    "retries": "to be tried again",
    "gave up": "given up",
    "lost its claim": "taken over by another worker",
}

_COLUMNS = (
    Column("kind"),
    Column("project"),
    Column("entity"),
    Column("state"),
    Column("due"),
    Column("attempts", is_number=True),
    Column("last error"),
)


@click.command()
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many deals and orders are asked about at once.",
)
@click.option("--once", is_flag=True, help="Ask for what is due now, one by one, and end.")
@click.option("--no-refresh", is_flag=True, help="Leave the refreshing of tables to others.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Serve /metrics and /healthz there, on 127.0.0.1.",
)
def worker(threads: int, once: bool, no_refresh: bool, metrics_port: int | None) -> None:
    """Refresh what is due, and ask CRMs for what their webhooks leave out, until stopped.

    Tables are refreshed by jobs/kpi_refresh_config.yml; see `stageline jobs status`.

    Each delivery of Pipedrive leads to the changes of the deal, each of KeyCRM to the items of the
    order. The pace that a CRM allows is held over all workers, of which there may be any number.
    What fails is tried again, later and later; see `stageline follow-ups`.

    Every minute it looks for alerts, and tells them to channels; see `stageline notify`.

    Stopped with SIGTERM or Ctrl-C it ends what it is doing, or hands it back. It ends with 70 where
    it cannot go on by itself: let a supervisor start it again.

    With --once it ends with 1 where something was given up, as after eight attempts.

    Metrics are served to Prometheus, or sent to Datadog, where that is asked for: see
    docs/monitoring.md.

    \b
    Example:
        stageline worker
        stageline worker --threads 8 --metrics-port 8788
        stageline worker --once
    """
    if metrics_port is not None:
        if once:
            raise StagelineError("--metrics-port is for a worker that stays: leave --once out.")
        os.environ["STAGELINE_WORKER_METRICS_PORT"] = str(metrics_port)
        config.settings.cache_clear()
    require_migrations()
    if once:
        _work_once()
        return
    from jobs import worker as work

    work.run(threads, with_refreshes=not no_refresh)


def _work_once() -> None:
    from jobs.follow_ups import states
    from jobs.worker import run_once

    with connect("jobs") as jobs:
        gave_up_before = {_key(state) for state in states(jobs) if state.state == "gave up"}
    outcomes: Counter[str] = Counter()
    asked = set()
    try:
        for follow_up, outcome in run_once():
            outcomes[outcome] += 1
            asked.add(_key(follow_up))
    except psycopg.OperationalError as error:
        raise StagelineError(
            f"{cut_short(error, f' after {outcomes.total()} were asked about')}. Nothing is lost:"
            " what was under way is asked again. Run `stageline worker --once` when it is back."
        ) from None
    with connect("jobs") as jobs:
        left = states(jobs)
    gave_up = {_key(state) for state in left if state.state == "gave up"}
    given_up_now = gave_up & (asked | (gave_up - gave_up_before))
    if outcomes:
        told = ", ".join(f"{count} {_OUTCOMES[each]}" for each, count in outcomes.most_common())
        click.echo(f"Asked about {outcomes.total()}: {told}.")
    else:
        click.echo("Nothing was due.")
    concerned = [state for state in left if _key(state) in asked | given_up_now]
    if concerned:
        show(_COLUMNS, [_cells(state) for state in concerned])
    others = len(left) - len(concerned)
    if others:
        click.echo(f"{others} more not done: `stageline follow-ups` lists them.")
    _tell_how_to_mend(concerned)
    _tell_missing_tokens(left)
    if given_up_now:
        raise SystemExit(1)


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(list(_STATES)), help="Only those in this state.")
@click.option("--project", help="Only those of this project.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most rows.")
@click.pass_context
def follow_ups(ctx: click.Context, state: str | None, project: str | None, limit: int) -> None:
    """Show what the worker has still to ask CRMs for, the oldest first, and what failed.

    \b
    STATE     what it means
      waiting   will be asked at the time under "due"
      running   a worker asks now, until "due" at the latest
      no-token  nobody has stored an API token for the project: nothing is asked
      gave-up   failed eight times, and is not tried again by itself
      done      was answered, the latest first; only shown when asked for

    \b
    Example:
        stageline follow-ups
        stageline follow-ups --state gave-up --project shop-1
        stageline follow-ups retry keycrm_order shop-1 4001
        stageline follow-ups retry --all
    """
    if ctx.invoked_subcommand is not None:
        if state or project:
            raise StagelineError("--state and --project narrow the list alone: leave them out.")
        return
    require_migrations()
    if state == "done":
        _show_done(project, limit)
        return
    from jobs.follow_ups import plan, states

    with connect("jobs") as jobs:
        plan(jobs)  # so that what has just come is told, also where no worker runs
        found = [
            each
            for each in states(jobs)
            if project in (None, each.project_id) and state in (None, _option(each.state))
        ]
    if not found:
        click.echo("None." if state or project else "Nothing is left to be asked.")
        return
    show(_COLUMNS, [_cells(each) for each in found[:limit]])
    counts = Counter(each.state for each in found)
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    shown = f"The oldest {limit} of {len(found)}" if len(found) > limit else f"{len(found)}"
    more = "; more with --limit" if len(found) > limit else ""
    click.echo(f"{shown}: {told}{more}.")
    _tell_how_to_mend(found)
    _tell_missing_tokens(found)


@follow_ups.command(short_help="Ask again now for what failed.")
@click.argument("kind", type=click.Choice(_KINDS), required=False)
@click.argument("project", required=False)
@click.argument("entity", required=False)
@click.option("--all", "every", is_flag=True, help="Of every kind and project.")
def retry(kind: str | None, project: str | None, entity: str | None, every: bool) -> None:
    """Make due now what was given up, or waits, with all its attempts.

    Leave ENTITY out for a whole project, and PROJECT, too, for a whole KIND. Where the account is
    left alone for a while, after a refusal or as the CRM asked, that ends now.

    \b
    Example:
        stageline follow-ups retry keycrm_order shop-1 4001
        stageline follow-ups retry keycrm_order shop-1
        stageline follow-ups retry --all
    """
    if every == (kind is not None):
        raise StagelineError(
            "Say what to try again: KIND PROJECT ENTITY as `stageline follow-ups` lists them,"
            " or --all."
        )
    require_migrations()
    from jobs.follow_ups import retry as open_again

    with connect("jobs") as jobs:
        count = open_again(jobs, kind, project, entity)
    if count == 0:
        click.echo("Nothing of that has failed or waits: see `stageline follow-ups`.")
        return
    click.echo(f"{count} due now. `stageline worker` asks for what is due.")


def _show_done(project: str | None, limit: int) -> None:
    from jobs.follow_ups import answered

    with connect("jobs") as jobs:
        rows, count = answered(jobs, project, limit)
    if not count:
        click.echo("None.")
        return
    show(
        [Column(title) for title in ("kind", "project", "entity", "answered")],
        [[kind, of_project, entity, _second(at)] for kind, of_project, entity, at in rows],
    )
    click.echo(
        f"The latest {limit} of {count} done; more with --limit."
        if count > limit
        else f"{count} done."
    )


def _key(one: "State | FollowUp") -> tuple[str, str, str, str]:
    return one.kind, one.source_system, one.project_id, one.entity_id


def _option(state: str) -> str:
    return next(option for option, word in _STATES.items() if word == state)


def _cells(state: "State") -> Sequence[str]:
    return (
        state.kind,
        state.project_id,
        state.entity_id,
        state.state,
        _second(state.due_at) if state.due_at else "",
        str(state.attempts),
        state.reason or "",
    )


def _tell_how_to_mend(found: Iterable["State"]) -> None:
    if any(state.reason for state in found):
        click.echo(
            "Once a reason is mended (a token with `stageline projects api`),"
            " `stageline follow-ups retry --all` asks again at once.",
            err=True,
        )


def _tell_missing_tokens(found: Iterable["State"]) -> None:
    """Names the projects for which nothing is asked, and the command that changes that."""
    without = Counter(
        (state.source_system, state.project_id) for state in found if state.state == "no token"
    )
    for (source, project), count in sorted(without.items()):
        click.echo(
            f"note: project {project} of {source} has no API token, so {count} wait for one:"
            f" `stageline projects api {source} {project}`.",
            err=True,
        )


def _second(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
