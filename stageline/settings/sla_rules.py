"""How long an order may stay in a group of stages, when that is near, and when its clock waits."""

from dataclasses import dataclass
from decimal import Decimal

from stageline.errors import StagelineError
from stageline.settings.names import require_one_line, require_text
from stageline.settings.numbers import plain_number
from stageline.settings.rule_tables import DatedSetting, DatedTable


@dataclass(frozen=True, kw_only=True)
class SlaLimit(DatedSetting):
    """The working seconds that one visit to a group may take, of normal or of urgent orders."""

    group_id: str
    is_urgent: bool = False
    limit_seconds: int
    note: str | None = None

    def require_valid(self) -> None:
        require_text(self.group_id, "The group")
        if self.note is not None:
            require_one_line(self.note, "The note")


@dataclass(frozen=True, kw_only=True)
class NearThreshold(DatedSetting):
    """From which share of its limit on a visit counts as near, in percent."""

    near_pct: Decimal

    def require_valid(self) -> None:
        read_share(str(self.near_pct))


def read_share(text: str) -> Decimal:
    """The percent that a text means.

    Raises:
        StagelineError: it is no share of a limit.
    """
    share = plain_number(text, decimals=2)
    if share is None or not 0 < share <= 100:
        raise StagelineError(
            f"{text!r} is no share of a limit. Write percent, as 80: above 0, up to 100, with two"
            " decimals at most."
        )
    return share


@dataclass(frozen=True, kw_only=True)
class WaitingStage(DatedSetting):
    """A status in which the clock of the SLA pauses, and what it waits for."""

    stage_id: str
    waits_for: str = ""

    def require_valid(self) -> None:
        require_text(self.stage_id, "The status")
        if self.waits_for:
            require_one_line(self.waits_for, "What is waited for")


LIMITS = DatedTable(
    SlaLimit, "sla_stage_rules", "SLA limit", ["group_id", "is_urgent"], "sla_rule_id"
)
THRESHOLDS = DatedTable(NearThreshold, "sla_thresholds", "near threshold", [], "sla_threshold_id")
WAITING = DatedTable(
    WaitingStage, "waiting_stages", "waiting status", ["stage_id"], "waiting_stage_id"
)
