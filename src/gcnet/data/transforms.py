"""From an image and its annotations to what the detector is trained on.

H x W original image, h x w resized image, G objects. Images stay RGB uint8; normalising and padding are
done later, on whole batches.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from gcnet.data.dataset import ImageRecord
from gcnet.ops.images import fit_size, resize_image
from gcnet.ops.segmentations import draw_outlines, flip_segmentation, resize_segmentation
from gcnet.types import Targets


def eval_transform(
    image: UInt8[np.ndarray, "H W 3"], image_size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The image resized to fit `image_size`, a (long, short) side."""
    height, width = image.shape[:2]
    return resize_image(image, fit_size((height, width), image_size))


def train_transform(
    image: UInt8[np.ndarray, "H W 3"],
    record: ImageRecord,
    *,
    image_size: tuple[int, int],
    rng: np.random.Generator,
    flip: float = 0.5,
    scale_jitter: tuple[float, float] = (1.0, 1.0),
    color_jitter: float = 0.0,
) -> tuple[UInt8[np.ndarray, "h w 3"], Targets]:
    """The image resized, perhaps mirrored and recoloured, and its objects (crowd regions left out) with it.

    `flip` is a probability, `scale_jitter` the range of a random factor on `image_size`, `color_jitter`
    the strength of `jitter_colors`. All chance comes from `rng`, in the same number of draws whatever
    the settings.
    """
    factor, flip_draw = rng.uniform(*scale_jitter), rng.random()
    color_draws = rng.uniform(-1, 1, 3)
    limits = (max(int(image_size[0] * factor + 0.5), 1), max(int(image_size[1] * factor + 0.5), 1))
    resized = eval_transform(image, limits)
    flipped = flip_draw < flip
    targets = make_targets(record, (resized.shape[0], resized.shape[1]), flipped=flipped)
    if flipped:
        resized = cv2.flip(resized, 1)
    if color_jitter:
        resized = jitter_colors(resized, 1 + color_jitter * color_draws)
    return resized, targets


def make_targets(record: ImageRecord, size: tuple[int, int], *, flipped: bool = False) -> Targets:
    """The objects of an image resized to `size` (height, width), then mirrored if `flipped`.

    Boxes are clipped to the image, as upstream does; masks are not.
    """
    height, width = size
    scale_x, scale_y = width / record.width, height / record.height
    instances = record.objects(masks=True)
    boxes = np.array([instance.box for instance in instances], np.float32).reshape(-1, 4)
    boxes = boxes * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    masks = [resize_segmentation(instance.segmentation, scale_x, scale_y, size) for instance in instances]
    if flipped:
        boxes = _flip_boxes(boxes, width)
        masks = [flip_segmentation(mask, width) for mask in masks]
    boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
    labels = torch.tensor([instance.label for instance in instances], dtype=torch.int64)
    outlines, frames = draw_outlines(masks, boxes) or (None, None)
    return Targets(
        boxes=torch.from_numpy(boxes),
        labels=labels,
        masks=masks,
        outlines=None if outlines is None else torch.from_numpy(outlines),
        frames=None if frames is None else torch.from_numpy(frames),
    )


def jitter_colors(image: UInt8[np.ndarray, "h w 3"], factors: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its brightness, contrast (about its mean) and saturation multiplied by `factors`."""
    brightness, contrast, saturation = (max(float(factor), 0.0) for factor in factors)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    image = cv2.addWeighted(image, saturation, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 1 - saturation, 0)
    levels = np.arange(256, dtype=np.float64)
    mean = grey.mean()
    table = ((levels - mean) * contrast + mean) * brightness
    return cv2.LUT(image, np.rint(table).clip(0, 255).astype(np.uint8))


def _flip_boxes(boxes: Float32[np.ndarray, "G 4"], width: int) -> Float32[np.ndarray, "G 4"]:
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], axis=1)
