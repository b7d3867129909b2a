"""Loads the account of a CRM: resource by resource, in parts that are on the disk before the next.

Every part is merged by key, and rows that say nothing new are not touched. The position of a
resource is kept only after its rows are committed, so that a load can be killed at any moment: the
next one asks for some of it again, and loads none of it twice.
"""

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from loaders import positions
from loaders.ahead import ahead
from loaders.api import ApiError, RefusedError, TooLargeError
from loaders.calls import Calls, LaterError, Turns
from loaders.destination import (
    FINGERPRINT,
    Target,
    clear_scratch,
    exclusive,
    get_ready,
    land,
    touched,
)
from loaders.load_log import Entry, logged
from loaders.pace import Account
from loaders.record_values import as_json
from loaders.records import Rows, Table, rejects_of
from loaders.sources import Finding, Page, Position, Pull, Resource, Source, Sweep
from stageline.crm_values import identifier
from stageline.database import connect, cut_short
from stageline.errors import StagelineError
from stageline.progress import Step, log, step
from stageline.settings import projects
from stageline.settings.api_accounts import ApiAccount
from stageline.settings.dictionaries import STAGES
from stageline.settings.field_map import name_by_keys
from stageline.settings.rule_tables import ProjectKey

#: Rows, bytes, and seconds, after which what was fetched is loaded.
PART_ROWS, PART_BYTES, PART_SECONDS = 250_000, 64 * 1024 * 1024, 30.0

#: Rows that are landed where nothing else is being landed, and between two resources.
EARLY_ROWS, LEFT_ROWS = 80_000, 10_000

#: Records that are fetched while those before them are loaded.
RECORDS_AHEAD = 20_000

#: Closed deals are brought back to so many days before the first load.
BACKFILL = timedelta(days=90)

#: So many rows of a table are compared with what is there before they are landed.
_COMPARED = 5_000

#: A sweep may come so much early, or a load at the same time each day would skip every other one.
_EARLY = timedelta(hours=1)

#: Ids that a sweep asks for at once, and that it notes at once.
_ASKED_AT_ONCE, _KEPT_AT_ONCE = 500, 10_000

#: Objects after which the garbage collector looks for cycles, and seconds of a thread's turn.
_COLLECTED_AFTER, _TURN = 100_000, 0.0005

Session = psycopg.Connection[Any]


@dataclass
class TableLoad:
    """What came of a table: rows read, new or changed ones, those that were equal already; values
    that did not fit, by column; records that fit into no row; rows found gone.
    """

    read: int = 0
    touched: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    gone: int = 0

    @property
    def unchanged(self) -> int:
        """Rows that were there as they are."""
        return self.read - self.touched


@dataclass
class CrmLoad:
    """What came of a load.

    Attributes:
        tables: By name, in the order of the source.
        left_out: Resource -> why the account gives none of it.
        warnings: What people should look at, a sentence each.
        calls: Kind of call -> how many were made.
        stopped: Why the rest is to follow, and when; None where all is loaded.
        seconds: How long it took.
    """

    source: Source
    project_id: str
    tables: dict[str, TableLoad]
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    calls: Mapping[str, int] = field(default_factory=dict)
    stopped: LaterError | None = None
    seconds: float = 0.0


