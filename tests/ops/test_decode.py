"""The same picture gives the same pixels, whatever it is handed over as; what is none is told in a line."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gcnet.errors import GCNetError
from gcnet.image_files import IMAGE_SUFFIXES
from gcnet.ops import decode
from gcnet.ops.decode import (
    as_rgb_array,
    image_size,
    is_coloured,
    read_image,
    read_index_mask,
    read_small,
)


@pytest.fixture
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(noise, (120, 90), interpolation=cv2.INTER_CUBIC)


def encoded(picture: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_reads_rgb_exactly(kind: str, options: dict, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(picture, kind, **options))
    np.testing.assert_array_equal(read_image(path), picture)


@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.98])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("BMP", {}), ("WEBP", {})],
)
def test_a_truncated_file_is_an_error(
    kind: str, options: dict, fraction: float, picture: np.ndarray, tmp_path: Path
) -> None:
    data = encoded(picture, kind, **options)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(GCNetError, match=r"cut\.img is a damaged image file"):
        read_image(path)


def test_a_thumbnail_does_not_hide_truncation(picture: np.ndarray, tmp_path: Path) -> None:
    """A camera's EXIF block holds a small JPEG with an end marker of its own."""
    exif = b"Exif\0\0" + encoded(picture[::4, ::4].copy(), "JPEG")
    data = encoded(picture, "JPEG", exif=exif)
    path = tmp_path / "camera.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == picture.shape
    path.write_bytes(data[: len(data) // 2 + len(exif) // 2])
    with pytest.raises(GCNetError, match="truncated"):
        read_image(path)


def test_bytes_after_the_end_are_harmless(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "motion.jpg"
    video = np.random.default_rng(0).bytes(10_000_000)
    assert video.count(b"\xff\xda") > 100  # the mark of a JPEG's scan, by chance
    path.write_bytes(encoded(picture, "JPEG") + video)
    np.testing.assert_array_equal(read_image(path), as_rgb_array(encoded(picture, "JPEG")))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.jpg"
    path.write_bytes(content)
    with pytest.raises(GCNetError, match=r"no\.jpg"):
        read_image(path)


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="does not exist"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(GCNetError, match="is a folder, no image file"):
        read_image(tmp_path)


def test_one_picture_gives_one_array(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    floats = picture / 255.0
    images = {
        "path": path,
        "string": str(path),
        "bytes": path.read_bytes(),
        "PIL": Image.open(path),
        "floats": floats,
        "half": floats.astype(np.float16),
        "16 bits": picture.astype(np.uint16) << 8 | 255,
        "opaque": np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]),
        "tensor": torch.from_numpy(picture).permute(2, 0, 1),
        "float tensor": torch.from_numpy(floats).permute(2, 0, 1).float(),
    }
    for kind, image in images.items():
        np.testing.assert_array_equal(as_rgb_array(image), picture, err_msg=kind)
    assert as_rgb_array(picture) is picture


def test_gray_is_gray_in_every_form(picture: np.ndarray, tmp_path: Path) -> None:
    gray = picture[..., 0]
    Image.fromarray(gray).save(tmp_path / "a.png")
    Image.fromarray(gray).save(tmp_path / "a.jpg", quality=90)
    expected = np.repeat(gray[:, :, None], 3, axis=2)
    tensor = torch.from_numpy(gray.copy())
    for image in (tmp_path / "a.png", Image.fromarray(gray), gray, gray[:, :, None], tensor, tensor[None]):
        np.testing.assert_array_equal(as_rgb_array(image), expected)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.jpg"), as_rgb_array(Image.open(tmp_path / "a.jpg"))
    )
    bits = Image.fromarray(gray).convert("1")
    assert set(np.unique(as_rgb_array(np.array(bits)))) == {0, 255}
    np.testing.assert_array_equal(as_rgb_array(np.array(bits)), as_rgb_array(bits))


def test_what_is_transparent_lies_on_white(picture: np.ndarray, tmp_path: Path) -> None:
    opacity = np.zeros(picture.shape[:2], np.uint8)
    opacity[:, 30:60], opacity[:, 60:] = 51, 255
    clear = np.dstack([picture, opacity])
    found = as_rgb_array(clear)
    assert (found[:, :30] == 255).all()
    assert np.abs(found[:, 30:60] - (0.2 * picture[:, 30:60] + 0.8 * 255)).max() <= 0.5
    np.testing.assert_array_equal(found[:, 60:], picture[:, 60:])

    image = Image.fromarray(clear)
    forms: list[object] = [clear / 255.0, image, torch.from_numpy(clear).permute(2, 0, 1)]
    for suffix, options in ((".png", {}), (".tif", {}), (".webp", {"lossless": True, "exact": True})):
        image.save(tmp_path / f"a{suffix}", **options)
        forms += [tmp_path / f"a{suffix}", Image.open(tmp_path / f"a{suffix}")]
    for form in forms:
        np.testing.assert_array_equal(as_rgb_array(form), found)
    gray = clear[..., [0, 3]]
    np.testing.assert_array_equal(as_rgb_array(Image.fromarray(gray, "LA")), as_rgb_array(gray))
    np.testing.assert_array_equal(as_rgb_array(gray), as_rgb_array(clear[..., [0, 0, 0, 3]]))


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_with_a_transparent_colour(suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) // 16, "P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    image.save(tmp_path / f"a{suffix}", transparency=1)
    for form in (tmp_path / f"a{suffix}", Image.open(tmp_path / f"a{suffix}")):
        rows = as_rgb_array(form)[::2, 0].tolist()
        assert rows == [[200, 0, 0], [255, 255, 255], [0, 0, 200], [9, 9, 9]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_form(orientation: int, picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, exif=exif, quality=95)
    shown = np.array(ImageOps.exif_transpose(Image.open(path)))
    for form in (path, path.read_bytes(), Image.open(path), ImageOps.exif_transpose(Image.open(path))):
        np.testing.assert_array_equal(as_rgb_array(form), shown)
    assert image_size(path) == shown.shape[:2]
    np.testing.assert_array_equal(read_image(path, turned=False), np.array(Image.open(path)))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".avif", ".tif"])
