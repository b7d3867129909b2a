"""Loads of fake CRMs, as tests make them: in this process, or in one of their own to be killed."""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from jobs.expectations import TABLES, Limits, rules
from jobs.quality import _dangling
from loaders.accounts import chosen
from loaders.crm import CrmLoad, load
from loaders.records import Table
from loaders.registry import SOURCES, source
from stageline.database import connect
from stageline.settings import api_accounts, projects
from tests.fakes.crm_server import TOKEN, CrmServer
from tests.receivers import use_key

PROJECT = "main"

#: The suite has time for one; more by, say, STAGELINE_TEST_SEEDS="2 3 4".
SEEDS = [int(seed) for seed in os.environ.get("STAGELINE_TEST_SEEDS", "1").split()]


def set_up(
    patch: pytest.MonkeyPatch,
    source_name: str,
    fake: CrmServer,
    *,
    project: str = PROJECT,
    token: str = TOKEN,
    allowance: float = 1_000_000,
) -> None:
    """Makes a project whose account is the fake's, which may be called as often as one likes."""
    use_key(patch)
    found = source(source_name)
    patch.setattr(
        f"{SOURCES[source_name].module}.SOURCE",
        replace(found, paces={kind: replace(p, grows=True) for kind, p in found.paces.items()}),
    )
    projects.add(source_name, project, currency="EUR", timezone="Europe/Kyiv")
    api_accounts.store(source_name, project, token, fake.base_url, allowance)


def load_now(source_name: str, project: str = PROJECT, **options: Any) -> CrmLoad:
    """Loads an account in this process."""
    (only,) = chosen(source_name, project)
    return load(source(source_name), project, only.account, **options)


def begin_load(
    source_name: str, project: str = PROJECT, *options: str
) -> "subprocess.Popen[bytes]":
    """Begins to load an account in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stageline", "load", source_name, "--project", project, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_some_time(
    child: "subprocess.Popen[bytes]", chance: random.Random, most_seconds: float
) -> bool:
    """Kills a load (-9) at some moment; False if it had ended by then."""
    time.sleep(chance.uniform(0.3, most_seconds))
    is_running = child.poll() is None
    child.kill()
    child.communicate()
    return is_running


def end_sessions() -> None:
    """What a load sees of a PostgreSQL that is restarted: all its sessions end."""
    with connect("owner", autocommit=True) as session:
        session.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where usename in ('stageline_loader', 'stageline_jobs') and pid != pg_backend_pid()"
        )


def rows(table: Table, project: str = PROJECT) -> list[dict[str, Any]]:
    """The rows of a table, with the transaction that wrote each (`written_by`)."""
    with (
        connect("loader", autocommit=True) as session,
        session.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(
            sql.SQL("select *, xmin::text as written_by from {} where project_id = %s").format(
                sql.Identifier(table.dataset, table.name)
            ),
            [project],
        ).fetchall()


def loose_ends(source_name: str, project: str = PROJECT) -> list[str]:
    """What tables of a CRM refer to and is not there, as the checks before a build look for it."""
    found = []
    with connect("transformer") as session:
        for table in TABLES:
            if table.schema != source(source_name).dataset:
                continue
            for rule in rules(table, now=datetime.now(UTC), limits=Limits(), rows_before=None):
                if rule.kind == "reference":
                    loose = _dangling(rule).replace("{batch}", table.name)
                    loose += " and child.project_id = %s"
                    if session.execute(loose, [project]).fetchall():  # type: ignore[arg-type]  # the check's text
                        found.append(f"{table.name}: {rule.about}")
    return found


def columns(session: psycopg.Connection[Any], table: Table) -> dict[str, str]:
    """Name and type of the columns that the migrations gave a table."""
    return dict(
        session.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = format('%%I.%%I', %s::text, %s::text)::regclass"
            " and attnum > 0 and not attisdropped",
            [table.dataset, table.name],
        ).fetchall()
    )
