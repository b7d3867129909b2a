"""Settings in files: lists of rows as CSV or YAML, which people edit and keep in git."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import yaml

from stageline.errors import StagelineError

Form = Literal["csv", "yaml"]


@dataclass(frozen=True)
class FileRow:
    """A row of a file.

    Attributes:
        path, line: Where it stands.
        cells: Text by field; None for an empty one. Fields that the file leaves out are not here.
    """

    path: Path
    line: int
    cells: dict[str, str | None]

    def error(self, problem: object) -> StagelineError:
        """The error for a problem with this row."""
        return StagelineError(f"{self.path}, line {self.line}: {problem}")

    def needed(self, field: str) -> str:
        """The text of a field that has to have one.

        Raises:
            StagelineError: it has none.
        """
        text = self.cells.get(field)
        if text is None:
            raise self.error(f"{field} is empty, and is needed.")
        return text

    def instant(self, field: str) -> datetime | None:
        """The instant of a field, in UTC; None where there is none.

        Raises:
            StagelineError: it is no instant.
        """
        text = self.cells.get(field)
        if text is None:
            return None
        try:
            found = datetime.fromisoformat(text)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.error(
                f"{field} {text!r} is no instant."
                " Write 2027-03-01 (in UTC) or 2027-03-01T18:00:00+02:00."
            ) from None

    def number(self, field: str) -> int | None:
        """The whole number of a field; None where there is none.

        Raises:
            StagelineError: it is none, or too long a one.
        """
        text = self.cells.get(field)
        if text is None:
            return None
        try:
            found = int(text)
        except ValueError:
            found = 2**31
        if not -(2**31) <= found < 2**31:
            raise self.error(f"{field} {text!r} is no whole number below two billion.")
        return found

    def truth(self, field: str, default: bool) -> bool:
        """Yes or no, as ``true``, ``yes``, ``1`` and their opposites say it.

        Raises:
            StagelineError: it is something else.
        """
        text = self.cells.get(field)
        if text is None:
            return default
        if text.casefold() in {"true", "yes", "1"}:
            return True
        if text.casefold() in {"false", "no", "0"}:
            return False
        raise self.error(f"{field} {text!r} is neither true nor false.")


def read(path: Path, fields: Sequence[str], needed: Sequence[str]) -> list[FileRow]:
    """The rows of a file: YAML if its name ends so (a list of mappings), else CSV with a header.

    Every cell is the text that stands there (``007``, ``no``), without blanks around it.

    Args:
        path: The file.
        fields: What a row can hold.
        needed: What it has to hold.

    Raises:
        StagelineError: the file cannot be read, or a row does not have this shape.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise StagelineError(f"{path} cannot be read: {reason}.") from None
    is_yaml = path.suffix.lower() in {".yml", ".yaml"}
    rows = _yaml_rows(path, text) if is_yaml else _csv_rows(path, text)
    for row in rows:
        for name in row.cells:
            if name not in fields:
                near = get_close_matches(name, fields, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise row.error(f"There is no field {name!r}.{hint} There are: {', '.join(fields)}")
        for name in needed:
            row.needed(name)
    return rows


def write(
    fields: Sequence[str], rows: Sequence[Sequence[str | int | bool | None]], form: Form
) -> str:
    """Rows as the text of a file, which `read` takes as it is."""
    if form == "yaml":
        return "".join(
            yaml.safe_dump(
                [dict(zip(fields, row, strict=True))],
                allow_unicode=True,
                default_flow_style=None,
                sort_keys=False,
                width=2**31,  # a row a line, so that a difference shows what was changed
            )
            for row in rows
        )
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: str | int | bool | None) -> str | int | None:
    return str(value).lower() if isinstance(value, bool) else value


def _csv_rows(path: Path, text: str) -> list[FileRow]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # spreadsheets of many countries write semicolons
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[FileRow] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise FileRow(path, 1, {}).error("A column stands there twice.")
        end = reader.line_num
        for cells in reader:
            row = FileRow(path, end + 1, dict(zip(header, map(_plain, cells), strict=False)))
            end = reader.line_num
            if not any(_plain(cell) for cell in cells):
                continue
            if len(cells) != len(header):
                raise row.error(f"It has {len(cells)} cells, the header {len(header)}.")
            rows.append(row)
    except csv.Error as error:
        raise FileRow(path, reader.line_num, {}).error(f"This is no CSV: {error}.") from None
    return rows


def _yaml_rows(path: Path, text: str) -> list[FileRow]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        raise FileRow(path, line, {}).error(f"This is no YAML: {reason}.") from None
    if root is None:
        return []
    items = root.value if isinstance(root, yaml.SequenceNode) else [root]
    return [_yaml_row(path, item) for item in items]


def _yaml_row(path: Path, node: yaml.Node) -> FileRow:
    row = FileRow(path, node.start_mark.line + 1, {})
    if not isinstance(node, yaml.MappingNode):
        raise row.error("A row is written `- {field: value, field: value}`.")
    for key, value in node.value:
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            raise row.error("A field has one value, which is no list.")
        if key.value in row.cells:
            raise row.error(f"{key.value} stands there twice.")
        is_nothing = value.tag == "tag:yaml.org,2002:null"
        row.cells[key.value] = None if is_nothing else _plain(value.value)
    return row


def _plain(cell: str) -> str | None:
    return cell.strip() or None
