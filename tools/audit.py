"""Known vulnerabilities of the versions in constraints.txt, as pip-audit finds them.

    python tools/audit.py [CONSTRAINTS]

A package that no list of advisories could be asked about counts as not audited: silence is no good news. Exit
codes: 0, nothing is known; 1, something is; 2, in one line, that nobody could be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

SERVICES = ("pypi", "osv")  # asked in turns until one answers
PIP_AUDIT = [sys.executable, "-m", "uv", "tool", "run", "pip-audit"]
OPTIONS = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]


def ask(service: str, constraints: str) -> list[dict[str, Any]] | str:
    """What a service says of each package, or why it says nothing."""
    command = [*PIP_AUDIT, "--vulnerability-service", service, "--requirement", constraints, *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines()
        return lines[-1].partition("(")[0][:100] if lines else f"exit code {done.returncode}"
    audited = [one for one in found if "skip_reason" not in one]
    return found if audited else f"it knows none of the {len(found)} packages"


def main(argv: Sequence[str]) -> int:
    """Asks one service after the other, and reports what the first says that answers."""
    constraints = argv[0] if argv else "constraints.txt"
    failures = []
    for service in SERVICES:
        found = ask(service, constraints)
        if isinstance(found, list):
            return report(service, found)
        failures.append(f"{service}: {found}")
    print(f"nothing was audited, no list of advisories answers ({'; '.join(failures)})", file=sys.stderr)
    return 2


def report(service: str, found: Sequence[dict[str, Any]]) -> int:
    """A line for each vulnerability, and one on all."""
    known = [(one, vulnerability) for one in found for vulnerability in one.get("vulns", ())]
    for package, vulnerability in known:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, mended in {fixed}")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    left = f"; not known there: {', '.join(skipped)}" if skipped else ""
    print(f"{len(known)} known vulnerabilities in {len(found) - len(skipped)} packages, says {service}{left}")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
