"""What the bytes of a body hold, whatever they are."""

import json
import re
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

#: Bytes that a compressed body may unpack to.
MOST_UNPACKED = 8 * 1024 * 1024


#: How deep arrays and objects may be nested.
DEEPEST = 200


class Unreadable(Exception):  # noqa: N818 - a finding about a body, kept with it; not a failure
    """Nothing, or nothing more, can be read; the message says why and quotes nothing of it."""


def unpacked(body: bytes, headers: Mapping[str, str]) -> bytes:
    """``body`` without its content encoding; ``headers`` has lower-case keys.

    Raises:
        Unreadable: the encoding is not known, or broken, or hides more than `MOST_UNPACKED`.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Unreadable("the content encoding is not known")
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = stream.decompress(body, MOST_UNPACKED + 1)
    except zlib.error:
        raise Unreadable("the body is not gzip, as its content encoding says") from None
    if len(plain) > MOST_UNPACKED:
        raise Unreadable(f"the body unpacks to more than {MOST_UNPACKED} bytes")
    if not stream.eof:
        raise Unreadable("the body is gzip that is cut off")
    if stream.unused_data:
        raise Unreadable("the body goes on after its gzip")
    return plain


def parse_json(body: bytes, headers: Mapping[str, str]) -> Any:
    """The JSON of ``body``, with numbers exact: those with a point or an exponent are `Decimal`.

    UTF-8, UTF-16 and UTF-32 are read, with or without a byte order mark. Of a key that occurs
    twice the last value counts. Control characters inside strings are let through: people paste
    text into the JSON of a Zap.

    Raises:
        Unreadable: it is none, or none that can be read.
    """
    plain = unpacked(body, headers)
    if not plain.strip():
        raise Unreadable("the body is empty")
    try:
        text = plain.decode(json.detect_encoding(plain))
        if _depth_is_over(text, DEEPEST):
            raise Unreadable("the body is JSON that is nested too deep")
        return _DECODER.decode(text)
    except UnicodeDecodeError:
        raise Unreadable("the body is not text in UTF-8 (nor UTF-16 or UTF-32)") from None
    except json.JSONDecodeError:
        raise Unreadable("the body is not JSON") from None
    except (ValueError, ArithmeticError):  # over 4300 digits; an exponent beyond those of Decimal
        raise Unreadable("the body is JSON with a number that is too long") from None


def _depth_is_over(text: str, most: int) -> bool:
    """Whether arrays and objects are nested deeper than ``most``.

    Python's own limit depends on who calls: the same body could be read by one and not by another.
    """
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for token in _BRACKET_OR_STRING.finditer(text):
        sign = token.group()
        if sign in "[{":
            depth += 1
            if depth > most:
                return True
        elif sign in "]}":
            depth -= 1
    return False


_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+(?:"|$)', re.DOTALL)


def _refuse_constant(_name: str) -> NoReturn:
    raise Unreadable("the body is JSON with NaN or Infinity, which JSON does not have")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant, strict=False)
