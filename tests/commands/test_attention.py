"""`gcnet attention`: what it says and writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcnet.cli import main


def test_maps_of_some_layers(
    model_file: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((shapes / "valid").glob("*.png"))
    words = ["attention", str(model_file), str(picture), "--out", str(tmp_path / "out")]
    assert main([*words, "--query", "0.2,0.3", "--layers", "c[45].*"]) == 0
    out = capsys.readouterr().out
    assert "c4.0: one map for all queries" in out
    assert "--query changes nothing" in out
    assert "2 single maps" in out
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == [
        *("c4.0.jpg", "c5.0.jpg", "sheet.jpg")
    ]
    assert main([*words, "--query", "300"]) == 2
    assert "give x,y as shares" in capsys.readouterr().err
