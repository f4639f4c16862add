"""What the words of several commands mean: which model, where to write."""

from __future__ import annotations

import pytest

from gcnet.cli import main
from gcnet.commands import arguments
from gcnet.errors import GCNetError
from gcnet.weights.create import create_model
from gcnet.weights.fetch import find_source
from gcnet.weights.files import save_model


def test_a_file_and_weights_contradict_each_other(tmp_path, capsys):
    (tmp_path / "best.safetensors").touch()
    assert main(["eval", str(tmp_path), "--data", "x", "--weights", "y.pth"]) == 2
    assert "leave out --weights" in capsys.readouterr().err


def test_detectors_alone(tmp_path):
    save_model(create_model("resnet_tiny"), tmp_path / "c.safetensors")
    with pytest.raises(GCNetError, match="resnet_tiny is an image classifier; this command takes detectors"):
        arguments.load_detector(find_source(tmp_path / "c.safetensors"), "cpu")


def test_a_split_goes_by_its_folders_name_too():
    parser = arguments.Parser("eval", "")
    arguments.add_split(parser)
    words = [[], ["--split", "val2017"], ["--split", "test"]]
    assert [parser.parse(given).split for given in words] == ["valid", "valid", "test"]


def test_a_switch_stands_alone_or_has_a_word() -> None:
    parser = arguments.Parser("eval", "")
    parser.add_switch("--crowd", "")
    parser.add_argument("model", nargs="?")
    values = [parser.parse(words).crowd for words in ([], ["--crowd"], ["--crowd", "true"])]
    assert values == [False, True, True]
    assert parser.parse(["--crowd", "false"]).crowd is False
    assert vars(parser.parse(["--crowd", "name"])) == {"crowd": True, "model": "name"}
    with pytest.raises(GCNetError, match=r"give true\|false, not maybe"):
        parser.parse(["--crowd=maybe"])
