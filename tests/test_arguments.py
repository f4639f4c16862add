"""What the words of several commands mean: which model, where to write."""

from __future__ import annotations

import pytest

from gcnet import arguments
from gcnet.arguments import check_writable, find_weights
from gcnet.cli import main
from gcnet.errors import GCNetError

TINY = "mask_rcnn_tiny_gc4"


def test_check_writable_makes_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_run_folder_stands_for_its_best_model(tmp_path):
    with pytest.raises(GCNetError, match="not a run"):
        find_weights(str(tmp_path))
    (tmp_path / "last.safetensors").touch()
    assert find_weights(str(tmp_path)) == tmp_path / "last.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert find_weights(str(tmp_path)) == tmp_path / "best.safetensors"
    assert find_weights(str(tmp_path / "last.safetensors")) == tmp_path / "last.safetensors"
    assert find_weights(TINY) is None


def test_a_file_and_weights_contradict_each_other(tmp_path, capsys):
    (tmp_path / "best.safetensors").touch()
    assert main(["eval", str(tmp_path), "--data", "x", "--weights", "y.pth"]) == 2
    assert "leave out --weights" in capsys.readouterr().err


def test_commands_on_a_cpu_keep_freed_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(arguments, "keep_freed_memory", lambda: kept.append(True))
    arguments.load_trained("resnet_tiny", None, "cpu")
    assert kept == [True]
