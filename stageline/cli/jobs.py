"""``stageline jobs``: what is refreshed when, how it went, and how fresh the tables are."""

import json
import signal
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import psycopg
from psycopg.rows import dict_row

from stageline.cli.build import require_migrations
from stageline.cli.tables import Column, show
from stageline.database import connect
from stageline.errors import TRY_LATER, StagelineError
from stageline.settings.changes import who

if TYPE_CHECKING:
    from jobs.refresh_config import Group

#: States of models, worst first.
_STATES = ("never built", "breached", "at risk", "fresh")


@click.group()
def jobs() -> None:
    """Refresh KPI tables on time, and see whether they are.

    What is refreshed when, and how fresh it is promised to be, stands in
    jobs/kpi_refresh_config.yml. `stageline worker` keeps to it; `stageline jobs run` does so for
    cron, Kubernetes or Airflow.

    \b
    Example:
        stageline jobs status
        stageline jobs plan
        stageline jobs run pipeline --now
    """


@jobs.command(short_help="Show what is refreshed within a day.")
@click.option("--slots", "with_slots", is_flag=True, help="List every slot, too.")
def plan(with_slots: bool) -> None:
    """Show the runs of the next 24 hours, and whether promises can be kept by them.

    How long runs take is measured on the last good ones. Exits with 1 where a promise cannot be
    kept.

    \b
    Example:
        stageline jobs plan
        stageline jobs plan --slots
    """
    from jobs.refresh_config import read
    from jobs.refresh_plan import forecast
    from jobs.refresh_runs import typical_seconds

    groups = read()
    require_migrations()
    with connect("jobs") as session:
        typical = typical_seconds(session)
    now = datetime.now(UTC)
    found = forecast(groups, typical, now)
    verdicts = {True: "kept", False: "BROKEN", None: "not known yet"}
    show(
        (
            *(Column(name) for name in ("group", "schedule", "zone")),
            *(Column(name, is_number=True) for name in ("runs", "next", "takes")),
            *(Column(name) for name in ("promise", "at worst", "can be")),
        ),
        [
            (
                *(name, group.schedule, group.zone.key, str(len(found[name].slots))),
                f"{found[name].slots[0]:%H:%M}" if found[name].slots else "",
                _lasting(typical[name]) if name in typical else "",
                _promise(group),
                _lasting(latest.total_seconds()) if (latest := found[name].latest) else "",
                verdicts[found[name].is_kept(group)],
            )
            for name, group in groups.items()
        ],
    )
    if with_slots:
        at: dict[datetime, list[str]] = {}
        for name, each in found.items():
            for slot in each.slots:
                at.setdefault(slot, []).append(name)
        click.echo("")
        show(
            [Column("slot (UTC)"), Column("groups")],
            [(f"{slot:%Y-%m-%d %H:%M}", ", ".join(at[slot])) for slot in sorted(at)],
        )
    if any(found[name].is_kept(group) is False for name, group in groups.items()):
        raise StagelineError(
            "A promise cannot be kept: refresh it more often, or promise less, in"
            " jobs/kpi_refresh_config.yml."
        )


@jobs.command(short_help="Refresh a group.")
@click.argument("group")
@click.option("--now", "at_once", is_flag=True, help="Whether a slot is due or not.")
def run(group: str, at_once: bool) -> None:
    """Refresh a group if a slot of it is due that nobody has run.

    Any number of machines may call it at the same time: each slot is run once. One that was missed
    is caught up.

    \b
    Exits with
      0   refreshed, or nothing is due
      1   failed; a worker, or the next call, tries again when that is due
      75  another process refreshes: the run waits, for a worker or the next call

    \b
    Example:
        stageline jobs run flow
        stageline jobs run pipeline --now
    """
    from jobs import refresh_runs as runs
    from jobs import traces
    from jobs.refresh import refresh_due
    from jobs.refresh_config import read, require

    groups = read()
    chosen = require(groups, group)
    require_migrations()
    traces.begin()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with connect("jobs", autocommit=True) as session:
        now = datetime.now(UTC)
        runs.sync(session, groups, now)
        if at_once:
            run_id = runs.request(session, group, who() or "hand", now)
        else:
            runs.plan(session, {group: chosen}, now)
            due = runs.due(session, group, now)
            if due is None:
                click.echo(_why_nothing(session, group))
                return
            run_id = due
        outcomes = refresh_due(session, groups, stop, only=run_id)
    if not outcomes:
        click.echo("Another process refreshes now. The run waits for it.", err=True)
        raise SystemExit(TRY_LATER)
    (outcome,) = outcomes
    if outcome.error:
        again = f" It is tried again at {_time(outcome.again)}." if outcome.again else ""
        raise StagelineError(f"Group {group} was not refreshed: {outcome.error}{again}")
    if outcome.again is not None:
        why = "Another build is running." if outcome.is_busy else "It was stopped."
        click.echo(f"{why} The run waits, and is due again.", err=True)
        raise SystemExit(TRY_LATER)
    click.echo(f"Group {group} is refreshed. `stageline jobs status` shows how fresh it is.")


