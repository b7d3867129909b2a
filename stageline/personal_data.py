"""Keeps personal data out of log lines."""

import re
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

#: An e-mail address, and what looks like a phone number: nine digits or more, with what people put
#: in between. Ids and instants have keys of their own and are not looked at.
_PERSONAL = re.compile(
    r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+|\+?\d(?:[\s().-]{0,2}\d){8,}",
)

#: Keys of a log line whose text is not our own alone, so it may repeat what somebody wrote.
_FREE_TEXT = ("error", "exception", "reason", "unparsed")


def masked(text: str) -> str:
    """``text`` with e-mail addresses and phone numbers as ``***``."""
    return _PERSONAL.sub("***", text)


def mask(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks the free text of a log line; a processor of structlog."""
    for key in _FREE_TEXT:
        value = line.get(key)
        if isinstance(value, str):
            line[key] = masked(value)
    return line


def frames(trace: TracebackType | None) -> list[str]:
    """Where an error came from, without its message: that of a database repeats whole rows."""
    found = []
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_qualname}")
        trace = trace.tb_next
    return found
