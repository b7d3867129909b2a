"""Tries a draft of the stage map: what reports would say under it, without publishing it.

The figures are those of the models, over temporary tables (`jobs.temporary_models`): versions of
which the draft and the one that it is compared with are published, and the visits of the chosen
deals and orders.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from jobs import temporary_models
from jobs.temporary_models import Models
from stageline.errors import StagelineError
from stageline.explain import model_named
from stageline.progress import step
from stageline.settings import canonical, report_versions
from stageline.settings.report_versions import MissingBoundary

#: Deals and orders that a draft is tried on where nothing else is said.
SAMPLE = 1000

_VISITS = "int_stage_intervals"
_VERSIONS = "base_settings__report_versions"

#: Models whose rows are compared.
_COMPARED = (
    "deal_stage_timeline",
    "major_stage_durations",
    "deal_metrics",
    "flow_stage_kpis",
    "unmapped_stage_events",
)


class Entity(NamedTuple):
    """A deal or an order."""

    source_system: str
    project_id: str
    entity_type: str
    entity_id: str


class Sides(NamedTuple):
    """A value under the published version, and under the draft."""

    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class StageChange:
    """A stage with events that mean another sub-stage; None = they are not mapped."""

    source_system: str
    project_id: str
    pipeline_id: str | None
    stage_id: str
    before: str | None
    after: str | None
    event_count: int
    entity_count: int
    first_seen_at: datetime
    last_seen_at: datetime

    @property
    def kind(self) -> str:
        """What becomes of the events: ``mapped``, ``unmapped``, or ``changed``."""
        if self.before is None:
            return "mapped"
        return "unmapped" if self.after is None else "changed"


@dataclass
class EntityChange:
    """What differs for a deal or order.

    Attributes:
        journey: Columns of ``deal_metrics`` that differ.
        major_stages: Major stage -> columns of ``major_stage_durations`` that differ.
        event_count: How many of its events mean another sub-stage.
    """

    journey: dict[str, Sides] = field(default_factory=dict)
    major_stages: dict[str, dict[str, Sides]] = field(default_factory=dict)
    event_count: int = 0

    @property
    def has_figures(self) -> bool:
        """Whether a figure differs, and not only what stages mean."""
        return bool(self.journey or self.major_stages)

    @property
    def size(self) -> tuple[int, int, bool]:
        """How much differs: seconds of the lead time, of all major stages, or any figure at all."""
        majors = [figures.get("duration_seconds") for figures in self.major_stages.values()]
        return (
            _distance(self.journey.get("e2e_seconds")),
            sum(map(_distance, majors)),
            self.has_figures,
        )


@dataclass(frozen=True)
class Card:
    """Figures of a major stage in a period, as ``flow_stage_kpis`` has them."""

    period: str
    major_key: str
    figures: Mapping[str, Sides]


@dataclass(frozen=True)
class Simulation:
    """A draft beside a published version.

    Attributes:
        versions: Their numbers.
        as_of: The instant that the figures are made for.
        missing: What the draft lacks to be published.
        known_entities: Deals and orders that it could have been tried on.
        compared_entities: Those that it was tried on and that reports show.
        stages: What stages mean that mean something else, those with most events first.
        journeys: Figures over all journeys that were compared.
        cards: Figures of each major stage in each period.
        entities: Deals and orders that differ, those that differ most first.
    """

    versions: Sides
    as_of: datetime
    missing: Sequence[MissingBoundary]
    known_entities: int
    compared_entities: int
    stages: Sequence[StageChange]
    journeys: Mapping[str, Sides]
    cards: Sequence[Card]
    entities: Mapping[Entity, EntityChange]


def versions_to_compare(version: int, against: int | None = None) -> Sides:
    """The numbers of a published version, and of the draft to compare with it.

    Args:
        version: The draft.
        against: The published version; default: the one that the draft was cloned from, if that is
            published, else the one that was published last.

    Raises:
        StagelineError: there is no such draft, or no such published version.
    """
    known = {row.report_version: row for row in report_versions.versions()}
    for number in (version, against):
        if number is not None and number not in known:
            raise StagelineError(
                f"There is no version {number}. `stageline settings versions list` shows them."
            )
    draft = known[version]
    if draft.state != "draft":
        raise StagelineError(
            f"Version {version} is {draft.state}: only a draft is tried."
            f" `stageline settings versions clone {version}` makes one of it."
        )
    if against is not None:
        if known[against].state != "published":
            raise StagelineError(
                f"Version {against} is {known[against].state}: a draft is compared with a published"
                " version. `stageline settings versions list` shows them."
            )
        return Sides(against, version)
    published = [row for row in known.values() if row.state == "published"]
    if not published:
        raise StagelineError(
            f"No version is published, so there is nothing to compare version {version} with."
            " Publish a first one with `stageline settings versions publish`."
        )
    latest = max(
        published,
        key=lambda row: (
            row.report_version == draft.cloned_from,
            row.published_at,
            row.report_version,
        ),
    )
    return Sides(latest.report_version, version)


def compile_models(as_of: datetime | None = None) -> Models:
    """The models to try drafts with; it takes dbt seconds.

    Args:
        as_of: The instant to make the figures for; default: now.

    Raises:
        StagelineError: dbt cannot compile them, or they are not such that drafts can be tried.
    """
    with step("Compile the models"):
        return temporary_models.compiled(_COMPARED, (_VISITS, _VERSIONS), as_of)


def simulate(
    versions: Sides,
    models: Models,
    *,
    entity_ids: Sequence[str] = (),
    project: tuple[str, str] | None = None,
    sample: int | None = SAMPLE,
) -> Simulation:
    """Computes a draft beside a published version, from the visits that the last build left.

    Args:
        versions: As `versions_to_compare` gives them.
        models: As `compile_models` gives them.
        entity_ids: Only these deals and orders; ``sample`` does not count then.
        project: Only those of this source and project.
        sample: How many of them, always the same ones; None = all.

    Raises:
        StagelineError: nothing is built yet, or there are no such deals and orders.
    """
    missing = report_versions.missing(versions.after)
    with step(f"Try version {versions.after}"), temporary_models.sandbox(models) as session:
        known = _choose(session, models.given[_VISITS], entity_ids, project, sample)
        _publish(session, models.given[_VERSIONS], versions)
        temporary_models.compute(session, models)
        _require_each(
            session,
            "deal_metrics",
            entity_ids,
            "is deleted or yet to begin, so that no report shows it",
        )
        journeys = _journeys(session, versions)
        ((built_at,),) = session.execute(
            "select max(updated_at) from pg_temp.deal_metrics"
        ).fetchall()
        return Simulation(
            versions=versions,
            as_of=models.as_of or built_at,
            missing=missing,
            known_entities=known,
            compared_entities=journeys["entities"].after,
            stages=_stages(session, versions),
            journeys=journeys,
            cards=_cards(session, versions),
            entities=_entities(session, versions),
        )


def _choose(
    session: psycopg.Connection[Any],
    relation: sql.Identifier,
    entity_ids: Sequence[str],
    project: tuple[str, str] | None,
    sample: int | None,
) -> int:
    """Gives the visits of the chosen deals and orders; says how many there were to choose from.

    Raises:
        StagelineError: there are none, or some of those that were asked for do not exist.
    """
    source_system, project_id = project or (None, None)
    scope = sql.SQL(
        """
        select distinct source_system, project_id, entity_type, entity_id
        from {}
        where
            (
                %(source_system)s::text is null
                or (source_system, project_id) = (%(source_system)s, %(project_id)s)
            )
            and (%(ids)s::text[] is null or entity_id = any(%(ids)s))
        """
    ).format(relation)
    given = {
        "source_system": source_system,
        "project_id": project_id,
        "ids": list(entity_ids) or None,
        "sample": None if entity_ids else sample,
    }
    # By a hash, so that the sample is spread over all that there is, and the same each time.
    session.execute(
        sql.SQL(
            """
            with chosen as (
                select *
                from ({scope}) as entities
                order by
                    md5(concat_ws('|', source_system, project_id, entity_type, entity_id)),
                    source_system, project_id, entity_type, entity_id
                limit %(sample)s
            )
            insert into {given}
            select visits.*
            from {relation} as visits
            inner join chosen using (source_system, project_id, entity_type, entity_id)
            """
        ).format(scope=scope, given=sql.Identifier("pg_temp", _VISITS), relation=relation),
        given,
    )
    ((known,),) = session.execute(
        sql.SQL("select count(*) from ({}) as entities").format(scope), given
    ).fetchall()
    where = f" of {source_system} {project_id}" if project else ""
    _require_each(session, _VISITS, entity_ids, f"is no deal or order{where} of the last build")
    if known == 0:
        raise StagelineError(
            f"There are no events{where} to try a draft on, as of the last build."
            " Load some, then run `stageline build`."
        )
    return int(known)


def _publish(session: psycopg.Connection[Any], relation: sql.Identifier, versions: Sides) -> None:
    """Gives the two versions, as published ones."""
    given = sql.Identifier("pg_temp", _VERSIONS)
    session.execute(
        sql.SQL("insert into {} select * from {} where report_version = any(%s)").format(
            given, relation
        ),
        [list(versions)],
    )
    session.execute(sql.SQL("update {} set state = 'published'").format(given))


def _require_each(
    session: psycopg.Connection[Any], table: str, entity_ids: Sequence[str], otherwise: str
) -> None:
    """Raises StagelineError if the table lacks one of the ids; ``otherwise`` is what that means."""
    found = session.execute(
        sql.SQL("select distinct entity_id from {}").format(sql.Identifier("pg_temp", table))
    )
    lacking = sorted(set(entity_ids) - {entity_id for (entity_id,) in found})
    if lacking:
        raise StagelineError(f"{lacking[0]!r} {otherwise}.")


#: ``percentile_cont`` interpolates in floating point; rounded as the models do it.
_JOURNEYS = """
with