def load(
    source: Source,
    project_id: str,
    account: ApiAccount,
    *,
    since: datetime | None = None,
    is_full: bool = False,
    dry_run: bool = False,
) -> CrmLoad:
    """Brings what is new in an account; with ``dry_run`` only asks for it, and says what it is.

    Args:
        source: The CRM.
        project_id: Whose account it is, in ``settings.projects``.
        account: How its API is reached.
        since: How far back closed deals are brought, 90 days where not given and never loaded.
        is_full: Everything is asked for again.
        dry_run: Nothing is written.

    Raises:
        StagelineError: the CRM refuses the account, or does not answer; another process loads the
            account; or the database cannot be reached. What was loaded before stays.
    """
    started = time.monotonic()
    done = CrmLoad(source, project_id, {table.name: TableLoad() for table in source.tables})
    with (
        _tuned(),
        _alone(source, project_id) as session,
        _calls(source, project_id, account) as (calls, *lines),
    ):
        work = _Load(
            *(source, Account(source.name, project_id), account.base_url),
            *(session, calls),
            done,
            lines=lines,
            dry_run=dry_run,
        )
        if dry_run:
            _run(work, done, since, is_full)
        else:
            projects.require(source.name, project_id)
            entry = Entry(source.name, None, project_id)
            with logged(session, entry, of_project=True):
                try:
                    _run(work, done, since, is_full)
                finally:
                    entry.stopped = str(done.stopped) if done.stopped else None
                    entry.read = sum(each.read for each in done.tables.values())
                    entry.loaded = sum(each.touched for each in done.tables.values())
                    entry.unchanged = entry.read - entry.loaded
                    entry.rejected = sum(each.rejected for each in done.tables.values())
        done.calls = dict(sum((each.made for each in (calls, *lines)), Counter()))
    done.seconds = round(time.monotonic() - started, 3)
    return done


def _run(work: "_Load", done: CrmLoad, since: datetime | None, is_full: bool) -> None:
    """Runs a load; what ends it is noted, or said in a line."""
    title, project = done.source.title, done.project_id
    try:
        work.run(since, is_full)
    except LaterError as error:
        done.stopped = error
    except RefusedError as error:
        raise StagelineError(
            f"{title} refuses the account of project {project}: {error}."
        ) from None
    except TooLargeError as error:
        raise StagelineError(
            f"{title} gives, of project {project}, {error} to however small a question. Take out at"
            " the CRM what makes one record so large; what was loaded until then stays."
        ) from None
    except ApiError as error:
        raise StagelineError(
            f"{title} does not answer for project {project}: {error}. What was loaded until then"
            " stays; run it again to go on."
        ) from None


def check(source: Source, project_id: str, account: ApiAccount) -> list[Finding]:
    """Tries what is loaded of an account; changes nothing.

    Raises:
        StagelineError: the CRM refuses the account as a whole, or does not answer.
    """
    with _calls(source, project_id, account) as (calls, *_):
        try:
            return list(source.check(calls))
        except (ApiError, LaterError) as error:
            raise StagelineError(
                f"{source.title} gives no access to {project_id}: {error}."
            ) from None


@contextmanager
def _tuned() -> Iterator[None]:
    """Python, for threads that fetch and read at once, while the block runs.

    Records hold no cycles: to look for them at the usual pace takes longer than to read their JSON.
    And whoever fetches a page needs some turns for it: at the usual length of a turn of those who
    read, a page took ten times as long to come.
    """
    usual, turn = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(_COLLECTED_AFTER, *usual[1:])
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(turn)
        gc.set_threshold(*usual)


@contextmanager
def _calls(source: Source, project_id: str, account: ApiAccount) -> Iterator[list[Calls]]:
    """A way to the API of an account, and the source's lines, which take their turns together."""
    paces = {kind: pace.times(account.allowance) for kind, pace in source.paces.items()}
    with connect("jobs", autocommit=True) as jobs:
        # To lose the last turns with a crash does no harm; to wait for the disk at each call does.
        jobs.execute("set synchronous_commit = off")
        turns = Turns(jobs, Account(source.name, project_id), paces)
        with ExitStack() as opened:
            calls = [source.open(turns, account) for _ in range(1 + source.lines)]
            for each in calls:
                opened.enter_context(each.api)
            yield calls


