"""Reading files of rows: every kind, and what is wrong in them by line."""

import csv
import gzip
import io
import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaders import tabular
from loaders.mapping import Mapping
from loaders.tabular import Broken, open_rows
from stageline.errors import StagelineError

#: Kyiv in its own letters.
KYIV = "\u041a\u0438\u0457\u0432"


def read(path: Path, **mapping: Any) -> tuple[list[tuple[int, dict[str, Any]]], list[Broken]]:
    """All rows of ``path`` with their lines, and the lines that are none."""
    file = open_rows(path, Mapping(**mapping))
    rows, broken = [], []
    for batch in file.batches(file.columns):
        columns = {
            name: cells.to_pylist() if isinstance(cells, pa.Array) else cells
            for name, cells in batch.columns.items()
        }
        for index, line in enumerate(batch.lines):
            rows.append((line, {name: cells[index] for name, cells in columns.items()}))
        broken += batch.broken
    return rows, broken


def written(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "mapping"),
    [
        ("a,b\n1,x\n2,y\n", {}),
        ("\ufeffa,b\r\n1,x\r\n2,y", {}),
        ("a;b\n1;x\n2;y\n", {}),
        ("a\tb\n1\tx\n2\ty\n", {}),
        ("a|b\n1|x\n2|y\n", {}),
        ("sep=;\na;b\n1;x\n2;y\n", {}),
        (" a , b \n1,x\n2,y\n", {}),
        ("1,x\n2,y\n", {"columns": ["a", "b"]}),
        ("a~b\n'1'~x\n2~y\n", {"delimiter": "~", "quote": "'"}),
        ("a,b,\n1,x,\n2,y,\n", {"columns": []}),
        ("a\rb,".replace("\r", ",").strip(",") + "\r1,x\r2,y\r", {}),
    ],
)
def test_csv_in_its_many_shapes(tmp_path: Path, content: str, mapping: dict[str, Any]) -> None:
    rows, broken = read(written(tmp_path, content), **mapping)
    assert broken == []
    assert [(row["a"], row["b"]) for _, row in rows] == [("1", "x"), ("2", "y")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1251"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path, f"name,n\n{KYIV},1\n".encode(encoding))
    rows, _ = read(path, **({"encoding": encoding} if encoding == "cp1251" else {}))
    assert rows == [(2, {"name": KYIV, "n": "1"})]


def test_gzip_is_seen_by_its_content(tmp_path: Path) -> None:
    rows, _ = read(written(tmp_path, gzip.compress(b"a,b\n1,x\n"), "rows.csv"))
    assert rows == [(2, {"a": "1", "b": "x"})]


def test_broken_lines_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    content = 'a,b\n1,"two\nlines"\n2\n3,"never closed\n4,x\n5,"x"y\n\n6,x,z\n7,x,\n8,"ends'
    rows, broken = read(written(tmp_path, content))
    assert rows == [
        (2, {"a": "1", "b": "two\nlines"}),
        (6, {"a": "4", "b": "x"}),
        (10, {"a": "7", "b": "x"}),
    ]
    assert [(line.line, line.text) for line in broken] == [
        (4, "2"),
        (5, '3,"never closed'),
        (7, '5,"x"y'),
        (9, "6,x,z"),
        (11, '8,"ends'),
    ]
    assert "has 1 column, the header 2" in broken[0].reason
    assert "quote is opened" in broken[1].reason
    assert "closing quote is followed by text" in broken[2].reason
    assert "has 3 columns, the header 2" in broken[3].reason
    assert "never closed" in broken[4].reason


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path: Path) -> None:
    lines = ["a,b", *(f"{n},x" for n in range(5_000))]
    lines[100] = '99,"oops'
    rows, broken = read(written(tmp_path, "\n".join(lines)))
    assert len(rows) == 4_999
    assert [line.line for line in broken] == [101]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
            st.text(st.sampled_from('a,"\n\r; é'), max_size=6),
            st.just("x"),
        ),
        max_size=6,
    )
)
def test_what_csv_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, ...]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    found, broken = read(written(tmp_path, buffer.getvalue()), delimiter=",")
    assert broken == []
    assert [tuple(row.values()) for _, row in found] == rows


