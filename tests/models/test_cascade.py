"""The stages of a cascade: each starts where the last ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnet.models.heads import BoxHead
from gcnet.models.pooler import with_images
from gcnet.models.regions import sample_regions
from gcnet.models.roi_heads import RoIHeads
from gcnet.models.spec import CascadeSpec, RoISpec
from gcnet.types import Batch, Targets

STRIDES = (4, 8, 16, 32)
STDS = CascadeSpec().stds
NO_BOXES = torch.zeros(0, 4)
SMALL = RoISpec(box_channels=16, mask_channels=8, mask_convs=1, batch_size=16)
BATCH = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(120, 128)], [(120, 128)], [0])


def first(marked: Tensor, limit: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A sampler that takes what comes first."""
    order = (~marked).byte().argsort(dim=1, stable=True)[:, :size]
    return order, marked.gather(1, order) & (torch.arange(order.shape[1]) < limit[:, None])


def cascade(loss_weights: Sequence[float] = (1.0, 0.5, 0.25)) -> RoIHeads:
    torch.manual_seed(0)
    stages = CascadeSpec(loss_weights=tuple(loss_weights))
    heads = RoIHeads(4, 3, SMALL, stages)
    heads.sample = first
    return heads


def say(heads: RoIHeads, *, deltas: Sequence[float] = (0, 0, 0, 0)) -> None:
    """Every box head gives the same deltas, whatever it sees."""
    with torch.no_grad():
        for head in heads.box_stages:
            head.deltas.weight.zero_()
            head.deltas.bias.copy_(torch.tensor(deltas))


def features() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 4, 128 // stride, 128 // stride) for stride in STRIDES]


def objects(count: int) -> Targets:
    boxes = torch.tensor([[10.0, 12, 60, 80], [70, 30, 120, 90]])[:count]
    outlines = [[np.array([[a, b], [c, b], [c, d]])] for a, b, c, d in boxes.tolist()]
    return Targets(boxes, torch.tensor([2, 0])[:count], outlines)


def test_prediction_refines_with_every_stage() -> None:
    heads = cascade().eval()
    say(heads, deltas=(1, 0, 0, 0))
    biases = torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.6]])
    with torch.no_grad():
        for bias, box_head, mask_head in zip(biases, heads.box_stages, heads.mask_stages, strict=True):
            box_head.cls.weight.zero_()
            box_head.cls.bias.copy_(bias)
            mask_head.logits.weight.zero_()
            mask_head.logits.bias.fill_(float(bias.sum()))
        found = heads.predict(features(), [torch.tensor([[10.0, 20, 50, 60]])], BATCH.image_sizes, 0.3)[0]
    # 40 pixels wide, and moved by each stage's own share of that
    shift = 40 * (0.1 + 0.05 + 0.033)
    torch.testing.assert_close(found.boxes, torch.tensor([[10 + shift, 20, 50 + shift, 60]]))
    assert found.labels.tolist() == [0]
    torch.testing.assert_close(found.scores, torch.tensor([1.0, 0, 0, 0.2]).softmax(0)[:1])
    mean = torch.tensor([3.0, 0, 0.6]).sigmoid().mean().item()
    torch.testing.assert_close(found.mask_probs, torch.full((1, 28, 28), mean))


def test_refined_boxes_stay_in_the_image() -> None:
    box, delta = torch.tensor([[100.0, 100, 120, 118]]), torch.tensor([[[9.0, 9, 0, 0]]])
    refined = cascade()._refine(0, with_images([box]), delta, BATCH.image_sizes)
    torch.testing.assert_close(refined, torch.tensor([[118, 116.2, 128, 120]]))


def test_the_objects_own_boxes_are_not_handed_on() -> None:
    heads = cascade()
    say(heads, deltas=(1, 0, 0, 0))
    near, far, same = [8.0, 10, 58, 80], [0.0, 90, 20, 110], [10.0, 12, 60, 80]
    regions = heads.sample_regions(0, [torch.tensor([near, far, same])], [objects(2)])
    _, deltas = heads.box_stages[0](heads.pool(features(), regions.rois, size=7))
    proposals = heads._next_proposals(0, regions, deltas.detach(), BATCH)
    # A proposal that happens to be an object's box stays: it is the network's own.
    expected = torch.tensor([near, same, far]) + torch.tensor([[5.0, 0, 5, 0], [5, 0, 5, 0], [2, 0, 2, 0]])
    torch.testing.assert_close(proposals[0][proposals[0].any(dim=1)], expected)
    assert not proposals[0].requires_grad


