"""Names of models."""

from __future__ import annotations

import pytest

from gcnet.errors import GCNetError
from gcnet.zoo.catalog import ROWS, find, list_models


def test_names_are_unique_in_all_spellings() -> None:
    spellings = [spelling for row in ROWS for spelling in (row.name, *row.upstream)]
    assert len(set(spellings)) == len(spellings)
    assert list_models() == [row.name for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_spelling_finds_its_row(row) -> None:
    for spelling in (row.name, *row.upstream):
        assert find(spelling) is row
    assert len(row.upstream) == (0 if "tiny" in row.name else 2)


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


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("mask_rcnn_r50_gc8", "did you mean mask_rcnn_r50_gc"),
        ("mask_rcnn_tny", "did you mean mask_rcnn_tiny"),
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
