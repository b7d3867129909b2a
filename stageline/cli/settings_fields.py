"""``stageline settings fields``: which field of a CRM feeds which of ours."""

from typing import cast

import click

from stageline.cli.build import require_migrations
from stageline.cli.project_rules import of_project
from stageline.cli.settings_tables import show_or_say
from stageline.cli.tables import Column
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings.field_map import FIELD_MAP, Entity, Field, MappedField, labels
from stageline.settings.rule_tables import ProjectKey, changing_project, listed


@click.group()
def fields() -> None:
    """Say which field of the CRM holds the facility, the rep, the lead or the company.

    \b
    Example:
        stageline settings fields set hubspot main deals facility_id branch
        stageline settings fields list hubspot main
    """


@fields.command("set")
@of_project
@click.argument("entity")
@click.argument("field")
@click.argument("crm_field")
def set_field(project: ProjectKey, entity: str, field: str, crm_field: str) -> None:
    """Have a field of the CRM feed one of ours, from the next build on, for all records.

    ENTITY is deals, tickets, surveys, activities, orders or leads; FIELD is facility_id, rep_id,
    lead_id or company; CRM_FIELD is what the CRM's API calls its field. Of Pipedrive, it may be
    what people call it: once the account is loaded, its key is kept, which stays the same. What no
    model reads of a CRM is refused.

    \b
    Example:
        stageline settings fields set hubspot main deals facility_id branch
        stageline settings fields set salesforce main deals facility_id Branch__c
    """
    require_migrations()
    row = MappedField(
        entity=cast(Entity, entity), field=cast(Field, field), crm_field=crm_field.strip()
    )
    with changing_project(project) as session:
        is_there = FIELD_MAP.rows(session, project, {"entity": entity, "field": field})
        row = (FIELD_MAP.update if is_there else FIELD_MAP.insert)(session, project, row)
        name = _shown(row.crm_field, labels(session, project))
    click.echo(f"{field} of {entity} of {project} comes from {name}.")


@fields.command("remove")
@of_project
@click.argument("entity")
@click.argument("field")
def remove_field(project: ProjectKey, entity: str, field: str) -> None:
    """Have no field of the CRM feed one of ours any more.

    \b
    Example:
        stageline settings fields remove hubspot main deals facility_id
    """
    require_migrations()
    with changing_project(project) as session:
        rows = FIELD_MAP.rows(session, project, {"entity": entity, "field": field})
        if not rows:
            raise StagelineError(
                f"No field feeds {field} of {entity} of {project}."
                f" `stageline settings fields list {project}` lists them."
            )
        FIELD_MAP.delete(session, project, rows[0])
    click.echo(f"{field} of {entity} of {project} comes from no field of its own.")


@fields.command("list")
@of_project
def list_fields(project: ProjectKey) -> None:
    """List which fields feed which.

    \b
    Example:
        stageline settings fields list hubspot main
    """
    require_migrations()
    rows = listed(FIELD_MAP, project)
    with connect("owner") as session:
        known = labels(session, project)
    show_or_say(
        [Column(title) for title in ("records", "field of ours", "field of the CRM")],
        [(row.entity, row.field, _shown(row.crm_field, known)) for row in rows],
        f"{project} has no fields of its own.",
    )


def _shown(crm_field: str, known: dict[str, str]) -> str:
    """A field of the CRM, with what people call it where that is something else."""
    label = known.get(crm_field, crm_field)
    return crm_field if label == crm_field else f"{crm_field} ({label})"
