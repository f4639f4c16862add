"""Names of models."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.weights.catalog import CLASSIFIERS, ROWS, find, list_models

# The addresses letter by letter; the catalog derives them from the names.
with open(Path(__file__).parent / "published.csv", newline="") as _file:
    PUBLISHED = list(csv.DictReader(_file))


def test_names_are_unique_in_all_spellings() -> None:
    spellings = [spelling for row in (*ROWS, *CLASSIFIERS) for spelling in (row.name, *row.upstream)]
    assert len(set(spellings)) == len(spellings)
    assert list_models() == [row.name for row in (*ROWS, *CLASSIFIERS)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_spelling_finds_its_row(row) -> None:
    for spelling in (row.name, *row.upstream):
        assert find(spelling) is row
    assert len(row.upstream) == (2 if row.weights else 1 if "4conv1fc" in row.name else 0)


@pytest.mark.parametrize(
    ("name", "v2", "v3", "box", "mask"),
    [
        ("mask_rcnn_r50", "mask_rcnn_r50_fpn_1x_coco", "mask-rcnn_r50_fpn_1x_coco", 38.2, 34.7),
        (
            "mask_rcnn_r50_gc16",
            "mask_rcnn_r50_fpn_r16_gcb_c3-c5_1x_coco",
            "mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco",
            39.7,
            35.9,
        ),
        (
            "mask_rcnn_r101_syncbn_gc4",
            "mask_rcnn_r101_fpn_syncbn-backbone_r4_gcb_c3-c5_1x_coco",
            "mask-rcnn_r101-syncbn-gcb-r4-c3-c5_fpn_1x_coco",
            42.2,
            37.8,
        ),
        (
            "mask_rcnn_r50_syncbn",
            "mask_rcnn_r50_fpn_syncbn-backbone_1x_coco",
            "mask-rcnn_r50-syncbn_fpn_1x_coco",
            38.4,
            34.6,
        ),
    ],
)
def test_published_rows(name: str, v2: str, v3: str, box: float, mask: float) -> None:
    row = find(name)
    assert row.upstream == (v2, v3)
    assert (row.box_ap, row.mask_ap) == (box, mask)
    assert row.spec.backbone.norm == ("sync" if "syncbn" in name else "frozen_stats")
    assert row.spec.backbone.blocks == ((3, 4, 23, 3) if "r101" in name else (3, 4, 6, 3))
    assert row.spec.backbone.frozen_stages == 2
    context = row.spec.backbone.context
    assert (1 / context.ratio if context else None) == (
        16 if "gc16" in name else 4 if "gc4" in name else None
    )


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published["name"])
def test_addresses_of_weights(published: dict[str, str]) -> None:
    weights = find(published["name"]).weights
    assert weights is not None
    assert (weights.url, weights.sha256) == (published["url"], published["sha256"])
    assert weights.file == published["url"].split("/")[-1]


def test_which_rows_have_weights() -> None:
    assert len(PUBLISHED) == 19
    with_weights = {row.name for row in ROWS if row.weights}
    assert with_weights == {published["name"] for published in PUBLISHED} | {"mask_rcnn_r50"}
    assert all(row.upstream and row.box_ap and row.mask_ap for row in ROWS if row.weights)
    assert all(row.weights is None and row.box_ap is None for row in ROWS if "tiny" in row.name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_number_of_parameters(row) -> None:
    with torch.device("meta"):
        detector = Detector(row.spec)
    assert round(sum(parameter.numel() for parameter in detector.parameters()) / 1e6, 2) == row.params


@pytest.mark.parametrize(
    ("name", "memory", "fps"),
    [
        ("mask_rcnn_r50_gc16", 5.0, None),
        ("mask_rcnn_r101_gc4", 7.8, 11.6),
        ("mask_rcnn_x101_syncbn_gc4", 9.0, 9.7),
        ("cascade_mask_rcnn_x101_syncbn", 9.2, 8.4),
        ("cascade_mask_rcnn_x101_syncbn_dcn", None, None),
    ],
)
def test_published_memory_and_speed(name: str, memory: float | None, fps: float | None) -> None:
    assert (find(name).memory_gb, find(name).fps) == (memory, fps)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("mask_rcnn_r50_gc8", 'did you mean "mask_rcnn_r50_gc'),
        ("mask_rcnn_tny", 'did you mean "mask_rcnn_tiny'),
        ("Mask_RCNN_R50", "mask_rcnn_r50"),
        ("qqqq", "`gcnet models` lists them"),
        ("", "`gcnet models` lists them"),
    ],
)
def test_wrong_names_get_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(GCNetError) as raised:
        find(wrong)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)
