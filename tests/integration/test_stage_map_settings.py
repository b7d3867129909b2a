"""``stageline settings``: the versioned stage map, the dictionaries and the log of changes."""

import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from stageline import config
from stageline.cli import main
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import dictionaries, files, projects, report_versions, stage_maps
from stageline.settings.canonical import majors, sub_stages
from stageline.settings.changes import audit, changing
from stageline.settings.dictionaries import GROUPS, STAGES
from stageline.settings.files import Form
from stageline.settings.rule_tables import FIRST_INSTANT
from stageline.settings.stage_maps import MapRow, Meaning

pytestmark = pytest.mark.usefixtures("two_shops")

SHOP = ("keycrm", "shop-1")
OTHER = ("keycrm", "shop-2")
BOUNDARIES = [key for major in majors() for key in (major.entry_sub_key, major.exit_sub_key)]


@pytest.fixture
def two_shops(database: object) -> None:  # noqa: ARG001 - the configured one
    for source, project in (SHOP, OTHER):
        projects.add(source, project)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["settings", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def error(*arguments: str) -> str:
    """What a command says that fails: one line."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    assert line.startswith("error: ")
    return line


def day(number: int) -> datetime:
    return datetime(2027, 3, 1, tzinfo=UTC) + timedelta(days=number)


def meaning(
    stage: str | None,
    sub_key: str = "LEAD.GENERATED",
    begins: int | None = None,
    ends: int | None = None,
    *,
    pipeline: str | None = None,
    project: tuple[str, str] = SHOP,
) -> Meaning:
    return Meaning(
        source_system=project[0],
        project_id=project[1],
        pipeline_id=pipeline,
        stage_id=stage,
        sub_key=sub_key,
        effective_from=FIRST_INSTANT if begins is None else day(begins),
        effective_to=None if ends is None else day(ends),
    )


def plain(rows: Sequence[Meaning]) -> set[tuple[object, ...]]:
    return {(*row.place, row.sub_key, row.effective_to, row.change_note) for row in rows}


def means(
    rows: Sequence[Meaning], project: tuple[str, str], pipeline: str, stage: str, at: datetime
) -> str | None:
    """The rule as the definition has it: of the rows in force, the one that names more."""
    fitting = [
        (row.stage_id is not None, row.pipeline_id is not None, row.sub_key)
        for row in rows
        if (row.source_system, row.project_id) == project
        and row.pipeline_id in (None, pipeline)
        and row.stage_id in (None, stage)
        and row.effective_from <= at
        and (row.effective_to is None or at < row.effective_to)
    ]
    return max(fitting)[2] if fitting else None


def published(*extra: Meaning) -> int:
    """A published version: stage s0 means the first boundary, s1 the second, and so on."""
    version = report_versions.create()
    for number, key in enumerate(BOUNDARIES):
        stage_maps.add(version, meaning(f"s{number}", key))
    for row in extra:
        stage_maps.add(version, row)
    report_versions.publish(version)
    return version


# Versions


def test_a_version_goes_from_draft_to_published_to_retired() -> None:
    assert "stageline settings versions create" in done("versions", "list")
    done("versions", "create", "First map")
    for number, key in enumerate(BOUNDARIES):
        where = ["--version", "1", "--project", *SHOP, "--stage", f"s{number}"]
        done("map", "add", key, *where)
    assert "stageline build" in done("versions", "publish", "1")
    assert "Version 2 is a draft" in done("versions", "clone", "1", "Next one")
    done("versions", "retire", "1")
    first, second = done("versions", "list").splitlines()[1:]
    assert re.search(r"^ +1 +First map +retired +14 +2\S+Z +2\S+Z$", first)
    assert re.search(r"^ +2 +Next one +draft +14 +1$", second)
    rows = stage_maps.rows()
    assert [row.sub_key for row in rows if row.report_version == 1] == [
        row.sub_key for row in rows if row.report_version == 2
    ]


def test_publishing_is_refused_until_every_major_stage_has_both_ends() -> None:
    version = report_versions.create()
    assert all(key in error("versions", "publish", "1") for key in BOUNDARIES)
    for number, key in enumerate(BOUNDARIES):
        lacking = error("versions", "publish", "1")
        assert re.findall(r"([A-Z]+\.[A-Z_]+) \((?:entry|exit) of", lacking) == BOUNDARIES[number:]
        # A row of any project, and one that has ended, too: events of its time need it.
        ends = 1 if number % 2 else None
        stage_maps.add(version, meaning(f"s{number}", key, ends=ends, project=OTHER))
    assert report_versions.missing(version) == []
    report_versions.publish(version)


def test_what_a_state_does_not_allow_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    version = published()
    retired = report_versions.clone(version)
    report_versions.publish(retired)
    report_versions.retire(retired)
    draft = report_versions.create()
    file = tmp_path / "map.csv"
    file.write_text(stage_maps.export(version, "csv"))
    row, old_row = (str(stage_maps.rows(number)[0].map_id) for number in (version, retired))
    before = stage_maps.rows()
    new = ["--project", *SHOP, "--stage", "x"]
    later = ["--from", "2027-03-01"]
    clone = "stageline settings versions clone"
    for arguments, said in (
        (["versions", "publish", "9"], "There is no version 9"),
        (["versions", "clone", "9"], "There is no version 9"),
        (["versions", "retire", "9"], "There is no version 9"),
        (["versions", "publish", str(version)], f"is published: only a draft .*{clone} 1"),
        (["versions", "publish", str(retired)], f"is retired: only a draft .*{clone} 2"),
        (["versions", "retire", str(draft)], "is draft: only a published one"),
        (["versions", "retire", str(retired)], "is retired: only a published one"),
        (["versions", "create", "a\nb"], "The title has to be one line"),
        (["map", "add", "MFG.STARTED", "--version", "9", *new], "There is no version 9"),
        (["map", "export", "9"], "There is no version 9"),
        (["map", "add", "MFG.STARTED", "--version", "1", *new], "its past is fixed"),
        (["map", "edit", row, "--sub-key", "MFG.STARTED"], f"its past is fixed.*{clone} 1"),
        (["map", "remove", row], "its past is fixed"),
        (["map", "import", "1", str(file)], "its past is fixed"),
        (["map", "add", "MFG.STARTED", "--version", "2", *new], "is retired and stays"),
        (["map", "edit", old_row, "--sub-key", "MFG.STARTED"], "is retired and stays"),
        (["map", "remove", old_row], "is retired and stays"),
        (["map", "change", old_row, "MFG.STARTED", *later], "is retired and stays"),
        (["map", "quick", "MFG.STARTED", "--version", "2", *new, *later], "is retired and stays"),
        (["map", "import", "2", str(file)], f"is retired and stays.*{clone} 2"),
    ):
        assert re.search(said, line := error(*arguments)), (line, arguments)
    assert stage_maps.rows() == before


def test_an_old_version_says_what_it_said_whatever_becomes_of_the_new_one() -> None:
    first = published(meaning("new", "MFG.STARTED", 0))
    before = plain(stage_maps.rows(first))
    second = report_versions.clone(first, "The pipelines were redesigned")
    for row in stage_maps.rows(second)[:7]:
        stage_maps.remove(row.map_id)
    for row in stage_maps.rows(second):
        stage_maps.edit(row.map_id, sub_key="LEAD.QUALIFIED")
    assert plain(stage_maps.rows(first)) == before


# Rows of the map


def test_rows_are_found_by_version_project_time_and_text() -> None:
    version = report_versions.create()
    for row in (
        meaning("20", "QUOTE.SENT", 0, 10),
        meaning("20", "ORDER.RECEIVED", 10),
        meaning("Пакування", "MFG.STARTED", project=OTHER, pipeline="5"),
    ):
        stage_maps.add(version, row)
    report_versions.clone(version)
    ids = [row.map_id for row in stage_maps.rows(version)]
    assert [row.map_id for row in stage_maps.rows(version, active_on=day(10))] == ids[1:]
    assert [row.map_id for row in stage_maps.rows(version, active_on=day(-1))] == ids[2:]
    assert [row.map_id for row in stage_maps.rows(version, text="пак")] == ids[2:]
    assert [row.map_id for row in stage_maps.rows(version, text="quote")] == ids[:1]
    assert stage_maps.rows(version, text="%") == []
    listed = done("map", "list", "--project", *OTHER, "--version", "1").splitlines()
    assert re.search(r"shop-2 +5 +Пакування +MFG.STARTED$", listed[1])
    assert re.search(
        r"shop-1 +every +20 +QUOTE.SENT +2027-03-01T00:00:00Z +2027-03-11T00:00:00Z$",
        done("map", "list", "--version", "1", "--on", "2027-03-05T12:00+02:00", "--text", "20"),
        re.MULTILINE,
    )
    assert "No row fits" in done("map", "list", "--version", "9")


def test_a_long_list_is_shown_and_exported_to_its_end(tmp_path: Path) -> None:
    version, size = report_versions.create(), 5_001
    with connect("owner") as session:
        session.execute(
            "insert into settings.stage_map_scd"
            " (report_version, source_system, project_id, stage_id, sub_key)"
            " select %s, %s, %s, n, 'MFG.STARTED' from generate_series(1, %s) as n",
            (version, *SHOP, size),
        )
    assert len(done("map", "list", "--version", str(version)).splitlines()) == 1 + size
    file = tmp_path / "map.csv"
    file.write_text(done("map", "export", str(version)))
    assert len(file.read_text().splitlines()) == 1 + size
    again = done("map", "import", str(version), str(file), "--dry-run")
    assert again.startswith(f"0 added, 0 changed, 0 removed, {size} unchanged.")


def test_a_status_id_means_in_each_project_what_that_one_says() -> None:
    version = report_versions.create()
    stage_maps.add(version, meaning("28", "MFG.STARTED"))
    stage_maps.add(version, meaning("28", "DELIVERY.COMPLETED", project=OTHER))
    rows = stage_maps.rows(version)
    assert [means(rows, project, "1", "28", day(0)) for project in (SHOP, OTHER)] == [
        "MFG.STARTED",
        "DELIVERY.COMPLETED",
    ]


def test_a_row_of_a_draft_is_edited_and_removed() -> None:
    version = report_versions.create()
    row = stage_maps.add(version, meaning(" 20 "))
    assert row.stage_id == "20"
    done("map", "edit", str(row.map_id), "--sub-key", "quote.sent", "--note", "A slip")
    done("map", "edit", str(row.map_id), "--from", "2027-03-01", "--until", "2027-03-02")
    (edited,) = stage_maps.rows(version)
    assert plain([edited]) == plain(
        [replace(meaning("20", "QUOTE.SENT", 0, 1), change_note="A slip")]
    )
    assert "Removed: row" in done("map", "remove", str(row.map_id))
    assert stage_maps.rows(version) == []


def test_a_row_that_does_not_fit_is_one_line_and_changes_nothing() -> None:
    version = report_versions.create()
    row = stage_maps.add(version, meaning("20", "QUOTE.SENT", 0, 10))
    follower = stage_maps.add(version, meaning("20", "ORDER.RECEIVED", 10))
    everywhere = stage_maps.add(version, meaning(None, "LEAD.QUALIFIED", 0, 10, pipeline="5"))
    before = stage_maps.rows()
    add = ["map", "add", "MFG.STARTED", "--version", "1"]
    twenty = [*add, "--project", *SHOP, "--stage", "20"]
    change = ["map", "change", str(row.map_id)]
    quick = ["map", "quick", "MFG.STARTED", "--version", "1", "--project", *SHOP]
    in_the_way = rf"In the way is row {row.map_id} \(stage 20 of keycrm shop-1 = QUOTE.SENT from"
    for arguments, said in (
        (twenty, in_the_way),
        ([*twenty, "--until", "2027-03-01T00:00:01"], in_the_way),
        ([*twenty, "--from", "2027-03-05", "--until", "2027-03-06"], in_the_way),
        ([*twenty, "--from", "2028-01-01"], f"In the way is row {follower.map_id} "),
        ([*add, "--project", *SHOP, "--pipeline", "5"], "In the way .*every stage of pipeline 5"),
        ([*twenty, "--from", "2027-03-02", "--until", "2027-03-02"], "end before it begins"),
        ([*twenty, "--from", "soon"], "is no instant"),
        ([*twenty, "--note", "a\nb"], "The note has to be one line"),
        ([*add, "--project", *SHOP, "--stage", " "], "The stage has to be 1 to 500 characters"),
        ([*add, "--project", *SHOP, "--stage", "a\x00"], "The stage has to be 1 to 500 characters"),
        ([*add, "--project", *SHOP, "--pipeline", "a" * 501], "The pipeline has to be"),
        ([*add, "--project", "keycrm", "shop-3"], "stageline projects add keycrm shop-3"),
        (["map", "add", "MFG.START", *twenty[3:]], "Near it: MFG.STARTED"),
        (["map", "edit", "999999"], "There is no row 999999 in the map"),
        (["map", "remove", "999999"], "There is no row 999999 in the map"),
        (["map", "change", "999999", "MFG.STARTED", "--from", "2027-03-01"], "There is no row"),
        (
            ["map", "edit", str(row.map_id), "--until", "2027-03-12"],
            f"In the way is row {follower.map_id} ",
        ),
        (["map", "edit", str(row.map_id), "--until", "2027-02-12"], "end before it begins"),
        ([*change, "MFG.STARTED", "--from", "2027-03-01"], "does not run on"),
        ([*change, "MFG.STARTED", "--from", "2027-03-11"], "does not run on"),
        ([*change, "MFG.STARTED", "--from", "2027-02-11"], "does not run on"),
        ([*change, "QUOTE.SENT", "--from", "2027-03-05"], "Nothing would change"),
        ([*change, "QUOTE", "--from", "2027-03-05"], "Near it: QUOTE"),
        ([*quick, "--stage", "20", "--from", "2027-03-05"], f"mapped by row {row.map_id} "),
        ([*quick, "--stage", "20", "--from", "2027-03-11"], f"by row {follower.map_id} "),
        (
            [*quick, "--stage", "x", "--pipeline", "5", "--from", "2027-03-05"],
            rf"mapped by row {everywhere.map_id} \(every stage of pipeline 5",
        ),
        # A row for the stage in every pipeline would win over the one for all of pipeline 5.
        ([*quick, "--stage", "x", "--from", "2027-03-05"], f"by row {everywhere.map_id} "),
    ):
        assert re.search(said, line := error(*arguments)), (line, arguments)
    assert stage_maps.rows() == before
    with pytest.raises(StagelineError, match="Name the one stage"):
        stage_maps.quick(version, meaning(None))


def test_only_rows_of_the_project_that_was_named_are_touched(tmp_path: Path) -> None:
    version = report_versions.create()
    mine = stage_maps.add(version, meaning("20"))
    for act in (
        lambda: stage_maps.edit(mine.map_id, sub_key="MFG.STARTED", project=OTHER),
        lambda: stage_maps.remove(mine.map_id, project=OTHER),
        lambda: stage_maps.change(mine.map_id, "MFG.STARTED", day(0), project=OTHER),
    ):
        with pytest.raises(StagelineError, match=f"no row {mine.map_id} of keycrm shop-2"):
            act()
    file = tmp_path / "map.csv"
    file.write_text("source_system,project_id,stage_id,sub_key\nkeycrm,shop-2,20,MFG.STARTED\n")
    done("map", "import", "1", str(file), "--project", *OTHER)
    done("map", "import", "1", str(file), "--project", *OTHER)
    assert "line 2: It is of keycrm shop-2" in error(
        "map", "import", "1", str(file), "--project", *SHOP
    )
    assert [row.sub_key for row in stage_maps.rows(version)] == ["LEAD.GENERATED", "MFG.STARTED"]
    assert done("map", "export", "1", "--project", *SHOP).count("\n") == 2


# Changes of a published version


def test_a_change_closes_one_row_and_opens_the_next_at_the_same_instant() -> None:
    version = published(meaning("x", "MFG.STARTED", 0, 20))
    row = stage_maps.rows(version, text="x", active_on=day(0))[-1]
    at = "2027-03-05T12:00:00+02:00"
    done("map", "change", str(row.map_id), "MFG.COMPLETED", "--from", at, "--note", "Redesign")
    first, second = (one for one in stage_maps.rows(version) if one.stage_id == "x")
    instant = datetime(2027, 3, 5, 10, tzinfo=UTC)
    assert (first.map_id, first.sub_key, first.effective_to) == (row.map_id, row.sub_key, instant)
    assert (second.sub_key, second.effective_from, second.effective_to, second.change_note) == (
        "MFG.COMPLETED",
        instant,
        day(20),
        "Redesign",
    )
    closed, opened = audit("stage_map_scd")[-2:]
    assert (closed.action, opened.action) == ("update", "insert")
    assert "does not run on" in error(
        "map", "change", str(row.map_id), "QUOTE.SENT", "--from", "2027-03-10"
    )


def test_no_event_that_was_mapped_changes_its_meaning_by_a_quick_map() -> None:
    """Random maps with wildcards and gaps: what was mapped stays, what was asked for is mapped."""
    dice = random.Random(7)  # noqa: S311 - no secret
    pipelines, stages, keys = ["1", "2"], ["a", "b"], [stage.sub_key for stage in sub_stages()]
    moments = [day(number) + timedelta(hours=12) for number in range(-1, 12)]
    mapped = refused = 0
    version = report_versions.create()
    for case in range(25):
        projects.add("keycrm", f"case-{case}")
        project = ("keycrm", f"case-{case}")
        for _ in range(dice.randint(0, 5)):
            begins = dice.randint(0, 9)
            candidate = meaning(
                dice.choice([None, *stages]),
                dice.choice(keys),
                begins,
                dice.choice([None, begins + dice.randint(1, 6)]),
                pipeline=dice.choice([None, *pipelines]),
                project=project,
            )
            try:
                stage_maps.add(version, candidate)
            except StagelineError:
                continue
        before = stage_maps.rows(version, project=project)
        asked = meaning(
            dice.choice(stages),
            dice.choice(keys),
            dice.randint(0, 9),
            pipeline=dice.choice([None, *pipelines]),
            project=project,
        )
        try:
            made = stage_maps.quick(version, asked)
        except StagelineError:
            refused += 1
            assert any(
                means(before, project, pipeline, str(asked.stage_id), asked.effective_from)
                for pipeline in pipelines
                if asked.pipeline_id in (None, pipeline)
            ), (asked, before)
            continue
        mapped += 1
        after = stage_maps.rows(version, project=project)
        for at in moments:
            for pipeline in pipelines:
                for stage in stages:
                    was = means(before, project, pipeline, stage, at)
                    now = means(after, project, pipeline, stage, at)
                    assert now == was or (was is None and now == asked.sub_key)
        for pipeline in pipelines:
            if asked.pipeline_id in (None, pipeline):
                assert means(after, project, pipeline, str(asked.stage_id), made.effective_from)
    assert mapped > 5 and refused > 5


def test_a_quick_map_of_every_pipeline_leaves_those_that_name_theirs_alone() -> None:
    own = meaning("x", "MFG.STARTED", pipeline="5")
    later = meaning(None, "QUOTE.SENT", 10)
    version = published(own, later)
    made = stage_maps.quick(version, meaning("x", "MFG.COMPLETED", 2))
    assert (made.effective_from, made.effective_to) == (day(2), day(10))
    rows = stage_maps.rows(version)
    for at, in_five, elsewhere in (
        (day(0), "MFG.STARTED", None),
        (day(2), "MFG.STARTED", "MFG.COMPLETED"),
        (day(10), "MFG.STARTED", "QUOTE.SENT"),
    ):
        assert means(rows, SHOP, "5", "x", at) == in_five
        assert means(rows, SHOP, "6", "x", at) == elsewhere


# Files


def random_map(dice: random.Random) -> list[Meaning]:
    """Rows that a draft can hold."""
    rows: list[Meaning] = []
    for project in (SHOP, OTHER):
        for stage in ("a", "b", None):
            for pipeline in ("1", None):
                cuts = sorted(dice.sample(range(20), dice.randint(0, 5)))
                for begins, ends in zip(cuts, [*cuts[1:], None], strict=False):
                    if dice.random() < 0.7:
                        row = meaning(
                            stage,
                            dice.choice(BOUNDARIES),
                            dice.choice([begins, None]) if begins == cuts[0] else begins,
                            ends,
                            pipeline=pipeline,
                            project=project,
                        )
                        rows.append(replace(row, change_note=dice.choice([None, "a, b", "Київ"])))
    return rows


def as_text(value: str | datetime | None) -> str | None:
    return str(value) if isinstance(value, datetime) else value


def test_an_import_makes_a_draft_equal_to_the_file(tmp_path: Path) -> None:
    dice = random.Random(3)  # noqa: S311 - no secret
    version = report_versions.create()
    forms: list[Form] = ["csv", "yaml"]
    for form in forms * 6:
        file = tmp_path / f"map.{form}"
        before, wanted = plain(stage_maps.rows(version)), random_map(dice)
        dice.shuffle(wanted)
        file.write_text(
            files.write(
                stage_maps.FIELDS,
                [[as_text(getattr(row, name)) for name in stage_maps.FIELDS] for row in wanted],
                form,
            )
        )
        tried = stage_maps.import_file(version, file, dry_run=True)
        assert plain(stage_maps.rows(version)) == before
        difference = stage_maps.import_file(version, file)
        assert difference == tried
        assert plain(stage_maps.rows(version)) == plain(wanted)
        assert len(wanted) == (
            difference.unchanged + len(difference.changed) + len(difference.added)
        )
        file.write_text(stage_maps.export(version, form))
        again = stage_maps.import_file(version, file)
        assert (again.added, again.changed, again.removed) == ([], [], [])


def test_a_dry_run_shows_the_difference_and_changes_nothing(tmp_path: Path) -> None:
    version = report_versions.create()
    gone = stage_maps.add(version, meaning("a"))
    changed = stage_maps.add(version, meaning("b", ends=3))
    stage_maps.add(version, meaning("c"))
    file = tmp_path / "map.yml"
    file.write_text(
        "- {source_system: keycrm, project_id: shop-1, stage_id: b, sub_key: quote.sent}\n"
        "- {source_system: keycrm, project_id: shop-1, stage_id: c, sub_key: LEAD.GENERATED}\n"
        "- {source_system: keycrm, project_id: shop-1, stage_id: 020, sub_key: MFG.STARTED}\n"
    )
    before = stage_maps.rows()
    shown = done("map", "import", "1", str(file), "--dry-run").splitlines()
    assert shown == [
        f"- row {gone.map_id} (stage a of keycrm shop-1 = LEAD.GENERATED)",
        f"~ row {changed.map_id} (stage b of keycrm shop-1 = LEAD.GENERATED until"
        " 2027-03-04T00:00:00Z): sub_key: LEAD.GENERATED -> QUOTE.SENT,"
        " effective_to: 2027-03-04 00:00:00+00:00 -> none",
        "+ stage 020 of keycrm shop-1 = MFG.STARTED",
        "1 added, 1 changed, 1 removed, 1 unchanged.",
        "Nothing was changed: the same command without --dry-run does it.",
    ]
    assert stage_maps.rows() == before
    assert done("map", "import", "1", str(file)).splitlines() == shown[:-1]
    assert [row.stage_id for row in stage_maps.rows(version)] == ["020", "b", "c"]


HEADER = "source_system,project_id,pipeline_id,stage_id,sub_key,effective_from,effective_to\n"
GOOD = "keycrm,shop-1,,new,MFG.STARTED,,\n"


def test_a_file_with_a_bad_line_is_refused_whole(tmp_path: Path) -> None:
    version = report_versions.create()
    stage_maps.add(version, meaning("20"))
    before, logged = stage_maps.rows(), len(audit())
    file = tmp_path / "map.csv"
    for lines, said in (
        (GOOD * 2, "line 3: It and line 2 say what the same stage means at the same time"),
        (GOOD + "keycrm,shop-1,,new,MFG.STARTED,2027-01-01,\n", "line 3: It and line 2 say"),
        (
            "keycrm,shop-1,,new,MFG.STARTED,2027-01-01,\n" + GOOD,
            "line 3: It and line 2 say",
        ),
        (
            "keycrm,shop-1,,20,MFG.STARTED,,\nkeycrm,shop-1,,20,QUOTE.SENT,2027-01-01,\n",
            "line 3: It and line 2 say",
        ),
        (GOOD + "keycrm,shop-3,,20,MFG.STARTED,,\n", "line 3: There is no project shop-3"),
        (GOOD + "keycrm,shop-1,,20,MFG.START,,\n", "line 3: There is no sub-stage 'MFG.START'"),
        (GOOD + "keycrm,shop-1,,20,,,\n", "line 3: sub_key is empty"),
        (GOOD + "keycrm,shop-1,,20,MFG.STARTED,soon,\n", "line 3: effective_from 'soon' is no"),
        (
            GOOD + "keycrm,shop-1,,20,MFG.STARTED,2027-01-02,2027-01-01\n",
            "line 3: It would end before it begins",
        ),
    ):
        file.write_text(HEADER + lines)
        for mode in ([], ["--dry-run"]):
            assert said in error("map", "import", "1", str(file), *mode), lines
    assert stage_maps.rows() == before
    assert len(audit()) == logged
    assert "cannot be read" in error("map", "import", "1", str(tmp_path / "none.csv"))


# Two at once


def test_of_two_sessions_that_add_the_same_key_one_is_refused() -> None:
    """The other one does not even go through our code: the database itself refuses."""
    version = report_versions.create()
    with connect("owner") as other, ThreadPoolExecutor(1) as pool:
        ((first,),) = other.execute(
            "insert into settings.stage_map_scd"
            " (report_version, source_system, project_id, stage_id, sub_key)"
            " values (1, 'keycrm', 'shop-1', '20', 'QUOTE.SENT') returning map_id"
        ).fetchall()
        second = pool.submit(stage_maps.add, version, meaning("20", "MFG.STARTED", 5))
        wait_for_a_waiting_session()
        other.commit()
        with pytest.raises(StagelineError, match=f"In the way is row {first} "):
            second.result(timeout=30)
    assert [row.sub_key for row in stage_maps.rows()] == ["QUOTE.SENT"]


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What each gives, or the error that it ends with."""

    def tried(act: Callable[[], object]) -> object:
        try:
            return act()
        except StagelineError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(tried, acts))


