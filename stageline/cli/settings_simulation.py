"""``stageline settings simulate``: what a draft of the stage map would change."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from stageline.cli.build import require_migrations
from stageline.cli.instants import instant
from stageline.cli.settings_tables import counted, show_or_say, written
from stageline.cli.tables import Column, show
from stageline.errors import StagelineError
from stageline.settings import canonical
from stageline.settings.durations import written_duration

if TYPE_CHECKING:
    from jobs.map_simulation import EntityChange, Sides, Simulation

#: Rows of the tables whose length nobody foresees.
_SHOWN = 20

_SECONDS_OF_DAY = 86_400

#: Figures over all journeys, in the order in which they are shown.
_JOURNEYS = {
    "entities": "deals and orders",
    "finished": "finished",
    "complete": "with a lead time",
    "impossible_durations": "with impossible instants",
    "avg_seconds": "lead time, mean",
    "p50_seconds": "lead time, median",
    "p85_seconds": "lead time, p85",
    "p95_seconds": "lead time, p95",
    "avg_working_seconds": "working lead time, mean",
    "p50_working_seconds": "working lead time, median",
    "p85_working_seconds": "working lead time, p85",
    "p95_working_seconds": "working lead time, p95",
    "flow_efficiency_pct": "flow efficiency, %",
    "covered_pct": "covered by major stages, %",
    "active_pct": "active work, %",
    "unmapped_pct": "unmapped events, %",
    "unmapped_stages": "unmapped stages",
}

#: The same for a major stage in a period.
_CARDS = {
    "deals": "deals",
    "avg_seconds": "mean",
    "p50_seconds": "median",
    "p85_seconds": "p85",
    "best_seconds": "best",
    "worst_seconds": "worst",
    "trend_pct": "trend, %",
}


@click.command(short_help="Show what a draft would change, without publishing it.")
@click.option(
    "--version", "version", type=int, metavar="N", required=True, help="The draft to try."
)
@click.option(
    "--against",
    type=int,
    metavar="N",
    help="The published version to compare it with; else the one that it was cloned from, or the"
    " one published last.",
)
@click.option(
    "--entity", "entity_ids", multiple=True, metavar="ID", help="Only this deal or order; several."
)
@click.option(
    "--project",
    nargs=2,
    metavar="SOURCE PROJECT",
    help="Only those of this project, as in: --project keycrm shop-1.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many to try it on, always the same ones; 1000 if nothing is said.",
)
@click.option("--all", "is_all", is_flag=True, help="Try it on all of them.")
@click.option(
    "--period",
    default="12m",
    show_default=True,
    metavar="PERIOD",
    help="Of the major stages: 7d, 14d, 1m, 3m, 6m or 12m.",
)
@click.option(
    "--as-of",
    metavar="INSTANT",
    callback=instant,
    help="Make the numbers of this instant: ISO 8601, UTC where no zone is given.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or everything as JSON.",
)
def simulate(
    version: int,
    against: int | None,
    entity_ids: tuple[str, ...],
    project: tuple[str, str] | None,
    sample: int | None,
    is_all: bool,
    period: str,
    as_of: datetime | None,
    form: str,
) -> None:
    """Show what a draft would change, without publishing it.

    The models are computed for some deals and orders under the draft and a published version,
    from the events of the last build: which stages become mapped or unmapped, which deals differ
    and by how much, and the figures of reports before and after. Nothing is written. The code of
    exit is 0 whether or not something differs.

    \b
    Example:
        stageline settings simulate --version 2
        stageline settings simulate --version 2 --project keycrm shop-1 --all --period 3m
        stageline settings simulate --version 2 --entity 4711 --entity 4712
        stageline settings simulate --version 2 --all --format json > changes.json
    """
    from jobs import map_simulation

    if sum((bool(entity_ids), sample is not None, is_all)) > 1:
        raise StagelineError("Give one of --entity, --sample and --all.", exit_code=2)
    periods = canonical.periods()
    if period not in periods:
        raise StagelineError(
            f"There is no period {period!r}. There are: {', '.join(periods)}.", exit_code=2
        )
    require_migrations()
    versions = map_simulation.versions_to_compare(version, against)
    found = map_simulation.simulate(
        versions,
        map_simulation.compile_models(as_of),
        entity_ids=entity_ids,
        project=project,
        sample=None if is_all else sample or map_simulation.SAMPLE,
    )
    if found.missing:
        click.echo(
            f"warning: version {version} cannot be published yet: no stage is mapped to "
            + ", ".join(f"{one.sub_key} ({one.end} of {one.major_key})" for one in found.missing)
            + ".",
            err=True,
        )
    if form == "json":
        click.echo(json.dumps(_as_json(found), ensure_ascii=False, indent=2, default=_plain))
    else:
        show_simulation(found, period)


def show_simulation(found: "Simulation", period: str) -> None:
    """Shows a simulation as tables, of the major stages the cards of one period."""
    before, after = found.versions
    click.echo(
        f"Version {after} beside version {before}, as of {written(found.as_of)}:"
        f" {found.compared_entities:,} of {found.known_entities:,} deals and orders."
    )
    _show_stages(found)
    click.echo("")
    show(
        [Column("all journeys"), Column("before", is_number=True), Column("after", is_number=True)],
        [
            (title, *(_text(name, value) for value in found.journeys[name]))
            for name, title in _JOURNEYS.items()
        ],
    )
    click.echo("")
    show(
        [Column("major stage"), *(Column(title, is_number=True) for title in _CARDS.values())],
        [
            (card.major_key, *(_both(name, card.figures[name]) for name in _CARDS))
            for card in found.cards
            if card.period == period
        ],
        f"Major stages left in the last {period}",
    )
    click.echo("")
    _show_entities(found)
    click.echo(
        f"\nNothing was changed. `stageline settings versions publish {after}` publishes the draft."
    )


def _show_stages(found: "Simulation") -> None:
    click.echo("")
    show_or_say(
        [
            *(Column(title) for title in ("becomes", "source", "project", "pipeline", "stage")),
            Column("before"),
            Column("after"),
            Column("events", is_number=True),
            Column("deals", is_number=True),
            Column("first seen"),
            Column("last seen"),
        ],
        [
            (
                stage.kind,
                stage.source_system,
                stage.project_id,
                stage.pipeline_id or "",
                stage.stage_id,
                stage.before or "",
                stage.after or "",
                f"{stage.event_count:,}",
                f"{stage.entity_count:,}",
                written(stage.first_seen_at),
                written(stage.last_seen_at),
            )
            for stage in found.stages[:_SHOWN]
        ],
        "Every event means what it meant.",
    )
    _tell_rest(len(found.stages))


def _show_entities(found: "Simulation") -> None:
    by_figures = sum(change.has_figures for change in found.entities.values())
    click.echo(
        f"{counted(by_figures, 'deal or order differs', 'deals and orders differ')} in a figure,"
        f" {len(found.entities) - by_figures} only in what events mean."
    )
    if not found.entities:
        return
    show(
        [
            *(Column(title) for title in ("source", "project", "kind", "id")),
            Column("lead time", is_number=True),
            Column("flow efficiency, %", is_number=True),
            Column("events", is_number=True),
            Column("major stages"),
        ],
        [
            (
                *entity,
                *(
                    _both(name, change.journey[name]) if name in change.journey else ""
                    for name in ("e2e_seconds", "flow_efficiency_pct")
                ),
                f"{change.event_count:,}",
                _major_stages(change),
            )
            for entity, change in list(found.entities.items())[:_SHOWN]
        ],
    )
    _tell_rest(len(found.entities))


def _tell_rest(count: int) -> None:
    if count > _SHOWN:
        click.echo(f"... and {count - _SHOWN:,} more: --format json has all of them.")


def _major_stages(change: "EntityChange") -> str:
    """The major stages that differ, with their durations where these do."""
    return ", ".join(
        f"{major_key} {_both('duration_seconds', figures['duration_seconds'])}"
        if "duration_seconds" in figures
        else major_key
        for major_key, figures in sorted(change.major_stages.items())
    )


def _both(name: str, sides: "Sides") -> str:
    """A figure before and after; once where it stays."""
    before, after = (_text(name, value) for value in sides)
    return before if before == after else f"{before} -> {after}"


def _text(name: str, value: Any) -> str:
    """A figure as its name says: a duration in days, hours and minutes, or a number."""
    if value is None:
        return "none"
    if name.endswith("_seconds"):
        days, rest = divmod(value, _SECONDS_OF_DAY)
        return f"{days}d {written_duration(rest)}" if days else written_duration(rest)
    return f"{value:,}"


def _as_json(found: "Simulation") -> dict[str, Any]:
    return {
        "version": found.versions.after,
        "against": found.versions.before,
        "as_of": found.as_of,
        "missing": [asdict(boundary) for boundary in found.missing],
        "known_entities": found.known_entities,
        "compared_entities": found.compared_entities,
        "stages": [{"becomes": stage.kind, **asdict(stage)} for stage in found.stages],
        "journeys": _sides(found.journeys),
        "major_stages": [
            {"period": card.period, "major_key": card.major_key, **_sides(card.figures)}
            for card in found.cards
        ],
        "entities": [
            {
                **entity._asdict(),
                "event_count": change.event_count,
                "journey": _sides(change.journey),
                "major_stages": {
                    major_key: _sides(figures) for major_key, figures in change.major_stages.items()
                },
            }
            for entity, change in found.entities.items()
        ],
    }


def _sides(figures: Mapping[str, "Sides"]) -> dict[str, dict[str, Any]]:
    return {name: sides._asdict() for name, sides in figures.items()}


def _plain(value: Any) -> float | str:
    """A value that JSON has no form of its own for."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{value!r} cannot be written as JSON")
