"""Anchors, pooling and the two stages, most of all where there is nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from gcnet.context import GeneralizedAttention
from gcnet.models import postprocess, regions
from gcnet.models.heads import Aggregate
from gcnet.models.pooler import (
    lay_out,
    pool_everywhere,
    pool_regions,
    region_levels,
    with_images,
)
from gcnet.models.postprocess import select_detections, select_static
from gcnet.models.roi_heads import RoIHeads
from gcnet.models.rpn import RPN, inside_image, inside_padded, level_anchors
from gcnet.models.spec import (
    AggregateSpec,
    CascadeSpec,
    ContextSpec,
    Coordinates,
    RoISpec,
    RPNSpec,
    SoftNMSSpec,
)
from gcnet.ops.boxes import as_limits, box_area
from gcnet.ops.mask_targets import draw_outlines
from gcnet.ops.matching import BACKGROUND, IGNORED
from gcnet.types import Batch, Targets

CPU = torch.device("cpu")
STRIDES = (4, 8, 16, 32)
NO_BOXES = torch.zeros(0, 4)
SMALL = RoISpec(box_channels=16, mask_channels=8, mask_convs=1, batch_size=16)


def test_anchors_of_a_level() -> None:
    anchors = level_anchors((2, 3), 16, RPNSpec(), CPU)
    assert anchors.shape == (2 * 3 * 3, 4)
    torch.testing.assert_close(box_area(anchors), torch.full((18,), 128.0**2))
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    torch.testing.assert_close((height / width).view(6, 3), torch.tensor([[0.5, 1, 2]]).repeat(6, 1))
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).view(6, 3, 2)[:, 0]
    assert centres.tolist() == [[0, 0], [16, 0], [32, 0], [0, 16], [16, 16], [32, 16]]


def test_anchors_of_several_scales_go_by_ratio_then_scale() -> None:
    """As mmdetection's AnchorGenerator has them with `scale_major`."""
    spec = RPNSpec(anchor_scale=(2.0, 4.0), anchor_ratios=(1.0, 4.0))
    anchors = level_anchors((1, 1), 8, spec, CPU)
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    assert width.tolist() == [16, 32, 8, 16]
    assert height.tolist() == [16, 32, 32, 64]


def test_anchors_beyond_an_image_s_own_padding_do_not_count() -> None:
    sizes = [(32, 32), (16, 16)]
    flags = inside_padded(sizes, [4, 8], as_limits([(60, 97)], CPU))[0]  # padded to 64 x 128
    first, second = flags.split([32 * 32 * 3, 16 * 16 * 3])
    assert first.view(32, 32, 3)[:16, :32].all()
    assert first.sum() == 16 * 32 * 3
    assert second.sum() == 8 * 16 * 3


def test_anchors_that_reach_out_of_the_image_can_be_left_out() -> None:
    anchors = torch.tensor([[0.0, 0, 9, 9], [-1, 0, 9, 9], [0, -1, 9, 9], [0, 0, 20, 9], [0, 0, 9, 10]])
    assert inside_image(anchors, as_limits([(10, 20)], CPU))[0].tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("side", "level"), [(1, 0), (55, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (5000, 3)]
)
def test_levels_by_side(side: float, level: int) -> None:
    box = torch.tensor([[10.0, 10, 10 + side, 10 + side]])
    assert region_levels(box, 4, 56).item() == level


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 12), st.integers(0, 5), st.integers(0, 100))
def test_pooling_keeps_the_order_of_regions(first: int, second: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(2, 4, 128 // s, 128 // s, generator=generator) for s in STRIDES]
    boxes = []
    for count in (first, second):
        corner = torch.rand(count, 2, generator=generator) * 60
        boxes.append(torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 200], dim=1))
    pooled = pool_regions(features, with_images(boxes), strides=STRIDES, size=7, finest_scale=28)
    assert pooled.shape == (first + second, 4, 7, 7)
    for index, (image, box) in enumerate([(i, b) for i, group in enumerate(boxes) for b in group]):
        level = int(region_levels(box[None], 4, 28))
        alone = roi_align(features[level][image, None], [box[None]], 7, 1 / STRIDES[level], 0, True)
        torch.testing.assert_close(pooled[index], alone[0])


