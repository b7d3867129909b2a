"""All settings that judge the orders, deals and reps of projects, as one YAML document, and back.

A document holds projects, each with sections. What a section of the file says is all that there is:
rows that it leaves out are removed. A section that the file does not have is left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.alert_thresholds import ALERT_THRESHOLDS, read_threshold
from stageline.settings.changes import changing
from stageline.settings.cycle_rules import CYCLES, step_columns, written_step
from stageline.settings.dictionaries import GROUPS, STAGES
from stageline.settings.durations import read_duration, written_duration
from stageline.settings.field_map import FIELD_MAP
from stageline.settings.files import FileRow
from stageline.settings.flow_metrics import METRICS, point_columns, written_point
from stageline.settings.numbers import written_number
from stageline.settings.order_overrides import OVERRIDES
from stageline.settings.projects import projects
from stageline.settings.rule_tables import (
    FIRST_DAY,
    FIRST_INSTANT,
    DatedSetting,
    ProjectKey,
    Session,
    SettingTable,
    lock,
    written_moment,
    zone,
)
from stageline.settings.sales_targets import TARGETS, read_subject, read_target, written_subject
from stageline.settings.sla_rules import LIMITS, THRESHOLDS, WAITING, read_share
from stageline.settings.urgent_rules import URGENT_RULES
from stageline.settings.working_hours import CALENDARS, DAYS, read_day
from stageline.settings.working_weeks import DAYS as WEEKDAYS
from stageline.settings.working_weeks import read_week, read_weekday, written_week

#: A cell of an entry; None = the entry leaves it out.
Cell = str | int | bool | None
Entry = dict[str, Cell]


@dataclass(frozen=True)
class Field:
    """A field of the entries of a section.

    Attributes:
        name: What the file calls it.
        write: Its cell for a row; None leaves it out.
        read: The columns that its cell fills.
        is_needed: Whether each entry has to have it.
    """

    name: str
    write: Callable[[Any], Cell]
    read: Callable[[FileRow, str], Mapping[str, Any]]
    is_needed: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a project: its name in the file, its table, and the fields of its entries."""

    name: str
    table: SettingTable[Any]
    fields: Sequence[Field]


@dataclass(frozen=True)
class Change:
    """A row that an import adds (no ``before``), removes (no ``after``) or changes."""

    project: ProjectKey
    section: str
    before: Entry | None
    after: Entry | None


def export(only: ProjectKey | None = None) -> str:
    """The settings of a project, or of all of them, as YAML.

    Raises:
        StagelineError: there is no such project.
    """
    keys = [ProjectKey(each.source_system, each.project_id) for each in projects()]
    document = []
    with connect("owner") as session:
        session.execute("set transaction isolation level repeatable read")
        if only is not None:
            zone(session, only)
        for key in keys if only is None else [only]:
            sections = {
                section.name: [_entry(section, row) for row in section.table.rows(session, key)]
                for section in SECTIONS
            }
            document.append({"source": key.source_system, "project": key.project_id, **sections})
    return yaml.safe_dump(
        {"projects": document},
        allow_unicode=True,
        default_flow_style=None,
        sort_keys=False,
        width=2**31,  # a row a line, so that a difference shows what was changed
    )


def import_file(
    path: Path, *, dry_run: bool = False, changed_by: str | None = None
) -> list[Change]:
    """Makes the settings equal to those of a file, all or nothing; gives what changes.

    Raises:
        StagelineError: the file cannot be read, or its settings cannot be, with the line.
    """
    document = _read(path)
    found: list[Change] = []
    with changing(changed_by) as session:
        for key in sorted(document):  # in one order, so that two imports cannot wait for each other
            lock(session, key)
        for key, sections in document.items():
            for section, lines in sections:
                found += _make_equal(session, key, section, lines)
        if dry_run:
            session.rollback()
    return found


