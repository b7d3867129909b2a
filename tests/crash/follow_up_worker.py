"""``stageline worker`` at the pace of a test: its CRM allows much, its leases end soon.

Run as ``python -m tests.crash.follow_up_worker``.
"""

from jobs.follow_ups import Rules
from jobs.worker import run
from loaders.pace import Pace

RULES = Rules(
    lease=3.0,
    deadline=2.0,
    first_backoff=0.1,
    last_backoff=1.0,
    refused=1.0,
    idle=0.1,
    paces={"keycrm_order": Pace(calls=100, seconds=1.0)},
)

if __name__ == "__main__":
    run(follow_up_threads=2, rules=RULES, with_refreshes=False)
