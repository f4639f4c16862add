"""Reads images of every kind, from files to tensors, as arrays: H x W x 3 RGB uint8.

A damaged file gives an error of one line. The same image gives the same pixels in whatever form it is passed.
`max_pixels` are the most that an image may have, by default `gcnet.image_files.MAX_PIXELS`.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Integer, Shaped, UInt8, UInt16
from PIL import Image

try:  # without a wheel for it, OpenCV decodes the same pixels, but does not report damage
    import simplejpeg  # pyright: ignore[reportMissingImports]
except ImportError:
    simplejpeg = None

from gcnet.console import one_line
from gcnet.errors import GCNetError
from gcnet.ops.image_header import File, blamed, check_size, opened, orientation_of, read_header
from gcnet.ops.pixels import KINDS, as_rgb

log = logging.getLogger(__name__)

_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_MOST_SCANS = 100  # of a JPEG: encoders make a dozen, and each costs a pass over the whole image
_MOST_MARKS = 10_000  # that its parts begin with
_MARK = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)  # of a part that says its length
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_STRIP = 1 << 22  # pixels that are copied at a time
_OTHER_DATA = 1 << 26  # bytes in a JPEG that are no pixels: thumbnails, the video of a moving photograph

_TOLD = 1000  # damaged files that are remembered


def read_image(
    path: str | os.PathLike[str],
    *,
    data: bytes | None = None,
    turned: bool = True,
    max_pixels: int | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The image in a file, `turned` as its EXIF orientation says (a TIFF always is), or as stored.

    Of several images in a file it is the first one; what is transparent is laid on white. `data` are the
    file's bytes, where they are at hand.
    Raises GCNetError naming the file where it is missing, unreadable, not an image in one of `FORMATS`, of
    more than `max_pixels`, or damaged.
    """
    with opened(path, data) as file, blamed(path):
        return _decode(file, str(path), turned, max_pixels)


def image_size(
    path: str | os.PathLike[str], *, data: bytes | None = None, max_pixels: int | None = None
) -> tuple[int, int]:
    """(height, width) of the image in a file after its EXIF rotation, from its header alone.

    Raises GCNetError as `read_image` does, but sees damage in the header alone.
    """
    with opened(path, data) as file, blamed(path):
        image = read_header(file, max_pixels)
        width, height = image.size
        return (width, height) if orientation_of(image) >= 5 else (height, width)


