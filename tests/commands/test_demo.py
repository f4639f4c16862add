"""`gcnet demo`: its pictures alone. The demo itself: tests/test_demo.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcnet.cli import main
from gcnet.lab import context_classes


def test_the_puzzle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    real = context_classes.write_context_classes
    monkeypatch.setattr(
        context_classes,
        "write_context_classes",
        lambda folder, *, seed: real(folder, train=3, valid=3, seed=seed),
    )
    assert main(["demo", "--puzzle-only", str(tmp_path / "puzzle")]) == 0
    assert {path.name for path in (tmp_path / "puzzle" / "train").iterdir()} <= {*context_classes.CLASS_NAMES}
