"""Follow-up work: what a delivery only hints at is asked of the CRM, at its pace, until it answers.

The landed deliveries are the queue: `plan` reads those that are new and notes in ``ops.follow_ups``
which deals and orders to ask about; `claim` hands one of them to one worker; `run_one` asks, stores
the answer and says how it went. Any number of workers may do all of this at once. A worker that
dies loses its claim when the lease ends; one that comes back late is known by its claim's number.
"""

import os
import random
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from loaders import keycrm_orders, pipedrive_deals
from loaders.api import Api, FailedError, RefusedError, ThrottledError
from loaders.pace import Account, BusyError, Pace, block, reserve
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.progress import log
from stageline.settings import api_accounts

Connection = psycopg.Connection[Any]


class _Loader(Protocol):
    """What a module of a kind of follow-up work offers."""

    PACE: Pace
    WAIT_UNSAID: float

    def token_header(self, token: str, /) -> tuple[str, str]: ...
    def fetch(self, api: Api, entity_id: str, /) -> Any: ...
    def store(
        self,
        connection: Connection,
        project_id: str,
        entity_id: str,
        answer: Any,
        fetched_at: datetime,
        /,
    ) -> None: ...


#: Kind of follow-up work -> the module that does it.
_LOADERS: dict[str, _Loader] = {
    "pipedrive_deal": pipedrive_deals,
    "keycrm_order": keycrm_orders,
}


@dataclass(frozen=True)
class Rules:
    """How follow-up work is done; all times in seconds.

    Attributes:
        quiet: How long a deal that was answered is left alone when its webhooks come in: each page
            of its changes costs 40 tokens of a daily budget (contract pipedrive 1.1).
        lease: How long a worker may take before another one takes over; longer than ``deadline``.
        deadline: How long all calls of one follow-up may take.
        attempts: After how many attempts one is given up.
        first_backoff, backoff_factor, last_backoff: Longest wait after the first failure, what each
            further one multiplies it by, and where that ends; the wait is drawn from 0 to there.
            Eight attempts take over an hour on average, so an outage of that length passes.
        refused: How long to wait after a refusal, which only a person can mend.
        patience: Longest wait for the account's turn, for the first call of a follow-up and for
            its further ones, which would throw the first one away.
        idle: How long to wait for work where there is none.
        paces: Kind -> pace, where it is not that of the kind's module.
    """

    quiet: float = 600.0
    lease: float = 120.0
    deadline: float = 50.0
    attempts: int = 8
    first_backoff: float = 5.0
    backoff_factor: float = 4.0
    last_backoff: float = 3600.0
    refused: float = 900.0
    patience: tuple[float, float] = (2.0, 10.0)
    idle: float = 1.0
    paces: Mapping[str, Pace] = field(default_factory=dict)

    def backoff(self, attempts: int) -> float:
        """Seconds to wait after so many failed attempts: exponential, capped, with full jitter."""
        longest = self.first_backoff * self.backoff_factor ** (attempts - 1)
        return random.uniform(0, min(longest, self.last_backoff))  # noqa: S311 - no secret


USUAL = Rules()


@dataclass(frozen=True)
class FollowUp:
    """A deal or order that a worker has claimed.

    Attributes:
        delivery_id: The latest delivery that asked for it.
        requested: How many deliveries the answer will cover.
        attempts: Which attempt since the last answer this is, from 1.
        claim: Number of the claim.
        claimed_at: When it was claimed, by the clock of the database.
    """

    kind: str
    source_system: str
    project_id: str
    entity_id: str
    delivery_id: UUID
    requested: int
    attempts: int
    claim: int
    claimed_at: datetime

    @property
    def account(self) -> Account:
        """The account that is asked."""
        return Account(self.source_system, self.project_id)