@pytest.mark.parametrize("proposals", [NO_BOXES, torch.tensor([[8.0, 10, 58, 80], [0, 0, 20, 20]])])
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_propose_or_to_find(proposals: Tensor, count: int) -> None:
    heads = cascade()
    losses = heads.losses(features(), [proposals], [objects(count)], BATCH)
    names = ("loss_cls", "loss_box", "loss_mask")
    assert set(losses) == {f"s{stage}.{name}" for stage in range(3) for name in names}
    assert all(loss.isfinite() for loss in losses.values())
    if count == 0:
        assert all(loss == 0 for name, loss in losses.items() if not name.endswith("cls"))
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())


def test_prediction_without_proposals() -> None:
    with torch.no_grad():
        found = cascade().eval().predict(features(), [NO_BOXES], BATCH.image_sizes, 0.0)[0]
    assert found.boxes.shape == (0, 4)
    assert found.mask_probs.shape == (0, 28, 28)


@pytest.mark.parametrize("ious", [(), (0.5, 0.6), (0.5, 0.6, 0.7, 0.8)])
def test_stages_are_whole(ious: tuple[float, ...]) -> None:
    """A fourth one without a weight would never be trained, and its logits would count."""
    with pytest.raises(ValueError, match="each stage of a cascade has its IoU, its weight"):
        RoIHeads(8, 3, RoISpec(), CascadeSpec(ious=ious))


def test_loss_weights() -> None:
    proposals = torch.tensor([[8.0, 10, 58, 80], [0, 0, 20, 20]])
    plain, weighted = (
        cascade(weights).losses(features(), [proposals], [objects(2)], BATCH)
        for weights in ((1.0, 1.0, 1.0), (1.0, 0.5, 0.25))
    )
    for name, loss in plain.items():
        torch.testing.assert_close(weighted[name], loss * {"s0": 1, "s1": 0.5, "s2": 0.25}[name[:2]])


@pytest.mark.parametrize(("iou", "labels"), [(0.5, [2, 2, 3]), (0.7, [2, 3, 3])])
def test_stricter_stages_have_fewer_positives(iou: float, labels: list[int]) -> None:
    proposals = torch.tensor([[10.0, 12, 60, 53], [100, 100, 120, 120]])  # the first overlaps by 0.603
    regions = sample_regions(
        [proposals],
        [objects(1)],
        replace(SMALL, positive_fraction=0.5),
        background=3,
        iou=iou,
        low_quality=False,
        stds=STDS[0],
        sample=first,
    )
    assert regions.labels.tolist() == labels
    assert regions.given.tolist() == [True, False, False]
    assert regions.positive.tolist() == [label == 2 for label in labels]


def test_class_agnostic_deltas() -> None:
    torch.manual_seed(0)
    head = BoxHead(4, 3, replace(SMALL, smooth_l1_beta=1.0), class_agnostic=True)
    logits, deltas = head(torch.randn(5, 4, 7, 7))
    assert logits.shape == (5, 4)
    assert deltas.shape == (5, 1, 4)
    wanted = torch.tensor([[0.5, 0, 0, 0], [0, -3.0, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9], [9, 9, 9, 9]])
    for labels in ([0, 2, 3, 3, 3], [1, 1, 3, 3, 3]):  # which class does not matter
        loss = head.losses(logits, torch.zeros(5, 1, 4), torch.tensor(labels), wanted)["loss_box"]
        assert loss.item() == pytest.approx((0.5 * 0.5**2 + (3.0 - 0.5)) / 5)  # a square, then a line
    with pytest.raises(RuntimeError):
        BoxHead(4, 3, SMALL).losses(logits, torch.zeros(5, 1, 4), torch.tensor([1, 2, 3, 3, 3]), wanted)
