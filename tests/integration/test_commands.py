"""The commands around the database, as a person or a script calls them."""

import subprocess
import sys

import psycopg
import pytest

from stageline.database import Connection, connect


def stageline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a child process."""
    return subprocess.run(
        [sys.executable, "-m", "stageline", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_psql_gives_the_bare_answer_to_a_script(database: Connection) -> None:
    result = stageline("psql", "--", "-Atc", "select current_user, current_database()")
    assert (result.returncode, result.stdout) == (0, f"stageline_reader|{database.dbname}\n")


@pytest.mark.usefixtures("database")
def test_the_reader_of_psql_cannot_write() -> None:
    with connect("transformer", autocommit=True) as session:
        session.execute("create table kpis.numbers as select 1 as one")
        session.execute("grant select on kpis.numbers to stageline_reader")
    assert stageline("psql", "--", "-Atc", "select one from kpis.numbers").stdout == "1\n"
    refused = stageline("psql", "--", "-Atc", "insert into kpis.numbers values (2)")
    assert refused.returncode != 0
    assert "read-only transaction" in refused.stderr
    forced = stageline(
        "psql",
        "--",
        "-Atc",
        "set default_transaction_read_only = off",
        "-c",
        "delete from kpis.numbers",
    )
    assert forced.returncode != 0
    assert "permission denied" in forced.stderr
    with connect("reader") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("table raw_files.leads")
