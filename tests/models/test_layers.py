"""Deformable convolution: where its points look."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from gcnet.models import layers
from gcnet.models.layers import DeformableConv2d


def make(**changes: object) -> DeformableConv2d:
    torch.manual_seed(0)
    arguments = {"stride": 1, "padding": 1, "groups": 2, "bias": False} | changes
    return DeformableConv2d(4, 6, 3, **arguments)


def picture() -> Tensor:
    return torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, False)])
def test_without_offsets_it_is_an_ordinary_convolution(stride: int, groups: int, bias: bool) -> None:
    layer = make(stride=stride, groups=groups, bias=bias)
    expected = F.conv2d(picture(), layer.weight, layer.bias, stride, 1, 1, groups)
    torch.testing.assert_close(layer(picture()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("first", "shift"), [(1, (0, 1)), (0, (1, 0))])
def test_offsets_are_y_then_x(first: int, shift: tuple[int, int]) -> None:
    """All points one to the right see what they would see in a picture moved one to the left."""
    layer, x = make(), picture()
    with torch.no_grad():
        layer.offset.bias[first::2] = 1
    rows, columns = shift
    moved = F.pad(x, (0, columns, 0, rows))[:, :, rows:, columns:]
    expected = F.conv2d(moved, layer.weight, None, 1, 1, 1, 2)
    # The first row or column also sees what the moved picture has lost.
    torch.testing.assert_close(
        layer(x)[:, :, rows:, columns:], expected[:, :, rows:, columns:], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_each_point_has_its_own_offset(stride: int) -> None:
    layer, x = make(stride=stride), picture()
    offsets = torch.randint(-2, 3, (9, 2), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        layer.offset.bias.copy_(offsets.flatten())
    out_height, out_width = (9 + stride - 1) // stride, (11 + stride - 1) // stride
    padded, expected = F.pad(x, (4, 4, 4, 4)), torch.zeros(2, 6, out_height, out_width)
    for point, (dy, dx) in enumerate(offsets.tolist()):
        top, left = 3 + point // 3 + dy, 3 + point % 3 + dx
        seen = padded[:, :, top : top + 9 : stride, left : left + 11 : stride]
        weight = layer.weight[:, :, point // 3, point % 3, None, None]
        expected += F.conv2d(seen, weight, groups=2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    layer, x = make(), picture()
    with torch.no_grad():
        whole = []
        for offset in (0.0, 1.0, 0.5):
            layer.offset.bias[1::2] = offset
            whole.append(layer(x))
    torch.testing.assert_close(whole[2], (whole[0] + whole[1]) / 2, rtol=1e-5, atol=1e-5)


def operator(layer: DeformableConv2d, x: Tensor) -> Tensor:
    """torchvision's deformable convolution."""
    predicted = layer.offset(x)
    shares = predicted[:, layer.moves :].sigmoid() if layer.modulated else None
    geometry: Any = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    return deform_conv2d(x, predicted[:, : layer.moves], layer.weight, layer.bias, mask=shares, **geometry)


@pytest.mark.parametrize("std", [0.0, 1.0])
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("changes", [{}, {"stride": 2, "offset_groups": 2}, {"dilation": 2, "padding": 2}])
def test_it_computes_and_learns_what_the_operator_does(
    modulated: bool, changes: dict[str, object], std: float
) -> None:
    """Also at points far outside of the map, and on pixels, where the gradient has a jump."""
    layer, x = make(modulated=modulated, bias=True, **changes), picture().requires_grad_()
    nn.init.normal_(layer.offset.weight, std=std)
    expected, found = operator(layer, x), layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    inputs, grad = [x, *layer.parameters()], torch.randn_like(expected)
    pairs = zip(
        torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("modulated", [False, True])
def test_a_gpu_sees_what_a_processor_sees(modulated: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    y, x = (torch.randn(2, 3, 4, 5, 7, generator=generator) * 8 + 4 for _ in range(2))
    y[0, 0, 0, 0], x[1, 2, 3, 4] = -1, 11  # beside the map
    shares = torch.rand(y.shape, generator=generator) if modulated else None
    pixels = torch.randn(2, 6, 9, 11, generator=generator)
    expected = layers._grid_sample(pixels, y, x, shares)
    torch.testing.assert_close(layers._sums_of_pixels(pixels, y, x, shares), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_point_that_is_no_number_sees_nothing(dtype: torch.dtype) -> None:
    layer = make(groups=1).to(dtype)
    with torch.no_grad():
        layer.offset.bias[0], layer.offset.bias[3], layer.offset.bias[4] = torch.nan, torch.inf, -1e30
        found = layer(picture().to(dtype))
        layer.weight[:, :, 0, :] = 0  # of the first, second and third point
    torch.testing.assert_close(found, layer(picture().to(dtype)), atol=0.02, rtol=0.02)


def test_for_the_backward_pass_it_keeps_no_points() -> None:
    layer, x, saved = make(), picture().requires_grad_(), []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    assert max(saved) <= layer.offset(x).numel()  # half of what the points would take


def test_offsets_are_learnt_from_the_start() -> None:
    layer = make()
    layer(picture()).square().sum().backward()
    assert layer.offset.weight.grad is not None
    assert layer.offset.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """The operator itself knows no bfloat16."""
    layer, x = make(), picture()
    with torch.autocast("cpu", dtype):
        found = layer(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), layer(x), rtol=0.05, atol=0.05)
    assert layer.to(dtype)(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize(("stride", "groups", "offset_groups"), [(1, 1, 1), (2, 2, 2), (1, 1, 4)])
def test_modulated_convolution_by_its_definition(stride: int, groups: int, offset_groups: int) -> None:
    """Equation 1 of arXiv 1811.11168, point by point; channels are mmcv's: all (y, x), then all weights."""
    layer = make(stride=stride, groups=groups, modulated=True, offset_groups=offset_groups)
    x = picture()
    nn.init.normal_(layer.offset.weight, std=0.3)
    nn.init.normal_(layer.offset.bias, std=0.5)
    predicted = layer.offset(x)
    moves, weights = predicted.split([18 * offset_groups, 9 * offset_groups], dim=1)
    sampled = torch.zeros(2, 4, 9, *predicted.shape[2:])
    share = 4 // offset_groups
    for group in range(offset_groups):
        own = slice(group * share, (group + 1) * share)
        for point in range(9):
            dy, dx = moves[:, 18 * group + 2 * point], moves[:, 18 * group + 2 * point + 1]
            y = torch.arange(dy.shape[1])[:, None] * stride - 1 + point // 3 + dy
            x_ = torch.arange(dy.shape[2]) * stride - 1 + point % 3 + dx
            # Positions of grid_sample run from -1 to 1 over the padded map, whose corners are pixel centres.
            padded = F.pad(x[:, own], (9, 9, 9, 9))
            grid = torch.stack([(x_ + 9) / 28 * 2 - 1, (y + 9) / 26 * 2 - 1], dim=-1)
            seen = F.grid_sample(padded, grid, align_corners=True)
            sampled[:, own, point] = seen * weights[:, 9 * group + point, None].sigmoid()
    columns = sampled.view(2, groups, -1, *predicted.shape[2:])
    kernel = layer.weight.view(groups, 6 // groups, -1)
    expected = torch.einsum("ngihw,goi->ngohw", columns, kernel).flatten(1, 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_a_fresh_modulated_one_halves() -> None:
    layer = make(modulated=True)
    expected = F.conv2d(picture(), layer.weight, None, 1, 1, 1, 2) / 2
    torch.testing.assert_close(layer(picture()), expected, rtol=1e-5, atol=1e-5)
