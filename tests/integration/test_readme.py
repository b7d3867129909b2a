"""What the README has a newcomer paste works, as far as it needs no build."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from stageline.cli import main
from stageline.config import PROJECT_ROOT
from stageline.database import connect

#: Commands that read, or make, what a build makes.
NEEDS_BUILD = (["build"], ["psql"], ["settings", "unmapped"])


def commands(section: str) -> list[list[str]]:
    """The commands of a section, without `stageline` itself."""
    text = (PROJECT_ROOT / "README.md").read_text().partition(f"\n## {section}\n")[2]
    blocks = re.findall(r"```sh\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    found: list[list[str]] = []
    for block in blocks:
        for word in shlex.split(block.replace("\\\n", " "), comments=True):
            if word == "stageline":
                found.append([])
            else:
                found[-1].append(word)
    return found


@pytest.mark.usefixtures("database")
def test_a_log_is_mapped_and_judged_by_pasting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").symlink_to(PROJECT_ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    pasted = [*commands("Map your stages"), *commands("Set SLAs and working hours")]
    assert [words for words in pasted if words[0] == "build"] == [["build"]] * 3
    for words in pasted:
        if not any(words[: len(start)] == start for start in NEEDS_BUILD):
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, (words, done.output)
    with connect("owner") as session:
        ((unmapped, events),) = session.execute(
            "select count(*) filter (where sub_key is null), count(*)"
            " from raw_files.stage_events as events left join settings.stage_map_scd as map"
            " on events.stage_id = map.stage_id and events.entered_at >= map.effective_from"
        )
        assert session.execute(
            "select count(*) from settings.report_versions where state = 'published'"
        ).fetchall() == [(1,)]
    assert (unmapped, events) == (0, 458)
