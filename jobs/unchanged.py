"""What a refresh need not do again (``ops.unchanged_nodes``).

Tables are built each time, as time goes on in them: a deal is a day older tomorrow. But most of
what a refresh is about are views, seeds and tests of raw data, which change only if something that
they are made of does: the project, or the rows of a source. Each has a mark, a hash over all of
that. What was good when it had the mark that it has now, and is still there, is left alone.

Whether rows of a source changed is told by the counters of the server. They are lost when it stops:
then everything counts as changed once. A change may be counted a moment late, and is then seen by
the next refresh. What tables hold does not depend on it, only when a test of raw data finds fault.

Tables that are built by what changed are left alone, too, where nothing did. That is not told by
counters but by the model `int_flow_states`, exactly: by what transactions wrote. The mark of such a
table is up to where it holds that.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

import psycopg
from psycopg import sql

from jobs.freshness import Still
from jobs.project import Project

Session = psycopg.Connection[Any]

#: The model that tells of each that is built by what changed whether anything did.
_STATES = "int_flow_states"

#: Kinds of nodes that may be left alone, where they read no table that is built each time.
_KINDS = ("view", "seed", "test")

#: What makes SQL another one at each run, or its answer.
_OF_THE_MOMENT = re.compile(
    r"run_started_at|invocation_id|env_var|\bnow\s*\(|current_(date|time)|localtime|random\s*\("
    r"|(clock|statement|transaction)_timestamp",
    re.IGNORECASE,
)

#: Of a node's definition: what says nothing about what it makes.
_TELLS_NOTHING = ("created_at", "compiled", "compiled_code", "compiled_path", "build_path")


@dataclass(frozen=True)
class Relations:
    """What the server says of tables and views.

    Attributes:
        contents: Schema and table -> a word that changes with its rows; of tables alone.
        definitions: Schema and relation -> a word that changes when it is made again otherwise.
    """

    contents: Mapping[tuple[str, str], str]
    definitions: Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Built:
    """A table that is built by what changed.

    Attributes:
        until: Up to where it holds what was written.
        is_behind: Whether something was written since.
    """

    until: str
    is_behind: bool


@dataclass(frozen=True)
class Todo:
    """What a refresh does and what it leaves alone.

    Attributes:
        terms: dbt selection of what it builds and tests, by names; dbt finds their tests.
        still: Tables that hold all there is as they are.
    """

    terms: Sequence[str]
    still: Still


def look(session: Session) -> Relations:
    """What the server says now."""
    rows = session.execute(
        """
        select
            pg_namespace.nspname,
            pg_class.relname,
            case
                when pg_class.relkind = 'r' and current_setting('track_counts')::boolean
                    then concat_ws(
                        ' ', pg_class.oid, counted.n_tup_ins, counted.n_tup_upd, counted.n_tup_del,
                        pg_postmaster_start_time(), of_database.stats_reset
                    )
            end,
            case pg_class.relkind
                when 'v' then md5(pg_get_viewdef(pg_class.oid))
                else concat_ws(' ', pg_class.oid, pg_class.relfilenode)
            end
        from pg_class
        inner join pg_namespace on pg_class.relnamespace = pg_namespace.oid
        left join pg_stat_user_tables as counted on pg_class.oid = counted.relid
        left join pg_stat_database as of_database on of_database.datname = current_database()
        where
            pg_class.relkind in ('r', 'v')
            and pg_namespace.nspname not in ('information_schema', 'pg_catalog', 'pg_toast')
        """
    ).fetchall()
    return Relations(
        {(schema, name): contents for schema, name, contents, _ in rows if contents},
        {(schema, name): definition for schema, name, _, definition in rows},
    )


def tables(session: Session, project: Project) -> dict[str, Built]:
    """The tables that are built by what changed, by dbt's own names; none before the first build.

    Args:
        session: Of the jobs role.
        project: What dbt read of it.
    """
    models = {
        node["name"]: name
        for name, node in project.nodes.items()
        if node["resource_type"] == "model"
    }
    if _STATES not in models:
        return {}
    node = project.nodes[models[_STATES]]
    relation = sql.Identifier(node["schema"], node["alias"])
    there = session.execute(
        "select to_regclass(%s) is not null", [relation.as_string(session)]
    ).fetchone()
    if there != (True,):
        return {}
    query = sql.SQL("select model, concat_ws(' ', built_xid, built_as_of), is_behind from {}")
    return {
        models[model]: Built(until, is_behind)
        for model, until, is_behind in session.execute(query.format(relation)).fetchall()
        if model in models
    }


def marks(
    project: Project, state: str, relations: Relations, built: Mapping[str, Built]
) -> dict[str, str]:
    """The marks of all nodes that may be left alone, by dbt's own name of them.

    Args:
        project: What dbt read of it.
        state: Its state, see `jobs.project.state_of`.
        relations: What the server said before it was built.
        built: What was told of tables after that.
    """
    sources = project.manifest["sources"]
    found: dict[str, str] = {}
    for name in TopologicalSorter(project.parents).static_order():
        if name in sources:
            source = sources[name]
            contents = relations.contents.get((source["schema"], source["identifier"]))
            if contents is not None:
                found[name] = contents
            continue
        node = project.nodes.get(name)
        if node is None:
            continue
        made_of: Sequence[str | None] = (
            [built[name].until]
            if name in built
            else [found.get(parent) for parent in project.parents[name]]
        )
        if name in built or (None not in made_of and _is_lasting(project, node)):
            said = {key: value for key, value in node.items() if key not in _TELLS_NOTHING}
            text = json.dumps([state, made_of, said], sort_keys=True, default=str)
            found[name] = hashlib.sha256(text.encode()).hexdigest()
    return {name: mark for name, mark in found.items() if name not in sources}


def _is_lasting(project: Project, node: Mapping[str, Any]) -> bool:
    """Whether a node is of a kind that only changes with what it is made of."""
    if node["resource_type"] == "unit_test" or node["config"]["materialized"] not in _KINDS:
        return False
    macros = project.manifest["macros"]
    waiting, seen = list(node["depends_on"].get("macros", [])), set()
    texts = [node["raw_code"]]
    while waiting:
        macro = waiting.pop()
        if macro not in seen and macro in macros:
            seen.add(macro)
            texts.append(macros[macro]["macro_sql"])
            waiting += macros[macro]["depends_on"]["macros"]
    return not any(_OF_THE_MOMENT.search(text) for text in texts)


def todo(session: Session, project: Project, state: str, tags: Collection[str]) -> Todo:
    """What a refresh of the models with one of ``tags`` has to do.

    Args:
        session: Of the jobs role.
        project: What dbt read of it.
        state: Its state.
        tags: Those of the groups.
    """
    looked_at = datetime.now(UTC)
    built = tables(session, project)
    nodes = {
        name: node
        for tag in tags
        for name in project.made_of(tag)
        if (node := project.nodes.get(name)) and node["resource_type"] != "unit_test"
    }
    found = _to_do(session, project, state, built, nodes)
    by_name = {
        name
        for name in found
        if nodes[name]["resource_type"] != "test" or found.isdisjoint(project.parents[name])
    }
    return Todo(
        # For a bare name dbt would look for folders and files, too.
        terms=[f"fqn:{'.'.join(nodes[name]['fqn'])}" for name in sorted(by_name)],
        still=Still((built.keys() & nodes.keys()) - found, looked_at),
    )


def _to_do(
    session: Session,
    project: Project,
    state: str,
    built: Mapping[str, Built],
    nodes: Collection[str],
) -> set[str]:
    """What of ``nodes``, which hold all that they read, has to be built or tested."""
    relations = look(session)
    now = marks(project, state, relations, built)
    noted = {
        name: (mark, relation)
        for name, mark, relation in session.execute(
            "select node, mark, relation from ops.unchanged_nodes"
        ).fetchall()
    }
    found: set[str] = set()
    for name in TopologicalSorter({name: project.parents[name] for name in nodes}).static_order():
        if name not in nodes:
            continue
        # `is_behind` says whether what such a table reads changed, but for others of its kind.
        parents = built.keys() & project.parents[name] if name in built else project.parents[name]
        if (
            name not in now
            or noted.get(name) != (now[name], _relation(project, relations, name))
            or not found.isdisjoint(parents)
            or (name in built and built[name].is_behind)
        ):
            found.add(name)
    return found


def note(
    session: Session,
    project: Project,
    now: Mapping[str, str],
    built: Mapping[str, bool],
) -> None:
    """Notes what was good, with its mark.

    Args:
        session: Of the jobs role.
        project: What dbt read of it.
        now: The marks, by what the server said before the build.
        built: What was built or tested -> whether it is good.
    """
    relations = look(session)
    good = {
        name: relation
        for name, is_good in built.items()
        if is_good
        and name in now
        # Somebody may have removed it by now.
        and (relation := _relation(project, relations, name)) is not None
    }
    with session.transaction(), session.cursor() as cursor:
        cursor.execute(
            "delete from ops.unchanged_nodes where node = any(%s) or node != all(%s)",
            [list(built), list(project.nodes)],
        )
        cursor.executemany(
            "insert into ops.unchanged_nodes (node, mark, relation) values (%s, %s, %s)",
            [(name, now[name], relation) for name, relation in good.items()],
        )


def _relation(project: Project, relations: Relations, name: str) -> str | None:
    """A word for what stands in the database for a node; None where nothing does that should."""
    node = project.nodes[name]
    if node["resource_type"] == "test":
        return "test"
    key = node["schema"], node["alias"]
    of_seed = relations.contents.get(key, "") if node["resource_type"] == "seed" else ""
    definition = relations.definitions.get(key)
    return None if definition is None else definition + of_seed
