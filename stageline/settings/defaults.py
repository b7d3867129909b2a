"""What a project of KeyCRM starts with: the groups and rules that its users know."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stageline.errors import StagelineError
from stageline.settings.cycle_rules import CYCLES, CycleRule
from stageline.settings.dictionaries import GROUPS, Group
from stageline.settings.rule_tables import ProjectKey, Setting, SettingTable, changing_project
from stageline.settings.sla_rules import LIMITS, THRESHOLDS, NearThreshold, SlaLimit
from stageline.settings.urgent_rules import URGENT_RULES, UrgentRule


@dataclass(frozen=True)
class Default:
    """A row that is set where nothing is set yet.

    Attributes:
        table, row: What is set.
        said: What it is, for people.
        is_of_many: Whether it is set wherever its own key is free; else only where its table holds
            nothing of the project.
    """

    table: SettingTable[Any]
    row: Setting
    said: str
    is_of_many: bool = True


def _limit(group_id: str, name: str, hours: int, is_urgent: bool) -> Default:
    grid = "urgent" if is_urgent else "normal"
    return Default(
        LIMITS,
        SlaLimit(group_id=group_id, is_urgent=is_urgent, limit_seconds=hours * 3600),
        f"SLA limit of group {group_id} ({name}), {grid}: {hours}:00",
    )


def _group(group_id: str, name: str, kind: Any = "open") -> Default:
    return Default(
        GROUPS,
        Group(group_id=group_id, name=name, kind=kind, position=int(group_id)),
        f"group {group_id}: {name}, {kind}",
    )


def _urgent(match_type: str, match_value: str) -> Default:
    return Default(
        URGENT_RULES,
        UrgentRule(
            match_type=match_type, match_value=match_value, rule_name="Термінове виготовлення"
        ),
        f"urgent with an item of {match_type} {match_value}",
        is_of_many=False,
    )


#: Group ids of KeyCRM; there is no endpoint for their names.
DEFAULTS = (
    _group("1", "new"),
    _group("2", "approval"),
    _group("3", "production"),
    _group("4", "delivery"),
    _group("5", "done", "done"),
    _group("6", "cancelled", "cancelled"),
    _limit("1", "new", 8, is_urgent=False),
    _limit("2", "approval", 24, is_urgent=False),
    _limit("3", "production", 24, is_urgent=False),
    _limit("4", "delivery", 12, is_urgent=False),
    _limit("1", "new", 8, is_urgent=True),
    _limit("2", "approval", 16, is_urgent=True),
    _limit("3", "production", 16, is_urgent=True),
    _limit("4", "delivery", 8, is_urgent=True),
    Default(THRESHOLDS, NearThreshold(near_pct=Decimal(80)), "near from 80 % of a limit"),
    Default(
        CYCLES,
        CycleRule(title="to delivery", start_group_id="1", end_group_id="4", is_default=True),
        "cycle to delivery, the default: from group 1 to group 4",
        is_of_many=False,
    ),
    _urgent("sku", "Термінове виготовлення"),
    _urgent("offer_id", "16"),
)


def set_defaults(
    project: ProjectKey, *, dry_run: bool = False, changed_by: str | None = None
) -> list[Default]:
    """Sets what is not set yet, from the beginning on; gives what that is.

    Raises:
        StagelineError: there is no such project, or it is not one of KeyCRM.
    """
    if project.source_system != "keycrm":
        raise StagelineError(
            f"The defaults are for the groups of KeyCRM, and {project} is none of its projects."
            " Set limits with `stageline settings sla set`."
        )
    with changing_project(project, changed_by) as session:
        missing = []
        for default in DEFAULTS:
            columns = default.table.to_columns(default.row)
            key = {name: columns[name] for name in default.table.key}
            if not default.table.rows(session, project, key if default.is_of_many else None):
                missing.append(default)
        if not dry_run:
            for default in missing:
                default.table.insert(session, project, default.row)
    return missing
