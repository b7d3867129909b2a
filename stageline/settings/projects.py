"""Projects: the accounts of CRMs (and other sources) that data comes from."""

import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.changes import changing
from stageline.settings.names import require_one_line

#: ISO 4217's own code for "no currency". In KPI tables it stands where things are counted as well.
NO_CURRENCY = "XXX"


@dataclass(frozen=True)
class Project:
    """A row of ``settings.projects``, but for when it was made."""

    source_system: str
    project_id: str
    name: str | None
    timezone: str
    currency: str
    is_active: bool


def require(source_system: str, project_id: str) -> None:
    """Makes a project unless it is there; the loader may call it.

    Raises:
        StagelineError: the database cannot be reached.
    """
    with connect("loader") as session:
        session.execute(
            "insert into settings.projects (source_system, project_id) values (%s, %s)"
            " on conflict do nothing",
            [source_system, project_id],
        )


def add(
    source_system: str,
    project_id: str,
    *,
    name: str | None = None,
    timezone: str | None = None,
    currency: str | None = None,
    is_active: bool | None = None,
) -> Project:
    """Makes a project, or changes what is given of one that is there.

    Args:
        source_system: ``keycrm``, ``pipedrive``, ``hubspot``, or another plain word.
        project_id: Its name in URLs.
        name: What people call it.
        timezone: IANA name; UTC where a new project is given none.
        currency: ISO 4217 code of amounts that come without one; XXX (none) where a new project is
            given none.
        is_active: Whether what it brought counts in the tables; a new one's does.

    Raises:
        StagelineError: one of them is not as it has to be.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", source_system):
        raise StagelineError(
            f"{source_system!r} is no source. Write one plain word: keycrm, pipedrive, hubspot,"
            " salesforce ..."
        )
    if source_system == "zapier":
        raise StagelineError(
            "Zapier sends what happened in another CRM: add its project, as in"
            f" `stageline projects add pipedrive {project_id}`."
        )
    require_plain_id(project_id)
    if name is not None:
        require_one_line(name, "The name")
    if timezone is not None:
        require_zone(timezone)
    with changing() as session, session.cursor(row_factory=class_row(Project)) as cursor:
        try:
            cursor.execute(
                """
                insert into settings.projects as mine
                    (source_system, project_id, name, timezone, currency, is_active)
                values (
                    %(source_system)s, %(project_id)s, %(name)s,
                    coalesce(%(timezone)s, 'UTC'), coalesce(%(currency)s, %(no_currency)s),
                    coalesce(%(is_active)s, true)
                )
                on conflict (source_system, project_id) do update set
                    name = coalesce(%(name)s, mine.name),
                    timezone = coalesce(%(timezone)s, mine.timezone),
                    currency = coalesce(%(currency)s, mine.currency),
                    is_active = coalesce(%(is_active)s, mine.is_active)
                returning source_system, project_id, name, timezone, currency, is_active
                """,
                {
                    "source_system": source_system,
                    "project_id": project_id,
                    "name": name,
                    "timezone": timezone,
                    "currency": currency,
                    "no_currency": NO_CURRENCY,
                    "is_active": is_active,
                },
            )
        except psycopg.errors.CheckViolation as error:
            raise StagelineError(
                _BROKEN_RULE[str(error.diag.constraint_name)].format(
                    timezone=timezone, currency=currency
                )
            ) from None
        (project,) = cursor
        return project


_NO_ZONE = "There is no time zone {timezone!r}. Write its IANA name, as Europe/Kyiv."

_BROKEN_RULE = {
    "projects_timezone_exists": _NO_ZONE,
    "projects_currency_is_iso_4217": (
        "{currency!r} is no currency. Write its ISO 4217 code in capitals, as EUR."
    ),
}


_PROJECTS = sql.SQL(
    "select source_system, project_id, name, timezone, currency, is_active from settings.projects"
)


def projects() -> list[Project]:
    """All projects, by source and id."""
    with connect("owner") as session, session.cursor(row_factory=class_row(Project)) as cursor:
        query = _PROJECTS + sql.SQL(" order by source_system, project_id")
        return cursor.execute(query).fetchall()


def find(source_system: str, project_id: str) -> Project | None:
    """A project; None where the settings do not name it."""
    with connect("loader") as session, session.cursor(row_factory=class_row(Project)) as cursor:
        query = _PROJECTS + sql.SQL(" where source_system = %s and project_id = %s")
        return cursor.execute(query, (source_system, project_id)).fetchone()


def is_plain_id(project_id: str) -> bool:
    """Whether a project's id can stand in a URL as it is."""
    # A dot in front would make `.` and `..` possible, which clients take out of paths.
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", project_id) is not None


def require_plain_id(project_id: str) -> None:
    """Makes sure that a project's id can stand in a URL as it is.

    Raises:
        StagelineError: it cannot.
    """
    if not is_plain_id(project_id):
        raise StagelineError(
            f"{project_id!r} cannot be a project's id: it stands in URLs. Take letters, digits,"
            " '_', '-', and '.' after the first, 100 at most."
        )


def unknown_project(source_system: str, project_id: str) -> StagelineError:
    """The error for a project that is not in ``settings.projects``."""
    return StagelineError(
        f"There is no project {project_id} of {source_system}."
        f" Run `stageline projects add {source_system} {project_id}`."
    )


def require_zone(timezone: str) -> None:
    """Makes sure that there is a time zone of that name.

    Raises:
        StagelineError: there is none.
    """
    # The database checks its own list; the receiver reads times with Python's.
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise StagelineError(_NO_ZONE.format(timezone=timezone)) from None
