"""`gcnet demo`: its images alone. The demo itself: tests/lab/test_demo.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcnet.cli import main
from gcnet.lab import context_shapes


def test_the_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = context_shapes.write_context_shapes
    monkeypatch.setattr(
        context_shapes,
        "write_context_shapes",
        lambda folder, *, seed: real(folder, train=2, valid=1, seed=seed, size=96),
    )
    assert main(["demo", "--data-only", str(tmp_path / "shapes")]) == 0
    assert len(list((tmp_path / "shapes" / "train").glob("*.png"))) == 2


def test_a_seed_below_zero_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--seed", "-1", "--out", str(tmp_path / "demo")]) == 2
    assert "--seed: give 0 or more, not -1" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
