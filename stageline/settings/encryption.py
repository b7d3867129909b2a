"""Secrets at rest: Fernet tokens under ``STAGELINE_SECRET_KEY``, and nothing else, go into tables.

The variable holds one or several keys with commas in between. The first one encrypts, all of them
decrypt, so a key is changed by putting a new one before it.
"""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from stageline.config import settings
from stageline.errors import StagelineError

_MAKE_ONE = "Make one with `stageline projects new-key >> .env`."


def encrypt(text: str) -> str:
    """``text`` as a Fernet token, which differs from call to call.

    Raises:
        StagelineError: ``STAGELINE_SECRET_KEY`` is not set, or holds what is no key.
    """
    return _keys().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """The text that `encrypt` was given.

    Raises:
        StagelineError: as `encrypt`, or none of the keys is the one that it was encrypted with.
    """
    try:
        return _keys().decrypt(token.encode()).decode()
    except InvalidToken:
        raise StagelineError(
            "A secret in the database was encrypted with another key than STAGELINE_SECRET_KEY"
            " holds. Add the former key to it, behind a comma, or store that secret again with"
            " `stageline projects`."
        ) from None


def new_key() -> str:
    """A key that nobody has."""
    return Fernet.generate_key().decode()


def with_new_key() -> str:
    """A value for ``STAGELINE_SECRET_KEY``: a new key, and behind it those that are in use.

    What was encrypted so far stays readable with it. What is no key is left out.
    """
    return ",".join([new_key(), *(key for key in _configured() if _is_key(key))])


def _configured() -> list[str]:
    held = settings().secret_key
    parts = held.get_secret_value().split(",") if held else []
    return [part.strip() for part in parts if part.strip()]


def _is_key(text: str) -> bool:
    try:
        Fernet(text)
    except ValueError:
        return False
    return True


def _keys() -> MultiFernet:
    keys = _configured()
    if not keys:
        raise StagelineError(f"STAGELINE_SECRET_KEY is not set; it keeps secrets safe. {_MAKE_ONE}")
    for position, key in enumerate(keys, 1):
        if not _is_key(key):
            raise StagelineError(
                f"Key {position} of STAGELINE_SECRET_KEY is not 44 characters of base64. Put it"
                f" right, or take another. {_MAKE_ONE}"
            )
    return MultiFernet([Fernet(key) for key in keys])
