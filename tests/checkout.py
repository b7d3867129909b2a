"""A copy of the checkout, in which nothing was ever started, and the command run in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from stageline.config import PROJECT_ROOT

#: What of the checkout a copy needs to run.
PARTS = (
    *("stageline", "loaders", "jobs", "webhook_receiver"),
    *("models", "macros", "seeds", "snapshots", "tests/data"),
)


class Said(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


def copy(folder: Path) -> None:
    """Copies the checkout to a folder that is not there yet."""
    for part in PARTS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT_ROOT / part, folder / part, ignore=ignored)
    for file in PROJECT_ROOT.glob("*.yml"):
        shutil.copy(file, folder)


def stageline(checkout: Path, *arguments: str, **variables: str) -> Said:
    """Runs ``stageline`` as somebody does who stands in the folder; it has to succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "stageline", *arguments],
        cwd=checkout,
        env={**os.environ, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Said(done.stdout, done.stderr)
