"""A real PostgreSQL for the tests: one embedded server a run, one fresh database a test."""

import gc
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from jobs.build import BuildReport, read_results
from stageline import config, dbt_environment, migrate, roles
from stageline import server as embedded
from stageline.database import Connection, connect, connection
from tests.checkout import Said, copy, stageline
from tests.warm_dbt import WarmDbt

TEMPLATE = "stageline_template"

#: The database of the test that runs. One name for all of them: what dbt has read of the project
#: holds for the database that it was read for, and reading it anew takes longer than most builds.
DATABASE = "stageline"

#: What ``DATABASE`` is called when the sample is built in it.
SAMPLE = "stageline_sample"

#: Modules that use the sample or the warm dbt. To build the one and to read the project for the
#: other takes a minute, so that one process has them all.
OF_DBT = (
    "test_kpis",
    "test_demo",
    "test_activity_oracle",
    "test_activity_incremental",
    "test_alert_replay",
    "test_call_hours",
    "test_crm_models",
    "test_explain",
    "test_flow_figures",
    "test_flow_incremental",
    "test_flow_oracle",
    "test_kpi_oracle",
    "test_live_orders",
    "test_map_simulation",
    "test_orders_oracle",
    "test_partial_builds",
    "test_pipeline_export",
    "test_pipeline_items",
    "test_plots",
    "test_readme",
    "test_real_log",
    "test_restore",
    "test_sales_activity",
    "test_sales_forecast",
    "test_semantic_layer",
    "test_stage_intervals",
    "test_staging_of_webhooks",
    "test_table_export",
    "test_webhook_stats",
)

#: Modules that take long. Those that often wait come first: meanwhile dbt has the processors.
LONG = (
    *OF_DBT,
    "test_receiver_outages",
    "test_receiver",
    "test_worker",
    "test_run",
    "test_crash",
    "test_receiver_inputs",
    "test_load_hubspot",
    "test_load_file",
    "test_load_pipedrive",
    "test_build",
    "test_refresh",
    "test_quality",
    "test_load_salesforce",
    "test_working_time",
    "test_server",
    "test_salesforce_cases",
    "test_load_keycrm",
    "test_stage_map_settings",
    "test_commands",
    "test_own_server",
    "test_notifications",
    "test_receiver_fuzz",
    "test_refresh_runs",
    "test_archive",
    "test_backup",
    "test_rule_settings",
    "test_projects",
)

#: Servers have their data in memory where there is room: each test makes and removes a thousand
#: files, and a file system on a disk gets slower the more of them were removed a moment ago.
MEMORY, DISK = Path("/dev/shm"), Path("/tmp")  # noqa: S108 - the folder in them is made by mkdtemp

#: Bytes that are room enough for two of them.
ROOM = 4 * 2**30

_numbers = itertools.count(1)

