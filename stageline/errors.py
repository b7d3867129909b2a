"""The one error that a user sees as a line instead of a stack trace."""

from collections.abc import Iterable
from difflib import get_close_matches

#: Exit code of a command that is not done, through nobody's fault: try again later. As sysexits.h.
TRY_LATER = 75


class StagelineError(Exception):
    """A mistake of the user's, or a state of the machine, that the user can mend.

    The message is one line (two at most): what is wrong, where, and what to do. The command prints
    it and exits with ``exit_code``.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one nearest to it, or all of them."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}."
