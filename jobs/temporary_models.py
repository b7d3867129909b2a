"""Runs models over temporary tables, with other rows than those that they read in a build.

The SQL is the models' own, as dbt compiles it. Some models are given: whoever calls this fills
them. Those between these and the wanted ones are computed, each from the temporary tables of those
before it; whatever else they read is read where it is. All of it happens in one transaction that is
undone, and in which the server refuses to write to anything but temporary tables.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from jobs.build import dbt_environment, target_folder
from jobs.dbt_process import DbtProcess
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from stageline.errors import StagelineError


@dataclass(frozen=True)
class Models:
    """Models to run.

    Attributes:
        given: Name of a model that is given -> the relation that a build makes of it.
        queries: Name of one that is computed -> its SQL; each stands after those that it reads.
        as_of: The instant that they are made for; None = dbt's start, ``updated_at`` of their rows.
    """

    given: Mapping[str, sql.Identifier]
    queries: Mapping[str, "Query"]
    as_of: datetime | None


class Query(sql.Composable):
    """SQL that dbt compiled, to stand in a statement as it is."""

    def as_bytes(self, context: Any = None) -> bytes:  # noqa: ARG002 - psycopg's signature
        return f"\n{self._obj}\n".encode()


def compiled(
    wanted: Sequence[str],
    given: Sequence[str],
    as_of: datetime | None = None,
    project: Path = PROJECT_ROOT,
) -> Models:
    """The models that are wanted and those between them and the given ones.

    Args:
        as_of: The instant that the models are made for; default: now.
        project: Folder of ``dbt_project.yml`` and ``profiles.yml``.

    Raises:
        StagelineError: dbt cannot compile them, or a relation cannot be replaced for certain.
    """
    nodes = _nodes([f"{one}+,+{other}" for one in given for other in wanted], as_of, project)
    ids = {name: _model_id(nodes, name) for name in (*given, *wanted)}
    queries = _queries(nodes, [ids[name] for name in wanted], [ids[name] for name in given])
    return Models(
        given={
            name: sql.Identifier(nodes[ids[name]]["schema"], nodes[ids[name]]["alias"])
            for name in given
        },
        queries={name: Query(text) for name, text in queries.items()},
        as_of=as_of,
    )


def _nodes(select: Sequence[str], as_of: datetime | None, project: Path) -> dict[str, Any]:
    """The nodes of dbt's manifest; those that are selected have their SQL in ``compiled_code``."""
    parsed = target_folder(project) / "partial_parse.msgpack"
    with tempfile.TemporaryDirectory() as folder:
        # A folder of its own, so that the results of the last build stay; without this file dbt
        # would read the whole project anew.
        if parsed.exists():
            shutil.copy(parsed, folder)
        dbt = DbtProcess(
            [
                # Incremental models are wanted whole.
                *("--quiet", "--log-format", "json", "compile", "--full-refresh"),
                *("--project-dir", str(project), "--profiles-dir", str(project)),
                *("--target-path", folder, "--log-path", folder),
                *(
                    "--select",
                    *select,
                    "--exclude",
                    "resource_type:test",
                    "resource_type:unit_test",
                ),
            ],
            project,
            {**os.environ, **dbt_environment(as_of)},
        )
        with dbt:
            said = dbt.stdout.read()
        if dbt.wait() != 0:
            raise StagelineError(
                f"dbt cannot compile the models: {_reason(said)}. `stageline build` tells more."
            )
        manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    nodes: dict[str, Any] = manifest["nodes"]
    return nodes


def _reason(output: str) -> str:
    """The first error that dbt told; else the last line, which is then Python's."""
    said = "it said nothing"
    for line in output.splitlines():
        try:
            info = json.loads(line)["info"]
        except (ValueError, KeyError, TypeError):
            said = line
        else:
            if info["level"] == "error":
                return " ".join(info["msg"].split()).rstrip(".")
    return said


def _model_id(nodes: Mapping[str, Any], name: str) -> str:
    for unique_id, node in nodes.items():
        if node["resource_type"] == "model" and node["name"] == name:
            return unique_id
    raise StagelineError(f"The project has no model {name}.")


