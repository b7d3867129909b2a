"""How fresh each model is: up to when it holds what came in (``ops.model_states``).

A table holds what had come in when the build that made it began, or when it was found that nothing
had come in since, unless something it is made of was built earlier than that, or a CRM that it is
made of was loaded earlier. A view is as fresh as what it reads.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any, Protocol

import psycopg

from jobs.project import Project

Session = psycopg.Connection[Any]

#: Of what is read as it stands at the moment.
_LIVE = datetime.max.replace(tzinfo=UTC)

_STORED = frozenset({"table", "incremental", "snapshot", "seed"})

_WITH_STATE = ("model", "snapshot")


class BuiltNode(Protocol):
    """What is to be known of a node of a build, as `jobs.build.Node` tells it."""

    @property
    def unique_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def is_good(self) -> bool: ...


@dataclass(frozen=True)
class Still:
    """Tables that were found to hold all that there was, so that they were not built.

    Attributes:
        names: dbt's own names of them.
        at: When that was found.
    """

    names: Collection[str] = ()
    at: datetime = _LIVE


def note(
    session: Session,
    build_id: uuid.UUID,
    started_at: datetime,
    nodes: Iterable[BuiltNode],
    project: Project,
    still: Still,
) -> None:
    """Writes what a build did: its nodes, and how fresh the models are now.

    Args:
        session: Of the jobs role.
        build_id: Its row in ``ops.builds``.
        started_at: When it began.
        nodes: What became of each node.
        project: What dbt read of it.
        still: What it left alone.
    """
    nodes = list(nodes)
    good = {node.unique_id for node in nodes if node.is_good}
    with session.transaction(), session.cursor() as cursor:
        rows = _rows(session, project)
        cursor.executemany(
            "insert into ops.node_runs (build_id, node_kind, node_name, status, seconds, rows)"
            " values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
            [
                (*(build_id, node.kind, node.name, node.status, node.seconds), rows(node.unique_id))
                for node in nodes
                if node.kind in ("model", "seed", "snapshot") or node.status != "pass"
            ],
        )
        before = dict(
            cursor.execute("select model, reflects_until from ops.model_states").fetchall()
        )
        held_at = dict.fromkeys(still.names, still.at) | dict.fromkeys(good, started_at)
        states = _states(project, good, held_at, before, _loaded(session))
        cursor.execute(
            "delete from ops.model_states where model != all(%s)",
            [[str(state["model"]) for state in states]],
        )
        cursor.executemany(
            """
            insert into ops.model_states as mine
                (model, group_name, schema_name, is_stored, reflects_until, build_id)
            values (
                %(model)s, %(group)s, %(schema)s, %(is_stored)s, %(reflects_until)s, %(build)s
            )
            on conflict (model) do update set
                group_name = excluded.group_name,
                schema_name = excluded.schema_name,
                is_stored = excluded.is_stored,
                reflects_until = excluded.reflects_until,
                build_id = coalesce(excluded.build_id, mine.build_id)
            """,
            [{**state, "build": build_id if state["is_built"] else None} for state in states],
        )


def _rows(session: Session, project: Project) -> Callable[[str], int | None]:
    """How many rows the table of a node has; None where it has none.

    By the server's own counters: to count the rows of all tables would take as long as to read
    them.
    """
    counted = {
        (schema, table): rows
        for schema, table, rows in session.execute(
            "select schemaname, relname, n_live_tup from pg_stat_user_tables"
        ).fetchall()
    }

    def rows(unique_id: str) -> int | None:
        node = project.nodes.get(unique_id)
        if node is None or node["config"].get("materialized") not in _STORED:
            return None
        return counted.get((node["schema"], node["alias"]))

    return rows


def _states(
    project: Project,
    good: set[str],
    held_at: Mapping[str, datetime],
    before: Mapping[str, datetime | None],
    loaded: Callable[[str], datetime | None],
) -> list[dict[str, Any]]:
    nodes, sources = project.manifest["nodes"], project.manifest["sources"]
    parents = project.parents
    kept = {
        name: [parent for parent in parents[name] if parent in nodes or parent in sources]
        for name, node in nodes.items()
        if node["resource_type"] in (*_WITH_STATE, "seed")
    }
    reflects: dict[str, datetime | None] = {}
    states = []
    for name in TopologicalSorter(kept).static_order():
        if name in sources:
            reflects[name] = loaded(sources[name]["schema"])
            continue
        node = nodes[name]
        of_parents = [
            reflects[parent]
            for parent in kept[name]
            if reflects[parent] is not _LIVE and not _is_seed(nodes.get(parent))
        ]
        is_stored = node["config"]["materialized"] in _STORED
        if not is_stored:
            reflects[name] = _earliest(of_parents) if of_parents else _LIVE
        elif name in held_at:
            reflects[name] = _earliest([held_at[name], *of_parents])
        else:
            reflects[name] = before.get(node["name"])
        if node["resource_type"] in _WITH_STATE:
            states.append(
                {
                    "model": node["name"],
                    "group": project.group(name),
                    "schema": node["schema"],
                    "is_stored": is_stored,
                    "is_built": name in good,
                    "reflects_until": None if reflects[name] is _LIVE else reflects[name],
                }
            )
    return states


def _is_seed(node: Mapping[str, Any] | None) -> bool:
    """Whether it is a part of the project, which comes with each build."""
    return node is not None and node["resource_type"] == "seed"


def _earliest(instants: Iterable[datetime | None]) -> datetime | None:
    """None where one of them is None: what was never built was built before all else."""
    found = list(instants)
    return None if None in found else min(each for each in found if each is not None)


def _loaded(session: Session) -> Callable[[str], datetime | None]:
    """Up to when a schema of raw tables holds what its CRM has.

    Where a CRM is asked, the last load that brought all there was, of each account; what comes by
    itself, as webhooks and files do, is there at once.
    """
    by_schema = {
        f"raw_{source}": since
        for source, since in session.execute(
            """
            select
                accounts.source_system,
                min(coalesce(last_load.started_at, accounts.updated_at))
            from settings.api_accounts as accounts
            inner join settings.projects using (source_system, project_id)
            left join lateral (
                select max(loads.started_at) as started_at
                from ops.loads
                where
                    loads.source = accounts.source_system
                    and loads.project_id = accounts.project_id
                    and loads.entity is null
                    and loads.status = 'success'
                    and loads.error is null
            ) as last_load on true
            where projects.is_active
            group by accounts.source_system
            """
        ).fetchall()
    }
    return lambda schema: by_schema.get(schema, _LIVE)