@pytest.mark.parametrize("coordinates", ["continuous", "inclusive", "torchvision"])
def test_pooling_at_all_levels_is_pooling_level_by_level(coordinates: Coordinates) -> None:
    """With static shapes regions without area are zeros."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 4, 128 // s, 128 // s, generator=generator) for s in STRIDES]
    corner = torch.rand(30, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + torch.rand(30, 2, generator=generator) ** 2 * 400], dim=1)
    regions = with_images([boxes[:10], boxes[10:]])
    levels = region_levels(boxes, 4, 28)
    assert len(levels.unique()) == 4
    options = {"strides": STRIDES, "size": 7, "finest_scale": 28, "coordinates": coordinates}
    pooled, ours = (pool_regions(features, regions, **options, static=static) for static in (True, False))
    torch.testing.assert_close(pooled, ours)


@pytest.mark.parametrize("static", [False, True])
def test_levels_are_summed(static: bool) -> None:
    """Each through the same convolution and ReLU, and then a context block (arXiv 2004.13665, section 3)."""
    torch.manual_seed(0)
    features = [torch.randn(2, 8, 128 // s, 96 // s) for s in STRIDES]
    regions = torch.tensor([[0, 3.0, 5, 60, 90], [1, 40, 40, 47, 44], [1, 0, 0, 96, 128]])
    spec = AggregateSpec(3, ContextSpec(block="ga", heads=2, terms="0100", mirrored=True))
    aggregate = Aggregate(8, spec)
    assert isinstance(aggregate.before, nn.Conv2d)
    assert isinstance(aggregate.context, GeneralizedAttention)
    nn.init.constant_(aggregate.context.add.factor, 0.5)
    nn.init.normal_(aggregate.before.bias)
    levels = pool_everywhere(features, regions, strides=STRIDES, size=7, samples=2, static=static)
    with torch.no_grad():
        ours = aggregate(levels)
        parts = [
            F.conv2d(roi_align(x, regions, 7, 1 / s, 2, True), aggregate.before.weight, padding=1)
            for x, s in zip(features, STRIDES, strict=True)
        ]
        total = sum((part + aggregate.before.bias[:, None, None]).relu() for part in parts)
        torch.testing.assert_close(ours, aggregate.context(total))
    with pytest.raises(ValueError, match="of 4 cells a side"):
        Aggregate(8, AggregateSpec(4))


def test_pooling_from_a_mosaic_is_pooling_level_by_level() -> None:
    """Also at the edges of the image, where a level's neighbours in the mosaic must not show."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 4, 128 // s, 96 // s, generator=generator) for s in STRIDES]
    corner, size = (torch.rand(40, 2, generator=generator) for _ in range(2))
    boxes = torch.cat([corner * 60, corner * 60 + size**2 * 100], dim=1).clamp(max=96)
    edges = [
        [0, 0, 96, 128],
        [0, 0, 3, 128],
        [90, 2, 96, 30],
        [0, 127, 96, 128],
        [0, 0, 0, 0],
        [50, 60, 96, 128],
    ]
    regions = with_images([boxes, torch.tensor(edges, dtype=torch.float32)])
    options = {"strides": STRIDES, "size": 7, "finest_scale": 7}
    assert len(region_levels(regions[:, 1:], 4, 7).unique()) == 4
    for one in features:
        one.requires_grad_()
    ours, theirs = (pool_regions(maps, regions, **options) for maps in (lay_out(features), features))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    weights = torch.randn(ours.shape, generator=generator)
    gradients = [torch.autograd.grad((pooled * weights).sum(), features) for pooled in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)
    halves = pool_regions(lay_out([one.half() for one in features]), regions, **options)
    assert halves.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pooling_at_all_levels_keeps_boxes_exact_in_half_precision(dtype: torch.dtype) -> None:
    """A map that says where it is: in bfloat16 a box at 1213 would start at 1216."""
    slope = (torch.arange(320.0) - 306)[None, None, None].expand(1, 1, 8, -1) / 4
    regions = torch.tensor([[0.0, 1213.5, 5, 1241.5, 27]])
    halves, full = (
        pool_regions([slope.to(kind)], regions, strides=[4], size=7, finest_scale=56, static=True)
        for kind in (dtype, torch.float32)
    )
    assert halves.dtype == dtype
    torch.testing.assert_close(halves.float(), full, rtol=0, atol=0.01)


def heads(**changes: object) -> RoIHeads:
    torch.manual_seed(0)
    return RoIHeads(4, 3, replace(SMALL, **changes))


def features() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 4, 128 // stride, 128 // stride, requires_grad=True) for stride in STRIDES]


def objects(count: int) -> Targets:
    boxes = torch.tensor([[10.0, 12, 60, 80], [70, 30, 120, 90]])[:count]
    masks = [[np.array([[a, b], [c, b], [c, d]])] for a, b, c, d in boxes.tolist()]
    drawn = draw_outlines(masks, boxes.numpy())
    assert drawn is not None
    return Targets(boxes, torch.tensor([2, 0])[:count], masks, *map(torch.from_numpy, drawn))


