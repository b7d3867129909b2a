"""What the stages and groups of a project are called, as its CRM lists them.

A status id means another thing in another project, so every name belongs to one. What a newer list
no longer holds keeps its name and is marked as inactive: events of the past still speak of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import files
from stageline.settings.changes import changing
from stageline.settings.files import FileRow, Form
from stageline.settings.names import require_text
from stageline.settings.projects import unknown_project

Kind = Literal["open", "done", "cancelled"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of stages; no clock runs in one that is done or cancelled."""

    group_id: str
    name: str
    kind: Kind = "open"
    position: int | None = None
    is_active: bool = True

    @property
    def key(self) -> str:
        return self.group_id


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage or status.

    Attributes:
        pipeline_id: The pipeline it belongs to.
        alias: Another name of it, for people.
        group_id: Its group, for events that name none of their own.
        position: Its place in the list.
        is_closing: Whether the CRM closes orders with it.
        is_active: Whether the CRM still has it.
    """

    stage_id: str
    pipeline_id: str | None = None
    name: str
    alias: str | None = None
    group_id: str | None = None
    position: int | None = None
    is_closing: bool = False
    is_active: bool = True

    @property
    def key(self) -> str:
        return self.stage_id


Entry = TypeVar("Entry", bound=Stage | Group)


@dataclass(frozen=True)
class Difference(Generic[Entry]):
    """What an import changes; ``changed`` holds each entry before and after, and ``vanished`` those
    that become inactive.
    """

    added: Sequence[Entry]
    changed: Sequence[tuple[Entry, Entry]]
    vanished: Sequence[Entry]
    unchanged: int


class Dictionary(Generic[Entry]):
    """One of the two dictionaries: that of stages, or that of groups."""

    def __init__(self, table: str, entry: type[Entry], key: str) -> None:
        self._table = sql.Identifier("settings", table)
        self._entry = entry
        self._key = key
        self.fields = tuple(field.name for field in fields(entry))

    def entries(self, source_system: str, project_id: str) -> list[Entry]:
        """The entries of a project in their order, those that vanished last."""
        with connect("owner") as session:
            return self._entries(session, source_system, project_id)

    def put(
        self,
        source_system: str,
        project_id: str,
        key: str,
        values: Mapping[str, Any],
        *,
        changed_by: str | None = None,
    ) -> Entry:
        """Adds an entry, or changes what is given of the one that is there; gives it as it is now.

        Args:
            key: Its id.
            values: Field and value; one that is not given stays as it is.

        Raises:
            StagelineError: there is no such project, a value does not fit, or a new entry is given
                no name.
        """
        with changing(changed_by) as session:
            _lock(session, source_system, project_id)
            entries = self._entries(session, source_system, project_id)
            before = next((entry for entry in entries if entry.key == key.strip()), None)
            if before is None and "name" not in values:
                raise StagelineError(f"{key} is new: give it a name.")
            entry = self._merged(before, {self._key: key, **values})
            self._put(session, source_system, project_id, entry)
        return entry

    def import_file(
        self,
        source_system: str,
        project_id: str,
        path: Path,
        *,
        dry_run: bool = False,
        changed_by: str | None = None,
    ) -> Difference[Entry]:
        """Takes over a newer list, all or nothing.

        What is missing from it becomes inactive and keeps its name. A field that the file leaves
        out stays as it is; an empty one is emptied.

        Args:
            dry_run: Only say what would change.

        Raises:
            StagelineError: there is no such project, or a line of the file does not fit.
        """
        lines = files.read(path, self.fields, (self._key, "name"))
        with changing(changed_by) as session:
            _lock(session, source_system, project_id)
            left = {entry.key: entry for entry in self._entries(session, source_system, project_id)}
            wanted: dict[str, tuple[FileRow, Entry | None, Entry]] = {}
            for line in lines:
                key = line.needed(self._key)
                if key in wanted:
                    raise line.error(f"{key} stands in line {wanted[key][0].line} already.")
                before = left.pop(key, None)
                wanted[key] = (line, before, self._read(line, before))
            difference = Difference(
                [after for _, before, after in wanted.values() if before is None],
                [
                    (before, after)
                    for _, before, after in wanted.values()
                    if before is not None and before != after
                ],
                [replace(entry, is_active=False) for entry in left.values() if entry.is_active],
                sum(before == after for _, before, after in wanted.values())
                + sum(not entry.is_active for entry in left.values()),
            )
            if not dry_run:
                changed = [after for _, after in difference.changed]
                for entry in (*difference.added, *changed, *difference.vanished):
                    self._put(session, source_system, project_id, entry)
        return difference

    def export(self, source_system: str, project_id: str, form: Form) -> str:
        """The entries as the text of a file, which `import_file` takes as it is."""
        entries = self.entries(source_system, project_id)
        return files.write(
            self.fields,
            [[getattr(entry, name) for name in self.fields] for entry in entries],
            form,
        )

    def _entries(
        self, session: psycopg.Connection[Any], source_system: str, project_id: str
    ) -> list[Entry]:
        with session.cursor(row_factory=class_row(self._entry)) as cursor:
            cursor.execute(
                sql.SQL(
                    "select {columns} from {table} where source_system = %s and project_id = %s"
                    " order by not is_active, position, {key}"
                ).format(
                    columns=sql.SQL(", ").join(map(sql.Identifier, self.fields)),
                    table=self._table,
                    key=sql.Identifier(self._key),
                ),
                [source_system, project_id],
            )
            return cursor.fetchall()

    def _put(
        self, session: psycopg.Connection[Any], source_system: str, project_id: str, entry: Entry
    ) -> None:
        columns = [sql.Identifier(name) for name in self.fields]
        session.execute(
            sql.SQL(
                "insert into {table} (source_system, project_id, {columns}) values ({values})"
                " on conflict (source_system, project_id, {key})"
                " do update set ({columns}) = row ({excluded})"
            ).format(
                table=self._table,
                columns=sql.SQL(", ").join(columns),
                values=sql.SQL(", ").join([sql.Placeholder()] * (len(columns) + 2)),
                key=sql.Identifier(self._key),
                excluded=sql.SQL(", ").join(
                    sql.SQL("excluded.{}").format(column) for column in columns
                ),
            ),
            [source_system, project_id, *(getattr(entry, name) for name in self.fields)],
        )

    def _read(self, line: FileRow, before: Entry | None) -> Entry:
        said: dict[str, Any] = {
            name: _READERS[name](line, name) if name in _READERS else line.cells[name]
            for name in self.fields
            if name in line.cells
        }
        said.setdefault("is_active", True)  # the list has it
        try:
            return self._merged(before, said)
        except StagelineError as error:
            raise line.error(error) from None

    def _merged(self, before: Entry | None, values: dict[str, Any]) -> Entry:
        return _plain(self._entry(**values) if before is None else replace(before, **values))


STAGES = Dictionary("stage_dictionary", Stage, "stage_id")
GROUPS = Dictionary("stage_group_dictionary", Group, "group_id")

#: How fields that are no text are read.
_READERS: dict[str, Callable[[FileRow, str], Any]] = {
    "position": FileRow.number,
    "is_closing": lambda line, name: line.truth(name, False),
    "is_active": lambda line, name: line.truth(name, True),
    "kind": lambda line, name: line.cells[name] or "open",
}

#: What the texts are called in sentences.
_TEXTS = {
    "stage_id": "The stage",
    "group_id": "The group",
    "pipeline_id": "The pipeline",
    "name": "The name",
    "alias": "The alias",
}


def _plain(entry: Entry) -> Entry:
    """What was given, in the form in which it is kept.

    Raises:
        StagelineError: it cannot be.
    """
    if isinstance(entry, Group) and entry.kind not in KINDS:
        raise StagelineError(f"{entry.kind!r} is no kind of group. There are: {', '.join(KINDS)}.")
    texts: dict[str, Any] = {
        name: require_text(getattr(entry, name), what)
        for name, what in _TEXTS.items()
        if getattr(entry, name, None) is not None
    }
    return replace(entry, **texts)


def _lock(session: psycopg.Connection[Any], source_system: str, project_id: str) -> None:
    """Has one after the other change the dictionaries of a project.

    Raises:
        StagelineError: there is no such project.
    """
    found = session.execute(
        "select 1 from settings.projects where source_system = %s and project_id = %s"
        " for no key update",
        [source_system, project_id],
    ).fetchone()
    if found is None:
        raise unknown_project(source_system, project_id)