journeys as (
    select
        deal_metrics.*,
        case when e2e_seconds > 0 then total_stage_seconds end as stage_share,
        case when e2e_seconds > 0 then covered_seconds end as covered_share,
        case when e2e_working_seconds > 0 then active_working_seconds end as active_share
    from pg_temp.deal_metrics
),

unmapped_stages as (
    select report_version, count(*) as unmapped_stages
    from pg_temp.unmapped_stage_events
    group by report_version
)

select
    report_version,
    count(*) as entities,
    count(finished_at) as finished,
    count(e2e_seconds) as complete,
    count(*) filter (where excluded_reason = 'impossible duration') as impossible_durations,
    {durations},
    round(100 * sum(stage_share) / nullif(sum(e2e_seconds), 0), 2) as flow_efficiency_pct,
    round(100 * sum(covered_share) / nullif(sum(e2e_seconds), 0), 2) as covered_pct,
    round(100 * sum(active_share) / nullif(sum(e2e_working_seconds), 0), 2) as active_pct,
    round(100 * sum(unmapped_visits) / nullif(sum(visits), 0), 2) as unmapped_pct,
    coalesce(max(unmapped_stages), 0) as unmapped_stages
from journeys
left join unmapped_stages using (report_version)
group by report_version
"""

_DURATIONS = """
    round(avg({clock}), 0)::bigint as {avg},
    round(round(percentile_cont(0.5) within group (order by {clock})::numeric, 4), 0)::bigint
        as {p50},
    round(round(percentile_cont(0.85) within group (order by {clock})::numeric, 4), 0)::bigint
        as {p85},
    round(round(percentile_cont(0.95) within group (order by {clock})::numeric, 4), 0)::bigint
        as {p95}
