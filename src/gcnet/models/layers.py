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
        (high, wide), (images, _, rows, columns) = self.kernel_size, predicted.shape
        points, (height, width) = high * wide, input.shape[2:]
        padding: Any = self.padding
        down, across = (
            torch.arange(count, device=input.device) * self.stride[axis] - padding[axis]
            for axis, count in enumerate((rows, columns))
        )
        point = torch.arange(points, device=input.device)[:, None, None]
        at = predicted[:, : self.moves].reshape(-1, points, 2, rows, columns)
        y = at[:, :, 0] + down[:, None] + point // wide * self.dilation[0]
        x = at[:, :, 1] + across + point % wide * self.dilation[1]
        apart = input.to(predicted.dtype).reshape(len(at), -1, height, width)
        if torch.is_grad_enabled():
            # On a pixel, where a fresh layer looks, the operator's gradient is the difference to the next
            # pixel. Dividing by and multiplying with a power of two is exact, so a point stays where it is;
            # what lies outside is zero either way.
            height, width = (1 << (side - 1).bit_length() for side in (height, width))
            apart = F.pad(apart, (0, width - input.shape[3], 0, height - input.shape[2]))
        # From pixels, counted from the centre of the first, to the -1 to 1 of the edges.
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        grid = grid.transpose(1, 2).flatten(1, 2)
        sampled = F.grid_sample(apart, grid, align_corners=False)
        if self.modulated:
            shares = predicted[:, self.moves :].reshape(-1, points, rows, columns).sigmoid()
            sampled = sampled * shares.transpose(1, 2).flatten(1, 2)[:, None]
        sampled = sampled.reshape(images, -1, rows * points, columns).to(input.dtype)
        kernel = weight.reshape(*weight.shape[:2], points, 1)
        return F.conv2d(sampled, kernel, bias, stride=(points, 1), groups=self.groups)
