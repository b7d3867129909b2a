"""The dictionaries of a project as rows of settings, and the group that an operator means."""

from dataclasses import dataclass

from stageline.errors import StagelineError
from stageline.settings.dictionaries import KINDS, Group, Stage
from stageline.settings.names import require_text
from stageline.settings.rule_tables import ProjectKey, Session, Setting, SettingTable


@dataclass(frozen=True, kw_only=True)
class StageGroup(Group, Setting):
    """A group of stages."""

    def require_valid(self) -> None:
        require_text(self.group_id, "The group")
        require_text(self.name, "The name")
        if self.kind not in KINDS:
            raise StagelineError(f"{self.kind!r} is no kind of group: {', '.join(KINDS)}.")


@dataclass(frozen=True, kw_only=True)
class GroupedStage(Stage, Setting):
    """A stage, and the group of the events that name none."""

    def require_valid(self) -> None:
        require_text(self.stage_id, "The stage")
        require_text(self.name, "The name")


GROUPS = SettingTable(StageGroup, "stage_group_dictionary", "group", ["group_id"])
STAGES = SettingTable(GroupedStage, "stage_dictionary", "stage", ["stage_id"])


def meant_group(session: Session, project: ProjectKey, text: str) -> tuple[str, str | None]:
    """The id of the group that a text names by its id or else its name, and a doubt about it.

    Events may name a group before a dictionary does, so an unknown one is only doubted.

    Raises:
        StagelineError: several groups have that name.
    """
    groups = GROUPS.rows(session, project)
    found = [group for group in groups if group.group_id == text] or [
        group for group in groups if group.name.casefold() == text.casefold()
    ]
    if len(found) > 1:
        ids = ", ".join(group.group_id for group in found)
        raise StagelineError(f"{project} has several groups called {text}: give the id, of {ids}.")
    if found:
        return found[0].group_id, None
    names = ", ".join(f"{group.group_id} ({group.name})" for group in groups)
    return text, f"{project} has no group {text} yet. It has {names}." if groups else None


def is_final(session: Session, project: ProjectKey, group_id: str) -> bool:
    """Whether no clock runs in a group, as far as the dictionary says."""
    return any(
        group.kind != "open" for group in GROUPS.rows(session, project, {"group_id": group_id})
    )
