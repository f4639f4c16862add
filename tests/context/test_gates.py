"""ECA, CBAM and GCT against their papers' formulas, written out number by number."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from gcnet.context import (
    ConvolutionalBlockAttention,
    EfficientChannelAttention,
    GatedChannelTransformation,
    complexity,
    make_block,
    measure,
)
from gcnet.errors import GCNetError

C = 6
Awake = Callable[[nn.Module], nn.Module]


def values(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, C, 3, 4, generator=torch.Generator().manual_seed(3))


def test_efficient_channel_attention(x: torch.Tensor, awake: Awake) -> None:
    """Omega = sigma(sum_j w_j y_(i+j)) over k neighbours of each channel's mean y (equations 9 and 10)."""
    block = awake(EfficientChannelAttention(C, kernel=3))
    weights, means = values(block.scale.conv.weight).ravel(), values(x).mean(axis=(2, 3))
    expected = values(x).copy()
    for n in range(2):
        for i in range(C):
            near = [means[n, i + j] if 0 <= i + j < C else 0.0 for j in (-1, 0, 1)]
            expected[n, i] *= sigmoid(np.dot(weights, near))
    np.testing.assert_allclose(values(block(x)), expected, rtol=1e-5)
    assert [name for name, _ in block.named_parameters()] == ["scale.conv.weight"]


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_the_kernel_grows_with_the_channels(channels: int, kernel: int) -> None:
    """As the paper's own program rounds |log2(C) / 2 + 1 / 2| to an odd number: down, then up if even."""
    down = int(abs(math.log2(channels) / 2 + 1 / 2))
    assert kernel == (down if down % 2 else down + 1)
    assert EfficientChannelAttention(channels).scale.conv.kernel_size == (kernel,)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="must be odd"):
        EfficientChannelAttention(C, kernel=4)


def test_convolutional_block_attention(x: torch.Tensor, awake: Awake) -> None:
    """M_c = sigma(MLP(avg) + MLP(max)), then M_s = sigma(f([avg; max])), f 7 x 7 (equations 1 to 3)."""
    block = awake(ConvolutionalBlockAttention(C, ratio=1 / 3))
    reduce, expand = block.scale.reduce, block.scale.expand

    def mlp(v: np.ndarray) -> np.ndarray:
        hidden = np.maximum(v @ values(reduce.weight).T + values(reduce.bias), 0)
        return hidden @ values(expand.weight).T + values(expand.bias)

    image = values(x)
    gated = image * sigmoid(mlp(image.mean((2, 3))) + mlp(image.max((2, 3))))[:, :, None, None]
    summary = np.stack([gated.mean(1), gated.max(1)], axis=1)
    padded = np.pad(summary, ((0, 0), (0, 0), (3, 3), (3, 3)))
    weights, expected = values(block.spatial.weight)[0], gated.copy()
    for row in range(3):
        for column in range(4):
            window = padded[:, :, row : row + 7, column : column + 7]
            expected[:, :, row, column] *= sigmoid((window * weights).sum((1, 2, 3)))[:, None]
    np.testing.assert_allclose(values(block(x)), expected, rtol=1e-5)
    assert torch.equal(ConvolutionalBlockAttention(C, ratio=1 / 3)(x), x / 4)


def test_convolutional_block_attention_is_for_maps_of_two_sides(x: torch.Tensor) -> None:
    block = ConvolutionalBlockAttention.forward.__wrapped__  # without the check of shapes that tests have
    with pytest.raises(GCNetError, match=r"takes maps of shape \(N, C, H, W\), not \(2, 6, 12\)"):
        block(ConvolutionalBlockAttention(C, ratio=1 / 3), x.flatten(2))


def test_gated_channel_transformation(x: torch.Tensor, awake: Awake) -> None:
    """s_c = alpha_c |x_c|, s' = sqrt(C) s / |s|, x_c (1 + tanh(gamma_c s'_c + beta_c)) (equations 2 to 4)."""
    block = awake(GatedChannelTransformation(C))
    alpha, gamma, beta = map(values, (block.pool.weight, block.scale.weight, block.scale.bias))
    image = values(x)
    norms = alpha * np.sqrt((image**2).sum((2, 3)) + 1e-5)
    normed = math.sqrt(C) * norms / np.sqrt((norms**2).sum(1, keepdims=True) + 1e-5)
    expected = image * (1 + np.tanh(gamma * normed + beta))[:, :, None, None]
    np.testing.assert_allclose(values(block(x)), expected, rtol=1e-5)


def test_gated_channel_transformation_of_large_maps_in_half_precision() -> None:
    block, x = GatedChannelTransformation(C).half(), torch.full((1, C, 300, 300), 60.0)
    nn.init.ones_(block.scale.weight)
    torch.testing.assert_close(block(x.half()), block.float()(x).half())


@pytest.mark.parametrize("name", ["eca", "cbam", "gct"])
def test_blocks_tell_their_channels(name: str) -> None:
    assert complexity(make_block(name, 32), (4, 4)).parameters > 0


@pytest.mark.parametrize("name", ["eca", "cbam", "gct"])
def test_gates_are_measured_as_what_multiplies_the_map(name: str, x: torch.Tensor, awake: Awake) -> None:
    block = awake(make_block(name, C) if name != "cbam" else make_block(name, C, ratio=1 / 3))
    with measure(block) as found, torch.no_grad():
        block(x)
    (first, second) = found[""]
    assert first.context == second.context == 0  # one gate for all positions
    assert first.input is not None
    assert first.input > 0
    assert first.attention is None
