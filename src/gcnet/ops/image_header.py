"""Reads the headers of image files before they are decoded: format, size and orientation.

Files come from strangers: only a fixed list of formats is opened, and the size is checked in the header.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

from gcnet.errors import GCNetError
from gcnet.image_files import MAX_PIXELS

warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata that is not used here

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
LFS_POINTER = b"version https://git-lfs"  # a clone without Git LFS has these in the place of large files
_HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")
_TAIL = 1 << 16  # bytes at the end of a PNG in which EXIF data are looked for
_ORIENTATION = 0x0112  # the EXIF tag; from 5 on, rows and columns are exchanged

File = io.BufferedReader | io.BytesIO


class TooManyPixelsError(GCNetError):
    """An image has too many pixels, which is known before it is decoded."""


@contextmanager
def opened(path: str | os.PathLike[str], data: bytes | None = None) -> Iterator[File]:
    """An opened file. Pipes and devices are refused: they could block or never end."""
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
def blamed(name: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the name of an image before errors of its decoder, which are of many kinds."""
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


def read_header(file: File, max_pixels: int | None) -> Image.Image:
    """The image, not yet decoded.

    It is not `Image.open`, which has a limit of its own for the size, the same for all that runs here.
    """
    head = file.read(32)
    formats = (*FORMATS, *_heic(head))
    for open_image, accepts in (Image.OPEN[name] for name in formats if name in Image.OPEN):
        if accepts and accepts(head) is True:
            file.seek(0)
            image = open_image(file, "")
            check_size(image, max_pixels)
            return image
    if head.startswith(LFS_POINTER):
        raise GCNetError("is a pointer of Git LFS, not the image; get it with `git lfs pull`")
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


def check_size(image: Image.Image, max_pixels: int | None) -> None:
    """Raises TooManyPixelsError for more than `max_pixels`; for None, more than no option allows."""
    width, height = image.size
    most, more = (MAX_PIXELS, "") if max_pixels is None else (max_pixels, ", or raise --max-pixels")
    if width * height > most:
        raise TooManyPixelsError(f"has {width} x {height} pixels, more than {most:,}; shrink it{more}")


def _exif_behind(image: Image.Image) -> bytes:
    """The EXIF data behind the pixels of a PNG that is not yet decoded; ImageMagick writes them there."""
    file = getattr(image, "fp", None)
    if file is None:
        return b""
    place = file.tell()
    start = file.seek(0, os.SEEK_END) - _TAIL
    file.seek(max(start, 0))
    tail = file.read()
    file.seek(place)
    begin = tail.rfind(b"eXIf") + 4
    end = begin + int.from_bytes(tail[begin - 8 : begin - 4])
    is_whole = begin >= 8 and zlib.crc32(tail[begin - 4 : end]) == int.from_bytes(tail[end : end + 4])
    return tail[begin:end] if is_whole else b""


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, from 1 to 8, that still has to be applied."""
    if image.format == "TIFF":  # Pillow turns it by itself
        return 1
    try:
        if image.format == "PNG" and "exif" not in image.info:
            if not (found := _exif_behind(image)):
                return 1
            image.info["exif"] = found  # Pillow would decode the image to find it
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data are none
        return 1
    return orientation if orientation in range(1, 9) else 1
