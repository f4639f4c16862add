"""The models that are timed: ours, and torchvision's Mask R-CNN with the same weights, on the same noise.

Weights are random numbers from a fixed seed, scaled so that as many objects as possible are found: time
depends on the number of detections, not on whether they are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn

from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec, ResNetSpec
from gcnet.ops.segmentations import segmentation_to_mask
from gcnet.types import Batch, Detections, Targets
from gcnet.weights.catalog import find_detector
from gcnet.weights.dialects import translate
from gcnet.weights.load import load_model
from gcnet.weights.mmdet_keys import mmdet_key

CLASS_STD = 0.5  # of the class weights: scores from near 0 to near 1
OBJECTS = 8  # in a training image, as in COCO


def busy_detector(source: str) -> Detector:
    """The model of a row, or one like that in a file, with random weights that find as much as they may.

    Fresh context blocks change nothing, and a row with them has all other weights of the row without: the two
    find the same objects and differ in the blocks' time alone.

    Raises:
        GCNetError: there is no such row and no such file, or it is of a classifier.
    """
    spec = _spec_of(source)
    further = {"more_context": ()} if isinstance(spec.backbone, ResNetSpec) else {}
    bare = replace(spec, backbone=replace(spec.backbone, context=None, **further))
    torch.manual_seed(0)
    plain = Detector(bare)
    for head in plain.roi_heads.box_stages:
        nn.init.normal_(head.cls.weight, std=CLASS_STD)
    if spec == bare:
        return plain.eval()
    detector = Detector(spec)
    detector.load_state_dict(plain.state_dict(), strict=False)
    return detector.eval()


def _spec_of(source: str) -> ModelSpec:
    if not Path(source).exists():
        return find_detector(source).spec
    model = load_model(source)
    if not isinstance(model, Detector):
        raise GCNetError(f"{source} is an image classifier; give a detector")
    return model.spec


def random_batch(images: int, size: tuple[int, int]) -> Batch:
    """Noise images of (height, width), a multiple of 32."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=generator)
    return Batch(pixels, [size] * images, [size] * images, list(range(images)))


def random_targets(images: int, size: tuple[int, int], classes: int) -> list[Targets]:
    """Octagons in the places and sizes of objects."""
    generator, targets = np.random.default_rng(0), []
    angles = np.arange(8) * np.pi / 4
    corners = (1 + np.stack([np.cos(angles), np.sin(angles)], axis=1)) / 2  # of an octagon in a unit square
    for _ in range(images):
        sides = generator.uniform(32, 320, (OBJECTS, 2))
        starts = generator.uniform(0, 1, (OBJECTS, 2)) * (np.array(size[::-1]) - sides)
        boxes = np.concatenate([starts, starts + sides], axis=1)
        labels = torch.from_numpy(generator.integers(0, classes, OBJECTS))
        masks = [[start + side * corners] for start, side in zip(starts, sides, strict=True)]
        targets.append(Targets(torch.from_numpy(boxes).float(), labels, masks))
    return targets


def inference(detector: Detector, batch: Batch) -> Callable[[], list[Detections]]:
    """A run from uint8 pixels to full-size masks, or to boxes of a detector without mask heads."""

    def run() -> list[Detections]:
        found = detector.predict(batch)
        for detections in found if detector.spec.roi.masks else ():
            _ = detections.masks
        return found

    return run


def total_loss(detector: Detector, batch: Batch, targets: list[Targets]) -> Callable[[], Tensor]:
    """A run from uint8 pixels to the sum of the losses."""
    detector.train()
    return lambda: torch.stack(list(detector.losses(batch, targets).values())).sum()


def saved_bytes(losses: Callable[[], Tensor]) -> int:
    """What a forward pass saves for the backward one: each storage once, parameters too."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that saves its own result would never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses()
    return sum(storages.values())


# torchvision's ----------------------------------------------------------------------------------------


def twin_of(detector: Detector) -> MaskRCNN:
    """torchvision's `maskrcnn_resnet50_fpn` with the weights of a plain R-50 of ours.

    The two still differ in where anchors stand, in RoIAlign and in masks that are pasted with a margin, so
    their detections are alike and not equal.

    Raises:
        GCNetError: `detector` is another model; torchvision has no context blocks.
    """
    spec = detector.spec
    plain = isinstance(spec.backbone, ResNetSpec) and spec.backbone == ResNetSpec(norm=spec.backbone.norm)
    if not plain or spec.cascade or not spec.roi.masks:
        raise GCNetError(f"torchvision has no model like {detector.spec.name}: compare mask_rcnn_r50 with it")
    twin = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=detector.spec.num_classes + 1,
        box_nms_thresh=0.5,
        box_detections_per_img=detector.spec.roi.detections,
    )
    theirs = twin.state_dict()
    read = translate(theirs, source="torchvision's model").tensors  # in the same order
    renamed = dict(zip(read, theirs, strict=True))
    ours = ((renamed[mmdet_key(name)], tensor) for name, tensor in detector.state_dict().items())
    tensors = {name: _background_first(name, tensor) for name, tensor in ours}
    twin.load_state_dict(tensors)
    parameters = dict(twin.named_parameters())
    for name, parameter in detector.backbone.named_parameters():
        parameters[f"backbone.body.{name}"].requires_grad_(parameter.requires_grad)
    return twin


def _background_first(name: str, tensor: Tensor) -> Tensor:
    """torchvision's class 0 is background; it has deltas and a mask for it, too."""
    if "cls_score" in name:
        return tensor.roll(1, dims=0)
    if "roi_heads.box_predictor.bbox_pred" in name:
        return torch.cat([torch.zeros_like(tensor[:4]), tensor])
    if "mask_fcn_logits" in name:
        return torch.cat([torch.zeros_like(tensor[:1]), tensor])
    return tensor


def twin_inference(twin: MaskRCNN, batch: Batch) -> Callable[[], list[Tensor]]:
    """A run from uint8 pixels to the full-size masks of each image."""
    twin.eval()

    @torch.no_grad()
    def run() -> list[Tensor]:
        return [found["masks"] for found in twin([image / 255 for image in batch.images])]

    return run


def twin_loss(twin: MaskRCNN, batch: Batch, targets: list[Targets]) -> Callable[[], Tensor]:
    """A run from uint8 pixels to the sum of the losses. Full-size bitmaps are made outside of it.

    The statistics of its norms are frozen, as ours are.
    """
    twin.train()
    for module in twin.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    size = (batch.images.shape[-2], batch.images.shape[-1])
    given = []
    for t in targets:
        bitmaps = np.stack([segmentation_to_mask(one, size) for one in t.masks])
        masks = torch.from_numpy(bitmaps).to(t.boxes.device)
        given.append({"boxes": t.boxes, "labels": t.labels + 1, "masks": masks})

    def run() -> Tensor:
        return torch.stack(list(twin([image / 255 for image in batch.images], given).values())).sum()

    return run