def test_of_two_changes_at_once_one_counts() -> None:
    version = published(meaning("x"))
    row = next(row for row in stage_maps.rows(version) if row.stage_id == "x")
    adding = report_versions.create()
    for _ in range(5):
        results = at_once(
            lambda: stage_maps.add(adding, meaning("y", "MFG.STARTED")),
            lambda: stage_maps.add(adding, meaning("y", "QUOTE.SENT", 3)),
        )
        assert sorted(isinstance(result, MapRow) for result in results) == [False, True]
        for added in stage_maps.rows(adding):
            stage_maps.remove(added.map_id)
    results = at_once(
        lambda: stage_maps.change(row.map_id, "MFG.STARTED", day(1)),
        lambda: stage_maps.change(row.map_id, "QUOTE.SENT", day(1)),
    )
    assert sorted(isinstance(result, MapRow) for result in results) == [False, True]
    assert at_once(report_versions.create, report_versions.create, report_versions.create)
    assert [row.report_version for row in report_versions.versions()] == [1, 2, 3, 4, 5]


def test_a_version_cannot_lose_a_boundary_while_it_is_published() -> None:
    version = report_versions.create()
    for number, key in enumerate(BOUNDARIES):
        stage_maps.add(version, meaning(f"s{number}", key))
    last = stage_maps.rows(version)[-1]
    with changing() as session, ThreadPoolExecutor(1) as pool:
        report_versions.lock(session, version)
        removal = pool.submit(stage_maps.remove, last.map_id)
        wait_for_a_waiting_session()
        session.execute(
            "update settings.report_versions set state = 'published', published_at = now()"
        )
        session.commit()
        with pytest.raises(StagelineError, match="its past is fixed"):
            removal.result(timeout=30)


