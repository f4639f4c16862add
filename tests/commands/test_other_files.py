"""Files of others in the folder that a command writes in: they stay, and it says so before it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcnet.cli import main
from gcnet.lab.context_shapes import CLASS_NAMES
from gcnet.weights.create import create_model
from gcnet.weights.files import save_model


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("analyse {model} --data {data} --out {out}", "analysis.png"),
        ("benchmark {model} --size 64x64 --device cpu --out {out}", "benchmark.json"),
        ("compare {model} {model} --data {data} --out {out}", "compare.html"),
        ("data {data} --out {out}/a.json", "a.json"),
        ("demo --out {out}", "predictions.png"),
        ("demo --out {out}", "demo.json"),
        ("eval {model} --data {data} --out {out}", "metrics.json"),
        ("eval {model} --data {data} --out {out}/e --report {out}", "report.html"),
        ("export {model} --to openvino --out {out}/model.xml", "model.bin"),
        ("predict {model} {photo} --out {out}", "images.json"),
        ("predict {model} {photo} --out {out} --format jsonl", "results-00000.jsonl"),
    ],
)
def test_they_stay(
    words: str, name: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = tmp_path / "out", tmp_path / "model.safetensors"
    save_model(create_model("mask_rcnn_tiny_gc4", class_names=CLASS_NAMES), model)
    out.mkdir()
    (out / name).write_text("mine")
    names = {"model": model, "data": shapes, "photo": shapes / "valid" / "00001.png", "out": out}
    assert main([word.format(**names) for word in words.split()]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert name in said or words.startswith("demo")
    assert (out / name).read_text() == "mine"
    assert {path.name for path in out.iterdir()} <= {name, "e"}