def read_small(
    path: str | os.PathLike[str], least: int, *, max_pixels: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """The image in a file in gray. A JPEG is decoded at 1/8 of its size, or as fits `least` a side.

    It is turned, and GCNetError raised, as in `read_image`.
    """
    with opened(path) as file, blamed(path):
        image = read_header(file, max_pixels)
        orientation = orientation_of(image)
        image.draft("L", (least, least))
        return _turn(_pixels(image), orientation)


def read_index_mask(
    path: str | os.PathLike[str], *, max_pixels: int | None = None
) -> Integer[np.ndarray, "H W"]:
    """The values of an image with one number for each pixel; of a palette, the indices.

    A colour is the number R + 256 G + 65536 B, as in COCO's panoptic masks. It is turned, and GCNetError
    raised, as in `read_image`.
    """
    with opened(path) as file, blamed(path):
        image = read_header(file, max_pixels)
        orientation = orientation_of(image)  # before decoding, as everywhere: it may find other EXIF data
        return _turn(_numbers(image), orientation)


def _numbers(image: Image.Image) -> Integer[np.ndarray, "H W"]:
    if image.mode in ("P", "L") or image.mode.startswith("I"):
        return np.array(image)
    if image.mode in ("1", "LA"):
        return np.array(image.convert("L"))
    if image.mode == "F":
        values = np.array(image)
        with np.errstate(invalid="ignore"):  # of NaN, which is no whole number
            numbers = values.astype(np.int32)
        if (numbers != values).any():
            raise GCNetError("has values that are no whole numbers; save masks as PNG")
        return numbers
    red, green, blue = (np.asarray(band) for band in image.convert("RGB").split())
    numbers = red.astype(np.int32)
    for band, bits in ((green, 8), (blue, 16)):
        numbers |= np.left_shift(band, bits, dtype=np.int32)
    return numbers


def read_cutout(data: bytes, *, max_pixels: int | None = None) -> Bool[np.ndarray, "H W"]:
    """Where the image in a file's bytes is opaque, or, in one without opacity, not 0.

    Raises GCNetError as `read_image` does.
    """
    with blamed("a mask given as bytes"):
        image = read_header(io.BytesIO(data), max_pixels)
        if image.has_transparency_data:
            image = image.convert("RGBA").getchannel("A")
        values = np.array(image)
        return (values.max(-1) if values.ndim == 3 else values) > 0


def is_coloured(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> bool:
    """Whether an image has colours, and not one value for each pixel, as `read_index_mask` tells apart."""
    with opened(path) as file, blamed(path):
        mode = read_header(file, max_pixels).mode
        return mode not in ("P", "L", "1", "LA", "F") and not mode.startswith("I")


def as_rgb_array(image: Any, *, max_pixels: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """An image from a path, a file's bytes, a file opened in binary, a PIL image, an array or a tensor.

    Opened files are read from their beginning, if they can go there. PIL images are turned as their EXIF
    orientation says. Arrays are H x W or H x W x C, tensors H x W or C x H x W. Their values are of uint8, of
    uint16 (read at the range that is used, of 8 to 16 bits), or floats in [0, 1]. C is 1 (gray), 2 (gray and
    opacity), 3 (RGB) or 4 (RGB and opacity). What is not opaque is laid on white. An H x W x 3 uint8 array is
    returned as it is.

    Raises GCNetError where it is nothing of the kind, or as `read_image` does.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, max_pixels=max_pixels)
    if hasattr(image, "read") and not hasattr(image, "encoding"):  # text has one
        with blamed("the image given as an opened file"):
            if getattr(image, "seekable", bool)():
                image.seek(0)
            image = image.read()
    if isinstance(image, bytes | bytearray | memoryview):
        with blamed("the image given as bytes"):
            return _decode(io.BytesIO(image), "the image given as bytes", True, max_pixels)
    if isinstance(image, Image.Image):
        with blamed("the PIL image"):
            check_size(image, max_pixels)
            return _turn(_pixels(image), orientation_of(image))
    name = "an image array"
    if hasattr(image, "is_floating_point"):  # a tensor, recognised without importing PyTorch
        try:
            image = image.detach().cpu()
            image = (image.float() if image.is_floating_point() else image).numpy()
        except (RuntimeError, TypeError):  # on the device "meta", sparse
            kind = f"{image.dtype} tensor, {image.layout}, on {image.device}"
            raise GCNetError(f"an image is a {kind}, whose values cannot be read; give {KINDS}") from None
        if image.ndim == 3:
            image, name = np.moveaxis(image, 0, -1), "a C x H x W tensor, as H x W x C,"
    if not isinstance(image, np.ndarray):
        raise GCNetError(f"an image is a {type(image).__name__}; give {KINDS}")
    with blamed(name):
        return as_rgb(image)


def as_list(images: Any | Sequence[Any]) -> Sequence[Any]:
    """One image, as `as_rgb_array` takes it, or several, as a list. The bytes of a file are one."""
    one = isinstance(images, str | bytes | bytearray | memoryview) or not isinstance(images, Sequence)
    return [images] if one else images


def _decode(file: File, name: str, turned: bool, max_pixels: int | None) -> UInt8[np.ndarray, "H W 3"]:
    image = read_header(file, max_pixels)
    orientation = orientation_of(image) if turned else 1
    if image.mode not in ("L", "RGB"):
        pixels = _pixels(image)
    elif image.format in ("JPEG", "MPO"):
        pixels = _jpeg_pixels(file, image, name)
    elif image.format == "PNG" and _is_plain(image):
        pixels = _png_pixels(file, image)
    else:
        pixels = _pixels(image)
    return _turn(pixels, orientation)


def _turn(image: Integer[np.ndarray, "H W *_"], orientation: int) -> Integer[np.ndarray, "h w *_"]:
    if orientation == 1:
        return image
    image = image.swapaxes(0, 1) if orientation >= 5 else image
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _jpeg_pixels(file: File, image: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a JPEG. All decoders here agree to the last bit, and Pillow is the slowest.

    Damage inside a JPEG may shift or recolour a part of it; the rest is good, and is used.
    """
    data = _content(file, image)
    if data.count(_SCAN) > _MOST_SCANS and not _of_few_scans(data):
        raise GCNetError("is a JPEG of more passes than an encoder makes; save it again, or remove it")
    if simplejpeg is not None:
        try:
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        except ValueError as error:
            pixels = _pixels(image)  # says so if the file is cut off
            if "Corrupt" in str(error):
                _tell_of_damage(name, str(error))
            return pixels
    complete = data.find(_END, max(data.rfind(_SCAN), 0)) > 0
    if not complete:  # OpenCV fills the missing part with gray; Pillow reports it
        return _pixels(image)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    return _pixels(image) if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _of_few_scans(data: bytes) -> bool:
    """Whether a JPEG has few scans up to its end. After that, in a video say, any bytes may stand."""
    scans, place = 0, 0
    for _ in range(_MOST_MARKS):
        mark = _MARK.search(data, place)
        if mark is None or mark[0] == _END:
            return scans <= _MOST_SCANS
        scans += mark[0] == _SCAN
        place = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2])
    return False


def _is_plain(image: Image.Image) -> bool:
    """Whether a PNG holds one image of opaque colours of eight bits."""
    alone = getattr(image, "n_frames", 1) == 1
    return alone and not image.has_transparency_data and not _has_16_bits(image)


def _png_pixels(file: File, image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a plain PNG, whose checksums are right: OpenCV is faster than Pillow."""
    image.verify()  # raises if it is damaged; OpenCV would write to stderr
    pixels = cv2.imdecode(np.frombuffer(_content(file, image), np.uint8), _AS_STORED)
    if pixels is None:
        raise GCNetError("is a damaged image file (its pixels cannot be decoded); restore or remove it")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _content(file: File, image: Image.Image) -> bytes:
    """The bytes of a file; of a huge one, at most as many as such an image may have."""
    width, height = image.size
    file.seek(0)
    data = file.read(8 * width * height + _OTHER_DATA)
    file.seek(0)
    return data


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a PIL image as they are stored."""
    deep = _deep_values(image)
    if deep is not None:
        return as_rgb(deep)
    image.load()
    width, height = image.size
    rows = max(_STRIP // width, 1)
    if rows >= height:
        return as_rgb(_simple_values(image))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):  # Pillow holds four bytes a pixel: to copy all at once takes as many
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = as_rgb(_simple_values(strip))
    return pixels


def _simple_values(image: Image.Image) -> UInt8[np.ndarray, "..."]:
    """The values of a gray, RGB or RGBA image."""
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.array(image)


def _deep_values(image: Image.Image) -> Shaped[np.ndarray, "H W *_"] | None:
    """The values of an image that has more than eight bits."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return values.astype(np.uint16) if values.min() >= 0 and values.max() < 1 << 16 else values
    return _deep_colours(image)


def _deep_colours(image: Image.Image) -> UInt16[np.ndarray, "H W _"] | None:
    """The colours of 16 bits in a file that is not yet decoded: Pillow keeps their upper eight bits."""
    file = getattr(image, "fp", None)
    of_first = image.tell() == 0  # OpenCV reads no other image of a file
    if file is None or not of_first or image.mode not in ("RGB", "RGBA", "LA") or not _has_16_bits(image):
        return None
    file.seek(0)
    data = file.read()
    image.load()  # tells of damage, which OpenCV passes over
    colours = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if colours is None or colours.dtype != np.uint16 or colours.ndim != 3:
        return None
    order = cv2.COLOR_BGR2RGB if colours.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(colours, order)


def _has_16_bits(image: Image.Image) -> bool:
    """Whether an image that is not yet decoded has 16 bits a channel in its file."""
    tile = getattr(image, "tile", None)
    return bool(tile) and ";16" in str(tile[0][3])


@lru_cache(_TOLD)
def _tell_of_damage(name: str, problem: str) -> None:
    """Warns once for each damaged file."""
    log.warning("%s is damaged inside (%s): what can be read of it is used", one_line(name), problem)
