"""``stageline settings targets`` and ``alerts``: what is to be reached, and when to be told."""

from datetime import date, datetime
from typing import Any

import click

from stageline.cli.build import require_migrations
from stageline.cli.project_rules import (
    AT_DAY,
    FROM_DAY,
    add_end,
    add_list,
    in_force,
    of_project,
    rules_in_force,
    times,
    when,
)
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.settings.alert_thresholds import (
    ALERT_THRESHOLDS,
    AlertThreshold,
    alert_rules,
    read_threshold,
    require_rule,
)
from stageline.settings.numbers import written_number
from stageline.settings.rule_tables import ProjectKey, changing_project, written_moment
from stageline.settings.sales_targets import (
    TARGETS,
    KpiTarget,
    periods_of,
    read_subject,
    read_target,
    written_subject,
)

# Targets


@click.group()
def targets() -> None:
    """Say what reps, teams and all of them are to reach in a week or a month.

    SUBJECT is rep:ID, team:ID, reps (each rep that has no target of their own) or all. KPI is
    calls, proposals, agreements, lists_out, sales or revenue; calls have targets for a week or a
    month, the others for a month.

    \b
    Example:
        stageline settings targets set file default reps calls 25
        stageline settings targets set file default team:north revenue 40000 --currency EUR
        stageline settings targets list file default
    """


_SUBJECT = click.argument("subject")
_KPI = click.argument("kpi")
_PERIOD = click.option(
    "--period", metavar="week|month", help="Which it is for: of calls a week, if not given."
)
_CURRENCY = click.option(
    "--currency", metavar="CODE", help="ISO 4217 code of a target of revenue, as EUR."
)


def _key(subject: str, kpi: str, period: str | None, currency: str | None) -> dict[str, Any]:
    """The columns that tell targets apart."""
    return {
        **read_subject(subject),
        "kpi": kpi,
        "period": period or periods_of(kpi)[0],
        "currency": None if currency is None else currency.upper(),
    }


def _called(key: dict[str, Any]) -> str:
    """The KPI and the period of a target, and whose it is, in words."""
    subject = written_subject(key["subject_type"], key["subject_id"])
    return f"{key['kpi']} in a {key['period']} for {subject}"


#: Numbers below zero are values, to be refused as such, and no options.
_SIGNED = {"ignore_unknown_options": True}


@targets.command("set", context_settings=_SIGNED)
@of_project
@_SUBJECT
@_KPI
@click.argument("target")
@_PERIOD
@_CURRENCY
@FROM_DAY
def set_target(
    project: ProjectKey,
    subject: str,
    kpi: str,
    target: str,
    period: str | None,
    currency: str | None,
    starts: date | None,
) -> None:
    """Set the TARGET that a SUBJECT has for a KPI, from a day on.

    \b
    Example:
        stageline settings targets set file default reps calls 25
        stageline settings targets set file default rep:r-7 calls 15 --from 2027-03-01
        stageline settings targets set file default all revenue 120000 --currency EUR
    """
    key = _key(subject, kpi, period, currency)
    row = KpiTarget(**key, target=read_target(target))
    require_migrations()
    with changing_project(project) as session:
        now = TARGETS.set_from(session, project, row, starts)
    unit = f" {now.currency}" if now.currency else ""
    click.echo(
        f"Target of {_called(key)} of {project}: {written_number(now.target)}{unit}{when(now)}."
    )


@targets.command("end")
@of_project
@_SUBJECT
@_KPI
@_PERIOD
@_CURRENCY
@AT_DAY
def end_target(
    project: ProjectKey,
    subject: str,
    kpi: str,
    period: str | None,
    currency: str | None,
    at: date | None,
) -> None:
    """End the target that a SUBJECT has for a KPI.

    \b
    Example:
        stageline settings targets end file default rep:r-7 calls --at 2027-06-01
    """
    key = _key(subject, kpi, period, currency)
    require_migrations()
    with changing_project(project) as session:
        ended = TARGETS.end(session, project, key, at)
    assert ended.effective_to is not None  # noqa: S101 - that is what it is to be ended
    click.echo(
        f"Target of {_called(key)} of {project} ends at {written_moment(ended.effective_to)}."
    )


add_list(
    targets,
    TARGETS,
    {
        "of": lambda row: written_subject(row.subject_type, row.subject_id),
        "kpi": lambda row: row.kpi,
        "period": lambda row: row.period,
        "target": lambda row: written_number(row.target),
        "currency": lambda row: row.currency or "",
    },
    """List the targets.

    \b
    Example:
        stageline settings targets list file default
        stageline settings targets list file default --all
    """,
)


# Alerts


@click.group()
def alerts() -> None:
    """Say where the rules of alerts raise one, where what ships does not fit.

    \b
    Example:
        stageline settings alerts list file default
        stageline settings alerts set file default calls_this_week 20
    """


@alerts.command("set", context_settings=_SIGNED)
@of_project
@click.argument("rule")
@click.argument("threshold")
@FROM_DAY
def set_threshold(project: ProjectKey, rule: str, threshold: str, starts: date | None) -> None:
    """Set the THRESHOLD of a RULE, from a day on.

    \b
    Example:
        stageline settings alerts set file default calls_this_week 20
        stageline settings alerts set file default pipeline_change 2.5 --from 2027-03-01
    """
    require_rule(rule)
    row = AlertThreshold(rule=rule, threshold=read_threshold(threshold))
    require_migrations()
    with changing_project(project) as session:
        now = ALERT_THRESHOLDS.set_from(session, project, row, starts)
    click.echo(f"Threshold of {rule} of {project}: {written_number(now.threshold)}{when(now)}.")


add_end(
    alerts,
    ALERT_THRESHOLDS,
    [click.argument("rule")],
    "Threshold of {rule}",
    """End a threshold: the one that ships counts from then on.

    \b
    Example:
        stageline settings alerts end file default calls_this_week --at 2027-06-01
    """,
)


@alerts.command("list")
@of_project
@in_force
def list_thresholds(project: ProjectKey, at: datetime | None, is_all: bool) -> None:
    """List the thresholds of all rules, those that ship included.

    \b
    Example:
        stageline settings alerts list file default
        stageline settings alerts list file default --at 2027-03-01
    """
    own = rules_in_force(ALERT_THRESHOLDS, project, at, is_all)
    shown: list[tuple[str, ...]] = []
    for rule in alert_rules():
        words = (rule.unit, rule.priority, rule.about)
        rows = [row for row in own if row.rule == rule.rule]
        for row in rows:
            shown.append((rule.rule, written_number(row.threshold), *words, *times(row)))
        if not rows or is_all:
            shown.append((rule.rule, written_number(rule.threshold), *words, "ships", ""))
    show_or_say(
        [
            Column("rule"),
            Column("threshold", is_number=True),
            *(Column(title) for title in ("unit", "priority", "about", "from", "to")),
        ],
        shown,
        "There are no rules of alerts.",
    )