@jobs.command(short_help="Show how fresh tables are, and what runs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def status(as_json: bool) -> None:
    """Show how fresh each group's tables are, and what runs.

    A table is as old as the start of its last good build, or the last load of a CRM that it is made
    of. Exits with 1 where a promise is broken.

    \b
    Example:
        stageline jobs status
        stageline jobs status --json
    """
    from jobs import refresh_runs as runs
    from jobs.refresh_config import read

    groups = read()
    require_migrations()
    with connect("jobs", autocommit=True) as session:
        runs.sync(session, groups, datetime.now(UTC))
        runs.expect(session, datetime.now(UTC))
        found = _states(session)
    if as_json:
        click.echo(json.dumps(found, indent=2, default=_json))
    else:
        show(
            [
                *(Column(name) for name in ("group", "state")),
                Column("age", is_number=True),
                *(Column(name) for name in ("promise", "broken at (UTC)", "last run", "next")),
            ],
            [
                (
                    name,
                    str(one["state"]) + (", paused" if one["is_paused"] else ""),
                    _lasting(one["age_seconds"]),
                    _promise(groups[name]),
                    _time(one["breaches_at"]),
                    _last_run(one),
                    "" if one["is_paused"] else _time(one["next_slot"]),
                )
                for name, one in found.items()
            ],
        )
        for one in found.values():
            if one["error"]:
                click.echo(f"{one['group_name']}: {one['error']}", err=True)
    if any(one["state"] == "breached" for one in found.values()):
        raise SystemExit(1)


@jobs.command(short_help="Show the last runs.")
@click.argument("group", required=False)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most rows.")
def history(group: str | None, limit: int) -> None:
    """Show the last runs, and which took longer than usual.

    \b
    Example:
        stageline jobs history
        stageline jobs history flow --limit 100
    """
    from jobs.refresh_config import read, require
    from jobs.refresh_runs import usual_seconds

    if group is not None:
        require(read(), group)
    require_migrations()
    with connect("jobs") as session, session.cursor(row_factory=dict_row) as cursor:
        usual = usual_seconds(session)
        rows = cursor.execute(
            """
            select
                group_name, slot, requested_by, status, attempts, started_at, finished_at, error,
                extract(epoch from finished_at - started_at) as seconds
            from ops.runs
            where %(group)s::text is null or group_name = %(group)s
            order by coalesce(started_at, requested_at) desc
            limit %(limit)s
            """,
            {"group": group, "limit": limit},
        ).fetchall()
    if not rows:
        click.echo("Nothing has run yet. `stageline worker` keeps to the schedule.")
        return
    show(
        [
            *(Column(name) for name in ("group", "slot", "asked by", "status")),
            Column("attempts", is_number=True),
            Column("began (UTC)"),
            Column("took", is_number=True),
            Column("note"),
        ],
        [
            (
                *(row["group_name"], _time(row["slot"]), row["requested_by"], row["status"]),
                *(str(row["attempts"]), _time(row["started_at"])),
                _lasting(row["seconds"]),
                row["error"] or _slower(row, usual.get(row["group_name"])),
            )
            for row in rows
        ],
    )


@jobs.command(short_help="Show what models cost, and which got slower.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most rows.")
def cost(limit: int) -> None:
    """Show what takes longest, by the last 24 hours, and what got slower.

    What got slower took twice as long in its last five runs as before, or longer, within 14 days.

    \b
    Example:
        stageline jobs cost
        stageline jobs cost --limit 100
    """
    require_migrations()
    with connect("jobs") as session, session.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "select * from ops.node_costs order by is_slower desc, day_seconds desc, node_name"
            " limit %s",
            [limit],
        ).fetchall()
    if not rows:
        click.echo("Nothing was built within 14 days. `stageline build` or a refresh builds.")
        return
    numbers = ("rows", "runs", "seconds a day", "usual", "lately")
    show(
        [Column("what"), *(Column(name, is_number=True) for name in numbers), Column("note")],
        [
            (
                row["node_name"],
                "" if row["rows"] is None else f"{row['rows']:,}",
                *(f"{row['runs']:,}", f"{row['day_seconds']:,.1f}"),
                *(_tenths(row["usual_seconds"]), _tenths(row["lately_seconds"])),
                "slower" if row["is_slower"] else "",
            )
            for row in rows
        ],
    )


