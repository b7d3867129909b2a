"""Takes a KPI apart: the formula of a column, the facts that make a cell, and what was left out.

How a column is made of its facts stands once, in the ``meta`` of the column beside the model
(numerator, denominator, quantile, formula, unit); a data test holds every KPI to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg import sql
from psycopg.rows import dict_row

from stageline.config import PROJECT_ROOT
from stageline.errors import StagelineError, nearest

_SCHEMA = "kpis"


@dataclass(frozen=True)
class Model:
    """What a model says of itself in the yml beside it.

    Attributes:
        name: Table in schema ``kpis``.
        grain: Columns that identify a row.
        fact: Fact model whose rows it groups; None where it groups none.
        fact_join: Column of the KPI -> column of the fact.
        fact_copies: Where a fact counts in several kinds of cells: the columns of the KPI that tell
            the ``kind`` and its ``value``, and ``of`` what a value is made: kind -> expression.
        fact_where: Which facts the KPI takes.
        columns: Column -> its meta (unit, formula, numerator, denominator, quantile ...).
    """

    name: str
    grain: tuple[str, ...]
    fact: str | None
    fact_join: Mapping[str, str]
    fact_copies: Sequence[Mapping[str, Any]]
    fact_where: str
    columns: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Contribution:
    """One entity's part in a cell.

    Attributes:
        key: Key of the fact.
        numerator: What it adds to the numerator (or its value, for a quantile).
        denominator: What it adds to the denominator; None where the column has none.
        origin: Where the record was read.
    """

    key: str
    numerator: Any
    denominator: Any
    origin: str


@dataclass
class Explanation:
    """A column taken apart over the cells that were asked for.

    Attributes:
        cells: The rows of the KPI: grain and value.
        value: The column over all these cells together, made from the facts; None where the column
            is derived from others, nothing counts, or the cells cannot be added (see ``apart``).
        apart: Why the cells cannot be added, empty where they can.
        contributions: Largest first, as many as were asked for.
        contributing: How many entities there are in all.
        left_out: Reason -> number of entities that belong to the cells and do not count.
    """

    model: Model
    column: str
    cells: list[dict[str, Any]]
    value: Any = None
    apart: str = ""
    contributions: list[Contribution] = field(default_factory=list)
    contributing: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def meta(self) -> Mapping[str, Any]:
        """Unit, formula and parts of the column."""
        return self.model.columns[self.column]

    @property
    def is_derived(self) -> bool:
        """Whether the column is computed from other columns instead of from facts."""
        return "numerator" not in self.meta and "quantile" not in self.meta


@cache
def models(root: Path = PROJECT_ROOT) -> dict[str, Model]:
    """All models of ``models/kpis``, by name."""
    found: dict[str, Model] = {}
    for path in sorted((root / "models" / "kpis").rglob("_*__models.yml")):
        for model in yaml.safe_load(path.read_text())["models"]:
            meta = model["config"]["meta"]
            found[model["name"]] = Model(
                name=model["name"],
                grain=tuple(meta["grain"]),
                fact=meta.get("fact"),
                fact_join=meta.get("fact_join", {}),
                fact_copies=meta.get("fact_copies", []),
                fact_where=meta.get("fact_where", "true"),
                columns={c["name"]: c["config"]["meta"] for c in model["columns"]},
            )
    return found


def model_named(name: str) -> Model:
    """The KPI model of that name.

    Raises:
        StagelineError: there is none.
    """
    kpis = {n: m for n, m in models().items() if not n.startswith("fct_")}
    if name not in kpis:
        raise StagelineError(f"There is no KPI table {name}. {nearest(name, kpis)}")
    return kpis[name]


def explain(
    session: psycopg.Connection[Any],
    model: Model,
    column: str,
    where: Mapping[str, str],
    limit: int = 20,
) -> Explanation:
    """Takes ``column`` apart over the cells in which each column of ``where`` has its value.

    Raises:
        StagelineError: a column does not exist, a value does not fit its type, or no cell matches.
    """
    for name in (column, *where):
        if name not in model.columns:
            raise StagelineError(
                f"{model.name} has no column {name}. {nearest(name, model.columns)}"
            )
    chosen = _chosen(where)
    with session.cursor(row_factory=dict_row) as cursor:
        try:
            cursor.execute(
                sql.SQL("select {} from {} as cell where {} order by {}").format(
                    _list((*model.grain, column)),
                    sql.Identifier(_SCHEMA, model.name),
                    chosen,
                    _list(model.grain),
                ),
                where,
            )
        except psycopg.errors.DataError as error:
            raise StagelineError(
                f"--where does not fit {model.name}: {str(error).splitlines()[0]}."
            ) from None
        result = Explanation(model, column, cursor.fetchall())
        if not result.cells:
            raise StagelineError(
                f"{model.name} has no row where {_said(where)}. Leave out a condition to see more."
                if where
                else f"{model.name} is empty. Load data, then run `stageline build`."
            )
        if not result.is_derived and model.fact is not None:
            _take_apart(cursor, result, models()[model.fact], chosen, where, limit)
    return result


def entity(session: psycopg.Connection[Any], model: Model, key: str) -> dict[str, Any]:
    """The row of one entity, by its key or by its id: of the facts, or of a table of entities.

    Raises:
        StagelineError: there is none, or the id stands for several.
    """
    subject = model if _ENTITIES & {*model.grain} else models().get(model.fact or "")
    if subject is None:
        raise StagelineError(f"{model.name} is made of other KPI tables, not of entities.")
    names = [n for n in subject.columns if n == subject.grain[0] or n.endswith("_id")]
    of_entity = [n for n in names if n in _ENTITIES] or [n for n in names if n not in _NOT_AN_ID]
    by = [sql.SQL("fact.{}::text = %(key)s").format(sql.Identifier(name)) for name in of_entity] + [
        sql.SQL("{} = %(key)s").format(_key(subject))
    ]
    with session.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            sql.SQL(
                "select fact.*, {} as key from {} as fact where {} order by key limit 21"
            ).format(
                _key(subject), sql.Identifier(_SCHEMA, subject.name), sql.SQL(" or ").join(by)
            ),
            {"key": key},
        )
        rows = cursor.fetchall()
    if not rows:
        raise StagelineError(f"{subject.name} knows no entity {key}.")
    keys = [row.pop("key") for row in rows]
    if len(rows) > 1:
        raise StagelineError(
            f"{key} stands for several rows of {subject.name}; name one: {', '.join(keys[:20])}."
        )
    return rows[0]


def events(session: psycopg.Connection[Any], fact: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The visits of stages that a deal's or order's row is made of, each with what told of it.

    Args:
        session: Of a role that may read ``kpis``.
        fact: From ``entity``; one that is no deal or order has none.
    """
    if "order_id" in fact:
        query = """
            select
                visit_number, status_id, status_group_id, entered_at, left_at, duration_seconds,
                duration_working_seconds, delivery_id, record_origin
            from kpis.order_status_intervals
            where
                source_system = %(source_system)s
                and project_id = %(project_id)s
                and order_id = %(order_id)s
            order by visit_number
        """
    elif "entity_id" in fact:
        query = """
            select
                visit_number, stage_id, sub_key, entered_at, left_at, seconds, working_seconds,
                delivery_id, record_origin
            from kpis.deal_stage_timeline
            where
                report_version = %(report_version)s
                and source_system = %(source_system)s
                and project_id = %(project_id)s
                and entity_type = %(entity_type)s
                and entity_id = %(entity_id)s
            order by visit_number
        """
    else:
        return []
    with session.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query, fact)
        return cursor.fetchall()


