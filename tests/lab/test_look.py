"""Maps of every block over a picture, one for each query where they differ; measures over many pictures."""

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

from gcnet.context.look import BlockStatistics, mean_statistics, measure
from gcnet.errors import GCNetError
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.lab.look import (
    analyse,
    choose_images,
    describe,
    draw_attention,
    print_analysis,
    valid_share,
)
from gcnet.models.spec import ContextSpec
from lively import lively_detector


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "photo.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8))
    return path


def size(path: Path) -> tuple[int, ...]:
    return cv2.imread(str(path)).shape


def test_shared_maps_are_one_file_a_block(picture: Path, tmp_path: Path) -> None:
    summary = draw_attention(lively_detector(ContextSpec(ratio=1 / 4)), picture, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["c3.0.jpg", "c4.0.jpg", "c5.0.jpg", "sheet.jpg"]
    assert size(tmp_path / "c4.0.jpg") == (360, 600, 3)  # small pictures are enlarged, by whole factors
    assert size(summary.sheet)[1] > size(summary.sheet)[0]  # the four side by side
    assert not summary.per_query
    assert [line.split(", covers")[0] for line in summary.lines] == [
        f"c{stage}.0: one map for all queries" for stage in (3, 4, 5)
    ]


def test_maps_of_each_query_are_files_of_their_own(picture: Path, tmp_path: Path) -> None:
    model = lively_detector(ContextSpec(block="nl", stages=(False, False, True, True)))
    summary = draw_attention(model, picture, tmp_path, queries=[(0.1, 0.9), (0.9, 0.1)], layers="c4.*")
    assert sorted(os.listdir(tmp_path)) == ["c4.0-query1.jpg", "c4.0-query2.jpg", "sheet.jpg"]
    assert summary.per_query
    assert "Jensen-Shannon" in summary.lines[0]
    first, second = (cv2.imread(str(path)).astype(int) for path in summary.files)
    assert np.abs(first - second)[300:, :100].max() > 100  # the marks
    assert np.abs(first - second)[:60, 500:].max() > 100


def test_the_query_reaches_its_position_past_the_padding(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 x 60 becomes 128 x 77, padded to 128 x 96: the middle of the picture is not that of the map."""
    model = lively_detector(ContextSpec(block="nl", stages=(False, False, True, False)))
    assert valid_share(model, (60, 100)) == (77 / 96, 1.0)
    asked: list[int] = []
    pool = model.backbone.get_submodule("layer3.0.context.pool")
    original = pool.attention

    def attention(x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        asked.extend(queries.tolist())
        return original(x, queries)  # type: ignore[operator]

    monkeypatch.setattr(pool, "attention", attention)
    draw_attention(model, picture, tmp_path, queries=[(0.5, 1.0), (0.0, 0.5)])
    assert asked == [4 * 8 + 4, 2 * 8]  # of 6 x 8 positions; the last row of the picture is in the fifth


def test_large_pictures_are_shown_smaller(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.full((1000, 2000, 3), 90, np.uint8))
    model = lively_detector(ContextSpec(stages=(False, False, False, True)))
    assert size(draw_attention(model, path, tmp_path / "out").files[0]) == (666, 1333, 3)


@pytest.mark.parametrize("context", [None, ContextSpec(block="se"), ContextSpec(pooling="average")])
def test_models_without_maps_are_refused(context: ContextSpec | None, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="no context block with an attention map"):
        draw_attention(lively_detector(context), picture, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mistakes_are_said_before_anything_is_written(picture: Path, tmp_path: Path) -> None:
    model, out = lively_detector(ContextSpec()), tmp_path / "out"
    with pytest.raises(GCNetError, match=r"no block matches 'c2\.\*'; there are c3.0, c4.0, c5.0"):
        draw_attention(model, picture, out, layers="c2.*")
    with pytest.raises(GCNetError, match=r"query 3,0\.5 is not on the image"):
        draw_attention(model, picture, out, queries=[(3, 0.5)])
    with pytest.raises(GCNetError, match="does not exist"):
        draw_attention(model, tmp_path / "nowhere.jpg", out)
    assert not out.exists()


def test_the_picture_itself_is_never_replaced(picture: Path, tmp_path: Path) -> None:
    mine = tmp_path / "c4.0.jpg"
    mine.write_bytes(picture.read_bytes())
    with pytest.raises(GCNetError, match="choose another --out"):
        draw_attention(lively_detector(ContextSpec()), mine, tmp_path)
    assert mine.read_bytes() == picture.read_bytes()
    assert os.listdir(tmp_path) == ["c4.0.jpg"]


def test_what_is_seen_is_said_in_words() -> None:
    uniform = torch.full((4, 5), 1 / 20)
    assert describe("c4.0", uniform) == "c4.0: one map for all queries, covers 100 % of the map"
    ends = torch.zeros(2, 4, 5)
    ends[0, 0, 0] = ends[1, 3, 4] = 1
    assert "covers 5 % of the map; Jensen-Shannon divergence 0.35" in describe("c4.0", ends)
    assert "no probabilities" in describe("c4.0", ends - 0.1)


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


def test_models_without_blocks_are_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="mask_rcnn_tiny has no context blocks"):
        analyse(lively_detector(None), choose_images(shapes), tmp_path / "out")
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
