"""The canonical stages that all pipelines are mapped to, and the periods that are reported.

``seeds/reference`` defines them.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from stageline.errors import StagelineError
from stageline.settings.seeds import reference


@dataclass(frozen=True)
class Major:
    """A major stage, with the sub-stages whose entry begins and ends it."""

    major_key: str
    display_name: str
    entry_sub_key: str
    exit_sub_key: str


@dataclass(frozen=True)
class SubStage:
    """A sub-stage; time in it counts as worked on if ``is_active_work``."""

    sub_key: str
    major_key: str
    display_name: str
    is_active_work: bool


@cache
def majors() -> tuple[Major, ...]:
    """The major stages in their order."""
    boundaries = {row["major_key"]: row for row in reference("canonical_stage_boundaries")}
    return tuple(
        Major(
            row["major_key"],
            row["display_name"],
            boundaries[row["major_key"]]["entry_sub_key"],
            boundaries[row["major_key"]]["exit_sub_key"],
        )
        for row in _in_order("canonical_major_stages")
    )


@cache
def sub_stages() -> tuple[SubStage, ...]:
    """The sub-stages in their order."""
    return tuple(
        SubStage(
            row["sub_key"],
            row["major_key"],
            row["display_name"],
            row["is_active_work"] == "true",
        )
        for row in _in_order("canonical_substages")
    )


@cache
def periods() -> tuple[str, ...]:
    """The periods of reports, the shortest first."""
    return tuple(row["period"] for row in _in_order("flow_periods"))


def require_sub_key(text: str) -> str:
    """The key of a sub-stage, in capitals, as the seeds have it.

    Raises:
        StagelineError: there is no such sub-stage.
    """
    keys = [stage.sub_key for stage in sub_stages()]
    key = text.strip().upper()
    if key in keys:
        return key
    near = get_close_matches(key, keys, n=3, cutoff=0.4)
    hint = f"Near it: {', '.join(near)}." if near else f"There are: {', '.join(keys)}."
    raise StagelineError(
        f"There is no sub-stage {text!r}. {hint} `stageline settings canonical` lists all."
    )


def _in_order(seed: str) -> list[dict[str, str]]:
    return sorted(reference(seed), key=lambda row: int(row["sort_order"]))
