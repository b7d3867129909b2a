"""Quality checks between load and build: raw data is checked before anything is built on it.

The rules are data (``jobs/expectations.py``); Great Expectations evaluates them in the database,
one suite per raw table, and renders them as Data Docs. Results are kept in ``ops.quality_runs`` and
``ops.quality_results``. No value of a row ever leaves the database: results hold counts only.
"""

import logging
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from jobs.data_docs import IndexRow, make_offline
from jobs.expectations import TABLES, Limits, RawTable, Rule, Severity, row_count_rules, rules
from jobs.expectations import limits as configured_limits
from loaders.entities import entity_named
from stageline.config import settings
from stageline.database import connect, connection
from stageline.errors import StagelineError
from stageline.progress import step

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

#: Holds the database URL while a check runs, so that no password is written to the context's files.
_URL_VARIABLE = "STAGELINE_QUALITY_DATABASE_URL"

#: Counts, but no values of rows: these may be personal data.
_RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}

#: Why a table has nothing to check.
Skipped = Literal["absent", "empty", "inactive"]


@dataclass(frozen=True)
class Result:
    """What came of one rule.

    Attributes:
        table: The table checked.
        rule: What had to hold.
        success: Whether it did.
        rows: Rows that were looked at, where the rule is about rows.
        failing: Rows for which it does not hold, where they can be counted.
        observed: What was found instead of counts (a row count, an instant), as text.
        error: Why the rule could not be evaluated; empty if it was.
    """

    table: RawTable
    rule: Rule
    success: bool
    rows: int | None = None
    failing: int | None = None
    observed: str = ""
    error: str = ""

    def sentence(self) -> str:
        """The failure as one line."""
        if self.error:
            return f'{self.table.name}: "{self.rule.about}" could not be checked: {self.error}'
        if self.failing is not None:
            among = f" of {self.rows:,}" if self.rows is not None else ""
            count = f"{self.failing:,}{among} row{'s' if (self.rows or self.failing) != 1 else ''}"
            return f'{self.table.name}: not so for {count}: "{self.rule.about}"'
        return (
            f'{self.table.name}: not so: "{self.rule.about}" (found {self.observed or "nothing"})'
        )


@dataclass
class Report:
    """What a run of the checks found."""

    run_id: uuid.UUID
    started_at: datetime
    docs: Path
    results: list[Result] = field(default_factory=list)
    skipped: list[tuple[RawTable, Skipped]] = field(default_factory=list)

    def failures(self, severity: Severity) -> list[Result]:
        """Results of that severity that did not hold."""
        return [r for r in self.results if not r.success and r.rule.severity == severity]

    @property
    def tables(self) -> list[RawTable]:
        """Tables that were checked, in order."""
        return list(dict.fromkeys(result.table for result in self.results))

    def of(self, table: RawTable) -> list[Result]:
        """Results of one table."""
        return [result for result in self.results if result.table == table]

    def rows(self, table: RawTable) -> int | None:
        """Rows that the table had."""
        counted = (r.rows for r in self.of(table) if r.rule.kind == "rows")
        return next(counted, None)

    def stop_on_critical(self) -> None:
        """Stops what would build on the data.

        Raises:
            StagelineError: a critical rule does not hold; the first one is named.
        """
        critical = self.failures("critical")
        if not critical:
            return
        more = f", and {len(critical) - 1} more" if len(critical) > 1 else ""
        raise StagelineError(
            f"Quality check failed, nothing was built: {critical[0].sentence()}{more}."
            f" The KPI tables of the last good build stay. Report: {self.docs / 'index.html'}"
        )


def run_checks(
    entity: str | None = None,
    *,
    as_of: datetime | None = None,
    limits: Limits | None = None,
) -> Report:
    """Checks the raw tables, keeps the results in ``ops`` and renders the Data Docs.

    Args:
        entity: Only the tables of this entity.
        as_of: Instant that the build will be made for, where that lies ahead.
        limits: Limits of age and row count; default: those of ``jobs/quality.yml``.

    Raises:
        StagelineError: no such entity, or the database cannot be reached.
    """
    if entity not in (None, *(table.entity.name for table in TABLES)):
        entity_named(str(entity))
    limits = limits or configured_limits()
    now = datetime.now(UTC)
    report = Report(uuid.uuid4(), now, settings().output / "data_docs")
    chosen = [table for table in TABLES if entity in (None, table.entity.name)]
    with connect("jobs", autocommit=True) as ops:
        ops.execute(
            "insert into ops.quality_runs (run_id, started_at) values (%s, %s)",
            (report.run_id, now),
        )
        before = _rows_before(ops, now)
        plan = _plan(chosen, report, before, max(now, as_of or now), limits)
        _evaluate(plan, report)
        _store(ops, report)
    return report


