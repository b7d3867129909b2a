"""Versions of the stage map: a draft is edited, published, computed from then on, and retired."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.canonical import majors
from stageline.settings.changes import changing
from stageline.settings.names import require_one_line

State = Literal["draft", "published", "retired"]


@dataclass(frozen=True)
class ReportVersion:
    """A row of ``settings.report_versions``, with the number of rows in its map."""

    report_version: int
    title: str
    state: State
    cloned_from: int | None
    created_at: datetime
    published_at: datetime | None
    retired_at: datetime | None
    map_rows: int


@dataclass(frozen=True)
class MissingBoundary:
    """A sub-stage that no row of a version is mapped to, so that a major stage never begins or
    ends.
    """

    major_key: str
    end: Literal["entry", "exit"]
    sub_key: str


def versions() -> list[ReportVersion]:
    """All versions, by their number."""
    with (
        connect("owner") as session,
        session.cursor(row_factory=class_row(ReportVersion)) as cursor,
    ):
        cursor.execute(
            """
            select
                report_version, title, state, cloned_from, created_at, published_at, retired_at,
                (
                    select count(*) from settings.stage_map_scd as rows
                    where rows.report_version = versions.report_version
                ) as map_rows
            from settings.report_versions as versions
            order by report_version
            """
        )
        return cursor.fetchall()


def create(title: str = "", *, changed_by: str | None = None) -> int:
    """Makes an empty draft; gives its number, the next one.

    Raises:
        StagelineError: the title cannot be shown in one line.
    """
    with changing(changed_by) as session:
        return _create(session, title, None)


def clone(report_version: int, title: str = "", *, changed_by: str | None = None) -> int:
    """Makes a draft with the map of a version, whatever its state; gives its number.

    Raises:
        StagelineError: there is no such version, or the title cannot be shown in one line.
    """
    with changing(changed_by) as session:
        lock(session, report_version)
        made = _create(session, title, report_version)
        session.execute(
            """
            insert into settings.stage_map_scd (
                report_version, source_system, project_id, pipeline_id, stage_id, sub_key,
                effective_from, effective_to, change_note
            )
            select
                %s, source_system, project_id, pipeline_id, stage_id, sub_key,
                effective_from, effective_to, change_note
            from settings.stage_map_scd
            where report_version = %s
            order by map_id
            """,
            [made, report_version],
        )
    return made


def missing(report_version: int) -> list[MissingBoundary]:
    """What a version lacks to be published: for each major stage, its entry and its exit have to be
    mapped by some row.
    """
    with connect("owner") as session:
        return _missing(session, report_version)


def publish(report_version: int, *, changed_by: str | None = None) -> None:
    """Has a draft computed, beside the versions that are published already.

    Raises:
        StagelineError: there is no such draft, or `missing` finds something.
    """
    with changing(changed_by) as session:
        state = lock(session, report_version)
        if state != "draft":
            raise StagelineError(
                f"Version {report_version} is {state}: only a draft can be published."
                f" `stageline settings versions clone {report_version}` makes one."
            )
        lacking = _missing(session, report_version)
        if lacking:
            raise StagelineError(
                f"Version {report_version} cannot be published: no stage is mapped to "
                + ", ".join(f"{one.sub_key} ({one.end} of {one.major_key})" for one in lacking)
                + f". Map them with `stageline settings map add --version {report_version}`."
            )
        session.execute(
            "update settings.report_versions set state = 'published', published_at = now()"
            " where report_version = %s",
            [report_version],
        )


def retire(report_version: int, *, changed_by: str | None = None) -> None:
    """Takes a published version out of the reports; its map stays as it is, and can be cloned.

    Raises:
        StagelineError: there is no such version, or it is not published.
    """
    with changing(changed_by) as session:
        state = lock(session, report_version)
        if state != "published":
            raise StagelineError(
                f"Version {report_version} is {state}: only a published one can be retired."
            )
        session.execute(
            "update settings.report_versions set state = 'retired', retired_at = now()"
            " where report_version = %s",
            [report_version],
        )


def lock(session: psycopg.Connection[Any], report_version: int) -> State:
    """The state of a version, which nobody else changes, nor its map, until the transaction ends.

    Raises:
        StagelineError: there is no such version.
    """
    row = session.execute(
        "select state from settings.report_versions where report_version = %s for update",
        [report_version],
    ).fetchone()
    if row is None:
        raise StagelineError(
            f"There is no version {report_version}. `stageline settings versions list` shows them."
        )
    state: State = row[0]
    return state


def lock_draft(session: psycopg.Connection[Any], report_version: int) -> None:
    """`lock`, for a change that only a draft allows.

    Raises:
        StagelineError: there is no such version, or it is no draft.
    """
    state = lock_not_retired(session, report_version)
    if state == "published":
        raise StagelineError(
            f"Version {report_version} is published: its past is fixed. Change it from a date on"
            " with `stageline settings map change` or `quick`, or clone it with"
            f" `stageline settings versions clone {report_version}`."
        )


def lock_not_retired(session: psycopg.Connection[Any], report_version: int) -> State:
    """`lock`, for a change that a retired version does not allow.

    Raises:
        StagelineError: there is no such version, or it is retired.
    """
    state = lock(session, report_version)
    if state == "retired":
        raise StagelineError(
            f"Version {report_version} is retired and stays as it is. Clone it with"
            f" `stageline settings versions clone {report_version}`."
        )
    return state


def _create(session: psycopg.Connection[Any], title: str, cloned_from: int | None) -> int:
    if title:
        require_one_line(title, "The title")
    # Else two who make one at once would take the same number.
    session.execute("lock table settings.report_versions in share row exclusive mode")
    ((made,),) = session.execute(
        """
        insert into settings.report_versions (report_version, title, cloned_from)
        select coalesce(max(report_version), 0) + 1, %s, %s from settings.report_versions
        returning report_version
        """,
        [title, cloned_from],
    ).fetchall()
    return int(made)


def _missing(session: psycopg.Connection[Any], report_version: int) -> list[MissingBoundary]:
    mapped = {
        sub_key
        for (sub_key,) in session.execute(
            "select distinct sub_key from settings.stage_map_scd where report_version = %s",
            [report_version],
        )
    }
    boundaries = [
        boundary
        for major in majors()
        for boundary in (
            MissingBoundary(major.major_key, "entry", major.entry_sub_key),
            MissingBoundary(major.major_key, "exit", major.exit_sub_key),
        )
    ]
    return [boundary for boundary in boundaries if boundary.sub_key not in mapped]
