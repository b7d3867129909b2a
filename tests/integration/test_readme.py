"""What the README has a newcomer paste works, as far as it needs no whole build."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from stageline import config
from stageline.cli import main
from stageline.config import PROJECT_ROOT
from stageline.database import connect
from tests.fakes.crm_server import TOKEN
from tests.plain_postgres import free_port
from tests.warm_dbt import WarmDbt

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


def paste(
    typed: list[list[str]], patch: pytest.MonkeyPatch, build: Callable[[], None] = lambda: None
) -> None:
    """Types what needs no build; `ROW` is the number of the row that was listed last.

    Args:
        typed: From `lines`.
        patch: Sets what is exported.
        build: What is done in place of a build.
    """
    row = ""
    for command, *given in typed:
        words, file = given, ""
        if given[-2:-1] in ([">"], [">>"]):
            words, file = given[:-2], given[-1]
        if command == "printf":
            Path(file).write_text(words[0].replace("\\n", "\n"))
            continue
        if command == "export":
            for each in words:
                patch.setenv(*each.split("=", 1))
            config.settings.cache_clear()
            continue
        assert command == "stageline"
        if words == ["build"]:
            build()
        if any(words[: len(start)] == start for start in LEFT_OUT):
            continue
        if words[:2] == ["projects", "api"]:
            words = [*words, "--stdin"]  # there is no terminal that could ask
        words = [row if word == "ROW" else word for word in words]
        done = CliRunner().invoke(main, words, input=f"{TOKEN}\n")
        assert done.exit_code == 0, (words, done.output)
        if file:
            with Path(file).open("a" if ">>" in given else "w") as written:
                written.write(done.stdout)
            config.settings.cache_clear()
        if words[:3] == ["settings", "map", "list"]:
            row = done.stdout.splitlines()[1].split()[0]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the examples, in which files may be written."""
    (tmp_path / "docs").symlink_to(PROJECT_ROOT / "docs")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("database", "checkout")
def test_a_log_is_mapped_and_judged_by_pasting(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [
        *lines("README.md", "Map your stages"),
        *lines("README.md", "Set SLAs and working hours"),
    ]
    assert [words for words in typed if "build" in words] == [["stageline", "build"]] * 3
    paste(typed, monkeypatch)
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
def test_sales_are_made_up_by_pasting(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = lines("README.md", "Try the sales reports")
    made, *read = typed
    assert made == ["stageline", "generate", "sales"]
    assert [words[1] for words in read] == ["build", "plot", "plot", "psql"]
    paste([made], monkeypatch)
    with connect("owner") as session:
        ((leads,),) = session.execute("select count(*) from raw_files.leads")
    assert leads == 150


@pytest.mark.usefixtures("database", "checkout")
@pytest.mark.parametrize(
    "page",
    ["docs/map-your-stages.md", "docs/sla-and-working-hours.md", "docs/targets-and-alerts.md"],
)
def test_a_guide_can_be_pasted_from_its_beginning_to_its_end(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paste(lines(page), monkeypatch)


@contextmanager
def in_another_terminal(words: list[str]) -> Iterator[list[str]]:
    """A command that stays until it is stopped; gives the line to export that it prints."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *words], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        printed = iter(running.stdout.readline, "")
        try:
            yield shlex.split(next(line for line in printed if "export" in line))
        finally:
            running.kill()


@pytest.mark.usefixtures("database", "checkout")
def test_a_made_up_crm_is_loaded_by_pasting(dbt: WarmDbt, monkeypatch: pytest.MonkeyPatch) -> None:
    serve, *typed = lines("README.md", "Load from your CRM")
    # Where it listens by itself, somebody's own may listen already.
    port = str(free_port())
    with in_another_terminal([*serve, "--port", port]) as printed:
        (at,) = (place for place, words in enumerate(typed) if words[0] == "export")
        assert typed[at] == [word.replace(port, "8901") for word in printed]
        typed[at] = printed
        paste(typed, monkeypatch, build=lambda: dbt.run("+pipeline_as_of"))
    with connect("owner") as session:
        ((deals,),) = session.execute("select count(*) from kpis.pipeline_as_of")
        assert session.execute(
            "select crm_field from settings.field_map where source_system = 'hubspot'"
        ).fetchall() == [("branch",)]
        ((tokens,),) = session.execute("select count(*) from settings.api_accounts")
    assert deals > 100
    assert tokens == 1
    exported = json.loads((config.settings().output / "sales_pipeline.json").read_text())
    assert 0 < exported["total_leads"] <= deals
