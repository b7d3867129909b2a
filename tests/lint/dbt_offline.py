"""Runs the checks that need dbt's parser, without a database.

    python tests/lint/dbt_offline.py parse              dbt parse, every warning an error
    python tests/lint/dbt_offline.py lint [PATH...]     sqlfluff lint through the dbt templater
    python tests/lint/dbt_offline.py fix [PATH...]      sqlfluff fix, likewise

sqlfluff's dbt templater asks the database which tables there are before it compiles the first
model, and our models ask for nothing else. Here the answer is always "none", as in a new database,
so that style can be checked where there is no server.
"""

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

PROJECT = Path(__file__).resolve().parents[2]
#: dbt's own results stay as they are: these runs write beside them.
TARGET = "target/lint"
#: The profile asks for these; no connection is ever opened.
NOWHERE = {
    "HOST": "127.0.0.1",
    "PORT": "9",
    "USER": "nobody",
    "PASSWORD": "none",
    "DBNAME": "none",
    "ROLE": "",
    "TARGET": "prod",
}


class PassedOver(logging.Handler):
    """Counts the files that sqlfluff skips, which it only warns of.

    Attributes:
        count: How many there were.
    """

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Looks at one of sqlfluff's messages."""
        self.count += "Skipped file" in record.getMessage()


def parse() -> int:
    """Parses the project; a warning (a name that nothing has, an unused setting) is an error."""
    from dbt.cli.main import dbtRunner

    colours = "--use-colors" if sys.stdout.isatty() else "--no-use-colors"
    before = ["--quiet", "--warn-error", "--log-path", TARGET, colours]
    after = ["--no-partial-parse", "--target-path", TARGET, "--show-all-deprecations"]
    result = dbtRunner().invoke([*before, "parse", *after])
    if result.success:
        print("dbt knows every name")
    return 0 if result.success else 1


def sqlfluff(command: str, paths: list[str]) -> int:
    """Runs sqlfluff on ``paths``, or all SQL that dbt compiles; a file passed over is a failure."""
    from dbt.adapters.base.impl import BaseAdapter
    from sqlfluff.cli.commands import cli

    def assume_empty_database(self: Any, nodes: Iterable[Any], *_: Any, **__: Any) -> None:
        self.cache.update_schemas(
            {(n.database, n.schema and n.schema.lower()) for n in nodes if n.is_relational}
        )

    paths = paths or [str(p) for p in (Path("models"), Path("tests/data")) if any(p.rglob("*.sql"))]
    passed_over = PassedOver()
    logging.getLogger("sqlfluff").addHandler(passed_over)
    with patch.object(BaseAdapter, "set_relations_cache", assume_empty_database):
        try:
            cli.main(args=[command, "--processes", "2", *paths], standalone_mode=False)
        except SystemExit as ended:
            return int(ended.code or 0) or passed_over.count
    return passed_over.count


def main() -> int:
    """What the first argument names; 1 if there is anything to mend."""
    os.chdir(PROJECT)
    for name, value in NOWHERE.items():
        os.environ[f"STAGELINE_DBT_{name}"] = value
    os.environ["DBT_SEND_ANONYMOUS_USAGE_STATS"] = "false"
    match sys.argv[1:]:
        case ["parse"]:
            return parse()
        case ["lint" | "fix" as command, *paths]:
            return sqlfluff(command, paths)
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    sys.exit(main())
