"""What the words of several commands mean: which model, where to write."""

from __future__ import annotations

import pytest
import torch

from gcnet.cli import main
from gcnet.commands import arguments
from gcnet.commands.arguments import check_writable, choose_device, fetch_weights, find_weights
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


def test_weights_may_be_a_run_folder(tmp_path):
    (tmp_path / "best.safetensors").touch()
    assert fetch_weights(TINY, str(tmp_path), []) == str(tmp_path / "best.safetensors")
    assert fetch_weights(TINY, "imagenet", []) == "imagenet"


def test_commands_on_a_cpu_keep_freed_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(arguments, "keep_freed_memory", lambda: kept.append(True))
    arguments.load_trained("resnet_tiny", None, "cpu")
    assert kept == [True]


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    for word, reason in (
        ("cuda:1", "sees no CUDA device"),
        ("gpu", "no such device"),
        ("cuda:x", "no such device"),
    ):
        with pytest.raises(GCNetError, match=reason):
            choose_device(word)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(GCNetError, match="sees 2, the first is cuda:0"):
        choose_device("cuda:2")


def test_a_split_goes_by_its_folders_name_too():
    parser = arguments.Parser("eval", "")
    arguments.add_split(parser)
    words = [[], ["--split", "val2017"], ["--split", "test"]]
    assert [parser.parse_args(given).split for given in words] == ["valid", "valid", "test"]
