"""Finds in the files under version control what belongs to one machine or one network only.

The lock names packages by name, version and hash: a package index is each user's own choice. Paths
of the machine that a file was written on mean nothing on another one.

    python tests/lint/tracked_files.py [CHECKOUT]

Prints ``file:line: what was found`` and fails if there is anything to print.
"""

import re
import subprocess
import sys
from pathlib import Path

#: Put together here, so that this file does not find itself.
PATTERN = re.compile(
    "|".join(
        (
            "--(extra-)?index" + "-url|--find" + "-links|--trusted" + "-host",
            "pypi" + r"\.org|files\.python" + r"hosted|/sim" + "ple/",
            r"(?<![\w.$}])/(work|root|home|Users|opt|tmp)" + r"/[\w.]+",
            "ghp" + r"_\w{20,}|-----BEGIN [A-Z ]*PRIVATE" + " KEY",
        )
    )
)
#: Words that are meant as they stand: file -> what may stand in it.
MEANT = {"Makefile": re.compile(r"--no-emit-(index" + "-url|find" + "-links)")}


def lint(checkout: Path) -> list[str]:
    """One line for each finding in the tracked files of ``checkout``."""
    listed = subprocess.run(
        ["git", "-C", str(checkout), "ls-files", "-z"],  # noqa: S607  (the git on the PATH)
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    findings: list[str] = []
    for name in filter(None, listed.split("\0")):
        path = checkout / name
        if not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        meant = MEANT.get(name)
        for number, line in enumerate(text.splitlines(), start=1):
            match = PATTERN.search(meant.sub("", line) if meant else line)
            if match:
                findings.append(f"{name}:{number}: {match.group()}")
    return findings


def main() -> int:
    """Prints the findings of a checkout; 1 if there are any."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    findings = lint(checkout)
    for finding in findings:
        print(finding)
    print(
        f"{len(findings)} to mend" if findings else "no address of an index, no path of a machine"
    )
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