def _tenths(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


@jobs.command(short_help="Try the last run again, if it failed.")
@click.argument("group")
def retry(group: str) -> None:
    """Make the last run of a group due again, if it failed: from the node on that failed.

    \b
    Example:
        stageline jobs retry flow
    """
    from jobs import refresh_runs as runs

    with _group(group) as session:
        if not runs.retry(session, group, datetime.now(UTC)):
            raise StagelineError(
                f"The last run of {group} has not failed. See `stageline jobs history {group}`."
            )
    click.echo(f"{group} is due. `stageline worker` or `stageline jobs run {group}` runs it.")


@jobs.command(short_help="Stop the schedule of a group.")
@click.argument("group")
def pause(group: str) -> None:
    """Let no slot of a group make a run, until it is resumed; a run under way ends.

    \b
    Example:
        stageline jobs pause flow
    """
    from jobs import refresh_runs as runs

    with _group(group) as session:
        changed = runs.pause(session, group, who() or "hand", datetime.now(UTC))
    click.echo(f"{group} is paused." if changed else f"{group} was paused before.")


@jobs.command(short_help="Let a group go on.")
@click.argument("group")
def resume(group: str) -> None:
    """Let a group go on; of the slots that it missed, the last one is run.

    \b
    Example:
        stageline jobs resume flow
    """
    from jobs import refresh_runs as runs

    with _group(group) as session:
        changed = runs.resume(session, group)
    click.echo(f"{group} goes on." if changed else f"{group} was not paused.")


def _group(name: str) -> "psycopg.Connection[Any]":
    """A session in which the groups are known, for a command about one of them.

    Raises:
        StagelineError: there is no such group, or the database cannot be reached.
    """
    from jobs import refresh_runs as runs
    from jobs.refresh_config import read, require

    groups = read()
    require(groups, name)
    require_migrations()
    session = connect("jobs", autocommit=True)
    runs.sync(session, groups, datetime.now(UTC))
    return session


def _states(session: "psycopg.Connection[Any]") -> dict[str, dict[str, Any]]:
    """The groups as they stand: the state of the worst model of each, and its last run."""
    with session.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            select
                groups.group_name,
                coalesce(worst.state, 'never built') as state,
                groups.paused_at is not null as is_paused,
                worst.age_seconds,
                worst.reflects_until,
                worst.breaches_at,
                groups.next_slot,
                groups.expected_at,
                last_run.status as run_status,
                last_run.started_at as run_started_at,
                last_run.finished_at as run_finished_at,
                last_run.due_at as run_due_at,
                last_run.attempts as run_attempts,
                last_run.error
            from ops.refresh_groups as groups
            left join lateral (
                select state, age_seconds, reflects_until, breaches_at
                from ops.model_freshness as models
                where models.group_name = groups.group_name
                order by array_position(%s::text[], state), reflects_until
                limit 1
            ) as worst on true
            left join lateral (
                select status, started_at, finished_at, due_at, attempts, error
                from ops.runs
                where runs.group_name = groups.group_name and status not in ('skipped', 'cancelled')
                order by requested_at desc
                limit 1
            ) as last_run on true
            order by groups.group_name
            """,
            [list(_STATES)],
        ).fetchall()
    return {row["group_name"]: row for row in rows}


def _why_nothing(session: "psycopg.Connection[Any]", group: str) -> str:
    row = session.execute(
        "select paused_at is not null, next_slot from ops.refresh_groups where group_name = %s",
        [group],
    ).fetchone()
    is_paused, next_slot = row or (False, None)
    if is_paused:
        return f"{group} is paused. `stageline jobs resume {group}` lets it go on."
    return f"Nothing is due: the next slot of {group} is at {_time(next_slot)}."


def _promise(group: "Group") -> str:
    if group.never_older_than is not None:
        return f"never older than {_lasting(group.promised.total_seconds())}"
    return f"{_lasting(group.promised.total_seconds())} after a slot"


def _last_run(one: Mapping[str, Any]) -> str:
    match one["run_status"]:
        case None:
            return ""
        case "running":
            return f"running since {_time(one['run_started_at'])}"
        case "waiting":
            failed = f", {one['run_attempts']} failed" if one["run_attempts"] else ""
            return f"due {_time(one['run_due_at'])}{failed}"
        case ended:
            return f"{ended} {_time(one['run_finished_at'])}"


def _slower(row: Mapping[str, Any], usual: float | None) -> str:
    """A word on a run that took more than twice as long as runs of its group do."""
    if row["status"] != "success" or not usual or float(row["seconds"]) <= 2 * usual:
        return ""
    return f"{float(row['seconds']) / usual:.1f} times as long as usual"


def _lasting(seconds: Any) -> str:
    """Seconds as ``45s``, ``12m`` or ``3h05m``; empty for None."""
    if seconds is None:
        return ""
    lasting = round(float(seconds))
    if lasting < 60:
        return f"{lasting}s"
    hours, minutes = divmod(lasting // 60, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m"


def _time(instant: datetime | None) -> str:
    """An instant in UTC, without its date where that is today's."""
    if instant is None:
        return ""
    there = instant.astimezone(UTC)
    is_near = abs(there - datetime.now(UTC)) < timedelta(hours=12)
    return f"{there:%H:%M:%S}" if is_near else f"{there:%Y-%m-%d %H:%M}"


def _json(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else float(str(value))
