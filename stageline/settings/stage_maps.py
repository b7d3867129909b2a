"""Which canonical sub-stage a stage of a CRM means, per report version and time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.rows import class_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import files
from stageline.settings.canonical import require_sub_key
from stageline.settings.changes import changing
from stageline.settings.files import FileRow, Form
from stageline.settings.names import require_one_line, require_text
from stageline.settings.projects import unknown_project
from stageline.settings.report_versions import lock_draft, lock_not_retired, versions
from stageline.settings.rule_tables import FIRST_INSTANT

#: ``source_system`` and ``project_id``.
Project = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a stage means, from an instant (inclusive) until another (exclusive, None = for good).

    Attributes:
        pipeline_id: None = in every pipeline.
        stage_id: None = every stage.
        sub_key: The canonical sub-stage.
    """

    source_system: str
    project_id: str
    pipeline_id: str | None = None
    stage_id: str | None = None
    sub_key: str
    effective_from: datetime = FIRST_INSTANT
    effective_to: datetime | None = None
    change_note: str | None = None

    @property
    def place(self) -> tuple[str, str, str | None, str | None, datetime]:
        """What no two rows of a version have in common."""
        return (
            self.source_system,
            self.project_id,
            self.pipeline_id,
            self.stage_id,
            self.effective_from,
        )

    def is_in_force(self, at: datetime) -> bool:
        """Whether it says what an event of this instant means."""
        return self.effective_from <= at and (self.effective_to is None or at < self.effective_to)

    def __str__(self) -> str:
        stage = "every stage" if self.stage_id is None else f"stage {self.stage_id}"
        pipeline = "" if self.pipeline_id is None else f" of pipeline {self.pipeline_id}"
        until = "" if self.effective_to is None else f" until {_written(self.effective_to)}"
        since = (
            "" if self.effective_from == FIRST_INSTANT else f" from {_written(self.effective_from)}"
        )
        return (
            f"{stage}{pipeline} of {self.source_system} {self.project_id}"
            f" = {self.sub_key}{since}{until}"
        )


@dataclass(frozen=True, kw_only=True)
class MapRow(Meaning):
    """A row of ``settings.stage_map_scd``."""

    map_id: int
    report_version: int

    def __str__(self) -> str:
        return f"row {self.map_id} ({super().__str__()})"


_Meaning = TypeVar("_Meaning", bound=Meaning)


@dataclass(frozen=True)
class Difference:
    """What an import changes; ``changed`` holds each row before and after."""

    added: Sequence[Meaning]
    changed: Sequence[tuple[MapRow, Meaning]]
    removed: Sequence[MapRow]
    unchanged: int


@dataclass(frozen=True, kw_only=True)
class UnmappedStage:
    """A stage with events that no row of a published version maps, as the last build saw it."""

    report_version: int
    source_system: str
    project_id: str
    pipeline_id: str | None
    stage_id: str
    event_count: int
    first_seen_at: datetime
    last_seen_at: datetime
    sample_entities: str


#: Columns of a file, in the order in which they are written.
FIELDS = tuple(field.name for field in fields(Meaning))


def rows(
    report_version: int | None = None,
    *,
    project: Project | None = None,
    active_on: datetime | None = None,
    text: str | None = None,
) -> list[MapRow]:
    """Rows of the map, by version, project, pipeline, stage and time.

    Args:
        report_version: Only of this version.
        project: Only of this source and project.
        active_on: Only those in force at this instant.
        text: Only those with this text, in any case, in an id, the sub-stage or the note.
    """
    with connect("owner") as session:
        return _rows(session, report_version, project=project, active_on=active_on, text=text)


def add(report_version: int, meaning: Meaning, *, changed_by: str | None = None) -> MapRow:
    """Adds a row to a draft.

    Raises:
        StagelineError: there is no such draft, project or sub-stage, or another row is in the way.
    """
    plain = _plain(meaning)
    with changing(changed_by) as session:
        lock_draft(session, report_version)
        return _insert(session, report_version, plain)


