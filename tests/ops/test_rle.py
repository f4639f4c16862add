"""Run-length encodings without drawing, against the masks drawn and encoded by pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor

from gcnet.ops import rle as module
from gcnet.ops.masks import paste_masks
from gcnet.ops.rle import encode_masks

SIZE = (90, 120)


def drawn(probs: Tensor, box: Tensor, size: tuple[int, int]) -> bytes:
    mask = paste_masks(probs[None], box[None], size)[0]
    return coco_mask.encode(np.asfortranarray(mask.numpy().view(np.uint8)))["counts"]


def encoded(probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[bytes]:
    return encode_masks(probs.numpy(), boxes.numpy(), size)


@settings(deadline=None, max_examples=300)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 40)),
    st.tuples(*[st.floats(-6, 16, width=32)] * 4),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    st.integers(1, 6),
    st.booleans(),
)
def test_encoded_is_what_is_drawn(
    size: tuple[int, int], box: tuple[float, ...], seed: int, filled: float, grid: int, binary: bool
) -> None:
    """Small images, so that masks touch borders, fill columns, and are empty or whole; many ties."""
    (x1, x2), (y1, y2) = sorted(box[:2]), sorted(box[2:])
    where = torch.tensor([x1, y1, x2, y2])
    probs = torch.rand(grid, grid, generator=torch.Generator().manual_seed(seed))
    probs = (probs < filled).float() if binary else probs
    assert encoded(probs[None], where[None], size) == [drawn(probs, where, size)]


@pytest.mark.parametrize("height", [30, 300, 3000])
def test_cells_of_many_pixels(height: int) -> None:
    """Where a cell is taller than two pixels, its inside is searched, not sampled."""
    generator = torch.Generator().manual_seed(height)
    corner = torch.rand(20, 2, generator=generator) * torch.tensor([20.0, height / 5])
    boxes = torch.cat(
        [corner, corner + torch.rand(20, 2, generator=generator) * torch.tensor([30, height])], 1
    )
    probs = torch.rand(20, 28, 28, generator=generator)
    probs[:5] = torch.linspace(0.499999, 0.500001, 28)[:, None]  # rounding decides
    size = (height, 40)
    expected = [drawn(p, b, size) for p, b in zip(probs, boxes, strict=True)]
    assert encoded(probs, boxes, size) == expected
    assert len({len(text) for text in expected}) > 10


@pytest.mark.parametrize("box", [[-50.0, -50, 170, 140], [10.0, -50, 60, 140], [-50.0, 20, 170, 50]])
def test_across_the_whole_image(box: list[float]) -> None:
    probs = torch.stack([torch.ones(28, 28), torch.rand(28, 28, generator=torch.Generator().manual_seed(0))])
    boxes = torch.tensor([box, box])
    assert encoded(probs, boxes, SIZE) == [drawn(p, b, SIZE) for p, b in zip(probs, boxes, strict=True)]


def test_a_mask_of_everything_and_one_of_nothing() -> None:
    boxes = torch.tensor([[-99.0, -99, 300, 300], [5.0, 5, 5, 40]])
    counts = encoded(torch.ones(2, 28, 28), boxes, SIZE)
    areas = [coco_mask.area({"size": list(SIZE), "counts": text}) for text in counts]
    assert areas == [90 * 120, 0]
    assert encoded(torch.zeros(0, 28, 28), torch.zeros(0, 4), SIZE) == []


def test_only_outlines_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 24 megapixels no array is larger than the rows at the cells' borders."""
    sizes: list[int] = []
    original = module.sample_columns

    def spy(*arguments: object) -> np.ndarray:
        values = original(*arguments)  # type: ignore[arg-type]
        sizes.append(values.size)
        return values

    monkeypatch.setattr(module, "sample_columns", spy)
    boxes = torch.tensor([[1000.0, 1000, 1040, 1030], [0.0, 0, 6000, 4000]])
    encoded(torch.ones(2, 28, 28), boxes, (4000, 6000))
    assert sizes == [30 * 42, 30 * 6000]
