"""The channels that alerts are sent to, as ``jobs/notifications.yml`` names them.

The file holds names of environment variables where a secret is meant, and never a secret.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from loaders.api import is_loopback
from stageline.config import secret, settings
from stageline.errors import StagelineError, nearest
from stageline.yaml_files import Checked, Duration, YamlFile, Zone

Criticality = Literal["critical", "high", "medium", "low"]

#: The most critical one first.
CRITICALITIES: tuple[Criticality, ...] = get_args(Criticality)

#: Where alerts come from; `jobs.alert_sources` has a source for each.
Kind = Literal["kpi", "quality", "refresh", "backup", "task"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# With an underscore at least: else the key of a PagerDuty service would pass for a name.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])|(24):(00)")
_ADDRESS = re.compile(r"[^\s@<>,;:\"()]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


def _variable(name: str) -> str:
    # The text is not repeated: most often it is the secret itself.
    if not _VARIABLE.fullmatch(name):
        raise ValueError(
            "here stands the name of an environment variable, like TEAM_SLACK_URL, and never the"
            " secret itself"
        )
    return name


def _channel_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a name is up to 40 of a-z, 0-9, _ and -")
    return name


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("this is no e-mail address like team@example.com")
    return text


def _clock(text: Any) -> time:
    found = _CLOCK.fullmatch(str(text))
    if found is None:
        raise ValueError("write a time of day as 22:00")
    hour, minute = (int(part) for part in found.groups() if part is not None)
    return time(hour % 24, minute)


def require_safe_url(url: str) -> str:
    """An address that may be sent to: https, or on this machine.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("this is no address like https://example.com/path")
    if parts.scheme != "https" and not is_loopback(url):
        raise ValueError("the address has to begin with https://, except on this machine")
    return url


Variable = Annotated[str, AfterValidator(_variable)]
ChannelName = Annotated[str, AfterValidator(_channel_name)]
Address = Annotated[str, AfterValidator(_address)]


class Quiet(Checked):
    """Hours in which only what is critical goes out, by the clocks of a zone; may span midnight.

    Attributes:
        begin: When they begin; a time that clocks show twice counts the first time.
        end: When they end, on the same day or the next.
        zone: Whose clocks.
    """

    begin: Annotated[time, BeforeValidator(_clock)] = Field(alias="from")
    end: Annotated[time, BeforeValidator(_clock)] = Field(alias="to")
    zone: Zone

    def until(self, now: datetime) -> datetime | None:
        """When the quiet hours end in which ``now`` lies; None where it lies in none."""
        today = now.astimezone(self.zone).date()
        for day in (today - timedelta(days=1), today):
            begins = self._instant(day, self.begin)
            over_midnight = self.end <= self.begin
            ends = self._instant(day + timedelta(days=int(over_midnight)), self.end)
            if begins <= now < ends:
                return ends
        return None

    def _instant(self, day: date, clock: time) -> datetime:
        # Through UTC, where instants can be compared, and a time that clocks skip is moved on.
        return datetime.combine(day, clock, self.zone).astimezone(ZoneInfo("UTC"))


class Escalation(Checked):
    """What happens to an alert that nobody acknowledges.

    Attributes:
        after: How long it has been open then, counted from when the channel was to be told.
        to: Channels that it goes to, too, whatever they take by themselves.
    """

    after: Duration
    to: Annotated[list[ChannelName], Field(min_length=1)]


class _Channel(Checked):
    """What channels of all kinds have.

    Attributes:
        name: Its name, for people and commands.
        least: The least criticality that it takes.
        kinds: What it takes; None: alerts of every kind.
        quiet_hours: When it is quiet.
        remind_every: After how long it is told again of what is open and not acknowledged.
        escalate: Where to such alerts go, too.
    """

    name: ChannelName
    least: Criticality = "low"
    kinds: list[Kind] | None = None
    quiet_hours: Quiet | None = None
    remind_every: Duration | None = None
    escalate: Escalation | None = None

    @property
    def takes(self) -> list[str]:
        """The criticalities that it takes."""
        return list(CRITICALITIES[: CRITICALITIES.index(self.least) + 1])

    def quiet_until(self, now: datetime) -> datetime | None:
        """When its quiet hours end in which ``now`` lies; None where it is not quiet."""
        return self.quiet_hours.until(now) if self.quiet_hours else None


class Slack(_Channel):
    """An incoming webhook of Slack; its address is the secret."""

    kind: Literal["slack"]
    url_variable: Variable


class Email(_Channel):
    """A mail server."""

    kind: Literal["email"]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]{1,253}$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_variable: Variable | None = None
    sender: Address = Field(alias="from")
    to: Annotated[list[Address], Field(min_length=1, max_length=50)]


class PagerDuty(_Channel):
    """A service of PagerDuty, reached by its Events API v2."""

    kind: Literal["pagerduty"]
    routing_key_variable: Variable
    url: Annotated[str, AfterValidator(require_safe_url)] = (
        "https://events.pagerduty.com/v2/enqueue"
    )


class Webhook(_Channel):
    """Any address that takes JSON, signed as Standard Webhooks says."""

    kind: Literal["webhook"]
    url_variable: Variable
    secret_variable: Variable


Channel = Slack | Email | PagerDuty | Webhook


class _File(Checked):
    channels: list[Annotated[Channel, Field(discriminator="kind")]] | None = None


def channels() -> list[Channel]:
    """The channels that are configured, in the file that ``STAGELINE_NOTIFICATIONS`` names.

    Raises:
        StagelineError: the file has a mistake; it is told by line and column.
    """
    file = YamlFile(settings().notifications)
    found = file.checked(_File).channels or []
    names = [channel.name for channel in found]
    for at, channel in enumerate(found):
        place: tuple[str | int, ...] = ("channels", at)
        if channel.name in names[:at]:
            raise file.error((*place, "name"), f"There are two channels {channel.name}.")
        if channel.quiet_hours and channel.quiet_hours.begin == channel.quiet_hours.end:
            raise file.error(
                (*place, "quiet_hours"), "These quiet hours are the whole day, or nothing of it."
            )
        if isinstance(channel, Email):
            _require_sound_login(file, place, channel)
        for position, name in enumerate(channel.escalate.to if channel.escalate else ()):
            there = (*place, "escalate", "to", position)
            if name == channel.name:
                raise file.error(there, "A channel cannot escalate to itself.")
            if name not in names:
                raise file.error(there, f"There is no channel {name}. {nearest(name, names)}")
    return found


def channel_named(name: str) -> Channel:
    """One of the channels.

    Raises:
        StagelineError: the file has a mistake, or there is no such channel.
    """
    found = channels()
    for channel in found:
        if channel.name == name:
            return channel
    hint = (
        nearest(name, [channel.name for channel in found])
        if found
        else f"None is configured: {settings().notifications} says how."
    )
    raise StagelineError(f"There is no channel {name!r}. {hint}")


def secret_of(channel: Channel, variable: str) -> str:
    """The secret in a variable of a channel.

    Raises:
        StagelineError: it is not set.
    """
    held = secret(variable)
    if held is None:
        raise StagelineError(
            f"Channel {channel.name} needs the variable {variable}, which is not set."
            " Set it in the environment or in .env."
        )
    return held.get_secret_value().strip()


def _require_sound_login(file: YamlFile, place: Sequence[str | int], channel: Email) -> None:
    if (channel.user is None) != (channel.password_variable is None):
        raise file.error(place, "user and password_variable come together.")
    if channel.user is not None and channel.security == "none":
        raise file.error(
            (*place, "security"), "A password is not sent in the clear: take starttls or tls."
        )