def edit(
    map_id: int,
    *,
    sub_key: str | None = None,
    effective_from: datetime | None = None,
    effective_to: datetime | None = None,
    change_note: str | None = None,
    project: Project | None = None,
    changed_by: str | None = None,
) -> MapRow:
    """Changes what is given of a row in a draft.

    Args:
        project: Where given, a row of another project is refused as if it were not there.

    Raises:
        StagelineError: there is no such row in a draft, or the change does not fit.
    """
    with changing(changed_by) as session:
        row = _row(session, map_id, project)
        lock_draft(session, row.report_version)
        row = _row(session, map_id, project)  # as whoever held the lock before has left it
        after = replace(
            row,
            sub_key=sub_key or row.sub_key,
            effective_from=effective_from or row.effective_from,
            effective_to=effective_to or row.effective_to,
            change_note=change_note or row.change_note,
        )
        return _update(session, row, _plain(after))


def remove(map_id: int, *, project: Project | None = None, changed_by: str | None = None) -> MapRow:
    """Removes a row from a draft; gives what it was. ``project`` as for `edit`.

    Raises:
        StagelineError: there is no such row in a draft.
    """
    with changing(changed_by) as session:
        row = _row(session, map_id, project)
        lock_draft(session, row.report_version)
        row = _row(session, map_id, project)
        _delete(session, row)
        return row


def change(
    map_id: int,
    sub_key: str,
    at: datetime,
    *,
    change_note: str | None = None,
    project: Project | None = None,
    changed_by: str | None = None,
) -> MapRow:
    """Gives a stage another meaning from an instant on, in a draft or a published version.

    The row ends there and the next one begins; events before it keep the meaning that they had.

    Args:
        map_id: The row in force at that instant.
        at: From when on, after the row's beginning.
        project: As for `edit`.

    Raises:
        StagelineError: there is no such row, its version is retired, or it is not in force then.
    """
    with changing(changed_by) as session:
        row = _row(session, map_id, project)
        lock_not_retired(session, row.report_version)
        row = _row(session, map_id, project)
        if not row.is_in_force(at) or at == row.effective_from:
            raise StagelineError(
                f"At {_written(at)} {row} does not run on. Take an instant after its beginning and"
                " before its end."
            )
        following = _plain(
            replace(row, sub_key=sub_key, effective_from=at, change_note=change_note)
        )
        if following.sub_key == row.sub_key:
            raise StagelineError(f"Nothing would change: that is what {row} means already.")
        session.execute(
            "update settings.stage_map_scd set effective_to = %s where map_id = %s", [at, map_id]
        )
        return _insert(session, row.report_version, following)


def quick(report_version: int, meaning: Meaning, *, changed_by: str | None = None) -> MapRow:
    """Maps one stage that is unmapped, from ``meaning.effective_from`` on, also in a published
    version: no event that is mapped changes its meaning.

    The row ends where a later one that the stage falls under begins.

    Raises:
        StagelineError: there is no such version, project or sub-stage, the version is retired, or
            the stage is mapped then, by a row of its own or one for every stage or pipeline.
    """
    plain = _plain(meaning)
    if plain.stage_id is None:
        raise StagelineError("Name the one stage that is to be mapped.")
    with changing(changed_by) as session:
        lock_not_retired(session, report_version)
        others = [
            row
            for row in _rows(
                session, report_version, project=(plain.source_system, plain.project_id)
            )
            if _would_lose_events(row, plain)
            and (row.effective_to is None or plain.effective_from < row.effective_to)
        ]
        for row in others:
            if row.effective_from <= plain.effective_from:
                raise StagelineError(
                    f"At {_written(plain.effective_from)} the stage is mapped by {row}."
                    " `stageline settings map change` gives that another meaning from a date on."
                )
        ends = [row.effective_from for row in others] + [plain.effective_to]
        until = min((end for end in ends if end is not None), default=None)
        return _insert(session, report_version, replace(plain, effective_to=until))


