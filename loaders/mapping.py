"""The mapping file: which column of a file feeds which field of an entity, and how it is read.

The file is YAML, ``field of the entity: column in the file`` (a field has one origin, a column may
feed several fields). Every scalar is taken as the text that stands there, so that ``no``, ``007``
and ``0.10`` mean what they look like. Described for people in ``docs/load-your-files.md``.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from loaders.entities import Entity
from stageline.errors import StagelineError

Ambiguous = Literal["reject", "earlier", "later"]
Kind = Literal["csv", "jsonl", "parquet"]


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        near = get_close_matches(name, available_timezones(), n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Kyiv{hint}")
    return name


def _known_encoding(name: str) -> str:
    try:
        "a".encode(name)  # refuses codecs that are no encoding of text, too
        return codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"{name!r} is not an encoding such as utf-8 or cp1251") from None


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(text.lower(), text)
    if len(text) != 1 or text in "\r\n\"'":
        raise ValueError(f"{text!r} is not one character (write tab for a tabulator)")
    return text


def _positive(scale: Decimal) -> Decimal:
    if not scale.is_finite() or scale <= 0:
        raise ValueError("a scale is a number above 0, such as 0.01")
    return scale


Zone = Annotated[str, AfterValidator(_known_zone)]
Scale = Annotated[Decimal, AfterValidator(_positive)]
Mark = Annotated[str, Field(pattern=r"^[^\r\n]$")]


class FieldMapping(BaseModel):
    """How one field is read; whatever is not given here is taken from the file-wide settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str | None = None
    values: dict[str, str] = {}
    default: str | None = None
    format: str | None = None
    time_zone: Zone | None = None
    ambiguous: Ambiguous | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Mark | None = None
    scale: Scale | None = None
    round: Annotated[int, Field(ge=0, le=9)] | None = None


