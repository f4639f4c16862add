"""`make audit` tells silence from good news."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))
import audit

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def answer(*packages: dict[str, Any]) -> str:
    return f"import sys; print({json.dumps(json.dumps({'dependencies': packages}))})"


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        (answer(GOOD, SKIPPED), 0, "0 known vulnerabilities in 1 packages, says pypi; not known there: c\n"),
        (answer(GOOD, BAD), 1, "b 2: X-1, mended in 2.1\n1 known vulnerabilities in 2 packages, says pypi\n"),
        (
            answer(SKIPPED),
            2,
            "nothing was audited, no list of advisories answers (pypi: it knows none of the 1",
        ),
        ("raise ConnectionError('no route')", 2, "nothing was audited, no list .*ConnectionError: no route"),
    ],
)
def test_what_is_said(
    program: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "PIP_AUDIT", [sys.executable, "-c", program])
    assert audit.main([]) == code
    printed = capsys.readouterr()
    line = printed.out + printed.err
    assert said in line or all(part in line for part in said.split(".*"))
    assert code != 2 or line.count("\n") == 1
