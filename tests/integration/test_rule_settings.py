"""``stageline settings``: limits, hours, days, cycles, urgency, overrides, metrics, and files."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from stageline import config
from stageline.cli import main, settings_rules
from stageline.database import connect
from stageline.settings import projects
from stageline.settings.rule_tables import ProjectKey, changing_project, in_force, listed
from stageline.settings.sla_rules import LIMITS, SlaLimit
from tests.conftest import TEMPLATE, TestServer, _clone

SHOP = ("keycrm", "shop-1")

pytestmark = pytest.mark.usefixtures("shops")


@pytest.fixture(scope="module")
def shared_database(server: TestServer, short_folder: Path) -> Iterator[None]:
    """One database for all tests of this module."""
    folder = short_folder / "rule_settings"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, _clone(server, TEMPLATE, folder, patch):
        yield


@pytest.fixture
def shops(shared_database: None) -> None:  # noqa: ARG001 - the configured one
    config.settings.cache_clear()
    with connect("owner") as session:
        session.execute("truncate settings.projects, settings.audit_log cascade")
    projects.add(*SHOP, timezone="Europe/Kyiv")
    projects.add("keycrm", "shop-2", timezone="America/Los_Angeles")
    projects.add("pipedrive", "main")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["settings", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def error(*arguments: str) -> str:
    """What a command says that fails: one line."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    line = result.output.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def rows(query: str) -> list[tuple[Any, ...]]:
    with connect("owner") as session:
        return session.execute(query).fetchall()  # type: ignore[arg-type]  # texts of this module


def limits() -> list[tuple[Any, ...]]:
    return rows(
        "select limit_seconds / 3600, effective_from::date::text, effective_to::date::text"
        " from settings.sla_stage_rules order by effective_from"
    )


# What counts when


def test_a_limit_set_later_ends_the_one_in_force_and_keeps_what_was_valid_before() -> None:
    assert "24:00 from the beginning on." in done("sla", "set", *SHOP, "3", "24:00")
    said = done("sla", "set", *SHOP, "3", "20h", "--from", "2027-03-01")
    assert "20:00 from 2027-03-01T00:00:00Z on." in said
    assert limits() == [(24, "1900-01-01", "2027-03-01"), (20, "2027-03-01", None)]
    # Between the two: it ends where the next one is planned.
    said = done("sla", "set", *SHOP, "3", "22:00", "--from", "2027-02-01")
    assert "from 2027-02-01T00:00:00Z on, until 2027-03-01T00:00:00Z" in said
    assert limits() == [
        (24, "1900-01-01", "2027-02-01"),
        (22, "2027-02-01", "2027-03-01"),
        (20, "2027-03-01", None),
    ]
    # From the same instant on: the value is replaced, the times stay.
    done("sla", "set", *SHOP, "3", "21:00", "--from", "2027-02-01")
    assert limits()[1] == (21, "2027-02-01", "2027-03-01")
    # The same again changes nothing.
    before = rows("select count(*) from settings.audit_log")
    done("sla", "set", *SHOP, "3", "21:00", "--from", "2027-02-15")
    assert rows("select count(*) from settings.audit_log") == before


def test_without_an_instant_the_first_counts_always_and_the_next_from_now() -> None:
    done("sla", "set", *SHOP, "3", "24:00")
    done("sla", "set", *SHOP, "3", "20:00")
    first, second = listed(LIMITS, ProjectKey(*SHOP))
    assert first.effective_to == second.effective_from
    now = datetime.now(UTC)
    assert isinstance(second.effective_from, datetime)
    assert now - timedelta(minutes=1) < second.effective_from <= now
    assert second.effective_from.microsecond == 0


def test_a_change_and_its_end_are_in_the_audit_log_with_who_made_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STAGELINE_CHANGED_BY", "olena")
    config.settings.cache_clear()
    done("sla", "set", *SHOP, "3", "24:00")
    done("sla", "set", *SHOP, "3", "20:00", "--from", "2027-03-01")
    done("sla", "end", *SHOP, "3", "--at", "2027-04-01")
    logged = rows(
        "select changed_by, action, dense_rank() over (order by changed_xid::text::bigint)"
        " from settings.audit_log where table_name = 'sla_stage_rules' order by audit_id"
    )
    assert logged == [
        ("olena", "insert", 1),
        ("olena", "update", 2),  # one ends and the next begins in one transaction
        ("olena", "insert", 2),
        ("olena", "update", 3),
    ]


def test_a_rule_is_ended_or_removed_where_it_never_counted() -> None:
    done("sla", "set", *SHOP, "3", "24:00")
    done("sla", "set", *SHOP, "3", "20:00", "--from", "2027-03-01")
    done("sla", "end", *SHOP, "3", "--at", "2027-03-01")
    assert limits() == [(24, "1900-01-01", "2027-03-01")]
    done("sla", "end", *SHOP, "3", "--at", "2027-02-01")
    assert limits() == [(24, "1900-01-01", "2027-02-01")]
    assert "no such SLA limit at 2027-02-01T00:00:00Z" in error(
        "sla", "end", *SHOP, "3", "--at", "2027-02-01"
    )
    # After a gap the next one begins now, not at the beginning.
    done("sla", "set", *SHOP, "3", "8:00", "--from", "2027-05-01")
    assert limits()[1] == (8, "2027-05-01", None)


def test_lists_show_what_is_in_force_then_or_all() -> None:
    done("groups", "set", *SHOP, "3", "--name", "Production")
    done("sla", "set", *SHOP, "production", "24:00", "--note", "agreed")
    done("sla", "set", *SHOP, "3", "20:00", "--from", "2099-03-01")
    listed_now = done("sla", "list", *SHOP).splitlines()
    assert listed_now[0].split() == ["group", "name", "grid", "limit", "note", "from", "to"]
    assert listed_now[1:] == [
        "3      Production  normal  24:00  agreed        2099-03-01T00:00:00Z"
    ]
    assert "20:00" in done("sla", "list", *SHOP, "--at", "2099-03-01")
    assert len(done("sla", "list", *SHOP, "--all").splitlines()) == 3
    assert "--all lists" in error("sla", "list", *SHOP, "--all", "--at", "2099-03-01")
    assert "has no SLA limit in force" in done("sla", "list", "keycrm", "shop-2")


