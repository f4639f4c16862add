from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gcnet.errors import GCNetError
from gcnet.ops.images import as_rgb_array, fit_size, read_image, resize_image, stack_images


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


def test_grey_and_transparent_files_become_rgb(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), picture[..., :1].repeat(3, axis=2))
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "clear.png")
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), picture)


def test_exif_orientation_is_applied(picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.fromarray(picture).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    turned = read_image(tmp_path / "turned.jpg")
    assert turned.shape == (120, 90, 3)
    assert np.abs(turned.astype(int) - np.rot90(picture, -1)).mean() < 8


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
    with pytest.raises(GCNetError, match=r"cut\.img is a truncated image file"):
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
    path.write_bytes(encoded(picture, "JPEG") + b"video" * 100)
    assert read_image(path).shape == picture.shape


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "no.jpg"
    path.write_bytes(content)
    with pytest.raises(GCNetError, match=r"no\.jpg"):
        read_image(path)


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="does not exist"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(GCNetError, match="cannot be read"):
        read_image(tmp_path)


def test_as_rgb_array_takes_paths_pil_and_arrays(picture: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(picture), picture):
        np.testing.assert_array_equal(as_rgb_array(image), picture)
    grey = Image.fromarray(picture).convert("L")
    np.testing.assert_array_equal(as_rgb_array(np.array(grey)), as_rgb_array(grey))


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


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 4, 3), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3)), None, [[1]]],
)
def test_as_rgb_array_refuses_other_things(image: object) -> None:
    with pytest.raises(GCNetError, match="H x W x 3 uint8"):
        as_rgb_array(image)


@pytest.mark.parametrize(
    ("size", "limits", "fitted"),
    [
        ((480, 640), (1333, 800), (800, 1067)),  # half up; truncation would give 1066
        ((333, 500), (1333, 800), (800, 1201)),
        ((640, 480), (1333, 800), (1067, 800)),
        ((500, 2000), (1333, 800), (333, 1333)),
        ((1, 3000), (1333, 800), (1, 1333)),
        ((800, 1333), (800, 1333), (800, 1333)),
    ],
)
def test_fit_size_rounds_like_the_reference(
    size: tuple[int, int], limits: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert fit_size(size, limits) == fitted


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(32, 1400), st.integers(32, 1400))
def test_fit_size_fits(height: int, width: int, a: int, b: int) -> None:
    fitted = fit_size((height, width), (a, b))
    assert max(fitted) <= max(a, b)
    assert min(fitted) <= min(a, b)
    assert max(fitted) == max(a, b) or min(fitted) == min(a, b)


def test_resize_is_opencvs_bilinear(picture: np.ndarray) -> None:
    resized = resize_image(picture, (33, 77))
    np.testing.assert_array_equal(resized, cv2.resize(picture, (77, 33), interpolation=cv2.INTER_LINEAR))
    assert resize_image(picture, (90, 120)) is picture


def test_stack_pads_right_and_bottom_with_zeros(picture: np.ndarray) -> None:
    stack = stack_images([picture, picture[:40, :50]])
    assert stack.shape == (2, 3, 96, 128)
    assert stack.dtype == torch.uint8
    np.testing.assert_array_equal(stack[0, :, :90, :120].permute(1, 2, 0).numpy(), picture)
    np.testing.assert_array_equal(stack[1, :, :40, :50].permute(1, 2, 0).numpy(), picture[:40, :50])
    assert not stack[0, :, 90:].any()
    assert not stack[1, :, :, 50:].any()
