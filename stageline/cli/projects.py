"""``stageline projects``: the accounts of CRMs, who may send, and the keys of their APIs."""

import os
import secrets
import stat
import sys
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import click

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.tables import Column, show
from stageline.config import settings
from stageline.errors import StagelineError
from stageline.settings import api_accounts, encryption, webhook_checks
from stageline.settings import projects as known_projects
from stageline.settings.webhook_checks import (
    KINDS,
    OPEN_KINDS,
    SENDERS,
    Kind,
    Sender,
    WebhookCheck,
)

#: Where each sender posts to.
_PATHS: dict[Sender, str] = {
    "keycrm": "/webhooks/keycrm/{project}",
    "pipedrive": "/webhooks/pipedrive/{project}",
    "hubspot": "/webhooks/hubspot/{project}",
    "zapier": "/api/integrations/pipedrive/final-stage?project={project}",
}

_SEEN_BY_OTHERS = (
    "A secret on the command line can be seen by others, so this one was not taken. Take another"
    " one, and leave it out to be asked for it, or use --stdin or --from-env."
)

#: Longest secret that is read, in bytes; more is a wrong file.
_LONGEST_SECRET = 4096


@click.group()
def projects() -> None:
    """Set up accounts of CRMs: who may send, and the key of the API.

    Secrets are encrypted under STAGELINE_SECRET_KEY before they are stored. They are never taken
    from the command line, where other programs and the shell's history would see them.

    \b
    Example:
        stageline projects new-key >> .env
        stageline projects add keycrm shop-1 --timezone Europe/Kyiv --currency UAH
        stageline projects allow keycrm shop-1 token --generate
        stageline projects checks
    """


@projects.command("new-key")
def new_key() -> None:
    """Make a key under which secrets are stored.

    Where a key is in use already, it stands behind the new one, so that what is stored stays
    readable. The last line of a file counts: it can be added as it is.

    \b
    Example:
        stageline projects new-key >> .env
    """
    line = f"STAGELINE_SECRET_KEY={encryption.with_new_key()}"
    file = os.fstat(1)
    if stat.S_ISREG(file.st_mode):
        with suppress(PermissionError):  # somebody else's file, which they chose
            os.fchmod(1, stat.S_IMODE(file.st_mode) & ~0o077)
        if file.st_size:
            line = f"\n{line}"  # the last line there may have no end
    click.echo(line)


@projects.command(short_help="Make a project of a source, or change one.")
@click.argument("source")
@click.argument("project")
@click.option("--name", help="What people call it.")
@click.option("--timezone", metavar="ZONE", help="IANA name, as Europe/Kyiv; UTC at first.")
@click.option("--currency", metavar="CODE", help="ISO 4217 code of amounts that come without one.")
@click.option(
    "--active/--inactive",
    "is_active",
    default=None,
    help="Whether what it brought counts in the tables; from the next build on.",
)
def add(
    source: str,
    project: str,
    name: str | None,
    timezone: str | None,
    currency: str | None,
    is_active: bool | None,
) -> None:
    """Make a project of a source (keycrm, pipedrive, hubspot ...), or change one.

    What is not given stays as it is.

    \b
    Example:
        stageline projects add keycrm shop-1 --name "Shop in Kyiv" --timezone Europe/Kyiv
        stageline projects add keycrm shop-1 --currency UAH
        stageline projects add hubspot trial --inactive
    """
    require_migrations()
    made = known_projects.add(
        source, project, name=name, timezone=timezone, currency=currency, is_active=is_active
    )
    counts = "" if made.is_active else "; what it brought does not count"
    click.echo(
        f"Project {made.project_id} of {made.source_system}: time zone {made.timezone},"
        f" currency {made.currency}{counts}."
    )


@projects.command("list")
def list_projects() -> None:
    """List the projects, with the API of those whose token is stored.

    \b
    Example:
        stageline projects list
    """
    require_migrations()
    apis = {(row.source_system, row.project_id): row.base_url for row in api_accounts.accounts()}
    rows = [
        (
            row.source_system,
            row.project_id,
            row.name or "",
            row.timezone,
            row.currency,
            "yes" if row.is_active else "no",
            apis.get((row.source_system, row.project_id), ""),
        )
        for row in known_projects.projects()
    ]
    if not rows:
        click.echo("There is no project yet. `stageline projects add` makes one.")
        return
    titles = ("source", "project", "name", "time zone", "currency", "active", "API")
    show([Column(title) for title in titles], rows)


def _secret_options(command: Callable[..., None]) -> Callable[..., None]:
    """The ways to give a secret; without one of them a terminal asks for it."""
    from_stdin = click.option("--stdin", "from_stdin", is_flag=True, help="Read it from stdin.")
    from_env = click.option(
        "--from-env", "variable", metavar="NAME", help="Read it from this environment variable."
    )
    return from_stdin(from_env(command))


