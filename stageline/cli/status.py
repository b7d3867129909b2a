"""``stageline status``: the database, what is loaded in it, and the last build."""

import json
from datetime import datetime
from typing import Any

import click

from stageline.config import settings
from stageline.database import connect, connection
from stageline.errors import StagelineError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def status(as_json: bool) -> None:
    """Show the database, what is loaded, and the last build.

    Exits with 3 where the database does not run.

    \b
    Example:
        stageline status
        stageline status --json
    """
    found = _state()
    click.echo(json.dumps(found, indent=2, default=str) if as_json else _readable(found))
    if not found["running"]:
        raise SystemExit(3)


def _state() -> dict[str, Any]:
    """Everything that is shown; times in UTC, sizes in bytes."""
    from stageline import migrate, server

    own_server = settings().database_url is not None
    found: dict[str, Any] = {"server": "yours" if own_server else "embedded", "running": False}
    if not own_server:
        found["data_folder"] = str((server.home() / "postgres").resolve())
        found["log"] = str(server.log_file(server.home()))
        if server.find(server.home()) is None:
            return found
    target = connection("owner")
    found |= {"host": target.host, "port": target.port, "database": target.dbname}
    try:
        session = connect("owner")
    except StagelineError as error:
        return found | {"problem": str(error)}
    with session:
        found["running"] = True
        row = session.execute(
            "select current_setting('server_version'), pg_database_size(current_database())"
        ).fetchone()
        if row is not None:
            found["version"], found["size_bytes"] = row
        found["migration"], found["newest_migration"] = migrate.current(), migrate.head()
        if found["migration"] == found["newest_migration"]:
            found["loaded"] = _rows(
                session,
                """
                select
                    source, entity, project_id,
                    sum(rows_loaded) filter (where status = 'success') as rows_loaded,
                    sum(rows_rejected) filter (where status = 'success') as rows_rejected,
                    max(finished_at) filter (where status = 'success') as last_loaded_at,
                    count(*) filter (where status = 'failed') as failed_loads
                from ops.loads
                group by source, entity, project_id
                order by source, entity, project_id
                """,
            )
            found["received"] = _rows(
                session,
                """
                select
                    sender, project_id,
                    count(*) as deliveries,
                    max(received_at) as last_received_at
                from raw.deliveries
                group by sender, project_id
                order by sender, project_id
                """,
            )
            found["unparsed_deliveries"] = _rows(
                session, "select count(*) from raw.unparsed_deliveries"
            )[0]["count"]
            found["follow_ups"] = _rows(
                session,
                """
                select
                    count(*) filter (where gave_up_at is null) as waiting,
                    count(gave_up_at) as gave_up
                from ops.follow_ups
                where answered < requested
                """,
            )[0]
            builds = _rows(
                session,
                """
                select status, selector, started_at, finished_at, nodes_ok, nodes_failed, seconds
                from ops.builds
                order by started_at desc
                limit 1
                """,
            )
            found["last_build"] = builds[0] if builds else None
            found["kpi_tables"] = _rows(
                session,
                """
                select count(*) as tables
                from pg_class
                where relnamespace = to_regnamespace('kpis') and relkind in ('r', 'v', 'm', 'p')
                """,
            )[0]["tables"]
    return found


def _rows(session: Any, query: str) -> list[dict[str, Any]]:
    cursor = session.execute(query)
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _readable(found: dict[str, Any]) -> str:
    """What a person reads."""
    if not found["running"]:
        where = found.get("problem") or "The embedded PostgreSQL does not run. Run `stageline up`."
        return str(where)
    lines = [
        f"PostgreSQL {found['version']} ({found['server']}) on {found['host']}:{found['port']},"
        f" database {found['database']}, {found['size_bytes'] / 1e6:.0f} MB"
    ]
    if "data_folder" in found:
        lines += [f"Data       {found['data_folder']}", f"Log        {found['log']}"]
    if found["migration"] != found["newest_migration"]:
        lines.append(
            f"Migration  {found['migration'] or 'none'}, the newest is {found['newest_migration']}:"
            " run `stageline up`"
        )
        return "\n".join(lines)
    lines.append(f"Migration  {found['migration']} (the newest)")
    if found["loaded"]:
        lines.append("Loaded")
    else:
        lines.append("Loaded     nothing yet: `stageline demo`, or `stageline load --help`")
    names = [
        "/".join(str(part) for part in (load["source"], load["project_id"], load["entity"]) if part)
        for load in found["loaded"]
    ]
    width = max(map(len, names), default=0)
    for name, load in zip(names, found["loaded"], strict=True):
        text = f"  {name:<{width}} {load['rows_loaded'] or 0:>11,} rows"
        if load["rows_rejected"]:
            text += f", {load['rows_rejected']:,} rejected"
        if load["failed_loads"]:
            text += f", {load['failed_loads']} failed loads"
        lines.append(text + f", last {_minute(load['last_loaded_at'])}")
    lines += _received(found)
    build = found["last_build"]
    if build is None:
        lines.append("Build      none yet: `stageline build`")
    else:
        state = build["status"]
        if state == "failed" and not build["nodes_failed"]:
            state = "not finished"  # it was stopped, or could not begin: no node has failed
        if state != "running":
            state += f", {build['nodes_ok']} ok, {build['nodes_failed']} failed"
        lines.append(
            f"Build      {state}, started {_minute(build['started_at'])};"
            f" {found['kpi_tables']} KPI tables"
        )
    return "\n".join(lines)


def _received(found: dict[str, Any]) -> list[str]:
    """What webhooks brought, and what of it asks for a person; nothing where there are none."""
    if not found["received"]:
        return []
    lines = ["Received"]
    names = [f"{each['sender']}/{each['project_id']}" for each in found["received"]]
    width = max(map(len, names))
    lines += [
        f"  {name:<{width}} {each['deliveries']:>11,} deliveries,"
        f" last {_minute(each['last_received_at'])}"
        for name, each in zip(names, found["received"], strict=True)
    ]
    if found["unparsed_deliveries"]:
        lines.append(
            f"  {found['unparsed_deliveries']:,} not read whole: `stageline deliveries --unparsed`"
        )
    waiting, gave_up = found["follow_ups"]["waiting"], found["follow_ups"]["gave_up"]
    if waiting or gave_up:
        lines.append(
            f"  follow-ups: {waiting:,} waiting, {gave_up:,} given up: `stageline follow-ups`"
        )
    return lines


def _minute(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