def import_file(
    report_version: int,
    path: Path,
    *,
    project: Project | None = None,
    dry_run: bool = False,
    changed_by: str | None = None,
) -> Difference:
    """Makes a draft equal to a CSV or YAML file, all or nothing.

    Args:
        project: Only the rows of this project; the file may hold no others.
        dry_run: Go through all of it, and undo it.

    Raises:
        StagelineError: there is no such draft, or a line of the file does not fit.
    """
    lines = files.read(path, FIELDS, ("source_system", "project_id", "sub_key"))
    wanted = [(line, _read(line, project)) for line in lines]
    with changing(changed_by) as session:
        lock_draft(session, report_version)
        before = _rows(session, report_version, project=project)
        difference = _apply(session, report_version, before, wanted)
        if dry_run:
            session.rollback()
    return difference


def export(report_version: int, form: Form, *, project: Project | None = None) -> str:
    """The rows of a version as the text of a file, which `import_file` takes as it is.

    Raises:
        StagelineError: there is no such version.
    """
    _require_version(report_version)
    return files.write(
        FIELDS,
        [
            [
                row.source_system,
                row.project_id,
                row.pipeline_id,
                row.stage_id,
                row.sub_key,
                None if row.effective_from == FIRST_INSTANT else row.effective_from.isoformat(),
                None if row.effective_to is None else row.effective_to.isoformat(),
                row.change_note,
            ]
            for row in rows(report_version, project=project)
        ],
        form,
    )


def unmapped(report_version: int | None = None) -> list[UnmappedStage]:
    """The stages that are unmapped in the published versions, or in one of them, those with most
    events first.

    Raises:
        StagelineError: nothing is published, or that version is not, or nothing was built since.
    """
    published = [row.report_version for row in versions() if row.state == "published"]
    if report_version is not None:
        _require_version(report_version)
        if report_version not in published:
            raise StagelineError(
                f"Version {report_version} is not published, so nothing is computed for it."
            )
    if not published:
        raise StagelineError(
            "No version of the stage map is published, so no stage is mapped."
            " Run `stageline settings versions create`, and see docs/map-your-stages.md."
        )
    asked = published if report_version is None else [report_version]
    with (
        connect("reader") as session,
        session.cursor(row_factory=class_row(UnmappedStage)) as cursor,
    ):
        try:
            # It has rows for each version that was published at the last build; the other table
            # has none for one that maps everything.
            built = session.execute(
                "select distinct report_version from kpis.flow_stage_kpis"
            ).fetchall()
            cursor.execute(
                """
                select
                    report_version, source_system, project_id, pipeline_id, stage_id,
                    event_count, first_seen_at, last_seen_at, sample_entities
                from kpis.unmapped_stage_events
                where report_version = any(%s)
                order by
                    report_version, event_count desc, source_system, project_id, pipeline_id,
                    stage_id
                """,
                [asked],
            )
        except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
            raise StagelineError(
                "What is unmapped is not known yet: kpis.unmapped_stage_events is not built."
                " Run `stageline build`."
            ) from None
        for version in asked:
            if (version,) not in built:
                raise StagelineError(
                    f"Version {version} was published after the last build. Run `stageline build`."
                )
        return cursor.fetchall()


def _require_version(report_version: int) -> None:
    if report_version not in {row.report_version for row in versions()}:
        raise StagelineError(
            f"There is no version {report_version}. `stageline settings versions list` shows them."
        )


def _would_lose_events(row: Meaning, to: Meaning) -> bool:
    """Whether events that a row of the same project maps would be mapped by ``to`` instead, or
    could be claimed by both.
    """
    is_same_stage = row.stage_id in (None, to.stage_id)
    is_same_pipeline = to.pipeline_id is None or row.pipeline_id in (None, to.pipeline_id)
    wins = to.pipeline_id is None and None not in (row.pipeline_id, row.stage_id)
    return is_same_stage and is_same_pipeline and not wins