def deliveries(
    session: psycopg.Connection[Any], told: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The deliveries that brought events, as they came.

    Args:
        session: Of a role that may read ``raw.deliveries``.
        told: From ``events``.
    """
    with session.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            select delivery_id, sender, sender_delivery_id, received_at, landed_at
            from raw.deliveries
            where delivery_id = any(%s::uuid[])
            order by received_at, delivery_id
            """,
            [[each["delivery_id"] for each in told if each["delivery_id"]]],
        )
        return cursor.fetchall()


def loads(
    session: psycopg.Connection[Any],
    fact: Mapping[str, Any],
    told: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The loads that brought the files of a fact's record and events, newest first.

    Args:
        session: Of a role that may read ``ops.loads``.
        fact: From ``entity``.
        told: From ``events``.
    """
    origins = {each.get("record_origin") or "" for each in (fact, *told)}
    with session.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            select file_name, file_sha256, finished_at as loaded_at
            from ops.loads
            where
                status = 'success'
                and project_id = %(project)s
                and exists (
                    select from unnest(%(origins)s::text[]) as origin
                    where starts_with(origin, file_name || ' line ')
                )
            order by finished_at desc
            limit 5
            """,
            {"project": fact.get("project_id"), "origins": sorted(origins)},
        )
        return cursor.fetchall()


#: Columns by which a table of deals or orders knows them.
_ENTITIES = {"entity_id", "order_id"}

#: Columns that end in ``_id`` but name something an entity belongs to.
_NOT_AN_ID = {
    *("project_id", "facility_id", "rep_id", "agent_id"),
    *("team_id", "cohort_team_id", "current_team_id"),
}


