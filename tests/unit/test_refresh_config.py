"""``jobs/kpi_refresh_config.yml``: what is shipped fits the project, and mistakes are named."""

from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
import yaml

from jobs.refresh_config import Load, read
from loaders.registry import SOURCES
from stageline.config import PROJECT_ROOT, settings
from stageline.errors import StagelineError

GROUP = """\
defaults:
  zone: UTC
  retries: 3
  first_wait: 1m
  timeout: 1h
groups:
  flow:
    tag: refresh_flow
    schedule: "*/15 * * * *"
    never_older_than: 1h
    criticality: high
    owner: Operations
    loads: [hubspot]
"""


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "jobs.yml"
    path.write_text(text)
    with pytest.raises(StagelineError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


def test_each_kpi_model_belongs_to_one_group() -> None:
    """Facts may be refreshed with the KPIs that are made of them."""
    tags = {group.tag for group in read().values()}
    found = {}
    for path in PROJECT_ROOT.glob("models/kpis/**/*models.yml"):
        for model in yaml.safe_load(path.read_text()).get("models", []):
            own = model.get("config", {}).get("tags", [])
            found[model["name"]] = [tag for tag in own if tag.startswith("refresh_")]
    assert found
    wrong = {name for name, of in found.items() if len(of) > 1 or not tags.issuperset(of)}
    assert wrong == set()
    assert {name for name, of in found.items() if not of and not name.startswith("fct_")} == set()
    assert {tag for of in found.values() for tag in of} == tags


def test_each_group_has_its_selector_for_dbt() -> None:
    selectors = yaml.safe_load((PROJECT_ROOT / "selectors.yml").read_text())["selectors"]
    assert {each["name"] for each in selectors} == {group.tag for group in read().values()}


def test_the_crms_are_those_of_the_loaders() -> None:
    assert set(get_args(Load)) == set(SOURCES)


def test_a_group_takes_what_it_does_not_say_from_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yml"
    path.write_text(GROUP + "    timeout: 90m\n")
    group = read(path)["flow"]
    assert group.timeout == timedelta(minutes=90)
    assert (group.retries, group.first_wait) == (3, timedelta(minutes=1))
    assert (group.promised, group.loads) == (timedelta(hours=1), ("hubspot",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"*/15 * * * *"', '"61 * * * *"', "line 9, column 5: schedule: '61 * * * *' is no cron "),
        ('"*/15 * * * *"', '"* * * * * *"', "line 9, column 5: schedule: '* * * * * *' is no cro"),
        ("1h\n    crit", "soon\n    crit", "line 10, column 5: never_older_than: the duration 's"),
        ("high", "hgih", "line 11, column 5: criticality is none of 'critical', 'high', 'medium' "),
        ("[hubspot]", "[hubspt]", "line 13, column 13: loads is none of 'hubspot', 'pipedrive',"),
        ("[hubspot]", "hubspot", "line 13, column 5: loads: Input should be a valid list."),
        ("zone: UTC", "zone: Mars", "line 2, column 3: zone: no such time zone; write one like"),
        ("retries: 3", "retries: -1", "line 3, column 3: retries: Input should be greater than "),
        ("  retries: 3\n", "", "line 6, column 3: Group flow does not say its retries, and the "),
        ("timeout: 1h", "timeout: 25h", "line 5, column 3: timeout: an attempt may take a day "),
        ("    owner: Operations\n", "", "line 7, column 3: owner is missing."),
        ("owner: Operations", "owner: ''", "line 12, column 5: owner is empty."),
        ("    owner:", "    ovner:", "line 12, column 5: There is no key ovner here. Did you mean"),
        ("never_older_than: 1h", "owner: A", "line 12, column 5: The key owner stands here twice"),
        ("    never_older_than: 1h\n", "", "line 7, column 3: Group flow needs one promise: "),
        ("loads: [", "done_within: 1h\n    loads: [", "line 7, column 3: Group flow needs one pro"),
        ("  flow:\n", "  flow: [\n", "line 9, column 13: This is no YAML: expected"),
        (GROUP, "", "line 1, column 1: groups is missing."),
        (GROUP, "groups: {}\n", "line 1, column 1: groups is empty."),
        (GROUP, "- flow\n", "line 1, column 1: Here stand keys with their values"),
    ],
)
def test_mistakes_are_named_with_their_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GROUP
    assert message in refusal(tmp_path, GROUP.replace(old, new))


def test_two_groups_do_not_refresh_the_same_models(tmp_path: Path) -> None:
    again = GROUP.partition("groups:\n")[2].replace("  flow:", "  again:")
    assert "line 15, column 5: Groups flow and again have one tag: give one up." in refusal(
        tmp_path, GROUP + again
    )


def test_a_channel_that_is_named_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = tmp_path / "channels.yml"
    channels.write_text("channels:\n- {name: ops, kind: slack, url_variable: OPS_URL}\n")
    monkeypatch.setattr(settings(), "notifications", channels)
    path = tmp_path / "own.yml"
    path.write_text(GROUP + "    channels: [ops]\n")
    assert read(path)["flow"].channels == ("ops",)
    said = refusal(tmp_path, GROUP + "    channels: [ops, obs]\n")
    assert "line 14, column 21: There is no channel obs in " in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StagelineError, match="cannot be read: No such file"):
        read(tmp_path / "none.yml")


def test_what_is_shipped_keeps_to_the_promises_of_the_kpis() -> None:
    """The table "Refresh" of docs/kpis.md."""
    said = {name: (each.schedule, each.promised, each.criticality) for name, each in read().items()}
    quarter, hourly, daily = "*/15 * * * *", "0 * * * *", "0 5 * * *"
    assert said == {
        "tickets": (quarter, timedelta(hours=1), "high"),
        "flow": (quarter, timedelta(hours=1), "high"),
        "sales_activity": (hourly, timedelta(hours=1), "high"),
        "pipeline": (hourly, timedelta(hours=2), "high"),
        "funnel_and_health": (daily, timedelta(hours=2), "critical"),
        "rep_activity": (daily, timedelta(hours=3), "medium"),
        "retention_and_satisfaction": (daily, timedelta(hours=4), "medium"),
    }
