"""Answers of HubSpot as columns, without an object of Python for each value.

The histories of deals are most of what an account holds. Arrow reads an answer in the form of the
contract in a fraction of the time, for most of which it leaves Python to the other threads. An
answer in any other form is for ``loaders.hubspot_tables`` as a whole, so there is one set of rules;
a property test holds the two ways against each other.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from loaders.hubspot_tables import (
    DEAL_HISTORY,
    DEALS,
    INSTANTS,
    MERGED_DEALS,
    MIDNIGHT,
    NUMBERS,
    OWN_ID,
    PROPERTIES,
    WITH_HISTORY,
    WITHOUT_TIME,
    deal_records,
    mark,
    merges,
    places,
)
from loaders.record_values import read_values
from loaders.records import Columns, Record, Table

_TEXT = pa.string()
_ENTRY = pa.struct(
    [
        ("value", _TEXT),
        ("timestamp", _TEXT),
        ("sourceType", _TEXT),
        ("sourceId", _TEXT),
        ("updatedByUserId", pa.int64()),
    ]
)
#: A null that stands for itself, first or after an object: no answer has it, and at that Arrow's
#: reader of JSON (26.0) breaks off the whole process.
_OBJECT, _THEN_NULL = re.compile(rb"\s*\{"), re.compile(rb"\}\s*null")
#: In the order of the table's key.
_HISTORIES = tuple(sorted(WITH_HISTORY))
#: A history has fewer entries: no answer has room for so many.
_MANY = 1 << 20


def read_deals(body: bytes, names: tuple[str, ...]) -> pa.StructArray | None:
    """The deals of an answer; None where it is in another form.

    Args:
        body: The answer.
        names: The properties that were asked for; others are left out.
    """
    if not _OBJECT.match(body) or _THEN_NULL.search(body):
        return None
    try:
        str(body, "utf-8")  # Arrow takes any bytes for text
        read = pa_json.read_json(
            pa.py_buffer(body),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(body) + 1),
            parse_options=pa_json.ParseOptions(_form(names), unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if read.num_rows != 1 or read["results"].null_count:
        return None
    deals = read["results"].chunk(0).flatten()
    if deals.null_count:
        return None
    ids, unfit = read_values(deals.field("id"), "id")
    return None if unfit or ids.null_count else deals


def deal_columns(deals: pa.StructArray) -> dict[Table, Sequence[Record]]:
    """What deals say, by table, in the order of the tables' keys."""
    fields = _fields(deals)
    history = _history(fields["id"], _fields(fields["propertiesWithHistory"]))
    if history is None:
        return deal_records(sorted(deals.to_pylist(), key=itemgetter("id")))
    order = pc.sort_indices(fields["id"])
    ids = fields["id"].take(order)
    properties = _fields(fields["properties"].take(order))
    merged = zip(ids.to_pylist(), properties["hs_merged_object_ids"].to_pylist(), strict=True)
    return {
        DEALS: _objects(DEALS, ids, properties),
        DEAL_HISTORY: history,
        MERGED_DEALS: merges(merged),
    }


@lru_cache(maxsize=10)
def _form(names: tuple[str, ...]) -> pa.Schema:
    """What an answer looks like in which all values are as the contract says."""
    record = pa.struct(
        [
            ("id", _TEXT),
            ("properties", pa.struct([(name, _TEXT) for name in names])),
            ("propertiesWithHistory", pa.struct([(name, pa.list_(_ENTRY)) for name in _HISTORIES])),
        ]
    )
    return pa.schema([("results", pa.list_(record))])


def _fields(records: pa.StructArray) -> dict[str, pa.Array]:
    return dict(zip((field.name for field in records.type), records.flatten(), strict=True))


def _objects(table: Table, ids: pa.Array, properties: Mapping[str, pa.Array]) -> Columns:
    """The rows of a table of CRM objects."""
    key, *columns, custom = table.columns
    values: dict[str, pa.Array | list[object]] = {key.name: ids}
    for column in columns:
        texts = properties[str(column.of).removeprefix("properties.")]
        values[column.name] = _moments(texts) if column.type == "timestamp" else texts
    fields: list[dict[str, object]] = [{} for _ in ids]
    for name in sorted(properties.keys() - {*PROPERTIES[table], OWN_ID}):
        if properties[name].null_count < len(ids):
            for field, value in zip(fields, properties[name].to_pylist(), strict=True):
                if value:
                    field[name] = value
    return Columns({**values, custom.name: list(fields)})


