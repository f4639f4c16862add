"""Convert and open: what comes back is what went in, to the bit."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import as_mmdet

from gcnet.cli import main
from gcnet.weights.create import create_model
from gcnet.weights.load import load_model

TINY = "mask_rcnn_tiny_gc4"


def test_convert_gives_a_file_that_knows_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    source = create_model(TINY, class_names=("a", "b"))
    theirs, ours = tmp_path / f"{TINY}.pth", tmp_path / "ours.safetensors"
    again = tmp_path / "again.safetensors"
    torch.save({"meta": {"epoch": 3}, "state_dict": as_mmdet(source)}, theirs)
    words = ["convert", str(theirs), str(ours)]
    assert main(words) == 2
    assert "--class-names" in capsys.readouterr().err
    assert main([*words, "--class-names", "cat", "dog", "owl"]) == 2
    assert "knows 2 classes, but 3 class names" in capsys.readouterr().err
    assert not ours.exists()
    assert main([*words, "--class-names", "cat", "dog"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{theirs}: {TINY}"
    assert "classes:  2: cat, dog (option)" in out.splitlines()
    assert f"next: gcnet predict {ours}" in out

    converted = load_model(ours)
    assert converted.spec == replace(source.spec, class_names=("cat", "dog"))
    assert converted.provenance["epoch"] == 3
    assert converted.provenance["sha256"] == hashlib.sha256(theirs.read_bytes()).hexdigest()
    assert main(["convert", str(ours), str(again), "--class-names", "x", "y"]) == 0
    assert load_model(again).provenance == converted.provenance

    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    expected = source.predict_images(picture, score_threshold=0.0)[0]
    assert len(expected) > 10
    for path in (theirs, ours, again):
        model = load_model(path, class_names=("cat", "dog"))
        found = model.predict_images(picture, score_threshold=0.0)[0]
        for name in ("boxes", "scores", "labels", "mask_probs"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (path, name)