def test_each_key_has_rules_of_its_own_and_each_project() -> None:
    done("sla", "set", *SHOP, "3", "24:00")
    done("sla", "set", *SHOP, "3", "16:00", "--urgent")
    done("sla", "set", "keycrm", "shop-2", "3", "8:00")
    assert [limit for limit, *_ in limits()] == [24, 16, 8]
    done("sla", "end", *SHOP, "3", "--urgent", "--at", "1900-01-01")
    assert [limit for limit, *_ in limits()] == [24, 8]


def test_a_group_is_meant_by_its_name_and_doubted_where_nothing_is_judged() -> None:
    assert "note" not in done("sla", "set", *SHOP, "7", "24:00")  # there is no dictionary
    for group, kind in (("3", "open"), ("6", "cancelled")):
        done("groups", "set", *SHOP, group, "--name", f"G{group}", "--kind", kind)
    assert "group 3 of" in done("sla", "set", *SHOP, "g3", "24:00")
    assert "note: keycrm shop-1 has no group 9 yet" in done("sla", "set", *SHOP, "9", "24:00")
    assert "note: orders are finished in G6: no clock runs there" in done(
        "sla", "set", *SHOP, "G6", "24:00"
    )
    done("groups", "set", *SHOP, "4", "--name", "G3")
    assert "several groups called G3" in error("sla", "set", *SHOP, "G3", "24:00")


def test_overlaps_that_come_past_the_service_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "s.yml"
    file.write_text(
        "projects:\n- source: keycrm\n  project: shop-1\n  sla:\n"
        "  - {group: 3, limit: '24:00', to: 2027-03-01}\n"
        "  - {group: 3, limit: '20:00', from: 2027-02-01}\n"
    )
    said = error("import", str(file))
    assert "line 6: SLA limit 3" in said
    assert "would count twice at once" in said
    assert limits() == []


