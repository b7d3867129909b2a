"""The mapping file: what it may say, and what it says back when it is wrong."""

from pathlib import Path

import pytest

from loaders.entities import ENTITIES
from loaders.mapping import FieldMapping, Mapping, parse_mapping, read_mapping, readings
from stageline.errors import StagelineError

DEALS = ENTITIES["opportunities"]
EVENTS = ENTITIES["stage_events"]


def test_columns_named_like_fields_are_read_without_a_mapping() -> None:
    columns = ["Opportunity ID", "status", "Created-At", "whatever"]
    found = {rule.name: rule.column for rule in readings(DEALS, Mapping(), columns)}
    assert found == {
        "opportunity_id": "Opportunity ID",
        "status": "status",
        "created_at": "Created-At",
    }


def test_the_very_name_of_a_field_wins_over_one_like_it() -> None:
    columns = ["Opportunity ID", "opportunity_id", "status", "created at"]
    found = {rule.name: rule.column for rule in readings(DEALS, Mapping(), columns)}
    assert found["opportunity_id"] == "opportunity_id"


def test_a_mapping_names_columns_and_how_they_are_read() -> None:
    mapping = parse_mapping(
        """
        time_zone: Europe/Kyiv
        format: "%d.%m.%Y %H:%M"
        empty: [n/a]
        fields:
          opportunity_id: Deal ID
          status: {column: Stage, values: {Closed Won: won, "No": lost}, default: open}
          created_at: Created
          closed_at: {column: Closed, format: iso, time_zone: UTC}
          win_probability: {column: "Chance, %", scale: 0.01, decimal: ","}
        constants: {facility_id: 007}
        ignore: [name]
        """,
        DEALS,
    )
    columns = ["Deal ID", "Stage", "Created", "Closed", "Chance, %", "name"]
    found = {rule.name: rule for rule in readings(DEALS, mapping, columns)}
    assert set(found) == {
        "opportunity_id",
        "facility_id",
        "stage",  # by its name, also where a mapping says something about other fields
        "status",
        "win_probability",
        "created_at",
        "closed_at",
    }
    assert found["facility_id"].constant == "007"  # as written, not the number 7
    assert dict(found["status"].values) == {"closed won": "won", "no": "lost"}
    assert found["status"].default == "open"
    assert found["created_at"].format == "%d.%m.%Y %H:%M"
    assert str(found["created_at"].zone) == "Europe/Kyiv"
    assert found["closed_at"].format is None
    assert str(found["closed_at"].zone) == "UTC"
    assert str(found["win_probability"].scale) == "0.01"
    assert found["created_at"].empty == {"n/a"}


def test_a_key_part_that_may_be_left_out_gets_its_default() -> None:
    found = {
        r.name: r for r in readings(EVENTS, Mapping(), ["entity_id", "stage_id", "entered_at"])
    }
    assert found["entity_type"].constant == "deal"
    assert found["entity_type"].required


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("feilds: {}", "line 1: unknown key 'feilds' (did you mean fields?)"),
        (
            "fields:\n  status:\n    column: a\n    valeus: {}",
            "line 4: unknown key 'valeus' (did you mean values",
        ),
        (
            "fields:\n  statsu: a",
            "line 2: opportunities has no field 'statsu' (did you mean status?)",
        ),
        ("ignore: [a]", "line 1: opportunities has no field 'a'"),
        ("time_zone: Europe/Kiew", "line 1: time_zone: 'Europe/Kiew' is not an IANA time zone"),
        ("decimal: ;", "line 1: decimal: "),
        ("encoding: utf-9", "line 1: encoding: 'utf-9' is not an encoding"),
        ("encoding: base64", "line 1: encoding: 'base64' is not an encoding"),
        ("fields:\n  amount: {column: a, scale: 0}", "line 2: fields.amount.scale: a scale is"),
        ("fields: {}\nfields: {}", "line 2: 'fields' is given twice"),
        ("fields: [", "line 1: not YAML"),
        ("- a", "line 1: a mapping starts with keys"),
        ("source_system: 'Sales Force!'", "line 1: source_system: "),
        (
            "fields:\n  name: a\nconstants:\n  name: b",
            "line 4: 'name' stands under fields and under",
        ),
    ],
)
def test_what_is_wrong_in_a_mapping_is_said_with_its_line(text: str, said: str) -> None:
    with pytest.raises(StagelineError) as raised:
        parse_mapping(text, DEALS, "deals.yml")
    assert str(raised.value).startswith("deals.yml, ")
    assert said in str(raised.value)


def test_an_empty_mapping_is_none() -> None:
    assert parse_mapping("# nothing yet\n", DEALS) == Mapping()


def test_a_missing_mapping_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StagelineError, match="cannot be read: No such file"):
        read_mapping(tmp_path / "none.yml", DEALS)


def test_a_missing_column_is_named_with_its_neighbours() -> None:
    mapping = parse_mapping("fields: {status: Statsu}", DEALS)
    with pytest.raises(StagelineError, match=r"column 'Statsu'.*did you mean Status\?"):
        readings(DEALS, mapping, ["opportunity_id", "Status", "created_at"])


def test_a_missing_required_field_comes_with_a_mapping_to_paste() -> None:
    with pytest.raises(StagelineError) as raised:
        readings(DEALS, Mapping(), ["Deal", "status"])
    first, *rest = str(raised.value).splitlines()
    assert "opportunities needs opportunity_id, created_at" in first
    assert "Deal, status" in first
    assert "fields:\n  opportunity_id: <column in the file>" in "\n".join(rest)


def test_one_mark_cannot_mean_two_things_in_a_number() -> None:
    mapping = parse_mapping('fields: {amount: {column: a, decimal: ",", thousands: ","}}', DEALS)
    with pytest.raises(StagelineError, match="both as decimal mark and between thousands"):
        readings(DEALS, mapping, ["a", "opportunity_id", "status", "created_at"])


def test_the_mapping_in_the_examples_fits_its_entity() -> None:
    path = Path(__file__).parents[2] / "docs" / "examples" / "receipt_events.yml"
    rules = readings(EVENTS, read_mapping(path, EVENTS), ["entity_id", "stage", "at", "seq"])
    assert {rule.name: rule.column for rule in rules} == {
        "entity_type": None,
        "entity_id": "entity_id",
        "stage_id": "stage",
        "entered_at": "at",
        "sequence": "seq",
    }


def test_the_guide_describes_every_key() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "load-your-files.md").read_text()
    for key in {*Mapping.model_fields, *FieldMapping.model_fields}:
        assert f"`{key}`" in guide or key == "fields", key
    for name in ENTITIES:
        assert f"`{name}`" in guide
