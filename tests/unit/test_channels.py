"""The file of channels, its mistakes by line and column, and quiet hours over midnight and DST."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.channels import Email, PagerDuty, Quiet, Slack, Webhook, channels
from stageline import config
from stageline.config import PROJECT_ROOT
from stageline.errors import StagelineError

SHIPPED = PROJECT_ROOT / "jobs" / "notifications.yml"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notifications.yml"
    monkeypatch.setenv("STAGELINE_NOTIFICATIONS", str(path))
    config.settings.cache_clear()
    return path


def quiet(begin: str, end: str, zone: str = "Europe/Kyiv") -> Quiet:
    return Quiet.model_validate({"from": begin, "to": end, "zone": zone})


def test_nobody_is_called_whom_the_user_did_not_name() -> None:
    assert channels() == []


def test_the_examples_of_the_shipped_file_are_right(file: Path) -> None:
    head, _, examples = SHIPPED.read_text().partition("channels:\n")
    assert head.startswith("#")
    file.write_text("channels:\n" + re.sub("(?m)^#", " ", examples))
    assert [type(channel) for channel in channels()] == [Slack, Email, PagerDuty, Webhook]
    team, *_, own_system = channels()
    assert team.takes == ["critical", "high", "medium"]
    assert team.remind_every == timedelta(hours=24)
    assert own_system.takes == ["critical", "high", "medium", "low"]


SLACK = "- {name: team, kind: slack, url_variable: TEAM_URL"
SLACK_TOO = SLACK.replace("name", "¤name")


#: A mistake, with a sign before the place that has to be told, and what has to be told of it.
MISTAKES = [
    ("channels: [\n¤", "This is no YAML: "),
    ("¤chanels: []\n", "There is no key chanels here. Did you mean channels?"),
    ("¤- name: team\n", "Here stand keys with their values"),
    ("channels:\n- ¤team\n", "Here stand keys with their values"),
    ("¤channels: 7\n", "channels: Input should be a valid list."),
    (f"channels:\n{SLACK}, ¤lest: high}}\n", "There is no key lest here. Did you mean least?"),
    (f"channels:\n{SLACK}, ¤name: b}}\n", "The key name stands here twice."),
    ("channels:\n- ¤{name: team, kind: slack}\n", "url_variable is missing."),
    ("channels:\n- ¤{name: team}\n", ": kind is missing."),
    ("channels:\n- ¤{name: team, kind: sms}\n", "kind is none of 'slack', 'email', 'pagerduty',"),
    ("channels:\n- {¤name: A b, kind: slack, url_variable: T_U}\n", "name: a name is"),
    (f"channels:\n{SLACK}, ¤least: worst}}\n", "least is none of 'critical'"),
    (f"channels:\n{SLACK}, ¤remind_every: soon}}\n", "'soon' is no duration."),
    (f"channels:\n{SLACK}, kinds: [kpi, ¤sql]}}\n", "kinds is none of 'kpi'"),
    (f"channels:\n{SLACK}}}\n{SLACK_TOO}}}\n", "There are two channels team."),
    (
        f"channels:\n{SLACK},\n   escalate: {{after: 1h, to: [¤tam]}}}}\n",
        "There is no channel tam. Did you mean team?",
    ),
    (
        f"channels:\n{SLACK},\n   escalate: {{after: 1h, to: [¤team]}}}}\n",
        "A channel cannot escalate to itself.",
    ),
    (
        f"channels:\n{SLACK},\n   quiet_hours: {{from: 22:00, ¤to: 8, zone: UTC}}}}\n",
        "to: write a time of day as 22:00.",
    ),
    (
        f"channels:\n{SLACK},\n   quiet_hours: {{from: 22:00, to: 8:00, ¤zone: Kyiv}}}}\n",
        "zone: no such time zone",
    ),
    (
        f"channels:\n{SLACK},\n   ¤quiet_hours: {{from: 0:00, to: 24:00, zone: UTC}}}}\n",
        "the whole day",
    ),
    (
        "channels:\n- {name: m, kind: email, host: h, from: a@b, to: [¤c], port: 25}\n",
        "this is no e-mail address",
    ),
    (
        "channels:\n- {name: m, kind: email, host: h, from: a@b, to: [c@d],\n"
        "   user: u, password_variable: M_P, ¤security: none}\n",
        "not sent in the clear",
    ),
    (
        "channels:\n- {name: p, kind: pagerduty, routing_key_variable: P_K,\n"
        "   ¤url: 'http://events.example.com/v2'}\n",
        "has to begin with https://",
    ),
    ("¤channels: &all [*all]\n", "A part of it contains itself."),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES, ids=[each for _, each in MISTAKES])
def test_a_mistake_is_told_by_line_and_column(file: Path, text: str, problem: str) -> None:
    before, _, after = text.partition("¤")
    file.write_text(before + after)
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    with pytest.raises(StagelineError) as raised:
        channels()
    told = str(raised.value)
    assert told.startswith(f"{file}, line {line}, column {column}: ")
    assert problem in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "pasted",
    [
        "https://hooks.slack.com/services/T0/B0/abc",
        "R0123456789ABCDEF0123456789ABCDE",
        "e3b0c44298fc1c149afbf4c8996fb924",
    ],
)
def test_a_secret_that_was_pasted_is_not_repeated(file: Path, pasted: str) -> None:
    file.write_text(f"channels:\n- {{name: team, kind: slack, url_variable: '{pasted}'}}\n")
    with pytest.raises(StagelineError, match="the name of an environment variable") as raised:
        channels()
    assert pasted not in str(raised.value)


@pytest.mark.usefixtures("file")
def test_a_file_that_is_not_there_is_one_line() -> None:
    with pytest.raises(StagelineError, match=r"notifications.yml cannot be read: No such file"):
        channels()


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        # Kyiv is two hours ahead of UTC in winter: quiet from 20:00 to 06:00 UTC.
        (("22:00", "8:00"), "2027-01-14T19:59:59", None),
        (("22:00", "8:00"), "2027-01-14T20:00:00", "2027-01-15T06:00:00"),
        (("22:00", "8:00"), "2027-01-15T05:59:59", "2027-01-15T06:00:00"),
        (("22:00", "8:00"), "2027-01-15T06:00:00", None),
        # Within a day, and up to its end.
        (("12:00", "13:30"), "2027-01-15T11:00:00", "2027-01-15T11:30:00"),
        (("12:00", "13:30"), "2027-01-15T11:30:00", None),
        (("18:00", "24:00"), "2027-01-15T21:59:00", "2027-01-15T22:00:00"),
        (("18:00", "24:00"), "2027-01-15T22:00:00", None),
        # The night on which clocks go from 3 to 4: an hour less, and it ends at 05:00 UTC.
        (("22:00", "8:00"), "2027-03-27T20:00:00", "2027-03-28T05:00:00"),
        (("22:00", "8:00"), "2027-03-28T05:00:00", None),
        # The night on which they go from 4 back to 3: an hour more.
        (("22:00", "8:00"), "2027-10-30T19:00:00", "2027-10-31T06:00:00"),
        (("22:00", "8:00"), "2027-10-31T05:59:00", "2027-10-31T06:00:00"),
        # An end that clocks skip comes as much later, one that they show twice the first time.
        (("22:00", "3:30"), "2027-03-28T01:15:00", "2027-03-28T01:30:00"),
        (("22:00", "3:30"), "2027-10-31T00:29:00", "2027-10-31T00:30:00"),
        (("22:00", "3:30"), "2027-10-31T00:31:00", None),
    ],
)
def test_quiet_hours_go_by_the_clocks_of_their_zone(
    hours: tuple[str, str], now: str, until: str | None
) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert quiet(*hours).until(at(now)) == (at(until) if until else None)