def _make_equal(
    session: Session, project: ProjectKey, section: Section, lines: Sequence[FileRow]
) -> list[Change]:
    table = section.table
    before = {_place(table, row): row for row in table.rows(session, project)}
    after: dict[tuple[Any, ...], tuple[FileRow, Any]] = {}
    for line in lines:
        row = _row(section, line)
        place = _place(table, row)
        if place in after:
            raise line.error(f"It says again what line {after[place][0].line} says.")
        after[place] = (line, row)
    gone = [row for place, row in before.items() if place not in after]
    for row in gone:
        table.delete(session, project, row)
    changed = []
    for place, (line, row) in after.items():
        was = before.get(place)
        if isinstance(was, DatedSetting):
            row = replace(row, row_id=was.row_id)
        if was != row:
            changed.append((line, was, row))
    changed.sort(key=lambda each: _turn(each[1], each[2]))
    for line, was, row in changed:
        try:
            (table.insert if was is None else table.update)(session, project, row)
        except StagelineError as error:
            raise line.error(error) from None
    return [
        *(Change(project, section.name, _entry(section, row), None) for row in gone),
        *(
            Change(
                project,
                section.name,
                None if was is None else _entry(section, was),
                _entry(section, row),
            )
            for _, was, row in changed
        ),
    ]


def _turn(was: Any, row: Any) -> int:
    """When a change is made: what ceases to be the default makes room for what becomes it, and new
    rows fill what others left.
    """
    if was is None:
        return 2
    return int(getattr(row, "is_default", False)) - int(getattr(was, "is_default", False))


def _place(table: SettingTable[Any], row: Any) -> tuple[Any, ...]:
    """What no two rows of a project's table have in common."""
    return tuple(getattr(row, name) for name in table.order)


def _entry(section: Section, row: Any) -> Entry:
    cells = {field.name: field.write(row) for field in section.fields}
    return {name: cell for name, cell in cells.items() if cell is not None}


def _row(section: Section, line: FileRow) -> Any:
    names = [field.name for field in section.fields]
    for name in line.cells:
        if name not in names:
            raise line.error(f"{section.name} has no field {name!r}. It has {', '.join(names)}.")
    columns: dict[str, Any] = {}
    for field in section.fields:
        if field.is_needed:
            line.needed(field.name)
        if line.cells.get(field.name) is not None:
            try:
                columns |= field.read(line, field.name)
            except StagelineError as error:
                said = str(error)
                raise (error if said.startswith(f"{line.path}, ") else line.error(said)) from None
    return section.table.row_type(**columns)


def _text(name: str, column: str, *, is_needed: bool = False, unless: str | None = None) -> Field:
    return Field(
        name,
        lambda row: None if getattr(row, column) == unless else getattr(row, column),
        lambda line, cell: {column: line.cells[cell]},
        is_needed,
    )


def _truth(name: str, column: str, unless: bool | None) -> Field:
    return Field(
        name,
        lambda row: None if getattr(row, column) is unless else getattr(row, column),
        lambda line, cell: {column: line.truth(cell, False)},
    )


def _number(name: str, column: str) -> Field:
    return Field(
        name,
        lambda row: getattr(row, column),
        lambda line, cell: {column: line.number(cell)},
    )


def _exact(name: str, column: str, read: Callable[[str], Decimal]) -> Field:
    return Field(
        name,
        lambda row: written_number(getattr(row, column)),
        lambda line, cell: {column: read(line.needed(cell))},
        is_needed=True,
    )


def _duration(name: str, column: str, *, is_needed: bool = False) -> Field:
    def write(row: Any) -> Cell:
        seconds = getattr(row, column)
        return None if seconds is None else written_duration(seconds)

    return Field(
        name,
        write,
        lambda line, cell: {column: read_duration(line.needed(cell), f"{cell}:")},
        is_needed,
    )


def _moment(
    name: str, column: str, first: date | None, read: Callable[[FileRow, str], date | None]
) -> Field:
    return Field(
        name,
        lambda row: (
            None if getattr(row, column) in (None, first) else written_moment(getattr(row, column))
        ),
        lambda line, cell: {column: read(line, cell)},
    )


