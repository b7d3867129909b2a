"""How rows of settings are read and written: those of a project, and those that count for a time.

What judges is dated: a row counts for visits that began within [effective_from, effective_to). A
rule that is set from an instant on ends the one in force there, and leaves what is planned for
later.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.changes import changing
from stageline.settings.projects import unknown_project

Session = psycopg.Connection[Any]

#: From when what has always been so counts.
FIRST_INSTANT = datetime(1900, 1, 1, tzinfo=UTC)
FIRST_DAY = date(1900, 1, 1)


class ProjectKey(NamedTuple):
    """Which project."""

    source_system: str
    project_id: str

    def __str__(self) -> str:
        return f"{self.source_system} {self.project_id}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A row of settings of a project, without the project."""

    def require_valid(self) -> None:
        """Makes sure that it can be written.

        Raises:
            StagelineError: it cannot.
        """


@dataclass(frozen=True, kw_only=True)
class DatedSetting(Setting):
    """A row that counts for a time.

    Attributes:
        effective_from, effective_to: Instants, or days where the table counts in days; None = open.
        row_id: The table's own number of it; None before it is written.
    """

    effective_from: date = FIRST_INSTANT
    effective_to: date | None = None
    row_id: int | None = None


Row = TypeVar("Row", bound=Setting)
Dated = TypeVar("Dated", bound=DatedSetting)


class SettingTable(Generic[Row]):
    """A table of `settings`, as rows of a dataclass whose fields are its columns.

    Attributes:
        called: What a row is called in messages.
        key: Columns that, beside the project and the time, tell its rows apart.
        row_type: The dataclass.
    """

    def __init__(self, row: type[Row], name: str, called: str, key: Sequence[str]) -> None:
        self.row_type = row
        self._table = sql.Identifier("settings", name)
        self.called = called
        self.key = tuple(key)

    def rows(
        self, session: Session, project: ProjectKey, only: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """The rows of a project, in the order of their keys; ``only`` those with these values."""
        values = {**project._asdict(), **(only or {})}
        query = sql.SQL("select {} from {} where {} order by {}").format(
            sql.SQL(", ").join(self._selected()),
            self._table,
            self._is(values),
            sql.SQL(", ").join(map(sql.Identifier, self.order)),
        )
        with session.cursor(row_factory=dict_row) as cursor:
            return [self.from_columns(record) for record in cursor.execute(query, values)]

    def insert(self, session: Session, project: ProjectKey, row: Row) -> Row:
        """Writes a new row; gives it as it is now.

        Raises:
            StagelineError: it is not as it has to be.
        """
        row.require_valid()
        columns = {**project._asdict(), **self.to_columns(row)}
        query = sql.SQL("insert into {} ({}) values ({}) returning {}").format(
            self._table,
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(map(sql.Placeholder, columns)),
            sql.SQL(", ").join(self._selected()),
        )
        return self._run(session, query, columns, row)

    def update(self, session: Session, project: ProjectKey, row: Row) -> Row:
        """Writes the values of a row that is there; gives it as it is now.

        Raises:
            StagelineError: it is not as it has to be.
        """
        row.require_valid()
        columns = self.to_columns(row)
        which = {**project._asdict(), **self._identity(row)}
        query = sql.SQL("update {} set {} where {} returning {}").format(
            self._table,
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
                for name in columns
            ),
            self._is(which),
            sql.SQL(", ").join(self._selected()),
        )
        return self._run(session, query, {**columns, **which}, row)

    def delete(self, session: Session, project: ProjectKey, row: Row) -> None:
        """Removes a row; the audit log keeps it."""
        which = {**project._asdict(), **self._identity(row)}
        session.execute(
            sql.SQL("delete from {} where {}").format(self._table, self._is(which)), which
        )

    def to_columns(self, row: Row) -> dict[str, Any]:
        """The columns of a row, but for the project and the table's own number."""
        return {name: getattr(row, name) for name in self._columns()}

    def from_columns(self, record: Mapping[str, Any]) -> Row:
        """The row that columns hold."""
        return self.row_type(**record)

    def _columns(self) -> list[str]:
        return [field.name for field in fields(self.row_type) if field.name != "row_id"]

    def _selected(self) -> list[sql.Composable]:
        return [sql.Identifier(name) for name in self._columns()]

    @property
    def order(self) -> list[str]:
        """The columns that no two rows of a project have in common."""
        return list(self.key)

    def _identity(self, row: Row) -> dict[str, Any]:
        columns = self.to_columns(row)
        return {name: columns[name] for name in self.key}

    @staticmethod
    def _is(values: Mapping[str, Any]) -> sql.Composable:
        """The condition for rows with these values, of which some may be none."""
        return sql.SQL(" and ").join(
            sql.SQL("{} is not distinct from {}").format(
                sql.Identifier(name), sql.Placeholder(name)
            )
            for name in values
        )

    def _run(
        self, session: Session, query: sql.Composed, values: Mapping[str, Any], row: Row
    ) -> Row:
        try:
            with session.cursor(row_factory=dict_row) as cursor:
                (record,) = cursor.execute(query, values)
                return self.from_columns(record)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            columns = self.to_columns(row)
            key = " ".join(str(columns[name]) for name in self.key if columns[name] is not None)
            what = f"{self.called} {key}".rstrip()
            said = _REFUSED.get(error.diag.constraint_name or "")
            if said is None:
                reason = str(error).splitlines()[0]
                raise StagelineError(f"{what} does not fit into the database: {reason}.") from None
            raise StagelineError(said.format(what=what)) from None


