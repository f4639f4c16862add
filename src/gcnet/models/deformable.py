"""Deformable convolution (arXiv 1703.06211, section 2.1).

N images, C channels, h x w map, 2 k k offsets: (y, x) of each point of the k x k kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class DeformableConv2d(nn.Conv2d):
    """A convolution whose kernel points are moved by offsets that another convolution predicts.

    Arguments are those of `nn.Conv2d`. All channels share the offsets; they start at zero, so that a fresh
    one is an ordinary convolution with the same weight.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        points = self.kernel_size[0] * self.kernel_size[1]
        self.offset = nn.Conv2d(
            self.in_channels,
            2 * points,
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
        from torchvision.ops import deform_conv2d  # slow to import, and most models do without

        full = torch.promote_types(input.dtype, torch.float32)
        moved = deform_conv2d(
            input.to(full),
            self.offset(input).to(full),
            weight.to(full),
            None if bias is None else bias.to(full),
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
        )
        return moved.to(input.dtype)
