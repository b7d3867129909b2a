"""``jobs/retention.yml``: what is shipped is read, and mistakes are named by line."""

from datetime import timedelta
from pathlib import Path

import pytest

from jobs.retention import read
from stageline.config import PROJECT_ROOT
from stageline.errors import StagelineError

SHIPPED = PROJECT_ROOT / "jobs" / "retention.yml"


def test_history_and_snapshots_are_kept_a_while_and_no_backup_is_made_unless_a_folder_is_named(
    tmp_path: Path,
) -> None:
    shipped = read()
    assert (shipped.job_history, shipped.snapshots) == (timedelta(days=90), timedelta(days=365))
    assert shipped.backups is None

    text = SHIPPED.read_text()
    own = tmp_path / "own.yml"
    own.write_text(text.replace("folder: ", "folder: kept/here ").replace("1y ", "forever "))
    said = read(own)
    assert said.snapshots is None
    assert said.backups is not None
    assert said.backups.folder == PROJECT_ROOT / "kept/here"
    assert (said.backups.schedule, said.backups.zone.key, said.backups.keep) == (
        *("30 2 * * *", "UTC"),
        7,
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("90d", "3 months", "line 7, column 3: job_history: write days as 90d, years as 1y"),
        ("90d", "13d", "line 7, column 3: job_history: keep at least 14d, which costs of models"),
        ("90d", "0d", "line 7, column 3: job_history: write days as 90d, years as 1y"),
        ("1y", "", "line 8, column 3: snapshots: write days"),
        ("job_history", "jobs_history", "line 7, column 3: There is no key jobs_history here"),
        ("30 2 * * *", "30 2 * *", "'30 2 \\* \\*' is no cron line"),
        ("keep: 7", "keep: 0", "line 14, column 3: keep"),
        ("zone: UTC", "zone: Mars", "line 13, column 3: zone: no such time zone"),
    ],
)
def test_a_mistake_is_told_by_its_place(tmp_path: Path, before: str, after: str, said: str) -> None:
    path = tmp_path / "retention.yml"
    path.write_text(SHIPPED.read_text().replace(before, after))
    with pytest.raises(StagelineError, match=said) as told:
        read(path)
    assert "\n" not in str(told.value)