def _apply(
    session: psycopg.Connection[Any],
    report_version: int,
    before: Sequence[MapRow],
    wanted: Sequence[tuple[FileRow, Meaning]],
) -> Difference:
    left = {row.place: row for row in before}
    kept: list[tuple[FileRow, MapRow, Meaning]] = []
    new: list[tuple[FileRow, Meaning]] = []
    for line, meaning in wanted:
        row = left.pop(meaning.place, None)
        if row is None:
            new.append((line, meaning))
        else:
            kept.append((line, row, meaning))
    different = [one for one in kept if _values(one[1]) != _values(one[2])]
    # First what goes: it makes room. Those that are kept keep their beginning, so that none of them
    # can need room that another one has still to give up.
    for row in left.values():
        _delete(session, row)
    lines = {row.map_id: line for line, row, _ in kept}
    for line, row, meaning in different:
        with _named(line, lines):
            _update(session, row, meaning)
    for line, meaning in new:
        with _named(line, lines):
            lines[_insert(session, report_version, meaning).map_id] = line
    return Difference(
        [meaning for _, meaning in new],
        [(row, meaning) for _, row, meaning in different],
        list(left.values()),
        len(kept) - len(different),
    )


@contextmanager
def _named(line: FileRow, lines: dict[int, FileRow]) -> Iterator[None]:
    """Names the line of a file in an error, and that of the row in the way, by the row's id."""
    try:
        yield
    except _OverlapError as error:
        raise line.error(
            f"It and line {lines[error.row.map_id].line} say what the same stage means at the same"
            " time."
        ) from None
    except StagelineError as error:
        raise line.error(error) from None


def _read(line: FileRow, project: Project | None) -> Meaning:
    meaning = Meaning(
        source_system=line.needed("source_system"),
        project_id=line.needed("project_id"),
        pipeline_id=line.cells.get("pipeline_id"),
        stage_id=line.cells.get("stage_id"),
        sub_key=line.needed("sub_key"),
        effective_from=line.instant("effective_from") or FIRST_INSTANT,
        effective_to=line.instant("effective_to"),
        change_note=line.cells.get("change_note"),
    )
    try:
        plain = _plain(meaning)
    except StagelineError as error:
        raise line.error(error) from None
    if project not in (None, (plain.source_system, plain.project_id)):
        raise line.error(
            f"It is of {plain.source_system} {plain.project_id}, and only rows of"
            f" {' '.join(project or ())} are imported."
        )
    return plain


def _plain(meaning: _Meaning) -> _Meaning:
    """What was given, in the form in which it is kept.

    Raises:
        StagelineError: it cannot be.
    """
    if meaning.effective_to is not None and meaning.effective_to <= meaning.effective_from:
        raise StagelineError("It would end before it begins. Give a later end.")
    if meaning.change_note is not None:
        require_one_line(meaning.change_note, "The note")
    return replace(
        meaning,
        source_system=require_text(meaning.source_system, "The source"),
        project_id=require_text(meaning.project_id, "The project"),
        pipeline_id=None
        if meaning.pipeline_id is None
        else require_text(meaning.pipeline_id, "The pipeline"),
        stage_id=None if meaning.stage_id is None else require_text(meaning.stage_id, "The stage"),
        sub_key=require_sub_key(meaning.sub_key),
    )


def _rows(
    session: psycopg.Connection[Any],
    report_version: int | None,
    *,
    project: Project | None = None,
    active_on: datetime | None = None,
    text: str | None = None,
) -> list[MapRow]:
    source_system, project_id = project or (None, None)
    with session.cursor(row_factory=class_row(MapRow)) as cursor:
        cursor.execute(
            """
            select
                map_id, report_version, source_system, project_id, pipeline_id, stage_id, sub_key,
                effective_from, effective_to, change_note
            from settings.stage_map_scd
            where
                (%(version)s::integer is null or report_version = %(version)s)
                and (
                    %(source_system)s::text is null
                    or (source_system = %(source_system)s and project_id = %(project_id)s)
                )
                and (
                    %(active_on)s::timestamptz is null
                    or tstzrange(effective_from, effective_to) @> %(active_on)s::timestamptz
                )
                and (
                    %(text)s::text is null
                    or exists (
                        select 1
                        from unnest(array[
                            source_system, project_id, pipeline_id, stage_id, sub_key, change_note
                        ]) as said
                        where strpos(lower(said), lower(%(text)s)) > 0
                    )
                )
            order by
                report_version, source_system, project_id, pipeline_id nulls first,
                stage_id nulls first, effective_from
            """,
            {
                "version": report_version,
                "source_system": source_system,
                "project_id": project_id,
                "active_on": active_on,
                "text": text,
            },
        )
        return cursor.fetchall()


