"""One training step: the reference's losses and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gcnet.models.detector import Detector
from gcnet.models.regions import mask_targets, sample_regions
from gcnet.models.roi_heads import RoIHeads
from gcnet.models.spec import RoISpec
from gcnet.ops.decode import read_image
from gcnet.ops.images import fit_size, resize_image
from gcnet.ops.mask_targets import draw_outlines
from gcnet.ops.segmentations import resize_segmentation
from gcnet.types import Batch, Targets, stack_images
from gcnet.weights.mmdet_keys import mmdet_key

ROW = "mask-rcnn_r50-syncbn-gcb-r4-c3-c5_fpn_1x_coco"
CASCADE_ROW = "cascade-mask-rcnn_x101-32x4d-syncbn-r4-gcb-c3-c5_fpn_1x_coco"


def strided(marked: Tensor, limit: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The deterministic sampler that the reference was run with."""
    index = torch.zeros(len(marked), size, dtype=torch.int64)
    taken = torch.zeros(len(marked), size, dtype=torch.bool)
    for image, count in enumerate(limit.tolist()):
        found = marked[image].nonzero().flatten()
        if len(found) > count:
            found = found[(torch.arange(count) * len(found)) // count]
        index[image, : len(found)], taken[image, : len(found)] = found, True
    return index, taken


def read_batch(paths: list[Path]) -> Batch:
    images = [read_image(path) for path in paths]
    original = [(image.shape[0], image.shape[1]) for image in images]
    sizes = [fit_size(size, (1333, 800)) for size in original]
    resized = [resize_image(image, size) for image, size in zip(images, sizes, strict=True)]
    return Batch(stack_images(resized), sizes, original, list(range(len(paths))))


def read_targets(case: dict[str, Any]) -> list[Targets]:
    """The ground truth as the reference's pipeline left it: bitmaps at the training size."""
    return [
        Targets(
            torch.tensor(target["boxes"]),
            torch.tensor(target["labels"]),
            [{"size": target["size"], "counts": counts.encode()} for counts in target["masks"]],
        )
        for target in case["targets"]
    ]


@pytest.mark.parametrize(
    "mode",
    [
        "as_config_0",
        "eval_norm_0",
        pytest.param("as_config_01", marks=pytest.mark.slow),
        pytest.param("cascade_as_config_0", marks=pytest.mark.slow),
    ],
)
def test_training_step(
    mode: str,
    reference_model: Callable[[str], Detector],
    golden: Callable[[str], Any],
    golden_arrays: Callable[[str], Any],
    pictures: dict[str, Path],
) -> None:
    detector = reference_model(CASCADE_ROW if mode.startswith("cascade") else ROW)
    detector.rpn.sample = detector.roi_heads.sample = strided
    detector.train(not mode.startswith("eval_norm"))
    theirs = golden("training.json.gz")[mode]
    batch, targets = read_batch(list(pictures.values())[: len(theirs["targets"])]), read_targets(theirs)

    features = detector.features(batch)
    proposals, losses = detector.rpn.losses(features, batch, targets)
    arrays = golden_arrays("proposals.npz")
    stored = [torch.from_numpy(arrays[f"{mode}/{image}"]) for image in range(len(targets))]
    for ours, reference in zip(proposals, stored, strict=True):
        same = (ours[:, None, :] - reference[None]).abs().amax(dim=-1).min(dim=0).values < 0.02
        assert len(ours) == len(reference)
        assert same.float().mean() > 0.99  # near-ties in the order may swap a few at the cut

    losses |= detector.roi_heads.losses(features, stored, targets, batch)
    assert losses.keys() == {name.replace("bbox", "box") for name in theirs["losses"]}
    for name, loss in theirs["losses"].items():
        assert losses[name.replace("bbox", "box")].item() == pytest.approx(loss, rel=1e-4), name

    outlines = [with_outlines(with_polygons(t, image, golden)) for image, t in enumerate(targets)]
    with torch.no_grad():
        drawn = mask_loss(detector.roi_heads.losses(features, stored, outlines, batch))
    # We train on polygons drawn once and cut to regions, the reference on resized bitmaps.
    print(f"{mode}: loss_mask with polygons {drawn:.6f}, with bitmaps {mask_loss(losses):.6f}")
    assert drawn == pytest.approx(mask_loss(losses), rel=0.01)

    torch.stack(list(losses.values())).sum().backward()
    errors = gradient_errors(detector, theirs["gradient_norms"])
    print(f"gradient norms: median {np.median(errors):.1e}, 95th percentile {np.quantile(errors, 0.95):.1e}")
    assert np.median(errors) < 1e-3
    assert np.quantile(errors, 0.95) < 1e-2


def mask_loss(losses: dict[str, Tensor]) -> float:
    """The mask loss, or the sum of those of a cascade's stages."""
    return sum(loss.item() for name, loss in losses.items() if name.endswith("loss_mask"))


def gradient_errors(detector: Detector, norms: dict[str, float]) -> list[float]:
    """Relative differences of the norms; the same parameters must have a gradient at all."""
    ours = {
        mmdet_key(name): parameter.grad.double().norm().item()
        for name, parameter in detector.named_parameters()
        if parameter.grad is not None
    }
    assert ours.keys() == norms.keys()
    return [abs(ours[name] / norms[name] - 1) for name in norms if not name.endswith("conv_mask.bias")]


@pytest.mark.parametrize("mode", ["as_config_0", "as_config_01", "eval_norm_0"])
def test_sampled_regions_and_mask_targets(
    mode: str, golden: Callable[[str], Any], golden_arrays: Callable[[str], Any]
) -> None:
    """What the second stage trains on, without running a network."""
    theirs, arrays = golden("training.json.gz")[mode], golden_arrays("proposals.npz")
    heads = RoIHeads(1, 80, RoISpec(box_channels=1, mask_channels=1))
    heads.sample = strided
    targets = read_targets(theirs)
    proposals = [torch.from_numpy(arrays[f"{mode}/{image}"]) for image in range(len(targets))]
    regions = heads.sample_regions(0, proposals, targets)
    counts = [int((regions.positive & (regions.images == image)).sum()) for image in range(len(targets))]
    assert counts == np.ravel(theirs["positive"]).tolist()
    assert regions.labels.tolist() == theirs["labels"]

    positive = regions[regions.positive.nonzero().flatten()]
    packed = arrays[f"{mode}/mask_targets"]
    reference = np.unpackbits(packed, axis=1)[:, : 28 * 28].reshape(-1, 28, 28).astype(bool)
    bitmaps = mask_targets(targets, positive).numpy()
    assert (bitmaps == reference).all()

    outlines = [with_polygons(target, image, golden) for image, target in enumerate(targets)]
    drawn = mask_targets(outlines, positive).numpy()
    print(f"{mode}: {(drawn != reference).mean():.4%} of target pixels differ")
    assert (drawn != reference).mean() < 0.01
    from_outlines = mask_targets([with_outlines(target) for target in outlines], positive).numpy()
    print(f"{mode}: {(from_outlines != reference).mean():.4%} with outlines drawn beforehand")
    assert (from_outlines != reference).mean() < 0.006
    overlap = (drawn & reference).sum(axis=(1, 2)) / (drawn | reference).sum(axis=(1, 2)).clip(1)
    assert overlap.mean() > 0.97


def test_regions_and_mask_targets_of_the_first_cascade_stage(
    golden: Callable[[str], Any], golden_arrays: Callable[[str], Any]
) -> None:
    """Those of later stages follow from the network: their losses show that they are right."""
    mode = "cascade_as_config_0"
    theirs, arrays = golden("training.json.gz")[mode], golden_arrays("proposals.npz")
    target = read_targets(theirs)[0]
    regions = sample_regions(
        [torch.from_numpy(arrays[f"{mode}/0"])],
        [target],
        RoISpec(),
        background=80,
        iou=0.5,
        low_quality=False,
        stds=(0.1, 0.1, 0.2, 0.2),
        sample=strided,
    )
    assert int(regions.positive.sum()) == theirs["positive"][0]
    assert regions.labels.tolist() == theirs["labels"][0]
    reference = np.unpackbits(arrays[f"{mode}/mask_targets_0"], axis=1)[:, : 28 * 28].reshape(-1, 28, 28)
    assert (
        mask_targets([target], regions[regions.positive.nonzero().flatten()]).numpy()
        == reference.astype(bool)
    ).all()


def with_polygons(target: Targets, image: int, golden: Callable[[str], Any]) -> Targets:
    """The same objects with their polygons in place of the reference's bitmaps."""
    original = [(480, 640), (333, 500)][image]
    height, width = fit_size(original, (1333, 800))
    scale = (width / original[1], height / original[0])
    polygons = [
        resize_segmentation([np.reshape(p, (-1, 2)) for p in raw], *scale, (height, width))
        for raw in golden("training.json.gz")["polygons"][str(image)]
    ]
    assert len(polygons) == len(target)
    return Targets(target.boxes, target.labels, polygons)


def with_outlines(target: Targets) -> Targets:
    """As a loader hands it over."""
    found = draw_outlines(target.masks, target.boxes.numpy())
    assert found is not None
    return replace(target, outlines=torch.from_numpy(found[0]), frames=torch.from_numpy(found[1]))