@dataclass(frozen=True)
class State:
    """Follow-up work that is not done.

    Attributes:
        state: ``no token`` = nobody has stored one for the project, so nothing is asked.
        requested_at: Since when there has been something to ask.
        due_at: When it will be asked next; while it runs, when its lease ends; None once it was
            given up.
        attempts: Attempts since the last answer.
        reason: Why it waits or was given up, where there is one.
    """

    kind: str
    source_system: str
    project_id: str
    entity_id: str
    delivery_id: UUID
    state: Literal["running", "waiting", "no token", "gave up"]
    requested_at: datetime
    due_at: datetime | None
    attempts: int
    reason: str | None


def plan(connection: Connection, rules: Rules = USUAL) -> int:
    """Notes what the deliveries and replays since the last plan ask for; gives how many entities.

    Each is read once, by the first plan whose snapshot sees it, in whatever order transactions
    commit. Where another worker is planning, there is nothing to do.

    Args:
        connection: Of the jobs.
        rules: Only ``quiet`` is used.
    """
    with connection.transaction():
        position = connection.execute(_POSITION).fetchone()
        if position is None:
            return 0
        row = connection.execute(
            _PLAN,
            {
                **dict(zip(("planned", "server", "is_here"), position, strict=True)),
                "quiet": rules.quiet,
            },
        ).fetchone()
    return int(row[0]) if row else 0


def claim(connection: Connection, worker: str, rules: Rules = USUAL) -> FollowUp | None:
    """Takes the follow-up that is due longest, of the account whose turn comes soonest.

    Accounts that are blocked, or have no turn soon, are passed over. The attempt counts from here,
    so one that kills its worker ends, too: those out of attempts are given up here.

    Args:
        connection: Of the jobs, in autocommit mode.
        worker: Name of the worker, for people.
        rules: Lease, attempts and patience.
    """
    with connection.cursor(row_factory=class_row(FollowUp)) as cursor:
        values = {
            "worker": worker,
            "lease": rules.lease,
            "attempts": rules.attempts,
            "patience": rules.patience[0],
        }
        cursor.execute(_GIVE_UP_DEAD, values)
        for dead in cursor:
            _tell(dead, "gave up", reason=f"its worker died in attempt {dead.attempts}")
        return cursor.execute(_CLAIM, values).fetchone()


Outcome = Literal["answered", "waits", "retries", "gave up", "lost its claim"]


def run_one(
    follow_up: FollowUp, jobs: Connection, loader: Connection, rules: Rules = USUAL
) -> Outcome:
    """Asks the CRM about one claimed deal or order, stores the answer, and notes how it went.

    Args:
        follow_up: From `claim`.
        jobs, loader: Connections of these roles, in autocommit mode.
        rules: How it is done.

    Raises:
        psycopg.OperationalError: the database went away; the claim ends with its lease.
    """
    started = time.monotonic()
    ending = _ask(follow_up, jobs, loader, rules)
    outcome: Outcome = ending.outcome
    if outcome == "retries" and follow_up.attempts >= rules.attempts:
        outcome = "gave up"
    noted = jobs.execute(_FINISH, {**vars(follow_up), **vars(ending), "outcome": outcome}).rowcount
    if noted == 0:
        outcome = "lost its claim"
    seconds = round(time.monotonic() - started, 3)
    _tell(follow_up, outcome, reason=ending.reason, seconds=seconds)
    return outcome


def run_due(
    jobs: Connection,
    loader: Connection,
    worker: str,
    rules: Rules = USUAL,
    stop: threading.Event | None = None,
) -> int:
    """Plans and runs what is due, one after the other; gives how many were run.

    Args:
        jobs, loader: Connections of these roles, in autocommit mode.
        worker: Name of the worker, for people.
        rules: How it is done.
        stop: Ends it after the one that is running.
    """
    done = 0
    while stop is None or not stop.is_set():
        plan(jobs, rules)
        follow_up = claim(jobs, worker, rules)
        if follow_up is None:
            break
        run_one(follow_up, jobs, loader, rules)
        done += 1
    return done