def _queries(
    nodes: Mapping[str, Any], wanted: Sequence[str], given: Sequence[str]
) -> dict[str, str]:
    """The SQL of the models to compute, reading temporary tables; each after those that it reads.

    Raises:
        StagelineError: a given model is not read, a wanted one reads none of them, or a relation is
            not written as dbt writes it.
    """
    found: dict[str, str] = {}
    is_replaced = dict.fromkeys(given, True)
    read: set[str] = set()

    def visit(unique_id: str) -> bool:
        """Whether a node is given or computed, which puts it into ``found``."""
        if unique_id not in is_replaced:
            node = nodes[unique_id]
            query = node.get("compiled_code") or ""
            # Whatever lies between given and wanted models was selected, and so has SQL.
            parents = [
                nodes[parent]
                for parent in (node["depends_on"]["nodes"] if query else ())
                if parent in nodes and _reads(node, nodes[parent]) and visit(parent)
            ]
            for parent in parents:
                query = query.replace(parent["relation_name"], f'pg_temp."{parent["name"]}"')
                read.add(parent["unique_id"])
            if parents:
                found[node["name"]] = query
            is_replaced[unique_id] = bool(parents)
        return is_replaced[unique_id]

    for unique_id in wanted:
        if not visit(unique_id):
            raise StagelineError(f"Model {nodes[unique_id]['name']} reads nothing that is given.")
    for unique_id in given:
        if unique_id not in read:
            raise StagelineError(
                f"Model {nodes[unique_id]['name']} is given, and nothing reads it."
            )
    return found


def _reads(node: Mapping[str, Any], parent: Mapping[str, Any]) -> bool:
    """Whether the SQL of a node names a relation that it depends on: some are there for other runs.

    Raises:
        StagelineError: it names it in a way in which it cannot be replaced.
    """
    query, relation = node["compiled_code"], parent["relation_name"]
    rest = query.replace(relation, "") if relation else query
    if not relation or re.search(rf"""\.\s*"?{re.escape(parent["alias"])}"?(?!\w)""", rest):
        raise StagelineError(
            f"Model {node['name']} reads {parent['name']} in a way in which it cannot be replaced:"
            " it has to be a table or a view, and be named by ref alone."
        )
    return bool(rest != query)


@contextmanager
def sandbox(models: Models) -> Iterator[psycopg.Connection[Any]]:
    """A transaction in which each model is an empty temporary table, of its name in ``pg_temp``.

    Raises:
        StagelineError: a relation that a model reads is not there, or not as the model needs it.
    """
    with connect("transformer") as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with session.transaction(force_rollback=True):
            session.execute("set local timezone to 'UTC'")
            _make_tables(session, models)
            session.execute("set transaction read only")
            yield session


def _make_tables(session: psycopg.Connection[Any], models: Models) -> None:
    given = {
        name: sql.SQL("select * from {}").format(relation)
        for name, relation in models.given.items()
    }
    try:
        for name, query in {**given, **models.queries}.items():
            session.execute(
                sql.SQL("create temporary table {} as {} with no data").format(
                    sql.Identifier(name), query
                )
            )
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise StagelineError(
            f"The models are not built yet: {error.diag.message_primary}."
            " Run `stageline build` first."
        ) from None
    except psycopg.errors.UndefinedColumn as error:
        raise StagelineError(
            "The tables were built by an older version of the models:"
            f" {error.diag.message_primary}. Run `stageline build` first."
        ) from None


def compute(session: psycopg.Connection[Any], models: Models) -> None:
    """Fills the tables of the models that are computed, once those that are given are full."""
    for name in models.given:
        _gather_statistics(session, name)
    for name, query in models.queries.items():
        session.execute(sql.SQL("insert into {} {}").format(sql.Identifier("pg_temp", name), query))
        _gather_statistics(session, name)


def _gather_statistics(session: psycopg.Connection[Any], name: str) -> None:
    session.execute(sql.SQL("analyze {}").format(sql.Identifier("pg_temp", name)))
