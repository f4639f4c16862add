"""Layers that a spec can ask for: norms and deformable convolution (arXiv 1703.06211, 1811.11168).

N images, P numbers that are predicted at each place, D channels of the output, h x w places.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gcnet.models.spec import Norm

kaiming = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")


def initialise(module: nn.Module, weights: Callable[[Tensor], Tensor]) -> None:
    """Gives all weights of a module without norms new values by a function of `nn.init`, and biases zero."""
    for parameter in module.parameters():
        (weights if parameter.dim() > 1 else nn.init.zeros_)(parameter)


def make_norm(norm: Norm, channels: int) -> nn.BatchNorm2d | nn.GroupNorm:
    """Batch norm (the training loop decides whether to synchronise it), or group norm.

    Fewer than 8 channels are one group.
    """
    if norm in ("group", "group32"):
        return nn.GroupNorm(32 if norm == "group32" else min(32, max(channels // 8, 1)), channels)
    return nn.BatchNorm2d(channels)


def make_norms(norm: Norm | None, channels: int, count: int) -> nn.ModuleList:
    """One norm for each of `count` convolutions; without a `norm`, modules that do nothing."""
    return nn.ModuleList(nn.Identity() if norm is None else make_norm(norm, channels) for _ in range(count))


class DeformableConv2d(nn.Conv2d):
    """A convolution whose kernel points are moved by offsets that another convolution predicts.

    Arguments are those of `nn.Conv2d`. The channels of each of `offset_groups` share the offsets, (y, x) of
    each of the k x k points (arXiv 1703.06211, section 2.1). They start at zero: a fresh one is an ordinary
    convolution. If it is `modulated`, a weight for each point is predicted too, behind the offsets, of which
    the sigmoid is taken (arXiv 1811.11168, section 3.2): a fresh one halves its output.
    """

    def __init__(self, *args: Any, modulated: bool = False, offset_groups: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.in_channels % offset_groups:
            raise ValueError(
                f"{self.in_channels} channels cannot be divided into {offset_groups} offset groups"
            )
        self.modulated = modulated
        self.moves = 2 * self.kernel_size[0] * self.kernel_size[1] * offset_groups
        self.offset = nn.Conv2d(
            self.in_channels,
            self.moves * 3 // 2 if modulated else self.moves,
            self.kernel_size,  # type: ignore[arg-type]
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
        )
        self.reset_offsets()

    def reset_offsets(self) -> None:
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # nn.Conv2d.forward calls this with the layer's own weight and bias. The operator has no kernel for
        # bfloat16, and offsets are positions in pixels: float32 at least.
        full = torch.promote_types(input.dtype, torch.float32)
        predicted = self.offset(input).to(full)
        if not torch.compiler.is_exporting():
            if not torch.is_grad_enabled():
                return self._sample_and_convolve(input, predicted, weight, bias)
            if input.device.type == "cpu" and not torch.compiler.is_compiling():
                # All points of all places are nine maps of the input's size: not to be kept.
                inputs = input, predicted, weight, bias
                options: Any = {"use_reentrant": False, "preserve_rng_state": False}
                return checkpoint(self._sample_and_convolve, *inputs, **options)
        from torchvision.ops import deform_conv2d  # slow to import, and most models do without

        moved = deform_conv2d(
            input.to(full),
            predicted[:, : self.moves],
            weight.to(full),
            None if bias is None else bias.to(full),
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            mask=predicted[:, self.moves :].sigmoid() if self.modulated else None,
        )
        return moved.to(input.dtype)

    def _sample_and_convolve(
        self, input: Tensor, predicted: Float[Tensor, "N P h w"], weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "N D h w"]:
        """The same with the k x k points of a row of the output in rows below each other.

        torchvision's operator calls a matrix product for every group of channels and image, which takes twice
        the time on a CPU, and its backward ten times. On a GPU it starts parts of it where a CUDA graph does
        not see them.
        """
        (high, wide), (rows, columns), padding = self.kernel_size, predicted.shape[2:], self.padding
        points = high * wide
        down, across = (
            torch.arange(count, device=input.device) * self.stride[axis] - padding[axis]  # type: ignore[operator]
            for axis, count in enumerate((rows, columns))
        )
        point = torch.arange(points, device=input.device)[:, None, None]
        at = predicted[:, : self.moves].unflatten(1, (-1, points, 2))
        y = at[:, :, :, 0] + down[:, None] + point // wide * self.dilation[0]
        x = at[:, :, :, 1] + across + point % wide * self.dilation[1]
        shares = None
        if self.modulated:
            shares = predicted[:, self.moves :].unflatten(1, (-1, points)).sigmoid()
        # A gradient in half precision would be that of rounded sums.
        exact = input.to(predicted.dtype) if torch.is_grad_enabled() else input
        sample = _sums_of_pixels if input.device.type == "cpu" else _grid_sample
        sampled = sample(exact, y, x, shares).to(input.dtype)
        kernel = weight.reshape(*weight.shape[:2], points, 1)
        return F.conv2d(sampled, kernel, bias, stride=(points, 1), groups=self.groups)


def _sums_of_pixels(
    input: Float[Tensor, "N C H W"],
    y: Float[Tensor, "N G P h w"],
    x: Float[Tensor, "N G P h w"],
    shares: Float[Tensor, "N G P h w"] | None,
) -> Float[Tensor, "N C Ph w"]:
    """A channels-last map of bilinear samples, each times its share, with the points of a place in a column.

    G groups of channels have points of their own. On a CPU `embedding_bag` is the fastest weighted sum of
    four pixels, and of its backward; see `gcnet.ops.roi_align`.
    """
    (images, channels, height, width), groups = input.shape, y.shape[1]
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels // groups)
    image = torch.arange(images, device=y.device).view(-1, 1, 1, 1, 1)
    group = torch.arange(groups, device=y.device).view(-1, 1, 1, 1)
    top, left = y.detach().floor(), x.detach().floor()
    indices, weights = [], []
    for row, along_y in ((top, 1 + top - y), (top + 1, y - top)):
        for column, along_x in ((left, 1 + left - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            line = image * height + row.long().clamp(0, height - 1)
            indices.append((line * width + column.long().clamp(0, width - 1)) * groups + group)
            share = along_y * along_x if shares is None else along_y * along_x * shares
            weights.append(share.where(inside, 0))
    index, weight = (
        torch.stack(four, -1).permute(0, 3, 2, 4, 1, 5).reshape(-1, 4)  # of N, h, P, w, G
        for four in (indices, weights)
    )
    sampled = F.embedding_bag(index, pixels, mode="sum", per_sample_weights=weight.to(pixels.dtype))
    points, rows, columns = y.shape[2:]
    return sampled.view(images, rows * points, columns, channels).permute(0, 3, 1, 2)


def _grid_sample(
    input: Float[Tensor, "N C H W"],
    y: Float[Tensor, "N G P h w"],
    x: Float[Tensor, "N G P h w"],
    shares: Float[Tensor, "N G P h w"] | None,
) -> Float[Tensor, "N C Ph w"]:
    """The same for a GPU, without gradients: on a pixel they would be those to either side."""
    height, width = input.shape[2:]
    # From pixels, counted from the centre of the first, to the -1 to 1 of the edges.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.flatten(0, 1).transpose(1, 2).flatten(1, 2)
    apart = input.to(y.dtype).reshape(len(grid), -1, height, width)
    sampled = F.grid_sample(apart, grid, align_corners=False)
    if shares is not None:
        sampled = sampled * shares.flatten(0, 1).transpose(1, 2).flatten(1, 2)[:, None]
    return sampled.reshape(*input.shape[:2], -1, sampled.shape[3])