def drain(stop: threading.Event, rules: Rules = USUAL) -> None:
    """Does follow-up work until ``stop`` is set; also when the database goes away and comes back.

    One worker. For more, call it in several threads, processes or machines.
    """
    worker = f"{this_process()}{threading.get_native_id()}"
    is_away = False
    while not stop.is_set():
        try:
            with (
                connect("jobs", autocommit=True) as jobs,
                connect("loader", autocommit=True) as loader,
            ):
                is_away = False
                while not stop.is_set():
                    if run_due(jobs, loader, worker, rules, stop) == 0:
                        stop.wait(rules.idle)
        except (StagelineError, psycopg.OperationalError, psycopg.InterfaceError) as error:
            if not is_away:
                log().error("follow-up work waits for the database", error=type(error).__name__)
            is_away = True
            stop.wait(rules.idle)


def this_process() -> str:
    """How the names of all workers of this process begin."""
    return f"{socket.gethostname()}:{os.getpid()}:"


def hand_back(connection: Connection, process: str) -> int:
    """Lets other workers take at once what a process has claimed; it counts as no attempt.

    Args:
        connection: Of the jobs, in autocommit mode.
        process: As `this_process` gives it.

    Returns:
        How many follow-ups that are.
    """
    return connection.execute(_HAND_BACK, {"process": process}).rowcount


def states(connection: Connection) -> list[State]:
    """All follow-up work that is not done, the oldest first; for the role of the jobs."""
    with connection.cursor(row_factory=class_row(State)) as cursor:
        return cursor.execute(_STATES).fetchall()


def answered(
    connection: Connection, project_id: str | None, limit: int
) -> tuple[list[tuple[str, str, str, datetime]], int]:
    """What was answered: kind, project, entity and when, the latest first; and how many in all.

    Args:
        connection: Of the jobs.
        project_id: Only of this project, or of all.
        limit: Most rows.
    """
    rows = connection.execute(_ANSWERED, {"project_id": project_id, "limit": limit}).fetchall()
    return [row[:4] for row in rows], rows[0][4] if rows else 0


def retry(
    connection: Connection,
    kind: str | None = None,
    project_id: str | None = None,
    entity_id: str | None = None,
) -> int:
    """Makes what was given up, or waits after a failure, due now, with all its attempts.

    What is given narrows it down. Accounts concerned are asked at once, even where they are
    blocked: a token may just have been put right.

    Returns:
        How many follow-ups are due now.
    """
    values = {"kind": kind, "project_id": project_id, "entity_id": entity_id}
    row = connection.execute(_RETRY, values).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class _Ending:
    """How an attempt ended: with which outcome, why, and when to try again."""

    outcome: Literal["answered", "waits", "retries"]
    reason: str | None = None
    seconds: float | None = None


def _ask(follow_up: FollowUp, jobs: Connection, loader: Connection, rules: Rules) -> _Ending:
    account = follow_up.account
    try:
        _fetch_and_store(follow_up, jobs, loader, rules)
    except BusyError as error:
        return _Ending("waits", str(error), error.seconds)
    except ThrottledError as error:
        block(jobs, account, error.seconds, str(error))
        return _Ending("waits", str(error), error.seconds)
    except (RefusedError, StagelineError) as error:
        if not isinstance(error, RefusedError) or error.concerns_account:
            block(jobs, account, rules.refused, str(error))
        return _Ending("retries", str(error), rules.refused)
    except FailedError as error:
        wait = max(rules.backoff(follow_up.attempts), error.after or 0.0)
        return _Ending("retries", str(error), wait)
    except Exception as error:  # whatever one deal does to us, the others have to go on
        if jobs.closed or loader.closed:
            raise
        return _Ending("retries", _place_of(error), rules.backoff(follow_up.attempts))
    return _Ending("answered")