def test_rows_keep_their_lines_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "BATCH_ROWS", 7)
    content = "a,b\n" + "".join(f"{n},x\n" if n % 5 else f"{n}\n" for n in range(100))
    path = written(tmp_path, content)
    rows, broken = read(path)
    assert [(line, int(row["a"])) for line, row in rows] == [
        (n + 2, n) for n in range(100) if n % 5
    ]
    assert [line.line for line in broken] == [n + 2 for n in range(100) if not n % 5]
    file = open_rows(path, Mapping())
    texts = [batch.row_text(i) for batch in file.batches(["b"]) for i in range(len(batch.lines))]
    assert json.loads(texts[-1]) == {"a": "99", "b": "x"}


def test_json_lines_keep_every_digit(tmp_path: Path) -> None:
    content = (
        '{"id": 12345678901234567890, "amount": 0.10, "deal": {"stage": "won"}, "ok": true}\n'
        "\n"
        '{"id": "b", "amount": 1E2, "extra": [1.50]}\n'
        "{not json}\n"
        '{"id": NaN}\n'
        "[1]\n" + "[" * 100_000 + "\n"
    )
    rows, broken = read(written(tmp_path, content, "rows.jsonl"))
    first = {"id": "12345678901234567890", "amount": "0.10", "deal.stage": "won", "ok": "true"}
    assert rows == [
        (1, {**first, "extra": None}),
        (3, {"id": "b", "amount": "1E2", "deal.stage": None, "ok": None, "extra": '["1.50"]'}),
    ]
    assert [line.line for line in broken] == [4, 5, 6, 7]
    assert "is not JSON" in broken[0].reason
    assert "NaN is not JSON" in broken[1].reason
    assert "is not an object" in broken[2].reason


def test_parquet_keeps_types_and_counts_rows(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(["a", "b", None]).dictionary_encode(),
            "amount": pa.array([Decimal("1.10"), None, Decimal(2)], pa.decimal128(10, 2)),
            "raw": pa.array([b"x", b"\xff", None], pa.binary()),
            "wait": pa.array([timedelta(hours=1), None, None]),
            "tags": pa.array([["a"], [], None]),
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    rows, broken = read(path)
    assert broken == []
    assert [line for line, _ in rows] == [1, 2, 3]
    assert [row["amount"] for _, row in rows] == [Decimal("1.10"), None, Decimal("2.00")]
    assert (rows[0][1]["wait"], rows[0][1]["tags"]) == ('"1:00:00"', '["a"]')
    assert rows[1][1]["raw"] == "\udcff"  # not text: refused where a field wants it


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"  \n\n", "nothing but blanks"),
        ("a.csv", b",,\n1,2,3\n", "names no column"),
        ("a.csv", b"a,a\n1,2\n", "two columns named 'a'"),
        ("a.csv", b"\x7fELF\x02\x01\x01\0\0\0\0\0", "not a text file"),
        ("a.csv", b"caf\xe9,b\n1,2\n", "the header is not UTF-8"),
        ("a.xlsx", b"PK\x03\x04....", "spreadsheet or zip"),
        ("a.parquet", b"a,b\n1,2\n", "not a Parquet file"),
        ("a.parquet", b"PAR1 but no more", "not a readable Parquet file"),
        ("a.json", b'[{"a": 1}]', "one JSON array"),
        ("a.jsonl", b"nothing\n", "no JSON object"),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 99, mtime=0)[:20], "cut off or damaged"),
    ],
)
def test_files_that_cannot_be_read_say_why(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(StagelineError) as raised:
        read(written(tmp_path, content, name))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StagelineError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(StagelineError, match="is a folder"):
        read(tmp_path)


def test_a_file_cut_off_in_the_middle_ends_the_reading(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{n},{n * 7919 % 99991}\n" for n in range(200_000)).encode())
    path = written(tmp_path, whole[: len(whole) // 2], "rows.csv.gz")
    with pytest.raises(StagelineError, match="cut off or damaged"):
        read(path, columns=["a", "b"])
