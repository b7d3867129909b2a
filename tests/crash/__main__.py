"""Run as ``python -m tests.crash``: see ``--help``."""

import random
import sys
from collections import Counter

import click

from tests.crash.command import ignore_stops, own_folder, stop_on_signals
from tests.crash.flawed_receivers import FLAWS
from tests.crash.rounds import Report, Scene, Stage, stage

#: Least and most seconds between two blows at the same part.
_PAUSE = (0.3, 2.0)


@click.command()
@click.option("--rounds", type=click.IntRange(min=0), default=20, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Per round."
)
@click.option(
    "--clients", type=click.IntRange(min=1), default=16, show_default=True, help="At a time."
)
@click.option("--seed", type=int, help="Of an earlier run, to play its blows again.")
@click.option("--keep", is_flag=True, help="Keep the folder with all logs.")
def main(rounds: int, seconds: float, clients: int, seed: int | None, keep: bool) -> None:
    """Kill receiver, worker and PostgreSQL under load; is all there that was acknowledged?

    First receivers with known flaws have to be found out, so that one knows that a loss would be
    seen. Then the real one has to stand all rounds. Exit code 1 if either does not hold.
    """
    stop_on_signals()
    seed = random.randrange(10**6) if seed is None else seed  # noqa: S311 - no secret
    click.echo(f"seed {seed}")
    with own_folder(keep=keep) as folder, stage(folder) as where:
        are_found = [_is_found_out(where, flaw, clients, seed) for flaw in FLAWS]
        stands = _stands(where, rounds, seconds, clients, seed)
        ignore_stops()
    sys.exit(0 if all(are_found) and stands else 1)


def _is_found_out(where: Stage, flaw: str, clients: int, seed: int) -> bool:
    with Scene(where, flaw, flaw, clients=clients, seed=seed) as scene:
        report = scene.expose()
    click.echo(
        f"a receiver that {flaw.replace('-', ' ')}: "
        + (
            f"found out, {report.lost} lost of {report.acknowledged}"
            if report.lost
            else "NOT FOUND OUT"
        )
    )
    return report.lost > 0


def _stands(where: Stage, rounds: int, seconds: float, clients: int, seed: int) -> bool:
    reports: list[Report] = []
    with Scene(where, "beaten", clients=clients, seed=seed) as scene:
        for number in range(1, rounds + 1):
            report = scene.play(seconds, _PAUSE)
            reports.append(report)
            click.echo(f"round {number}: {_figures([report])}")
            for line in report.faults.lines():
                click.echo(f"    FAULT {line}")
    if reports:
        click.echo(f"all {rounds} rounds: {_figures(reports)}")
    return not any(report.faults for report in reports)


def _figures(reports: list[Report]) -> str:
    statuses = sum((report.tally.statuses for report in reports), Counter())
    blows = sum((report.blows for report in reports), Counter())
    dealt = ", ".join(f"{kind} {times}" for kind, times in sorted(blows.items()))
    return (
        f"{sum(report.sent for report in reports)} sent"
        f" in {sum(report.tally.attempts for report in reports)} attempts,"
        f" {sum(report.acknowledged for report in reports)} acknowledged,"
        f" {sum(report.only_stored for report in reports)} stored without,"
        f" {max((report.lost for report in reports), default=0)} lost;"
        f" {statuses[503]} times 503,"
        f" {sum(report.tally.resets for report in reports)} resets,"
        f" {sum(report.tally.timeouts for report in reports)} timeouts,"
        f" slowest answer {max(report.tally.worst for report in reports):.2f} s,"
        f" settled in {max(report.settled for report in reports):.1f} s; blows: {dealt}"
    )


if __name__ == "__main__":
    main()
