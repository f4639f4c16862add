"""Damaged and hostile image files: bytes flipped, cut, repeated, and sizes made huge."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from gcnet.ops.decode import image_size, read_image
from gcnet.ops.images import fit_size, middle_square, resize_image

# Format, suffix, mode and what is said to the encoder.
ENCODINGS: tuple[tuple[str, str, str, dict[str, object]], ...] = (
    ("JPEG", ".jpg", "RGB", {"quality": 80}),
    ("JPEG", ".jpg", "RGB", {"quality": 80, "subsampling": 0, "restart_marker_rows": 1}),
    ("JPEG", ".jpg", "RGB", {"progressive": True}),
    ("JPEG", ".jfif", "L", {}),
    ("JPEG", ".jpeg", "CMYK", {}),
    ("PNG", ".png", "RGB", {}),
    ("PNG", ".png", "RGBA", {}),
    ("PNG", ".png", "LA", {}),
    ("PNG", ".png", "P", {"transparency": 3}),
    ("PNG", ".png", "1", {}),
    ("PNG", ".png", "I;16", {}),
    ("GIF", ".gif", "P", {"transparency": 3}),
    ("BMP", ".bmp", "RGB", {}),
    ("BMP", ".bmp", "P", {}),
    ("TIFF", ".tif", "RGB", {}),
    ("TIFF", ".tiff", "RGBA", {"compression": "tiff_lzw"}),
    ("TIFF", ".tif", "I;16", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", ".tif", "F", {}),
    ("TIFF", ".tif", "RGB", {"compression": "jpeg"}),
    ("WEBP", ".webp", "RGB", {}),
    ("WEBP", ".webp", "RGBA", {"lossless": True}),
    ("WEBP", ".webp", "RGB", {"save_all": True}),
    ("AVIF", ".avif", "RGB", {"speed": 10, "max_threads": 1}),
    ("JPEG2000", ".jp2", "RGB", {}),
    ("PPM", ".ppm", "RGB", {}),
)
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 14_000, 60_000)


def write(chance: random.Random, folder: Path) -> Path:
    if chance.random() < 0.15:
        return chance.choice(SPECIALS)(chance, folder)
    kind, suffix, mode, options = chance.choice(ENCODINGS)
    data = bytearray(_encode(chance, kind, mode, options))
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        data = chance.choice(DAMAGES)(chance, data)
    if chance.random() < 0.1:  # the name says another format than the content
        suffix = chance.choice(ENCODINGS)[1]
    path = folder / f"picture{suffix}"
    path.write_bytes(data)
    return path


def read(path: Path) -> object:
    image_size(path)
    image = read_image(path)
    resize_image(image, fit_size((image.shape[0], image.shape[1]), (1333, 800)))
    return middle_square(image, (256, 224))


def _encode(chance: random.Random, kind: str, mode: str, options: dict[str, object]) -> bytes:
    height, width = chance.randint(1, 80), chance.randint(1, 80)
    noise = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height))
    if mode in ("F", "I;16"):
        values = np.asarray(image.convert("L"))
        image = Image.fromarray(values / np.float32(255) if mode == "F" else values.astype(np.uint16) * 200)
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = chance.randint(0, 9)
    extra: dict[str, object] = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "AVIF") else {}
    if "save_all" in options:
        extra["append_images"] = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    file = io.BytesIO()
    image.save(file, kind, **extra, **options)
    return file.getvalue()


# Damage ------------------------------------------------------------------------------------------------


def _flip(chance: random.Random, data: bytearray) -> bytearray:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _overwrite(chance: random.Random, data: bytearray) -> bytearray:
    """An extreme number, in either byte order, most often where headers are."""
    size = chance.choice((1, 2, 4))
    at = int(len(data) * chance.random() ** 3)
    order = chance.choice(("little", "big"))
    data[at : at + size] = (chance.choice(EXTREMES) & (1 << 8 * size) - 1).to_bytes(size, order)
    return data


def _cut(chance: random.Random, data: bytearray) -> bytearray:
    return data[: chance.randint(0, len(data))]


def _remove(chance: random.Random, data: bytearray) -> bytearray:
    at = chance.randint(0, len(data))
    del data[at : at + chance.choice((1, 4, 50))]
    return data


def _repeat(chance: random.Random, data: bytearray) -> bytearray:
    at = chance.randint(0, len(data))
    part = data[at : at + chance.choice((1, 16, 200))]
    data[at:at] = part * chance.choice((1, 2, 100))
    return data


def _splice(chance: random.Random, data: bytearray) -> bytearray:
    kind, _, mode, options = chance.choice(ENCODINGS)
    other = _encode(chance, kind, mode, options)
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


DAMAGES = (_flip, _flip, _overwrite, _overwrite, _overwrite, _cut, _remove, _repeat, _splice)


# Bombs, and what is no image file ----------------------------------------------------------------------


def webp_of_size(width: int, height: int) -> bytes:
    """34 bytes that promise so many pixels."""
    chunk = b"VP8L" + struct.pack("<IBI", 13, 0x2F, (width - 1) | (height - 1) << 14) + bytes(9)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def png_of_size(width: int, height: int, *, colour: int = 0, bits: int = 1, rows: int = 100) -> bytes:
    """Zeros, compressed to a thousandth; not all of the promised `rows`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(bytes((width * bits * channels + 7) // 8 + 1) * min(rows, height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _side(chance: random.Random) -> int:
    return chance.choice((1, 100, 9_000, 14_000, 16_383, 20_000, 65_535))


def _bomb(chance: random.Random, folder: Path) -> Path:
    width, height = _side(chance), _side(chance)
    kind = chance.choice(("png", "webp", "gif", "bmp", "ppm", "tif"))
    if kind == "png":
        colour, bits = chance.choice(((0, 1), (0, 16), (2, 8), (2, 16), (6, 8)))
        whole = width * height * bits <= 1 << 28 and chance.random() < 0.3
        data = png_of_size(width, height, colour=colour, bits=bits, rows=height if whole else 100)
    elif kind == "webp":
        data = webp_of_size(min(width, 16_383), min(height, 16_383))
    elif kind == "gif":
        data = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
        data += b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"
    elif kind == "bmp":
        data = b"BM" + struct.pack("<IIIIiiHHIIIIII", 100, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    elif kind == "ppm":
        data = f"P6 {width} {height} 255 ".encode() + bytes(100)
    else:
        data = bytearray(_encode(chance, "TIFF", "RGB", {}))
        place = data.find(struct.pack("<HHI", 256, 4, 1)[:4])
        data[place + 8 : place + 12] = struct.pack("<I", width)
    path = folder / f"bomb.{kind}"
    path.write_bytes(data)
    return path


def _tall(chance: random.Random, folder: Path) -> Path:
    path = folder / "tall.png"
    size = chance.choice(((1, 60_000), (60_000, 1), (2, 30_000), (16_000, 2)))
    Image.new("RGB", size, (chance.randrange(256), 9, 9)).save(path)
    return path


def _scans(chance: random.Random, folder: Path) -> Path:
    """A progressive JPEG that says the same over and over."""
    data = _encode(chance, "JPEG", "RGB", {"progressive": True})
    last = data.rfind(b"\xff\xda")
    path = folder / "scans.jpg"
    path.write_bytes(data[:last] + data[last:-2] * chance.choice((10, 90, 5000)) + data[-2:])
    return path


def _program(chance: random.Random, folder: Path) -> Path:
    """A file that other programs would be started for, or that is no image at all."""
    path = folder / "program.jpg"
    content = (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"%PDF-1.4\n", b"", b"hello\n")
    path.write_bytes(chance.choice((*content, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"P5", b"BM")))
    return path


def put_no_file(chance: random.Random, path: Path) -> None:
    """Something that is no file, or nothing, of this name."""
    kind = chance.choice(("pipe", "folder", "device", "loop", "nothing"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path.name)


def _no_file(chance: random.Random, folder: Path) -> Path:
    path = folder / "none.jpg"
    put_no_file(chance, path)
    return path


SPECIALS = (_bomb, _bomb, _bomb, _tall, _scans, _program, _no_file)
