"""What is kept for how long, and when backups are made, as ``jobs/retention.yml`` says it."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from jobs.refresh_config import Schedule
from stageline.config import PROJECT_ROOT, settings
from stageline.yaml_files import Checked, YamlFile, Zone

#: How far `ops.node_costs` looks back, and with it the alert of what got slower.
LOOKED_BACK = timedelta(days=14)

_LASTING = re.compile(r"([1-9][0-9]{0,4})d|([1-9][0-9]?)y")


def _kept_for(text: Any) -> timedelta | None:
    if text == "forever":
        return None
    parts = _LASTING.fullmatch(str(text))
    if parts is None:
        raise ValueError("write days as 90d, years as 1y, or forever")
    days, years = (int(part or 0) for part in parts.groups())
    return timedelta(days=days + 365 * years)


def _looked_back_on(kept: timedelta | None) -> timedelta | None:
    if kept is not None and kept < LOOKED_BACK:
        raise ValueError(f"keep at least {LOOKED_BACK.days}d, which costs of models are told of")
    return kept


def _folder(text: Any) -> Path | None:
    return PROJECT_ROOT / Path(str(text)).expanduser() if text else None


Lasting = Annotated[timedelta | None, BeforeValidator(_kept_for)]
History = Annotated[Lasting, AfterValidator(_looked_back_on)]


class _Keep(Checked):
    job_history: History
    snapshots: Lasting


class _Backups(Checked):
    folder: Annotated[Path | None, BeforeValidator(_folder)]
    schedule: Schedule
    zone: Zone
    keep: Annotated[int, Field(ge=1, le=10_000)]


class _File(Checked):
    keep: _Keep
    backups: _Backups


@dataclass(frozen=True)
class Backups:
    """Backups by the clock.

    Attributes:
        folder: Where they go.
        schedule, zone: Cron line, and in which zone it is meant.
        keep: How many stay.
    """

    folder: Path
    schedule: str
    zone: ZoneInfo
    keep: int


@dataclass(frozen=True)
class Retention:
    """What the file says.

    Attributes:
        job_history, snapshots: How long they are kept; None: forever.
        backups: None: none are made.
    """

    job_history: timedelta | None
    snapshots: timedelta | None
    backups: Backups | None


def read(path: Path | None = None) -> Retention:
    """What the file says.

    Args:
        path: The file; default: the configured one.

    Raises:
        StagelineError: it has a mistake, which is told by line and column.
    """
    found = YamlFile(path or settings().retention).checked(_File)
    said = found.backups
    return Retention(
        found.keep.job_history,
        found.keep.snapshots,
        Backups(said.folder, said.schedule, said.zone, said.keep) if said.folder else None,
    )
