"""Pictures in and out of arrays: reading, writing, resizing, stacking. Images are H x W x 3 RGB uint8."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8, UInt16
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.files import write_bytes

log = logging.getLogger(__name__)

PAD_MULTIPLE = 32

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, rows and columns are exchanged
_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_TRUNCATED = "{} is a truncated image file; restore or remove it"


def read_image(path: str | os.PathLike[str], *, turned: bool = True) -> UInt8[np.ndarray, "H W 3"]:
    """The picture in a file, `turned` as its EXIF orientation says, or as it is stored.

    Raises GCNetError naming the file where it is missing, unreadable, not an image, or truncated.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise GCNetError(f"{path} does not exist; check the path of the image") from None
    except OSError as error:
        raise GCNetError(f"{path} cannot be read ({error.strerror}); give an image file") from None
    _refuse_truncated(data, path)
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise GCNetError(f"{path} is not an image that can be read; convert it to JPEG or PNG, or remove it")
    if image.dtype == np.uint16:
        _tell_of_16_bits()
        image = _eight_bits(image)
    elif image.dtype != np.uint8:  # a TIFF of floats
        image = cv2.convertScaleAbs(image)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@cache
def _tell_of_16_bits() -> None:
    """A warning, once in a process."""
    log.warning("images have 16 bits a channel: each is read at the range that it uses, of 8 to 16 bits")


def _eight_bits(image: UInt16[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Of 10, 12, 14 or 16 bits, whichever hold the brightest value, the upper eight."""
    bits = next(bits for bits in (8, 10, 12, 14, 16) if int(image.max(initial=0)) < 1 << bits)
    return (image >> (bits - 8)).astype(np.uint8)


def write_image(path: Path, image: UInt8[np.ndarray, "H W 3"], *, quality: int = 95) -> None:
    """Writes an RGB image in the format of the file's suffix; `quality` is of JPEGs, in [0, 100]."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    written, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not written:
        raise GCNetError(f"cannot encode {path}; is the image too large for {path.suffix}?")
    write_bytes(path, encoded.data)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of the picture in a file, turned as its EXIF orientation says, from its header alone.

    Raises GCNetError as `read_image` does.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except (OSError, ValueError, Image.DecompressionBombError):
        height, width = read_image(path).shape[:2]  # OpenCV knows formats that Pillow does not
        return height, width
    return (width, height) if turned else (height, width)


def read_index_mask(path: Path) -> UInt8[np.ndarray, "H W"]:
    """The numbers in an image of one number a pixel; of one with a palette, places in it and not its colours.

    Raises GCNetError if it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image if image.mode in ("P", "L") else image.convert("L"))
    except (OSError, ValueError) as error:
        raise GCNetError(f"{path} cannot be read as a mask ({error}); restore or remove it") from None


def as_rgb_array(image: Any) -> UInt8[np.ndarray, "H W 3"]:
    """An image from a path, a PIL image or an H x W x 3 uint8 RGB array (returned as it is).

    Arrays may also be gray (H x W) and of uint16. The pixels of a PIL image are taken as they stand, without
    looking at its EXIF orientation.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if hasattr(image, "convert") and hasattr(image, "getbands"):
        if not image.mode.startswith("I"):
            return np.array(image.convert("RGB"))
        image = np.array(image).clip(0, 2**16 - 1).astype(np.uint16)
    if isinstance(image, np.ndarray) and image.dtype == np.uint16:
        image = _eight_bits(image)
    if isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if not isinstance(image, np.ndarray):
        raise GCNetError(
            f"an image is a {type(image).__name__}; give a path, a PIL image or an H x W x 3 uint8 RGB array"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise GCNetError(
            f"an image array is {image.dtype} of shape {image.shape}; give H x W x 3 uint8 in RGB order"
        )
    return image


def fit_size(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) at which an image of `size` just fits `limits`, a (long, short) side.

    Rounds half up like the reference; enlarges as well as shrinks.
    """
    height, width = size
    scale = min(max(limits) / max(size), min(limits) / min(size))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def padded_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) rounded up to multiples of 32, as batches are."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in size)
    return height, width


def resize_image(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The image at `size` (height, width), by OpenCV's bilinear rule on uint8: the reference's."""
    if image.shape[:2] == size:
        return image
    height, width = size
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def shrink_image(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The image at `size` (height, width) without aliasing: every pixel counts where it shrinks.

    Classifiers are trained and used so. It is nothing for detectors, whose reference is `resize_image`.
    """
    height, width = size
    smaller = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def middle_square(
    image: UInt8[np.ndarray, "H W 3"], image_size: tuple[int, int]
) -> UInt8[np.ndarray, "S S 3"]:
    """What a classifier sees: the short side resized to the first of `image_size`, then the middle square.

    The square's side is the second, which must not be larger. Sizes are rounded as torchvision's
    `Resize` and `CenterCrop` do, with which the published weights were scored.
    """
    side, square = image_size
    height, width = image.shape[:2]
    short = min(height, width)
    image = shrink_image(image, (int(side * height / short), int(side * width / short)))
    top, left = (round((length - square) / 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + square, left : left + square])


def stack_images(images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[Tensor, "N 3 H W"]:
    """Images of any sizes in one tensor, zero-padded at the right and bottom to multiples of 32."""
    height, width = padded_size([max(image.shape[axis] for image in images) for axis in (0, 1)])
    stack = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for i, image in enumerate(images):
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        stack[i, :, : image.shape[0], : image.shape[1]] = pixels
    return stack


def _refuse_truncated(data: bytes, path: Path) -> None:
    """OpenCV fills what a cut-off file lacks with grey; the file's end marker tells the two apart.

    Few whole files lack the marker, so a decoder that is strict has the last word on those.
    """
    if data.startswith(_JPEG):
        complete = data.find(b"\xff\xd9", max(data.rfind(b"\xff\xda"), 0)) > 0
    elif data.startswith(_PNG):
        complete = b"IEND" in data[-64:]
    else:
        complete = False
    if complete or not data:
        return
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # OpenCV knows formats that Pillow does not, and has a limit of its own for the size
    except Exception:  # Pillow's decoders raise many kinds on broken files
        raise GCNetError(_TRUNCATED.format(path)) from None
