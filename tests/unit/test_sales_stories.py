"""What is made up holds together: sizes, time, order, references, and who was there."""

import csv
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from loaders import generate_sales
from loaders.entities import ENTITIES
from loaders.generate_sales import Plan
from loaders.sales_calendar import DAY, HOLIDAYS, OF_WEEKDAY, WorkingDays, drawn_from, holidays
from loaders.sales_reps import Department
from loaders.sales_stories import COLUMNS, rows
from stageline.config import PROJECT_ROOT
from stageline.errors import StagelineError

#: Both changes of clocks, a New Year and a quiet summer lie in the windows of these.
DAYS = (date(2026, 11, 20), date(2026, 4, 15), date(2027, 1, 14), date(2026, 9, 1))

Rows = dict[str, list[dict[str, Any]]]


def told(plan: Plan, number: int = 1) -> Rows:
    """What a department is told, by entity."""
    window = plan.window
    department = Department(window, WorkingDays(window), number, plan.seed)
    found: Rows = {entity: [] for entity in COLUMNS}
    for entity, row in rows(department, plan.leads, plan.currency):
        found[entity].append(dict(zip(COLUMNS[entity], row, strict=True)))
    return found


@cache
def world(day: date, seed: int) -> Rows:
    """A department as it is by default."""
    return told(Plan(as_of=day, seed=seed))


def worlds() -> Iterable[tuple[Plan, Rows]]:
    """A few of them."""
    for seed, day in enumerate(DAYS, start=1):
        yield Plan(as_of=day, seed=seed), world(day, seed)


def local(instant: int) -> datetime:
    """What the clocks of the default zone show."""
    return datetime.fromtimestamp(instant, ZoneInfo(generate_sales.DEFAULT_ZONE))


def test_the_sizes_are_those_of_the_spec() -> None:
    sizes = [Counter({e: len(r) for e, r in world(DAYS[0], seed).items()}) for seed in range(1, 13)]
    for size in sizes:
        assert size["leads"] == 150
        assert 1_000 <= size["pipeline_items"] <= 2_000
        assert 2_000 <= size["activities"] <= 4_000
    for entity, wanted in (("pipeline_items", 1_500), ("activities", 3_000)):
        mean = sum(size[entity] for size in sizes) / len(sizes)
        assert abs(mean / wanted - 1) < 0.1, (entity, mean)
    for _, found in worlds():
        assert 80 <= len(found["sublists"]) <= 180
        assert len(found["sales"]) >= 30
        foreign = [sale for sale in found["sales"] if sale["currency"] != "EUR"]
        assert 0 < len(foreign) < len(found["sales"]) / 4
        kinds = Counter(activity["activity_type"] for activity in found["activities"])
        assert kinds["call"] > kinds["email"] > kinds["meeting"] > 100
        outcomes = Counter(activity["outcome"] for activity in found["activities"])
        assert min(outcomes[o] for o in ("no_show", "rescheduled", "cancelled", "replied")) >= 5


def test_rows_have_the_fields_of_their_entities() -> None:
    for entity, columns in COLUMNS.items():
        fields = {field.name: field for field in ENTITIES[entity].fields}
        assert set(columns) <= set(fields), entity
        for _, found in worlds():
            keys = [tuple(row[name] for name in ENTITIES[entity].key) for row in found[entity]]
            assert len(keys) == len(set(keys)), entity
            for row in found[entity]:
                for name, field in fields.items():
                    value = row.get(name)
                    assert value is not None or not field.required, (entity, name)
                    assert value is None or not field.choices or value in field.choices


def test_every_reference_leads_somewhere() -> None:
    for _, found in worlds():
        ids = {
            "lead_id": {row["lead_id"] for row in found["leads"]},
            "item_id": {row["item_id"] for row in found["pipeline_items"]},
            "sublist_id": {row["sublist_id"] for row in found["sublists"]},
            "rep_id": {row["rep_id"] for row in found["reps"]},
        }
        for entity, these in found.items():
            for row in these:
                for name, known in ids.items():
                    assert row.get(name) in known | {None}, (entity, name)
        items = {row["item_id"]: row for row in found["pipeline_items"]}
        contacts = Counter(row["sublist_id"] for row in items.values() if row["sublist_id"])
        for sublist in found["sublists"]:
            parent = items[sublist["item_id"]]
            assert 3 <= parent["partner_list_size"] <= 20
            assert contacts[sublist["sublist_id"]] <= parent["partner_list_size"]
        sold = Counter(sale["item_id"] for sale in found["sales"])
        for item in items.values():
            assert (item["lead_id"] is None) == (item["sublist_id"] is not None)
            assert (item["total_sales_from_list"] or 0) == sold[item["item_id"]]
            assert sold[item["item_id"]] <= (item["partner_list_size"] or 0)


