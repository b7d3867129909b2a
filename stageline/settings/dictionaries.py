"""What the stages and groups of a project are called, as its CRM lists them.

A status id means another thing in another project, so every name belongs to one. What a newer list
no longer holds keeps its name and is marked as inactive: events of the past still speak of it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import files
from stageline.settings.files import FileRow, Form
from stageline.settings.names import require_text
from stageline.settings.rule_tables import (
    ProjectKey,
    Session,
    Setting,
    SettingTable,
    changing_project,
)

Kind = Literal["open", "done", "cancelled"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Group(Setting):
    """A group of stages; no clock runs in one that is done or cancelled."""

    group_id: str
    name: str
    kind: Kind = "open"
    position: int | None = None
    is_active: bool = True

    @property
    def key(self) -> str:
        return self.group_id

    def require_valid(self) -> None:
        if self.kind not in KINDS:
            raise StagelineError(
                f"{self.kind!r} is no kind of group. There are: {', '.join(KINDS)}."
            )
        _texts(self)


@dataclass(frozen=True, kw_only=True)
class Stage(Setting):
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

    def require_valid(self) -> None:
        _texts(self)


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


class Dictionary(SettingTable[Entry]):
    """One of the two dictionaries: that of stages, or that of groups."""

    def __init__(self, entry: type[Entry], table: str, called: str, key: str) -> None:
        super().__init__(entry, table, called, [key])
        self._key = key
        self.fields = tuple(self._columns())

    def entries(self, source_system: str, project_id: str) -> list[Entry]:
        """The entries of a project in their order, those that vanished last."""
        with connect("owner") as session:
            return sorted(
                self.rows(session, ProjectKey(source_system, project_id)),
                key=lambda entry: (not entry.is_active, entry.position is None, entry.position),
            )

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
        project = ProjectKey(source_system, project_id)
        with changing_project(project, changed_by) as session:
            before = next(iter(self.rows(session, project, {self._key: key.strip()})), None)
            if before is None and "name" not in values:
                raise StagelineError(f"{key} is new: give it a name.")
            entry = self._merged(before, {self._key: key, **values})
            return (self.update if before else self.insert)(session, project, entry)

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
        project = ProjectKey(source_system, project_id)
        with changing_project(project, changed_by) as session:
            left = {entry.key: entry for entry in self.rows(session, project)}
            wanted: dict[str, tuple[FileRow, Entry | None, Entry]] = {}
            for line in lines:
                key = line.needed(self._key)
                if key in wanted:
                    raise line.error(f"{key} stands in line {wanted[key][0].line} already.")
                before = left.pop(key, None)
                wanted[key] = (line, before, self._read(line, before))
            difference = _difference(
                [(before, after) for _, before, after in wanted.values()], left.values()
            )
            if not dry_run:
                self._apply(session, project, difference)
        return difference

    def take_over(
        self,
        source_system: str,
        project_id: str,
        listed: Sequence[Mapping[str, Any]],
        *,
        changed_by: str | None = None,
    ) -> Difference[Entry]:
        """Takes over the list of a CRM, as fields and values; like `import_file` otherwise.

        Raises:
            StagelineError: there is no such project, or a value does not fit.
        """
        project = ProjectKey(source_system, project_id)
        with changing_project(project, changed_by) as session:
            left = {entry.key: entry for entry in self.rows(session, project)}
            wanted: dict[str, tuple[Entry | None, Entry]] = {}
            for values in listed:
                before = left.pop(str(values[self._key]), None)
                after = self._merged(before, {"is_active": True, **values})
                wanted[after.key] = (before, after)
            difference = _difference(wanted.values(), left.values())
            self._apply(session, project, difference)
        return difference

    def export(self, source_system: str, project_id: str, form: Form) -> str:
        """The entries as the text of a file, which `import_file` takes as it is."""
        entries = self.entries(source_system, project_id)
        return files.write(
            self.fields,
            [[getattr(entry, name) for name in self.fields] for entry in entries],
            form,
        )

    def _apply(self, session: Session, project: ProjectKey, difference: Difference[Entry]) -> None:
        for entry in difference.added:
            self.insert(session, project, entry)
        for entry in (*(after for _, after in difference.changed), *difference.vanished):
            self.update(session, project, entry)

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
        entry = self.row_type(**values) if before is None else replace(before, **values)
        entry.require_valid()
        return replace(entry, **_texts(entry))


def _difference(
    listed: Collection[tuple[Entry | None, Entry]], missing: Collection[Entry]
) -> Difference[Entry]:
    """What a newer list changes.

    Args:
        listed: Each entry of it, before and after.
        missing: Entries that it no longer holds.
    """
    return Difference(
        [after for before, after in listed if before is None],
        [(before, after) for before, after in listed if before is not None and before != after],
        [replace(entry, is_active=False) for entry in missing if entry.is_active],
        sum(before == after for before, after in listed)
        + sum(not entry.is_active for entry in missing),
    )


STAGES = Dictionary(Stage, "stage_dictionary", "stage", "stage_id")
GROUPS = Dictionary(Group, "stage_group_dictionary", "group", "group_id")

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


def _texts(entry: Stage | Group) -> dict[str, Any]:
    """The texts of an entry, in the form in which they are kept.

    Raises:
        StagelineError: one cannot be.
    """
    return {
        name: require_text(getattr(entry, name), what)
        for name, what in _TEXTS.items()
        if getattr(entry, name, None) is not None
    }


def meant_group(session: Session, project: ProjectKey, text: str) -> tuple[str, str | None]:
    """The id of the group that a text names by its id or else its name, and a doubt about it.

    Events may name a group before a dictionary does, so an unknown one is only doubted.

    Raises:
        StagelineError: several groups have that name.
    """
    groups = GROUPS.rows(session, project)
    found = [group for group in groups if group.group_id == text] or [
        group for group in groups if group.name.casefold() == text.casefold()
    ]
    if len(found) > 1:
        ids = ", ".join(group.group_id for group in found)
        raise StagelineError(f"{project} has several groups called {text}: give the id, of {ids}.")
    if found:
        return found[0].group_id, None
    names = ", ".join(f"{group.group_id} ({group.name})" for group in groups)
    return text, f"{project} has no group {text} yet. It has {names}." if groups else None


def is_final(session: Session, project: ProjectKey, group_id: str) -> bool:
    """Whether no clock runs in a group, as far as the dictionary says."""
    return any(
        group.kind != "open" for group in GROUPS.rows(session, project, {"group_id": group_id})
    )
