from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gcnet.ops.images import fit_size, middle_square, resize_image
from gcnet.types import stack_images


@pytest.fixture
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(noise, (120, 90), interpolation=cv2.INTER_CUBIC)


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


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (3, 20_000)])
def test_the_middle_square_of_a_thread_takes_no_memory(shape: tuple[int, int]) -> None:
    """Resized whole, the first would be 256 x 15,360,000 pixels."""
    assert middle_square(np.zeros((*shape, 3), np.uint8), (256, 224)).shape == (224, 224, 3)


def test_the_middle_square_of_a_long_image_is_that_of_the_whole() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20 * 16, 3), np.uint8)
    whole = cv2.resize(image, (256 * 16, 256), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(middle_square(image, (256, 224)), whole[16:-16, 128 * 15 + 16 :][:, :224])
