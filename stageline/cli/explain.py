"""``stageline explain``: shows what a number is made of."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import click

from stageline.cli.tables import Column, show
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.explain import Explanation, Model, deliveries, entity, events, loads, model_named
from stageline.explain import explain as take_apart


@click.command()
@click.argument("model")
@click.option("--column", "-c", metavar="COLUMN", help="The number to explain.")
@click.option(
    "--where",
    "-w",
    "conditions",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Which rows of the table; several conditions hold together.",
)
@click.option(
    "--entity", "key", metavar="ID", help="Show one entity's facts and where they came from."
)
@click.option("--limit", default=20, show_default=True, help="How many entities to list.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    model: str,
    column: str | None,
    conditions: tuple[str, ...],
    key: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what a number is made of: formula, unit, entities and shares, and what was left out.

    \b
    Example:
        stageline explain conversion_funnel
        stageline explain conversion_funnel -c overall_rate_pct \\
            -w month=2024-01-01 -w funnel_stage=won
        stageline explain ticket_sla_compliance --entity ticket-02
        stageline explain flow_stage_kpis -c avg_seconds \\
            -w report_version=1 -w period=1m -w major_key=LEAD
        stageline explain deal_metrics --entity '1|pipedrive|sales|deal|4021'
    """
    kpi = model_named(model)
    where = _parsed(conditions)
    if key is not None:
        with connect("reader") as session:
            fact = entity(session, kpi, key)
            told = events(session, fact)
        with connect("jobs") as session:
            came = {
                "Deliveries that brought them": deliveries(session, told),
                "Loads of its files, newest first": loads(session, fact, told),
            }
        _show_entity(fact, told, came, as_json)
        _tell_archived(told)
    elif column is not None:
        with connect("reader") as session:
            result = take_apart(session, kpi, column, where, limit)
        _show(result, as_json)
    else:
        _show_columns(kpi)


def _parsed(conditions: tuple[str, ...]) -> dict[str, str]:
    parsed = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals or not name:
            raise StagelineError(
                f"--where {condition} cannot be read; it looks like --where month=2024-01-01.",
                exit_code=2,
            )
        parsed[name.strip()] = value.strip()
    return parsed


def _show_columns(model: Model) -> None:
    click.echo(
        f"{model.name}: one row per {' x '.join(model.grain)}; facts: {model.fact or 'none'}\n"
    )
    show(
        [Column("column"), Column("unit"), Column("formula")],
        [
            [name, str(meta["unit"]), str(meta.get("formula", ""))]
            for name, meta in model.columns.items()
        ],
    )
    click.echo("\nTake one apart with --column COLUMN.")


def _show(result: Explanation, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(result), ensure_ascii=False, indent=2, default=str))
        return
    meta, model = result.meta, result.model
    click.echo(f"{model.name}.{result.column}, in {meta['unit']}")
    click.echo(f"  formula  {meta.get('formula', 'as it stands')}")
    if model.fact:
        click.echo(f"  facts    kpis.{model.fact}")
    click.echo("")
    names = list(result.cells[0])
    show(
        [Column(name, is_number=name == result.column) for name in names],
        [[_text(cell[name]) for name in names] for cell in result.cells[:20]],
        title=f"{len(result.cells)} of its rows" if len(result.cells) > 1 else "Its row",
    )
    if len(result.cells) > 20:
        click.echo(f"... and {len(result.cells) - 20} more; narrow them with --where.")
    if result.is_derived:
        click.echo("\nIt is computed from other columns; explain those that the formula names.")
        return
    if len(result.cells) > 1:
        click.echo(
            f"\nNo total: {result.apart}; narrow the rows with --where."
            if result.apart
            else f"\nTogether: {_text(result.value)}"
        )
    click.echo("")
    _show_contributions(result)
    if result.left_out:
        click.echo("\nLeft out:")
        for reason, count in result.left_out.items():
            click.echo(f"  {count}  {reason}")
    else:
        click.echo("\nNothing was left out.")


def _show_contributions(result: Explanation) -> None:
    has_denominator = "denominator" in result.meta
    is_quantile = "quantile" in result.meta
    columns = [Column("entity"), Column("value" if is_quantile else "adds", is_number=True)]
    if has_denominator:
        columns.append(Column("of", is_number=True))
    if not is_quantile:
        columns.append(Column("share %", is_number=True))
    columns.append(Column("came from"))
    rows = []
    for part, share in zip(result.contributions, _shares(result), strict=True):
        row = [part.key, _text(part.numerator)]
        if has_denominator:
            row.append(_text(part.denominator))
        if not is_quantile:
            row.append(share)
        rows.append([*row, part.origin])
    if rows:
        show(columns, rows, title=f"Made of {result.contributing} entities")
    else:
        click.echo("Made of no entity: nothing counts here.")
    if result.contributing > len(rows):
        click.echo(f"... and {result.contributing - len(rows)} more; see them with --limit.")


def _shares(result: Explanation) -> list[str]:
    """Each entity's share in the value, in percent: what it adds over what all add."""
    if "quantile" in result.meta or result.value in (None, 0):
        return ["" for _ in result.contributions]
    if "denominator" not in result.meta:
        return [f"{100 * part.numerator / result.value:.2f}" for part in result.contributions]
    if result.contributing > len(result.contributions):
        return ["" for _ in result.contributions]
    total = sum(part.numerator or 0 for part in result.contributions)
    return [f"{100 * (part.numerator or 0) / total:.2f}" for part in result.contributions]


def _show_entity(
    fact: dict[str, Any],
    told: list[dict[str, Any]],
    came: dict[str, list[dict[str, Any]]],
    as_json: bool,
) -> None:
    if as_json:
        brought, loaded = came.values()
        found = {"fact": fact, "events": told, "deliveries": brought, "loads": loaded}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2, default=str))
        return
    show([Column("fact"), Column("value")], [[name, _text(fact[name])] for name in fact])
    for title, rows in {"Made of these visits": told, **came}.items():
        if rows:
            click.echo("")
            names = list(rows[0])
            show(
                [Column(name) for name in names],
                [[_text(row[name]) for name in names] for row in rows],
                title=title,
            )


def _tell_archived(told: list[dict[str, Any]]) -> None:
    from webhook_receiver.replay import Choice, archived, archived_words

    brought_by = [UUID(str(each["delivery_id"])) for each in told if each["delivery_id"]]
    if brought_by and (left_out := archived(Choice(delivery_ids=brought_by))):
        click.echo(f"note: {archived_words(left_out)}", err=True)


def _as_json(result: Explanation) -> dict[str, Any]:
    return {
        "model": result.model.name,
        "column": result.column,
        "unit": result.meta["unit"],
        "formula": result.meta.get("formula"),
        "fact": result.model.fact,
        "rows": result.cells,
        "value": result.value,
        "apart": result.apart,
        "entities": result.contributing,
        "contributions": [vars(part) for part in result.contributions],
        "left_out": result.left_out,
    }


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return "" if value is None else str(value)