def test_those_who_change_a_project_at_once_wait_for_each_other() -> None:
    project = ProjectKey(*SHOP)
    instants = [datetime(2027, 1, day, tzinfo=UTC) for day in range(1, 5)]

    def set_limit(at: datetime) -> None:
        with changing_project(project) as session:
            row = SlaLimit(group_id="3", limit_seconds=at.day * 3600)
            LIMITS.set_from(session, project, row, at)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(set_limit, instants))
    kept = listed(LIMITS, project)
    assert [row.effective_from for row in kept] == instants
    assert [row.effective_to for row in kept] == [*instants[1:], None]
    assert [row.limit_seconds // 3600 for row in kept] == [1, 2, 3, 4]


# Working hours and days


def test_hours_follow_each_other_by_day_with_their_windows() -> None:
    done("hours", "set", *SHOP, "mon-fri 09:00-13:00 14:00-18:00; sat 10:00-14:00")
    done("hours", "set", *SHOP, "24/7", "--from", "2027-03-01")
    done("hours", "set", *SHOP, "22:00-06:00", "--group", "3", "--note", "nights")
    done("hours", "set", *SHOP, "closed", "--group", "4")
    kept = rows(
        "select group_id, is_always_open, effective_from::text, effective_to::text,"
        " (select count(*) from settings.calendar_windows as w"
        "  where w.calendar_id = c.calendar_id)"
        " from settings.calendars as c order by group_id nulls first, effective_from"
    )
    assert kept == [
        (None, False, "1900-01-01", "2027-03-01", 11),
        (None, True, "2027-03-01", None, 0),
        ("3", False, "1900-01-01", None, 7),
        ("4", False, "1900-01-01", None, 0),
    ]
    listed = done("hours", "list", *SHOP, "--all")
    assert "mon-fri 09:00-13:00 14:00-18:00; sat 10:00-14:00" in listed
    assert "mon-sun 22:00-06:00" in listed
    assert "closed" in listed
    # Replaced from the same day on: its windows, too.
    done("hours", "set", *SHOP, "mon 10:00-11:00", "--group", "3", "--from", "1900-01-01")
    assert rows(
        "select weekday, opens_second, closes_second from settings.calendar_windows"
        " join settings.calendars using (calendar_id) where group_id = '3'"
    ) == [(1, 36000, 39600)]
    done("hours", "end", *SHOP, "--group", "3", "--at", "2027-06-01")
    assert "mon 10:00" not in done("hours", "list", *SHOP, "--at", "2027-06-01")


def test_the_database_itself_refuses_a_fourth_window_of_a_day() -> None:
    done("hours", "set", *SHOP, "mon-fri 8:00-10:00 11:00-13:00 14:00-16:00")
    fourth = (
        "insert into settings.calendar_windows"
        " select calendar_id, {}, 61200, 68400 from settings.calendars returning weekday"
    )
    with pytest.raises(psycopg.errors.CheckViolation, match="has more than three windows"):
        rows(fourth.format(2))
    assert rows(fourth.format(6)) == [(6,)]
    with pytest.raises(psycopg.errors.CheckViolation):
        rows("update settings.calendar_windows set weekday = 5 where weekday = 6 returning 1")


def test_the_projects_own_day_decides_not_the_servers() -> None:
    for project in ("shop-1", "shop-2"):
        done("hours", "set", "keycrm", project, "mon-fri-9-18", "--from", "2027-03-01")
    at = ["--at", "2027-02-28T23:00:00Z"]  # March in Kyiv, February in Los Angeles
    assert "mon-fri" in done("hours", "list", *SHOP, *at)
    assert "has no working hours in force" in done("hours", "list", "keycrm", "shop-2", *at)


def test_a_day_a_minute_short_is_warned_about_and_kept() -> None:
    said = done("hours", "set", *SHOP, "00:00-23:59")
    assert "warning: 00:00-23:59 loses the minute before midnight" in said
    assert rows("select distinct closes_second from settings.calendar_windows") == [(86340,)]
    assert "warning" not in done("hours", "set", *SHOP, "00:00-24:00")


def test_holidays_and_working_days_are_set_cleared_and_read_from_a_file(tmp_path: Path) -> None:
    done("days", "off", *SHOP, "2026-01-01", "--name", "New Year")
    done("days", "on", *SHOP, "2026-01-10", "--as", "mon")
    file = tmp_path / "days.csv"
    file.write_text("day,name,as\n2026-01-01,New Year,\n2026-01-07,Різдво,\n2026-01-10,,fri\n")
    assert "3 days read, 2 of them would change" in done(
        "days", "import", *SHOP, str(file), "--dry-run"
    )
    assert len(rows("select * from settings.day_exceptions")) == 2
    assert "3 days read, 2 of them changed" in done("days", "import", *SHOP, str(file))
    assert rows("select day::text, as_weekday, name from settings.day_exceptions order by day") == [
        ("2026-01-01", None, "New Year"),
        ("2026-01-07", None, "Різдво"),
        ("2026-01-10", 5, ""),
    ]
    assert "2026-01-10  fri" in done("days", "list", *SHOP)
    done("days", "clear", *SHOP, "2026-01-10")
    assert "is as its weekday is" in error("days", "clear", *SHOP, "2026-01-10")
    assert "every day is as its weekday is" in done("days", "list", "keycrm", "shop-2")


def test_a_file_of_days_that_does_not_fit_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "days.csv"
    for text, said in (
        ("day\n2026-01-01\n2026-02-30\n", "line 3: '2026-02-30' is no day"),
        ("day\n2026-01-01\n2026-01-01\n", "line 3: 2026-01-01 stands in an earlier line"),
        ("day,as\n2026-01-01,monday\n", "line 2: 'monday' is no day of the week"),
        ("date\n2026-01-01\n", "no field 'date'"),
        ("day,name\n2026-01-01,a\x1bb\n", "line 2: The name of a day"),
    ):
        file.write_text(text)
        assert said in error("days", "import", *SHOP, str(file))
    assert rows("select * from settings.day_exceptions") == []


# Cycles, urgency, overrides, metrics


def test_one_cycle_at_a_time_is_the_default() -> None:
    first = ["cycles", "set", *SHOP, "to delivery", "group:1", "group:4"]
    assert "Default cycle 'to delivery'" in done(*first, "--default")
    second = ["cycles", "set", *SHOP, "full", "group:1", "stage:20"]
    assert "cycle full would be a second default" in error(*second, "--default")
    assert "Cycle 'full'" in done(*second)
    # Its steps change, and it stays the default; then the other one takes over.
    assert "Default cycle" in done(*first[:-1], "stage:12", "--from", "2027-01-01")
    done(*first[:-1], "stage:12", "--no-default", "--from", "2027-03-01")
    done(*second, "--default", "--from", "2027-03-01")
    assert rows(
        "select title, end_stage_id, effective_from::date::text from settings.cycle_rules"
        " where is_default order by effective_from"
    ) == [
        ("to delivery", None, "1900-01-01"),
        ("to delivery", "12", "2027-01-01"),
        ("full", "20", "2027-03-01"),
    ]
    assert "full" in done("cycles", "list", *SHOP, "--at", "2027-03-01")
    done("cycles", "end", *SHOP, "full", "--at", "2027-04-01")


def test_an_override_stays_whatever_rules_are_saved() -> None:
    done("orders", "set", *SHOP, "4021", "--urgent", "--end", "stage:20", "--note", "by phone")
    before = rows("select to_jsonb(o) from settings.order_overrides as o")
    done("defaults", *SHOP)
    done("urgent", "add", *SHOP, "offer_id", "16", "--name", "other")
    done("sla", "set", *SHOP, "3", "1:00", "--urgent")
    assert rows("select to_jsonb(o) from settings.order_overrides as o") == before
    assert "urgent, cycle to stage:20  by phone" in done("orders", "list", *SHOP)
    # What is not given is left to the rules.
    said = done("orders", "set", *SHOP, "4021", "--sla", "normal", "--from", "2027-03-01")
    assert "Order 4021 of keycrm shop-1: normal limits from 2027-03-01" in said
    done("orders", "end", *SHOP, "4021", "--at", "2027-04-01")
    assert "no override in force" in done("orders", "list", *SHOP, "--at", "2027-04-01")


def test_urgent_rules_waiting_statuses_and_the_threshold_begin_and_end() -> None:
    assert "(sku Термінове)" in done("urgent", "add", *SHOP, "sku", "Термінове")
    done("urgent", "end", *SHOP, "sku", "Термінове", "--at", "2027-03-01")
    assert "no urgent rule in force" in done("urgent", "list", *SHOP, "--at", "2027-03-01")
    assert "Термінове" in done("urgent", "list", *SHOP, "--at", "2027-02-01")
    done("waiting", "add", *SHOP, "15", "--for", "payment")
    assert "15     payment" in done("waiting", "list", *SHOP)
    done("stages", "set", *SHOP, "16", "--name", "Paid")
    assert "note: keycrm shop-1 has no stage 17 yet" in done("waiting", "add", *SHOP, "17")
    done("waiting", "end", *SHOP, "15", "--at", "2027-03-01")
    assert "it is 80 %" in done("sla", "near", *SHOP)
    done("sla", "near", *SHOP, "75.5")
    assert "75.5" in done("sla", "near", *SHOP)


def test_a_metric_is_made_changed_and_removed() -> None:
    ends = ["--start", "stage:3", "--end", "sub:quote.sent"]
    done("metrics", "set", *SHOP, "Offer", *ends, "--green", "8:00", "--red", "24h", "--working")
    done("metrics", "set", *SHOP, "Offer", "--off", "--comment", "paused", "--position", "2")
    assert rows(
        "select start_stage_id, end_sub_key, green_limit_seconds, red_limit_seconds,"
        " is_working_time, is_on, comment, position from settings.flow_metrics"
    ) == [("3", "QUOTE.SENT", 28800, 86400, True, False, "paused", 2)]
    done("metrics", "set", *SHOP, "Offer", "--start", "pipeline:2/stage:9", "--clock", "--on")
    listed = done("metrics", "list", *SHOP)
    assert "pipeline:2/stage:9  sub:QUOTE.SENT  clock" in listed
    said = error("metrics", "set", "pipedrive", "main", "Offer", *ends)
    assert "metric Offer is a metric of another project" in said
    assert "has no metric 'Offer'" in error("metrics", "remove", "pipedrive", "main", "Offer")
    done("metrics", "remove", *SHOP, "Offer")
    assert "no metric of its own" in done("metrics", "list", *SHOP)


# Targets and alerts


def targets() -> list[tuple[Any, ...]]:
    return sorted(
        rows(
            "select concat_ws(' ', kpi, subject_type, subject_id, period, currency), target::text,"
            " effective_from::text, effective_to::text from settings.kpi_targets"
        )
    )


def test_a_target_set_from_a_day_on_ends_the_one_in_force() -> None:
    said = done("targets", "set", *SHOP, "rep:r-1", "calls", "25")
    assert said == (
        "Target of calls in a week for rep:r-1 of keycrm shop-1: 25 from the beginning on.\n"
    )
    done("targets", "set", *SHOP, "rep:r-1", "calls", "15.50", "--from", "2027-03-01")
    done("targets", "set", *SHOP, "rep:r-1", "calls", "30", "--from", "2027-02-01")
    assert targets() == [
        ("calls rep r-1 week", "15.50", "2027-03-01", None),
        ("calls rep r-1 week", "25", "1900-01-01", "2027-02-01"),
        ("calls rep r-1 week", "30", "2027-02-01", "2027-03-01"),
    ]
    # The same again changes nothing, however it is written.
    before = rows("select count(*) from settings.audit_log")
    done("targets", "set", *SHOP, "rep:r-1", "calls", "15.5", "--from", "2027-03-15")
    assert rows("select count(*) from settings.audit_log") == before
    said = done("targets", "end", *SHOP, "rep:r-1", "calls", "--at", "2027-04-01")
    assert "ends at 2027-04-01" in said
    assert "has no such target at 2027-04-01" in error(
        "targets", "end", *SHOP, "rep:r-1", "calls", "--at", "2027-04-01"
    )


def test_changes_of_targets_and_thresholds_are_in_the_audit_log() -> None:
    done("targets", "set", *SHOP, "reps", "calls", "25")
    done("targets", "set", *SHOP, "reps", "calls", "30", "--from", "1900-01-01")
    done("targets", "end", *SHOP, "reps", "calls", "--at", "1900-01-01")
    done("alerts", "set", *SHOP, "calls_this_week", "20")
    done("alerts", "end", *SHOP, "calls_this_week", "--at", "1900-01-01")
    assert rows(
        "select table_name, action, before ->> 'target', after ->> 'target',"
        " coalesce(before, after) ->> 'threshold'"
        " from settings.audit_log where table_name <> 'projects' order by audit_id"
    ) == [
        ("kpi_targets", "insert", None, "25", None),
        ("kpi_targets", "update", "25", "30", None),
        ("kpi_targets", "delete", "30", None, None),
        ("alert_thresholds", "insert", None, None, "20"),
        ("alert_thresholds", "delete", None, None, "20"),
    ]
    assert "target: 25 -> 30" in done("audit", "--table", "kpi_targets")


def test_each_subject_kpi_period_and_currency_has_a_target_of_its_own() -> None:
    for subject in ("rep:r-1", "team:r-1", "reps", "all"):
        done("targets", "set", *SHOP, subject, "calls", "25")
    done("targets", "set", *SHOP, "reps", "calls", "100", "--period", "month")
    done("targets", "set", *SHOP, "reps", "agreements", "4")
    done("targets", "set", *SHOP, "reps", "revenue", "9000", "--currency", "eur")
    done("targets", "set", *SHOP, "reps", "revenue", "9000", "--currency", "UAH")
    done("targets", "set", "pipedrive", "main", "reps", "calls", "25")
    assert [target for target, *_ in targets()] == [
        "agreements rep month",
        "calls all week",
        "calls rep month",
        "calls rep r-1 week",
        *["calls rep week"] * 2,
        "calls team r-1 week",
        "revenue rep month EUR",
        "revenue rep month UAH",
    ]
    assert [line.split() for line in done("targets", "list", *SHOP).splitlines()][:3] == [
        ["of", "kpi", "period", "target", "currency", "from", "to"],
        ["reps", "agreements", "month", "4"],
        ["all", "calls", "week", "25"],
    ]
    done("targets", "end", *SHOP, "reps", "revenue", "--currency", "EUR", "--at", "1900-01-01")
    assert "EUR" not in done("targets", "list", *SHOP, "--all")


def test_the_threshold_of_a_project_takes_the_place_of_the_one_that_ships() -> None:
    done("alerts", "set", *SHOP, "calls_this_week", "20", "--from", "2027-03-01")
    listed = {
        day: {
            line.split()[0]: line.split()[1]
            for line in done("alerts", "list", *SHOP, "--at", day).splitlines()[1:]
        }
        for day in ("2027-02-28", "2027-03-01")
    }
    ships = {
        "calls_this_week": "25",
        "partner_lists_overdue": "0",
        "calls_next_week": "30",
        "rep_needs_support_score": "10",
        "rep_needs_support_calls": "5",
        "orders_over_sla": "0",
        "unmapped_stages": "0",
        "pipeline_change": "3",
    }
    assert listed["2027-02-28"] == ships
    assert listed["2027-03-01"] == ships | {"calls_this_week": "20"}
    both = [
        line for line in done("alerts", "list", *SHOP, "--all").splitlines() if "calls_" in line
    ]
    assert [line.split()[1] for line in both[:2]] == ["20", "25"]
    done("alerts", "end", *SHOP, "calls_this_week", "--at", "2027-03-01")
    assert rows("select * from settings.alert_thresholds") == []
    done("alerts", "set", *SHOP, "pipeline_change", "0")


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("kpi_targets", {"kpi": "mails"}),
        ("kpi_targets", {"period": "day"}),
        ("kpi_targets", {"kpi": "agreements"}),  # not by week
        ("kpi_targets", {"target": 0}),
        ("kpi_targets", {"target": "nan"}),
        ("kpi_targets", {"currency": "EUR"}),
        ("kpi_targets", {"kpi": "revenue", "period": "month"}),
        ("kpi_targets", {"kpi": "revenue", "period": "month", "currency": "euro"}),
        ("kpi_targets", {"subject_type": "all"}),
        ("kpi_targets", {"subject_type": "team", "subject_id": None}),
        ("kpi_targets", {"subject_id": ""}),
        ("kpi_targets", {"effective_to": "1900-01-01"}),
        ("alert_thresholds", {"threshold": -1}),
        ("alert_thresholds", {"threshold": "infinity"}),
        ("alert_thresholds", {"effective_to": "1900-01-01"}),
    ],
)
def test_the_database_itself_refuses_what_means_nothing(table: str, row: dict[str, Any]) -> None:
    good = {
        "kpi_targets": {
            "kpi": "calls",
            "subject_type": "rep",
            "subject_id": "r-1",
            "period": "week",
            "target": 25,
        },
        "alert_thresholds": {"rule": "calls_this_week", "threshold": 20},
    }[table]
    project = {"source_system": SHOP[0], "project_id": SHOP[1]}

    def insert(values: dict[str, Any]) -> None:
        with connect("owner") as session:
            session.execute(
                psycopg.sql.SQL("insert into {} ({}) values ({})").format(
                    psycopg.sql.Identifier("settings", table),
                    psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, values)),
                    psycopg.sql.SQL(", ").join(map(psycopg.sql.Placeholder, values)),
                ),
                values,
            )

    with pytest.raises(psycopg.errors.CheckViolation):
        insert({**project, **good, **row})
    insert({**project, **good})
    with pytest.raises(psycopg.errors.ExclusionViolation):
        insert({**project, **good, "effective_from": "2027-01-01"})


