"""Maps of every block over an image, one for each query where they differ."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gcnet.context import GlobalContext
from gcnet.errors import GCNetError
from gcnet.lab.attention import describe, draw_attention, valid_share
from gcnet.models.spec import ContextSpec, Resize
from lively import lively_detector


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "photo.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8))
    return path


def drawings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.jpg"))


def size(path: Path) -> tuple[int, ...]:
    return cv2.imread(str(path)).shape


def test_shared_maps_are_one_file_a_block(picture: Path, tmp_path: Path) -> None:
    summary = draw_attention(lively_detector(ContextSpec(ratio=1 / 4)), picture, tmp_path)
    assert drawings(tmp_path) == ["c3.0.jpg", "c4.0.jpg", "c5.0.jpg", "sheet.jpg"]
    assert size(tmp_path / "c4.0.jpg") == (360, 600, 3)  # small pictures are enlarged, by whole factors
    assert size(summary.sheet)[1] > size(summary.sheet)[0]  # the four side by side
    assert not summary.per_query
    assert [line.split(", covers")[0] for line in summary.lines] == [
        f"c{stage}.0: one map for all queries" for stage in (3, 4, 5)
    ]


def test_maps_of_each_query_are_files_of_their_own(picture: Path, tmp_path: Path) -> None:
    model = lively_detector(ContextSpec(block="nl", stages=(False, False, True, True)))
    summary = draw_attention(model, picture, tmp_path, queries=[(0.1, 0.9), (0.9, 0.1)], layers="c4.*")
    assert drawings(tmp_path) == ["c4.0-query1.jpg", "c4.0-query2.jpg", "sheet.jpg"]
    assert summary.per_query
    assert "Jensen-Shannon" in summary.lines[0]
    first, second = (cv2.imread(str(path)).astype(int) for path in summary.files)
    assert np.abs(first - second)[300:, :100].max() > 100  # the marks
    assert np.abs(first - second)[:60, 500:].max() > 100


@pytest.mark.parametrize("sides", [(1, 5000), (5000, 1)])
def test_an_image_of_one_row_or_column_keeps_it(sides: tuple[int, int], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "thin.png"), np.full((*sides, 3), 99, np.uint8))
    model = lively_detector(ContextSpec(ratio=1 / 4))
    summary = draw_attention(model, tmp_path / "thin.png", tmp_path / "out", layers="c4.*")
    assert sorted(size(tmp_path / "out" / "c4.0.jpg")[:2]) == [1, 1333]
    assert max(size(summary.sheet)) < 2000


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


@pytest.mark.parametrize(("resize", "height"), [("opencv", 77), ("pillow", 77), ("torchvision", 76)])
def test_maps_lie_on_the_image_as_the_model_resizes_it(resize: Resize, height: int, picture: Path) -> None:
    """100 x 60 becomes 128 x 76.8, which torchvision cuts and the others round."""
    model = lively_detector(ContextSpec(stages=(False, False, False, True)), resize=resize)
    assert model.prepare(picture).image_sizes == [(height, 128)]
    assert valid_share(model, (60, 100)) == (height / 96, 1.0)


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


def test_blocks_that_see_regions_are_left_out(picture: Path, tmp_path: Path) -> None:
    detector = lively_detector(ContextSpec())
    detector.roi_heads.box_head.aggregate = GlobalContext(48)
    drawn = draw_attention(detector, picture, out=tmp_path)
    assert [line.partition(":")[0] for line in drawn.lines] == ["c3.0", "c4.0", "c5.0"]


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
    for image in (mine, picture):
        with pytest.raises(GCNetError, match=r"c4\.0\.jpg would be replaced; remove it"):
            draw_attention(lively_detector(ContextSpec()), image, tmp_path)
        assert mine.read_bytes() == picture.read_bytes()
        assert os.listdir(tmp_path) == ["c4.0.jpg"]


def test_another_call_removes_what_the_one_before_drew(picture: Path, tmp_path: Path) -> None:
    draw_attention(lively_detector(ContextSpec()), picture, tmp_path)
    (tmp_path / "c3.0.jpg").write_text("drawn on by hand")
    (tmp_path / "mine.jpg").write_text("mine")
    of_c4 = lively_detector(ContextSpec(block="nl", stages=(False, False, True, False)))
    draw_attention(of_c4, tmp_path / "c5.0.jpg", tmp_path, queries=[(0.5, 0.5)])
    assert drawings(tmp_path) == ["c3.0.jpg", "c4.0-query1.jpg", "c5.0.jpg", "mine.jpg", "sheet.jpg"]


def test_what_is_seen_is_said_in_words() -> None:
    uniform = torch.full((4, 5), 1 / 20)
    assert describe("c4.0", uniform) == "c4.0: one map for all queries, covers 100 % of the map"
    ends = torch.zeros(2, 4, 5)
    ends[0, 0, 0] = ends[1, 3, 4] = 1
    assert "covers 5 % of the map; Jensen-Shannon divergence 0.35" in describe("c4.0", ends)
    assert "no probabilities" in describe("c4.0", ends - 0.1)
