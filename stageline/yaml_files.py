"""YAML files that a person edits: checked as they are read, mistakes told by line and column."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from stageline.errors import StagelineError, nearest
from stageline.settings.durations import read_duration

#: Where a value stands: keys and positions from the root of the document.
Place = Sequence[str | int]


class Checked(BaseModel):
    """A mapping of such a file: knows its keys, and names the one that was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, given: Any) -> Any:
        if isinstance(given, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in given:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key",
                        "there is no key {key} here. {hint}",
                        {"key": key, "hint": nearest(str(key), known)},
                    )
        return given


def _duration(text: Any) -> timedelta:
    try:
        return timedelta(seconds=read_duration(str(text), "the duration"))
    except StagelineError as error:
        raise ValueError(str(error)) from None


def _zone(name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(str(name))
    except (OSError, ValueError, KeyError):
        raise ValueError("no such time zone; write one like Europe/Kyiv") from None


#: Written as 90m, 1h30m or 24:00.
Duration = Annotated[timedelta, BeforeValidator(_duration)]

#: Written as its IANA name.
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]

Model = TypeVar("Model", bound=Checked)


class YamlFile:
    """A YAML document and where each of its values stands.

    Every value is the text that stands there, None for an empty one, so that ``22:00`` and ``no``
    are what they look like; the model that checks it makes numbers of what is a number.

    Args:
        path: The file.

    Raises:
        StagelineError: it cannot be read, is no YAML, or has a key twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: dict[tuple[str | int, ...], yaml.Mark] = {}
        try:
            root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise StagelineError(f"{path} cannot be read: {reason}.") from None
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "it has a sign that no text has"
            mark = getattr(error, "problem_mark", None)
            raise self._error_at(mark, f"This is no YAML: {problem}.") from None
        try:
            self._data = {} if root is None else self._value(root, ())
        except RecursionError:
            raise self._error_at(None, "A part of it contains itself.") from None

    def checked(self, model: type[Model]) -> Model:
        """The document as a ``model``.

        Raises:
            StagelineError: it has not its shape; the first mistake is told.
        """
        try:
            return model.model_validate(self._data)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
        place = list(first["loc"])
        if first["type"] == "unknown_key":
            place.append(first["ctx"]["key"])
        raise self.error(place, _words(first["type"], place, first["msg"], first.get("ctx", {})))

    def error(self, place: Place, problem: str) -> StagelineError:
        """The error for a problem at a place, or where the nearest thing around it stands."""
        # Of a mapping that is one of several models, pydantic's place holds the model's name, too.
        found: tuple[str | int, ...] = ()
        for part in place:
            if (*found, part) in self._marks:
                found = (*found, part)
        return self._error_at(self._marks.get(found), problem)

    def _error_at(self, mark: yaml.Mark | None, problem: str) -> StagelineError:
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        return StagelineError(f"{self._path}, line {line}, column {column}: {problem}")

    def _value(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        self._marks.setdefault(place, node.start_mark)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, at)) for at, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        return None if node.tag == "tag:yaml.org,2002:null" else node.value

    def _mapping(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error_at(key.start_mark, "A key is a word.")
            if key.value in values:
                raise self._error_at(key.start_mark, f"The key {key.value} stands here twice.")
            self._marks[(*place, key.value)] = key.start_mark
            values[key.value] = self._value(value, (*place, key.value))
        return values


def _words(kind: str, place: Place, message: str, context: Mapping[str, Any]) -> str:
    """What pydantic says, for a person who sees the place."""
    match kind:
        case "missing":
            said = f"{place[-1]} is missing"
        case "union_tag_not_found":
            said = str(context["discriminator"]).strip("'") + " is missing"
        case "union_tag_invalid":
            said = (
                str(context["discriminator"]).strip("'") + f" is none of {context['expected_tags']}"
            )
        case "model_type" | "model_attributes_type":
            said = "Here stand keys with their values, like `name: team`"
        case "unknown_key":
            said = message[:1].upper() + message[1:]
        case "literal_error":
            said = f"{_key(place)} is none of {context['expected']}"
        case "too_short" | "string_too_short":
            said = f"{_key(place)} is empty"
        case _:
            said = f"{_key(place)}: {message.removeprefix('Value error, ')}"
    return said if said.endswith((".", "?")) else f"{said}."


def _key(place: Place) -> str:
    """The key that is nearest above a place: what a value in a list belongs to."""
    return next(str(part) for part in reversed(place) if isinstance(part, str))