def _moments(texts: pa.Array) -> pa.Array:
    is_date = pc.equal(pc.utf8_length(texts), WITHOUT_TIME)
    if not pc.any(is_date).as_py():
        return texts
    return pc.if_else(is_date, pc.binary_join_element_wise(texts, MIDNIGHT, ""), texts)


def _history(ids: pa.Array, histories: Mapping[str, pa.Array]) -> Columns | None:
    """The entries of the deals' histories, in the order of the table's key, oldest first; None
    where an entry says no instant.
    """
    lists = [histories[name] for name in _HISTORIES]
    entries = [_fields(each.flatten()) for each in lists]
    given = {
        field.name: pa.concat_arrays([each[field.name] for each in entries]) for field in _ENTRY
    }
    changed_at, unfit = read_values(given["timestamp"], "timestamp")
    if unfit or changed_at.null_count:
        return None
    # Of each entry: the place of its deal, that of its property, and its own in its list.
    deal = pa.concat_arrays([pc.list_parent_indices(each) for each in lists])
    name = pa.concat_arrays(
        [pa.repeat(place, len(each["value"])) for place, each in enumerate(entries)]
    )
    sizes = pa.concat_arrays([pc.fill_null(pc.list_value_length(each), 0) for each in lists])
    starts = pc.subtract(pc.cumulative_sum(sizes), sizes)
    of_list = pc.add(pc.multiply(name, len(ids)), deal)
    start, size = starts.take(of_list), sizes.take(of_list)
    place = pc.subtract(pa.arange(0, len(deal)), start)
    last = pc.subtract(size, 1)
    is_newest_first = pc.greater_equal(changed_at.take(start), changed_at.take(pc.add(start, last)))
    place = pc.if_else(is_newest_first, pc.subtract(last, place), place)
    rank = pc.rank(ids, tiebreaker="first").cast(pa.int64())
    history = pc.add(pc.multiply(rank.take(deal), len(_HISTORIES)), name)
    order = pc.sort_indices(pc.add(pc.multiply(history, _MANY), place))
    deal, name, history, changed_at = (
        each.take(order) for each in (deal, name, history, changed_at)
    )
    entry = {field: values.take(order) for field, values in given.items()}
    values, names = entry["value"], pa.array(_HISTORIES).take(name)
    deal_ids = ids.take(deal)
    nothing = pa.scalar(None, _TEXT)
    return Columns(
        {
            "deal_id": deal_ids,
            "property": names,
            "changed_at": entry["timestamp"],
            "value_mark": _marks(values),
            "value": values,
            "number": pc.if_else(_is_of(name, NUMBERS), values, nothing),
            "instant": _moments(pc.if_else(_is_of(name, INSTANTS), values, nothing)),
            "place": _places(history, changed_at, (deal_ids, names, entry["timestamp"])),
            "source_type": entry["sourceType"],
            "source_id": entry["sourceId"],
            "updated_by": entry["updatedByUserId"],
        }
    )


def _marks(values: pa.Array) -> pa.Array:
    told = pc.fill_null(values, "").dictionary_encode()
    return pa.array([mark(each) for each in told.dictionary.to_pylist()], _TEXT).take(told.indices)


def _is_of(name: pa.Array, names: set[str]) -> pa.Array:
    return pa.array([each in names for each in _HISTORIES]).take(name)


def _places(history: pa.Array, changed_at: pa.Array, told: tuple[pa.Array, ...]) -> pa.Array:
    """Of each entry, how many before it have its history and instant: mostly none."""
    is_like_last = pc.and_(
        pc.equal(history[1:], history[:-1]), pc.equal(changed_at[1:], changed_at[:-1])
    )
    if not pc.any(is_like_last).as_py():
        return pa.repeat(0, len(history))
    return pa.array(places(*(each.to_pylist() for each in told)))
