"""What the words of several commands mean: which model, where to write."""

from __future__ import annotations

import pytest
import torch

from gcnet.cli import main
from gcnet.commands import arguments
from gcnet.commands.arguments import check_writable, choose_device
from gcnet.errors import GCNetError
from gcnet.weights.create import create_model
from gcnet.weights.fetch import find_source
from gcnet.weights.files import save_model


def test_check_writable_makes_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_file_and_weights_contradict_each_other(tmp_path, capsys):
    (tmp_path / "best.safetensors").touch()
    assert main(["eval", str(tmp_path), "--data", "x", "--weights", "y.pth"]) == 2
    assert "leave out --weights" in capsys.readouterr().err


def test_commands_on_a_cpu_keep_freed_memory(model_file, monkeypatch):
    kept = []
    monkeypatch.setattr(arguments, "keep_freed_memory", lambda: kept.append(True))
    arguments.load_trained(find_source(model_file), "cpu")
    assert kept == [True]


def test_detectors_alone(tmp_path):
    save_model(create_model("resnet_tiny"), tmp_path / "c.safetensors")
    with pytest.raises(GCNetError, match="resnet_tiny is an image classifier; this command takes detectors"):
        arguments.load_detector(find_source(tmp_path / "c.safetensors"), "cpu")


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