class Mapping(BaseModel):
    """A whole mapping file.

    Attributes:
        fields: field of the entity -> column in the file, or -> how it is read.
        constants: field of the entity -> one value for every row.
        ignore: Fields that are left empty although the file has a column of that name.
        source_system: What ``source_system`` of the rows says instead of ``file``.
        time_zone, ambiguous, format, decimal, thousands: For fields that do not say otherwise.
        empty: Texts that mean "no value", beside the empty cell.
        kind, encoding, delimiter, quote, columns: How the file is read; found out where absent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: dict[str, str | FieldMapping] = {}
    constants: dict[str, str] = {}
    ignore: list[str] = []
    source_system: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")] = "file"
    time_zone: Zone | None = None
    ambiguous: Ambiguous = "reject"
    format: str | None = None
    decimal: Literal[".", ","] = "."
    thousands: Mark | None = None
    empty: list[str] = []
    kind: Kind | None = None
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = None
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = None
    quote: Mark = '"'
    columns: list[str] = []


@dataclass(frozen=True)
class Reading:
    """How the values of one field are read: what the mapping says, with everything filled in.

    Attributes:
        name, type, required, choices, least, most: As in the entity's field.
        column: Column of the file, or None where every row gets ``constant``.
        constant: The text that every row gets.
        default: The text that a row without a value gets.
        values: Text in the file (case folded) -> text that it stands for.
        format: ``strptime`` format, ``epoch``, ``epoch_ms``, or None for ISO 8601.
        zone: Zone of times without an offset, or None where there must be an offset.
        ambiguous: What to do with a local time that occurs twice when clocks go back.
        decimal, thousands: Marks in numbers.
        scale: What numbers are multiplied by (0.01 turns 30 into 0.3).
        round: Decimals that numbers are rounded to (half to even); None keeps every digit.
        empty: Texts (case folded) that mean "no value".
    """

    name: str
    type: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: Decimal | None = None
    most: Decimal | None = None
    column: str | None = None
    constant: str | None = None
    default: str | None = None
    values: tuple[tuple[str, str], ...] = ()
    format: str | None = None
    zone: ZoneInfo | None = None
    ambiguous: Ambiguous = "reject"
    decimal: str = "."
    thousands: str | None = None
    scale: Decimal | None = None
    round: int | None = None
    empty: frozenset[str] = frozenset()


#: What a part of an entity's key stands for where the file leaves it out.
KEY_DEFAULTS = {("stage_events", "entity_type"): "deal"}


def read_mapping(path: Path | None, entity: Entity) -> Mapping:
    """The mapping in ``path`` (an empty one without a path), checked against ``entity``.

    Raises:
        StagelineError: the file is missing, is no YAML, or says something unknown; with its line.
    """
    if path is None:
        return Mapping()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StagelineError(f"Mapping {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise StagelineError(f"Mapping {path} is not UTF-8 text.") from None
    return parse_mapping(text, entity, str(path))


def parse_mapping(text: str, entity: Entity, name: str = "the mapping") -> Mapping:
    """The mapping written in ``text``; ``name`` is what error lines call it.

    Raises:
        StagelineError: as ``read_mapping``.
    """
    try:
        loader = yaml.BaseLoader(text)
        node = loader.get_single_node()
        if node is None:
            return Mapping()
        if not isinstance(node, yaml.MappingNode):
            raise StagelineError(f"{name}, line 1: a mapping starts with keys such as `fields:`.")
        for twice in _repeated_keys(node):
            raise StagelineError(f"{name}, line {_line(twice)}: {twice.value!r} is given twice.")
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StagelineError(f"{name}, line {line}: not YAML: {error.problem}.") from None
    try:
        mapping = Mapping.model_validate(data)
    except ValidationError as error:
        problem = _worst(error)
        loc = tuple(part for part in problem["loc"] if part not in {"str", "FieldMapping", "[key]"})
        raise StagelineError(
            f"{name}, line {_line(_at(node, loc))}: {_say(problem, loc)}."
        ) from None
    for section, names in (
        ("fields", list(mapping.fields)),
        ("constants", list(mapping.constants)),
        ("ignore", mapping.ignore),
    ):
        for index, field in enumerate(names):
            if entity.field(field) is None:
                where = _at(node, (section, index if section == "ignore" else field))
                known = [f.name for f in entity.fields]
                raise StagelineError(
                    f"{name}, line {_line(where)}: {entity.name} has no field {field!r}"
                    f"{_near(field, known)}. Its fields: {', '.join(known)}."
                )
    for field in mapping.fields:
        if field in mapping.constants:
            where = _at(node, ("constants", field))
            raise StagelineError(
                f"{name}, line {_line(where)}: {field!r} stands under fields and under constants."
            )
    return mapping


def readings(entity: Entity, mapping: Mapping, columns: list[str]) -> list[Reading]:
    """How each field of ``entity`` is read from a file that has ``columns``.

    A field that the mapping does not name is fed by the column of the same name, if there is one
    (case, spaces, dots and hyphens do not count). Fields with no origin are left out: they stay
    empty.

    Raises:
        StagelineError: a column that the mapping names, or that a required field needs, is missing.
    """
    found = []
    missing = []
    by_name = {_plain(column): column for column in reversed(columns)}
    by_name |= {column: column for column in columns}  # the very name wins
    for field in entity.fields:
        given = mapping.fields.get(field.name)
        rule = FieldMapping(column=given) if isinstance(given, str) else given or FieldMapping()
        constant = mapping.constants.get(field.name)
        column = rule.column
        if column is not None and column not in columns:
            column = by_name.get(_plain(column))
            if column is None:
                raise StagelineError(
                    f"The mapping reads {field.name} from column {rule.column!r}, which the file"
                    f" does not have{_near(rule.column or '', columns)}."
                    f" Its columns: {_listed(columns)}."
                )
        if column is None and constant is None and field.name not in mapping.ignore:
            column = by_name.get(_plain(field.name))
        default = rule.default
        if default is None:
            default = KEY_DEFAULTS.get((entity.name, field.name))
        if column is None and constant is None:
            constant = default
        if column is None and constant is None:
            if field.required:
                missing.append(field.name)
            continue
        decimal, thousands = rule.decimal or mapping.decimal, rule.thousands or mapping.thousands
        if decimal == thousands:
            raise StagelineError(
                f"The mapping gives {field.name} {decimal!r} both as decimal mark and between"
                " thousands."
            )
        zone = rule.time_zone or mapping.time_zone
        instant = field.type in {"timestamp", "date"}
        found.append(
            Reading(
                name=field.name,
                type=field.type,
                required=field.required or field.name in entity.key,
                choices=field.choices,
                least=None if field.least is None else Decimal(str(field.least)),
                most=None if field.most is None else Decimal(str(field.most)),
                column=column,
                constant=constant,
                default=default,
                values=tuple((text.strip().casefold(), to) for text, to in rule.values.items()),
                format=_format(rule.format or mapping.format) if instant else None,
                zone=ZoneInfo(zone) if zone else None,
                ambiguous=rule.ambiguous or mapping.ambiguous,
                decimal=decimal,
                thousands=thousands,
                scale=rule.scale,
                round=rule.round,
                empty=frozenset(text.strip().casefold() for text in mapping.empty),
            )
        )
    if missing:
        snippet = "\n".join(["fields:", *(f"  {name}: <column in the file>" for name in missing)])
        raise StagelineError(
            f"{entity.name} needs {_listed(missing)}; the file has no column of that name. "
            f"Its columns: {_listed(columns)}.\n"
            "Put the right columns into a file like this one and give it with --mapping (if the"
            f" first line is no header, name the columns with `columns: [...]`):\n{snippet}"
        )
    return found


def _format(given: str | None) -> str | None:
    return None if given is None or given.lower() == "iso" else given


def _plain(name: str) -> str:
    return "_".join(name.replace("-", " ").replace("_", " ").replace(".", " ").casefold().split())


def _listed(names: list[str], most: int = 30) -> str:
    shown = ", ".join(names[:most]) or "none"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _repeated_keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)


def _at(node: yaml.Node, path: tuple[str | int, ...]) -> yaml.Node:
    """The key (or item) that ``path`` leads to, or the last one on the way that exists."""
    here, inside = node, node
    for part in path:
        if isinstance(inside, yaml.MappingNode):
            pair = next((p for p in inside.value if p[0].value == str(part)), None)
            if pair is None:
                return here
            here, inside = pair
        elif isinstance(inside, yaml.SequenceNode) and isinstance(part, int):
            here = inside = inside.value[part]
    return here


def _worst(error: ValidationError) -> Any:
    """The one problem to tell: of the two ways to write a field, the one that was meant."""
    problems = error.errors()
    return next((p for p in problems if "str" not in p["loc"]), problems[0])


def _say(problem: Any, loc: tuple[str | int, ...]) -> str:
    where = ".".join(str(part) for part in loc)
    if problem["type"] == "extra_forbidden":
        known = [
            name
            for name in (FieldMapping if len(loc) > 1 else Mapping).model_fields
            if isinstance(name, str)
        ]
        return f"unknown key {loc[-1]!r}{_near(str(loc[-1]), known)}; known are {', '.join(known)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"
