"""Names that operators give: what can be shown in one line."""

from stageline.errors import StagelineError


def require_one_line(text: str, what: str) -> None:
    """Makes sure that a text can be shown in one line, and kept in a database.

    Raises:
        StagelineError: it cannot; ``what`` begins the sentence.
    """
    if not 0 < len(text) <= 200 or not text.isprintable():
        raise StagelineError(f"{what} has to be one line of 1 to 200 characters that can be seen.")