@contextmanager
def _alone(source: Source, project_id: str) -> Iterator[Session]:
    """A session of the loader's; no other process loads the account meanwhile."""
    try:
        with connect("loader", autocommit=True) as session:
            name = f"stageline.load.{source.name}.{project_id}"
            row = session.execute(
                "select pg_try_advisory_lock(hashtextextended(%s, 0))", [name]
            ).fetchone()
            if not (row and row[0]):
                raise StagelineError(
                    f"Another process is loading {source.name} project {project_id}. Wait for it;"
                    " `stageline status` shows loads."
                )
            yield session
    except psycopg.OperationalError as error:
        raise StagelineError(
            f"{cut_short(error, ' during the load')}. Run it again; what was loaded already is not"
            " loaded twice."
        ) from None


class _Load:
    """A load under way."""

    def __init__(
        self,
        source: Source,
        account: Account,
        base_url: str,
        session: Session,
        calls: Calls,
        done: CrmLoad,
        *,
        lines: Sequence[Calls],
        dry_run: bool,
    ) -> None:
        self._source, self._account, self._base_url = source, account, base_url
        self._of: dict[str, str | None] = {"base_url": base_url}
        self._session, self._calls, self._lines = session, calls, lines
        self._done, self._dry_run = done, dry_run
        self._rejects = rejects_of(source.dataset)
        self._rows = {table: Rows(table) for table in (*source.tables, self._rejects)}
        self._positions: dict[str, Position] = {}
        self._landed_at = time.monotonic()
        self._began_at = datetime.now(UTC)
        self._lander = ThreadPoolExecutor(1)
        self._landing: Future[None] | None = None

    def run(self, since: datetime | None, is_full: bool) -> None:
        """Loads every resource, then looks for what is gone."""
        known = positions.all_of(self._session, self._account)
        is_first = not known
        before = known.get("account")
        if before is not None and not is_full:
            self._require_address(before["base_url"])
        self._of["id"] = self._identity(before)
        until = self._began_at.replace(microsecond=0)
        earliest = self._since(known, since, until)
        if "backfill" not in known or _instant(known["backfill"]["since"]) > earliest:
            # Kept before the first page: the same command goes on with it, however often it stops.
            known = {}
            if not self._dry_run:
                positions.begin(
                    self._session, self._account, "backfill", {"since": earliest.isoformat()}
                )
        pull = Pull(*(self._account.project_id, self._calls, until, earliest, is_full, self._lines))
        if is_first and not self._dry_run:  # while the first pages are fetched
            self._lander.submit(get_ready)
        try:
            for resource in self._source.resources:
                position = None if is_full else known.get(resource.name)
                self._land_before(resource)
                self._resource(resource, pull, position)
        finally:  # what came before an error is loaded all the same
            self._land()
        if not self._dry_run:
            by = f"load {self._source.name}"
            self._done.warnings += name_by_keys(ProjectKey(*self._account), changed_by=by)
        fetched = 0
        for sweep in self._source.sweeps:
            if is_first and sweep.every:  # all that there is has just been listed
                self._keep(_sweep_name(sweep), {"at": pull.until.isoformat()})
            else:
                fetched += self._sweep(sweep, pull, known.get(_sweep_name(sweep)))
        if fetched:
            self._look_again(replace(pull, is_full=False))

    def _look_again(self, pull: Pull) -> None:
        """Brings what belongs to records that a sweep has brought, which no resource knew of."""
        known = positions.all_of(self._session, self._account)
        for resource in self._source.resources:
            if resource.looks_up:
                self._resource(resource, pull, known.get(resource.name))
                self._land()

    def _identity(self, before: Position | None) -> str | None:
        """What the CRM calls the account, which has to be what it was called before.

        Many accounts are behind one address, and two of them number their deals alike: what came
        of one is never taken for the other's.
        """
        known = None if before is None else before.get("id")
        try:
            found = identifier(self._source.identify(self._calls))
        except RefusedError as error:
            if error.concerns_account:
                raise
            return known
        if found is None or known in (None, found):
            return found or known
        source, project = self._account
        raise StagelineError(
            f"Project {project} of {source} holds account {known} of {self._source.title}, and its"
            f" token opens account {found}. Give that one a project of its own (`stageline projects"
            f" add {source} NAME`, `stageline projects api {source} NAME`)."
        )

    def _require_address(self, before: str) -> None:
        """Positions of one account say nothing of another, and deals of two must not mix."""
        if before != self._base_url:
            source, project = self._account
            raise StagelineError(
                f"Project {project} of {source} was loaded from {before}, and its account is now at"
                f" {self._base_url}. Give another account a project of its own (`stageline projects"
                f" add {source} NAME`); if it is the same one at a new address, run it once with"
                " --full."
            )

    def _since(
        self, known: Mapping[str, Position], since: datetime | None, until: datetime
    ) -> datetime:
        if since is not None:
            return since
        return _instant(known["backfill"]["since"]) if "backfill" in known else until - BACKFILL

    def _resource(self, resource: Resource, pull: Pull, position: Position | None) -> None:
        title = f"Load {resource.name} of {self._source.title} {self._account.project_id}"
        with step(title, is_counted=True) as shown:
            try:
                self._pages(resource.name, resource.pull(pull, position), shown)
            except RefusedError as error:
                if error.concerns_account:
                    raise
                if not resource.is_optional:
                    raise StagelineError(
                        f"{self._source.title} refuses {resource.name} of project"
                        f" {self._account.project_id}: {error}. It needs {resource.needs}."
                    ) from None
                self._done.left_out[resource.name] = f"{error}; it needs {resource.needs}"
                log().warning("left out", resource=resource.name, reason=str(error))

    def _pages(self, name: str, pages: Iterator[Page], shown: Step) -> None:
        """Reads pages, and loads them as soon as they are many; the rest waits for others'."""
        count = 0
        for page in ahead(pages, _size, RECORDS_AHEAD):
            count += self._read(page)
            shown.show(count, page.expected)
            if page.position is not None:
                self._positions[name] = page.position
            if page.stages is not None:
                self._take_stages(page.stages)
            if self._is_part():
                self._begin_to_land()
        shown.note(records=count)

    def _read(self, page: Page) -> int:
        fetched_at = datetime.now(UTC)
        for table, records in page.records.items():
            self._rows[table].read(records, fetched_at)
        for table, rejects in page.rejects.items():
            self._rows[table].rejects += [(as_json(each), reason) for each, reason in rejects]
        return _size(page)

    def _is_part(self) -> bool:
        return (
            self._waiting() >= (PART_ROWS if self._is_landing() else EARLY_ROWS)
            or sum(rows.size for rows in self._rows.values()) >= PART_BYTES
            or time.monotonic() > self._landed_at + PART_SECONDS
        )

    def _waiting(self) -> int:
        """Rows that wait to be landed."""
        return sum(map(len, self._rows.values()))

    def _is_landing(self) -> bool:
        return self._landing is not None and not self._landing.done()

    def _land_before(self, resource: Resource) -> None:
        """Lands what a resource looks up, and else what is worth it while the resource fetches."""
        if any(len(self._rows[table]) for table in resource.looks_up):
            self._begin_to_land()
        if resource.looks_up:
            self._await_landed()
        if self._waiting() >= LEFT_ROWS and not self._is_landing():
            self._begin_to_land()

    def _land(self) -> None:
        """Brings the rows that wait to the database, then keeps the positions after them."""
        self._begin_to_land()
        self._await_landed()

    def _await_landed(self) -> None:
        if self._landing is not None:
            self._landing.result()

    def _begin_to_land(self) -> None:
        """Lands the rows that wait while more is fetched and read; one part after the other. After
        one that failed none is landed: the positions of later ones would pass over its rows.
        """
        self._await_landed()
        # Taken out first: a position is never kept after rows that an error kept from landing.
        passed, self._positions = self._positions, {}
        self._set_rejects_aside()
        part = []
        for table, rows in self._rows.items():
            if (read := rows.take(self._account.project_id)) is not None:
                if table.name in self._done.tables:
                    done = self._done.tables[table.name]
                    done.read += read.num_rows
                    done.unreadable = dict(rows.unreadable)
                part.append((table, read))
        self._landed_at = time.monotonic()
        self._landing = self._lander.submit(self._bring, part, passed)

    def _bring(
        self, part: Sequence[tuple[Table, pa.Table]], passed: Mapping[str, Position]
    ) -> None:
        if part:  # only what has answered is the account of this project
            self._keep("account", self._of)
        if not self._dry_run:
            news = [(table, new) for table, read in part if len(new := self._new(table, read))]
            for is_last in (False, True):
                self._merge([(table, new) for table, new in news if table.lands_last is is_last])
        for name, position in passed.items():
            self._keep(name, position)

    def _set_rejects_aside(self) -> None:
        """Makes rows of the records that fit into none, too."""
        found_at = datetime.now(UTC)
        for rows in list(self._rows.values()):
            rows.finish()
            if rows.rejects:
                name = rows.table.name
                self._done.tables[name].rejected += len(rows.rejects)
                self._rows[self._rejects].read(
                    [
                        {"table_name": name, "record": record, "reason": reason}
                        for record, reason in rows.rejects
                    ],
                    found_at,
                )
                rows.rejects.clear()

    def _merge(self, part: Sequence[tuple[Table, pa.Table]]) -> None:
        if not part:
            return
        with exclusive(self._source.dataset) as session:
            targets = [
                Target(
                    table.name,
                    table.full_key,
                    partial(iter, [rows]),
                    is_new=self._are_new(session, table, rows),
                )
                for table, rows in part
            ]
            load_id = land(session, self._source.dataset, targets)
            for (table, rows), target in zip(part, targets, strict=True):
                if table.name in self._done.tables:
                    self._done.tables[table.name].touched += (
                        rows.num_rows
                        if target.is_new
                        else touched(session, self._source.dataset, target, load_id)
                    )
            clear_scratch(session, self._source.dataset, targets)

    def _are_new(self, session: Session, table: Table, rows: pa.Table) -> bool:
        """Whether no row is there that begins with the same part of the key as one of these."""
        # One text of JSON: a list would be written value by value, which takes many times as long.
        keys = json.dumps(pc.unique(rows[table.key[0]]).to_pylist())
        found = session.execute(
            sql.SQL(
                "select exists (select from {} where project_id = %s"
                " and {} = any(array(select jsonb_array_elements_text(%s::jsonb))))"
            ).format(sql.Identifier(table.dataset, table.name), sql.Identifier(table.key[0])),
            [self._account.project_id, keys],
        ).fetchone()
        return found == (False,)

    def _new(self, table: Table, read: pa.Table) -> pa.Table:
        """The rows that were read; of few, those that differ from what is there. To land none at
        all is what makes a load quick that finds nothing.
        """
        if read.num_rows > _COMPARED:
            return read
        keys = list(zip(*(read[name].to_pylist() for name in table.key), strict=True))
        there = self._session.execute(
            sql.SQL("select {}, {} from {} where project_id = %s and {} = any(%s)").format(
                sql.SQL(", ").join(map(sql.Identifier, table.key)),
                sql.Identifier(FINGERPRINT),
                sql.Identifier(table.dataset, table.name),
                sql.Identifier(table.key[0]),
            ),
            [self._account.project_id, list({key[0] for key in keys})],
        ).fetchall()
        known = {tuple(key): mark for *key, mark in there}
        marks = read[FINGERPRINT].to_pylist()
        return read.filter(
            pa.array([known.get(key) != mark for key, mark in zip(keys, marks, strict=True)])
        )

    def _keep(self, resource: str, position: Position) -> None:
        if not self._dry_run:
            positions.save(self._session, self._account, resource, position)

    def _take_stages(self, stages: Sequence[Mapping[str, Any]]) -> None:
        if not self._dry_run:
            STAGES.take_over(*self._account, stages, changed_by=f"load {self._source.name}")

    def _sweep(self, sweep: Sweep, pull: Pull, last: Position | None) -> int:
        """Marks what is gone, and brings what was missed; gives how much that was."""
        if self._dry_run or not (
            pull.is_full
            or last is None
            or _instant(last["at"]) <= pull.until - sweep.every + min(sweep.every, _EARLY)
        ):
            return 0
        name = sweep.table.name
        # Of the account alone, which nobody else loads meanwhile.
        mark = sha256(self._account.project_id.encode()).hexdigest()[:16]
        alive = sql.Identifier(f"{self._source.dataset}_staging", f"alive_{mark}")
        with step(f"Look for {name} that are gone") as shown:
            try:
                _keep_ids(self._session, alive, sweep.ids(pull))
            except RefusedError as error:  # of what the account does not open, nothing is known
                if error.concerns_account:
                    raise
                log().warning("not looked for", table=name, reason=str(error))
                return 0
            gone = self._session.execute(
                _of(_MARK_GONE, sweep, alive),
                {"project": self._account.project_id, "began_at": self._began_at},
            ).rowcount
            missed = [
                str(row[0])
                for row in self._session.execute(
                    _of(_MISSED, sweep, alive), {"project": self._account.project_id}
                )
            ]
            self._session.execute(sql.SQL("drop table {}").format(alive))
            for start in range(0, len(missed), _ASKED_AT_ONCE):
                part = missed[start : start + _ASKED_AT_ONCE]
                self._pages(name, sweep.fetch(pull, part), shown)
            self._land()
            self._done.tables[name].gone += gone
            shown.note(gone=gone, missed=len(missed))
        self._keep(_sweep_name(sweep), {"at": pull.until.isoformat()})
        return len(missed)


