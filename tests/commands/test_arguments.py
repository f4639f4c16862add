"""What the words of several commands mean: which model, where to write."""

import inspect
import subprocess
import sys
import types
from collections.abc import Sequence
from typing import Any, Literal

import pytest

import gcnet
from gcnet.cli import VERBS, main
from gcnet.commands import arguments
from gcnet.errors import GCNetError
from gcnet.files import AnyPath
from gcnet.prediction.wanted import parse_shard
from gcnet.weights.create import create_model


def test_a_file_and_weights_contradict_each_other(tmp_path, capsys):
    (tmp_path / "best.safetensors").touch()
    assert main(["eval", str(tmp_path), "--data", "x", "--weights", "y.pth"]) == 2
    assert "leave out --weights" in capsys.readouterr().err


def test_detectors_alone():
    with pytest.raises(GCNetError, match="resnet_tiny is an image classifier; this command takes detectors"):
        arguments.only_detector(create_model("resnet_tiny"))


def test_a_split_goes_by_its_folders_name_too():
    parser = arguments.Parser("eval", "", "")
    parser.add_options(gcnet.evaluate, ("split",))
    words = [[], ["--split", "val2017"], ["--split", "test"]]
    assert [parser.parse(given).split for given in words] == ["valid", "valid", "test"]


def test_a_switch_stands_alone_or_has_a_word() -> None:
    parser = arguments.Parser("eval", "", "")
    parser.add_option("--crowd", bool, "", default=False)
    parser.add_argument("model", nargs="?")
    values = [parser.parse(words).crowd for words in ([], ["--crowd"], ["--crowd", "true"])]
    assert values == [False, True, True]
    assert parser.parse(["--crowd", "false"]).crowd is False
    assert vars(parser.parse(["--crowd", "name"])) == {"crowd": True, "model": "name"}
    with pytest.raises(GCNetError, match=r"give true\|false, not maybe"):
        parser.parse(["--crowd=maybe"])


def example(
    model: "gcnet.Detector",
    images: AnyPath | Sequence[AnyPath],
    *,
    out: AnyPath | None = None,
    size: tuple[int, int] | None = None,
    kind: Literal["box", "mask"] = "box",
    draw: bool = True,
    mirror: Sequence[str] = (),
    tile: int | None = None,
    many: int = 20_000,
    **others: Any,
) -> None:
    """An example.

    Args:
        model, tile: as `gcnet.predict` takes them.
        images: files and
            folders. In Python arrays, too.
        out: where 100% of `many` go. In Python
            nowhere.
        size, kind, draw, mirror: of something.
        many: of them.
        others: more.
    """


@pytest.mark.parametrize("indentation", ["as written", "without"])  # as Python before 3.13 has it, and since
def test_help_is_found_in_docstrings_of_each_python(indentation: str) -> None:
    text = example.__doc__ if indentation == "as written" else inspect.cleandoc(example.__doc__ or "")
    other = types.FunctionType(example.__code__, {})
    other.__doc__ = text
    assert arguments.help_of(other)["images"] == "files and folders"


def test_options_are_the_arguments_of_a_function(capsys) -> None:
    parser = arguments.Parser("example", "MODEL IMAGES...", "")
    parser.add_options(example, but=("size",), defaults={"out": "there"}, tile={"metavar": "SIDE"})
    found = parser.parse(["m", "a", "b", "--mirror", "x", "--mirror", "y", "--no-draw", "--kind=mask"])
    expected = {"model": "m", "images": ["a", "b"], "out": "there", "kind": "mask", "draw": False}
    assert vars(found) == expected | {"mirror": ["x", "y"], "tile": None, "many": 20_000}
    with pytest.raises(GCNetError, match=r"argument --tile: give 1 or more, not 1.5"):
        parser.parse(["m", "a", "--tile", "1.5"])
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "usage: gcnet example MODEL IMAGES... [options]",
        "IMAGES files and folders",
        "--out PATH where 100% of --many go (there)",
        "--kind box|mask of something (box)",
        "--tile SIDE for detectors: also look at larger images",
        "--many INTEGER of them (20,000)",
    ):
        assert text in shown
    assert "arrays" not in shown


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_command_is_for_the_command_line(verb: str, capsys) -> None:
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: gcnet {verb} ")
    assert "In Python" not in shown
    assert "as `gcnet." not in shown
    assert "Sequence" not in shown


def test_what_a_parser_of_ours_says_is_told() -> None:
    parser = arguments.Parser("example", "", "")
    parser.add_option("--shard", parse_shard, "a part")
    with pytest.raises(GCNetError, match="argument --shard: give 0/4 for the first of four parts"):
        parser.parse(["--shard", "x"])


def test_without_docstrings_help_has_the_options() -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "gcnet", "train", "--help"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--batch-size" in done.stdout
