"""How rows reach the database through dlt: one pipeline per target, one load at a time.

dlt keeps nothing between loads here: its working folder is emptied first, so a package that a
crash left behind can never block or repeat itself. That is safe because every load can be done
again: rows are merged by key, and rows that are equal to what is there are not touched.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
import pyarrow as pa
from psycopg import sql

from stageline.config import settings
from stageline.database import connect, connection, cut_short
from stageline.errors import StagelineError
from stageline.progress import step

if TYPE_CHECKING:
    from types import ModuleType

    from adbc_driver_manager.dbapi import Connection, _SharedDatabase

#: Column that holds a fingerprint of the row's content; a row is rewritten when it differs.
FINGERPRINT = "_dlt_id"


@dataclass(frozen=True)
class Target:
    """Rows for one table.

    Attributes:
        table: Its name; it exists already.
        key: Columns by which rows are merged.
        tables: Gives the rows, as Arrow tables of the table's types.
        fingerprinted: The rows carry ``FINGERPRINT``; otherwise all columns are compared.
        is_new: All keys are new: one table of rows, which is appended by one statement.
    """

    table: str
    key: tuple[str, ...]
    tables: Callable[[], Iterator[pa.Table]]
    fingerprinted: bool = True
    is_new: bool = False


@contextmanager
def exclusive(dataset: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of the loader's (autocommit) that alone may load into ``dataset`` meanwhile.

    Waits for a load that is under way. The lock goes with the session, also when the process dies.

    Raises:
        StagelineError: the database cannot be reached, or goes away meanwhile.
    """
    try:
        with connect("loader", autocommit=True) as session:
            name = f"stageline.load.{dataset}"
            row = session.execute(
                "select pg_try_advisory_lock(hashtextextended(%s, 0))", [name]
            ).fetchone()
            if not (row and row[0]):
                with step("Wait for another load to end"):
                    session.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [name])
            yield session
    except psycopg.OperationalError as error:
        raise StagelineError(
            f"{cut_short(error, ' during the load')}: {_reason(error)}. Run it again; what was"
            " loaded already is not loaded twice."
        ) from None


def land(
    session: psycopg.Connection[Any],
    dataset: str,
    targets: list[Target],
    on_merge: Callable[[], None] = lambda: None,
) -> str:
    """Merges the rows of all ``targets`` into ``dataset``, as one dlt package; returns its load id.

    The rows are copied to scratch tables of ``<dataset>_staging``, then merged by one statement a
    table. The scratch tables stay (``clear_scratch``), so that the caller can compare. Where all
    keys are new, the rows are copied to their table, which saves most of the database's work.

    Args:
        session: From ``exclusive(dataset)``.
        dataset: Schema of the tables.
        targets: What to load; a target without any row must be left out.
        on_merge: Called when all rows are read and the database's part begins.

    Raises:
        StagelineError: dlt or the database failed; the tables are as before.
    """
    dlt = _dlt()
    name = "_".join([dataset, *(target.table for target in targets)])
    folder = settings().home / "dlt" / "pipelines"
    shutil.rmtree(folder / name, ignore_errors=True)
    clear_scratch(session, dataset, targets)
    for target in targets:
        if target.is_new:
            continue
        # unlogged: a scratch table is worth nothing after a crash
        session.execute(
            sql.SQL("create unlogged table {} (like {} including defaults)").format(
                sql.Identifier(f"{dataset}_staging", target.table),
                sql.Identifier(dataset, target.table),
            )
        )
    try:
        pipeline = dlt.pipeline(
            name,
            pipelines_dir=str(folder),
            dataset_name=dataset,
            destination=dlt.destinations.postgres(_url(), create_indexes=False),
        )
        pipeline.extract([_resource(dlt, target) for target in targets])
        on_merge()
        pipeline.normalize()
        info = pipeline.load()
    except StagelineError:
        raise
    except Exception as error:  # noqa: BLE001 - dlt wraps whatever happens; a user gets one line
        if own := _own_error(error):
            raise own from None
        raise StagelineError(
            f"The load into {dataset} failed and changed nothing: {_reason(error)}."
            " Run it again; if it fails again, run `stageline doctor`."
        ) from None
    finally:
        shutil.rmtree(folder / name, ignore_errors=True)
    return str(info.loads_ids[0])


def get_ready() -> None:
    """Reads in what landing needs, which takes half a second when it is first done."""
    _dlt()


def clear_scratch(session: psycopg.Connection[Any], dataset: str, targets: list[Target]) -> None:
    """Drops the scratch tables. Waits for a merge that a killed load left running in the server."""
    for target in targets:
        session.execute(
            sql.SQL("drop table if exists {}").format(
                sql.Identifier(f"{dataset}_staging", target.table)
            )
        )