def _secret(asked: str, *, from_stdin: bool, variable: str | None) -> str:
    """A secret of the user's, from where they said; no message about it holds any of it."""
    if from_stdin and variable is not None:
        raise StagelineError("Give the secret in one way: --stdin or --from-env.")
    if variable is not None:
        found = os.environ.get(variable)
        if not found:
            raise StagelineError("--from-env names no variable that is set. Export it first.")
        return found
    if from_stdin:
        try:
            text = click.get_binary_stream("stdin").read(_LONGEST_SECRET + 1).decode()
        except UnicodeDecodeError:
            raise StagelineError("What came through --stdin is not text in UTF-8.") from None
        if len(text) > _LONGEST_SECRET:
            raise StagelineError("What came through --stdin is too long for a secret.")
        return text.removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise StagelineError("There is no terminal to ask for the secret: use --stdin, --from-env.")
    return str(click.prompt(asked, hide_input=True, err=True))


def _generated(kind: Kind, sender: Sender) -> str:
    if kind == "hubspot":
        raise StagelineError(
            "HubSpot signs with the client secret of your app there: enter that one instead of"
            " --generate."
        )
    if kind == "hmac":
        return webhook_checks.SIGNING_PREFIX.decode() + b64encode(secrets.token_bytes(32)).decode()
    token = secrets.token_urlsafe(32)
    return f"{sender}:{token}" if kind == "basic" else token


@projects.command()
@click.argument("sender", type=click.Choice(SENDERS))
@click.argument("project")
@click.argument("kind", type=click.Choice([kind.replace("_", "-") for kind in KINDS]))
@click.argument("value", required=False)
@click.option("--generate", is_flag=True, help="Make the secret, and show it once.")
@_secret_options
@click.option("--label", help="For people: which secret this is, and whose.")
@click.option(
    "--until", metavar="INSTANT", callback=instant, help="When it ends; for good by default."
)
def allow(
    sender: Sender,
    project: str,
    kind: str,
    value: str | None,
    generate: bool,
    from_stdin: bool,
    variable: str | None,
    label: str | None,
    until: datetime | None,
) -> None:
    """Let a sender in by a secret, an address range or a user agent.

    A sender has to pass every KIND that it has for the project, and is refused where it has none.
    Checks of the same kind count side by side, so that a secret can follow another without a gap.

    VALUE is for address (203.0.113.0/24) and user-agent (how it begins) alone. For the other kinds
    a terminal asks for the secret, or see the options.

    \b
    KIND        the sender shows
      hmac        a signature as the Standard Webhooks specification has it
      hubspot     HubSpot's signature, version 3; the secret is the app's client secret
      basic       a login, written user:password
      token       X-Webhook-Token, Authorization: Bearer, or ?token= in the URL
      address     where it calls from
      user-agent  what it calls itself, which proves nothing by itself

    \b
    Example:
        stageline projects allow keycrm shop-1 token --generate
        stageline projects allow keycrm shop-1 address 203.0.113.0/24
        stageline projects allow hubspot main hubspot --from-env HUBSPOT_CLIENT_SECRET
        stageline projects allow zapier shop-1 hmac --generate --label "Zap of Olena"
    """
    chosen: Kind = next(each for each in KINDS if each.replace("_", "-") == kind)
    is_secret = chosen not in OPEN_KINDS
    if is_secret and value is not None:
        raise StagelineError(_SEEN_BY_OTHERS)
    if not is_secret and (generate or from_stdin or variable is not None):
        raise StagelineError(f"{kind} is no secret: write what is allowed behind it.")
    if generate and (from_stdin or variable is not None):
        raise StagelineError("--generate makes the secret: leave --stdin and --from-env out.")
    require_migrations()
    secret = None
    if generate:
        secret = _generated(chosen, sender)
    elif is_secret:
        asked = "user:password" if chosen == "basic" else "Secret"
        secret = _secret(asked, from_stdin=from_stdin, variable=variable)
    check_id = webhook_checks.allow(
        sender, project, chosen, secret=secret, allowed=value, label=label, valid_to=until
    )
    click.echo(f"Check {check_id}: {sender} may send for project {project} by {kind}.")
    _tell_where(sender, project, chosen, secret if generate else None)
    made = next(row for row in webhook_checks.checks() if row.check_id == check_id)
    _warn_of_what_is_left(made, made.valid_from)
    if made.valid_to is not None:
        _warn_of_what_is_left(made, made.valid_to)


