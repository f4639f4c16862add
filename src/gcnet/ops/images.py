"""Resizes, writes and joins images, which are H x W x 3 RGB uint8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from gcnet.errors import GCNetError
from gcnet.files import write_bytes

Pixels = UInt8[np.ndarray, "_h _w 3"] | Float[np.ndarray, "_h _w 3"]  # of 0 to 255

PAD_MULTIPLE = 32
LONGEST_SHAPE = 16  # largest ratio of sides that a classifier resizes: 1 x 60000 would take 12 GB


def write_image(path: Path, image: UInt8[np.ndarray, "H W 3"], *, quality: int = 95) -> None:
    """Writes an RGB image in the format of the file's suffix; `quality` is of JPEGs, in [0, 100]."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    try:
        written, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error:  # some versions raise it, some say so
        written, encoded = False, np.empty(0, np.uint8)
    if not written:
        raise GCNetError(f"cannot encode {path}; is the image too large for {path.suffix}?")
    write_bytes(path, encoded.data)


def fit_size(size: tuple[int, int], limits: tuple[int, int], rule: str = "opencv") -> tuple[int, int]:
    """The (height, width) at which an image of `size` just fits `limits`, a (long, short) side.

    Rounds half up like the reference, down by torchvision's `rule`; enlarges as well as shrinks.
    """
    return scaled_size(size, min(max(limits) / max(size), min(limits) / min(size)), rule)


def scaled_size(size: tuple[int, int], scale: float, rule: str = "opencv") -> tuple[int, int]:
    """The (height, width) of an image of `size` times `scale`; see `fit_size`."""
    half = 0.0 if rule == "torchvision" else 0.5
    return max(int(size[0] * scale + half), 1), max(int(size[1] * scale + half), 1)


def padded_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) rounded up to multiples of 32, as batches are."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in size)
    return height, width


def resize_image(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], rule: str = "opencv") -> Pixels:
    """The image at `size` (height, width), bilinear.

    "opencv" is the reference's rule, on uint8 without antialiasing. "torchvision" is the same in float32,
    which is not rounded. "pillow" is detectron2's: where it shrinks, every pixel counts.
    """
    if image.shape[:2] == size:
        return image
    height, width = size
    if rule == "pillow":
        from PIL import Image

        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    source = image.astype(np.float32) if rule == "torchvision" else image
    return cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR)


def shrink_image(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The image at `size` (height, width) with antialiasing: every pixel counts.

    Classifiers are trained and used so. Detectors use `resize_image`.
    """
    height, width = size
    smaller = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def middle_square(
    image: UInt8[np.ndarray, "H W 3"], image_size: tuple[int, int]
) -> UInt8[np.ndarray, "S S 3"]:
    """A classifier's input: the short side resized to `image_size[0]`, then the middle square.

    The square's side is the second, which must not be larger. Sizes are rounded as torchvision's
    `Resize` and `CenterCrop` do, with which the published weights were scored.
    """
    side, square = image_size
    image = _middle(image, min(image.shape[:2]) * LONGEST_SHAPE)
    height, width = image.shape[:2]
    short = min(height, width)
    image = shrink_image(image, (int(side * height / short), int(side * width / short)))
    top, left = (round((length - square) / 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + square, left : left + square])


def _middle(image: UInt8[np.ndarray, "H W 3"], longest: int) -> UInt8[np.ndarray, "h w 3"]:
    """The middle of an image with a side of more than `longest` pixels; others are returned as they are."""
    top, left = (max(length - longest, 0) // 2 for length in image.shape[:2])
    return image[top : top + longest, left : left + longest]


def together(prepared: Sequence[Any]) -> Any:
    """A batch of images as a model prepared each: a `Batch`, an export's `Prepared`, or an array."""
    if isinstance(prepared[0], np.ndarray):
        return np.concatenate(prepared)
    return prepared[0] if len(prepared) == 1 else type(prepared[0]).together(prepared)
