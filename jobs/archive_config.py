"""When deliveries are archived, and where, as ``jobs/archive.yml`` says it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stageline.config import PROJECT_ROOT, settings
from stageline.errors import StagelineError
from stageline.yaml_files import Checked, YamlFile


class _File(Checked):
    folder: Annotated[str, Field(min_length=1)] | None = None
    after_months: Annotated[int, Field(ge=1, le=1200)] | None = None


@dataclass(frozen=True)
class ArchiveConfig:
    """Where what deliveries said is archived, and when.

    Attributes:
        folder: Where the files go; a relative one is meant from the checkout.
        after_months: How many whole months of UTC bodies stay in the database, at least.
    """

    folder: Path
    after_months: int

    def require_folder(self) -> None:
        """Makes sure that the folder is there.

        It is not made here: a disk that is not mounted would be written to beside it.

        Raises:
            StagelineError: it is not, or is no folder.
        """
        if not self.folder.is_dir():
            raise StagelineError(
                f"There is no folder {self.folder}, where archives go by {settings().archive}."
                " Make it, or mount its disk."
            )


def read(path: Path | None = None) -> ArchiveConfig | None:
    """What the file says; None where nothing is to be archived.

    Raises:
        StagelineError: the file has a mistake; it is told by line and column.
    """
    file = YamlFile(path or settings().archive)
    said = file.checked(_File)
    if said.folder is None and said.after_months is None:
        return None
    if said.folder is None:
        raise file.error(["after_months"], "folder is missing: after_months needs it.")
    if said.after_months is None:
        raise file.error(["folder"], "after_months is missing: folder needs it.")
    return ArchiveConfig(PROJECT_ROOT / said.folder, said.after_months)
