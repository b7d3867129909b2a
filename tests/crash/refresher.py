"""Builds a dbt project again and again, whatever happens to its builds.

Run as ``python -m tests.crash.refresher <folder of the project>``; with ``--once`` after it, it
builds once, and fails if that does.
"""

import sys
import time
from pathlib import Path

import psycopg

from jobs.build import build
from stageline.errors import StagelineError

#: Seconds until the next build after one that failed.
_REST = 0.1

if __name__ == "__main__":
    if "--once" in sys.argv:
        build(project=Path(sys.argv[1]))
        sys.exit()
    while True:
        try:
            build(project=Path(sys.argv[1]))
        except (StagelineError, psycopg.Error):
            time.sleep(_REST)
