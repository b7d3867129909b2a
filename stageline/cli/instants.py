"""Instants as people write them on a command line."""

from datetime import UTC, datetime

import click

from stageline.errors import StagelineError


def instant(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,
    text: str | None,
) -> datetime | None:
    """The value of an option that takes an instant (its ``callback``), in UTC; None if not given.

    Raises:
        StagelineError: it is not ISO 8601, or before the first or after the last year there is.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise StagelineError(
            f"{param.opts[0]} {text!r} is no instant."
            " Write 2027-03-01 (in UTC) or 2027-03-01T18:00:00+02:00."
        ) from None