def wait_for_a_waiting_session() -> None:
    with connect("owner", autocommit=True) as session:
        for _ in range(3000):
            ((waiting,),) = session.execute(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            ).fetchall()
            if waiting:
                return
            session.execute("select pg_sleep(0.01)")
    raise AssertionError("nobody waits")


# The log of changes


def test_a_change_is_logged_with_its_maker_in_the_same_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAGELINE_CHANGED_BY", "Olena")
    config.settings.cache_clear()
    version = report_versions.create("One", changed_by="Ivan")
    row = stage_maps.add(version, meaning("20"))
    stage_maps.edit(row.map_id, sub_key="QUOTE.SENT")
    stage_maps.edit(row.map_id, sub_key="QUOTE.SENT")
    stage_maps.remove(row.map_id)
    made, *logged = audit(since=report_versions.versions()[0].created_at)
    assert (made.changed_by, made.action, made.key) == ("Ivan", "insert", ["report_version"])
    assert [(entry.changed_by, entry.action) for entry in logged] == [
        ("Olena", "insert"),
        ("Olena", "update"),
        ("Olena", "delete"),
    ]
    _, updated, removed = logged
    assert updated.before is not None and updated.after is not None and removed.before is not None
    assert (updated.before["sub_key"], updated.after["sub_key"]) == ("LEAD.GENERATED", "QUOTE.SENT")
    assert (removed.before["map_id"], removed.after) == (row.map_id, None)
    shown = done("audit", "--table", "stage_map_scd", "--since", "2020-01-01").splitlines()
    assert re.search(
        rf"Olena +update +stage_map_scd +map_id: {row.map_id},"
        " sub_key: LEAD.GENERATED -> QUOTE.SENT$",
        shown[2],
    )
    assert "insert" in done("audit", "--table", "projects")
    assert "Nothing was changed" in done("audit", "--since", "2099-01-01")
    assert "No changes of a table 'x'" in error("audit", "--table", "x")
    with pytest.raises(StagelineError, match="The name of who changes"):
        report_versions.create(changed_by="a\nb")