def _plan(
    tables: Sequence[RawTable],
    report: Report,
    rows_before: dict[tuple[str, str], int],
    now: datetime,
    limits: Limits,
) -> list[tuple[RawTable, list[Rule]]]:
    """Which rules to evaluate on which table; notes in the report what has nothing to check."""
    plan: list[tuple[RawTable, list[Rule]]] = []
    with connect("transformer", autocommit=True) as database:
        for table in tables:
            before = rows_before.get((table.schema, table.table))
            state = _state(database, table)
            if state is None:
                plan.append((table, rules(table, now=now, limits=limits, rows_before=before)))
            elif state == "empty" and before:
                plan.append((table, row_count_rules(limits.row_count, before)))
            elif not table.is_answer:  # nobody misses what a CRM has none of
                report.skipped.append((table, state))
    return plan


def _state(database: psycopg.Connection[Any], table: RawTable) -> Skipped | None:
    if table.project is not None:
        active = database.execute(
            "select 1 from settings.projects"
            " where source_system = %s and project_id = %s and is_active",
            table.project,
        ).fetchone()
        if active is None:
            return "inactive"
    name = sql.Identifier(table.schema, table.table)
    found = database.execute("select to_regclass(%s)", (name.as_string(database),)).fetchone()
    if found is None or found[0] is None:
        return "absent"
    rows = database.execute(sql.SQL("select 1 from {} limit 1").format(name)).fetchone()
    return "empty" if rows is None else None


def _rows_before(ops: psycopg.Connection[Any], now: datetime) -> dict[tuple[str, str], int]:
    """Rows of each table at the last check of an earlier day (UTC)."""
    found = ops.execute(
        """
        select distinct on (schema_name, table_name)
            schema_name, table_name, (observed ->> 'rows')::bigint
        from ops.quality_results
        where expectation = 'rows'
            and observed ->> 'rows' is not null
            and checked_at < date_trunc('day', %s::timestamptz, 'UTC')
        order by schema_name, table_name, checked_at desc
        """,
        (now,),
    )
    return {(schema, table): rows for schema, table, rows in found}