@pytest.mark.parametrize("proposals", [NO_BOXES, torch.tensor([[8.0, 10, 58, 80], [0, 0, 20, 20]])])
@pytest.mark.parametrize("count", [0, 2])
def test_second_stage_with_nothing_to_propose_or_to_find(proposals: Tensor, count: int) -> None:
    model = heads()
    batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(128, 128)], [(128, 128)], [0])
    losses = model.losses(features(), [proposals], [objects(count)], batch)
    assert all(loss.isfinite() for loss in losses.values())
    if count == 0:
        assert losses["loss_box"] == losses["loss_mask"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_mask_head_without_convolutions_is_as_wide_as_it_says() -> None:
    losses = heads(mask_convs=0, mask_channels=8).losses(
        features(),
        [NO_BOXES],
        [objects(2)],
        Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(128, 128)], [(128, 128)], [0]),
    )
    assert losses["loss_mask"] > 0


def test_objects_come_first_among_the_regions() -> None:
    sampled = heads().sample_regions(0, [torch.tensor([[8.0, 10, 58, 80], [0, 0, 20, 20]])], [objects(2)])
    assert torch.equal(sampled.boxes[:2], objects(2).boxes)
    assert sampled.objects.tolist() == [0, 1, 0, 0]
    assert sampled.positive.tolist() == [True, True, True, False]
    assert sampled.labels.tolist() == [2, 0, 2, 3]
    assert not sampled.target_deltas[:2].any()  # an object is no distance from itself
    assert sampled.target_deltas[2].any()


def test_a_region_to_ignore_is_no_background() -> None:
    """Neither a proposal nor an anchor in it is learnt from, unless there is nothing but them."""
    inside, outside = [30.0, 90, 60, 120], [90.0, 90, 120, 120]
    target = replace(objects(1), ignored=torch.tensor([[20.0, 85, 70, 128]]))
    proposals = torch.tensor([[8.0, 10, 58, 80], inside, outside])
    sampled = heads().sample_regions(0, [proposals], [target])
    assert inside not in sampled.boxes.tolist()
    assert sampled.labels.tolist() == [2, 2, 3]
    assert inside in heads().sample_regions(0, [proposals], [objects(1)]).boxes.tolist()

    rpn = RPN(4, RPNSpec(anchor_scale=2))
    levels = [torch.zeros(1, 4, 128 // stride, 128 // stride) for stride in (*STRIDES, 64)]
    batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(128, 128)], [(128, 128)], [0])
    anchors = torch.cat(rpn._anchors(levels))
    matches = rpn._match(levels, anchors, batch, [target])[0]
    left, top, right, bottom = anchors.clamp(20, 128).unbind(1)
    covered = (right.clamp(max=70) - left).clamp(min=0) * (bottom - top.clamp(min=85)).clamp(min=0)
    mostly = covered > box_area(anchors) / 2
    assert mostly.sum() > 50
    assert (matches[mostly] == IGNORED).all()
    assert (matches[~mostly] == BACKGROUND).any()


@pytest.mark.parametrize("count", [0, 2])
def test_first_stage_losses(count: int) -> None:
    torch.manual_seed(0)
    rpn = RPN(4, RPNSpec(anchor_scale=2))
    levels = [torch.randn(1, 4, 128 // stride, 128 // stride) for stride in (*STRIDES, 64)]
    batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(120, 128)], [(120, 128)], [0])
    proposals, losses = rpn.losses(levels, batch, [objects(count)])
    assert (losses["loss_rpn_box"] > 0) == (count > 0)
    assert losses["loss_rpn_cls"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in rpn.parameters())
    assert 0 < len(proposals[0]) <= 1000
    assert not proposals[0].requires_grad
    assert (proposals[0][:, 2:] > proposals[0][:, :2]).all()
    assert proposals[0][:, 3].max() <= 120


