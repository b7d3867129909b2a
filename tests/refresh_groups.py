"""A group to refresh, for tests to change as they need it."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from jobs.refresh_config import Group

MINUTE = timedelta(minutes=1)

#: Every quarter of an hour, never older than an hour; twice tried again.
FLOW = Group(
    "flow",
    tag="refresh_flow",
    schedule="*/15 * * * *",
    zone=ZoneInfo("UTC"),
    never_older_than=60 * MINUTE,
    done_within=None,
    criticality="high",
    owner="Operations",
    retries=2,
    first_wait=MINUTE,
    timeout=60 * MINUTE,
)