class DatedTable(SettingTable[Dated]):
    """A table whose rows count for a time.

    Attributes:
        first: What begins with it has always been so.
    """

    def __init__(
        self,
        row: type[Dated],
        name: str,
        called: str,
        key: Sequence[str],
        row_id: str,
        first: date = FIRST_INSTANT,
    ) -> None:
        super().__init__(row, name, called, key)
        self._id = row_id
        self.first = first

    def set_from(
        self, session: Session, project: ProjectKey, row: Dated, starts: date | None
    ) -> Dated:
        """Has a row count from an instant on, until the next one that is planned.

        What counted until then ends there; what begins at the very instant is replaced.

        Args:
            session: Within which the project is locked (`changing_project`).
            project: Whose row it is.
            row: What is to count; its own times are not looked at.
            starts: From when; where None, from the beginning if there is none yet, else from now.

        Returns:
            The row as it counts now: a new one, or the one in force if that says the same.

        Raises:
            StagelineError: it is not as it has to be, or another one is in the way.
        """
        columns = self.to_columns(row)
        others = self.rows(session, project, {name: columns[name] for name in self.key})
        if starts is None:
            starts = self.now(session, project) if others else self.first
        before = in_force(others, starts)
        if before is None:
            ends = min(
                (o.effective_from for o in others if o.effective_from > starts), default=None
            )
            return self.insert(
                session, project, replace(row, effective_from=starts, effective_to=ends)
            )
        if self.same(row, before):
            return before
        wanted = replace(row, effective_from=starts, effective_to=before.effective_to)
        if before.effective_from == starts:
            return self.update(session, project, replace(wanted, row_id=before.row_id))
        self._close(session, project, before, starts)
        return self.insert(session, project, wanted)

    def end(
        self, session: Session, project: ProjectKey, key: Mapping[str, Any], at: date | None
    ) -> Dated:
        """Ends the row in force at an instant (now where None); what never counted is removed.

        Raises:
            StagelineError: there is none.
        """
        if at is None:
            at = self.now(session, project)
        row = in_force(self.rows(session, project, key), at)
        if row is None:
            raise StagelineError(
                f"{project} has no such {self.called} at {written_moment(at)}."
                " The list with --all shows all, with their times."
            )
        if row.effective_from == at:
            self.delete(session, project, row)
        else:
            self._close(session, project, row, at)
        return replace(row, effective_to=at)

    def now(self, session: Session, project: ProjectKey) -> date:
        """The instant, to the second, or the project's day, in which the table counts."""
        return self.moment(session, project, datetime.now(UTC).replace(microsecond=0))

    def moment(self, session: Session, project: ProjectKey, instant: datetime) -> date:
        """An instant as the table counts: itself, or the day that it is in the project."""
        if isinstance(self.first, datetime):
            return instant
        return instant.astimezone(ZoneInfo(zone(session, project))).date()

    def same(self, row: Dated, other: Dated) -> bool:
        """Whether two rows say the same, whenever they count."""
        return other == replace(
            row,
            effective_from=other.effective_from,
            effective_to=other.effective_to,
            row_id=other.row_id,
        )

    def _close(self, session: Session, project: ProjectKey, row: Dated, at: date) -> None:
        which = {**project._asdict(), **self._identity(row)}
        session.execute(
            sql.SQL("update {} set effective_to = %(at)s where {}").format(
                self._table, self._is(which)
            ),
            {**which, "at": at},
        )

    def _selected(self) -> list[sql.Composable]:
        number = sql.SQL("{} as row_id").format(sql.Identifier(self._id))
        return [*super()._selected(), number]

    @property
    def order(self) -> list[str]:
        return [*self.key, "effective_from"]

    def _identity(self, row: Dated) -> dict[str, Any]:
        return {self._id: row.row_id}