def _evaluate(plan: list[tuple[RawTable, list[Rule]]], report: Report) -> None:
    home = settings().home
    scratch = home / f"gx.{report.run_id.hex}"
    try:
        with step("Check the raw data", total=len(plan) or None) as progress:
            gx = _great_expectations()
            with _database_url():
                context, source = _context(gx, scratch)
                for table, table_rules in plan:
                    report.results += _check(gx, context, source, table, table_rules)
                    progress.advance()
                context.build_data_docs()
            progress.note(
                tables=len(plan),
                rules=len(report.results),
                warnings=len(report.failures("warning")),
                critical=len(report.failures("critical")),
            )
        _publish(scratch / "gx", report)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _great_expectations() -> Any:
    """Imports the library, which takes seconds, with everything off that would call its maker.

    It hands its expectations and data sources on in ways that a type checker cannot follow.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations
        import great_expectations.expectations
        from sqlalchemy.dialects.postgresql.base import ischema_names
        from sqlalchemy.types import Text
    # Transaction ids; the library can say nothing of a table with a column of an unknown type.
    ischema_names["xid8"] = Text
    return great_expectations


@contextmanager
def _database_url() -> Iterator[None]:
    os.environ[_URL_VARIABLE] = connection("transformer").url("postgresql+psycopg")
    try:
        yield
    finally:
        del os.environ[_URL_VARIABLE]


def _context(gx: Any, root: Path) -> tuple[Any, Any]:
    context = gx.get_context(mode="file", project_root_dir=root)
    context.variables.analytics_enabled = False
    context.variables.progress_bars = {"globally": False}
    context.variables.save()
    return context, context.data_sources.add_postgres(
        "stageline", connection_string=f"${{{_URL_VARIABLE}}}"
    )


def _check(
    gx: Any,
    context: Any,
    source: Any,
    table: RawTable,
    table_rules: list[Rule],
) -> list[Result]:
    with warnings.catch_warnings():
        # It would rather have one data source, and so one pool of connections, per schema.
        warnings.simplefilter("ignore", DeprecationWarning)
        asset = source.add_table_asset(table.name, schema_name=table.schema, table_name=table.table)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=table.name,
            data=asset.add_batch_definition_whole_table("all rows"),
            suite=context.suites.add(
                gx.ExpectationSuite(
                    name=table.name,
                    expectations=[
                        _expectation(gx, rule, number) for number, rule in enumerate(table_rules)
                    ],
                )
            ),
        )
    )
    return _results(table, table_rules, definition.run(result_format=_RESULT_FORMAT))


def _expectation(gx: Any, rule: Rule, number: int) -> Any:
    """The rule in the library's words; its number travels along to find it in the results."""
    gxe = gx.expectations
    shared: dict[str, Any] = {"severity": rule.severity, "meta": {"rule": number}}
    match rule.kind:
        case "filled":
            return gxe.ExpectColumnValuesToNotBeNull(column=rule.columns[0], **shared)
        case "empty":
            return gxe.ExpectColumnValuesToBeNull(column=rule.columns[0], **shared)
        case "unique" if len(rule.columns) == 1:
            return gxe.ExpectColumnValuesToBeUnique(column=rule.columns[0], **shared)
        case "unique":
            return gxe.ExpectCompoundColumnsToBeUnique(column_list=list(rule.columns), **shared)
        case "choices":
            return gxe.ExpectColumnValuesToBeInSet(
                column=rule.columns[0], value_set=list(rule.choices), **shared
            )
        case "between":
            if rule.where is not None:
                shared["row_condition"] = gxe.row_conditions.Column(rule.where[0]) == rule.where[1]
            return gxe.ExpectColumnValuesToBeBetween(
                column=rule.columns[0], min_value=rule.least, max_value=rule.most, **shared
            )
        case "order":
            return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=rule.columns[0],
                column_B=rule.columns[1],
                or_equal=True,
                ignore_row_if="either_value_is_missing",
                **shared,
            )
        case "apart":
            return gxe.UnexpectedRowsExpectation(
                unexpected_rows_query=_overlapping(rule), description=rule.about, **shared
            )
        case "reference":
            return gxe.UnexpectedRowsExpectation(
                unexpected_rows_query=_dangling(rule), description=rule.about, **shared
            )
        case "newest":
            return gxe.ExpectColumnMaxToBeBetween(
                column=rule.columns[0], min_value=rule.least, **shared
            )
        case "rows":
            return gxe.ExpectTableRowCountToBeBetween(min_value=rule.least, **shared)


def _dangling(rule: Rule) -> str:
    """SQL for the rows whose value is found nowhere; it returns no value of theirs."""
    if not rule.refers_to:
        raise ValueError(f"a reference without a target: {rule.about}")
    query = sql.SQL(
        "with child as (select * from {{batch}}) select 1 as dangling from child"
        " where child.{value} is not null{nowhere}"
    ).format(
        value=sql.Identifier(rule.columns[0]),
        nowhere=sql.SQL("").join(
            sql.SQL(" and not exists (select 1 from {parent} as parent where {agree})").format(
                parent=sql.Identifier(schema, table),
                agree=sql.SQL(" and ").join(
                    sql.SQL("parent.{} = child.{}").format(
                        sql.Identifier(theirs), sql.Identifier(ours)
                    )
                    for ours, theirs in (
                        (rule.columns[0], column),
                        *((name, name) for name in rule.within),
                    )
                ),
            )
            for schema, table, column in rule.refers_to
        ),
    )
    return query.as_string(None)


def _overlapping(rule: Rule) -> str:
    """SQL for the rows that begin while another one goes on; it returns no value of theirs."""
    first, last = map(sql.Identifier, rule.columns)
    query = sql.SQL(
        "with rows as (select * from {{batch}}) select 1 as overlapping from rows as later"
        " where exists (select 1 from rows as earlier where {agree}"
        " and earlier.{first} < later.{first}"
        " and (earlier.{last} is null or earlier.{last} >= later.{first}))"
    ).format(
        first=first,
        last=last,
        agree=sql.SQL(" and ").join(
            sql.SQL("earlier.{name} = later.{name}").format(name=sql.Identifier(name))
            for name in rule.within
        ),
    )
    return query.as_string(None)


