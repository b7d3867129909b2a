"""Which field of a CRM feeds which of ours: facilities and the like are custom fields there."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from stageline.errors import StagelineError
from stageline.settings.names import require_text
from stageline.settings.rule_tables import (
    ProjectKey,
    Session,
    Setting,
    SettingTable,
    changing_project,
)

Entity = Literal["deals", "tickets", "surveys", "activities", "orders", "leads"]
ENTITIES: tuple[Entity, ...] = get_args(Entity)

Field = Literal["facility_id", "rep_id", "lead_id", "company"]
FIELDS: tuple[Field, ...] = get_args(Field)

#: Source -> kind of record -> the fields of ours that its base model takes from mapped ones.
READ: Mapping[str, Mapping[Entity, tuple[Field, ...]]] = {
    "hubspot": {
        "deals": FIELDS,
        "tickets": ("facility_id", "rep_id"),
        "surveys": ("facility_id",),
        "activities": ("facility_id", "rep_id", "lead_id"),
    },
    "pipedrive": {"deals": FIELDS},
    "salesforce": {
        "deals": FIELDS,
        "tickets": ("facility_id", "rep_id"),
        "activities": ("facility_id", "rep_id", "lead_id"),
        "leads": ("facility_id", "rep_id"),
    },
}


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


class FieldMap(SettingTable[MappedField]):
    """The mapped fields of projects; a label of Pipedrive becomes the key that stays the same."""

    def insert(self, session: Session, project: ProjectKey, row: MappedField) -> MappedField:
        """Writes a new row; gives it as it is now.

        Raises:
            StagelineError: it is not as it has to be, or there is no such field of the CRM.
        """
        return super().insert(session, project, _with_key(session, project, row))

    def update(self, session: Session, project: ProjectKey, row: MappedField) -> MappedField:
        """Writes the values of a row that is there; gives it as it is now.

        Raises:
            StagelineError: it is not as it has to be, or there is no such field of the CRM.
        """
        return super().update(session, project, _with_key(session, project, row))


def labels(session: Session, project: ProjectKey) -> dict[str, str]:
    """What people call the fields of deals of a project, by their keys, as the last load found it.

    Only Pipedrive's fields have keys that say nothing; of other CRMs there are none.
    """
    if project.source_system != "pipedrive":
        return {}
    return dict(
        session.execute(
            "select field_key, coalesce(name, field_key) from raw_pipedrive.deal_fields"
            " where project_id = %s",
            [project.project_id],
        ).fetchall()
    )


def name_by_keys(project: ProjectKey, *, changed_by: str) -> list[str]:
    """Has fields that were mapped by labels, before a load told of them, mapped by their keys.

    Returns:
        A sentence for each label that still tells of no field, or of several.
    """
    if project.source_system != "pipedrive":
        return []
    problems = []
    with changing_project(project, changed_by) as session:
        for row in FIELD_MAP.rows(session, project):
            try:
                if _with_key(session, project, row) != row:
                    FIELD_MAP.update(session, project, row)
            except StagelineError as error:
                problems.append(str(error))
    return problems


def _require_read(source: str, row: MappedField) -> None:
    """Makes sure that the mapping would change something."""
    if source not in READ:
        raise StagelineError(
            f"No model reads fields of {source}. There are some of: {', '.join(READ)}."
        )
    if row.entity not in READ[source]:
        raise StagelineError(
            f"No model reads fields of {row.entity} of {source}."
            f" There are: {', '.join(READ[source])}."
        )
    if row.field not in READ[source][row.entity]:
        raise StagelineError(
            f"No model reads {row.field} of {row.entity} of {source}."
            f" There are: {', '.join(READ[source][row.entity])}."
        )


def _with_key(session: Session, project: ProjectKey, row: MappedField) -> MappedField:
    """The row, naming its field by the key where a label names it; before a load, as it is."""
    row.require_valid()
    _require_read(project.source_system, row)
    known = labels(session, project)
    if not known or row.crm_field in known:
        return row
    keys = sorted(key for key, label in known.items() if label == row.crm_field)
    if not keys:
        raise StagelineError(
            f"{project} has no field {row.crm_field!r} among those of its last load."
            " Load it again if the field is new, or give the key that Pipedrive shows of it."
        )
    if len(keys) > 1:
        raise StagelineError(
            f"Several fields of {project} are called {row.crm_field!r}: {', '.join(keys)}."
            " Give one of these keys."
        )
    return replace(row, crm_field=keys[0])


FIELD_MAP = FieldMap(MappedField, "field_map", "field", ["entity", "field"])
