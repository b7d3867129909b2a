"""Files of settings: every cell as it stands there, every mistake with its line."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from stageline.errors import StagelineError
from stageline.settings import files

FIELDS = ("stage_id", "name", "position", "is_active", "since")


def read(folder: Path, name: str, content: str | bytes) -> list[files.FileRow]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return files.read(path, FIELDS, ("stage_id", "name"))


def cells(rows: list[files.FileRow]) -> list[dict[str, str | None]]:
    return [row.cells for row in rows]


@pytest.mark.parametrize(
    "content",
    [
        "stage_id,name\n007, no \nnull,\n",
        "\ufeffstage_id;name\r\n007;no\r\n\r\nnull;\r\n",
        "stage_id\tname\n007\tno\nnull\t\n",
        'stage_id,name\n"007","no"\n"null",""\n',
    ],
)
def test_a_cell_of_csv_is_the_text_that_stands_there(tmp_path: Path, content: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(content, encoding="utf-8", newline="")
    assert cells(files.read(path, FIELDS, ("stage_id",))) == [
        {"stage_id": "007", "name": "no"},
        {"stage_id": "null", "name": None},
    ]


def test_a_value_of_yaml_is_the_text_that_stands_there(tmp_path: Path) -> None:
    content = "- stage_id: 007\n  name: no\n- {stage_id: 'null', name: '1e3', position: null}\n"
    assert cells(read(tmp_path, "list.yml", content)) == [
        {"stage_id": "007", "name": "no"},
        {"stage_id": "null", "name": "1e3", "position": None},
    ]
    assert read(tmp_path, "list.yaml", "") == []


@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_what_is_written_is_read_as_it_was(tmp_path: Path, form: files.Form) -> None:
    texts = ["007", "null", "~", "no", '"', "a, b; c", "- x: {y}", "Київ", "#1", "=1+1", "a\xa0b"]
    rows = [(text, text, 1, True, None) for text in texts]
    written = files.write(FIELDS, rows, form)
    assert cells(read(tmp_path, f"list.{form}", written)) == [
        {"stage_id": text, "name": text, "position": "1", "is_active": "true", "since": None}
        for text in texts
    ]
    assert len(written.splitlines()) == len(rows) + (form == "csv"), "a row a line"


WRONG: list[tuple[str, str | bytes, str]] = [
    ("list.csv", "stage_id,nam\n1,x\n", "line 2: There is no field 'nam'. Did you mean name?"),
    ("list.csv", "stage_id\n1\n", "line 2: name is empty"),
    ("list.csv", "stage_id,name\n\n1,x\n2\n", "line 4: It has 1 cells, the header 2."),
    ("list.csv", 'stage_id,name\n1,"a\nb"\n,x\n', "line 4: stage_id is empty"),
    ("list.csv", "stage_id,name,name\n1,x,y\n", "line 1: A column stands there twice."),
    ("list.csv", 'stage_id,name\n1,"x\n', "This is no CSV"),
    ("list.csv", "stage_id,name\n1,ї\n".encode("cp1251"), "it is not text in UTF-8"),
    ("list.yml", "- stage_id: 1\n  name: [x]\n", "line 1: A field has one value"),
    ("list.yml", "- stage_id: 1\n- x\n", "line 2: A row is written"),
    ("list.yml", "- stage_id: 1\n  stage_id: 2\n", "line 1: stage_id stands there twice."),
    ("list.yml", "- stage_id: 1\n\n- {name\n", "This is no YAML"),
]


@pytest.mark.parametrize(("name", "content", "said"), WRONG)
def test_a_mistake_is_one_line_that_names_its_own(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(StagelineError) as caught:
        read(tmp_path, name, content)
    assert said in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StagelineError, match="No such file"):
        files.read(tmp_path / "none.csv", FIELDS, ())


def row(**values: str | None) -> files.FileRow:
    return files.FileRow(Path("list.csv"), 2, values)


def test_values_of_other_types_are_read() -> None:
    assert row(since="2027-03-01T02:00:00+02:00").instant("since") == datetime(
        2027, 3, 1, tzinfo=UTC
    )
    assert row(since="2027-03-01").instant("since") == datetime(2027, 3, 1, tzinfo=UTC)
    assert row(since=None).instant("since") is None
    assert [row(position=text).number("position") for text in ("-3", None)] == [-3, None]
    assert [row(x=text).truth("x", True) for text in ("No", "1", None)] == [False, True, True]


def test_values_that_do_not_fit_their_type_are_told() -> None:
    for text in ("soon", "0001-01-01T00:00:00+05:00", "2027-02-30"):
        with pytest.raises(StagelineError, match=r"list\.csv, line 2: since .* is no instant"):
            row(since=text).instant("since")
    for text in ("1.5", "2147483648", "x"):
        with pytest.raises(StagelineError, match="is no whole number"):
            row(position=text).number("position")
    with pytest.raises(StagelineError, match="neither true nor false"):
        row(x="maybe").truth("x", True)
