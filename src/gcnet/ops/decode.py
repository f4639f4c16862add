"""Pictures of every kind, from files to tensors, into arrays. Images are H x W x 3 RGB uint8.

A file is a stranger's. Its format is one of a closed list, its size is known from its header before anything
is decoded, and what is broken in it ends in one line. The same picture gives the same pixels, whatever it is
handed over as.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Integer, Shaped, UInt8, UInt16
from PIL import (
    AvifImagePlugin,  # noqa: F401  importing these makes Pillow know their formats
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

try:
    import simplejpeg  # pyright: ignore[reportMissingImports]
except (
    ImportError
):  # there is no wheel for this machine: OpenCV gives the same pixels, but tells of no damage
    simplejpeg = None

from gcnet.console import one_line
from gcnet.errors import GCNetError
from gcnet.image_files import MAX_PIXELS

log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", module=r"PIL\.")  # of metadata that nothing here looks at

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, rows and columns are exchanged
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_MOST_SCANS = 100  # of a JPEG: encoders make a dozen, and each costs a pass over the whole image
_STRIP = 1 << 22  # pixels that are copied at a time
_OTHER_DATA = 1 << 26  # bytes in a JPEG that are no pixels: thumbnails, the video of a moving photograph

_TOLD = 1000  # damaged files that are remembered

_KINDS = "a path, bytes, a PIL image, an H x W x 3 uint8 RGB array or a 3 x H x W tensor"


class TooManyPixelsError(GCNetError):
    """An image is larger than is allowed; known before it is decoded."""


def read_image(
    path: str | os.PathLike[str],
    *,
    data: bytes | None = None,
    turned: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture in a file, `turned` as its EXIF orientation says (a TIFF always is), or as it is stored.

    Of several pictures in a file it is the first one; what is transparent is laid on white. `data` are the
    file's bytes, where they are at hand.
    Raises GCNetError naming the file where it is missing, unreadable, not an image in one of `FORMATS`, of
    more than `max_pixels`, or damaged.
    """
    with _opened(path, data) as file, _blamed(path):
        return _decode(file, str(path), turned, max_pixels)


