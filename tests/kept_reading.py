"""What dbt has read of a small project, for the next one: most of it is dbt's own macros."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_reading(project: Path, kept: Path) -> Iterator[None]:
    """A project that is made meanwhile begins with what was read of the first; of this, that stays.

    dbt reads again what differs.

    Args:
        project: Its folder.
        kept: The file that holds it, of projects with the same ``dbt_project.yml``.
    """
    reading = project / "target" / "partial_parse.msgpack"
    if kept.exists():
        reading.parent.mkdir(parents=True)
        shutil.copy(kept, reading)
    yield
    if reading.exists() and not kept.exists():
        shutil.copy(reading, kept)