# What is refused

ENDS = ["--start", "stage:1", "--end", "stage:2"]

REFUSED: list[tuple[list[str], str]] = [
    (["sla", "set", "keycrm", "shop-9", "3", "8:00"], "stageline projects add keycrm shop-9"),
    (["sla", "list", "keycrm", "shop-9"], "no project shop-9 of keycrm"),
    (["sla", "set", *SHOP, "3", "8"], "The limit '8' is no duration. Write hours and minutes"),
    (["sla", "set", *SHOP, "3", "0:00"], "is nothing"),
    (["sla", "set", *SHOP, "", "8:00"], "The group"),
    (["sla", "set", *SHOP, "3", "8:00", "--note", "\x1b[2J"], "The note has to be one line"),
    (["sla", "set", *SHOP, "3", "8:00", "--from", "soon"], "--from 'soon' is no instant"),
    (["sla", "list", *SHOP, "--at", "0001-01-01T00:00+05:00"], "00:00+05:00' is no instant"),
    (["sla", "end", *SHOP, "3"], "has no such SLA limit at "),
    (["sla", "near", *SHOP, "much"], "'much' is no share of a limit"),
    (["sla", "near", *SHOP, "nan"], "'nan' is no share of a limit"),
    (["sla", "near", *SHOP, "0"], "'0' is no share of a limit"),
    (["sla", "near", *SHOP, "100.5"], "no share of a limit"),
    (["sla", "near", *SHOP, "80.555"], "two decimals"),
    (["waiting", "add", *SHOP, ""], "The status"),
    (["waiting", "end", *SHOP, "15"], "has no such waiting status"),
    (["hours", "set", *SHOP, "mon-sun off"], "All days are off: no time would ever count"),
    (["hours", "set", *SHOP, "mon 9:00-12:00 11:00-13:00"], "overlap: time would count twice"),
    (["hours", "set", *SHOP, "mon 22:00-06:00; tue 5:00-7:00"], "overlap"),
    (["hours", "set", *SHOP, "mon 1:00-2:00 3:00-4:00 5:00-6:00 7:00-8:00"], "3 at most"),
    (["hours", "set", *SHOP, "24/7", "--from", "1 March"], "'1 March' is no day"),
    (["hours", "end", *SHOP], "has no such working hours"),
    (["days", "off", *SHOP, "2026-02-30"], "'2026-02-30' is no day"),
    (["days", "on", *SHOP, "2026-01-10", "--as", "1"], "'1' is no day of the week"),
    (["days", "import", *SHOP, "/nowhere.csv"], "/nowhere.csv cannot be read"),
    (["cycles", "set", *SHOP, "x", "1", "group:4"], "'1' is no step of a cycle"),
    (["cycles", "set", *SHOP, "x", "group:", "group:4"], "no step of a cycle"),
    (["cycles", "set", *SHOP, "", "group:1", "group:4"], "The title of a cycle"),
    (["cycles", "end", *SHOP, "x"], "has no such cycle"),
    (["urgent", "add", *SHOP, "sku", ""], "The sku"),
    (["urgent", "end", *SHOP, "sku", "x"], "has no such urgent rule"),
    (["orders", "set", *SHOP, "1"], "Nothing is said of order 1"),
    (["orders", "set", *SHOP, "1", "--sla", "fast"], "'fast' is no grid of limits"),
    (["orders", "end", *SHOP, "1"], "has no such override"),
    (["metrics", "set", *SHOP, "x", "--start", "stage:1"], "Metric x has no end"),
    (["metrics", "set", *SHOP, "x", "--start", "1"], "'1' is no end of a metric"),
    (["metrics", "set", *SHOP, "x", "--start", "sub:QUOTE.SEND"], "no sub-stage 'QUOTE.SEND'"),
    (
        ["metrics", "set", *SHOP, "x", *ENDS, "--green", "2:00", "--red", "1:00"],
        "red limit of metric x is below the green one",
    ),
    (
        ["metrics", "set", *SHOP, "x", *ENDS, "--position", "3000000000"],
        "metric x does not fit into the database: integer out of range",
    ),
    (["targets", "set", *SHOP, "r-1", "calls", "25"], "'r-1' is no subject of a target"),
    (["targets", "set", *SHOP, "team:", "calls", "25"], "'team:' is no subject"),
    (["targets", "set", *SHOP, "rep:\x00", "calls", "25"], "The rep has to be"),
    (["targets", "set", *SHOP, "reps", "mails", "25"], "no targets of 'mails'. There are: calls,"),
    (["targets", "set", *SHOP, "reps", "calls", "many"], "'many' is no target"),
    (["targets", "set", *SHOP, "reps", "calls", "0"], "'0' is no target. Write a number above 0"),
    (["targets", "set", *SHOP, "reps", "calls", "-5"], "'-5' is no target"),
    (["targets", "set", *SHOP, "reps", "calls", "nan"], "'nan' is no target"),
    (["targets", "set", *SHOP, "reps", "calls", "1e99"], "'1e99' is no target"),
    (["targets", "set", *SHOP, "reps", "calls", "1.00001"], "four decimals at most"),
    (["targets", "set", *SHOP, "reps", "calls", "9", "--period", "day"], "a week or a month, not"),
    (["targets", "set", *SHOP, "reps", "sales", "9", "--period", "week"], "Targets of sales are"),
    (["targets", "set", *SHOP, "reps", "revenue", "9"], "revenue needs its currency, as EUR"),
    (["targets", "set", *SHOP, "reps", "revenue", "9", "--currency", "€"], "'€' is no ISO 4217"),
    (["targets", "set", *SHOP, "reps", "calls", "9", "--currency", "EUR"], "calls is a count"),
    (["targets", "set", *SHOP, "reps", "calls", "9", "--from", "soon"], "'soon' is no day"),
    (["targets", "set", "keycrm", "shop-9", "reps", "calls", "9"], "projects add keycrm shop-9"),
    (["targets", "end", *SHOP, "reps", "calls"], "has no such target at "),
    (["alerts", "set", *SHOP, "calls_thisweek", "9"], "Did you mean calls_this_week?"),
    (["alerts", "set", *SHOP, "x", "9"], "There are: calls_this_week, partner_lists_overdue"),
    (["alerts", "set", *SHOP, "calls_this_week", "-1"], "'-1' is no threshold"),
    (["alerts", "set", *SHOP, "calls_this_week", "few"], "'few' is no threshold"),
    (["alerts", "end", *SHOP, "calls_this_week"], "has no such threshold at "),
    (["alerts", "list", "keycrm", "shop-9"], "no project shop-9 of keycrm"),
    (["defaults", "pipedrive", "main"], "pipedrive main is none of its projects"),
    (["export", "--project", "shop-1"], "Write keycrm/shop-1"),
    (["export", "--project", "keycrm/shop-9"], "no project shop-9"),
    (["export", "/nowhere/settings.yml"], "Cannot write /nowhere/settings.yml"),
    (["import", "/nowhere.yml"], "/nowhere.yml cannot be read"),
]


