"""Which items make an order urgent."""

from dataclasses import dataclass
from typing import Literal, get_args

from stageline.errors import StagelineError
from stageline.settings.names import require_one_line
from stageline.settings.rule_tables import DatedSetting, DatedTable

MatchType = Literal["sku", "offer_id", "product_id"]
MATCH_TYPES: tuple[MatchType, ...] = get_args(MatchType)


@dataclass(frozen=True, kw_only=True)
class UrgentRule(DatedSetting):
    """An item that makes the orders urgent that begin while it counts."""

    match_type: str
    match_value: str
    rule_name: str

    def require_valid(self) -> None:
        if self.match_type not in MATCH_TYPES:
            raise StagelineError(
                f"{self.match_type!r} is nothing to know an item by. That are:"
                f" {', '.join(MATCH_TYPES)}."
            )
        require_one_line(self.match_value, f"The {self.match_type}")
        require_one_line(self.rule_name, "The name of the rule")


URGENT_RULES = DatedTable(
    UrgentRule, "urgent_rules", "urgent rule", ["match_type", "match_value"], "urgent_rule_id"
)
