"""Measures of every block over many images."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from gcnet.context import GlobalContext
from gcnet.context.look import BlockStatistics, mean_statistics, measure
from gcnet.errors import GCNetError
from gcnet.lab.analysis import analyse, choose_images, print_analysis
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.models.spec import ContextSpec
from lively import lively_detector


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_context_shapes(tmp_path_factory.mktemp("shapes"), train=4, valid=5)


def test_shared_attention_comes_out_as_exactly_independent(shapes: Path, tmp_path: Path) -> None:
    model = lively_detector(ContextSpec(ratio=1 / 4))
    model.train()
    result = analyse(model, choose_images(shapes), tmp_path, progress=False)
    assert model.training
    assert sorted(os.listdir(tmp_path)) == ["analysis.json", "analysis.png"]
    written = json.loads((tmp_path / "analysis.json").read_text())
    assert written == result
    assert [(block["title"], block["kind"]) for block in written["blocks"]] == [
        (f"c{stage}.0", "GlobalContext") for stage in (3, 4, 5)
    ]
    for block in written["blocks"]:
        assert (block["context"], block["attention"], block["jsd"]) == (0, 0, 0)
        assert block["input"] > 0.01
        assert 0 < block["share"] < 1
    assert (written["images"], written["failed"]) == (5, [])
    assert cv2.imread(str(tmp_path / "analysis.png")).std() > 10


def test_query_dependent_attention_does_not(shapes: Path, tmp_path: Path) -> None:
    model = lively_detector(ContextSpec(block="nl"))
    paths = choose_images(shapes, count=2)
    result = analyse(model, paths, tmp_path, queries=16, progress=False)
    for block in result["blocks"]:
        assert block["jsd"] > 1e-5
        assert block["queries"] <= 16
    model.eval()
    with measure(model, queries=16) as found, torch.no_grad():
        for path in paths:
            model.features(model.prepare(path))
    expected = {name: asdict(mean_statistics(images)) for name, images in found.items()}
    assert all(block | expected[block["name"]] == block for block in result["blocks"])
    assert len(expected) == len(result["blocks"])


def test_pictures_of_a_folder_or_of_a_split(shapes: Path, tmp_path: Path) -> None:
    assert len(choose_images(shapes)) == 5
    assert [path.parent.name for path in choose_images(shapes, split="train")] == ["train"] * 4
    folder = choose_images(shapes)[0].parent
    assert choose_images(folder) == sorted(folder.glob("*.png"))
    assert [path.name for path in choose_images(folder, count=2)] == ["00001.png", "00003.png"]
    assert len(choose_images(folder, count=99)) == 5
    assert set(choose_images(folder / "_annotations.coco.json")) < set(choose_images(folder))
    with pytest.raises(GCNetError, match="no split 'test'; it has train, valid"):
        choose_images(shapes, split="test")
    with pytest.raises(GCNetError, match="holds no data set"):
        choose_images(tmp_path)


def test_broken_pictures_are_reported_and_left_out(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_text("no picture")
    paths = [tmp_path / "broken.jpg", choose_images(shapes)[0]]
    result = analyse(lively_detector(ContextSpec()), paths, tmp_path / "out")
    assert (result["images"], [Path(each["file_name"]).name for each in result["failed"]]) == (
        1,
        ["broken.jpg"],
    )
    assert "skipped: " in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out" / "analysis.json").read_text())["failed"]) == 1
    with pytest.raises(GCNetError, match=r"none of the 1 images could be read: .*broken\.jpg"):
        analyse(lively_detector(ContextSpec()), paths[:1], tmp_path / "none", progress=False)


def test_what_was_measured_survives_the_end_of_the_run(shapes: Path, tmp_path: Path) -> None:
    model, calls = lively_detector(ContextSpec()), []

    def stop_at_the_third(neck: object, inputs: object) -> None:
        calls.append(neck)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model.neck.register_forward_pre_hook(stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        analyse(model, choose_images(shapes), tmp_path, progress=False)
    assert json.loads((tmp_path / "analysis.json").read_text())["images"] == 3


@pytest.mark.parametrize("in_heads", [False, True])
def test_models_without_blocks_are_refused(in_heads: bool, shapes: Path, tmp_path: Path) -> None:
    detector = lively_detector(None)
    if in_heads:  # which look at regions
        detector.roi_heads.box_head.aggregate = GlobalContext(48)
    with pytest.raises(GCNetError, match="mask_rcnn_tiny has no context blocks"):
        analyse(detector, choose_images(shapes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_table_fits_a_terminal_and_tells_nothing_from_nearly_nothing() -> None:
    one = BlockStatistics(100, 100, 0.4012, 0.0, 0.3, 2.34e-5, None, 0.0456)
    analysis = {"model": "m", "images": 7, "blocks": [{"title": "c4.0", "kind": "NonLocal", **asdict(one)}]}
    text = io.StringIO()
    print_analysis(analysis, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    (row,) = [line.split() for line in lines if line.strip().startswith("c4.0")]
    assert row == ["c4.0", "NL", "0.401", "0", "0.300", "2e-05", "-", "4.6", "%"]


def test_pictures_differ_so_their_numbers_do(shapes: Path, tmp_path: Path) -> None:
    model = lively_detector(ContextSpec())
    first, second = (
        analyse(model, [path], tmp_path / path.stem, progress=False)["blocks"]
        for path in choose_images(shapes, count=2)
    )
    assert first != second
    assert np.isfinite([block["input"] or 0 for block in first]).all()


PAGE = Path(__file__).parents[2] / "docs" / "looking-in.md"


def test_the_page_s_python_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    training, network = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(network, names)
    for name, size in re.findall(r'maps\["(.*?)"\]\.shape  # \((.*?)\)', network):
        assert str(tuple(names["maps"][name].shape)) == f"({size})"
    assert "1.pool" in names["maps"]
    assert capsys.readouterr().out.count("BlockStatistics(") == 2
    compile(training, str(PAGE), "exec")


def test_the_page_s_pictures_exist() -> None:
    pictures = re.findall(r"\]\((figures/.*?)\)", PAGE.read_text())
    assert len(pictures) == 4
    assert all((PAGE.parent / picture).is_file() for picture in pictures)