def test_what_does_not_fit_is_one_line_and_changes_nothing() -> None:
    before = rows("select count(*) from settings.audit_log")
    for arguments, said in REFUSED:
        assert said in error(*arguments), arguments
    assert rows("select count(*) from settings.audit_log") == before


# Defaults and files


def test_defaults_are_set_once_and_only_where_nothing_is_set() -> None:
    done("sla", "set", *SHOP, "3", "30:00")
    done("urgent", "add", *SHOP, "sku", "Express")
    shown = done("defaults", *SHOP, "--dry-run")
    assert "15 would be set for keycrm shop-1; 3 were there or left to you" in shown
    assert rows("select count(*) from settings.sla_stage_rules") == [(1,)]
    assert done("defaults", *SHOP).splitlines()[:-1] == shown.splitlines()[:-1]
    assert rows(
        "select group_id, is_urgent, limit_seconds / 3600 from settings.sla_stage_rules"
        " order by is_urgent, group_id"
    ) == [
        *(("1", False, 8), ("2", False, 24), ("3", False, 30), ("4", False, 12)),
        *(("1", True, 8), ("2", True, 16), ("3", True, 16), ("4", True, 8)),
    ]
    assert rows("select match_value from settings.urgent_rules") == [("Express",)]
    assert "0 were set" in done("defaults", *SHOP)
    assert "18 were set" in done("defaults", "keycrm", "shop-2")