"""


def _journeys(session: psycopg.Connection[Any], versions: Sides) -> dict[str, Sides]:
    durations = sql.SQL(",").join(
        sql.SQL(_DURATIONS).format(
            clock=sql.Identifier(f"e2e_{clock}"),
            **{
                figure: sql.Identifier(f"{figure}_{clock}")
                for figure in ("avg", "p50", "p85", "p95")
            },
        )
        for clock in ("seconds", "working_seconds")
    )
    with session.cursor(row_factory=dict_row) as cursor:
        cursor.execute(sql.SQL(_JOURNEYS).format(durations=durations))
        figures = {row.pop("report_version"): row for row in cursor.fetchall()}
    if not figures:
        raise StagelineError("No report shows any of these: they are deleted, or yet to begin.")
    before, after = (figures[version] for version in versions)
    return {name: Sides(before[name], after[name]) for name in after}


def _cards(session: psycopg.Connection[Any], versions: Sides) -> list[Card]:
    rows = dict(
        _beside(session, "flow_stage_kpis", ("period", "major_key"), versions, only_other=False)
    )
    return [
        Card(period, major.major_key, rows[period, major.major_key])
        for period in canonical.periods()
        for major in canonical.majors()
    ]


_REMAPPED = sql.SQL(
    """
    select
        source_system, project_id, entity_type, entity_id, after.pipeline_id, after.stage_id,
        after.entered_at, before.sub_key as before, after.sub_key as after
    from pg_temp.deal_stage_timeline as before
    inner join pg_temp.deal_stage_timeline as after
        using (source_system, project_id, entity_type, entity_id, visit_number)
    where
        before.report_version = %(before)s
        and after.report_version = %(after)s
        and before.sub_key is distinct from after.sub_key
    """
)


def _stages(session: psycopg.Connection[Any], versions: Sides) -> list[StageChange]:
    with session.cursor(row_factory=class_row(StageChange)) as cursor:
        cursor.execute(
            sql.SQL(
                """
                select
                    source_system, project_id, pipeline_id, stage_id, before, after,
                    count(*) as event_count,
                    count(distinct (entity_type, entity_id)) as entity_count,
                    min(entered_at) as first_seen_at,
                    max(entered_at) as last_seen_at
                from ({}) as remapped
                group by source_system, project_id, pipeline_id, stage_id, before, after
                order by
                    event_count desc, source_system, project_id, pipeline_id, stage_id, before,
                    after
                """
            ).format(_REMAPPED),
            versions._asdict(),
        )
        return cursor.fetchall()


def _entities(session: psycopg.Connection[Any], versions: Sides) -> dict[Entity, EntityChange]:
    found: defaultdict[Entity, EntityChange] = defaultdict(EntityChange)
    for key, figures in _beside(session, "deal_metrics", Entity._fields, versions):
        found[Entity(*key)].journey = figures
    majors = (*Entity._fields, "major_key")
    for key, figures in _beside(session, "major_stage_durations", majors, versions):
        found[Entity(*key[:-1])].major_stages[key[-1]] = figures
    for *key, event_count in session.execute(
        sql.SQL(
            """
            select source_system, project_id, entity_type, entity_id, count(*)
            from ({}) as remapped
            group by source_system, project_id, entity_type, entity_id
            """
        ).format(_REMAPPED),
        versions._asdict(),
    ):
        found[Entity(*key)].event_count = event_count
    by_size = sorted(found.items(), key=lambda item: (*(-part for part in item[1].size), item[0]))
    return dict(by_size)


def _beside(
    session: psycopg.Connection[Any],
    model: str,
    key: Sequence[str],
    versions: Sides,
    *,
    only_other: bool = True,
) -> Iterator[tuple[tuple[str, ...], dict[str, Sides]]]:
    """The figures of a model under both versions, by its key; only those that differ, or all."""
    figures = [
        name
        for name, meta in model_named(model).columns.items()
        if meta["unit"] != "label" and name != "updated_at"
    ]

    def of(side: str) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(side, name) for name in figures)

    query = sql.SQL(
        """
        select {key}, {before}, {after}
        from (select * from {table} where report_version = %(before)s) as before
        full join (select * from {table} where report_version = %(after)s) as after using ({key})
        where not %(only_other)s or ({before}) is distinct from ({after})
        """
    ).format(
        key=sql.SQL(", ").join(map(sql.Identifier, key)),
        before=of("before"),
        after=of("after"),
        table=sql.Identifier("pg_temp", model),
    )
    for row in session.execute(query, {**versions._asdict(), "only_other": only_other}):
        values = row[len(key) :]
        sides = map(Sides, values[: len(figures)], values[len(figures) :])
        yield (
            row[: len(key)],
            {
                name: both
                for name, both in zip(figures, sides, strict=True)
                if not only_other or both.before != both.after
            },
        )


def _distance(sides: Sides | None) -> int:
    """By how much a duration differs; one that is only there on one side, by all of it."""
    return 0 if sides is None else abs((sides.after or 0) - (sides.before or 0))