def test_first_stage_runs_at_sampled_places_as_everywhere() -> None:
    """Logits, deltas and all gradients are those of the convolutions over whole maps."""
    torch.manual_seed(0)
    rpn = RPN(4, RPNSpec()).double()
    for parameter in rpn.parameters():
        torch.nn.init.normal_(parameter)
    sizes = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    levels = [torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True) for size in sizes]
    anchors = 3 * sum(height * width for height, width in sizes)
    index = torch.stack([torch.randperm(anchors)[:100], torch.arange(anchors)[-100:]])

    def gradients(logits: Tensor, deltas: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((logits.sin() + deltas.cos().sum(-1)).sum(), inputs))

    inputs = [*levels, *rpn.parameters()]
    maps = [torch.cat(parts, dim=1) for parts in zip(*rpn.run(levels), strict=True)]
    image = torch.arange(2)[:, None]
    everywhere = [part[image, index] for part in maps]
    there = rpn._run_at(levels, index)
    torch.testing.assert_close(list(there), everywhere)
    torch.testing.assert_close(gradients(*there), gradients(*everywhere))


def test_empty_places_change_nothing() -> None:
    """The second stage's losses and gradients, with dynamic and with static shapes."""
    batch = Batch(torch.zeros(2, 3, 128, 128, dtype=torch.uint8), [(128, 128)] * 2, [(128, 128)] * 2, [0, 1])
    proposals = [torch.tensor([[8.0, 10, 58, 80], [0, 0, 20, 20]]), torch.tensor([[60.0, 30, 110, 90]])]
    found = []
    for static in (False, True):
        maps = [torch.cat([feature, feature]).detach().requires_grad_() for feature in features()]
        model = heads()
        losses = model.losses(maps, proposals, [objects(2), objects(1)], batch, static=static)
        torch.stack(list(losses.values())).sum().backward()
        found.append([*losses.values(), *(p.grad for p in model.parameters()), *(m.grad for m in maps)])
    torch.testing.assert_close(found[0], found[1])


def test_regions_are_cut_from_outlines_as_drawn_for_them() -> None:
    """Also where a region is half its object, or the polygon reaches out of its box."""
    generator = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * generator.uniform(20, 60, (40, 1)) + 70
    boxes = torch.tensor([[*ring.min(0), *ring.max(0)], [40.0, 40, 90, 100]]).float()
    masks = [[ring, ring * 0.2], [ring]]
    drawn = draw_outlines(masks, boxes.numpy())
    assert drawn is not None
    target = Targets(boxes, torch.tensor([0, 1]), masks, *map(torch.from_numpy, drawn))
    proposals = (boxes.repeat(60, 1) + torch.from_numpy(generator.uniform(-9, 9, (120, 4)))).float()
    chosen = heads().sample_regions(0, [proposals], [target])
    chosen = chosen[chosen.positive.nonzero().flatten()]
    ours, direct = (regions.mask_targets([t], chosen) for t in (target, replace(target, outlines=None)))
    assert len(ours) == 4
    assert (ours != direct).float().mean() < 0.01
    assert ours.float().mean() > 0.3


def test_proposals_are_limited_and_best_first() -> None:
    torch.manual_seed(0)
    rpn = RPN(4, RPNSpec(pre_nms_test=50, proposals_test=20))
    levels = [torch.randn(1, 4, 128 // stride, 128 // stride) for stride in (*STRIDES, 64)]
    batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(128, 128)], [(128, 128)], [0])
    assert len(rpn.predict(levels, batch.image_sizes)[0]) == 20


def select(scores: Tensor, boxes: Tensor, **changes: object):
    deltas = torch.zeros(len(boxes), scores.shape[1] - 1, 4)
    threshold = changes.pop("score_threshold", 0.05)
    return select_detections(
        boxes,
        scores,
        deltas,
        size=(100, 100),
        stds=(0.1, 0.1, 0.2, 0.2),
        score_threshold=threshold,
        spec=RoISpec(**changes),
    )


def test_selecting_detections() -> None:
    boxes = torch.tensor([[0.0, 0, 50, 50], [1, 1, 51, 51], [60, 60, 140, 140]])
    scores = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.05, 0.05, 0.9]])
    found = select(scores, boxes)
    assert found.labels.tolist() == [0, 1]  # a class each; exactly the threshold is not above it
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.4]))
    assert torch.equal(found.boxes, boxes[[0, 1]])
    assert len(select(scores, boxes, detections=1).scores) == 1
    assert len(select(scores, boxes, nms_threshold=1.0).scores) == 4
    low = select(scores, boxes, score_threshold=0.01)
    assert low.boxes.max() == 100  # cut to the image
    assert len(select(scores, boxes, score_threshold=0.99).scores) == 0


