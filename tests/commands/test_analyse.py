"""`gcnet analyse`: what it says and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcnet.cli import main


def test_some_pictures(
    model_file: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["analyse", str(model_file), "--data", str(shapes), "--out", str(tmp_path / "out")]
    assert main([*words, "--images", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 images of mask_rcnn_tiny" in out
    assert "c4.0    GC" in out
    assert (tmp_path / "out" / "analysis.json").exists()
    assert main([*words, "--queries", "1"]) == 2
    assert "--queries: give 2 or more, not 1" in capsys.readouterr().err
    assert main([*words, "--split", "tset"]) == 2
    assert "no split 'tset'" in capsys.readouterr().err