def everything() -> None:
    """Settings of every kind, with those of other times and odd texts."""
    done("defaults", *SHOP)
    done("stages", "set", *SHOP, "007", "--name", "Нове: #1 - 'so'", "--group", "1")
    done("stages", "set", *SHOP, "null", "--name", "no", "--closing", "--inactive")
    done("sla", "set", *SHOP, "3", "20:00", "--from", "2027-03-01T02:00+02:00", "--note", "a: b")
    done("sla", "near", *SHOP, "75.5", "--from", "2027-03-01")
    done("waiting", "add", *SHOP, "007", "--for", "yes")
    done("hours", "set", *SHOP, "mon-fri 09:00-13:00 14:00-18:00", "--note", "24:00")
    done("hours", "set", *SHOP, "24/7", "--group", "3", "--from", "2027-03-01")
    done("hours", "set", *SHOP, "closed", "--group", "4")
    done("days", "off", *SHOP, "2026-01-01", "--name", "New Year")
    done("days", "on", *SHOP, "2026-01-10", "--as", "mon")
    done("cycles", "set", *SHOP, "full", "group:1", "stage:007", "--from", "2027-01-01")
    done("urgent", "end", *SHOP, "offer_id", "16", "--at", "2027-03-01")
    done("orders", "set", *SHOP, "4021", "--not-urgent", "--sla", "urgent", "--end", "group:4")
    done(
        *("metrics", "set", *SHOP, "Q", "--start", "pipeline:1/stage:2", "--end", "sub:QUOTE.SENT"),
        *("--green", "1:30", "--red", "2h", "--working", "--off", "--position", "3"),
    )
    done("targets", "set", *SHOP, "reps", "calls", "25")
    done("targets", "set", *SHOP, "reps", "calls", "12.5", "--from", "2027-03-01")
    done("targets", "set", *SHOP, "team:a: 'b'", "revenue", "900", "--currency", "UAH")
    done(
        "targets", "end", *SHOP, "team:a: 'b'", "revenue", "--currency", "UAH", "--at", "2027-01-01"
    )
    done("targets", "set", *SHOP, "all", "lists_out", "1000")
    done("alerts", "set", *SHOP, "pipeline_change", "2.50", "--from", "2027-03-01")
    with connect("owner") as session:  # what no command writes, and a database may hold
        session.execute("update settings.flow_metrics set comment = E' two\\n lines'")
        session.execute("update settings.sla_stage_rules set note = '' where group_id = '4'")
        session.execute("update settings.sla_stage_rules set limit_seconds = 7 where group_id='1'")
        session.execute(
            "update settings.waiting_stages set effective_from = '2027-01-01 00:00:00.25+00'"
        )


