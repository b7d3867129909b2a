"""Metrics of the user's own: the time from entering one stage or sub-stage to entering another."""

import re
from dataclasses import dataclass

from stageline.errors import StagelineError
from stageline.settings.canonical import require_sub_key
from stageline.settings.names import require_one_line, require_text
from stageline.settings.rule_tables import Setting, SettingTable

_STAGE = re.compile(r"(?:pipeline:(.+?)/)?stage:(.+)")


@dataclass(frozen=True, kw_only=True)
class FlowMetric(Setting):
    """A metric: each end is a stage (in any pipeline, or in one) or a canonical sub-stage.

    Attributes:
        is_working_time: Whether it counts working time rather than time by the clock.
        green_limit_seconds, red_limit_seconds: Up to the first it is green, beyond the second red.
    """

    title: str
    start_pipeline_id: str | None = None
    start_stage_id: str | None = None
    start_sub_key: str | None = None
    end_pipeline_id: str | None = None
    end_stage_id: str | None = None
    end_sub_key: str | None = None
    is_working_time: bool = False
    green_limit_seconds: int | None = None
    red_limit_seconds: int | None = None
    comment: str | None = None
    position: int | None = None
    is_on: bool = True

    def require_valid(self) -> None:
        require_one_line(self.title, "The title of a metric")
        for end in ("start", "end"):
            if getattr(self, f"{end}_stage_id") is None and getattr(self, f"{end}_sub_key") is None:
                raise StagelineError(f"Metric {self.title} has no {end}.")
        if (
            self.green_limit_seconds is not None
            and self.red_limit_seconds is not None
            and self.red_limit_seconds < self.green_limit_seconds
        ):
            raise StagelineError(
                f"The red limit of metric {self.title} is below the green one: it is green up to"
                " the first, and red beyond the second."
            )


METRICS = SettingTable(FlowMetric, "flow_metrics", "metric", ["title"])


def point_columns(column: str, text: str) -> dict[str, str | None]:
    """The columns that an end fills: ``stage:ID``, ``pipeline:ID/stage:ID`` or ``sub:KEY``.

    Args:
        column: What the columns begin with, ``start`` or ``end``.
        text: The end.

    Raises:
        StagelineError: it is not written so.
    """
    stage = _STAGE.fullmatch(text)
    sub_key = text.removeprefix("sub:") if text.startswith("sub:") else ""
    if stage is None and not sub_key:
        raise StagelineError(
            f"{text!r} is no end of a metric. Write stage:ID, pipeline:ID/stage:ID, or sub:KEY"
            " with the key of a canonical sub-stage."
        )
    require_text(text, "The end of a metric")
    return {
        f"{column}_pipeline_id": stage[1] if stage else None,
        f"{column}_stage_id": stage[2] if stage else None,
        f"{column}_sub_key": None if stage else require_sub_key(sub_key),
    }


def written_point(pipeline_id: str | None, stage_id: str | None, sub_key: str | None) -> str:
    """An end of a metric in the form that `point_columns` reads."""
    if sub_key is not None:
        return f"sub:{sub_key}"
    return (
        f"stage:{stage_id}" if pipeline_id is None else f"pipeline:{pipeline_id}/stage:{stage_id}"
    )
