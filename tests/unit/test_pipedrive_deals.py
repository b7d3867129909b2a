"""How a change of a deal is read from Pipedrive's flow."""

from datetime import UTC, datetime
from typing import Any

import pytest

from loaders.pipedrive_deals import read_change


def entry(**data: Any) -> dict[str, Any]:
    """The contract's sample of a stage change, with other values."""
    return {
        "object": "dealChange",
        "timestamp": "2026-03-04 09:12:41",
        "data": {
            "id": 902,
            "item_id": 55,
            "user_id": 71,
            "field_key": "stage_id",
            "old_value": "4",
            "new_value": "5",
            "is_bulk_update_flag": None,
            "log_time": "2026-03-04 09:12:40",
            "change_source": "app",
            "change_source_user_agent": None,
            "additional_data": {
                "old_value_formatted": "Contacted",
                "new_value_formatted": "Offer sent",
            },
            **data,
        },
    }


def test_the_sample_of_the_contract_is_read_whole() -> None:
    change = read_change(entry(), "55")
    assert change is not None
    assert change._asdict() == {
        "change_id": "902",
        "field_key": "stage_id",
        "old_value": "4",
        "new_value": "5",
        "old_label": "Contacted",
        "new_label": "Offer sent",
        "user_id": "71",
        "change_source": "app",
        "changed_at": datetime(2026, 3, 4, 9, 12, 40, tzinfo=UTC),
    }


@pytest.mark.parametrize(
    ("written", "kept"), [("10", "10"), (1200, "1200"), (None, None), ("", None)]
)
def test_values_are_text_number_or_null(written: Any, kept: str | None) -> None:
    change = read_change(entry(new_value=written), "55")
    assert change is not None
    assert change.new_value == kept


@pytest.mark.parametrize("additional", [[], None, "text", {}])
def test_labels_may_be_missing_in_every_form(additional: Any) -> None:
    change = read_change(entry(additional_data=additional), "55")
    assert change is not None
    assert (change.old_label, change.new_label) == (None, None)


def test_other_entries_of_the_flow_are_no_changes() -> None:
    assert read_change({"object": "activity", "data": {"id": 902}}, "55") is None


def test_a_change_without_a_time_of_its_own_has_that_of_its_entry() -> None:
    change = read_change(entry(log_time=None), "55")
    assert change is not None
    assert change.changed_at == datetime(2026, 3, 4, 9, 12, 41, tzinfo=UTC)


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {"object": "dealChange", "data": None},
        entry(id=None),
        entry(field_key=""),
        entry(log_time="yesterday"),
        entry(item_id=56),
        entry(new_value={"id": 5}),
        entry(new_value="5\0"),
    ],
)
def test_what_cannot_be_read_is_told(row: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_change(row, "55")