def _step(name: str, column: str, *, is_needed: bool = False) -> Field:
    return Field(
        name,
        lambda row: written_step(
            getattr(row, f"{column}_group_id"), getattr(row, f"{column}_stage_id")
        ),
        lambda line, cell: step_columns(column, line.needed(cell)),
        is_needed,
    )


def _point(name: str) -> Field:
    return Field(
        name,
        lambda row: written_point(
            getattr(row, f"{name}_pipeline_id"),
            getattr(row, f"{name}_stage_id"),
            getattr(row, f"{name}_sub_key"),
        ),
        lambda line, cell: point_columns(name, line.needed(cell)),
        is_needed=True,
    )


def _day(line: FileRow, cell: str) -> date:
    return read_day(line.needed(cell))


_VALIDITY = (
    _moment("from", "effective_from", FIRST_INSTANT, FileRow.instant),
    _moment("to", "effective_to", None, FileRow.instant),
)
_DAYS_OF_VALIDITY = (
    _moment("from", "effective_from", FIRST_DAY, _day),
    _moment("to", "effective_to", None, _day),
)
_NOTE = _text("note", "note")

SECTIONS = (
    Section(
        "groups",
        GROUPS,
        (
            _text("group", "group_id", is_needed=True),
            _text("name", "name", is_needed=True),
            _text("kind", "kind", unless="open"),
            _number("position", "position"),
            _truth("active", "is_active", unless=True),
        ),
    ),
    Section(
        "stages",
        STAGES,
        (
            _text("stage", "stage_id", is_needed=True),
            _text("name", "name", is_needed=True),
            _text("group", "group_id"),
            _text("pipeline", "pipeline_id"),
            _text("alias", "alias"),
            _number("position", "position"),
            _truth("closing", "is_closing", unless=False),
            _truth("active", "is_active", unless=True),
        ),
    ),
    Section(
        "sla",
        LIMITS,
        (
            _text("group", "group_id", is_needed=True),
            _truth("urgent", "is_urgent", unless=False),
            _duration("limit", "limit_seconds", is_needed=True),
            *_VALIDITY,
            _NOTE,
        ),
    ),
    Section(
        "near",
        THRESHOLDS,
        (
            _exact("percent", "near_pct", read_share),
            *_VALIDITY,
        ),
    ),
    Section(
        "waiting",
        WAITING,
        (
            _text("stage", "stage_id", is_needed=True),
            _text("waits_for", "waits_for", unless=""),
            *_VALIDITY,
        ),
    ),
    Section(
        "hours",
        CALENDARS,
        (
            _text("group", "group_id"),
            Field(
                "week",
                lambda row: written_week(row.week),
                lambda line, cell: {"week": read_week(line.needed(cell))},
                is_needed=True,
            ),
            *_DAYS_OF_VALIDITY,
            _NOTE,
        ),
    ),
    Section(
        "days",
        DAYS,
        (
            Field(
                "day",
                lambda row: row.day.isoformat(),
                lambda line, cell: {"day": _day(line, cell)},
                is_needed=True,
            ),
            Field(
                "as",
                lambda row: None if row.as_weekday is None else WEEKDAYS[row.as_weekday - 1],
                lambda line, cell: {"as_weekday": read_weekday(line.needed(cell))},
            ),
            _text("name", "name", unless=""),
        ),
    ),
    Section(
        "cycles",
        CYCLES,
        (
            _text("title", "title", is_needed=True),
            _step("start", "start", is_needed=True),
            _step("end", "end", is_needed=True),
            _truth("default", "is_default", unless=False),
            *_VALIDITY,
        ),
    ),
    Section(
        "urgent",
        URGENT_RULES,
        (
            _text("item", "match_type", is_needed=True),
            _text("value", "match_value", is_needed=True),
            _text("name", "rule_name", is_needed=True),
            *_VALIDITY,
        ),
    ),
    Section(
        "orders",
        OVERRIDES,
        (
            _text("order", "order_id", is_needed=True),
            _truth("urgent", "is_urgent", unless=None),
            _text("sla", "sla_profile"),
            _step("start", "cycle_start"),
            _step("end", "cycle_end"),
            *_VALIDITY,
            _NOTE,
        ),
    ),
    Section(
        "fields",
        FIELD_MAP,
        (
            _text("records", "entity", is_needed=True),
            _text("field", "field", is_needed=True),
            _text("crm_field", "crm_field", is_needed=True),
        ),
    ),
    Section(
        "metrics",
        METRICS,
        (
            _text("title", "title", is_needed=True),
            _point("start"),
            _point("end"),
            _truth("working", "is_working_time", unless=False),
            _duration("green", "green_limit_seconds"),
            _duration("red", "red_limit_seconds"),
            _text("comment", "comment"),
            _number("position", "position"),
            _truth("on", "is_on", unless=True),
        ),
    ),
    Section(
        "targets",
        TARGETS,
        (
            Field(
                "of",
                lambda row: written_subject(row.subject_type, row.subject_id),
                lambda line, cell: read_subject(line.needed(cell)),
                is_needed=True,
            ),
            _text("kpi", "kpi", is_needed=True),
            _text("period", "period", is_needed=True),
            _exact("target", "target", read_target),
            _text("currency", "currency"),
            *_DAYS_OF_VALIDITY,
        ),
    ),
    Section(
        "alerts",
        ALERT_THRESHOLDS,
        (
            _text("rule", "rule", is_needed=True),
            _exact("threshold", "threshold", read_threshold),
            *_DAYS_OF_VALIDITY,
        ),
    ),
)