def _place_of(error: Exception) -> str:
    """What happened where in our code, without the error's text, which could hold what was read."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    return f"{type(error).__name__} in {ours[-1].name}, line {ours[-1].lineno}"


def _fetch_and_store(
    follow_up: FollowUp, jobs: Connection, loader: Connection, rules: Rules
) -> None:
    module = _LOADERS[follow_up.kind]
    turns = _Turns(jobs, follow_up.account, rules.paces.get(follow_up.kind, module.PACE), rules)
    account = api_accounts.get(jobs, follow_up.source_system, follow_up.project_id)
    with Api(
        account.base_url,
        module.token_header(account.token),
        before_call=turns.wait,
        wait_unsaid=module.WAIT_UNSAID,
        deadline=rules.deadline,
    ) as api:
        answer = module.fetch(api, follow_up.entity_id)
    module.store(loader, follow_up.project_id, follow_up.entity_id, answer, follow_up.claimed_at)


class _Turns:
    """Waits for the account's turn before each call of one follow-up."""

    def __init__(self, jobs: Connection, account: Account, pace: Pace, rules: Rules) -> None:
        self._jobs, self._account, self._pace = jobs, account, pace
        self._patience, self._later_patience = rules.patience

    def wait(self) -> None:
        """Sleeps until the account's turn.

        Raises:
            BusyError: it does not come soon.
        """
        time.sleep(reserve(self._jobs, self._account, self._pace, self._patience))
        self._patience = self._later_patience


def _tell(follow_up: FollowUp, outcome: Outcome, **more: Any) -> None:
    tell = log().info if outcome in ("answered", "waits") else log().warning
    tell(
        "follow-up",
        delivery_id=str(follow_up.delivery_id),
        kind=follow_up.kind,
        project=follow_up.project_id,
        entity_id=follow_up.entity_id,
        outcome=outcome,
        attempt=follow_up.attempts,
        **more,
    )


_POSITION = """
select planned::text, system_identifier::text, server = system_identifier::text
from ops.follow_up_position
cross join pg_control_system()
for update of follow_up_position skip locked
"""

