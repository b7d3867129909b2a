"""Who may send: the projects and their checks, as last read from the database."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from stageline.errors import StagelineError
from stageline.progress import log
from stageline.settings import webhook_checks
from stageline.settings.webhook_checks import StoredCheck, is_valid
from webhook_receiver.checks import Check
from webhook_receiver.senders import SENDERS
from webhook_receiver.spool import Spool, SpoolError


@dataclass(frozen=True)
class Account:
    """A sender of a project.

    Attributes:
        time_zone: IANA name of the project's zone.
        checks: All that have not ended; where none is valid, everything is refused. None where one
            of them cannot be used: nobody can be told from anybody else then.
    """

    sender: str
    project_id: str
    time_zone: str
    checks: tuple[Check, ...] | None


class Accounts:
    """The accounts of one process. The keeper reads them again and again; requests look them up.

    Args:
        spool: Keeps the last known ones, secrets encrypted, for a start without PostgreSQL.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._content: str | None = None
        self._accounts: dict[tuple[str, str], Account] = {}
        try:
            last_known = spool.accounts()
        except SpoolError:
            last_known = None  # it was logged; the database will tell
        if last_known is not None:
            self._take(last_known)

    @property
    def are_known(self) -> bool:
        """Whether they were ever read; before that, nobody can be told from anybody else."""
        return self._content is not None

    def refresh(self, session: psycopg.Connection[Any]) -> None:
        """Reads them from the database.

        Raises:
            psycopg.Error: they cannot be read; those known before stay.
            SpoolError: they were read, but cannot be remembered for a start without PostgreSQL.
        """
        projects = session.execute(
            "select source_system, project_id, timezone from settings.projects"
            " where source_system = any(%s) order by 1, 2",
            [sorted({sender.source_system for sender in SENDERS.values()})],
        ).fetchall()
        checks = [asdict(check) for check in webhook_checks.load(session)]
        content = json.dumps({"projects": projects, "checks": checks}, default=_written)
        if content != self._content:
            self._take(content)
            self._spool.keep_accounts(content)

    def find(self, sender: str, project_id: str | None) -> Account | None:
        """The account of a sender; without a project the only one there is."""
        if project_id is not None:
            return self._accounts.get((sender, project_id))
        found = [
            account
            for account in self._accounts.values()
            if account.sender == sender and account.checks != ()
        ]
        return found[0] if len(found) == 1 else None

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def _take(self, content: str) -> None:
        read = json.loads(content)
        checks = [StoredCheck(**_instants(row)) for row in read["checks"]]
        self._accounts = {
            (sender.name, project_id): Account(
                sender.name,
                project_id,
                time_zone,
                _prepared(
                    [
                        check
                        for check in checks
                        if (check.sender, check.project_id) == (sender.name, project_id)
                    ]
                ),
            )
            for source_system, project_id, time_zone in read["projects"]
            for sender in SENDERS.values()
            if sender.source_system == source_system
        }
        self._content = content


def open_endpoints(accounts: Accounts) -> list[str]:
    """Who may send and by what they are known, a line each, for people."""
    now = datetime.now(UTC)
    kinds = {
        account: sorted(
            {
                each.kind
                for each in account.checks or ()
                if is_valid(each.valid_from, each.valid_to, now)
            }
        )
        for account in accounts
    }
    return [
        f"{account.sender}/{account.project_id} by {' and '.join(needed)}"
        for account, needed in kinds.items()
        if needed
    ]


def closed_projects(accounts: Accounts) -> list[str]:
    """Projects of which no sender has any check: all that is posted to them is refused."""
    projects = {(SENDERS[each.sender].source_system, each.project_id) for each in accounts}
    open_ones = {
        (SENDERS[each.sender].source_system, each.project_id)
        for each in accounts
        if each.checks != ()
    }
    return [f"{source_system}/{project}" for source_system, project in sorted(projects - open_ones)]


def _prepared(checks: Sequence[StoredCheck]) -> tuple[Check, ...] | None:
    """The checks, ready for use; None where one cannot be used.

    What it would have demanded is not known then, and the others alone might let in too many.
    """
    prepared = []
    for check in checks:
        try:
            prepared.append(
                Check(
                    check_id=check.check_id,
                    kind=check.kind,
                    secret=webhook_checks.decrypted(check),
                    allowed=check.allowed,
                    valid_from=check.valid_from,
                    valid_to=check.valid_to,
                )
            )
        except (StagelineError, ValueError) as error:
            log().error(
                "everything is answered 503: a check cannot be used",
                sender=check.sender,
                project=check.project_id,
                check_id=check.check_id,
                error=str(error),
            )
            return None
    return tuple(prepared)


def _written(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _instants(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value)
        if name in {"valid_from", "valid_to"} and value
        else value
        for name, value in row.items()
    }