def _read(path: Path) -> dict[ProjectKey, list[tuple[Section, list[FileRow]]]]:
    """The projects of a file, with the sections that it has and their entries."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise StagelineError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise StagelineError(f"{path} is no YAML: {reason}.") from None
    top = {} if root is None else _mapping(path, root)
    if list(top) != ["projects"]:
        raise StagelineError(f"{path} has to hold one list, projects, as an export does.")
    document: dict[ProjectKey, list[tuple[Section, list[FileRow]]]] = {}
    for node in _items(path, top["projects"]):
        parts = _mapping(path, node)
        names = FileRow(path, node.start_mark.line + 1, {})
        key = ProjectKey(
            *(_cell(names, parts.pop(name, None), name) or "" for name in ("source", "project"))
        )
        if "" in key:
            raise names.error("A project has a source and a project.")
        if key in document:
            raise names.error(f"{key} stands there twice.")
        sections = {section.name: section for section in SECTIONS}
        for name in parts:
            if name not in sections:
                raise names.error(
                    f"There is no section {name!r}. There are: {', '.join(sections)}."
                )
        document[key] = [
            (section, [_line(path, item) for item in _items(path, parts[name])])
            for name, section in sections.items()
            if name in parts
        ]
    return document


def _line(path: Path, node: yaml.Node) -> FileRow:
    row = FileRow(path, node.start_mark.line + 1, {})
    for name, value in _mapping(path, node).items():
        row.cells[name] = _cell(row, value, name)
    return row


def _mapping(path: Path, node: yaml.Node) -> dict[str, yaml.Node]:
    here = FileRow(path, node.start_mark.line + 1, {})
    if not isinstance(node, yaml.MappingNode):
        raise here.error("Here stand fields, each `name: value`.")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if str(key.value) in found:
            raise here.error(f"{key.value} stands there twice.")
        found[str(key.value)] = value
    return found


def _items(path: Path, node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    raise FileRow(path, node.start_mark.line + 1, {}).error(
        "Here stands a list; an empty one is []."
    )


def _cell(row: FileRow, node: yaml.Node | None, name: str) -> str | None:
    """The text that stands there, as it is; None for nothing."""
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return None
    if not isinstance(node, yaml.ScalarNode):
        raise row.error(f"{name} has one value, which is no list.")
    return str(node.value)
