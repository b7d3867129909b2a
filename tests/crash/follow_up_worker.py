"""The follow-up worker at the pace of a test: a CRM that allows much, and leases that end soon.

Run as ``python -m tests.crash.follow_up_worker``.
"""

import threading

from jobs.follow_ups import Rules, drain
from loaders.pace import Pace

#: How many follow-ups are done at once.
_THREADS = 2

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
    threads = [
        threading.Thread(target=drain, args=(threading.Event(), RULES)) for _ in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
