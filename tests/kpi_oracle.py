"""Every KPI table computed a second time, in Python, from its definition and not from its SQL.

Exact arithmetic throughout: sums and rates are fractions, rounded once, half away from zero. What a
column means is read from ``docs/kpis.md`` and the columns' descriptions; where two readings are
possible a comment says which one is taken.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

Record = Mapping[str, Any]
Row = dict[str, Any]
Table = dict[tuple[Hashable, ...], Row]

#: Columns that identify a row of each KPI table.
GRAIN: dict[str, tuple[str, ...]] = {
    "weighted_pipeline_scenarios": (
        *("facility_id", "rep_id", "stage", "month", "scenario", "currency"),
    ),
    "conversion_funnel": ("facility_id", "rep_id", "month", "funnel_stage"),
    "cohort_retention": ("cohort_month", "months_since"),
    "rep_activity_by_channel": ("rep_id", "facility_id", "channel", "month"),
    "outreach_kpis": ("facility_id", "month"),
    "pipeline_kpis": ("facility_id", "month", "currency"),
    "revenue_kpis": ("facility_id", "month", "currency"),
    "ticket_sla_compliance": ("facility_id", "priority", "month"),
    "satisfaction_rollups": ("facility_id", "month", "survey_type"),
    "compliance_kpis": ("facility_id", "month"),
    "health_scores": ("facility_id", "month"),
    "combined_kpis": ("facility_id", "month"),
}

#: A cohort is followed for 50 years.
MOST_MONTHS = 600

_REFERENCE = Path(__file__).parents[1] / "seeds" / "reference"


@dataclass(frozen=True)
class Project:
    """A row of ``settings.projects``."""

    source_system: str
    project_id: str
    timezone: str = "UTC"
    currency: str = "XXX"
    is_active: bool = True


@dataclass(frozen=True)
class World:
    """Everything that the KPIs are made of.

    Attributes:
        as_of: The instant that they are made for.
        projects: What is set; a project without a row counts, in UTC and without a currency.
        records: The rows of each entity, by the field names of ``loaders.entities``, with
            ``source_system`` and ``project_id``.
    """

    as_of: datetime
    projects: tuple[Project, ...]
    records: Mapping[str, Sequence[Record]]

    def project(self, record: Record) -> Project:
        """The project that a record belongs to."""
        key = (record["source_system"], record["project_id"])
        for project in self.projects:
            if (project.source_system, project.project_id) == key:
                return project
        return Project(*key)


def kpis(world: World) -> dict[str, Table]:
    """Every KPI table of the world, by name: its rows by their key, without ``updated_at``."""
    leads = list(_leads(world))
    opportunities = list(_opportunities(world))
    deals = list(_deals(leads, opportunities))
    tickets = list(_tickets(world))
    responses = list(_responses(world))
    outreach = list(_outreach(world))
    invoices = list(_invoices(world))
    applications = list(_applications(world))
    tables = {
        "weighted_pipeline_scenarios": _weighted_pipeline_scenarios(deals),
        "conversion_funnel": _conversion_funnel(leads),
        "cohort_retention": _cohort_retention(world, leads),
        "rep_activity_by_channel": _rep_activity_by_channel(outreach),
        "outreach_kpis": _outreach_kpis(outreach),
        "pipeline_kpis": _pipeline_kpis(opportunities),
        "revenue_kpis": _revenue_kpis(invoices),
        "ticket_sla_compliance": _ticket_sla_compliance(tickets),
        "satisfaction_rollups": _satisfaction_rollups(responses),
        "compliance_kpis": _compliance_kpis(applications),
        "health_scores": _health_scores(leads, deals, tickets, responses, applications),
    }
    tables["combined_kpis"] = _combined_kpis(tables, leads, opportunities, tickets)
    return tables


# Numbers


def rounded(number: Fraction | int | None, decimals: int) -> Decimal | None:
    """The number with that many decimals, halves away from zero."""
    if number is None:
        return None
    scaled = abs(Fraction(number)) * 10**decimals
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    if 2 * rest >= scaled.denominator:
        whole += 1
    return Decimal(whole if number >= 0 else -whole).scaleb(-decimals)


def quotient(numerator: Fraction | int, denominator: Fraction | int) -> Fraction | None:
    """The exact quotient; None where the denominator is zero."""
    return Fraction(numerator) / denominator if denominator else None


def percentage(numerator: Fraction | int, denominator: Fraction | int) -> Decimal | None:
    """100 x the quotient, with two decimals."""
    share = quotient(numerator, denominator)
    return None if share is None else rounded(100 * share, 2)


def percentile(values: Iterable[int], share: Fraction) -> Fraction | None:
    """The value below which that share of the values lies, interpolated between neighbours."""
    ordered = sorted(values)
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _mean(numbers: Iterable[Fraction | Decimal | int]) -> Fraction | None:
    present = [Fraction(number) for number in numbers]
    return quotient(sum(present), len(present))


def _mean_of_present(*numbers: Fraction | Decimal | None) -> Fraction | None:
    return _mean(number for number in numbers if number is not None)


def _whole(number: Fraction | None) -> int | None:
    result = rounded(number, 0)
    return None if result is None else int(result)


def _durations(name: str, count: str, seconds: Iterable[int | None]) -> Row:
    """The count of a duration, its average and its percentiles."""
    present = [value for value in seconds if value is not None]
    return {
        count: len(present),
        f"avg_{name}_seconds": _whole(_mean(present)),
        f"p50_{name}_seconds": _whole(percentile(present, Fraction(50, 100))),
        f"p85_{name}_seconds": _whole(percentile(present, Fraction(85, 100))),
        f"p95_{name}_seconds": _whole(percentile(present, Fraction(95, 100))),
    }


def _sum(records: Iterable[Record], column: str) -> Fraction:
    """The sum of a column; what is not known adds nothing."""
    return sum((Fraction(r[column]) for r in records if r[column] is not None), Fraction(0))


def _money(number: Fraction) -> Decimal | None:
    return rounded(number, 4)


# Instants


def _seconds(start: datetime, end: datetime) -> int:
    """Completed seconds: a fraction of one is dropped."""
    return (end - start) // timedelta(seconds=1)


def _month(instant: datetime, zone: str) -> date:
    return instant.astimezone(ZoneInfo(zone)).date().replace(day=1)


def _months_between(earlier: date, later: date) -> int:
    return 12 * (later.year - earlier.year) + later.month - earlier.month


def _plus_months(month: date, months: int) -> date:
    years, rest = divmod(month.year * 12 + month.month - 1 + months, 12)
    return date(years, rest + 1, 1)


def _is_plausible(start: datetime) -> bool:
    """No duration is measured from before the year 2000."""
    return start.year >= 2000


def _known(instant: datetime | None, as_of: datetime) -> datetime | None:
    """The instant, if it has come."""
    return instant if instant is not None and instant <= as_of else None


# Facts: what counts, as of the world's instant


def _reference(name: str) -> list[dict[str, str]]:
    with (_REFERENCE / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


_STAGES = {row["stage"]: row for row in _reference("stage_weights")}
_FUNNEL = tuple(sorted(_STAGES, key=lambda stage: int(_STAGES[stage]["stage_order"])))


def _default_probability(stage: str) -> Decimal:
    return Decimal(_STAGES[stage]["default_win_probability"])


def _counted(world: World, entity: str, began: str) -> Iterable[Row]:
    """The records that count: of an active project, not deleted, begun by the instant.

    Each with the columns that all facts have.
    """
    for record in world.records[entity]:
        project = world.project(record)
        if project.is_active and not record["is_deleted"] and record[began] <= world.as_of:
            yield {
                **record,
                "facility_id": record["facility_id"] or "unassigned",
                "rep_id": record.get("rep_id") or "unassigned",
                "currency": record.get("currency") or project.currency,
                "amount": _amount(entity, record),
                "month": _month(record[began], project.timezone),
                "timezone": project.timezone,
            }


def _amount(entity: str, record: Record) -> Decimal | None:
    """A deal is worth something or nothing; only an invoice can be a credit note."""
    amount: Decimal | None = record.get("amount")
    return None if amount is not None and amount < 0 and entity != "invoices" else amount


def _leads(world: World) -> Iterable[Row]:
    for lead in _counted(world, "leads", "created_at"):
        changed_at = lead["updated_at"] or lead["created_at"]
        entered = {stage: lead[f"{stage}_at"] for stage in (*_FUNNEL[1:], "lost")}
        # A lead that only says where it is has been there since it last changed, at the latest.
        if lead["stage"] in entered and entered[lead["stage"]] is None:
            entered[lead["stage"]] = changed_at
        # Only a lead that is lost now is lost; an older loss was taken back.
        if lead["stage"] != "lost":
            entered["lost"] = None
        known = {stage: _known(instant, world.as_of) for stage, instant in entered.items()}
        reached: dict[str, datetime | None] = {}
        for place, stage in enumerate(_FUNNEL[1:], start=1):
            later = [known[s] for s in _FUNNEL[place:]]
            reached[stage] = min((i for i in later if i is not None), default=None)
        stages_reached = 1 + sum(instant is not None for instant in reached.values())
        furthest = _FUNNEL[stages_reached - 1]
        stated = lead["win_probability"]

        def months_to(instant: datetime | None, lead: Row = lead) -> int | None:
            if instant is None:
                return None
            return max(0, _months_between(lead["month"], _month(instant, lead["timezone"])))

        yield {
            **lead,
            "stage": "lost" if known["lost"] else furthest,
            "stages_reached": stages_reached,
            "months_to_opportunity": months_to(reached["opportunity"]),
            "months_to_won": months_to(reached["won"]),
            "months_to_lost": months_to(known["lost"]),
            # What is won is certain, whatever the source once said.
            "win_probability": Decimal(1)
            if furthest == "won"
            else _default_probability(furthest)
            if stated is None
            else stated,
        }


def _opportunities(world: World) -> Iterable[Row]:
    for deal in _counted(world, "opportunities", "created_at"):
        changed_at = deal["updated_at"] or deal["created_at"]
        is_closed = deal["status"] != "open" and (deal["closed_at"] or changed_at) <= world.as_of
        outcome = deal["status"] if is_closed else "open"
        # A duration needs both its instants as the source states them.
        closed_at = deal["closed_at"] if is_closed else None
        end = closed_at if is_closed else world.as_of
        is_impossible = end is not None and (
            end < deal["created_at"] or not _is_plausible(deal["created_at"])
        )
        stated = deal["win_probability"]
        probability = {"won": Decimal(1), "lost": Decimal(0), "archived": Decimal(0)}.get(
            outcome, _default_probability("opportunity") if stated is None else stated
        )
        yield {
            **deal,
            "outcome": outcome,
            "is_impossible": is_impossible,
            "win_probability": probability,
            "age_seconds": _seconds(deal["created_at"], world.as_of)
            if outcome == "open" and not is_impossible
            else None,
            "sales_cycle_seconds": _seconds(deal["created_at"], closed_at)
            if outcome == "won" and closed_at is not None and not is_impossible
            else None,
        }


def _deals(leads: Sequence[Row], opportunities: Sequence[Row]) -> Iterable[Row]:
    """What is in the pipeline, once: an opportunity, or a lead that has none."""

    def lead_of(record: Row) -> tuple[str, str, str]:
        return record["source_system"], record["project_id"], record["lead_id"]

    with_opportunity = {lead_of(deal) for deal in opportunities if deal["lead_id"]}
    candidates = [
        *({**d, "stage": "opportunity" if d["outcome"] == "open" else d["outcome"]}
          for d in opportunities),
        *(lead for lead in leads if lead_of(lead) not in with_opportunity),
    ]  # fmt: skip
    for deal in candidates:
        if deal["stage"] not in ("lost", "archived") and deal["amount"] is not None:
            probability = Fraction(deal["win_probability"])
            yield {
                **deal,
                "stage_weight": Fraction(_STAGES[deal["stage"]]["stage_weight"]),
                "win_probability": probability,
                "expected_amount": probability * Fraction(deal["amount"]),
            }


def _outreach(world: World) -> Iterable[Row]:
    for record in _counted(world, "outreach", "sent_at"):
        yield {
            **record,
            "has_response": _known(record["responded_at"], world.as_of) is not None,
            "has_conversion": _known(record["converted_at"], world.as_of) is not None,
        }


def _invoices(world: World) -> Iterable[Row]:
    for invoice in _counted(world, "invoices", "issued_at"):
        if invoice["status"] in ("draft", "void"):
            continue
        paid_at = _known(invoice["paid_at"], world.as_of)
        # Paid without saying when: paid, but for how long it took nobody knows.
        is_paid = invoice["status"] == "paid" and (
            invoice["paid_at"] is None or paid_at is not None
        )
        took = _seconds(invoice["issued_at"], paid_at) if is_paid and paid_at is not None else None
        is_impossible = took is not None and (took < 0 or not _is_plausible(invoice["issued_at"]))
        yield {
            **invoice,
            "is_paid": is_paid,
            "is_overdue": not is_paid
            and invoice["due_at"] is not None
            and invoice["due_at"] < world.as_of,
            "is_impossible": is_impossible,
            "payment_seconds": None if is_impossible else took,
        }


def _tickets(world: World) -> Iterable[Row]:
    targets = {row["priority"]: row for row in _reference("ticket_sla_targets")}
    for ticket in _counted(world, "tickets", "created_at"):
        target = targets[ticket["priority"]]
        created_at = ticket["created_at"]
        # Who resolves a ticket has answered it.
        answered_at = _known(
            ticket["first_response_at"] or ticket["first_resolved_at"], world.as_of
        )
        resolved_at = _known(ticket["first_resolved_at"], world.as_of)
        waiting_since = _known(ticket["waiting_since"], world.as_of)
        waited = ticket["waiting_seconds"] or 0

        # Waits pause the clock of what has not come yet; at what has come, the ended waits before
        # the resolution are taken off that alone, as nobody knows which of them came before the
        # first response.
        running = _seconds(created_at, waiting_since or world.as_of) - waited

        is_plausible = _is_plausible(created_at)

        def judge(
            took: int | None, limit: int, running: int = running, ok: bool = is_plausible
        ) -> str:
            if not ok or (took is not None and took < 0):
                return "impossible"
            if (running if took is None else took) > limit:
                return "breached"
            return "pending" if took is None else "met"

        first_response = None if answered_at is None else _seconds(created_at, answered_at)
        resolution = None if resolved_at is None else _seconds(created_at, resolved_at) - waited
        results = {
            "first_response": judge(first_response, int(target["first_response_target_seconds"])),
            "resolution": judge(resolution, int(target["resolution_target_seconds"])),
        }
        # Resolved without saying when: neither open nor judged, like an invoice paid no one knows
        # when.
        says_only_resolved = (
            ticket["status"] in ("resolved", "closed")
            and ticket["first_resolved_at"] is None
            and (ticket["last_resolved_at"] or created_at) <= world.as_of
        )
        if says_only_resolved:
            results["resolution"] = "unknown"
            if ticket["first_response_at"] is None:
                results["first_response"] = "unknown"
        judged = {name: result in ("met", "breached") for name, result in results.items()}
        met = {name: result == "met" for name, result in results.items()}
        yield {
            **ticket,
            # A reopened ticket stays resolved: its first resolution counts.
            "is_open": resolved_at is None and not says_only_resolved,
            "is_impossible": "impossible" in results.values(),
            "first_response_judged": judged["first_response"],
            "first_response_met": met["first_response"],
            "resolution_judged": judged["resolution"],
            "resolution_met": met["resolution"],
            "ticket_judged": any(judged.values()),
            "ticket_met": any(judged.values()) and "breached" not in results.values(),
            "first_response_seconds": first_response
            if results["first_response"] != "impossible"
            else None,
            "resolution_seconds": resolution if results["resolution"] != "impossible" else None,
        }


def _responses(world: World) -> Iterable[Row]:
    scales = {row["survey_type"]: row for row in _reference("survey_scales")}
    for response in _counted(world, "satisfaction", "responded_at"):
        scale = {
            name: int(bound)
            for name, bound in scales[response["survey_type"]].items()
            if name != "survey_type"
        }
        if scale["min_score"] <= response["score"] <= scale["max_score"]:
            yield {
                **response,
                "is_promoter": response["score"] >= scale["promoter_min_score"],
                "is_detractor": response["score"] <= scale["detractor_max_score"],
            }


def _applications(world: World) -> Iterable[Row]:
    for application in _counted(world, "applications", "submitted_at"):
        if application["status"] == "withdrawn":
            continue
        decided_at = _known(application["decided_at"], world.as_of)
        due_at = application["due_at"]
        is_impossible = decided_at is not None and (
            decided_at < application["submitted_at"]
            or not _is_plausible(application["submitted_at"])
        )
        only_says_decided = (
            application["status"] in ("approved", "rejected") and application["decided_at"] is None
        )
        has_finding = application["is_compliant"] is not None and (
            application["decided_at"] is None or decided_at is not None
        )
        yield {
            **application,
            "is_reviewed": has_finding,
            "is_compliant": has_finding and application["is_compliant"],
            "timeliness_judged": due_at is not None
            and (decided_at is not None or (due_at < world.as_of and not only_says_decided)),
            "is_on_time": due_at is not None and decided_at is not None and decided_at <= due_at,
            "is_impossible": is_impossible,
            "review_seconds": _seconds(application["submitted_at"], decided_at)
            if decided_at is not None and not is_impossible
            else None,
        }


# Tables


def _grouped(facts: Iterable[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for fact in facts:
        groups[tuple(fact[column] for column in columns)].append(fact)
    return groups


def _weighted_pipeline_scenarios(deals: Sequence[Row]) -> Table:
    table: Table = {}
    for scenario in _reference("pipeline_scenarios"):
        least = Fraction(scenario["min_win_probability"])

        def worth(deal: Row, scenario: dict[str, str] = scenario, least: Fraction = least) -> Any:
            if deal["win_probability"] < least:
                return Fraction(0)
            value = Fraction(deal["amount"])
            if scenario["applies_probability"] == "true":
                value *= deal["win_probability"]
            if scenario["applies_stage_weight"] == "true":
                value *= deal["stage_weight"]
            return value

        groups = _grouped(deals, "facility_id", "rep_id", "stage", "month", "currency")
        for (facility, rep, stage, month, currency), group in groups.items():
            total = _sum(group, "amount")
            # Money has four decimals from the fact on.
            weighted = sum((Fraction(_money(worth(deal)) or 0) for deal in group), Fraction(0))
            expected = _sum(group, "expected_amount")
            table[facility, rep, stage, month, scenario["scenario"], currency] = {
                "deal_count": len(group),
                "total_pipeline_value": _money(total),
                "weighted_pipeline_value": _money(weighted),
                "avg_win_probability": rounded(quotient(expected, total), 4),
                "weight_factor": rounded(quotient(weighted, total), 4),
            }
    return table


def _conversion_funnel(leads: Sequence[Row]) -> Table:
    table: Table = {}
    for (facility, rep, month), group in _grouped(leads, "facility_id", "rep_id", "month").items():
        previous: int | None = None
        for order, stage in enumerate(_FUNNEL, start=1):
            reached = sum(lead["stages_reached"] >= order for lead in group)
            table[facility, rep, month, stage] = {
                "funnel_order": order,
                "lead_count": len(group),
                "previous_stage_count": previous,
                "stage_count": reached,
                "conversion_rate_pct": None if previous is None else percentage(reached, previous),
                "overall_rate_pct": percentage(reached, len(group)),
            }
            previous = reached
    return table


def _cohort_retention(world: World, leads: Sequence[Row]) -> Table:
    table: Table = {}
    for (cohort,), group in _grouped(leads, "month").items():
        size = len(group)
        # A month counts as begun as soon as it has in one of the cohort's projects.
        current = max(_month(world.as_of, lead["timezone"]) for lead in group)
        for months in range(min(_months_between(cohort, current), MOST_MONTHS) + 1):

            def by_then(column: str, group: Sequence[Row] = group, latest: int = months) -> int:
                return sum(lead[column] is not None and lead[column] <= latest for lead in group)

            lost_before = sum(
                lead["months_to_lost"] is not None and lead["months_to_lost"] < months
                for lead in group
            )
            table[cohort, months] = {
                "activity_month": _plus_months(cohort, months),
                "cohort_size": size,
                "retained_leads": size - lost_before,
                "progressed_leads": by_then("months_to_opportunity"),
                "won_leads": by_then("months_to_won"),
                "retention_rate_pct": percentage(size - lost_before, size),
                "progression_rate_pct": percentage(by_then("months_to_opportunity"), size),
                "won_rate_pct": percentage(by_then("months_to_won"), size),
            }
    return table


def _outreach_counts(group: Sequence[Row]) -> Row:
    responses = sum(record["has_response"] for record in group)
    conversions = sum(record["has_conversion"] for record in group)
    return {
        "total_outreach": len(group),
        "responses": responses,
        "conversions": conversions,
        "response_rate_pct": percentage(responses, len(group)),
        "conversion_rate_pct": percentage(conversions, len(group)),
    }


def _rep_activity_by_channel(outreach: Sequence[Row]) -> Table:
    groups = _grouped(outreach, "rep_id", "facility_id", "channel", "month")
    table: Table = {key: _outreach_counts(group) for key, group in groups.items()}
    for (rep, facility, _, month), row in table.items():
        rates = (row["conversion_rate_pct"], row["response_rate_pct"])
        row["channel_effectiveness_rank"] = 1 + sum(
            (other["conversion_rate_pct"], other["response_rate_pct"]) > rates
            for (r, f, _, m), other in table.items()
            if (r, f, m) == (rep, facility, month)
        )
    return table


def _outreach_kpis(outreach: Sequence[Row]) -> Table:
    return {
        key: {
            **_outreach_counts(group),
            "channels_used": len({record["channel"] for record in group}),
        }
        for key, group in _grouped(outreach, "facility_id", "month").items()
    }


def _pipeline_kpis(opportunities: Sequence[Row]) -> Table:
    table: Table = {}
    for key, group in _grouped(opportunities, "facility_id", "month", "currency").items():
        of = {o: [d for d in group if d["outcome"] == o] for o in ("open", "won", "lost")}
        value = {outcome: _sum(deals, "amount") for outcome, deals in of.items()}
        with_amount = sum(deal["amount"] is not None for deal in of["won"])
        mean_value = quotient(value["won"], with_amount)
        win_rate = quotient(len(of["won"]), len(of["won"]) + len(of["lost"]))
        cycles = _durations(
            "sales_cycle", "sales_cycles", (d["sales_cycle_seconds"] for d in group)
        )
        cycle = cycles["avg_sales_cycle_seconds"]
        velocity = None
        if win_rate is not None and mean_value is not None and cycle:
            velocity = len(of["open"]) * win_rate * mean_value / Fraction(cycle, 86_400)
        table[key] = {
            "opportunities": len(group),
            "open_opportunities": len(of["open"]),
            "won_opportunities": len(of["won"]),
            "lost_opportunities": len(of["lost"]),
            "impossible_durations": sum(deal["is_impossible"] for deal in group),
            "total_value": _money(_sum(group, "amount")),
            "open_value": _money(value["open"]),
            "won_value": _money(value["won"]),
            "lost_value": _money(value["lost"]),
            "avg_won_value": rounded(mean_value, 2),
            "win_rate_pct": percentage(len(of["won"]), len(of["won"]) + len(of["lost"])),
            "win_rate_by_amount_pct": percentage(value["won"], value["won"] + value["lost"]),
            **cycles,
            **_without(
                _durations("open_age", "open_ages", (deal["age_seconds"] for deal in group)),
                "open_ages",  # the same as open_opportunities
            ),
            "sales_velocity_per_day": rounded(velocity, 2),
        }
    return table


def _without(row: Row, column: str) -> Row:
    return {name: value for name, value in row.items() if name != column}


def _revenue_kpis(invoices: Sequence[Row]) -> Table:
    table: Table = {}
    for key, group in _grouped(invoices, "facility_id", "month", "currency").items():
        paid = [invoice for invoice in group if invoice["is_paid"]]
        overdue = [invoice for invoice in group if invoice["is_overdue"]]
        total, received = _sum(group, "amount"), _sum(paid, "amount")
        table[key] = {
            "invoices": len(group),
            "paid_invoices": len(paid),
            "overdue_invoices": len(overdue),
            "impossible_durations": sum(invoice["is_impossible"] for invoice in group),
            "invoiced_amount": _money(total),
            "paid_amount": _money(received),
            "outstanding_amount": _money(total - received),
            "overdue_amount": _money(_sum(overdue, "amount")),
            # Credit notes, whose amounts are negative, are no share of anything.
            "collection_rate_pct": percentage(
                _sum((i for i in paid if i["amount"] > 0), "amount"),
                _sum((i for i in group if i["amount"] > 0), "amount"),
            ),
            "paid_invoices_pct": percentage(len(paid), len(group)),
            **_durations("payment", "payment_times", (i["payment_seconds"] for i in group)),
        }
    return table


def _sla_rates(group: Sequence[Row]) -> Row:
    counts = {
        column: sum(ticket[column] for ticket in group)
        for column in (
            *("first_response_met", "first_response_judged"),
            *("resolution_met", "resolution_judged", "ticket_met", "ticket_judged"),
        )
    }
    first = percentage(counts["first_response_met"], counts["first_response_judged"])
    resolution = percentage(counts["resolution_met"], counts["resolution_judged"])
    return {
        "first_responses_judged": counts["first_response_judged"],
        "first_responses_met": counts["first_response_met"],
        "resolutions_judged": counts["resolution_judged"],
        "resolutions_met": counts["resolution_met"],
        "tickets_judged": counts["ticket_judged"],
        "tickets_met": counts["ticket_met"],
        "first_response_sla_pct": first,
        "resolution_sla_pct": resolution,
        # The mean of the two columns as they stand, rounded.
        "sla_compliance_rate_pct": rounded(_mean_of_present(first, resolution), 2),
        "ticket_compliance_pct": percentage(counts["ticket_met"], counts["ticket_judged"]),
    }


def _ticket_sla_compliance(tickets: Sequence[Row]) -> Table:
    table: Table = {}

    def hours(seconds: int | None) -> Decimal | None:
        return None if seconds is None else rounded(Fraction(seconds, 3600), 2)

    for key, group in _grouped(tickets, "facility_id", "priority", "month").items():
        opened = sum(ticket["is_open"] for ticket in group)
        response = _durations(
            "first_response", "first_response_times", (t["first_response_seconds"] for t in group)
        )
        resolution = _durations(
            "resolution", "resolution_times", (t["resolution_seconds"] for t in group)
        )
        table[key] = {
            "tickets": len(group),
            "open_tickets": opened,
            "resolved_tickets": len(group) - opened,
            "impossible_durations": sum(ticket["is_impossible"] for ticket in group),
            **response,
            "avg_first_response_hours": hours(response["avg_first_response_seconds"]),
            "median_first_response_hours": hours(response["p50_first_response_seconds"]),
            **resolution,
            "avg_resolution_hours": hours(resolution["avg_resolution_seconds"]),
            "median_resolution_hours": hours(resolution["p50_resolution_seconds"]),
            **_sla_rates(group),
        }
    return table


def _satisfaction_rollups(responses: Sequence[Row]) -> Table:
    table: Table = {}
    groups = _grouped(responses, "facility_id", "month", "survey_type")

    def mean_score(key: tuple[Any, ...]) -> Decimal | None:
        return rounded(_mean(r["score"] for r in groups[key]), 2) if key in groups else None

    for key, group in groups.items():
        facility, month, survey = key
        promoters = sum(response["is_promoter"] for response in group)
        detractors = sum(response["is_detractor"] for response in group)
        score, before = mean_score(key), mean_score((facility, _plus_months(month, -1), survey))
        table[key] = {
            "responses": len(group),
            "promoters": promoters,
            "detractors": detractors,
            "avg_score": score,
            "median_score": rounded(percentile((r["score"] for r in group), Fraction(1, 2)), 2),
            "promoter_or_satisfaction_pct": percentage(promoters, len(group)),
            "detractor_rate_pct": percentage(detractors, len(group)),
            "nps": percentage(promoters - detractors, len(group)) if survey == "nps" else None,
            "month_over_month_change": None if score is None or before is None else score - before,
        }
    return table


def _compliance_kpis(applications: Sequence[Row]) -> Table:
    table: Table = {}
    for key, group in _grouped(applications, "facility_id", "month").items():
        counts = {
            column: sum(application[column] for application in group)
            for column in ("is_reviewed", "is_compliant", "timeliness_judged", "is_on_time")
        }
        table[key] = {
            "applications": len(group),
            "reviewed_applications": counts["is_reviewed"],
            "compliant_applications": counts["is_compliant"],
            "timeliness_judged": counts["timeliness_judged"],
            "on_time_applications": counts["is_on_time"],
            "impossible_durations": sum(application["is_impossible"] for application in group),
            "compliance_rate_pct": percentage(counts["is_compliant"], counts["is_reviewed"]),
            "on_time_rate_pct": percentage(counts["is_on_time"], counts["timeliness_judged"]),
            **_durations("review", "review_times", (a["review_seconds"] for a in group)),
        }
    return table


def _pipeline_health(deals: Sequence[Row]) -> Fraction | None:
    """Expected / total value; each currency by itself, and then by its number of deals."""
    shares: list[tuple[Fraction, int]] = []
    for group in _grouped(deals, "currency").values():
        share = quotient(_sum(group, "expected_amount"), _sum(group, "amount"))
        if share is not None:
            shares.append((share, len(group)))
    return quotient(
        sum((share * count for share, count in shares), Fraction(0)),
        sum(count for _, count in shares),
    )


def _satisfaction_health(responses: Sequence[Row]) -> Fraction | None:
    of = _grouped(responses, "survey_type")
    csat = _mean(Fraction(r["score"] - 1, 4) for r in of.get(("csat",), []))
    nps = _mean(r["is_promoter"] - r["is_detractor"] for r in of.get(("nps",), []))
    return _mean_of_present(csat, None if nps is None else (nps + 1) / 2)


def _health_scores(
    leads: Sequence[Row],
    deals: Sequence[Row],
    tickets: Sequence[Row],
    responses: Sequence[Row],
    applications: Sequence[Row],
) -> Table:
    def compliance(group: Sequence[Row]) -> Fraction | None:
        return quotient(sum(a["is_compliant"] for a in group), sum(a["is_reviewed"] for a in group))

    def conversion(group: Sequence[Row]) -> Fraction | None:
        return quotient(sum(lead["stages_reached"] == len(_FUNNEL) for lead in group), len(group))

    def sla(group: Sequence[Row]) -> Fraction | None:
        rate = _sla_rates(group)["sla_compliance_rate_pct"]
        return None if rate is None else Fraction(rate) / 100

    measures: dict[str, tuple[Sequence[Row], Callable[[Sequence[Row]], Fraction | None]]] = {
        "compliance": (applications, compliance),
        "pipeline": (deals, _pipeline_health),
        "conversion": (leads, conversion),
        "sla": (tickets, sla),
        "satisfaction": (responses, _satisfaction_health),
    }
    column = {"compliance": "compliance_score"}
    scores: dict[tuple[Any, ...], dict[str, Decimal]] = defaultdict(dict)
    weights: dict[str, Fraction] = {}
    for row in _reference("health_components"):
        component = row["component"]
        weights[component] = Fraction(row["weight"])
        facts, measure = measures[component]
        for key, group in _grouped(facts, "facility_id", "month").items():
            measured = measure(group)
            if measured is not None:
                points = min(Fraction(100), 100 * 100 * measured / Fraction(row["full_score_at"]))
                score = rounded(points, 2)
                assert score is not None
                scores[key][component] = score
    statuses = sorted(_reference("health_thresholds"), key=lambda r: -Decimal(r["min_score"]))
    table: Table = {}
    for key, of in scores.items():
        overall = rounded(
            quotient(
                sum((Fraction(score) * weights[name] for name, score in of.items()), Fraction(0)),
                sum(weights[name] for name in of),
            ),
            2,
        )
        assert overall is not None
        table[key] = {
            **{column.get(name, f"{name}_health"): of.get(name) for name in measures},
            "components_used": len(of),
            "overall_health_score": overall,
            "health_status": next(
                row["health_status"] for row in statuses if overall >= Decimal(row["min_score"])
            ),
        }
    return table


def _combined_kpis(
    tables: Mapping[str, Table],
    leads: Sequence[Row],
    opportunities: Sequence[Row],
    tickets: Sequence[Row],
) -> Table:
    """The headline figures side by side; a count is empty where its table has no row."""

    def places(name: str) -> list[dict[str, Any]]:
        return [dict(zip(GRAIN[name], key, strict=True)) for key in tables[name]]

    keys = {
        (place["facility_id"], place["month"])
        for name in tables
        if "facility_id" in GRAIN[name]
        for place in places(name)
    }
    currencies: dict[tuple[Any, Any], set[str]] = defaultdict(set)
    for name in ("pipeline_kpis", "revenue_kpis"):
        for place in places(name):
            currencies[place["facility_id"], place["month"]].add(place["currency"])
    by_place = {
        name: _grouped(facts, "facility_id", "month")
        for name, facts in (("leads", leads), ("deals", opportunities), ("tickets", tickets))
    }
    table: Table = {}
    for key in keys:
        found = currencies[key]
        currency = next(iter(found)) if len(found) == 1 else None

        def cell(
            name: str,
            column: str,
            *rest: Hashable,
            key: tuple[Any, Any] = key,
        ) -> Any:
            return tables[name].get((*key, *rest), {}).get(column)

        of_leads = by_place["leads"].get(key, [])
        of_tickets = by_place["tickets"].get(key, [])
        of_deals = by_place["deals"].get(key, [])
        closed = [deal for deal in of_deals if deal["outcome"] in ("won", "lost")]
        sla = _sla_rates(of_tickets)
        sql_leads = sum(lead["stages_reached"] >= 2 for lead in of_leads)
        won_leads = sum(lead["stages_reached"] >= 4 for lead in of_leads)
        table[key] = {
            "currency": currency,
            "currency_count": len(found),
            "leads": len(of_leads) or None,
            "sql_leads": sql_leads if of_leads else None,
            "won_leads": won_leads if of_leads else None,
            "sql_rate_pct": percentage(sql_leads, len(of_leads)),
            "won_rate_pct": percentage(won_leads, len(of_leads)),
            "open_value": cell("pipeline_kpis", "open_value", currency),
            "won_value": cell("pipeline_kpis", "won_value", currency),
            # By count, so that currencies do not matter.
            "win_rate_pct": percentage(sum(d["outcome"] == "won" for d in closed), len(closed)),
            "total_outreach": cell("outreach_kpis", "total_outreach"),
            "response_rate_pct": cell("outreach_kpis", "response_rate_pct"),
            "invoiced_amount": cell("revenue_kpis", "invoiced_amount", currency),
            "paid_amount": cell("revenue_kpis", "paid_amount", currency),
            "collection_rate_pct": cell("revenue_kpis", "collection_rate_pct", currency),
            "compliance_rate_pct": cell("compliance_kpis", "compliance_rate_pct"),
            "tickets": len(of_tickets) or None,
            "sla_compliance_rate_pct": sla["sla_compliance_rate_pct"],
            "ticket_compliance_pct": sla["ticket_compliance_pct"],
            "avg_csat_score": cell("satisfaction_rollups", "avg_score", "csat"),
            "nps": cell("satisfaction_rollups", "nps", "nps"),
            "overall_health_score": cell("health_scores", "overall_health_score"),
            "health_status": cell("health_scores", "health_status"),
        }
    return table
