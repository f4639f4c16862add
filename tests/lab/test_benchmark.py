"""What is compared is comparable; how fast it is, is not tested."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gcnet.errors import GCNetError
from gcnet.lab.benchmark import Options, peak_bytes, run_benchmark, spread, time_in_turn
from gcnet.lab.subjects import busy_detector, random_batch, saved_bytes, twin_of
from gcnet.weights.catalog import find_detector
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model

SMALL = Options(models=["mask_rcnn_tiny", "mask_rcnn_tiny_gc4"], size=(64, 96), repeats=2)


def test_times_are_taken_in_turn():
    calls: list[str] = []
    times = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3  # one round of warm-up
    assert len(times["a"]) == 2


def test_spread_is_half_the_quartiles_distance_over_the_median():
    assert spread([2.0, 2.0, 2.0]) == 0
    assert spread([1.0, 1.0, 4.0]) == pytest.approx(0.75)  # quartiles 1 and 2.5
    assert spread([3.0]) == 0


def test_report(tmp_path, capsys):
    report = run_benchmark(SMALL, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text()) == json.loads(json.dumps(report))
    assert set(report["inference"]) == {"mask_rcnn_tiny", "mask_rcnn_tiny_gc4"}
    assert report["inference"]["mask_rcnn_tiny"]["ratio"] == 1
    assert report["inference"]["mask_rcnn_tiny"]["detections"] > 0
    assert report["freed memory kept"] is False
    assert "mask_rcnn_tiny_gc4" in capsys.readouterr().out


def test_detectors_of_boxes_alone_are_timed(tmp_path):
    run_benchmark(replace(SMALL, models=["faster_rcnn_tiny"], repeats=1), tmp_path)


def test_a_model_like_that_in_a_file_is_timed(tmp_path):
    """Its structure with its own number of classes; it finds much even if the file's weights do not."""
    row = find_detector("mask_rcnn_tiny_gc4")
    save_model(create_model(row.name, class_names=("cat", "dog")), tmp_path / "mine.safetensors")
    twin = busy_detector(str(tmp_path / "mine.safetensors"))
    assert twin.spec.class_names == ("cat", "dog")
    assert twin.spec.backbone == row.spec.backbone
    report = run_benchmark(replace(SMALL, models=[str(tmp_path / "mine.safetensors")], repeats=1), tmp_path)
    assert report["inference"][str(tmp_path / "mine.safetensors")]["detections"] > 10
    save_model(create_model("resnet_tiny", class_names=("cat", "dog")), tmp_path / "other.safetensors")
    with pytest.raises(GCNetError, match="image classifier"):
        busy_detector(str(tmp_path / "other.safetensors"))


def test_training_report_counts_what_is_saved(tmp_path):
    report = run_benchmark(replace(SMALL, train=True, repeats=1), tmp_path)["training step"]
    assert report["mask_rcnn_tiny_gc4"]["saved MB"] >= report["mask_rcnn_tiny"]["saved MB"] > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells the peak")
def test_peak_memory():
    def run():
        block = torch.ones(2**24)  # 64 MiB
        del block
        return torch.ones(2**20)

    peak = peak_bytes(run, "cpu")
    assert peak is None or 60 * 2**20 < peak < 100 * 2**20


def test_saved_bytes_counts_a_storage_once():
    weight = torch.zeros(256, requires_grad=True)
    assert saved_bytes(lambda: (weight * weight).sum()) == 256 * 4


def test_rows_with_and_without_blocks_find_the_same_objects():
    batch = random_batch(1, (96, 128))
    plain, context = (busy_detector(f"mask_rcnn_tiny{word}").predict(batch)[0] for word in ("", "_gc4"))
    assert plain.boxes.equal(context.boxes)
    assert plain.scores.equal(context.scores)


def test_torchvision_computes_the_same_network():
    ours = busy_detector("mask_rcnn_r50")
    twin = twin_of(ours).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels, theirs = ours.neck(ours.backbone(image)), twin.backbone(image)
        for level, name in zip(levels, theirs, strict=True):
            torch.testing.assert_close(level, theirs[name], atol=1e-4, rtol=1e-4)
        pooled = torch.randn(5, 256, 7, 7)
        logits = ours.roi_heads.box_stages[0](pooled)[0]
        scores, _ = twin.roi_heads.box_predictor(twin.roi_heads.box_head(pooled))
    torch.testing.assert_close(scores, logits.roll(1, dims=1), atol=1e-3, rtol=1e-4)


def test_torchvision_has_no_context_blocks():
    with pytest.raises(GCNetError, match="compare mask_rcnn_r50"):
        twin_of(busy_detector("mask_rcnn_tiny_gc4"))


def test_the_scripts_that_the_page_names_exist():
    root = Path(__file__).parents[2]
    scripts = set(re.findall(r"benchmarks/\w+\.py", (root / "docs" / "performance.md").read_text()))
    assert {f"benchmarks/{path.name}" for path in (root / "benchmarks").glob("*.py")} == scripts
