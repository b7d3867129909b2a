"""The files of spec pulls: a snapshot of a pipeline, its copies by time, and the day's summary."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from stageline.config import settings
from stageline.errors import StagelineError
from stageline.whole_files import whole_file

#: How long copies of a snapshot are kept.
RETENTION = timedelta(days=30)

_COPY = re.compile(r"sales_pipeline_([0-9]{8}_[0-9]{6})\.json")
_STAMP = "%Y%m%d_%H%M%S"


@dataclass(frozen=True)
class PipelineTotals:
    """A pipeline in four numbers, computed from the database.

    Attributes:
        total_leads: Deals.
        total_value: Sum of their values; None where they are in several currencies.
        weighted_value: Sum of value x probability; None likewise.
        stage_breakdown: Stage -> deals in it, in the order of the first deal in each.
    """

    total_leads: int
    total_value: Decimal | None
    weighted_value: Decimal | None
    stage_breakdown: dict[str, int]


@dataclass(frozen=True)
class PipelineFiles:
    """The files that were written: the snapshot, its copy in the cache, the summary; and how many
    copies were removed, as they were too old.
    """

    pipeline: Path
    cache: Path
    summary: Path
    removed: int = 0


def write(
    totals: PipelineTotals,
    deals: Sequence[Mapping[str, Any]],
    *,
    at: datetime | None,
    source: str,
    is_demo: bool,
    more: Mapping[str, Any] | None = None,
) -> PipelineFiles:
    """Writes the three files, each of them whole or not at all, and removes copies that are old.

    Args:
        totals: The pipeline.
        deals: Its deals: id, name, company, stage, value, probability (0 to 1), owner, created_at
            and updated_at, and whatever else is known.
        at: The instant that the files are to bear, now by default.
        source: Where the deals are from.
        is_demo: Whether they are made up.
        more: What else is to stand in the snapshot.

    Raises:
        StagelineError: a file cannot be written, or a number not be written exactly.
    """
    at = (at or datetime.now(UTC)).astimezone(UTC)
    money = {
        "total_leads": totals.total_leads,
        "total_value": _number(totals.total_value),
        "weighted_value": _number(totals.weighted_value),
    }
    timestamp = at.isoformat(timespec="microseconds")
    pipeline = {
        "timestamp": timestamp,
        **money,
        **(more or {}),
        "stage_breakdown": totals.stage_breakdown,
        "leads": [{name: _plain(value) for name, value in deal.items()} for deal in deals],
        "source": source,
        "demo": is_demo,
    }
    summary = {
        "metadata": {"sales_pipeline_enabled": True},
        "sales_pipeline_summary": {**money, "timestamp": timestamp},
    }
    output = settings().output
    cache = settings().sales_pipeline_cache or output / "sales_cache"
    copy = cache / f"sales_pipeline_{at.strftime(_STAMP)}.json"
    write_whole(copy, _json(pipeline))
    write_whole(output / "sales_pipeline.json", _json(pipeline))
    write_whole(output / "daily_summary.json", _json(summary))
    return PipelineFiles(
        output / "sales_pipeline.json",
        copy,
        output / "daily_summary.json",
        _remove_old(cache, at - RETENTION),
    )


def _remove_old(cache: Path, before: datetime) -> int:
    """Removes copies by the instant in their names; of other files none."""
    removed = 0
    for path in cache.iterdir():
        name = _COPY.fullmatch(path.name)
        with contextlib.suppress(ValueError):  # digits that are no date
            if name and datetime.strptime(name[1], _STAMP).replace(tzinfo=UTC) < before:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def write_whole(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` so that a reader, or a crash, sees the old file or the new one.

    Raises:
        StagelineError: the folder or the file cannot be written; the old file is as it was.
    """
    hint = (
        "Make its folder writable, or set STAGELINE_OUTPUT (the cache: SALES_PIPELINE_CACHE) to"
        " another one."
    )
    with whole_file(path, hint) as file:
        file.write(text.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return _number(value)
    return _instant(value) if isinstance(value, datetime) else value


def _number(exact: Decimal | None) -> float | None:
    """``exact`` as JSON's number (150000.0), which it must equal to the last digit.

    Raises:
        StagelineError: it has more digits than a JSON reader keeps.
    """
    if exact is None:
        return None
    number = float(exact)
    if Decimal(repr(number)) != exact:
        raise StagelineError(f"{exact} has more digits than a JSON number can be trusted with.")
    return number


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"
