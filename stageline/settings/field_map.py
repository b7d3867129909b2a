"""Which field of a CRM feeds which of ours: facilities and the like are custom fields there."""

from dataclasses import dataclass
from typing import Literal, get_args

from stageline.errors import StagelineError
from stageline.settings.names import require_text
from stageline.settings.rule_tables import Setting, SettingTable

Entity = Literal["deals", "tickets", "surveys", "activities", "orders", "leads"]
ENTITIES: tuple[Entity, ...] = get_args(Entity)

Field = Literal["facility_id", "rep_id", "lead_id", "company"]
FIELDS: tuple[Field, ...] = get_args(Field)


@dataclass(frozen=True, kw_only=True)
class MappedField(Setting):
    """A field of ours, and the CRM's that feeds it.

    Attributes:
        entity: The kind of record.
        field: The field of ours.
        crm_field: The CRM's, as its API calls it: a property of HubSpot, an API name of Salesforce,
            a key of Pipedrive (40 characters).
    """

    entity: Entity
    field: Field
    crm_field: str

    def require_valid(self) -> None:
        for value, known, what in (
            (self.entity, ENTITIES, "kind of record"),
            (self.field, FIELDS, "field of ours"),
        ):
            if value not in known:
                raise StagelineError(f"{value!r} is no {what}. There are: {', '.join(known)}.")
        require_text(self.crm_field, "The field of the CRM")


FIELD_MAP = SettingTable(MappedField, "field_map", "field", ["entity", "field"])
