"""What ``seeds/reference`` ships, as the models read it."""

import csv

from stageline.config import PROJECT_ROOT


def reference(name: str) -> list[dict[str, str]]:
    """The rows of a seed, in the order in which they stand there."""
    path = PROJECT_ROOT / "seeds" / "reference" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
