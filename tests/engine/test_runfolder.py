"""Metrics as rows, curves as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from gcnet.engine.loggers import MetricsFile, read_metrics
from gcnet.engine.runfolder import draw_curves, own_split
from gcnet.engine.task import AP_NAMES
from gcnet.errors import GCNetError


def test_rows_survive_a_resume_up_to_its_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsFile(path, scores=AP_NAMES)
    for iteration in (10, 20, 30):
        log.write(iteration, "train", {"loss": 1 / iteration})
        log.write(iteration, "valid", dict.fromkeys(AP_NAMES, iteration / 100) | {"box_AP75": -1.0})
    with open(path, "a") as file:
        file.write("20,0.3,0.2,0.2,0.2,0.2,0.2,0.")  # torn: a number that looks whole
    again = MetricsFile(path, scores=AP_NAMES, start=20)
    assert again.best("mask_AP") == pytest.approx(0.2)
    assert again.validated(20)
    assert not again.validated(30)
    again.write(30, "train", {"loss": 7.0})
    rows = read_metrics(path)
    assert [row["iteration"] for row in rows] == [10, 10, 20, 20, 30]
    assert rows[-1]["loss"] == 7.0
    assert math.isnan(rows[1]["box_AP75"])  # nothing to measure against


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", 0),
        (b"iteration,lo", 0),
        (b"no,header\n1,2\n", 0),
        (b"iteration,loss\n10,0.5\n20,0x1\n30,0.25\n", 2),
        (b"iteration,loss\n10,0.5\n\xff\xfe,\x00\n", 1),
        (b"iteration,loss\n10,0.5,7\n10,0.5\n", 1),
    ],
)
def test_a_damaged_file_is_kept_beside(tmp_path: Path, capsys: Any, content: bytes, kept: int) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    log = MetricsFile(path, scores=AP_NAMES, start=100)
    assert len(log.rows) == kept
    log.write(110, "train", {"loss": 1.0})
    assert len(read_metrics(path)) == kept + 1
    damaged = tmp_path / "metrics.csv.damaged"
    assert damaged.exists() == (content.count(b"\n") > 1)
    assert ("kept as metrics.csv.damaged" in capsys.readouterr().out) == damaged.exists()


def test_rows_that_a_full_disk_did_not_take_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsFile(path, scores=AP_NAMES)
    log.write(10, "train", {"loss": 1.0})
    log.path = tmp_path / "full" / "metrics.csv"  # no such folder: as good as no room
    for _ in range(2):
        with pytest.raises((OSError, GCNetError)):
            log.write(20, "train", {"loss": 0.5})
    path.write_text(path.read_text() + "20,0.")  # what a disk may take before it is full
    log.path = path
    log.write(30, "train", {"loss": 0.25})
    assert [row["iteration"] for row in read_metrics(path)] == [10, 20, 20, 30]


def test_a_fresh_log_has_no_best(tmp_path: Path) -> None:
    log = MetricsFile(tmp_path / "metrics.csv", scores=AP_NAMES)
    assert (log.best("mask_AP"), log.since_best("mask_AP")) == (-1, 0)
    assert read_metrics(log.path) == []


def test_curves_are_drawn(tmp_path: Path) -> None:
    draw_curves(tmp_path / "none.csv", tmp_path / "empty.png", AP_NAMES)
    log = MetricsFile(tmp_path / "metrics.csv", scores=AP_NAMES)
    log.write(1, "train", {"loss": 1.0, "loss_cls": 0.5})
    log.write(1, "valid", dict.fromkeys(AP_NAMES, 0.5))
    draw_curves(log.path, tmp_path / "curves.png", AP_NAMES)
    for name in ("empty.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_split_of_a_run_is_that_of_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, data = tmp_path / "run", tmp_path / "photos"
    out.mkdir()
    (out / "recipe.yaml").write_text(f"data: {data}\nannotations: null\n")
    assert own_split(out, data) is None
    (out / "split.json").write_text("{}")
    (out / "best.safetensors").touch()
    assert own_split(out, data) == own_split(out / "best.safetensors", data) == out / "split.json"
    assert own_split(out, tmp_path / "others") is None
    monkeypatch.chdir(out)
    assert own_split(Path("mask_rcnn_r50"), data) is None  # a model by its name is none of this run
