"""What is refreshed when, as ``jobs/kpi_refresh_config.yml`` says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo

from croniter import croniter
from pydantic import AfterValidator, Field

from jobs.channels import ChannelName, Criticality, channels
from stageline.config import settings
from stageline.errors import StagelineError
from stageline.yaml_files import Checked, Duration, YamlFile, Zone


def _schedule(text: str) -> str:
    if len(text.split()) != 5 or not croniter.is_valid(text):
        raise ValueError(
            f"{text!r} is no cron line; write minute, hour, day, month and weekday, as"
            ' "*/15 * * * *"'
        )
    return text


def _timeout(duration: timedelta) -> timedelta:
    if duration > timedelta(days=1):
        raise ValueError("an attempt may take a day at most")
    return duration


T = TypeVar("T")

Text = Annotated[str, Field(min_length=1)]
Schedule = Annotated[str, AfterValidator(_schedule)]
Load = Literal["hubspot", "pipedrive", "salesforce", "keycrm", "sheet"]
Export = Literal["pipeline"]


class _Shared(Checked):
    """What groups share where they do not say it themselves."""

    zone: Zone | None = None
    retries: Annotated[int, Field(ge=0, le=20)] | None = None
    first_wait: Duration | None = None
    timeout: Annotated[Duration, AfterValidator(_timeout)] | None = None


class _Group(_Shared):
    tag: Text
    schedule: Schedule
    never_older_than: Duration | None = None
    done_within: Duration | None = None
    criticality: Criticality
    owner: Text
    loads: list[Load] | None = None
    exports: list[Export] | None = None
    channels: Annotated[list[ChannelName], Field(min_length=1)] | None = None


class _File(Checked):
    defaults: _Shared = _Shared()
    groups: Annotated[dict[str, _Group], Field(min_length=1)]


@dataclass(frozen=True)
class Group:
    """Models that are refreshed together.

    Attributes:
        name: Its name.
        tag: Tag of the models; what they are made of is refreshed with them.
        schedule, zone: Cron line, and in which zone it is meant.
        never_older_than: Promise: largest age of its tables; or None.
        done_within: Promise: how long after a slot a run is done; or None.
        criticality: How bad it is if the promise is broken.
        owner: Who answers for it.
        retries: Attempts after the first one.
        first_wait: Before the second attempt; doubled for each one after it.
        timeout: An attempt that takes longer is stopped.
        loads: CRMs that are loaded before.
        exports: Files that are written afterwards.
        channels: The channels that alone hear of it; None: all that take such alerts.
    """

    name: str
    tag: str
    schedule: str
    zone: ZoneInfo
    never_older_than: timedelta | None
    done_within: timedelta | None
    criticality: Criticality
    owner: str
    retries: int
    first_wait: timedelta
    timeout: timedelta
    loads: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    channels: tuple[str, ...] | None = None

    @property
    def promised(self) -> timedelta:
        """Either promise."""
        promised = self.never_older_than or self.done_within
        assert promised is not None  # noqa: S101 - one of them is there, see `_group`
        return promised

    @property
    def selection(self) -> str:
        """dbt selection: its models, what they are made of, and their snapshots."""
        return f"+tag:{self.tag} tag:{self.tag}+1,resource_type:snapshot"


def read(path: Path | None = None) -> dict[str, Group]:
    """The groups by name, in the order of the file; default: ``STAGELINE_KPI_REFRESH_CONFIG``.

    Raises:
        StagelineError: the file has a mistake; it is told by line and column.
    """
    file = YamlFile(path or settings().kpi_refresh_config)
    found = file.checked(_File)
    groups = {name: _group(file, name, said, found.defaults) for name, said in found.groups.items()}
    of_tag: dict[str, str] = {}
    for name, group in groups.items():
        other = of_tag.setdefault(group.tag, name)
        if other != name:
            raise file.error(
                ("groups", name, "tag"), f"Groups {other} and {name} have one tag: give one up."
            )
    return groups


def require(groups: Mapping[str, Group], name: str) -> Group:
    """The group of that name.

    Raises:
        StagelineError: there is none; says which there are.
    """
    if name not in groups:
        raise StagelineError(f"There is no group {name!r}. There are: {', '.join(groups)}.")
    return groups[name]


def _group(file: YamlFile, name: str, said: _Group, defaults: _Shared) -> Group:
    def either(key: str, own: T | None, default: T | None) -> T:
        found = default if own is None else own
        if found is None:
            raise _error(file, name, f"does not say its {key}, and the defaults do not")
        return found

    if (said.never_older_than is None) == (said.done_within is None):
        raise _error(file, name, "needs one promise: either never_older_than or done_within")
    if said.channels:
        known = [channel.name for channel in channels()]
        for position, channel in enumerate(said.channels):
            if channel not in known:
                raise file.error(
                    ("groups", name, "channels", position),
                    f"There is no channel {channel} in {settings().notifications}.",
                )
    return Group(
        name,
        tag=said.tag,
        schedule=said.schedule,
        zone=either("zone", said.zone, defaults.zone),
        never_older_than=said.never_older_than,
        done_within=said.done_within,
        criticality=said.criticality,
        owner=said.owner,
        retries=either("retries", said.retries, defaults.retries),
        first_wait=either("first_wait", said.first_wait, defaults.first_wait),
        timeout=either("timeout", said.timeout, defaults.timeout),
        loads=tuple(dict.fromkeys(said.loads or ())),
        exports=tuple(dict.fromkeys(said.exports or ())),
        channels=tuple(said.channels) if said.channels else None,
    )


def _error(file: YamlFile, name: str, problem: str) -> StagelineError:
    return file.error(("groups", name), f"Group {name} {problem}.")