def test_what_is_exported_is_imported_as_it_was(tmp_path: Path) -> None:
    everything()
    file = tmp_path / "settings.yml"
    done("export", str(file))
    count = rows("select count(*) from settings.audit_log")
    assert done("import", str(file)) == "Nothing changes: all is as in the file.\n"
    assert rows("select count(*) from settings.audit_log") == count
    assert done("export") == file.read_text()
    only = done("export", "--project", "keycrm/shop-1")
    assert "shop-2" not in only
    # Into an empty project: the same again, but for its name and what no command would write.
    other = tmp_path / "other.yml"
    other.write_text(
        only.replace("project: shop-1", "project: shop-2")
        .replace("title: Q", "title: P")
        .replace(", note: ''", "")
    )
    done("import", str(other))
    assert done("export", "--project", "keycrm/shop-2") == other.read_text()
    # And back to nothing, which a section says that is an empty list.
    nothing = tmp_path / "nothing.yml"
    sections = [line for line in only.splitlines() if line.startswith("  ") and line.endswith(":")]
    nothing.write_text(
        "\n".join(["projects:", "- source: keycrm", "  project: shop-2"])
        + "".join(f"\n{line} []" for line in sections)
    )
    said = done("import", str(nothing), "--dry-run")
    assert "rows would change" in said
    assert done("export", "--project", "keycrm/shop-2") == other.read_text()
    assert done("import", str(nothing)).splitlines()[:-1] == said.splitlines()[:-1]
    assert "{" not in done("export", "--project", "keycrm/shop-2")
    assert done("export", "--project", "keycrm/shop-1") == only


def test_an_import_shows_what_differs_and_leaves_alone_what_it_does_not_name(
    tmp_path: Path,
) -> None:
    everything()
    ids = rows("select cycle_rule_id from settings.cycle_rules order by title")
    file = tmp_path / "settings.yml"
    file.write_text(
        "projects:\n- source: keycrm\n  project: shop-1\n  near:\n  - percent: 70\n"
        "  cycles:\n"
        "  - {title: full, start: group:1, end: stage:007, from: 2027-01-01, default: yes}\n"
        "  - {title: to delivery, start: group:1, end: group:4, default: no}\n"
    )
    said = done("import", str(file), "--dry-run").splitlines()
    assert said == [
        "- keycrm shop-1 near: percent=75.5, from=2027-03-01T00:00:00Z",
        "- keycrm shop-1 near: percent=80, to=2027-03-01T00:00:00Z",
        "+ keycrm shop-1 near: percent=70",
        "- keycrm shop-1 cycles: title=to delivery, start=group:1, end=group:4, default=True",
        "+ keycrm shop-1 cycles: title=to delivery, start=group:1, end=group:4",
        "- keycrm shop-1 cycles: title=full, start=group:1, end=stage:007,"
        " from=2027-01-01T00:00:00Z",
        "+ keycrm shop-1 cycles: title=full, start=group:1, end=stage:007, default=True,"
        " from=2027-01-01T00:00:00Z",
        "4 rows would change.",
    ]
    limits_before = limits()
    done("import", str(file))
    assert limits() == limits_before
    assert rows("select cycle_rule_id from settings.cycle_rules order by title") == ids
    assert rows("select title from settings.cycle_rules where is_default") == [("full",)]


WRONG_FILES = [
    ("", "has to hold one list, projects"),
    ("projects: [", "is no YAML"),
    ("projects: 1", "line 1: Here stands a list"),
    ("projects:\n- 1", "line 2: Here stand fields"),
    ("projects:\n- source: keycrm", "line 2: A project has a source and a project"),
    ("projects:\n- {source: keycrm, project: shop-9}", "no project shop-9 of keycrm"),
    (
        "projects:\n- {source: keycrm, project: shop-1}\n- {source: keycrm, project: shop-1}",
        "line 3: keycrm shop-1 stands there twice",
    ),
    ("projects:\n- {source: keycrm, project: shop-1, slas: []}", "no section 'slas'"),
]