def _tell_where(sender: Sender, project: str, kind: Kind, secret: str | None) -> None:
    """Says where the sender has to post to, and a secret that was made for it."""
    public = settings().receiver_public_url
    host = settings().receiver_host
    own = f"http://{f'[{host}]' if ':' in host else host}:{settings().receiver_port}"
    url = (public or own).rstrip("/") + _PATHS[sender].format(project=project)
    is_in_url = kind == "token" and secret is not None and sender != "zapier"
    click.echo(f"URL       {url}?token={secret}" if is_in_url else f"URL       {url}")
    if secret is not None:
        if kind == "hmac":
            click.echo(f"Secret    {secret}")
        elif kind == "basic":
            user, _, password = secret.partition(":")
            click.echo(f"User      {user}\nPassword  {password}")
        elif not is_in_url:  # Zapier can send headers, which unlike URLs are not logged on the way
            click.echo(f"Header    X-Webhook-Token: {secret}")
        click.echo("This is shown once: put it into the sender's settings now.")
        if kind == "token":
            click.echo(
                f"Try it:   curl -i -H 'X-Webhook-Token: {secret}'"
                f" -d '{{\"event\": \"test\"}}' '{url}'"
            )
    if public is None:
        signs = " HubSpot signs it, so nothing passes before." if kind == "hubspot" else ""
        click.echo(
            "note: that is the receiver's own address. Set STAGELINE_RECEIVER_PUBLIC_URL to the one"
            f" that senders see.{signs}",
            err=True,
        )


def _warn_of_what_is_left(check: WebhookCheck, at: datetime) -> None:
    """Warns where, from an instant on, the sender of a check is known by too little, or nothing."""
    kinds = {
        row.kind
        for row in webhook_checks.checks()
        if (row.sender, row.project_id) == (check.sender, check.project_id)
        and webhook_checks.is_valid(row.valid_from, row.valid_to, at)
    }
    if not kinds:
        what = "no check is left: all is refused"
    elif kinds == {"user_agent"}:
        what = (
            "only the user agent is looked at, which proves nothing by itself. Add a secret or an"
            " address range"
        )
    else:
        return
    click.echo(
        f"warning: for {check.sender} and project {check.project_id} from {_written(at)} on,"
        f" {what}.",
        err=True,
    )


@projects.command()
@click.argument("project", required=False)
def checks(project: str | None) -> None:
    """List who may send, and by what; secrets are not shown.

    \b
    Example:
        stageline projects checks
        stageline projects checks shop-1
    """
    require_migrations()
    rows = [
        (
            str(row.check_id),
            row.sender,
            row.project_id,
            row.kind.replace("_", "-"),
            row.label or "",
            row.allowed or "",
            _written(row.valid_from),
            _written(row.valid_to) if row.valid_to else "",
        )
        for row in webhook_checks.checks()
        if project in (None, row.project_id)
    ]
    if not rows:
        click.echo("There is no check. `stageline projects allow` makes one.")
        return
    titles = ("sender", "project", "kind", "label", "allowed", "valid from", "valid to")
    show([Column("id", is_number=True), *(Column(title) for title in titles)], rows)


@projects.command()
@click.argument("check_id", type=click.IntRange(min=1))
@click.option("--at", metavar="INSTANT", callback=instant, help="When it ends; now by default.")
def revoke(check_id: int, at: datetime | None) -> None:
    """End a check; it stays in the list. Running receivers learn of it by themselves.

    \b
    Example:
        stageline projects revoke 3
        stageline projects revoke 3 --at 2027-03-01T18:00:00+02:00
    """
    require_migrations()
    ended = webhook_checks.revoke(check_id, at)
    assert ended.valid_to is not None  # noqa: S101 - that is what it is to be ended
    click.echo(f"Check {check_id} ends at {_written(ended.valid_to)}.")
    _warn_of_what_is_left(ended, ended.valid_to)


@projects.command()
@click.argument("source")
@click.argument("project")
@click.option("--base-url", metavar="URL", help="Where the API is, if not where the CRM has it.")
@click.option(
    "--allowance",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    help="How many times the calls of the CRM's smallest plan your plan allows.",
)
@click.option(
    "--no-token", is_flag=True, help="The address is open to everyone, as a published sheet is."
)
@click.argument("value", required=False, metavar="")
@_secret_options
def api(
    source: str,
    project: str,
    base_url: str | None,
    allowance: float | None,
    no_token: bool,
    value: str | None,
    from_stdin: bool,
    variable: str | None,
) -> None:
    """Store the token of a CRM's API, in place of the one before.

    \b
    Example:
        stageline projects api pipedrive main
        stageline projects api keycrm shop-1 --from-env KEYCRM_TOKEN
        stageline projects api hubspot main --from-env HUBSPOT_TOKEN --allowance 1.9
        stageline projects api sheet main --no-token --base-url https://.../pub?output=csv
    """
    if value is not None:
        raise StagelineError(_SEEN_BY_OTHERS)
    require_migrations()
    if no_token and source not in api_accounts.ADDRESSES:
        raise StagelineError(f"--no-token is for addresses that are open; {source} has a token.")
    if no_token and (from_stdin or variable is not None):
        raise StagelineError("Give a token, or --no-token.")
    given = "" if no_token else _secret("API token", from_stdin=from_stdin, variable=variable)
    stored = api_accounts.store(source, project, given, base_url, allowance)
    click.echo(f"The API of {source} for project {project} is asked at {stored}.")


def _written(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