def test_a_change_that_is_undone_leaves_no_trace_in_the_log() -> None:
    before = audit()
    with pytest.raises(psycopg.errors.DivisionByZero), changing("Ivan") as session:
        session.execute("insert into settings.report_versions (report_version) values (1)")
        logged = session.execute("select changed_by from settings.audit_log order by audit_id desc")
        assert logged.fetchone() == ("Ivan",)
        session.execute("select 1 / 0")
    assert audit() == before
    assert report_versions.versions() == []


# Dictionaries


def test_what_a_newer_list_no_longer_holds_keeps_its_name(tmp_path: Path) -> None:
    file = tmp_path / "statuses.csv"
    file.write_text("stage_id,name,group_id\n1,New,1\n20,In production,3\n")
    done("stages", "import", *SHOP, str(file))
    done("stages", "set", *SHOP, "20", "--alias", "Shop floor", "--position", "7", "--closing")
    file.write_text("stage_id,name\n20,Production\n30,Sent\n")
    shown = done("stages", "import", *SHOP, str(file), "--dry-run").splitlines()
    assert shown[:4] == [
        "- 1 (New)",
        "~ 20 (In production): name: In production -> Production",
        "+ 30 (Sent)",
        "1 added, 1 changed, 1 inactive, 0 unchanged.",
    ]
    assert [stage.name for stage in STAGES.entries(*SHOP)] == ["In production", "New"]
    assert done("stages", "import", *SHOP, str(file)).splitlines() == shown[:4]
    assert STAGES.entries(*SHOP) == [
        dictionaries.Stage(
            stage_id="20",
            name="Production",
            alias="Shop floor",
            group_id="3",
            position=7,
            is_closing=True,
        ),
        dictionaries.Stage(stage_id="30", name="Sent"),
        dictionaries.Stage(stage_id="1", name="New", group_id="1", is_active=False),
    ]
    assert "0 added, 0 changed, 0 inactive, 3 unchanged." in done(
        "stages", "import", *SHOP, str(file)
    )
    file.write_text("stage_id,name\n1,New again\n")
    done("stages", "import", *SHOP, str(file))
    assert [(stage.stage_id, stage.is_active) for stage in STAGES.entries(*SHOP)] == [
        ("1", True),
        ("20", False),
        ("30", False),
    ]
    assert STAGES.entries(*OTHER) == []
    assert re.search(r"^1 +New again +1 +no +yes$", done("stages", "list", *SHOP), re.MULTILINE)


