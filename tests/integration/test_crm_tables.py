"""The tables that loaders of CRMs fill are those that the migrations make."""

import pytest

from loaders.records import rejects_of
from loaders.registry import SOURCES, source
from stageline.database import connect
from tests.crm_loads import columns
from tests.integration.test_migrations import TYPES

pytestmark = pytest.mark.usefixtures("database")

#: What every table has beside the columns that it declares.
EVERYWHERE = {
    "project_id": "text",
    "unreadable": "text",
    "fetched_at": "timestamp with time zone",
    "_dlt_load_id": "text",
    "_dlt_id": "text",
}
SWEPT = {"is_gone": "boolean", "gone_seen_at": "timestamp with time zone"}
#: What the database writes itself, where the flow models need it.
OF_THE_DATABASE = {"loaded_xid": "xid8", "fetched_xid": "xid8"}


@pytest.mark.parametrize("name", SOURCES)
def test_the_migrations_make_the_columns_that_a_source_declares(name: str) -> None:
    found = source(name)
    with connect("owner") as session:
        for table in (*found.tables, rejects_of(found.dataset)):
            declared = {column.name: column.type for column in table.columns}
            types = {"id": "text", "json": "text", "int32": "integer", **TYPES}
            expected = {column: types[kind] for column, kind in declared.items()} | EVERYWHERE
            expected |= SWEPT if table.is_swept else {}
            there = columns(session, table)
            assert there | OF_THE_DATABASE == expected | OF_THE_DATABASE, table.name
            (key,) = session.execute(
                "select array_agg(attname::text order by attname) from pg_index"
                " inner join pg_attribute on attrelid = indrelid and attnum = any(indkey)"
                " where indrelid = format('%%I.%%I', %s::text, %s::text)::regclass"
                " and indisunique",
                [table.dataset, table.name],
            ).fetchone() or (None,)
            assert key == sorted(table.full_key), table.name