def _results(
    table: RawTable, table_rules: list[Rule], found: "ExpectationSuiteValidationResult"
) -> list[Result]:
    results = []
    for one in found.results:
        configuration: Any = one.expectation_config
        rule = table_rules[configuration.meta["rule"]]
        values: dict[str, Any] = one.result or {}
        observed: Any = values.get("observed_value")
        error = _error(one.exception_info)
        result = Result(table, rule, bool(one.success), error=error)
        if not error and rule.kind == "rows":
            result = Result(
                table, rule, result.success, rows=int(observed), observed=f"{observed:,}"
            )
        elif not error and rule.kind in ("reference", "apart"):
            result = Result(table, rule, result.success, failing=int(observed))
        elif not error and rule.kind == "newest":
            result = Result(table, rule, result.success, observed=str(observed or ""))
        elif not error:
            result = Result(
                table,
                rule,
                result.success,
                rows=values.get("element_count"),
                failing=values.get("unexpected_count"),
            )
        results.append(result)
    return sorted(results, key=lambda result: table_rules.index(result.rule))


def _error(info: Any) -> str:
    """First line of what went wrong while a rule was evaluated: told flat, or once per metric."""
    if not isinstance(info, dict):
        return ""
    told = [info] if "raised_exception" in info else list(info.values())
    for one in told:
        if one.get("raised_exception"):
            message = str(one.get("exception_message") or "unknown error").strip()
            return message.splitlines()[0][:300]
    return ""


def _publish(context: Path, report: Report) -> None:
    """Puts the context and the Data Docs of this run in the place of the last run's."""
    site = context / "uncommitted" / "data_docs" / "local_site"
    site.mkdir(parents=True, exist_ok=True)
    index = [
        IndexRow(
            table=table.name,
            rows=report.rows(table),
            passed=sum(result.success for result in report.of(table)),
            warnings=sum(r.table == table for r in report.failures("warning")),
            critical=sum(r.table == table for r in report.failures("critical")),
            note="",
            page=next((site / "validations" / table.schema / table.table).rglob("*.html"), None),
        )
        for table in report.tables
    ] + [IndexRow(table.name, None, 0, 0, 0, why, None) for table, why in report.skipped]
    title = f"Raw data as checked at {report.started_at:%Y-%m-%d %H:%M} UTC, run {report.run_id}."
    make_offline(site, title, index)
    report.docs.parent.mkdir(parents=True, exist_ok=True)
    _replace(report.docs, site)
    _replace(settings().home / "gx", context)


def _replace(place: Path, new: Path) -> None:
    """Moves a folder into place. Whoever reads it sees the old one or the new one."""
    old = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    fresh = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    shutil.move(new, fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _store(ops: psycopg.Connection[Any], report: Report) -> None:
    critical = len(report.failures("critical"))
    finished = datetime.now(UTC)
    lines = [
        (
            report.run_id,
            result.table.entity.name,
            result.table.schema,
            result.table.table,
            result.rule.kind,
            ", ".join(result.rule.columns) or None,
            result.rule.severity,
            result.success,
            Jsonb(
                {
                    name: value
                    for name, value in (
                        ("rows", result.rows),
                        ("failing", result.failing),
                        ("found", result.observed or None),
                    )
                    if value is not None
                }
            ),
            result.error or result.rule.about,
            finished,
        )
        for result in report.results
    ]
    # An empty table is counted too, so that tomorrow's check knows what there was today.
    lines += [
        (
            report.run_id,
            table.entity.name,
            table.schema,
            table.table,
            "rows",
            None,
            "warning",
            True,
            Jsonb({"rows": 0} if why == "empty" else {}),
            f"nothing to check: {why}",
            finished,
        )
        for table, why in report.skipped
    ]
    with ops.transaction(), ops.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.quality_results (
                run_id, suite, schema_name, table_name, expectation, column_name,
                severity, success, observed, details, checked_at
            ) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            lines,
        )
        cursor.execute(
            "update ops.quality_runs set finished_at = %s, success = %s, critical_failures = %s"
            " where run_id = %s",
            (finished, critical == 0, critical, report.run_id),
        )
