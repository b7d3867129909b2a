"""Orders that a person judges otherwise than the rules do."""

from dataclasses import dataclass

from stageline.errors import StagelineError
from stageline.settings.names import require_one_line, require_text
from stageline.settings.rule_tables import DatedSetting, DatedTable


@dataclass(frozen=True, kw_only=True)
class OrderOverride(DatedSetting):
    """How an order is judged; what is None is left to the rules.

    Attributes:
        sla_profile: The grid of limits, ``normal`` or ``urgent``, whatever the urgency shown.
    """

    order_id: str
    is_urgent: bool | None = None
    sla_profile: str | None = None
    cycle_start_group_id: str | None = None
    cycle_start_stage_id: str | None = None
    cycle_end_group_id: str | None = None
    cycle_end_stage_id: str | None = None
    note: str | None = None

    def require_valid(self) -> None:
        require_text(self.order_id, "The order")
        if self.sla_profile not in (None, "normal", "urgent"):
            raise StagelineError(f"{self.sla_profile!r} is no grid of limits: normal or urgent.")
        if self.note is not None:
            require_one_line(self.note, "The note")
        if OVERRIDES.same(self, OrderOverride(order_id=self.order_id, note=self.note)):
            raise StagelineError(
                f"Nothing is said of order {self.order_id}: give its urgency, its grid of limits,"
                " or a step of its cycle."
            )


OVERRIDES = DatedTable(
    OrderOverride, "order_overrides", "override", ["order_id"], "order_override_id"
)
