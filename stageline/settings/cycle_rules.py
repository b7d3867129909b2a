"""Cycles: from entering one group or status to entering another; and the orders judged by hand."""

from dataclasses import dataclass

from stageline.errors import StagelineError
from stageline.settings.names import require_one_line, require_text
from stageline.settings.rule_tables import DatedSetting, DatedTable


def step_columns(column: str, text: str) -> dict[str, str]:
    """The column that a step of a cycle fills, ``group:ID`` or ``stage:ID``, and its id.

    Args:
        column: What the column begins with, as ``start``.
        text: The step; a stage is a status.

    Raises:
        StagelineError: it is not written so.
    """
    kind, _, step_id = text.partition(":")
    if kind not in ("group", "stage") or not step_id:
        raise StagelineError(f"{text!r} is no step of a cycle. Write group:ID or stage:ID.")
    require_text(step_id, f"The {kind} of a step")
    return {f"{column}_{kind}_id": step_id}


def written_step(group_id: str | None, stage_id: str | None) -> str | None:
    """A step in the form that `step_columns` reads; None where neither is given."""
    if stage_id is not None:
        return f"stage:{stage_id}"
    return None if group_id is None else f"group:{group_id}"


@dataclass(frozen=True, kw_only=True)
class CycleRule(DatedSetting):
    """A cycle of a project; the default is the one to delivery that `orders_current` shows.

    It begins and ends with a group or a stage, one of both.
    """

    title: str
    start_group_id: str | None = None
    start_stage_id: str | None = None
    end_group_id: str | None = None
    end_stage_id: str | None = None
    is_default: bool = False

    def require_valid(self) -> None:
        require_one_line(self.title, "The title of a cycle")


CYCLES = DatedTable(CycleRule, "cycle_rules", "cycle", ["title"], "cycle_rule_id")