def touched(session: psycopg.Connection[Any], dataset: str, target: Target, load_id: str) -> int:
    """How many of the scratch table's rows were new or changed in load ``load_id``."""
    same_key = sql.SQL(" and ").join(
        sql.SQL("landed.{0} = scratch.{0}").format(sql.Identifier(column)) for column in target.key
    )
    row = session.execute(
        sql.SQL(
            "select count(*) from {} as scratch inner join {} as landed on {}"
            " where landed._dlt_load_id = %s"
        ).format(
            sql.Identifier(f"{dataset}_staging", target.table),
            sql.Identifier(dataset, target.table),
            same_key,
        ),
        [load_id],
    ).fetchone()
    return int(row[0]) if row else 0


def _dlt() -> "ModuleType":
    """dlt, told beforehand to call nobody, to log no rows, and where to keep its files."""
    os.environ.update(
        RUNTIME__DLTHUB_TELEMETRY="false",
        RUNTIME__LOG_LEVEL="CRITICAL",
        DLT_DATA_DIR=str(settings().home / "dlt"),
        LOAD__DELETE_COMPLETED_JOBS="true",
        # small files and few at a time: each is held in memory while it is copied
        DATA_WRITER__FILE_MAX_ITEMS="50000",
        DATA_WRITER__BUFFER_MAX_ITEMS="1",
        # a group is written as a whole, then sent: the database has the one before to work on
        DATA_WRITER__ROW_GROUP_SIZE="20000",
        LOAD__WORKERS="1",
    )
    import dlt
    from dlt.common.runtime import anon_tracker
    from dlt.destinations.impl.postgres.postgres import PostgresParquetCopyJob as CopyJob

    # Even with telemetry off it would make an id of this machine and keep it in ~/.dlt or /var/dlt.
    anon_tracker.get_anonymous_id = lambda: "none"
    # Its own way reads all types and columns of the database for each file that it copies.
    CopyJob._connect = _copying  # type: ignore[assignment,method-assign]  # no setting of dlt's
    return dlt


def _copying(job: Any) -> "Connection":
    """The session in which dlt's ``job`` copies its file."""
    from adbc_driver_manager import AdbcConnection
    from adbc_driver_manager.dbapi import Connection

    driver = _driver(job._job_client.config.credentials.to_native_representation())
    return Connection(driver, AdbcConnection(driver._db))


@lru_cache(maxsize=1)
def _driver(uri: str) -> "_SharedDatabase":
    """The driver of sessions, which has read the types of the database; it keeps none open.

    All types of our columns are PostgreSQL's own: none that is made later has to be known.
    """
    from adbc_driver_manager import AdbcDatabase
    from adbc_driver_manager.dbapi import _SharedDatabase
    from dlt.destinations.impl.postgres.factory import get_adbc_driver_location

    return _SharedDatabase(AdbcDatabase(driver=get_adbc_driver_location(), uri=uri))


def _url() -> str:
    """How dlt reaches the database as the loader.

    dlt writes a blank in a URL's query as a plus, as forms do, and hands it to a driver that takes
    a plus for a plus (``options=-c role=...``). A tabulator parts options as well as a blank does.
    """
    login, _, query = connection("loader").url().partition("?")
    pairs = [
        (name, value.replace("-c ", "-c").replace(" ", "\t") if name == "options" else value)
        for name, value in parse_qsl(query)
    ]
    return f"{login}?{urlencode(pairs, quote_via=quote)}"


def _resource(dlt: Any, target: Target) -> Any:
    def tables() -> Iterator[pa.Table]:
        load_id = dlt.current.load_package_state()["load_id"]
        for table in target.tables():
            if not target.fingerprinted:
                yield table
            else:
                yield table.append_column(
                    pa.field("_dlt_load_id", pa.string(), nullable=False),
                    pa.repeat(load_id, table.num_rows),
                )

    merge: dict[str, Any] = {
        "disposition": "merge",
        "strategy": "upsert",
        "skip_unchanged_rows": True,
    }
    if target.fingerprinted:
        merge["row_version_column_name"] = FINGERPRINT
    return dlt.resource(
        tables,
        name=target.table,
        primary_key=list(target.key),
        write_disposition="append" if target.is_new else merge,
        file_format="parquet",
    )


def _own_error(error: BaseException) -> StagelineError | None:
    """The error of ours that dlt wrapped, if it is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StagelineError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _reason(error: BaseException) -> str:
    """The first line of the innermost error: later lines of the database's hold rows."""
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    lines = str(seen).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(seen).__name__