# What comes with the dump of another server has transactions that are still to come on this one,
# and its snapshot says nothing here: the first plan goes by the time. Whatever was long in
# committing did so within the hour.
_PLAN = """
with elsewhere as (
    select planned_at - interval '1 hour' as since from ops.follow_up_position
),

seen as (
    select delivery_id, sender, source_system, project_id, entity_type, entity_ids, landed_at
    from raw.deliveries
    where
        (
            %(is_here)s
            and landed_xid >= pg_snapshot_xmin(%(planned)s::pg_snapshot)
            and landed_xid < pg_snapshot_xmax(pg_current_snapshot())
            and not pg_visible_in_snapshot(landed_xid, %(planned)s::pg_snapshot)
        )
        or (not %(is_here)s and landed_at >= (select since from elsewhere))
    union all
    select
        deliveries.delivery_id,
        deliveries.sender,
        deliveries.source_system,
        deliveries.project_id,
        replays.entity_type,
        replays.entity_ids,
        replays.replayed_at as landed_at
    from raw.replays
    inner join raw.deliveries using (delivery_id)
    where
        (
            %(is_here)s
            and replays.landed_xid >= pg_snapshot_xmin(%(planned)s::pg_snapshot)
            and replays.landed_xid < pg_snapshot_xmax(pg_current_snapshot())
            and not pg_visible_in_snapshot(replays.landed_xid, %(planned)s::pg_snapshot)
        )
        or (not %(is_here)s and replays.replayed_at >= (select since from elsewhere))
),

kinds (kind, source_system, entity_type) as (
    values ('pipedrive_deal', 'pipedrive', 'deal'), ('keycrm_order', 'keycrm', 'order')
),

asked as (
    select
        kinds.kind,
        source_system,
        seen.project_id,
        entity_id,
        (array_agg(seen.delivery_id order by seen.landed_at desc))[1] as delivery_id,
        count(*) as requests,
        bool_and(seen.sender = 'pipedrive') as can_wait
    from seen
    inner join kinds using (source_system, entity_type)
    cross join lateral unnest(seen.entity_ids) as entity_id
    group by kinds.kind, source_system, seen.project_id, entity_id
),

-- An answer that is on its way counts as just given: it may have missed the event.
due as (
    select
        asked.*,
        case
            when can_wait then greatest(
                now(),
                case when known.claimed_until > now() then now() else known.answered_at end
                + make_interval(secs => %(quiet)s)
            )
            else now()
        end as due_at
    from asked
    left join ops.follow_ups as known using (kind, source_system, project_id, entity_id)
),

-- The snapshot of this very statement: what it did not see, the next one will.
moved as (
    update ops.follow_up_position
    set planned = pg_current_snapshot(), planned_at = now(), server = %(server)s
    where exists (select from seen) or not %(is_here)s
),

planned as (
    insert into ops.follow_ups as mine (
        kind, source_system, project_id, entity_id, delivery_id, requested, due_at
    )
    select kind, source_system, project_id, entity_id, delivery_id, requests, due_at
    from due
    on conflict (kind, source_system, project_id, entity_id) do update
    set
        delivery_id = excluded.delivery_id,
        requested = mine.requested + excluded.requested,
        requested_at = case
            when mine.answered < mine.requested then mine.requested_at
            else excluded.requested_at
        end,
        -- One that backs off after a failure goes on doing so.
        due_at = case
            when mine.attempts > 0 and mine.claimed_until is null and mine.gave_up_at is null
                then mine.due_at
            else least(mine.due_at, excluded.due_at)
        end,
        attempts = case when mine.gave_up_at is null then mine.attempts else 0 end,
        gave_up_at = null
    returning 1
)

select count(*) from planned
"""

_GIVE_UP_DEAD = """
update ops.follow_ups
set
    gave_up_at = clock_timestamp(),
    claim = claim + 1,
    claimed_by = null,
    claimed_until = null,
    due_at = null,
    last_error = format('its worker died in attempt %%s of %%s', attempts, %(attempts)s)
where claimed_until <= now() and attempts >= %(attempts)s
returning
    kind, source_system, project_id, entity_id, delivery_id, requested, attempts, claim,
    gave_up_at as claimed_at
"""

# Candidates are looked up without locks and by index, some of each account; the one that is taken
# is locked and looked at again. Not materialized, they were looked up for each row of the queue.
_CLAIM = """
with open_accounts as (
    select
        api_accounts.source_system,
        api_accounts.project_id,
        greatest(pace.next_at, now()) as turn_at
    from settings.api_accounts
    left join ops.api_pace as pace
        on
            api_accounts.source_system = pace.source_system
            and api_accounts.project_id = pace.project_id
            and pace.kind = 'calls'
    where
        coalesce(pace.blocked_until <= now(), true)
        and coalesce(pace.next_at <= now() + make_interval(secs => %(patience)s), true)
),

candidates as materialized (
    select
        due.kind,
        source_system,
        project_id,
        due.entity_id,
        open_accounts.turn_at,
        due.ready_at
    from open_accounts
    cross join lateral (
        select kind, entity_id, coalesce(claimed_until, due_at) as ready_at
        from ops.follow_ups
        where
            follow_ups.source_system = open_accounts.source_system
            and follow_ups.project_id = open_accounts.project_id
            and answered < requested
            and gave_up_at is null
            and coalesce(claimed_until, due_at) <= now()
        order by coalesce(claimed_until, due_at)
        limit 64
    ) as due
),

chosen as (
    select kind, source_system, project_id, entity_id
    from candidates
    inner join ops.follow_ups as mine using (kind, source_system, project_id, entity_id)
    where
        mine.answered < mine.requested
        and mine.gave_up_at is null
        and coalesce(mine.claimed_until, mine.due_at) <= now()
    order by candidates.turn_at, candidates.ready_at
    limit 1
    for update of mine skip locked
)

update ops.follow_ups as mine
set
    claim = mine.claim + 1,
    attempts = mine.attempts + 1,
    claimed_by = %(worker)s,
    claimed_until = clock_timestamp() + make_interval(secs => %(lease)s),
    due_at = null
from chosen
where
    (mine.kind, mine.source_system, mine.project_id, mine.entity_id)
    = (chosen.kind, chosen.source_system, chosen.project_id, chosen.entity_id)
returning
    mine.kind, mine.source_system, mine.project_id, mine.entity_id, mine.delivery_id,
    mine.requested, mine.attempts, mine.claim, clock_timestamp() as claimed_at
"""

