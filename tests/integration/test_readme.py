"""What the README has a newcomer paste works, as far as it needs no build."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from stageline.cli import main
from stageline.config import PROJECT_ROOT
from stageline.database import connect

#: Commands that make a database, or read or make what a build makes.
LEFT_OUT = (["up"], ["build"], ["psql"], ["settings", "unmapped"], ["settings", "simulate"])


def lines(page: str, section: str = "") -> list[list[str]]:
    """What a page, or a section of it, has one type: word by word."""
    text = (PROJECT_ROOT / page).read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found: list[list[str]] = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        begun = ""
        for line in block.replace("\\\n", " ").splitlines():
            begun += f"{line}\n"
            try:
                words = shlex.split(begun, comments=True)
            except ValueError:  # a quotation that goes on
                continue
            found.append(words)
            begun = ""
        assert not begun
    return found


def paste(typed: list[list[str]]) -> None:
    """Types what needs no build; `ROW` is the number of the row that was listed last."""
    row = ""
    for command, *given in typed:
        words, file = given, ""
        if ">" in given:
            words, file = given[: given.index(">")], given[-1]
        if command == "printf":
            Path(file).write_text(words[0].replace("\\n", "\n"))
            continue
        assert command == "stageline"
        if any(words[: len(start)] == start for start in LEFT_OUT):
            continue
        done = CliRunner().invoke(main, [row if word == "ROW" else word for word in words])
        assert done.exit_code == 0, (words, done.output)
        if file:
            Path(file).write_text(done.stdout)
        if words[:3] == ["settings", "map", "list"]:
            row = done.stdout.splitlines()[1].split()[0]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the examples, in which files may be written."""
    (tmp_path / "docs").symlink_to(PROJECT_ROOT / "docs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("database", "checkout")
def test_a_log_is_mapped_and_judged_by_pasting() -> None:
    typed = [
        *lines("README.md", "Map your stages"),
        *lines("README.md", "Set SLAs and working hours"),
    ]
    assert [words for words in typed if "build" in words] == [["stageline", "build"]] * 3
    paste(typed)
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


@pytest.mark.usefixtures("database", "checkout")
@pytest.mark.parametrize("page", ["docs/map-your-stages.md", "docs/sla-and-working-hours.md"])
def test_a_guide_can_be_pasted_from_its_beginning_to_its_end(page: str) -> None:
    paste(lines(page))
