"""Fields of CRMs that can be mapped are those that a model reads."""

import re
from pathlib import Path

import pytest

from loaders.hubspot_tables import CALLS, DEALS, FEEDBACK, MEETINGS, TICKETS
from loaders.pipedrive_tables import LISTED_DEALS
from loaders.records import Table
from loaders.salesforce_tables import CASES, EVENTS, LEADS, OPPORTUNITIES, TASKS
from stageline.settings.field_map import READ

MODELS = Path(__file__).parents[2] / "models" / "staging" / "base"


def test_what_can_be_mapped_is_what_models_read() -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for path in MODELS.glob("*/base_*.sql"):
        text = path.read_text()
        if path.parent.name == "settings" or "base_settings__field_map" not in text:
            continue
        (entity,) = set(re.findall(r"entity = '([a-z]+)'", text))
        named = re.search(r"set fields = \[(.*?)\]", text)  # in a loop
        fields = (
            re.findall("'([a-z_]+)'", named[1])
            if named
            else re.findall(r"'field_map\.([a-z_]+)'", text)
        )
        found.setdefault(path.parent.name, {}).setdefault(entity, set()).update(fields)
    assert found == {
        source: {entity: set(fields) for entity, fields in entities.items()}
        for source, entities in READ.items()
    }


def columned(table: Table) -> set[str]:
    """The CRM's fields that have columns of text or ids in a table.

    Left out are the record's own id, what is a list, and what is read as a number.
    """
    return {
        (column.of or column.name).removeprefix("properties.")
        for column in table.columns
        if column.type in ("text", "id") and isinstance(column.of, str)
    } - {"id", "Id", "hs_merged_object_ids", "hs_value"}


@pytest.mark.parametrize(
    ("model", "table"),
    [
        ("hubspot/base_hubspot__opportunities", DEALS),
        ("hubspot/base_hubspot__satisfaction", FEEDBACK),
        ("hubspot/base_hubspot__tickets", TICKETS),
        ("pipedrive/base_pipedrive__opportunities", LISTED_DEALS),
        ("salesforce/base_salesforce__opportunities", OPPORTUNITIES),
        ("salesforce/base_salesforce__leads", LEADS),
        ("salesforce/base_salesforce__tickets", CASES),
        ("hubspot/base_hubspot__activities", CALLS),
        ("hubspot/base_hubspot__activities", MEETINGS),
        ("salesforce/base_salesforce__activities", TASKS),
        ("salesforce/base_salesforce__activities", EVENTS),
    ],
)
def test_a_field_that_has_a_column_is_found_too(model: str, table: Table) -> None:
    text = (MODELS / f"{model}.sql").read_text()
    name = f"standard|columns|of_{table.name}"
    listed = re.search(rf"set (?:{name}) = \{{(.*?)\}}", text, re.DOTALL)
    assert listed
    assert set(re.findall(r"'([\w.]+)': '", listed[1])) == columned(table)
