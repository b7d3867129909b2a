"""What is refreshed when, as ``jobs/kpi_refresh_config.yml`` says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import yaml
from croniter import croniter

from stageline.config import PROJECT_ROOT
from stageline.errors import StagelineError, nearest
from stageline.settings.durations import read_duration

#: Where the groups stand.
PATH = PROJECT_ROOT / "jobs" / "kpi_refresh_config.yml"

CRITICALITIES = ("critical", "high", "medium", "low")

#: CRMs that a group may load before; those of `loaders.registry`, of which a test makes sure.
LOADS = ("hubspot", "pipedrive", "salesforce", "keycrm", "sheet")

EXPORTS = ("pipeline",)

#: Keys that groups share where they do not say it themselves.
_SHARED = ("zone", "retries", "first_wait", "timeout")

_KEYS = (
    *("tag", "schedule", "never_older_than", "done_within", "criticality", "owner"),
    *("loads", "exports"),
    *_SHARED,
)

_NEEDED = ("tag", "schedule", "criticality", "owner", *_SHARED)

_LONGEST_TIMEOUT = 24 * 3600


@dataclass(frozen=True)
class Group:
    """Models that are refreshed together.

    Attributes:
        name: Its name.
        tag: Tag of the models; what they are made of is refreshed with them.
        schedule, zone: Cron line, and in which zone it is meant.
        never_older_than: Promise: largest age of its tables; or None.
        done_within: Promise: how long after a slot a run is done; or None.
        criticality: One of `CRITICALITIES`.
        owner: Who answers for it.
        retries: Attempts after the first one.
        first_wait: Before the second attempt; doubled for each one after it.
        timeout: An attempt that takes longer is stopped.
        loads: CRMs that are loaded before.
        exports: Files that are written afterwards.
    """

    name: str
    tag: str
    schedule: str
    zone: ZoneInfo
    never_older_than: timedelta | None
    done_within: timedelta | None
    criticality: str
    owner: str
    retries: int
    first_wait: timedelta
    timeout: timedelta
    loads: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()

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


def read(path: Path = PATH) -> dict[str, Group]:
    """The groups by name, in the order of the file.

    Raises:
        StagelineError: the file cannot be read, or says something that cannot be meant; names the
            line and column.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise StagelineError(f"{path} cannot be read: {reason}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StagelineError(f"{path}{place}: this is no YAML: {problem}.") from None
    file = _File(path)
    if root is None:
        raise StagelineError(f"{path} is empty. It needs `groups:`, and the models of each.")
    top = file.mapping(root, ("defaults", "groups"))
    if "groups" not in top:
        raise file.error(root, "`groups:` is missing.")
    defaults = file.mapping(top["defaults"], _SHARED) if "defaults" in top else {}
    groups = {
        name: _group(file, name, node, defaults)
        for name, node in file.mapping(top["groups"]).items()
    }
    if not groups:
        raise file.error(top["groups"], "There is no group.")
    _require_own_tags(file, groups, file.mapping(top["groups"]))
    return groups


class _File:
    """Reads values of a YAML file, and says where one stands that cannot be meant."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def error(self, node: yaml.Node, problem: object) -> StagelineError:
        mark = node.start_mark
        return StagelineError(
            f"{self._path}, line {mark.line + 1}, column {mark.column + 1}: {problem}"
        )

    def mapping(
        self, node: yaml.Node, known: tuple[str, ...] | None = None
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, "Here belong lines `name: value`.")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if known is not None and name not in known:
                raise self.error(key, f"There is no {name!r} here. {nearest(name, known)}")
            if name in found:
                raise self.error(key, f"{name} stands there twice.")
            found[name] = value
        return found

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise self.error(node, f"{what} is one value, and not empty.")
        return str(node.value).strip()

    def one_of(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> str:
        found = self.text(node, what)
        if found not in known:
            raise self.error(node, f"{what} {found!r} is not known. {nearest(found, known)}")
        return found

    def several_of(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(node, f"{what} is a list, as [{known[0]}].")
        found = tuple(self.one_of(each, what, known) for each in node.value)
        if len(set(found)) < len(found):
            raise self.error(node, f"{what} names one twice.")
        return found

    def duration(self, node: yaml.Node, what: str) -> timedelta:
        try:
            return timedelta(seconds=read_duration(self.text(node, what), what))
        except StagelineError as error:
            raise self.error(node, error) from None

    def number(self, node: yaml.Node, what: str, most: int) -> int:
        found = self.text(node, what)
        if not (found.isascii() and found.isdigit() and int(found) <= most):
            raise self.error(node, f"{what} {found!r} is no whole number from 0 to {most}.")
        return int(found)

    def zone(self, node: yaml.Node) -> ZoneInfo:
        found = self.text(node, "zone")
        try:
            return ZoneInfo(found)
        except (OSError, ValueError, KeyError):
            raise self.error(
                node, f"There is no time zone {found!r}. Write its IANA name, as Europe/Kyiv."
            ) from None

    def schedule(self, node: yaml.Node) -> str:
        found = self.text(node, "schedule")
        if len(found.split()) != 5 or not croniter.is_valid(found):
            raise self.error(
                node,
                f"schedule {found!r} is no cron line. Write minute, hour, day, month and weekday,"
                ' as "*/15 * * * *".',
            )
        return found


def _group(file: _File, name: str, node: yaml.Node, defaults: Mapping[str, yaml.Node]) -> Group:
    said = {**defaults, **file.mapping(node, _KEYS)}
    for key in _NEEDED:
        if key not in said:
            raise file.error(node, f"Group {name} does not say its {key}.")
    if ("never_older_than" in said) == ("done_within" in said):
        raise file.error(
            node, f"Group {name} needs one promise: either never_older_than or done_within."
        )
    durations = {
        key: file.duration(said[key], key) if key in said else None
        for key in ("never_older_than", "done_within")
    }
    timeout = file.duration(said["timeout"], "timeout")
    if timeout.total_seconds() > _LONGEST_TIMEOUT:
        raise file.error(said["timeout"], "timeout is longer than a day.")
    return Group(
        name,
        tag=file.text(said["tag"], "tag"),
        schedule=file.schedule(said["schedule"]),
        zone=file.zone(said["zone"]),
        **durations,
        criticality=file.one_of(said["criticality"], "criticality", CRITICALITIES),
        owner=file.text(said["owner"], "owner"),
        retries=file.number(said["retries"], "retries", 20),
        first_wait=file.duration(said["first_wait"], "first_wait"),
        timeout=timeout,
        loads=file.several_of(said["loads"], "loads", LOADS) if "loads" in said else (),
        exports=file.several_of(said["exports"], "exports", EXPORTS) if "exports" in said else (),
    )


def _require_own_tags(
    file: _File, groups: Mapping[str, Group], nodes: Mapping[str, yaml.Node]
) -> None:
    of_tag: dict[str, str] = {}
    for name, group in groups.items():
        other = of_tag.setdefault(group.tag, name)
        if other != name:
            raise file.error(
                nodes[name], f"Groups {other} and {name} have one tag, {group.tag}: give one up."
            )