def image_size(
    path: str | os.PathLike[str], *, data: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """(height, width) of the picture in a file, turned as its EXIF orientation says, from its header alone.

    Raises GCNetError as `read_image` does, but sees damage in the header alone.
    """
    with _opened(path, data) as file, _blamed(path):
        image = _header(file, max_pixels)
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_small(
    path: str | os.PathLike[str], least: int, *, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in a file, in gray. A JPEG is decoded at an eighth of its size, or as fits `least` a side.

    It is turned, and GCNetError raised, as in `read_image`.
    """
    with _opened(path) as file, _blamed(path):
        image = _header(file, max_pixels)
        image.draft("L", (least, least))
        return _turn(_pixels(image), _orientation(image))


def read_index_mask(
    path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS
) -> Integer[np.ndarray, "H W"]:
    """The numbers in an image of one number a pixel; of one with a palette, places in it and not its colours.

    A colour is the number R + 256 G + 65536 B, as in COCO's panoptic masks. Raises GCNetError as `read_image`
    does.
    """
    with _opened(path) as file, _blamed(path):
        image = _header(file, max_pixels)
        if image.mode in ("P", "L") or image.mode.startswith("I"):
            return np.array(image)
        if image.mode in ("1", "LA"):
            return np.array(image.convert("L"))
        red, green, blue = (np.asarray(band) for band in image.convert("RGB").split())
        numbers = red.astype(np.int32)
        for band, bits in ((green, 8), (blue, 16)):
            numbers |= np.left_shift(band, bits, dtype=np.int32)
        return numbers


def as_rgb_array(image: Any, *, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "H W 3"]:
    """An image from a path, the bytes of a file, a PIL image, an array or a tensor.

    PIL images are turned as their EXIF orientation says. Arrays are H x W or H x W x C, tensors H x W or
    C x H x W. Their values are of uint8, of uint16 (read at the range that is used, of 8 to 16 bits), or
    floats in [0, 1]. C is 1 (gray), 2 (gray and opacity), 3 (RGB) or 4 (RGB and opacity). What is not opaque
    is laid on white. An H x W x 3 uint8 array is returned as it is.

    Raises GCNetError where it is nothing of the kind, or as `read_image` does.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, max_pixels=max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        with _blamed("the image given as bytes"):
            return _decode(io.BytesIO(image), "the image given as bytes", True, max_pixels)
    if isinstance(image, Image.Image):
        with _blamed("the PIL image"):
            _check_size(image, max_pixels)
            return _turn(_pixels(image), _orientation(image))
    if hasattr(image, "detach"):  # a tensor: PyTorch is not needed to know one
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if not isinstance(image, np.ndarray):
        raise GCNetError(f"an image is a {type(image).__name__}; give {_KINDS}")
    with _blamed("an image array"):
        return _as_rgb(image)


def as_list(images: Any | Sequence[Any]) -> Sequence[Any]:
    """One image, as `as_rgb_array` takes it, or several, as a list. The bytes of a file are one."""
    one = isinstance(images, str | bytes | bytearray | memoryview) or not isinstance(images, Sequence)
    return [images] if one else images


# Files -------------------------------------------------------------------------------------------------


@contextmanager
def _opened(
    path: str | os.PathLike[str], data: bytes | None = None
) -> Iterator[io.BufferedReader | io.BytesIO]:
    """A file that is one: a pipe would be waited for, and a device may have no end."""
    if data is not None:
        yield io.BytesIO(data)
        return
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
        file = open(path, "rb") if regular else None  # noqa: SIM115  closed below
    except FileNotFoundError:
        raise GCNetError(f"{path} does not exist; check the path of the image") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GCNetError(f"{path} cannot be read ({reason}); give an image file") from None
    if file is None:
        kind = "a folder" if Path(path).is_dir() else "a pipe, a socket or a device"
        raise GCNetError(f"{path} is {kind}, no image file; leave it out")
    with file:
        yield file


@contextmanager
def _blamed(name: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the name before what is wrong with an image; decoders raise many kinds of errors."""
    try:
        yield
    except GCNetError as error:
        raise type(error)(f"{name} {error}") from None
    except MemoryError:
        raise GCNetError(f"{name} needs more memory than there is; shrink it, or leave it out") from None
    except Image.DecompressionBombError:
        raise GCNetError(f"{name} has more pixels than can be read; shrink it, or leave it out") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise GCNetError(f"{name} is a damaged image file ({reason}); restore or remove it") from None


def _decode(
    file: io.BufferedReader | io.BytesIO, name: str, turned: bool, max_pixels: int
) -> UInt8[np.ndarray, "H W 3"]:
    image = _header(file, max_pixels)
    orientation = _orientation(image) if turned else 1
    if image.mode not in ("L", "RGB"):
        pixels = _pixels(image)
    elif image.format in ("JPEG", "MPO"):
        pixels = _jpeg_pixels(file, image, name)
    elif image.format == "PNG" and _is_plain(image):
        pixels = _png_pixels(file, image)
    else:
        pixels = _pixels(image)
    return _turn(pixels, orientation)


def _header(file: io.BufferedReader | io.BytesIO, max_pixels: int) -> Image.Image:
    """The image, not yet decoded.

    It is not `Image.open`, which has a limit of its own for the size, the same for all that runs here.
    """
    head = file.read(32)
    formats = (*FORMATS, *_heic(head))
    for open_image, accepts in (Image.OPEN[name] for name in formats if name in Image.OPEN):
        if accepts and accepts(head) is True:
            file.seek(0)
            image = open_image(file, "")
            _check_size(image, max_pixels)
            return image
    raise GCNetError("is not an image that can be read; convert it to JPEG or PNG, or remove it")


def _heic(head: bytes) -> tuple[str, ...]:
    if head[4:12] not in _HEIC_BRANDS:
        return ()
    try:
        import pi_heif  # pyright: ignore[reportMissingImports]  an extra
    except ImportError:
        raise GCNetError("is a HEIC image: pip install 'gcnet[heic]', or convert it to JPEG") from None
    pi_heif.register_heif_opener()
    return ("HEIF",)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"has {width} x {height} pixels, more than {max_pixels:,}; shrink it, or raise --max-pixels"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, from 1 to 8, that is still to be followed."""
    if image.format == "TIFF":  # Pillow turns it by itself
        return 1
    if (
        image.format == "PNG" and "exif" not in image.info
    ):  # Pillow would decode it, to look behind the pixels
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data are none
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turn(image: UInt8[np.ndarray, "H W 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    if orientation == 1:
        return image
    image = image.transpose(1, 0, 2) if orientation >= 5 else image
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _jpeg_pixels(
    file: io.BufferedReader | io.BytesIO, image: Image.Image, name: str
) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a JPEG. All decoders here agree to the last bit, and Pillow is the slowest.

    Damage inside a JPEG may shift or recolour a part of it; the rest is good, and is used.
    """
    data = _content(file, image)
    if data.count(b"\xff\xda") > _MOST_SCANS:
        raise GCNetError("is a JPEG of more passes than an encoder makes; save it again, or remove it")
    if simplejpeg is not None:
        try:
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
        except ValueError as error:
            pixels = _pixels(image)  # says so if the file is cut off
            if "Corrupt" in str(error):
                _tell_of_damage(name, str(error))
            return pixels
    complete = data.find(b"\xff\xd9", max(data.rfind(b"\xff\xda"), 0)) > 0
    if not complete:  # OpenCV fills what a cut-off file lacks with gray, Pillow says so
        return _pixels(image)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    return _pixels(image) if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _is_plain(image: Image.Image) -> bool:
    """Whether a PNG is one picture of opaque colours of eight bits."""
    alone = getattr(image, "n_frames", 1) == 1
    return alone and not image.has_transparency_data and not _has_16_bits(image)


def _png_pixels(file: io.BufferedReader | io.BytesIO, image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a plain PNG, whose checksums are right: OpenCV is faster than Pillow."""
    image.verify()  # raises what is wrong; OpenCV writes lines of its own to stderr
    pixels = cv2.imdecode(np.frombuffer(_content(file, image), np.uint8), _AS_STORED)
    if pixels is None:
        raise GCNetError("is a damaged image file (its pixels cannot be decoded); restore or remove it")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _content(file: io.BufferedReader | io.BytesIO, image: Image.Image) -> bytes:
    """The bytes of a file, and of a huge one as many as such an image may have."""
    width, height = image.size
    file.seek(0)
    data = file.read(8 * width * height + _OTHER_DATA)
    file.seek(0)
    return data


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """What a PIL image shows, as it is stored."""
    deep = _deep_values(image)
    if deep is not None:
        return _as_rgb(deep)
    image.load()
    width, height = image.size
    rows = max(_STRIP // width, 1)
    if rows >= height:
        return _as_rgb(_simple_values(image))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):  # Pillow holds four bytes a pixel: to copy all at once takes as many
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = _as_rgb(_simple_values(strip))
    return pixels


def _simple_values(image: Image.Image) -> UInt8[np.ndarray, "..."]:
    """An array of gray, RGB or RGBA."""
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return np.array(image)


def _deep_values(image: Image.Image) -> Shaped[np.ndarray, "H W *_"] | None:
    """Values of more than eight bits, of an image that has them."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return values.astype(np.uint16) if values.min() >= 0 and values.max() < 1 << 16 else values
    return _deep_colours(image)


def _deep_colours(image: Image.Image) -> UInt16[np.ndarray, "H W _"] | None:
    """The colours of 16 bits in a file that is not yet decoded: Pillow keeps their upper eight bits."""
    file = getattr(image, "fp", None)
    if file is None or image.mode not in ("RGB", "RGBA", "LA") or not _has_16_bits(image):
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


# Arrays ------------------------------------------------------------------------------------------------


def _as_rgb(image: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "H W 3"]:
    channels = 1 if image.ndim == 2 else image.shape[-1]
    known = image.ndim in (2, 3) and channels in (1, 2, 3, 4) and image.dtype.kind in "buif"
    if not known or not image.size:
        raise GCNetError(f"is {image.dtype} of shape {image.shape}; give {_KINDS}")
    image = image[:, :, None] if image.ndim == 2 else image
    colours, opacity = image, None
    if channels in (2, 4):
        colours, opacity = image[..., :-1], image[..., -1:]
    colours = _as_bytes(colours)
    if opacity is not None and (opacity := _as_bytes(opacity, bits=16)).min() < 255:
        colours = _on_white(colours, opacity)
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else np.ascontiguousarray(colours)


def _as_bytes(values: Shaped[np.ndarray, "H W C"], bits: int | None = None) -> UInt8[np.ndarray, "H W C"]:
    """Values of uint8; of uint16 the upper eight of their bits; floats in [0, 1] times 255."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        if bits is None:
            _tell_of_16_bits()
            bits = next(bits for bits in (8, 10, 12, 14, 16) if int(values.max()) < 1 << bits)
        return (values >> (bits - 8)).astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    raise GCNetError(
        f"has {values.dtype} values from {low:g} to {high:g}; images are uint8, uint16, or floats in [0, 1]"
    )


def _on_white(
    colours: UInt8[np.ndarray, "H W C"], opacity: UInt8[np.ndarray, "H W 1"]
) -> UInt8[np.ndarray, "H W C"]:
    laid = np.empty_like(colours)
    for top in range(0, len(colours), 256):  # a strip at a time: in 16 bits they need twice the memory
        strip = slice(top, top + 256)
        alpha = opacity[strip].astype(np.uint16)
        laid[strip] = (colours[strip] * alpha + 255 * (255 - alpha) + 127) // 255
    return laid


@lru_cache(_TOLD)
def _tell_of_damage(name: str, problem: str) -> None:
    """A warning, once in a process for each file."""
    log.warning("%s is damaged inside (%s): what can be read of it is used", one_line(name), problem)


@cache
def _tell_of_16_bits() -> None:
    """A warning, once in a process."""
    log.warning("images have 16 bits a channel: each is read at the range that it uses, of 8 to 16 bits")