def test_all_that_is_done_is_done_in_working_hours() -> None:
    for plan, found in worlds():
        hours: Counter[int] = Counter()
        for entity, these in found.items():
            for row in these:
                for name, value in row.items():
                    if name.endswith("_at") and value is not None:
                        at = local(value)
                        assert at.isoweekday() <= 5, (entity, name, at)
                        assert (at.month, at.day) not in HOLIDAYS, (entity, name, at)
                        assert 8 <= at.hour < 20, (entity, name, at)
                        if name == "scheduled_at" and row["activity_type"] == "call":
                            hours[at.hour] += 1
                            assert at.minute % 15 == 0
                            assert at.date() <= plan.window.last
        assert hours[13] < hours[10] / 2 > hours[8]
        assert hours[13] < hours[15] / 2 > hours[17] / 2
        by_day = Counter(local(row["created_at"]).date() for row in found["pipeline_items"])
        assert plan.window.first <= min(by_day) and max(by_day) < plan.window.today


def test_steps_follow_each_other_but_for_lists_sent_before_their_agreement_was_noted() -> None:
    early = late = never = undated = lists = 0
    for plan, found in worlds():
        until = plan.window.as_of.timestamp()
        for item in found["pipeline_items"]:
            steps = [
                item[name]
                for name in (
                    "created_at",
                    "call_booked_at",
                    "call_conducted_at",
                    "proposal_at",
                    "agreement_at",
                )
            ]
            reached = [step for step in steps if step is not None]
            assert reached == sorted(reached)
            sent, due, agreed = (
                item[f"{name}_at"]
                for name in ("partner_list_sent", "partner_list_due", "agreement")
            )
            if sent is None or agreed is None or agreed < sent:
                assert reached == steps[: len(reached)]  # none is left out
            early += sent is not None and (agreed is None or agreed > sent)
            if agreed is not None:
                lists += 1
                undated += due is None
                late += due is not None and sent is not None and sent > due
                never += due is not None and sent is None and due < until
            if item["first_sale_at"] is not None:
                assert sent is not None and sent < item["first_sale_at"]
            assert (sent is None) == (item["partner_list_size"] is None)
            assert (
                item["updated_at"]
                == max(
                    value
                    for name, value in item.items()
                    if name.endswith("_at")
                    and name not in ("updated_at", "partner_list_due_at")
                    and value is not None
                )
                or item["total_sales_from_list"]
            )
    assert lists > 300
    assert 0 < early < lists * 0.05
    assert lists * 0.05 < late < lists * 0.35
    assert lists * 0.02 < never < lists * 0.25
    assert 0 < undated < lists * 0.1


def test_nothing_is_known_before_it_happens() -> None:
    for plan, found in worlds():
        until = plan.window.as_of.timestamp()
        planned = {"scheduled_at", "partner_list_due_at"}
        for these in found.values():
            for row in these:
                for name, value in row.items():
                    if name.endswith("_at") and name not in planned and value is not None:
                        assert value <= until, name
        ahead = [a for a in found["activities"] if (a["scheduled_at"] or 0) > until]
        assert len(ahead) > 100
        assert {a["outcome"] for a in ahead} <= {None, "rescheduled", "cancelled"}
        for call in found["activities"]:
            assert call["scheduled_at"] is None or call["created_at"] < call["scheduled_at"]
            if call["scheduled_at"] is not None and call["completed_at"] is not None:
                assert call["completed_at"] > call["scheduled_at"]