# Does nothing where the claim has passed to another worker.
_FINISH = """
update ops.follow_ups
set
    claimed_by = null,
    claimed_until = null,
    answered = case %(outcome)s when 'answered' then %(requested)s else answered end,
    answered_at = case %(outcome)s when 'answered' then clock_timestamp() else answered_at end,
    gave_up_at = case %(outcome)s when 'gave up' then clock_timestamp() end,
    attempts = case %(outcome)s
        when 'answered' then 0
        when 'waits' then attempts - 1
        else attempts
    end,
    due_at = case %(outcome)s
        when 'answered' then due_at
        when 'gave up' then null
        else clock_timestamp() + make_interval(secs => %(seconds)s)
    end,
    last_error = %(reason)s
where
    kind = %(kind)s
    and source_system = %(source_system)s
    and project_id = %(project_id)s
    and entity_id = %(entity_id)s
    and claim = %(claim)s
"""

_HAND_BACK = """
update ops.follow_ups
set claimed_until = clock_timestamp(), attempts = greatest(attempts - 1, 0)
where claimed_until > clock_timestamp() and starts_with(claimed_by, %(process)s)
"""

_ANSWERED = """
select
    kind,
    project_id,
    entity_id,
    answered_at,
    count(*) over () as all_of_them
from ops.follow_ups
where answered >= requested and project_id = coalesce(%(project_id)s, project_id)
order by answered_at desc
limit %(limit)s
"""

#: Follow-up work that is not done, with its state.
OPEN_STATES = """
select
    mine.kind,
    mine.source_system,
    mine.project_id,
    mine.entity_id,
    mine.delivery_id,
    case
        when mine.gave_up_at is not null then 'gave up'
        when mine.claimed_until > now() then 'running'
        when account.base_url is null then 'no token'
        else 'waiting'
    end as state,
    mine.requested_at,
    coalesce(mine.claimed_until, mine.due_at) as due_at,
    mine.attempts,
    case
        when mine.gave_up_at is null and pace.blocked_until > now() then pace.blocked_reason
        else mine.last_error
    end as reason
from ops.follow_ups as mine
left join settings.api_accounts as account using (source_system, project_id)
left join ops.api_pace as pace
    on
        mine.source_system = pace.source_system
        and mine.project_id = pace.project_id
        and pace.kind = 'calls'
where mine.answered < mine.requested
"""

_STATES = (
    OPEN_STATES
    + "order by mine.requested_at, mine.kind, mine.source_system, mine.project_id, mine.entity_id"
)

_RETRY = """
with opened as (
    update ops.follow_ups
    set due_at = now(), attempts = 0, gave_up_at = null
    where
        answered < requested
        and claimed_until is null
        and kind = coalesce(%(kind)s, kind)
        and project_id = coalesce(%(project_id)s, project_id)
        and entity_id = coalesce(%(entity_id)s, entity_id)
    returning source_system, project_id
),

unblocked as (
    update ops.api_pace
    set blocked_until = '-infinity'
    where (source_system, project_id) in (select source_system, project_id from opened)
)

select count(*) from opened
"""
