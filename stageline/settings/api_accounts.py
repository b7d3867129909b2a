"""Where the API of a project's CRM is, and the token that opens it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import class_row

from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.changes import changing
from stageline.settings.encryption import decrypt, encrypt
from stageline.settings.projects import unknown_project

#: Where the API of a CRM is, if it is in one place for all accounts.
BASE_URLS = {
    "hubspot": "https://api.hubapi.com",
    "keycrm": "https://openapi.keycrm.app/v1",
    "pipedrive": "https://api.pipedrive.com",
}

#: Sources that are an address each, which may hold a query and be open to everyone.
ADDRESSES = frozenset({"sheet"})


@dataclass(frozen=True)
class ApiAccount:
    """How to reach the API of one project.

    Attributes:
        base_url: Without a slash at its end.
        token: What opens it; empty where it is open to everyone.
        allowance: How many times the calls of the CRM's smallest plan it may make.
    """

    base_url: str
    token: str = field(repr=False)
    allowance: float = 1.0


@dataclass(frozen=True)
class ListedAccount:
    """A row of ``settings.api_accounts`` without its token."""

    source_system: str
    project_id: str
    base_url: str
    allowance: float


def store(
    source_system: str,
    project_id: str,
    token: str,
    base_url: str | None = None,
    allowance: float | None = None,
) -> str:
    """Keeps the API token of a project, in place of one that was there; gives the base URL.

    Args:
        source_system, project_id: The project.
        token: As the CRM shows it; empty for an address that is open to everyone.
        base_url: Where the API is; where not given, what is stored, else that of `BASE_URLS`.
        allowance: How many times the calls of the CRM's smallest plan the account may make; where
            not given, what is stored, else 1.

    Raises:
        StagelineError: one of them is not as it has to be, the project is not known, or there is no
            key to encrypt with. No message holds the token.
    """
    may_be_open = source_system in ADDRESSES
    if token or not may_be_open:
        require_token(token, "The token")
    if base_url is not None:
        base_url = require_url(base_url, with_query=may_be_open)
    encrypted = encrypt(token)
    with changing() as session:
        try:
            ((stored,),) = session.execute(
                """
                insert into settings.api_accounts
                    (source_system, project_id, base_url, token_encrypted, allowance)
                values (
                    %(source_system)s,
                    %(project_id)s,
                    coalesce(
                        %(given)s,
                        (
                            select base_url from settings.api_accounts
                            where
                                source_system = %(source_system)s
                                and project_id = %(project_id)s
                        ),
                        %(usual)s
                    ),
                    %(token)s,
                    coalesce(%(allowance)s, 1)
                )
                on conflict (source_system, project_id) do update set
                    base_url = excluded.base_url,
                    token_encrypted = excluded.token_encrypted,
                    allowance = coalesce(%(allowance)s, api_accounts.allowance),
                    updated_at = now()
                returning base_url
                """,
                {
                    "source_system": source_system,
                    "project_id": project_id,
                    "given": base_url,
                    "usual": BASE_URLS.get(source_system),
                    "token": encrypted,
                    "allowance": allowance,
                },
            ).fetchall()
        except psycopg.errors.ForeignKeyViolation:
            raise unknown_project(source_system, project_id) from None
        except psycopg.errors.NotNullViolation:
            raise StagelineError(
                f"Where the API of {source_system} is, differs from account to account."
                " Name it with --base-url."
            ) from None
    return str(stored)


def get(connection: psycopg.Connection[Any], source_system: str, project_id: str) -> ApiAccount:
    """How to reach the API of a project; the loader and the jobs may call it.

    Raises:
        StagelineError: no token is stored for it, or it cannot be decrypted.
    """
    row = connection.execute(
        "select base_url, token_encrypted, allowance::double precision"
        " from settings.api_accounts"
        " where source_system = %s and project_id = %s",
        [source_system, project_id],
    ).fetchone()
    if row is None:
        raise StagelineError(
            f"No API token of {source_system} is stored for project {project_id}."
            f" Run `stageline projects api {source_system} {project_id}`."
        )
    return ApiAccount(base_url=row[0], token=decrypt(row[1]), allowance=row[2])


def renew(
    connection: psycopg.Connection[Any],
    source_system: str,
    project_id: str,
    renewed: Callable[[str], str],
) -> None:
    """Puts what ``renewed`` makes of the token of a project in its place, on the disk.

    For tokens that are worth one use: no other process can have it renewed meanwhile.

    Args:
        connection: Of the loader, in autocommit mode.
        source_system, project_id: The project.
        renewed: Gives the new token for the one that is stored; if it fails, that stays.

    Raises:
        StagelineError: no token is stored for the project, or it cannot be decrypted.
    """
    key = [source_system, project_id]
    with connection.transaction():
        row = connection.execute(
            "select token_encrypted from settings.api_accounts"
            " where source_system = %s and project_id = %s for update",
            key,
        ).fetchone()
        if row is None:
            raise StagelineError(
                f"The token of {source_system} project {project_id} changes with each use, so that"
                f" it has to be stored: run `stageline projects api {source_system} {project_id}`."
            )
        before = decrypt(row[0])
        after = renewed(before)
        if after != before:
            connection.execute(
                "update settings.api_accounts set token_encrypted = %s, updated_at = now()"
                " where source_system = %s and project_id = %s",
                [encrypt(after), *key],
            )


def accounts() -> list[ListedAccount]:
    """All accounts, by source and project, without their tokens."""
    with (
        connect("owner") as session,
        session.cursor(row_factory=class_row(ListedAccount)) as cursor,
    ):
        cursor.execute(
            "select source_system, project_id, base_url,"
            " allowance::double precision as allowance from settings.api_accounts"
            " order by source_system, project_id"
        )
        return cursor.fetchall()


def require_token(token: str, name: str) -> str:
    """A token as it can stand in a header of a request.

    Raises:
        StagelineError: it cannot; the message says so of ``name`` and does not hold the token.
    """
    if not re.fullmatch(r"[!-~]{1,2000}", token):
        raise StagelineError(f"{name} is empty, or has signs that a token cannot have.")
    return token


def require_url(text: str, *, name: str = "The base URL", with_query: bool = False) -> str:
    """A base URL as it is kept.

    Args:
        text: As a user gives it.
        name: What the user knows it as.
        with_query: It may have one, as the address of a single sheet has.

    Raises:
        StagelineError: it is none.
    """
    problem = StagelineError(
        f"{name} has to look like https://api.example.com/v1, without a login, ? or #."
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise problem from None
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or port == 0
        or "@" in parts.netloc
        or not re.fullmatch(r"[!-~]+", text)
        or ("?" in text and not with_query)
        or "#" in text
    ):
        raise problem
    return text.rstrip("/")