def test_a_dictionary_that_was_exported_is_imported_as_it_was(tmp_path: Path) -> None:
    STAGES.put(*SHOP, "007", {"name": "no", "alias": "a, b", "pipeline_id": "1"})
    STAGES.put(*SHOP, "8", {"name": "Київ", "is_active": False, "is_closing": True, "position": 2})
    GROUPS.put(*SHOP, "1", {"name": "Cancelled", "kind": "cancelled"})
    for form, other in (("csv", "shop-2"), ("yaml", "shop-3")):
        projects.add("keycrm", other)
        for command in ("stages", "groups"):
            file = tmp_path / f"{command}.{form}"
            file.write_text(done(command, "export", *SHOP, "--format", form))
            assert "0 added, 0 changed, 0 inactive" in done(command, "import", *SHOP, str(file))
            done(command, "import", "keycrm", other, str(file))
        assert STAGES.entries("keycrm", other) == STAGES.entries(*SHOP)
        assert GROUPS.entries("keycrm", other) == GROUPS.entries(*SHOP)


def test_an_entry_that_does_not_fit_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    GROUPS.put(*SHOP, "1", {"name": "New"})
    before = audit()
    for command, content, said in (
        ("groups", "group_id,name,kind\n1,x,open\n2,y,shut\n", "line 3: 'shut' is no kind"),
        ("groups", "group_id,name\n1,x\n1,y\n", "line 3: 1 stands in line 2 already"),
        ("groups", "group_id,name,position\n1,x,first\n", "line 2: position 'first' is no whole"),
        ("stages", "stage_id,name,is_closing\n1,x,maybe\n", "line 2: is_closing 'maybe' is"),
        ("stages", "stage_id,name\n1,\n", "line 2: name is empty"),
        ("stages", f"stage_id,name\n{'1' * 501},x\n", "line 2: The stage has to be"),
    ):
        file.write_text(content)
        assert said in error(command, "import", *SHOP, str(file))
    assert "2 is new: give it a name" in error("groups", "set", *SHOP, "2", "--kind", "done")
    assert "stageline projects add keycrm shop-3" in error(
        "stages", "set", "keycrm", "shop-3", "1", "--name", "x"
    )
    assert audit() == before
    assert "Nothing is listed for keycrm shop-2" in done("groups", "list", *OTHER)
    assert re.search(r"^1 +New +open +yes$", done("groups", "list", *SHOP), re.MULTILINE)


