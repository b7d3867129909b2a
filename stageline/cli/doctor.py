"""``stageline doctor``: shows the findings of `stageline.doctor`."""

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array, for scripts.")
def doctor(as_json: bool) -> None:
    """Say what is wrong with this machine or configuration, and how to mend it.

    Changes nothing. Exits with 1 where there is a problem.

    \b
    Example:
        stageline doctor
        stageline doctor --json
    """
    from stageline.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if as_json:
            continue
        mark = (
            click.style("ok     ", fg="green")
            if finding.is_ok
            else click.style("problem", fg="red")
        )
        click.echo(f"{mark}  {finding.check}: {finding.detail}")
        if finding.remedy and not finding.is_ok:
            click.echo(f"         -> {finding.remedy}")
    problems = sum(not finding.is_ok for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        click.echo(f"{problems} problem{'s' * (problems != 1)}." if problems else "All is well.")
    if problems:
        raise SystemExit(1)
