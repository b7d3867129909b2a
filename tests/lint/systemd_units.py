"""Checks the systemd units in ``deploy/systemd``.

    python tests/lint/systemd_units.py [FILE ...]

systemd ignores a setting whose name it does not know, also one that was to protect. So each has to
be one of those below; one that is new here has to be added. Where this machine has systemd, its own
``systemd-analyze verify`` reads the units as well.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"

#: Settings by section, as systemd 252 and newer have them.
KNOWN = {
    "Unit": {"After", "Description", "Documentation", "Wants"},
    "Service": {
        *("CapabilityBoundingSet", "DynamicUser", "Environment", "EnvironmentFile", "ExecStart"),
        *("KillMode", "LoadCredential", "LockPersonality", "MemoryMax", "NoNewPrivileges"),
        *("PrivateDevices", "PrivateTmp", "ProtectClock", "ProtectControlGroups", "ProtectHome"),
        *("ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules"),
        *("ProtectKernelTunables", "ProtectProc", "ProtectSystem", "RemainAfterExit", "Restart"),
        *("RestartSec", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime"),
        *("RestrictSUIDSGID", "RuntimeDirectory", "StateDirectory", "SystemCallArchitectures"),
        *("SystemCallFilter", "TasksMax", "TimeoutStopSec", "Type", "UMask", "WorkingDirectory"),
    },
    "Install": {"WantedBy"},
}

#: What a machine on which nothing is installed makes systemd say.
_NOT_INSTALLED = re.compile(r"Command /srv/\S+ is not executable: No such file or directory")


def settings(text: str) -> list[tuple[int, str, str, str]]:
    """Line, section, name and value of each setting; a line that is none has no name."""
    section, found = "", []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
            continue
        name, _, value = line.partition("=")
        found.append((number, section, name if "=" in line else "", value))
    return found


def lint(path: Path) -> list[str]:
    """One line for each mistake in a unit."""
    return [
        f"{path.name}:{number}: {name or 'not a setting'} is not known in section [{section}]"
        for number, section, name, _ in settings(path.read_text())
        if name not in KNOWN.get(section, set())
    ]


def verified(paths: list[Path]) -> list[str]:
    """What systemd says about the units; nothing where there is none."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return []
    said = subprocess.run(
        [program, "verify", *map(str, paths)], capture_output=True, text=True, check=False
    ).stderr
    names = tuple(path.name for path in paths)
    return [
        line
        for line in said.splitlines()
        if any(name in line for name in names) and not _NOT_INSTALLED.search(line)
    ]


def main() -> int:
    """Prints the findings; 1 if there are any."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(UNITS.glob("*.service"))
    findings = [finding for path in paths for finding in lint(path)] + verified(paths)
    for finding in findings:
        print(finding)
    print(f"{len(findings)} to mend" if findings else f"{len(paths)} units, every setting known")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
