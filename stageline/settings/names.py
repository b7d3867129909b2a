"""Names that operators give, and ids that they repeat: what can be kept and shown."""

from unicodedata import category

from stageline.errors import StagelineError


def require_one_line(text: str, what: str) -> None:
    """Makes sure that a text can be shown in one line, and kept in a database.

    Raises:
        StagelineError: it cannot; ``what`` begins the sentence.
    """
    if not 0 < len(text) <= 200 or not text.isprintable():
        raise StagelineError(f"{what} has to be one line of 1 to 200 characters that can be seen.")


def require_text(text: str, what: str) -> str:
    """A name or id as CRMs and files give it; blanks around it do not count.

    Raises:
        StagelineError: it is empty, too long or has control characters; ``what`` begins the
            sentence.
    """
    plain = text.strip()
    if not 0 < len(plain) <= 500 or any(category(sign) in {"Cc", "Cs"} for sign in plain):
        raise StagelineError(f"{what} has to be 1 to 500 characters, none of them for control.")
    return plain