def test_other_formats_are_turned_too(suffix: str, picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(path, exif=exif)
    assert read_image(path).shape == (120, 90, 3)
    assert image_size(path) == (120, 90)
    np.testing.assert_array_equal(as_rgb_array(Image.open(path)), read_image(path))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_masks_are_turned_as_images_are(suffix: str, tmp_path: Path) -> None:
    numbers = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 8, 0).repeat(8, 1)
    image, path = Image.fromarray(numbers), tmp_path / f"a{suffix}"
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        image.save(path, exif=exif, lossless=True)
        mask = read_index_mask(path)
        np.testing.assert_array_equal(read_image(path)[..., 0], mask & 255)
        assert mask.shape == image_size(path)


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    """Where ImageMagick writes it: the same for all, before it is decoded and after."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    place, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    last = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:place] + data[end:last] + data[place:end] + data[last:])
    path = tmp_path / "a.png"
    shapes = read_image(path).shape[:2], read_index_mask(path).shape, read_small(path, 9).shape[:2]
    assert {*shapes, image_size(path)} == {(12, 9)}
    opened = Image.open(path)
    for form in (path.read_bytes(), opened, opened):  # the second time it is decoded
        assert as_rgb_array(form).shape == (12, 9, 3)
    path.write_bytes(path.read_bytes().replace(b"eXIfMM", b"eXIfII"))  # whose checksum is wrong
    assert image_size(path) == (9, 12)


def test_a_mask_of_floats_holds_whole_numbers(tmp_path: Path) -> None:
    """ImageJ saves numbers of objects so; as colours all beyond 255 would be one."""
    numbers = np.arange(600, dtype=np.float32).reshape(20, 30)
    Image.fromarray(numbers).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_index_mask(tmp_path / "a.tif"), numbers)
    assert not is_coloured(tmp_path / "a.tif")
    Image.fromarray(numbers + 0.5).save(tmp_path / "a.tif")
    with pytest.raises(GCNetError, match=r"a\.tif has values that are no whole numbers"):
        read_index_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [s for s in IMAGE_SUFFIXES if s not in (".heic", ".heif")])
def test_every_suffix_that_is_found_is_read(suffix: str, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    Image.fromarray(picture).convert(mode).save(path, {".apng": "PNG"}.get(suffix))
    assert read_image(path).shape == picture.shape
    assert image_size(path) == picture.shape[:2]
    np.testing.assert_array_equal(read_image(path), as_rgb_array(Image.open(path)))


def test_of_many_pictures_in_a_file_the_first_is_read(picture: np.ndarray, tmp_path: Path) -> None:
    first, second = Image.fromarray(picture), Image.fromarray(255 - picture)
    for suffix in (".gif", ".tif", ".webp", ".png"):
        path = tmp_path / f"a{suffix}"
        first.save(path, save_all=True, append_images=[second], lossless=True)
        off = np.abs(read_image(path).astype(int) - picture).mean()
        assert off < 15, suffix


def test_colours_of_cmyk_are_pillows(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    expected = np.array(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize(("bits", "shift"), [(8, 0), (10, 2), (12, 4), (14, 6), (16, 8)])
def test_16_bits_are_read_at_the_range_that_is_used(bits: int, shift: int, tmp_path: Path) -> None:
    """The same through a file, Pillow and an array."""
    deep = np.linspace(0, 2**bits - 1, 40 * 50).reshape(40, 50).astype(np.uint16)
    expected = np.repeat((deep >> shift).astype(np.uint8)[:, :, None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    images = (
        tmp_path / "a.png",
        Image.open(tmp_path / "a.png"),
        deep,
        np.repeat(deep[:, :, None], 3, axis=2),
    )
    for image in images:
        np.testing.assert_array_equal(as_rgb_array(image), expected)


@pytest.mark.parametrize("kind", ["RGB", "RGBA"])
def test_colours_of_16_bits_keep_their_range(kind: str, tmp_path: Path) -> None:
    """Pillow keeps the upper eight bits of each, and a picture of 12 bits would be nearly black."""
    deep = np.random.default_rng(0).integers(0, 1 << 12, (20, 30, 3)).astype(np.uint16)
    deep[0, 0] = (1 << 12) - 1
    expected = (deep >> 4).astype(np.uint8)
    path = tmp_path / "a.png"
    stored = deep[..., ::-1]
    if kind == "RGBA":
        stored = np.dstack([stored, np.full(deep.shape[:2], 65535, np.uint16)])
        stored[5:, :, 3] = 0
        expected[5:] = 255
    cv2.imwrite(str(path), stored)
    for form in (path, path.read_bytes(), Image.open(path)):
        np.testing.assert_array_equal(as_rgb_array(form), expected)


def test_a_later_image_of_a_file_is_not_taken_for_the_first(tmp_path: Path) -> None:
    first = np.full((20, 30, 3), 40_000, np.uint16)
    path = tmp_path / "a.tif"
    assert cv2.imwritemulti(str(path), [first, first // 2])
    image = Image.open(path)
    image.seek(1)
    assert as_rgb_array(image)[0, 0].tolist() == [20_000 >> 8] * 3


@pytest.mark.parametrize("values", [[-0.5, 1.0], [0.0, 255.0], [float("nan"), 0.5]])
def test_floats_are_between_0_and_1(values: list[float]) -> None:
    with pytest.raises(GCNetError, match=r"an image array has float64 values from .* floats in \[0, 1\]"):
        as_rgb_array(np.array([values]))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 4, 3), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.array([["a"]]),
        None,
        [[1]],
        io.StringIO("a"),
        SimpleNamespace(read=lambda: None),
        torch.empty(3, 9, 9, device="meta"),
        torch.ones(3, 9, 9).to_sparse(),
    ],
)
def test_as_rgb_array_refuses_other_things(image: object) -> None:
    with pytest.raises(GCNetError, match="H x W x 3 uint8"):
        as_rgb_array(image)


def test_a_tensor_with_its_channels_last_is_told_as_the_tensor_that_it_is() -> None:
    with pytest.raises(GCNetError, match=r"a C x H x W tensor, as H x W x C, is uint8 of shape \(9, 3, 5\)"):
        as_rgb_array(torch.zeros(5, 9, 3, dtype=torch.uint8))


def test_opened_files_are_read_from_their_beginning(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    Image.fromarray(picture).save(buffer := io.BytesIO(), "png")
    with open(path, "rb") as file:
        for form in (buffer, buffer, file, SimpleNamespace(read=path.read_bytes)):
            np.testing.assert_array_equal(as_rgb_array(form), picture)
    with pytest.raises(GCNetError, match="as an opened file is a damaged"):
        as_rgb_array(file)
    with open(path, "wb") as file, pytest.raises(GCNetError, match=r"as an opened file .*\(read\)"):
        as_rgb_array(file)


# What a stranger hands over ----------------------------------------------------------------------------


def webp_of_size(width: int, height: int) -> bytes:
    """34 bytes that promise so many pixels."""
    chunk = b"VP8L" + struct.pack("<IBI", 13, 0x2F, (width - 1) | (height - 1) << 14) + bytes(9)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def png_of_size(width: int, height: int) -> bytes:
    """Its zeros are compressed to a thousandth, of one bit each."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [webp_of_size(16383, 16383), png_of_size(100_000, 100_000)])