def _size(page: Page) -> int:
    return sum(map(len, page.records.values()))


def _keep_ids(
    session: Session, alive: sql.Identifier, parts: Iterator[Sequence[tuple[str, bool]]]
) -> None:
    """Keeps ids in a scratch table; unlogged, as it is worth nothing after a crash."""
    session.execute(sql.SQL("drop table if exists {}").format(alive))
    session.execute(
        sql.SQL("create unlogged table {} (id text primary key, is_wanted boolean)").format(alive)
    )
    insert = sql.SQL(
        "insert into {} select * from unnest(%s::text[], %s::boolean[]) on conflict do nothing"
    ).format(alive)
    fetched: Iterator[Sequence[tuple[str, bool]]] = ahead(parts, len, RECORDS_AHEAD)
    ids = chain.from_iterable(fetched)
    while part := list(islice(ids, _KEPT_AT_ONCE)):
        session.execute(insert, [[each for each, _ in part], [is_wanted for _, is_wanted in part]])
    session.execute(sql.SQL("analyze {}").format(alive))


# A row that is found again differs from every fingerprint, so that the next load of it counts.
_MARK_GONE = """
update {table} as mine
set is_gone = true, gone_seen_at = clock_timestamp(), _dlt_id = 'gone'
where
    project_id = %(project)s
    and not is_gone
    and fetched_at < %(began_at)s
    and not exists (select from {alive} as alive where alive.id = mine.{id})
"""

_MISSED = """
select alive.id
from {alive} as alive
where
    is_wanted
    and not exists (
        select from {table} as mine
        where mine.project_id = %(project)s and mine.{id} = alive.id and not mine.is_gone
    )
order by 1
"""


def _of(query: str, sweep: Sweep, alive: sql.Identifier) -> sql.Composed:
    return sql.SQL(query).format(
        alive=alive,
        table=sql.Identifier(sweep.table.dataset, sweep.table.name),
        id=sql.Identifier(sweep.table.key[0]),
    )


def _sweep_name(sweep: Sweep) -> str:
    return f"sweep of {sweep.table.name}"


def _instant(written: str) -> datetime:
    return datetime.fromisoformat(written)
