"""Detections as the objects of other libraries."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gcnet.errors import GCNetError
from gcnet.ops.masks import edges_at_once
from gcnet.types import Detections

NAMES = ("ring", "star")


def found(masks: bool = True) -> Detections:
    boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0], [8.0, 8.0, 20.0, 24.0]])
    probs = torch.ones(2, 28, 28) if masks else None
    return Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), probs, (30, 40))


def test_a_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = found().to_dataframe(NAMES)
    assert list(frame.columns) == ["label", "class_name", "score", "x1", "y1", "x2", "y2"]
    assert frame.class_name.tolist() == ["star", "ring"]
    assert frame.loc[1, "y2"] == 24
    assert "class_name" not in found().arrays().to_dataframe()


@pytest.mark.parametrize("keep", [slice(None), slice(0, 0)])
def test_supervision(keep: slice) -> None:
    pytest.importorskip("supervision")
    ours = found()[keep]
    theirs = ours.to_supervision(NAMES)
    np.testing.assert_array_equal(theirs.xyxy, ours.boxes.numpy())
    np.testing.assert_array_equal(np.asarray(theirs.mask), ours.masks.numpy())
    assert theirs.data["class_name"].tolist() == ["star", "ring"][keep]
    assert found(masks=False).to_supervision().mask is None


def test_edges_that_a_gpu_found_are_those_of_the_chosen_objects() -> None:
    plain = found()
    edges = edges_at_once(plain.mask_probs, plain.boxes, plain.image_size)
    ours = replace(plain, edges=edges)
    assert ours.arrays().encoded() == plain.arrays().encoded()
    for keep in (slice(1, None), torch.tensor([False, True]), torch.tensor([1]), slice(0, 0)):
        assert ours[keep].rles() == plain[keep].rles()
        chosen = keep if isinstance(keep, slice) else keep.numpy()
        assert ours.arrays()[chosen].encoded() == plain[keep].arrays().encoded()
    assert found(masks=False).arrays().encoded() is None


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(GCNetError, match="pip install pandas"):
        found().to_dataframe()
