"""`gcnet video`: what it says and writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcnet.cli import main


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for number in range(8):
        writer.write(np.roll(noise, number, 1))
    writer.release()
    return path


def test_a_video_without_objects(
    model_file: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackers")
    out = tmp_path / "out"
    words = ["video", str(model_file), str(clip), "--out", str(out), "--every", "2"]
    assert main([*words, "--score-threshold", "0.99"]) == 0
    said = capsys.readouterr()
    assert f"0 tracks in 4 frames: {out / 'objects.jsonl'} and {out / 'drawn.mp4'}" in said.out
    rows = [json.loads(line) for line in (out / "objects.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 2, 4, 6]
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert main([*words, "--no-draw", "--score-threshold", "0.99"]) == 1
    assert "of 8 frames: it is damaged or cut short" in capsys.readouterr().err


def test_what_is_missing_is_one_line(
    model_file: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    words = ["video", str(model_file), str(clip), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "pip install 'gcnet[video]'" in capsys.readouterr().err
    assert main([*words[:2], "nothing.mp4"]) == 2
    assert "nothing.mp4 is no file" in capsys.readouterr().err
