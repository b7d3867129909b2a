"""The variables that the dbt profile reads, kept in the project's ``.env``.

dbt reads ``.env`` by itself, so a plain ``dbt build`` reaches the database with no variable set.
The lines stand in a marked block; all else in the file is the user's and stays as it is.
"""

import os
import tempfile
from pathlib import Path

from stageline.database import connection
from stageline.errors import StagelineError

BEGIN = "# >>> stageline: written by `stageline up`, do not edit between these lines"
END = "# <<< stageline"


def variables() -> dict[str, str]:
    """What the dbt profile needs to connect as the transformer. Holds a password.

    Raises:
        StagelineError: no database has been set up yet.
    """
    target = connection("transformer")
    return {
        "STAGELINE_DBT_HOST": target.host,
        "STAGELINE_DBT_PORT": str(target.port),
        "STAGELINE_DBT_USER": target.user,
        "STAGELINE_DBT_PASSWORD": target.password,
        "STAGELINE_DBT_DBNAME": target.dbname,
        "STAGELINE_DBT_ROLE": target.set_role,
        "STAGELINE_DBT_SSLMODE": target.extra.get("sslmode", "prefer"),
    }


def with_block(text: str, values: dict[str, str]) -> str:
    """``text`` (of an ``.env``) with the block in place of the one it had, or at its end."""
    kept: list[str] = []
    inside = False
    position: int | None = None
    for line in text.splitlines():
        if line.strip() == BEGIN:
            inside, position = True, len(kept)
        elif inside and line.strip() == END:
            inside = False
        elif not inside:
            kept.append(line)
    block = [BEGIN, *(f"{name}={_quoted(value)}" for name, value in values.items()), END]
    if inside:  # the end marker was lost: what followed cannot be told from the block, so keep it
        return with_block(text.replace(BEGIN, "", 1), values)
    at = len(kept) if position is None else position
    return "\n".join([*kept[:at], *block, *kept[at:]]) + "\n"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def write(path: Path) -> bool:
    """Brings the block in ``path`` up to date; only the owner of the file may read its password.

    Returns:
        Whether the file changed.

    Raises:
        StagelineError: no database has been set up yet, or the path is a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise StagelineError(f"{path} is not a file. Set STAGELINE_ENV_FILE to another path.")
    before = path.read_text() if path.exists() else ""
    after = with_block(before, variables())
    if before == after:
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".env.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(after)
        Path(name).replace(path.resolve())  # a link to the real file stays a link
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return True
