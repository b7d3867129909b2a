"""The part of SOQL that a loader needs, as strict as Salesforce is about it.

Refused are: fields that an object does not have, values of another type than their field (instants
and days stand without quotes, ids and texts with them), and AND beside OR without parentheses.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

Record = Mapping[str, Any]
Test = Callable[[Record], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d))"
    r"|(?P<date>\d{4}-\d\d-\d\d)|(?P<number>-?\d+(?:\.\d+)?)|'(?P<text>[^'\\]*)'"
    r"|(?P<word>[A-Za-z][A-Za-z0-9_.]*)|(?P<sign><=|>=|!=|[=<>(),]))"
)
#: Type of a field -> how its values are written.
_FORMS = {
    **dict.fromkeys(["id", "reference", "string", "picklist", "textarea", "anyType"], "text"),
    **dict.fromkeys(["double", "currency", "percent", "int"], "number"),
    "datetime": "datetime",
    "date": "date",
    "boolean": "word",
}


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class SoqlError(Exception):
    """A query that is refused; holds the code of the error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Conditions:
    """Conditions of a query.

    Attributes:
        test: Whether a record meets them.
        least: Field -> a value that no record that meets them is below.
        allowed: Field -> the values that such a record has one of.
    """

    test: Test
    least: Mapping[str, Any] = field(default_factory=dict)
    allowed: Mapping[str, frozenset[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """A query that was understood."""

    fields: tuple[str, ...]
    of: str
    where: Conditions
    order: tuple[str, ...]
    limit: int | None = None


def parse(soql: str, objects: Mapping[str, Mapping[str, str]]) -> Query:
    """Understands a query.

    Args:
        soql: The query.
        objects: Object -> field, or path to a field of a record that it refers to -> type.

    Raises:
        SoqlError: Salesforce would refuse it.
    """
    return _Parser(soql, objects).query()


@lru_cache(maxsize=2**18)
def comparable(value: Any, kind: str) -> Any:
    """A value in the form in which two of them compare; None for null."""
    if value is None:
        return None
    if kind == "datetime":
        read = datetime.fromisoformat(str(value).replace("+0000", "+00:00"))
        return read.astimezone(UTC)
    if kind == "date":
        return date.fromisoformat(str(value)[:10])
    return value


class _Parser:
    def __init__(self, soql: str, objects: Mapping[str, Mapping[str, str]]) -> None:
        self._objects, self._tokens, end = objects, [], 0
        for found in _TOKEN.finditer(soql):
            if found.start() != end:
                break
            end = found.end()
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
        if soql[end:].strip():
            raise SoqlError("MALFORMED_QUERY", f"unexpected token: {soql[end : end + 20]}")
        self._types: Mapping[str, str] = {}
        self._of = ""

    def query(self) -> Query:
        self._word("SELECT")
        fields = self._names()
        self._word("FROM")
        self._of = self._take("word")
        if self._of not in self._objects:
            raise SoqlError("INVALID_TYPE", f"sObject type '{self._of}' is not supported.")
        self._types = self._objects[self._of]
        for name in fields:
            self._type(name)
        where = self._conditions() if self._is_word("WHERE") else Conditions(_any)
        order: tuple[str, ...] = ()
        if self._is_word("ORDER"):
            self._word("BY")
            order = self._names()
            for name in order:
                self._type(name)
        limit = int(self._take("number")) if self._is_word("LIMIT") else None
        if self._tokens:
            raise SoqlError("MALFORMED_QUERY", f"unexpected token: {self._tokens[0][1]}")
        return Query(fields, self._of, where, order, limit)

    def _conditions(self) -> Conditions:
        found, joined = [self._condition()], set()
        while self._tokens and self._tokens[0] in (("word", "AND"), ("word", "OR")):
            joined.add(self._tokens.pop(0)[1])
            found.append(self._condition())
        if len(joined) > 1:
            raise SoqlError("MALFORMED_QUERY", "unexpected token: OR")
        tests = [each.test for each in found]
        if joined == {"OR"}:
            return Conditions(lambda record: any(test(record) for test in tests))
        return Conditions(
            lambda record: all(test(record) for test in tests),
            dict(pair for each in found for pair in each.least.items()),
            dict(pair for each in found for pair in each.allowed.items()),
        )

    def _condition(self) -> Conditions:
        if self._tokens and self._tokens[0] == ("sign", "("):
            self._tokens.pop(0)
            inner = self._conditions()
            self._sign(")")
            return inner
        name = self._take("word")
        kind = self._type(name)
        if kind == "anyType":
            raise SoqlError("INVALID_FIELD", f"field '{name}' can not be filtered in a query call")
        if self._is_word("IN"):
            self._sign("(")
            values = {self._value(kind)}
            while self._tokens and self._tokens[0] == ("sign", ","):
                self._tokens.pop(0)
                values.add(self._value(kind))
            self._sign(")")
            allowed = frozenset(values)
            return Conditions(lambda record: record.get(name) in allowed, allowed={name: allowed})
        sign = self._take("sign")
        wanted = self._value(kind)
        return Conditions(
            lambda record: _holds(comparable(record.get(name), kind), sign, wanted),
            {name: wanted} if sign in (">", ">=", "=") and wanted is not None else {},
        )

    def _value(self, kind: str) -> Any:
        found, written = self._tokens.pop(0) if self._tokens else ("", "")
        if (found, written) == ("word", "null"):
            return None
        if found != _FORMS[kind] or (kind == "boolean" and written not in ("true", "false")):
            raise SoqlError(
                "INVALID_FIELD", f"value of filter criterion must be of type {kind}: {written}"
            )
        if kind == "boolean":
            return written == "true"
        return comparable(float(written) if found == "number" else written, kind)

    def _type(self, name: str) -> str:
        if name not in self._types:
            raise SoqlError(
                "INVALID_FIELD",
                f"\nSELECT {name} FROM\n ^\nERROR at Row:1:Column:8\nNo such column '{name}' on"
                f" entity '{self._of}'.",
            )
        return self._types[name]

    def _names(self) -> tuple[str, ...]:
        names = [self._take("word")]
        while self._tokens and self._tokens[0] == ("sign", ","):
            self._tokens.pop(0)
            names.append(self._take("word"))
        return tuple(names)

    def _take(self, kind: str) -> str:
        if not self._tokens or self._tokens[0][0] != kind:
            raise SoqlError("MALFORMED_QUERY", "unexpected token")
        return self._tokens.pop(0)[1]

    def _word(self, word: str) -> None:
        if self._take("word") != word:
            raise SoqlError("MALFORMED_QUERY", f"expecting '{word}'")

    def _is_word(self, word: str) -> bool:
        if self._tokens and self._tokens[0] == ("word", word):
            self._tokens.pop(0)
            return True
        return False

    def _sign(self, sign: str) -> None:
        if self._take("sign") != sign:
            raise SoqlError("MALFORMED_QUERY", f"expecting '{sign}'")


def _any(_: Record) -> bool:
    return True


def _holds(value: Any, sign: str, wanted: Any) -> bool:
    if sign in ("=", "!="):
        return (value == wanted) is (sign == "=")
    if value is None:
        return False
    return bool(_COMPARISONS[sign](value, wanted))


def sort_key(record: Record, names: Sequence[str], types: Mapping[str, str]) -> tuple[Any, ...]:
    """By which the records of an answer are sorted; nulls come first."""
    values = [comparable(record.get(name), types[name]) for name in names]
    return tuple((value is not None, value if value is not None else 0) for value in values)
