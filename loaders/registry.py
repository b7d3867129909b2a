"""The CRMs that can be loaded, by name; each is a module that is imported when it is asked for."""

import importlib
from typing import TYPE_CHECKING, NamedTuple

from stageline.errors import StagelineError

if TYPE_CHECKING:
    from loaders.sources import Source


class Known(NamedTuple):
    """A CRM: its name as its maker writes it, and its module, which has a `SOURCE`."""

    title: str
    module: str


SOURCES: dict[str, Known] = {
    "hubspot": Known("HubSpot", "loaders.hubspot"),
    "pipedrive": Known("Pipedrive", "loaders.pipedrive"),
    "salesforce": Known("Salesforce", "loaders.salesforce"),
    "keycrm": Known("KeyCRM", "loaders.keycrm"),
    "sheet": Known("Sheet", "loaders.sheet"),
}


def source(name: str) -> "Source":
    """The source of that name.

    Raises:
        StagelineError: there is none; says which there are.
    """
    if name not in SOURCES:
        raise StagelineError(f"There is no source {name!r}. There are: {', '.join(SOURCES)}.")
    found: Source = importlib.import_module(SOURCES[name].module).SOURCE
    return found