def _take_apart(
    cursor: psycopg.Cursor[dict[str, Any]],
    result: Explanation,
    fact: Model,
    chosen: sql.Composable,
    where: Mapping[str, str],
    limit: int,
) -> None:
    model, meta = result.model, result.meta
    # The expressions are the project's own, from the yml beside the model.
    numerator = sql.SQL(str(meta.get("numerator") or meta["values"]))
    denominator = sql.SQL(str(meta["denominator"])) if "denominator" in meta else sql.SQL("null")
    parts = sql.SQL(
        """
        select
            {key} as key,
            {excluded} as excluded_reason,
            {origin} as origin,
            ({numerator}) as numerator,
            ({denominator}) as denominator
        from {cells} as cell
        inner join ({facts}) as fact on {join}
        where {chosen}
        """
    ).format(
        key=_key(fact),
        excluded=sql.SQL(
            "fact.excluded_reason" if "excluded_reason" in fact.columns else "null::text"
        ),
        origin=sql.SQL("fact.record_origin" if "record_origin" in fact.columns else "''"),
        numerator=numerator,
        denominator=denominator,
        cells=sql.Identifier(_SCHEMA, model.name),
        facts=_facts(model, fact),
        join=sql.SQL(" and ").join(
            sql.SQL("cell.{} = fact.{}").format(sql.Identifier(mine), sql.Identifier(theirs))
            for mine, theirs in model.fact_join.items()
        ),
        chosen=chosen,
    )
    takes_part, takes_none = _counts(meta)
    counts = sql.SQL("excluded_reason is null and {}").format(takes_part)
    cursor.execute(
        sql.SQL(
            """
            select
                {} as value,
                count(distinct key) as entities,
                count(*) > count(distinct key) as is_repeated
            from ({}) as part
            where {}
            """
        ).format(_over_all(meta), parts, counts),
        where,
    )
    for total in cursor.fetchall():
        result.contributing = total["entities"]
        result.apart = _apart(result, is_repeated=total["is_repeated"])
        result.value = None if result.apart else total["value"]
    cursor.execute(
        sql.SQL(
            "select * from ({}) as part where {} order by numerator desc nulls last, key limit {}"
        ).format(parts, counts, sql.Literal(limit)),
        where,
    )
    result.contributions = [
        Contribution(row["key"], row["numerator"], row["denominator"], row["origin"])
        for row in cursor.fetchall()
    ]
    cursor.execute(
        sql.SQL(
            """
            select coalesce(excluded_reason, {}) as reason, count(distinct key) as entities
            from ({}) as part
            where not coalesce({}, false)
            group by 1
            order by 2 desc, 1
            """
        ).format(sql.Literal(takes_none), parts, counts),
        where,
    )
    result.left_out = {row["reason"]: row["entities"] for row in cursor.fetchall()}


def _facts(model: Model, fact: Model) -> sql.Composable:
    """The facts that the KPI takes, each once for every kind of cell that it counts in."""
    columns: list[sql.Composable] = [sql.SQL("fact.*")]
    kinds = []
    for copy in model.fact_copies:
        kind = sql.Identifier(copy["kind"])
        table = sql.Identifier(f"{copy['kind']}_of_copy")
        columns += [
            sql.SQL("{}.{}").format(table, kind),
            sql.SQL("case {}.{} {} end as {}").format(
                table,
                kind,
                sql.SQL(" ").join(
                    # The expressions are the project's own, as those of numerators are.
                    sql.SQL("when {} then {}").format(sql.Literal(name), sql.SQL(value))
                    for name, value in copy["of"].items()
                ),
                sql.Identifier(copy["value"]),
            ),
        ]
        kinds.append(
            sql.SQL(" cross join unnest({}::text[]) as {} ({})").format(
                sql.Literal(list(copy["of"])), table, kind
            )
        )
    return sql.SQL("select {} from {} as fact{} where {}").format(
        sql.SQL(", ").join(columns),
        sql.Identifier(_SCHEMA, fact.name),
        sql.Composed(kinds),
        sql.SQL(model.fact_where),
    )


def _counts(meta: Mapping[str, Any]) -> tuple[sql.Composable, str]:
    """Which entities a number is made of, and why the others are not."""
    if "denominator" in meta:
        return sql.SQL("denominator <> 0"), "zero denominator"
    if "quantile" in meta or meta.get("or_empty"):
        return sql.SQL("numerator is not null"), "no value"
    return sql.SQL("numerator <> 0"), "adds nothing"


def _apart(result: Explanation, *, is_repeated: bool) -> str:
    for name in ("currency", "scenario"):
        values = sorted({str(cell[name]) for cell in result.cells if name in cell})
        if len(values) > 1:
            return f"amounts of several values of {name} ({', '.join(values)}) are never added"
    return "an entity stands in several of these rows" if is_repeated else ""


def _key(fact: Model) -> sql.Composable:
    """What names a row: its grain, joined."""
    return sql.SQL(" || '|' || ").join(
        sql.SQL("fact.{}::text").format(sql.Identifier(name)) for name in fact.grain
    )


def _over_all(meta: Mapping[str, Any]) -> sql.Composable:
    decimals = sql.Literal(meta.get("decimals", 0 if "quantile" in meta else 2))
    if "quantile" in meta:
        return sql.SQL(
            "round((percentile_cont({}) within group (order by numerator))::numeric, {})"
        ).format(sql.Literal(meta["quantile"]), decimals)
    if "denominator" in meta:
        return sql.SQL(
            "round({} * sum(numerator)::numeric / nullif(sum(denominator), 0), {})"
        ).format(sql.Literal(meta["scale"]), decimals)
    return sql.SQL("sum(numerator)" if meta.get("or_empty") else "coalesce(sum(numerator), 0)")


def _chosen(where: Mapping[str, str]) -> sql.Composable:
    if not where:
        return sql.SQL("true")
    return sql.SQL(" and ").join(
        sql.SQL("cell.{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name in where
    )


def _list(names: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys(names)))


def _said(where: Mapping[str, str]) -> str:
    return " and ".join(f"{name} = {value}" for name, value in where.items())
