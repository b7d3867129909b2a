"""A dbt that stays: a process of its own reads the project once, and runs it many times.

For tests that run some models many times. A build that has to prove itself is `jobs.build`.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jobs.build import dbt_environment
from stageline.config import PROJECT_ROOT

#: What the process of dbt has read.
_read: dict[str, Any] = {}


class WarmDbt:
    """dbt on our project and the database that the environment names.

    Args:
        target_path: Its folder; made of what another dbt left of its reading in ``parsed``.
    """

    def __init__(self, target_path: Path, parsed: Path) -> None:
        target_path.mkdir()
        shutil.copy(parsed / "partial_parse.msgpack", target_path)
        self._folders = (
            *("--project-dir", str(PROJECT_ROOT), "--profiles-dir", str(PROJECT_ROOT)),
            *("--target-path", str(target_path), "--log-path", str(target_path)),
        )
        self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._invoke(["parse"])

    def run(self, *select: str, variables: Mapping[str, str], full_refresh: bool = False) -> None:
        """Runs models; any that fails is an error."""
        self._invoke(
            [
                *("run", "--select", *select, "--vars", json.dumps(dict(variables))),
                *(("--full-refresh",) if full_refresh else ()),
            ]
        )

    def end(self) -> None:
        """Ends the process."""
        self._process.shutdown()

    def _invoke(self, arguments: Sequence[str]) -> None:
        command = ["--log-level", "none", *arguments, *self._folders]
        failed = self._process.submit(_invoke, command, dbt_environment()).result()
        assert not failed, "\n".join(failed)


def _invoke(command: list[str], environment: dict[str, str]) -> list[str]:
    """What failed, in the process of dbt."""
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.main import dbtRunner

    os.environ.update(environment)
    done = dbtRunner(manifest=_read.get("manifest")).invoke(command)
    if isinstance(done.result, RunExecutionResult):
        return [
            f"{result.node.name}: {result.message}"
            for result in done.result.results
            if result.status not in ("success", "no-op")
        ]
    _read["manifest"] = done.result
    return [] if done.success else [str(done.exception)]