def test_more_pixels_than_allowed_are_refused_from_the_header(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(content)
    for read in (read_image, image_size, lambda path: as_rgb_array(path.read_bytes())):
        problem = r"has (\d+ x \d+ pixels, )?more (than 200,000,000; shrink it$|pixels)"  # no option helps
        with pytest.raises(GCNetError, match=problem):
            read(path)


def test_the_limit_of_pixels_can_be_chosen(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    assert read_image(path, max_pixels=90 * 120).shape == picture.shape
    for form in (path, path.read_bytes(), Image.open(path)):
        with pytest.raises(GCNetError, match=r"has 120 x 90 pixels, more than 10,799; shrink it, or raise"):
            as_rgb_array(form, max_pixels=90 * 120 - 1)


def test_a_large_picture_is_converted_in_strips(monkeypatch: pytest.MonkeyPatch, picture: np.ndarray) -> None:
    monkeypatch.setattr(decode, "_STRIP", 1000)
    clear = np.dstack([picture, picture[..., 0]])
    np.testing.assert_array_equal(as_rgb_array(Image.fromarray(clear)), as_rgb_array(clear))


def test_no_other_program_reads_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS is read by Ghostscript, whatever its name is."""
    Image.new("RGB", (20, 20)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    monkeypatch.setattr(subprocess, "Popen", None)
    for read in (read_image, image_size, read_index_mask):
        with pytest.raises(GCNetError, match=r"a\.jpg is not an image that can be read"):
            read(tmp_path / "a.jpg")


def test_pipes_devices_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name, kind in (
        ("pipe", "a pipe"),
        ("folder", "a folder"),
        ("endless", "a pipe, a socket or a device"),
    ):
        for read in (read_image, image_size, read_index_mask):
            with pytest.raises(GCNetError, match=rf"^{tmp_path}/{name}\.jpg is {kind}"):
                read(tmp_path / f"{name}.jpg")
    with pytest.raises(GCNetError, match="cannot be read"):
        read_image("a\0b.jpg")
    with pytest.raises(GCNetError, match="cannot be read"):
        read_image("x" * 300 + ".jpg")


def test_damage_in_a_png_is_told(picture: np.ndarray, tmp_path: Path) -> None:
    data = bytearray(encoded(picture, "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(GCNetError, match="the image given as bytes is a damaged image file"):
        as_rgb_array(bytes(data))


def test_no_decoder_writes_lines_of_its_own(picture: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (encoded(picture, "PNG"), encoded(picture, "TIFF")):
        broken = bytearray(data)
        broken[len(data) // 2 :] = broken[len(data) // 2 + 9 :]
        with pytest.raises(GCNetError):
            as_rgb_array(bytes(broken))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_damage_inside_a_jpeg_is_told(
    options: dict, picture: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end is there, and no decoder refuses it."""
    pytest.importorskip("simplejpeg")
    data = bytearray(encoded(picture, "JPEG", **options))
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    whole = read_image(path)
    assert caplog.messages == []
    scan = data.find(b"\xff\xda")
    data[scan + 400 : scan + 420] = b"\xff\x00" * 10
    path.write_bytes(data)
    for _ in range(3):
        damaged = read_image(path)
    assert len(caplog.messages) == 1
    assert "a.jpg is damaged inside (Corrupt JPEG data: " in caplog.messages[0]
    np.testing.assert_array_equal(damaged, as_rgb_array(Image.open(path)))
    assert damaged.shape == whole.shape


def test_a_jpeg_of_a_thousand_passes_is_refused(picture: np.ndarray) -> None:
    data = encoded(picture, "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    comment = b"\xff\xfe\0\x04\xff\xd9"  # with the mark of an end in it
    for before in (b"", comment):
        scans = data[:last] + (before + data[last:-2]) * 1000 + data[-2:]
        with pytest.raises(GCNetError, match="more passes than an encoder makes"):
            as_rgb_array(scans)
    with pytest.raises(GCNetError, match="more passes than an encoder makes"):
        as_rgb_array(data[:-2] + comment * 100_000 + b"\xff\xda" * 101 + data[-2:])


def test_heic_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(GCNetError, match=r"a\.heic is a HEIC image: pip install 'gcnet\[heic\]'"):
        read_image(tmp_path / "a.heic")


def test_small_copies_are_gray_turned_and_cheap(tmp_path: Path) -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    image[:300] = (0, 200, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(image).save(tmp_path / "a.png")
    small = read_small(tmp_path / "a.jpg", 64)
    assert small.shape == (100, 75, 3)
    assert np.ptp(small[20].astype(int), axis=1).max() == 0
    assert small[50, 70, 0] > 100 > small[50, 5, 0]  # turned: what was above is at the right
    assert read_small(tmp_path / "a.png", 64).shape == (600, 800, 3)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    with pytest.raises(GCNetError, match=r"b\.jpg"):
        read_small(tmp_path / "b.jpg", 64)