WRONG_ENTRIES = [
    ("sla: [{group: 3}]", "limit is empty, and is needed"),
    ("sla: [{group: 3, limit: 24}]", "limit: '24' is no duration"),
    ("sla: [{group: 3, limit: 24:00, until: 2027-01-01}]", "sla has no field 'until'"),
    ("sla: [{group: 3, limit: 24:00, urgent: maybe}]", "'maybe' is neither true nor false"),
    ("sla: [{group: 3, limit: 24:00, from: soon}]", "from 'soon' is no instant"),
    ("sla: [{group: 3, limit: 24:00, from: 2027-01-02, to: 2027-01-01}]", "would end before"),
    ("sla: [{group: 3, limit: 24:00}, {group: 3, limit: 8:00}]", "says again what line 4 says"),
    ("sla: [{group: [3], limit: 24:00}]", "group has one value"),
    ("sla: [{group: 3, group: 4, limit: 24:00}]", "group stands there twice"),
    ("near: [{percent: much}]", "'much' is no share"),
    ("near: [{percent: 101}]", "'101' is no share of a limit"),
    ("near: [{percent: nan}]", "'nan' is no share of a limit"),
    ("hours: [{week: mon-sun off}]", "All days are off"),
    ("hours: [{week: 24/7, from: monday}]", "'monday' is no day"),
    ("days: [{day: 2026-01-01, as: x}]", "'x' is no day of the week"),
    ("cycles: [{title: x, start: group:1}]", "end is empty"),
    ("cycles: [{title: x, start: '1', end: group:1}]", "'1' is no step"),
    ("urgent: [{item: name, value: x, name: y}]", "'name' is nothing to know an item by"),
    ("orders: [{order: 1}]", "Nothing is said of order 1"),
    ("metrics: [{title: x, start: stage:1, end: sub:X}]", "no sub-stage 'X'"),
    (
        'metrics: [{title: x, start: stage:1, end: stage:2, comment: "\\0"}]',
        "metric x does not fit into the database",
    ),
    ("groups: [{group: 1, name: x, kind: shut}]", "'shut' is no kind of group"),
    ("groups: [{group: 1, name: x, position: first}]", "no whole number"),
    ("stages: [{stage: 1}]", "name is empty"),
    ("targets: [{kpi: calls, period: week, target: 9}]", "of is empty, and is needed"),
    ("targets: [{of: bob, kpi: calls, period: week, target: 9}]", "'bob' is no subject"),
    ("targets: [{of: all, kpi: calls, period: week, target: -9}]", "'-9' is no target"),
    ("targets: [{of: all, kpi: mails, period: week, target: 9}]", "no targets of 'mails'"),
    ("targets: [{of: all, kpi: sales, period: week, target: 9}]", "are for a month, not 'week'"),
    ("targets: [{of: all, kpi: revenue, period: month, target: 9}]", "needs its currency"),
    ("targets: [{of: all, kpi: calls, period: week, target: 9, from: may}]", "'may' is no day"),
    (
        "targets: [{of: all, kpi: calls, period: week, target: 9},"
        " {of: all, kpi: calls, period: week, target: 8, from: 2027-01-01}]",
        "target calls all week would count twice at once",
    ),
    (
        "targets: [{of: all, kpi: calls, period: week, target: 9,"
        " from: 2027-01-02, to: 2027-01-01}]",
        "target calls all week would end before it begins",
    ),
    ("alerts: [{rule: x, threshold: 9}]", "There is no rule 'x' of alerts"),
    ("alerts: [{rule: calls_this_week, threshold: -9}]", "'-9' is no threshold"),
    (
        "alerts: [{rule: calls_this_week, threshold: 9, to: 2027-01-02},"
        " {rule: calls_this_week, threshold: 8, from: 2027-01-01}]",
        "threshold calls_this_week would count twice at once",
    ),
]


def test_a_file_that_does_not_fit_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    done("sla", "set", *SHOP, "3", "30:00")
    before = rows("select count(*) from settings.audit_log")
    file = tmp_path / "settings.yml"
    project = "projects:\n- source: keycrm\n  project: shop-1\n  "
    for text, said in [
        *WRONG_FILES,
        *((project + entry, f"line 4: {said}") for entry, said in WRONG_ENTRIES[:3]),
        *((project + entry, said) for entry, said in WRONG_ENTRIES),
    ]:
        file.write_text(text)
        assert said in error("import", str(file)), text
    assert rows("select count(*) from settings.audit_log") == before


def test_rules_follow_each_other_as_a_list_of_changes_says() -> None:
    """Random settings, against the plain list of what was said last of each instant."""
    chance = random.Random(11)  # noqa: S311 - no secret
    start = datetime(2026, 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=day) for day in range(40)]
    project = ProjectKey(*SHOP)
    valid: list[int | None] = [None] * len(days)
    with changing_project(project) as session:
        for _ in range(150):
            day = chance.randrange(len(days))
            kept = LIMITS.rows(session, project)
            borders = {days.index(row.effective_from) for row in kept}  # type: ignore[arg-type]
            later = min((border for border in borders if border > day), default=len(days))
            current = in_force(kept, days[day])
            until = (
                later
                if current is None or current.effective_to is None
                else days.index(
                    current.effective_to  # type: ignore[arg-type]
                )
            )
            if chance.random() < 0.75:
                limit = chance.randint(1, 3) * 3600
                row = SlaLimit(group_id="3", limit_seconds=limit)
                LIMITS.set_from(session, project, row, days[day])
                if valid[day] != limit:
                    valid[day:until] = [limit] * (until - day)
            elif current is not None:
                LIMITS.end(session, project, {"group_id": "3", "is_urgent": False}, days[day])
                valid[day:until] = [None] * (until - day)
            kept = LIMITS.rows(session, project)
            found = [in_force(kept, at) for at in days]
            assert [row.limit_seconds if row else None for row in found] == valid


def test_each_command_shows_an_example_of_itself() -> None:
    for command in settings_rules.COMMANDS:
        subcommands = getattr(command, "commands", {})
        for names in ((command.name,), *((command.name, name) for name in subcommands)):
            said = done(*filter(None, names), "--help")
            assert (
                f"stageline settings {' '.join(filter(None, names))}"
                in said.partition("Example:")[2]
            ), names
