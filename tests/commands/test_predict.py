"""`gcnet predict` with other people's checkpoints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from foreign_files import as_mmdet

from gcnet.cli import main
from gcnet.weights.create import create_model
from gcnet.weights.load import load_model


def test_a_file_that_does_not_name_its_classes_is_converted_as_the_message_says(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": as_mmdet(create_model("mask_rcnn_tiny_gc4", num_classes=2))}, "old.pth")
    words = [str(next(shapes.glob("valid/*.png"))), "--device", "cpu"]
    assert main(["predict", "old.pth", *words]) == 2
    (advice,) = re.findall("`gcnet (.*)`", capsys.readouterr().err)
    assert main(shlex.split(advice.replace("OUT", "old").replace("NAME ...", "cat dog"))) == 0
    assert load_model("old.safetensors").spec.class_names == ("cat", "dog")
    assert main(["predict", "old.safetensors", *words]) == 0
