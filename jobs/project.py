"""The dbt project: what dbt read of it last, and whether its files are still those."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from stageline.dbt_environment import variables

#: Prefix of the tags that say which group refreshes a model.
TAG = "refresh_"

TESTS = ("test", "unit_test")

_MANIFEST = "manifest.json"

#: Beside the manifest: the state of the project that it was written of.
_STATE = "manifest_state.json"

#: Folders that dbt reads, by their setting in ``dbt_project.yml``, and what they are by default.
_FOLDERS = {
    "model-paths": ["models"],
    "macro-paths": ["macros"],
    "snapshot-paths": ["snapshots"],
    "seed-paths": ["seeds"],
    "test-paths": ["tests"],
    "analysis-paths": ["analyses"],
    "docs-paths": [],
}


@dataclass(frozen=True)
class Project:
    """The nodes of the project, as dbt read them last.

    Attributes:
        manifest: dbt's ``manifest.json``.
    """

    manifest: Mapping[str, Any]

    @cached_property
    def parents(self) -> Mapping[str, list[str]]:
        """What each node reads: nodes and sources."""
        found: Mapping[str, list[str]] = self.manifest["parent_map"]
        return found

    @cached_property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Models, seeds, snapshots and tests, unit tests too, by dbt's own name of them."""
        return {**self.manifest["nodes"], **self.manifest["unit_tests"]}

    def group(self, unique_id: str) -> str | None:
        """The group that a model is refreshed with."""
        tags = self.manifest["nodes"][unique_id]["tags"]
        return next((tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)), None)

    def made_of(self, tag: str) -> set[str]:
        """All that a refresh of the models with a tag is about: they, what they are made of, their
        snapshots, and the tests that read nothing else."""
        waiting = [name for name, node in self.manifest["nodes"].items() if tag in node["tags"]]
        waiting += [
            name
            for name, node in self.manifest["nodes"].items()
            if node["resource_type"] == "snapshot" and set(self.parents[name]) & set(waiting)
        ]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.parents.get(name, [])
        tests = {
            name
            for name, node in self.nodes.items()
            if node["resource_type"] in TESTS and found.issuperset(self.parents[name])
        }
        return found | tests

    def sources_of(self, tag: str) -> set[tuple[str, str]]:
        """Schemas and names of the tables that a refresh of the models with a tag reads."""
        sources = self.manifest["sources"]
        read = self.made_of(tag) & sources.keys()
        return {(sources[name]["schema"], sources[name]["identifier"]) for name in read}


def read_project(target_path: Path) -> Project | None:
    """What dbt wrote into its folder; None where that is missing or cannot be read."""
    file = target_path / _MANIFEST
    try:
        return _read(file, _version(file))
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=1)
def _read(file: Path, _version: tuple[int, int]) -> Project:
    return Project(json.loads(file.read_text(encoding="utf-8")))


def state_of(project: Path, target: str) -> str:
    """All that decides what dbt makes of the project, as a word that changes if any of it does.

    Files are told apart by size and time, as reading them all would take as long as dbt does.
    """
    server = {name: value for name, value in variables().items() if "PASSWORD" not in name}
    said = [version("dbt-core"), target, server, list(_files(project))]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _files(project: Path) -> Iterator[tuple[str, int, int]]:
    try:
        settings = dict(yaml.safe_load((project / "dbt_project.yml").read_bytes()))
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        settings = {}  # dbt says what is wrong with it
    folders = {
        folder for name, default in _FOLDERS.items() for folder in settings.get(name, default)
    }
    found = [*project.glob("*.yml")]
    for folder in folders:
        for path, _, names in os.walk(project / folder):
            found += [Path(path, name) for name in names]
    for file in sorted(set(found)):
        yield str(file), *_version(file)


def _version(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


def note_state(target_path: Path, state: str) -> None:
    """Notes that the manifest there was written of the project in that state."""
    file = target_path / _MANIFEST
    if file.exists():
        said = {"state": state, "manifest": _version(file)}
        (target_path / _STATE).write_text(json.dumps(said), encoding="utf-8")


def is_read(target_path: Path, state: str) -> bool:
    """Whether the manifest there is that of the project in that state."""
    try:
        said = json.loads((target_path / _STATE).read_text(encoding="utf-8"))
        manifest = list(_version(target_path / _MANIFEST))
    except (OSError, ValueError):
        return False
    return bool(said == {"state": state, "manifest": manifest})