def test_selecting_softly() -> None:
    """A box that overlaps a better one of its class scores less; those that score too little are removed."""
    boxes = torch.tensor([[0.0, 0, 50, 50], [0, 0, 50, 40], [0, 0, 50, 48]])  # IoU 0.8, 0.96 and 0.83
    scores = torch.tensor([[0.9, 0.0, 0.1], [0.8, 0.0, 0.2], [0.0, 0.7, 0.3]])
    linear, gaussian = SoftNMSSpec(), SoftNMSSpec(method="gaussian", sigma=0.8)
    found = select(scores, boxes, soft_nms=linear)
    assert found.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.8 * (1 - 0.8)]))
    found = select(scores, boxes, soft_nms=gaussian)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.8 * math.exp(-0.8)]))
    assert len(select(scores, boxes, soft_nms=replace(linear, min_score=0.2))) == 2
    assert len(select(scores, boxes, soft_nms=linear, detections=2)) == 2
    assert select(scores, boxes, soft_nms=linear, nms_threshold=0.81).scores[1] == 0.8
    assert len(select(torch.zeros(0, 4), NO_BOXES, soft_nms=linear)) == 0


@pytest.mark.parametrize("soft", [None, SoftNMSSpec(), SoftNMSSpec(method="gaussian")])
def test_selecting_with_static_shapes(soft: SoftNMSSpec | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a GPU tries few candidates first: those beyond them may score more than what is left."""
    monkeypatch.setattr(postprocess, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(postprocess, "FIRST_CANDIDATES", 24)
    monkeypatch.setattr(postprocess, "STATIC_SHARE", 1)
    torch.manual_seed(0)
    corner = torch.rand(60, 2) * 40
    boxes, scores = torch.cat([corner, corner + 30], dim=1), torch.rand(60, 3).mul(0.8)
    deltas, spec = torch.zeros(60, 2, 4), RoISpec(soft_nms=soft, detections=20)
    options = {"stds": (0.1, 0.1, 0.2, 0.2), "score_threshold": 0.05, "spec": spec}
    exact = select_detections(boxes, scores, deltas, size=(100, 100), **options)
    parts = (part[None] for part in (boxes, scores, deltas, torch.ones(60, dtype=torch.bool)))
    (ours,) = select_static(*parts, sizes=[(100, 100)], **options)
    assert len(exact) == int((ours.scores > 0).sum())
    torch.testing.assert_close(ours.scores[: len(exact)], exact.scores)
    assert torch.equal(ours.labels[: len(exact)], exact.labels)
    assert torch.equal(ours.boxes[: len(exact)], exact.boxes)


def test_a_region_that_a_stage_makes_zeros_of_counts_with_static_shapes_too() -> None:
    """It ends beyond the corner of the image, with no area; as in mmdetection, it is found nevertheless."""
    torch.manual_seed(0)
    model = RoIHeads(4, 3, SMALL, CascadeSpec()).eval()
    torch.nn.init.zeros_(model.box_stages[0].deltas.weight)
    model.box_stages[0].deltas.bias.data = torch.tensor([-30.0, -30, 0, 0])
    proposals = torch.tensor([[2.0, 2, 12, 12], [40, 40, 90, 90], [0, 0, 0, 0]])
    (exact,) = model.predict(features(), [proposals[:2]], [(128, 128)], 0.0)
    (ours,) = model.predict(features(), [proposals], [(128, 128)], 0.0, static=True)
    assert len(exact) == int((ours.scores > 0).sum()) == 6
    torch.testing.assert_close(ours.scores[:6], exact.scores)


def test_selecting_from_nothing() -> None:
    found = select(torch.zeros(0, 4), NO_BOXES)
    assert found.boxes.shape == (0, 4)
    assert found.mask_probs is None


@pytest.mark.parametrize("cascade", [None, CascadeSpec()])
def test_boxes_alone(cascade: CascadeSpec | None) -> None:
    """Without mask heads there is no mask loss, and all else is as with them."""
    batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), [(128, 128)], [(128, 128)], [0])
    proposals = [torch.tensor([[8.0, 10, 58, 80], [0, 0, 20, 20]])]
    found = []
    for masks in (True, False):
        torch.manual_seed(0)
        model = RoIHeads(4, 3, replace(SMALL, masks=masks), cascade)
        torch.manual_seed(1)
        losses = model.losses(features(), proposals, [replace(objects(2), masks=[[], []])], batch)
        found.append((losses, model.predict(features(), proposals, batch.image_sizes, 0.0)[0]))
    (losses, detections), (box_losses, boxes) = found
    assert box_losses == {name: loss for name, loss in losses.items() if not name.endswith("loss_mask")}
    assert len(boxes.scores) > 0
    assert torch.equal(boxes.boxes, detections.boxes)
    assert detections.mask_probs is not None
    assert boxes.mask_probs is None
