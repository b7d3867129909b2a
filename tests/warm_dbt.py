"""A dbt that stays: a process of its own reads the project once, and runs it many times.

For tests of what models hold. A build that has to prove itself is `jobs.build`.
"""

import gc
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jobs.build import dbt_environment
from stageline.config import PROJECT_ROOT

#: What the process of dbt has read.
_read: dict[str, Any] = {}

_GOOD = ("success", "pass", "warn", "no-op")


class WarmDbt:
    """dbt on our project and the database that the environment names whenever it runs.

    What dbt reads of a project holds for one name of a database: `tests.conftest.DATABASE`.

    Args:
        target_path: Its folder.
        parsed: Where another dbt may have left its reading.
    """

    def __init__(self, target_path: Path, parsed: Path) -> None:
        self._target_path, self._parsed = target_path, parsed
        self._folders = (
            *("--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(target_path), "--log-path", str(target_path)),
        )
        self._process: ProcessPoolExecutor | None = None

    def run(
        self,
        *select: str,
        variables: Mapping[str, str] | None = None,
        full_refresh: bool = False,
    ) -> None:
        """Builds models, seeds and snapshots; any that fails is an error.

        Args:
            select: dbt selection.
            variables: dbt variables.
            full_refresh: Incremental models are built from nothing.
        """
        arguments = [
            *("build", "--exclude", "resource_type:test", "resource_type:unit_test"),
            *("--select", *select, "--vars", json.dumps(dict(variables or {}))),
            *(("--full-refresh",) if full_refresh else ()),
        ]
        failed = {
            name: message
            for name, (status, message) in self._invoke(arguments).items()
            if status not in _GOOD
        }
        assert not failed, failed

    def test(
        self,
        *select: str,
        exclude: str = "resource_type:unit_test",
        variables: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """Runs tests of what is selected alone; gives the status of each (``pass``, ``fail``)."""
        arguments = [
            *("test", "--indirect-selection", "buildable"),
            *("--select", *select, "--exclude", *exclude.split()),
            *("--vars", json.dumps(dict(variables or {}))),
        ]
        return {name: status for name, (status, _) in self._invoke(arguments).items()}

    def nodes(self) -> dict[str, dict[str, Any]]:
        """What dbt has read of the project: each node by its name."""
        manifest = json.loads((self._target_path / "manifest.json").read_text())
        return {node["name"]: node for node in manifest["nodes"].values()}

    def compiled(self, model: str) -> str:
        """The query of a model, as the last run that built it had it."""
        path = str(self.nodes()[model]["original_file_path"])
        return (self._target_path / "compiled" / "stageline" / path).read_text()

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.shutdown()

    def _invoke(self, arguments: list[str]) -> dict[str, tuple[str, str]]:
        """Status and message of each node."""
        if self._process is None:
            self._target_path.mkdir()
            if (self._parsed / _READING).exists():
                shutil.copy(self._parsed / _READING, self._target_path)
            self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self._call(["parse"])
        # Its files of the whole project hold what those of the parse do, and take longer than a
        # model.
        found = self._call(["--no-write-json", *arguments])
        assert found, f"{arguments} selects nothing"
        return found

    def _call(self, arguments: list[str]) -> dict[str, tuple[str, str]]:
        assert self._process is not None
        # What it would note of its own work is a tenth of that work.
        silent = ("--log-level", "none", "--log-level-file", "none")
        command = [*silent, *arguments, *self._folders]
        return self._process.submit(_invoke, command, dbt_environment()).result()


_READING = "partial_parse.msgpack"


def _invoke(command: list[str], environment: dict[str, str]) -> dict[str, tuple[str, str]]:
    """In the process of dbt: status and message of each node."""
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.main import dbtRunner

    os.environ.update(environment)
    done = dbtRunner(manifest=_read.get("manifest")).invoke(command)
    if isinstance(done.result, RunExecutionResult):
        return {
            result.node.name: (str(result.status), str(result.message))
            for result in done.result.results
        }
    assert done.success, str(done.exception)
    _read["manifest"] = done.result
    # What was read lives to the end: Python need not look through it again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20)
    return {}
