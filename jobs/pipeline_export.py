"""The files of spec pulls, made of what the models hold: deals that are open or won."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from loaders import pipeline_files
from loaders.pipeline_files import PipelineFiles, PipelineTotals
from stageline.database import connect
from stageline.errors import StagelineError

#: Sources whose deals ship with the product.
MADE_UP = frozenset({"demo", "sample"})


def export(source: str | None = None, at: datetime | None = None) -> PipelineFiles:
    """Writes the pipeline as the last build left it.

    Amounts of several currencies are not added up: the totals are empty then, and stand by currency
    beside them. Deals that ship with the product are left out where there are others.

    Args:
        source: Only the deals of this one, made up or not.
        at: The instant that the files are to bear, now by default.

    Raises:
        StagelineError: nothing is built yet, there are no deals, or a file cannot be written.
    """
    deals = _deals(source)
    deals = [deal for deal in deals if deal["source"] not in MADE_UP] or deals
    if not deals:
        whose = f" of {source}" if source else ""
        raise StagelineError(
            f"There are no deals{whose} in the pipeline. Load some and run `stageline build`."
        )
    by_currency = {
        currency: _totals([deal for deal in deals if deal["currency"] == currency])
        for currency in sorted({deal["currency"] for deal in deals})
    }
    whole = _totals(deals)
    is_one = len(by_currency) == 1
    sources = sorted({deal["source"] for deal in deals})
    return pipeline_files.write(
        whole if is_one else PipelineTotals(whole.total_leads, None, None, whole.stage_breakdown),
        deals,
        at=at,
        source=sources[0] if len(sources) == 1 else "all",
        is_demo=MADE_UP.issuperset(sources),
        more={
            "by_currency": {
                currency: {
                    "total_leads": totals.total_leads,
                    "total_value": float(totals.total_value or 0),
                    "weighted_value": float(totals.weighted_value or 0),
                }
                for currency, totals in by_currency.items()
            }
        },
    )


def _totals(deals: list[dict[str, Any]]) -> PipelineTotals:
    stages: dict[str, int] = {}
    for deal in deals:
        stages[deal["stage"]] = stages.get(deal["stage"], 0) + 1
    return PipelineTotals(
        len(deals),
        sum((deal["value"] or Decimal(0) for deal in deals), Decimal(0)),
        sum((deal["expected"] or Decimal(0) for deal in deals), Decimal(0)),
        stages,
    )


def _deals(source: str | None) -> list[dict[str, Any]]:
    with connect("reader") as session, session.cursor(row_factory=dict_row) as cursor:
        try:
            return cursor.execute(
                """
                select
                    opportunity_id as id,
                    opportunity_name as name,
                    company,
                    coalesce(stage, 'none') as stage,
                    amount as value,
                    win_probability as probability,
                    expected_amount as expected,
                    currency,
                    rep_name as owner,
                    rep_id as owner_id,
                    created_at,
                    changed_at as updated_at,
                    source_system as source,
                    project_id as project
                from kpis.pipeline_as_of
                where
                    status not in ('lost', 'archived')
                    and (%(source)s::text is null or source_system = %(source)s)
                order by source_system, project_id, created_at, opportunity_id
                """,
                {"source": source},
            ).fetchall()
        except psycopg.errors.UndefinedTable:
            raise StagelineError("Nothing is built yet. Run `stageline build` first.") from None
