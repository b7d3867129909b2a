"""Where the rules of alerts raise one: what ships, and what a project says instead."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from functools import cache

from stageline.errors import StagelineError
from stageline.settings.numbers import plain_number, written_number
from stageline.settings.rule_tables import FIRST_DAY, DatedSetting, DatedTable
from stageline.settings.seeds import reference


@dataclass(frozen=True)
class AlertRule:
    """A threshold that ships.

    Attributes:
        rule: Its key.
        priority: How urgent the alert is.
        threshold: Where it is raised, in ``unit``.
        about: What is compared with it.
    """

    rule: str
    priority: str
    threshold: Decimal
    unit: str
    about: str


@cache
def alert_rules() -> tuple[AlertRule, ...]:
    """The thresholds that ship."""
    return tuple(
        AlertRule(
            row["rule"], row["priority"], Decimal(row["threshold"]), row["unit"], row["about"]
        )
        for row in reference("alert_rules")
    )


def require_rule(text: str) -> None:
    """Makes sure that there is such a threshold.

    Raises:
        StagelineError: there is none.
    """
    rules = [rule.rule for rule in alert_rules()]
    if text not in rules:
        near = get_close_matches(text, rules, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(rules)}."
        raise StagelineError(f"There is no rule {text!r} of alerts. {hint}")


def read_threshold(text: str) -> Decimal:
    """The threshold that a text means.

    Raises:
        StagelineError: it is none.
    """
    threshold = plain_number(text, decimals=4)
    if threshold is None or threshold < 0:
        raise StagelineError(
            f"{text!r} is no threshold. Write a number as 25, not below 0, with four decimals at"
            " most."
        )
    return threshold


@dataclass(frozen=True, kw_only=True)
class AlertThreshold(DatedSetting):
    """Where a rule raises an alert of a project, on days of it from one until another."""

    effective_from: date = FIRST_DAY
    rule: str
    threshold: Decimal

    def require_valid(self) -> None:
        require_rule(self.rule)
        read_threshold(written_number(self.threshold))


ALERT_THRESHOLDS = DatedTable(
    AlertThreshold,
    "alert_thresholds",
    "threshold",
    ["rule"],
    "alert_threshold_id",
    FIRST_DAY,
)
