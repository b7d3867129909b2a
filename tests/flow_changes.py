"""What can happen to the log and to the settings of flow: one kind of change in one project.

So what one kind misses is not built anew because of another one.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

Session = psycopg.Connection[Any]

ENTITIES = 6
STAGES = ("1", "2", "3", "4", "5", "6")
GROUPS = {"1": "new", "2": "new", "3": "work", "4": "work", "5": "done", "6": "cancelled"}
SUBSTAGES = ("LEAD.GENERATED", "LEAD.RFQ_RECEIVED", "ORDER.RECEIVED", "PAYMENT.RECEIVED")
CYCLES = ("to done", "to work")
SKUS = ("A-1", "B-2", "EXPRESS")
ZONES = ("Europe/Kyiv", "America/New_York")
#: Something of the log lies between these, and what the first run does not see after its `as_of`.
FIRST, AS_OF = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 6, 1, 12, tzinfo=UTC)
LAST = AS_OF + timedelta(days=40)


class World:
    """What happens at random; the same with the same seed.

    Attributes:
        log: Kinds of change of the log, each of them with what it does to its project.
        settings: The same of settings.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.log = self._named("log_")
        self.settings = self._named("set_")

    def _named(self, beginning: str) -> dict[str, Callable[[Session, str], None]]:
        return {
            name.removeprefix(beginning): getattr(self, name)
            for name in dir(self)
            if name.startswith(beginning)
        }

    @property
    def projects(self) -> list[str]:
        """One for each kind of change, and one that nothing happens to."""
        return [*self.log, *self.settings, "untouched"]

    def source(self, project: str) -> str:
        """Orders come from KeyCRM, deals from Pipedrive."""
        return "pipedrive" if project in ("deal", "deal_history") else "keycrm"

    def kind(self, project: str) -> str:
        return "deal" if self.source(project) == "pipedrive" else "order"

    def instant(self, last: datetime = LAST) -> datetime:
        seconds = self.random.randrange(int((last - FIRST).total_seconds()))
        return FIRST + timedelta(seconds=seconds)

    def near_as_of(self) -> datetime:
        """Where the instant that the models are made for moves to and fro."""
        return AS_OF + timedelta(seconds=self.random.randrange(-10 * 86400, 25 * 86400))

    def entity(self) -> str:
        return str(self.random.randrange(ENTITIES))

    def write(self, session: Session, table: str, **values: object) -> None:
        """Writes a row, unless one with its key is there."""
        schema, name = table.split(".")
        session.execute(
            sql.SQL("insert into {} ({}) values ({}) on conflict do nothing").format(
                sql.Identifier(schema, name),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(map(sql.Placeholder, values)),
            ),
            values,
        )

    def set(self, session: Session, table: str, project: str, **values: object) -> None:
        """Writes a setting of a project."""
        key = {"source_system": self.source(project), "project_id": project}
        self.write(session, f"settings.{table}", **key, **values)

    # The log

    def log_entries(self, session: Session, project: str) -> None:
        """An entity enters stages, then or long ago, or will."""
        entity = self.entity()
        created = self.instant()
        for _ in range(self.random.randrange(1, 4)):
            stage = self.random.choice((*STAGES, *STAGES, "7"))
            self.write(
                session,
                "raw.stage_events",
                source_system=self.source(project),
                project_id=project,
                entity_type=self.kind(project),
                entity_id=entity,
                pipeline_id=self.random.choice(("p1", "p2", None)),
                stage_id=stage,
                stage_group_id=GROUPS.get(stage) if self.random.random() < 0.3 else None,
                previous_stage_id=self.random.choice((None, "1")),
                entity_created_at=created if self.random.random() < 0.3 else None,
                entered_at=self.instant(),
                delivery_id=UUID(int=self.random.getrandbits(128)),
            )

    def log_deletions(self, session: Session, project: str) -> None:
        """Entities are deleted, merged and restored, then or later."""
        for _ in range(3):
            self.write(
                session,
                "raw.lifecycle_events",
                source_system=self.source(project),
                project_id=project,
                entity_type=self.kind(project),
                entity_id=self.entity(),
                event=self.random.choice(("deleted", "deleted", "merged", "restored", "created")),
                occurred_at=self.near_as_of(),
                delivery_id=UUID(int=self.random.getrandbits(128)),
            )

    def log_order(self, session: Session, project: str) -> None:
        """An order is fetched, with other items, or is found gone."""
        order = self.entity()
        session.execute(
            "insert into raw_keycrm.orders (project_id, order_id, is_gone, fetched_at)"
            " values (%s, %s, %s, %s) on conflict (project_id, order_id) do update"
            " set is_gone = excluded.is_gone, fetched_at = excluded.fetched_at,"
            " fetched_xid = excluded.fetched_xid",
            (project, order, self.random.random() < 0.5, self.near_as_of()),
        )
        session.execute(
            "delete from raw_keycrm.order_items where project_id = %s and order_id = %s",
            (project, order),
        )
        self.write(
            session,
            "raw_keycrm.order_items",
            project_id=project,
            order_id=order,
            position=1,
            sku=self.random.choice(SKUS),
        )

    def log_deal(self, session: Session, project: str) -> None:
        """A deal is fetched, there or not."""
        session.execute(
            "insert into raw_pipedrive.deals"
            " (project_id, deal_id, stage_id, pipeline_id, is_deleted, is_gone, fetched_at)"
            " values (%s, %s, %s, 'p1', %s, %s, %s) on conflict (project_id, deal_id) do update"
            " set stage_id = excluded.stage_id, is_deleted = excluded.is_deleted,"
            " is_gone = excluded.is_gone, fetched_at = excluded.fetched_at,"
            " fetched_xid = excluded.fetched_xid",
            (
                *(project, self.entity(), self.random.choice(STAGES)),
                *(self.random.random() < 0.3, self.random.random() < 0.3, self.near_as_of()),
            ),
        )

    def log_deal_history(self, session: Session, project: str) -> None:
        """The CRM tells of a move of a deal in the past."""
        moved_at = self.instant(AS_OF)
        self.write(
            session,
            "raw_pipedrive.deal_changes",
            project_id=project,
            deal_id=self.entity(),
            change_id=str(self.random.randrange(10**6)),
            field_key="stage_id",
            old_value=self.random.choice(STAGES),
            new_value=self.random.choice(STAGES),
            changed_at=moved_at,
            fetched_at=moved_at,
        )

    def log_file(self, session: Session, project: str) -> None:
        """A file tells of entries, and again of one otherwise."""
        session.execute(
            "update raw_files.stage_events set pipeline_id = %s where project_id = %s"
            " and entity_id = %s",
            (self.random.choice(("p1", "p2")), project, self.entity()),
        )
        self.write(
            session,
            "raw_files.stage_events",
            source_system=self.source(project),
            project_id=project,
            entity_type=self.kind(project),
            entity_id=self.entity(),
            stage_id=self.random.choice(STAGES),
            entered_at=self.instant(),
        )

    # Settings

    def set_stage_group(self, session: Session, project: str) -> None:
        """A status goes to another group."""
        self._update(session, "stage_dictionary", project, "group_id", ("new", "work", "done"))

    def set_stage_pipeline(self, session: Session, project: str) -> None:
        """A stage goes to another pipeline."""
        self._update(session, "stage_dictionary", project, "pipeline_id", ("p1", "p2"))

    def set_stage_name(self, session: Session, project: str) -> None:
        """A status has another name; one that was heard of gets one."""
        self._update(session, "stage_dictionary", project, "name", ("A", "B", "C"))
        self.set(session, "stage_dictionary", project, stage_id="7", name="Late", group_id="work")

    def set_stage_gone(self, session: Session, project: str) -> None:
        """A status is in the dictionary no more."""
        self._delete(session, "stage_dictionary", project)

    def set_group_kind(self, session: Session, project: str) -> None:
        """Orders end in another group."""
        kinds = ("open", "done", "cancelled")
        self._update(session, "stage_group_dictionary", project, "kind", kinds)

    def set_group_name(self, session: Session, project: str) -> None:
        """A group has another name."""
        self._update(session, "stage_group_dictionary", project, "name", ("A", "B", "C"))

    def set_hours(self, session: Session, project: str) -> None:
        """Other hours of a project or of a group, for all time or until and from a day."""
        group = self.random.choice((None, "work"))
        session.execute(
            "delete from settings.calendars where project_id = %s"
            " and group_id is not distinct from %s",
            (project, group),
        )
        cut = self.instant(AS_OF).date()
        for since, until in self.random.choice((((None, None),), ((None, cut), (cut, None)))):
            self._calendar(session, project, group, since, until)

    def set_windows(self, session: Session, project: str) -> None:
        """A weekday of one calendar has another window."""
        session.execute(
            "update settings.calendar_windows set opens_second = %s where calendar_id ="
            " (select max(calendar_id) from settings.calendars where project_id = %s)"
            " and weekday = %s",
            (3600 * self.random.randrange(12), project, self.random.randrange(1, 6)),
        )

    def set_no_hours(self, session: Session, project: str) -> None:
        """Nobody works any more, at any time."""
        session.execute(
            "delete from settings.calendar_windows using settings.calendars"
            " where calendars.calendar_id = calendar_windows.calendar_id and project_id = %s",
            (project,),
        )

    def set_hours_end(self, session: Session, project: str) -> None:
        """A calendar ends, or is gone."""
        if self.random.random() < 0.5:
            session.execute(
                "update settings.calendars set effective_to = %s where project_id = %s",
                (self.instant(AS_OF).date(), project),
            )
        else:
            self._delete(session, "calendars", project)

    def set_days(self, session: Session, project: str) -> None:
        """A holiday, or an extra working day, comes, goes or is another one."""
        self._delete(session, "day_exceptions", project)
        self._update(session, "day_exceptions", project, "as_weekday", (1, 2, None))
        for _ in range(12):
            day = self.instant(AS_OF).date()
            as_weekday = self.random.choice((None, 1))
            self.set(session, "day_exceptions", project, day=day, as_weekday=as_weekday)

    def set_zone(self, session: Session, project: str) -> None:
        """A project's clocks are other ones."""
        self._update(session, "projects", project, "timezone", ZONES)

    def set_active(self, session: Session, project: str) -> None:
        """A project counts no more, or again."""
        self._update(session, "projects", project, "is_active", (True, False))

    def set_map_row(self, session: Session, project: str) -> None:
        """A stage means something else."""
        self._update(session, "stage_map_scd", project, "sub_key", SUBSTAGES)

    def set_map_wildcard(self, session: Session, project: str) -> None:
        """A pipeline, or all that is unmapped, is mapped from an instant on."""
        stage, pipeline = self.random.choice(((None, None), (None, "p1"), ("7", None), ("2", "p2")))
        self.set(
            session,
            "stage_map_scd",
            project,
            report_version=self.random.choice((1, 2)),
            pipeline_id=pipeline,
            stage_id=stage,
            sub_key=self.random.choice(SUBSTAGES),
            effective_from=self.instant(AS_OF),
        )

    def set_map_end(self, session: Session, project: str) -> None:
        """A stage means nothing any more, at all or from an instant on."""
        self._delete(session, "stage_map_scd", project)
        self._update(session, "stage_map_scd", project, "effective_to", (self.instant(AS_OF),))

    def set_limit(self, session: Session, project: str) -> None:
        """A limit is another one, or ends."""
        limits = (3_600, 36_000, 360_000)
        self._update(session, "sla_stage_rules", project, "limit_seconds", limits)
        self._update(session, "sla_stage_rules", project, "effective_to", (self.instant(AS_OF),))

    def set_near(self, session: Session, project: str) -> None:
        """Visits are near their limit from another share on."""
        self._delete(session, "sla_thresholds", project)
        self.set(session, "sla_thresholds", project, near_pct=self.random.choice((1, 20, 50)))

    def set_waiting(self, session: Session, project: str) -> None:
        """The clock pauses in another status."""
        self._delete(session, "waiting_stages", project)
        self.set(session, "waiting_stages", project, stage_id=self.random.choice(STAGES[:4]))

    def set_urgent(self, session: Session, project: str) -> None:
        """Another item makes orders urgent."""
        self._delete(session, "urgent_rules", project)
        item = self.random.choice(SKUS)
        self.set(
            session,
            "urgent_rules",
            project,
            rule_name=f"rule of {item}",
            match_type="sku",
            match_value=item,
        )

    def set_cycle(self, session: Session, project: str) -> None:
        """Cycles end elsewhere, and orders show another one."""
        ends = ("work", "done", "cancelled")
        self._update(session, "cycle_rules", project, "end_group_id", ends)
        shown = self.random.choice(CYCLES)
        for is_default in (False, True):
            session.execute(
                "update settings.cycle_rules set is_default = %(value)s where"
                " project_id = %(project)s and (title = %(title)s) = %(value)s",
                {"value": is_default, "project": project, "title": shown},
            )

    def set_override(self, session: Session, project: str) -> None:
        """An order is judged by hand; another one no more."""
        self._delete(session, "order_overrides", project)
        self.set(
            session,
            "order_overrides",
            project,
            order_id=self.entity(),
            is_urgent=self.random.choice((True, False, None)),
            sla_profile=self.random.choice(("normal", "urgent", None)),
            cycle_start_group_id=self.random.choice(("new", "work", None)),
            cycle_end_stage_id=self.random.choice(("4", "5", None)),
        )

    def set_metric(self, session: Session, project: str) -> None:
        """A metric of the users' own ends elsewhere."""
        self._update(session, "flow_metrics", project, "end_stage_id", STAGES)

    def _update(
        self, session: Session, table: str, project: str, column: str, values: tuple[Any, ...]
    ) -> None:
        """Gives about half of the project's rows of a table, or the only one, some value."""
        rows = session.execute(
            sql.SQL(
                "select ctid from settings.{} as rows where project_id = %s order by rows::text"
            ).format(sql.Identifier(table)),
            (project,),
        ).fetchall()
        chosen = [row for row in rows if self.random.random() < 0.5] or rows[:1]
        for (place,) in chosen:
            session.execute(
                sql.SQL("update settings.{} set {} = %s where ctid = %s").format(
                    sql.Identifier(table), sql.Identifier(column)
                ),
                (self.random.choice(values), place),
            )

    def _delete(self, session: Session, table: str, project: str) -> None:
        """Removes one or two of the project's rows of a table."""
        session.execute(
            sql.SQL(
                "delete from settings.{table} where ctid in (select ctid"
                " from settings.{table} as rows where project_id = %s"
                " order by md5(rows::text || %s) limit %s)"
            ).format(table=sql.Identifier(table)),
            (project, str(self.random.random()), self.random.randrange(1, 3)),
        )

    def _calendar(
        self, session: Session, project: str, group: str | None, since: Any, until: Any
    ) -> None:
        (number,) = session.execute(
            "insert into settings.calendars (source_system, project_id, group_id,"
            " effective_from, effective_to) values (%s, %s, %s, coalesce(%s, date '1900-01-01'),"
            " %s) returning calendar_id",
            (self.source(project), project, group, since, until),
        ).fetchone() or (None,)
        for weekday in range(1, self.random.randrange(5, 8)):
            self.write(
                session,
                "settings.calendar_windows",
                calendar_id=number,
                weekday=weekday,
                opens_second=3600 * self.random.randrange(12),
                closes_second=3600 * self.random.randrange(13, 25),
            )

    # What there is before anything happens

    def begin(self, session: Session) -> None:
        """All projects with a log and all kinds of settings; a published map, and a draft."""
        session.execute(
            "insert into settings.report_versions (report_version, state, published_at)"
            " values (1, 'published', now()), (2, 'draft', null)"
        )
        for project in self.projects:
            self._begin_project(session, project)
            for _ in range(20):
                self.log_entries(session, project)
            if self.kind(project) == "order":
                for _ in range(ENTITIES):
                    self.log_order(session, project)
        for _ in range(ENTITIES):
            for project, change in self.log.items():
                change(session, project)

    def _begin_project(self, session: Session, project: str) -> None:
        self.set(session, "projects", project, timezone=ZONES[0])
        for group in set(GROUPS.values()):
            kind = group if group in ("done", "cancelled") else "open"
            self.set(
                session, "stage_group_dictionary", project, group_id=group, name=group, kind=kind
            )
        for place, stage in enumerate(STAGES):
            self.set(
                session,
                "stage_dictionary",
                project,
                stage_id=stage,
                name=f"Stage {stage}",
                group_id=GROUPS[stage],
            )
            for version in (1, 2):
                sub_key = SUBSTAGES[(place + version) % len(SUBSTAGES)]
                values = {"report_version": version, "stage_id": stage, "sub_key": sub_key}
                self.set(session, "stage_map_scd", project, **values)
        for group in ("new", "work"):
            for is_urgent in (False, True):
                self.set(
                    session,
                    "sla_stage_rules",
                    project,
                    group_id=group,
                    is_urgent=is_urgent,
                    limit_seconds=50_000 if is_urgent else 900_000,
                )
        self.set_near(session, project)
        self.set_waiting(session, project)
        self.set_urgent(session, project)
        for title, end in zip(CYCLES, ("done", "work"), strict=True):
            self.set(
                session,
                "cycle_rules",
                project,
                title=title,
                start_group_id="new",
                end_group_id=end,
                is_default=title == CYCLES[0],
            )
        self.set(
            session,
            "flow_metrics",
            project,
            title=f"1 to 5 of {project}",
            start_stage_id="1",
            end_stage_id="5",
        )
        if project in ("hours", "windows", "no_hours", "hours_end", "days", "zone"):
            self._calendar(session, project, None, None, None)
        if project in ("hours", "hours_end"):
            self._calendar(session, project, "work", None, None)
