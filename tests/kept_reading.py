"""What dbt has read of a small project, for the next one: most of it is dbt's own macros."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_reading(project: Path, kept: Path) -> Iterator[None]:
    """While a project is made and run: dbt begins with what is kept, and reads what differs.

    Args:
        project: Its folder, which is not there yet.
        kept: What dbt read of a project with the same ``dbt_project.yml``; of the first one, it is
            kept there.
    """
    reading = project / "target" / "partial_parse.msgpack"
    if kept.exists():
        reading.parent.mkdir(parents=True)
        shutil.copy(kept, reading)
    yield
    if reading.exists() and not kept.exists():
        shutil.copy(reading, kept)
