"""What reps, teams and all of them are to reach in a week or a month."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from stageline.errors import StagelineError
from stageline.settings.names import require_text
from stageline.settings.numbers import plain_number, written_number
from stageline.settings.rule_tables import FIRST_DAY, DatedSetting, DatedTable

#: KPI -> the periods that it may have a target for, the usual one first.
KPIS: dict[str, tuple[str, ...]] = {
    "calls": ("week", "month"),
    "proposals": ("month",),
    "agreements": ("month",),
    "lists_out": ("month",),
    "sales": ("month",),
    "revenue": ("month",),
}

#: The KPI whose target is an amount of money.
REVENUE = "revenue"

_SUBJECTS = "Write rep:ID, team:ID, reps (each rep without a target of their own) or all."


def periods_of(kpi: str) -> tuple[str, ...]:
    """The periods that a KPI may have a target for, the usual one first.

    Raises:
        StagelineError: there are no targets of such a KPI.
    """
    if kpi not in KPIS:
        raise StagelineError(f"There are no targets of {kpi!r}. There are: {', '.join(KPIS)}.")
    return KPIS[kpi]


def read_subject(text: str) -> dict[str, str | None]:
    """The columns that say whose target it is.

    Raises:
        StagelineError: it is nobody's.
    """
    kind, _, subject_id = text.partition(":")
    if text in ("reps", "all"):
        return {"subject_type": text.removesuffix("s"), "subject_id": None}
    if kind not in ("rep", "team") or not subject_id:
        raise StagelineError(f"{text!r} is no subject of a target. {_SUBJECTS}")
    return {"subject_type": kind, "subject_id": require_text(subject_id, f"The {kind}")}


def written_subject(subject_type: str, subject_id: str | None) -> str:
    """Whose target it is, in the form that `read_subject` reads."""
    if subject_id is None:
        return "all" if subject_type == "all" else "reps"
    return f"{subject_type}:{subject_id}"


def read_target(text: str) -> Decimal:
    """The target that a text means.

    Raises:
        StagelineError: it is none.
    """
    target = plain_number(text, decimals=4)
    if target is None or target <= 0:
        raise StagelineError(
            f"{text!r} is no target. Write a number above 0 as 25, with four decimals at most."
        )
    return target


@dataclass(frozen=True, kw_only=True)
class KpiTarget(DatedSetting):
    """What a subject is to reach in a period, on days of the project from one until another.

    Attributes:
        subject_type, subject_id: A rep, a team or all; a rep without an id is each rep that has no
            target of their own.
        target: A count; of revenue an amount in ``currency``.
    """

    effective_from: date = FIRST_DAY
    kpi: str
    subject_type: str
    subject_id: str | None = None
    period: str
    target: Decimal
    currency: str | None = None

    def require_valid(self) -> None:
        periods = periods_of(self.kpi)
        if self.period not in periods:
            raise StagelineError(
                f"Targets of {self.kpi} are for a {' or a '.join(periods)}, not {self.period!r}."
            )
        read_subject(written_subject(self.subject_type, self.subject_id))
        read_target(written_number(self.target))
        if self.kpi != REVENUE and self.currency is not None:
            raise StagelineError(f"A target of {self.kpi} is a count: leave its currency out.")
        if self.kpi == REVENUE and self.currency is None:
            raise StagelineError("A target of revenue needs its currency, as EUR.")
        if self.currency is not None and not re.fullmatch("[A-Z]{3}", self.currency):
            raise StagelineError(f"{self.currency!r} is no ISO 4217 currency such as EUR.")


TARGETS = DatedTable(
    KpiTarget,
    "kpi_targets",
    "target",
    ["kpi", "subject_type", "subject_id", "period", "currency"],
    "kpi_target_id",
    FIRST_DAY,
)