# What is imported lives to the end: Python need not look through it again and again.
gc.set_threshold(50_000, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long modules first: of several processes, none is to wait for one of them in the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        if "sample" in _fixtures(item):  # whoever comes first waits for the demo
            item.add_marker(pytest.mark.timeout(600))
    of_dbt = {item.path.stem for item in items if {"dbt", "sample"} & {*_fixtures(item)}}
    assert of_dbt <= {*OF_DBT}, f"OF_DBT of {__file__} lacks {of_dbt - {*OF_DBT}}"


def _fixtures(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


class _Scheduling(LoadFileScheduling):
    """Files are kept together, and those of `OF_DBT` with each other."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "of dbt" if Path(file).stem in OF_DBT else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling | None:
    """How ``--dist loadfile`` hands the tests out."""
    return _Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@dataclass(frozen=True)
class TestServer:
    """The embedded server of this test run.

    Attributes:
        home: Its folder (``STAGELINE_HOME``).
        port: Its TCP port on 127.0.0.1.
    """

    __test__ = False

    home: Path
    port: int

    @property
    def credentials(self) -> dict[str, str]:
        """Password by login."""
        passwords: dict[str, str] = json.loads((self.home / "credentials.json").read_text())
        return passwords


@pytest.fixture(scope="session", autouse=True)
def _no_configuration_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the machine's own settings, and the demo's database, out of every test."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("STAGELINE_", "PG", "DBT_")):
            del os.environ[name]
    # Nothing is to read or write the checkout's own `.env` or `.stageline`.
    nothing = tmp_path_factory.mktemp("nothing")
    os.environ["STAGELINE_ENV_FILE"] = str(nothing / ".env")
    os.environ["STAGELINE_HOME"] = str(nothing / "home")
    config.settings.cache_clear()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder of the test run that every account may enter (pytest's own ones are private)."""
    has_room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    where = MEMORY if has_room else DISK
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        _remove_left_over(where)
    folder = Path(tempfile.mkdtemp(prefix=f"stageline-tests-{os.getpid()}-", dir=where))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(where: Path) -> None:
    """Ends servers of runs that were killed: what they have there takes up memory."""
    for folder in where.glob("stageline-tests-*-*"):
        is_ours = folder.stat().st_uid == os.getuid()
        if is_ours and not psutil.pid_exists(int(folder.name.split("-")[2])):
            for data in (*folder.glob("*/postgres"), *folder.glob("*/.stageline/postgres")):
                embedded.stop(data.parent)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(short_folder: Path, _no_configuration_of_the_user: None) -> Iterator[TestServer]:
    """The embedded server, with a migrated database to clone."""
    home = short_folder / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGELINE_HOME", str(home))
        config.settings.cache_clear()
        running = embedded.start(home, 55432, durable=False)
        try:
            migrate.upgrade()
            _rename(home, "stageline", TEMPLATE)
            patch.undo()
            config.settings.cache_clear()
            yield TestServer(home, running.port)
        finally:
            embedded.stop(home)


def _rename(home: Path, name: str, new: str) -> None:
    with embedded.superuser(home) as session:
        session.execute(
            sql.SQL("alter database {} rename to {}").format(
                sql.Identifier(name), sql.Identifier(new)
            )
        )


@contextmanager
def _clone(
    server: TestServer,
    template: str,
    folder: Path,
    patch: pytest.MonkeyPatch,
    name: str | None = None,
) -> Iterator[Connection]:
    name = name or f"test_{next(_numbers)}"
    identifier = sql.Identifier(name)
    home = folder / "stageline_home"
    home.mkdir()
    home.chmod(0o711)
    (home / "postgres").symlink_to(server.home / "postgres")
    (home / "credentials.json").symlink_to(server.home / "credentials.json")
    (home / "server.json").write_text(json.dumps({"port": server.port, "dbname": name}))
    patch.setenv("STAGELINE_HOME", str(home))
    patch.setenv("STAGELINE_ENV_FILE", str(folder / ".env"))
    patch.setenv("STAGELINE_OUTPUT", str(folder / "output"))
    patch.delenv("STAGELINE_DATABASE_URL", raising=False)
    config.settings.cache_clear()
    with embedded.superuser(server.home) as session:
        session.execute(
            sql.SQL(
                "create database {} template {} strategy file_copy owner stageline_owner"
            ).format(identifier, sql.Identifier(template))
        )
    try:
        for variable, value in dbt_environment.variables().items():
            patch.setenv(variable, value)
        owner = connection("owner")
        with psycopg.connect(**owner.libpq(), autocommit=True) as session:
            roles.set_rights(session)  # a clone does not inherit who may connect
        yield owner
    finally:
        with embedded.superuser(server.home) as session:
            session.execute(sql.SQL("drop database if exists {} with (force)").format(identifier))
        config.settings.cache_clear()


@pytest.fixture
def database(
    server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """A fresh, migrated database; everything that reads the configuration uses it.

    The environment also holds what the dbt profile reads, and ``STAGELINE_OUTPUT`` is a folder of
    the test's own, so a command started as a child process works on this database, too.
    """
    with _clone(server, TEMPLATE, tmp_path, monkeypatch, DATABASE) as owner:
        yield owner


@dataclass(frozen=True)
class Sample:
    """A database in which the sample and the demo source are loaded, built and tested.

    Attributes:
        server: The server that it is on.
        owner: How its owner reaches it.
        report: What dbt built and tested.
        checkout: Where ``stageline demo`` made all of it, from nothing.
        said: What that wrote.
    """

    server: TestServer
    owner: Connection
    report: BuildReport
    checkout: Path
    said: Said

    @property
    def target_path(self) -> Path:
        """dbt's folder; its parse is reused by every later build of the run."""
        return self.checkout / "target"


@pytest.fixture(scope="session")
def sample(short_folder: Path, _no_configuration_of_the_user: None) -> Iterator[Sample]:
    """The sample database of this test run. Only read it; ``sample_database`` may be changed."""
    checkout = short_folder / "checkout"
    copy(checkout)
    home = checkout / ".stageline"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGELINE_HOME", str(home))
        patch.setenv("STAGELINE_OUTPUT", str(checkout / "output"))
        patch.setenv("STAGELINE_ENV_FILE", str(checkout / ".env"))
        patch.setenv("STAGELINE_PORT", "55433")
        config.settings.cache_clear()
        try:
            said = stageline(checkout, "demo")
            with connect("jobs") as session:
                (build_id, invocation_id, started), *_ = session.execute(
                    "select build_id, invocation_id, started_at from ops.builds"
                    " order by started_at desc"
                )
            nodes = read_results(checkout / "target", invocation_id, started)
            embedded.stop(home)
            running = embedded.start(home, 55433, durable=False)
            owner = connection("owner")
            _rename(home, owner.dbname, SAMPLE)
            patch.undo()
            config.settings.cache_clear()
            yield Sample(
                TestServer(home, running.port),
                replace(owner, dbname=SAMPLE),
                BuildReport(build_id, started, invocation_id, nodes),
                checkout,
                said,
            )
        finally:
            embedded.stop(home)


@pytest.fixture(scope="session")
def dbt(short_folder: Path) -> Iterator[WarmDbt]:
    """The dbt of this test run, for databases that are called ``DATABASE``."""
    warm = WarmDbt(short_folder / "warm_dbt", short_folder / "checkout" / "target")
    yield warm
    warm.end()


@pytest.fixture
def sample_database(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """A copy of the sample database, to build on and to break; configured like ``database``."""
    with _clone(sample.server, SAMPLE, tmp_path, monkeypatch, DATABASE) as owner:
        yield owner