def test_reps_come_and_go() -> None:
    for plan, found in worlds():
        periods = defaultdict(list)
        for row in found["reps"]:
            periods[row["rep_id"]].append(row)
        assert len(periods) == 8
        assert len({row["name"] for row in found["reps"]}) == 8
        assert len({row["team_id"] for row in found["reps"]}) == 3
        (moved,) = [rows for rows in periods.values() if len(rows) > 1]
        assert moved[0]["active_to"] + timedelta(days=1) == moved[1]["active_from"]
        assert moved[0]["team_id"] != moved[1]["team_id"]
        (left,) = [p[-1] for p in periods.values() if p[-1]["active_to"] is not None]
        assert left["active_to"].isoweekday() == 3
        assert plan.window.first < left["active_to"] < plan.window.today
        (new,) = [p[0] for p in periods.values() if p[0]["active_from"] >= plan.window.first]
        assert new["active_to"] is None
        without = 0
        for activity in found["activities"]:
            if activity["rep_id"] is None:
                without += 1
                continue
            when = local(activity["scheduled_at"] or activity["completed_at"]).date()
            theirs = periods[activity["rep_id"]]
            assert theirs[0]["active_from"] <= when, activity
            assert theirs[-1]["active_to"] is None or when <= theirs[-1]["active_to"], activity
        assert 0 < without < len(found["activities"]) / 50


def test_the_new_rep_becomes_better_and_the_one_in_trouble_worse() -> None:
    new, trouble, others = [0, 0], [0, 0], [0, 0]
    for seed in range(1, 13):
        plan = Plan(as_of=DAYS[0], seed=seed)
        for call in world(DAYS[0], seed)["activities"]:
            if call["activity_type"] != "call" or call["completed_at"] is None:
                continue
            ago = (plan.window.today - local(call["completed_at"]).date()).days
            if ago > 42:
                continue
            count = {"rep-1-8": new, "rep-1-5": trouble}.get(call["rep_id"], others)
            count[ago <= 14] += 1
    # the last two weeks against the four before them
    assert new[1] / new[0] > others[1] / others[0] > 2 * trouble[1] / trouble[0]


def test_a_new_rep_is_as_good_as_the_others_after_a_while() -> None:
    window = Plan(as_of=DAYS[0]).window
    department = Department(window, WorkingDays(window), 1, seed=1)
    past = range(department.today)
    forms = [[rep.form(day) for day in past if rep.is_there(day)] for rep in department.reps]
    *others, new = forms
    assert new == sorted(set(new)) and new[0] < 0.5 and new[-1] <= 1
    trouble = others.pop(4)
    assert trouble[0] == 1 and trouble[-1] < 0.5 and trouble == sorted(trouble, reverse=True)
    assert {form for each in others for form in each} == {1.0}


def test_a_plan_always_gives_the_same_and_another_seed_something_else() -> None:
    plan = Plan(as_of=DAYS[0], leads=30)
    assert told(plan) == told(plan)
    for other in (Plan(as_of=DAYS[0], leads=30, seed=2), Plan(as_of=DAYS[1], leads=30)):
        items = {tuple(row.values()) for row in told(other)["pipeline_items"]}
        assert not items & {tuple(row.values()) for row in told(plan)["pipeline_items"]}
    assert told(plan, number=2)["leads"][0]["lead_id"] == "lead-2-0001"


def test_more_leads_leave_those_that_there_were_as_they_are() -> None:
    few, many = told(Plan(as_of=DAYS[0], leads=10)), told(Plan(as_of=DAYS[0], leads=20))
    for entity, these in few.items():
        assert many[entity][: len(these)] == these
        assert len(many[entity]) > len(these) or entity == "reps"


def test_later_on_a_day_more_is_known_and_nothing_is_taken_back() -> None:
    morning = told(Plan(as_of=date(2026, 11, 19)))
    evening = told(Plan(as_of=datetime(2026, 11, 19, 19, tzinfo=UTC)))
    changes = {"stage", "outcome", "updated_at", "total_sales_from_list", "win_probability"}
    more = 0
    for entity, these in morning.items():
        key = ENTITIES[entity].key
        later = {tuple(row[name] for name in key): row for row in evening[entity]}
        more += len(later) - len(these)
        for row in these:
            now = later[tuple(row[name] for name in key)]
            for name, value in row.items():
                if name not in changes and value is not None:
                    assert now[name] == value, (entity, name)
    assert more > 10