def in_force(rows: Sequence[Dated], at: date) -> Dated | None:
    """The one of rows with the same key that counts at an instant; None where none does."""
    found = [
        row
        for row in rows
        if row.effective_from <= at and (row.effective_to is None or at < row.effective_to)
    ]
    return found[0] if found else None


def zone(session: Session, project: ProjectKey) -> str:
    """The time zone of a project.

    Raises:
        StagelineError: there is no such project.
    """
    found = session.execute(
        "select timezone from settings.projects where source_system = %s and project_id = %s",
        project,
    ).fetchone()
    if found is None:
        raise unknown_project(*project)
    return str(found[0])


def lock(session: Session, project: ProjectKey) -> None:
    """Keeps others from changing a project's settings until the transaction ends.

    Raises:
        StagelineError: there is no such project.
    """
    zone(session, project)
    session.execute(
        "select 1 from settings.projects where source_system = %s and project_id = %s"
        " for no key update",
        project,
    )


@contextmanager
def changing_project(project: ProjectKey, changed_by: str | None = None) -> Iterator[Session]:
    """A transaction that changes settings of a project, one at a time; see `changing`.

    Raises:
        StagelineError: there is no such project.
    """
    with changing(changed_by) as session:
        lock(session, project)
        yield session


def listed(table: SettingTable[Row], project: ProjectKey) -> list[Row]:
    """All rows of a project.

    Raises:
        StagelineError: there is no such project.
    """
    with connect("owner") as session:
        zone(session, project)
        return table.rows(session, project)


def listed_at(
    table: DatedTable[Dated], project: ProjectKey, at: datetime | None = None
) -> list[Dated]:
    """The rows of a project that count at an instant; now where None.

    Raises:
        StagelineError: there is no such project.
    """
    with connect("owner") as session:
        zone(session, project)
        when = table.now(session, project) if at is None else table.moment(session, project, at)
        return [row for row in table.rows(session, project) if in_force([row], when)]


def written_moment(moment: date) -> str:
    """An instant (in UTC) or a day, as operators read and write it."""
    if not isinstance(moment, datetime):
        return moment.isoformat()
    in_utc = moment.astimezone(UTC)
    fraction = f".{in_utc.microsecond:06}" if in_utc.microsecond else ""
    return f"{in_utc:%Y-%m-%dT%H:%M:%S}{fraction}Z"


_OVERLAP = "{what} would count twice at once. Let each end where the next one begins."
_BACKWARDS = "{what} would end before it begins. Give a later end."

#: What is said of a row that the database refuses, by its constraint.
_REFUSED = {
    **{
        f"{table}_{kind}": said
        for table in (
            "sla_stage_rules",
            "sla_thresholds",
            "waiting_stages",
            "urgent_rules",
            "cycle_rules",
            "order_overrides",
            "calendars",
            "kpi_targets",
            "alert_thresholds",
        )
        for kind, said in (("unambiguous", _OVERLAP), ("valid", _BACKWARDS))
    },
    "cycle_rules_one_default": (
        "{what} would be a second default at the same time. Take it from the other one first, with"
        " --no-default."
    ),
    "flow_metrics_title_key": "{what} is a metric of another project. Give it a title of its own.",
}
