"""What is timed: whole inferences, training steps, and the parts of an inference.

Weights are random numbers from a fixed seed, spread so that a hundred detections come out: time depends on
how many there are, not on whether they are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcnet.engine.module import make_optimizer
from gcnet.models.box_head import GRID as BOX_GRID
from gcnet.models.build import build_detector
from gcnet.models.detector import Detector
from gcnet.models.mask_head import GRID as MASK_GRID
from gcnet.models.pooler import with_images
from gcnet.models.roi_heads import RoIHeads
from gcnet.recipe import Recipe
from gcnet.types import Batch, Detections, Targets
from gcnet.weights.catalog import find_detector

CLASS_STD = 0.5  # of the class weights: scores from near 0 to near 1
OBJECTS = 8  # in a training image, as in COCO


def busy_detector(name: str) -> Detector:
    """The model of a row with random weights that find as many objects as they may.

    Fresh context blocks change nothing, and a row with them has all other weights of the row without: the two
    find the same objects and differ in the blocks' time alone.
    """
    spec = find_detector(name).spec
    torch.manual_seed(0)
    plain = build_detector(replace(spec, backbone=replace(spec.backbone, context=None)))
    for head in plain.roi_heads.heads()[0]:
        nn.init.normal_(head.cls.weight, std=CLASS_STD)
    if spec.backbone.context is None:
        return plain.eval()
    detector = build_detector(spec)
    detector.load_state_dict(plain.state_dict(), strict=False)
    return detector.eval()


def random_batch(images: int, size: tuple[int, int]) -> Batch:
    """Noise pictures of (height, width), a multiple of 32."""
    pixels = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=_generator())
    return Batch(pixels, [size] * images, [size] * images, list(range(images)))


def random_targets(images: int, size: tuple[int, int], classes: int) -> list[Targets]:
    """Octagons in the places and sizes of objects."""
    generator, targets = np.random.default_rng(0), []
    for _ in range(images):
        side = generator.uniform(32, 320, (OBJECTS, 2))
        corner = generator.uniform(0, 1, (OBJECTS, 2)) * (np.array(size[::-1]) - side)
        boxes = np.concatenate([corner, corner + side], axis=1)
        labels = torch.from_numpy(generator.integers(0, classes, OBJECTS))
        masks = [[_octagon(box)] for box in boxes]
        targets.append(Targets(torch.from_numpy(boxes).float(), labels, masks))
    return targets


def inference(detector: Detector, batch: Batch) -> Callable[[], list[Detections]]:
    """A run from uint8 pixels to full-size masks."""

    def run() -> list[Detections]:
        found = detector.predict(batch)
        for detections in found:
            _ = detections.masks
        return found

    return run


def training_step(model: nn.Module, losses: Callable[[], Tensor], recipe: Recipe) -> Callable[[], None]:
    """A run of forward, backward and optimiser."""
    optimizer = make_optimizer(model, recipe)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        losses().backward()
        optimizer.step()

    return run


def total_loss(detector: Detector, batch: Batch, targets: list[Targets]) -> Callable[[], Tensor]:
    """A run from uint8 pixels to the sum of the losses."""
    detector.train()
    return lambda: torch.stack(list(detector.losses(batch, targets).values())).sum()


def saved_bytes(losses: Callable[[], Tensor]) -> int:
    """What a forward pass keeps for the backward one: each storage once, parameters too."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that kept its own result would never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses()
    return sum(storages.values())


@torch.no_grad()
def parts_of_inference(detector: Detector, batch: Batch) -> dict[str, Callable[[], Any]]:
    """One run for each part, on what the part before it gives; of a model without cascade."""
    heads = detector.roi_heads
    assert isinstance(heads, RoIHeads)
    pixels = detector.normalise(batch)
    maps = detector.backbone(pixels)
    levels = detector.neck(maps)
    proposals = detector.rpn.predict(levels, batch)
    rois = with_images(proposals)
    pooled = heads.pool(levels, rois, size=BOX_GRID)
    logits, deltas = heads.box_head(pooled)
    found = heads.select(proposals, logits, deltas, batch, 0.05)
    mask_rois = with_images([f.boxes for f in found])
    labels = torch.cat([f.labels for f in found])
    mask_pooled = heads.pool(levels, mask_rois, size=MASK_GRID)
    detections = detector.predict(batch)
    parts: dict[str, Callable[[], Any]] = {
        "normalise": lambda: detector.normalise(batch),
        "backbone": lambda: detector.backbone(pixels),
        "neck": lambda: detector.neck(maps),
        "RPN": lambda: detector.rpn.predict(levels, batch),
        "box pooling": lambda: heads.pool(levels, rois, size=BOX_GRID),
        "box head": lambda: heads.box_head(pooled),
        "selection": lambda: heads.select(proposals, logits, deltas, batch, 0.05),
        "mask pooling": lambda: heads.pool(levels, mask_rois, size=MASK_GRID),
        "mask head": lambda: heads.mask_head(mask_pooled, labels),
        "mask pasting": lambda: [paste(d) for d in detections],
    }
    return {name: torch.no_grad()(run) for name, run in parts.items()}


def paste(detections: Detections) -> Tensor:
    """Full-size masks, drawn again."""
    return detections.to("cpu").masks


def _octagon(box: np.ndarray) -> np.ndarray:
    angle = np.arange(8) * np.pi / 4
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return centre + half * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