def test_leads_follow_the_weekday_and_the_month() -> None:
    days = WorkingDays(Plan(as_of=date(2027, 1, 1), days_back=365).window)
    year = range(days.index(date(2027, 1, 1)))
    random = drawn_from("a year")
    came = Counter(days.days[days.arrival(random, year) // DAY] for _ in range(20_000))

    def on_each(chosen: Callable[[date], bool]) -> float:
        """Arrivals a day, on days of one kind in the middle of the year."""
        these = [day for day in days.days[: len(year)] if chosen(day)]
        return sum(came[day] for day in these) / len(these)

    weekdays = [on_each(lambda day, n=n: day.isoweekday() == n) for n in range(1, 6)]  # type: ignore[misc]
    assert min(weekdays) == weekdays[4] and weekdays[0] < weekdays[1]
    assert weekdays[4] / weekdays[1] == pytest.approx(OF_WEEKDAY[4] / OF_WEEKDAY[1], rel=0.1)
    july, august, september = (on_each(lambda day, n=n: day.month == n) for n in (7, 8, 9))  # type: ignore[misc]
    assert august < july and august < september  # though ever fewer come in


def test_the_stages_are_those_that_are_known() -> None:
    with (PROJECT_ROOT / "seeds" / "reference" / "sales_stages.csv").open() as file:
        known = [(row["alias"], row["is_prefix"] == "true") for row in csv.DictReader(file)]
    seen = {item["stage"] for _, found in worlds() for item in found["pipeline_items"]}
    for stage in seen:
        assert any(stage.startswith(a) if prefix else stage == a for a, prefix in known), stage
    assert len(seen) >= 9


def test_days_off_are_within_reach_of_any_window() -> None:
    first = date(2026, 1, 1)
    for shift in range(366):
        day = first + timedelta(days=shift)
        assert holidays(day, day + timedelta(days=90))
    assert holidays(date(2026, 12, 25), date(2027, 1, 1)) == {
        date(2026, 12, 25): "Christmas",
        date(2027, 1, 1): "New Year",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"leads": 0}, "--leads 0 is out of range: give 1 to 100,000."),
        ({"leads": -5}, "--leads -5 is out of range: give 1 to 100,000."),
        ({"days_back": 6}, "--days-back 6 is out of range: give 7 to 3,650."),
        ({"days_forward": -1}, "--days-forward -1 is out of range: give 0 to 3,650."),
        ({"scale": 1001}, "--scale 1001 is out of range: give 1 to 1,000."),
        ({"scale": 0}, "--scale 0 is out of range: give 1 to 1,000."),
        ({"timezone": "Mars/Base"}, "There is no time zone 'Mars/Base'."),
        ({"currency": "euro"}, "'euro' is no currency."),
        ({"as_of": date(1900, 1, 1)}, "--as-of 1900-01-01 is out of range"),
    ],
)
def test_a_wrong_plan_is_refused_in_a_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(StagelineError) as caught:
        Plan(**{"as_of": DAYS[0], **change}).require_valid()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("back", [7, 8, 13])
@pytest.mark.parametrize("forward", [0, 1])
def test_short_times_are_told_of_too(back: int, forward: int) -> None:
    for start in range(7):
        plan = Plan(
            as_of=date(2026, 12, 24) + timedelta(days=start),
            days_back=back,
            days_forward=forward,
            leads=20,
        )
        found = told(plan)
        assert len(found["leads"]) == 20
        for activity in found["activities"]:
            if activity["scheduled_at"] is not None:
                assert local(activity["scheduled_at"]).date() <= plan.window.last


class _Unseen:
    """A step that nobody watches."""

    def advance(self, count: int = 1) -> None:
        """Another lead is told."""


def test_memory_does_not_grow_with_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_sales, "_PORTION", 30)

    def peak(scale: int) -> tuple[int, int]:
        tracemalloc.start()
        plan = Plan(as_of=DAYS[0], leads=3, scale=scale)
        told = sum(t.num_rows for _, t in generate_sales._portions(plan, _Unseen()))  # type: ignore[arg-type]
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return told, size

    peak(1)  # what is imported and kept once and for all
    (few, small), (many, large) = peak(12), peak(50)
    assert many > 3 * few > 2_000
    assert large < 2 * small  # four times that, if rows were kept