def _row(session: psycopg.Connection[Any], map_id: int, project: Project | None) -> MapRow:
    with session.cursor(row_factory=class_row(MapRow)) as cursor:
        row = cursor.execute(
            """
            select
                map_id, report_version, source_system, project_id, pipeline_id, stage_id, sub_key,
                effective_from, effective_to, change_note
            from settings.stage_map_scd
            where map_id = %s
            """,
            [map_id],
        ).fetchone()
    if row is None or project not in (None, (row.source_system, row.project_id)):
        where = "" if project is None else f" of {' '.join(project)}"
        raise StagelineError(
            f"There is no row {map_id}{where} in the map. `stageline settings map list` shows them."
        )
    return row


def _insert(session: psycopg.Connection[Any], report_version: int, meaning: Meaning) -> MapRow:
    try:
        with session.transaction(), session.cursor(row_factory=class_row(MapRow)) as cursor:
            cursor.execute(
                """
                insert into settings.stage_map_scd (
                    report_version, source_system, project_id, pipeline_id, stage_id, sub_key,
                    effective_from, effective_to, change_note
                )
                values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
                returning
                    map_id, report_version, source_system, project_id, pipeline_id, stage_id,
                    sub_key, effective_from, effective_to, change_note
                """,
                [report_version, *_values(meaning)],
            )
            (row,) = cursor
            return row
    except psycopg.errors.ExclusionViolation:
        raise _in_the_way(session, report_version, meaning) from None
    except psycopg.errors.ForeignKeyViolation:
        raise unknown_project(meaning.source_system, meaning.project_id) from None


def _update(session: psycopg.Connection[Any], row: MapRow, after: Meaning) -> MapRow:
    try:
        with session.transaction():
            session.execute(
                """
                update settings.stage_map_scd
                set sub_key = %s, effective_from = %s, effective_to = %s, change_note = %s
                where map_id = %s
                """,
                [
                    after.sub_key,
                    after.effective_from,
                    after.effective_to,
                    after.change_note,
                    row.map_id,
                ],
            )
    except psycopg.errors.ExclusionViolation:
        raise _in_the_way(session, row.report_version, after, row.map_id) from None
    return _row(session, row.map_id, None)


def _delete(session: psycopg.Connection[Any], row: MapRow) -> None:
    session.execute("delete from settings.stage_map_scd where map_id = %s", [row.map_id])


class _OverlapError(StagelineError):
    """Another row says already what a stage means at a time."""

    def __init__(self, row: MapRow) -> None:
        super().__init__(
            f"In the way is {row} of version {row.report_version}: it says what the same stage"
            " means at the same time."
        )
        self.row = row


def _in_the_way(
    session: psycopg.Connection[Any],
    report_version: int,
    meaning: Meaning,
    map_id: int | None = None,
) -> _OverlapError:
    return _OverlapError(
        next(
            row
            for row in _rows(
                session, report_version, project=(meaning.source_system, meaning.project_id)
            )
            if row.map_id != map_id
            and (row.pipeline_id, row.stage_id) == (meaning.pipeline_id, meaning.stage_id)
            and (meaning.effective_to is None or row.effective_from < meaning.effective_to)
            and (row.effective_to is None or meaning.effective_from < row.effective_to)
        )
    )


def _values(meaning: Meaning) -> list[Any]:
    return [getattr(meaning, name) for name in FIELDS]


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
