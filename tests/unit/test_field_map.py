"""Fields of CRMs that can be mapped are those that a model reads."""

import re
from pathlib import Path

from stageline.settings.field_map import READ

MODELS = Path(__file__).parents[2] / "models" / "staging" / "base"


def test_what_can_be_mapped_is_what_models_read() -> None:
    found: dict[str, dict[str, set[str]]] = {}
    for path in MODELS.glob("*/base_*.sql"):
        text = path.read_text()
        if path.parent.name == "settings" or "base_settings__field_map" not in text:
            continue
        (entity,) = set(re.findall(r"entity = '([a-z]+)'", text))
        named = re.search(r"set fields = \[(.*?)\]", text)  # of Pipedrive, in a loop
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