# What is unmapped


def test_unmapped_stages_are_shown_and_end_with_a_failure() -> None:
    assert "No version of the stage map is published" in error("unmapped")
    version = published()
    draft = report_versions.create()
    assert "is not built. Run `stageline build`" in error("unmapped")
    assert f"There is no version {draft + 1}" in error("unmapped", "--version", str(draft + 1))
    assert f"Version {draft} is not published" in error("unmapped", "--version", str(draft))
    with connect("transformer") as session:  # as the models of these names have it
        session.execute("create table kpis.flow_stage_kpis (report_version integer)")
        session.execute(
            """
            create table kpis.unmapped_stage_events (
                report_version integer, source_system text, project_id text, pipeline_id text,
                stage_id text, event_count bigint, first_seen_at timestamptz,
                last_seen_at timestamptz, sample_entities text
            )
            """
        )
        session.execute(
            "grant select on kpis.unmapped_stage_events, kpis.flow_stage_kpis to stageline_reader"
        )
    assert f"Version {version} was published after the last build" in error("unmapped")
    with connect("transformer") as session:
        session.execute("insert into kpis.flow_stage_kpis values (%s)", [version])
    assert "Every stage that occurs is mapped" in done("unmapped")
    with connect("transformer") as session:
        session.execute(
            "insert into kpis.unmapped_stage_events values"
            " (%s, 'keycrm', 'shop-1', null, '31', 5, %s, %s, '7, 9')",
            [version, day(0), day(1)],
        )
    result = run("unmapped", "--version", str(version))
    assert result.exit_code == 1
    assert re.search(r"shop-1 +31 +5 +2027-03-01T00:00:00Z +2027-03-02T\S+ +7, 9", result.output)
    assert "1 stage is unmapped" in result.output
    quick = ["map", "quick", "MFG.STARTED", "--version", str(version), "--project", *SHOP]
    assert "Added: row" in done(*quick, "--stage", "31", "--from", "2027-03-01T00:00:00Z")


def test_every_command_explains_itself_with_an_example() -> None:
    for group, names in {
        "versions": ("list", "create", "clone", "publish", "retire"),
        "map": ("list", "add", "edit", "change", "remove", "quick", "import", "export"),
        "stages": ("list", "set", "import", "export"),
        "groups": ("list", "set", "import", "export"),
    }.items():
        for name in names:
            text = f"Example:\n      stageline settings {group} {name}"
            assert text in done(group, name, "--help")
    for name in ("audit", "canonical", "unmapped"):
        assert f"Example:\n      stageline settings {name}" in done(name, "--help")
