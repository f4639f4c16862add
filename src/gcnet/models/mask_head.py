"""Mask head (arXiv 1703.06870, section 3).

R regions, C channels, S side of the pooled grid, M = 2 S side of the mask, K classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.models.norm import make_norms
from gcnet.models.spec import Norm

GRID = 14
MASK_SIZE = 2 * GRID


class MaskHead(nn.Module):
    """3x3 convolutions, one upsampling by two, and one mask for each class.

    With a `norm`, each convolution but the upsampling and the last is followed by one and has no bias.
    """

    def __init__(
        self, in_channels: int, channels: int, convs: int, num_classes: int, *, norm: Norm | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels if index == 0 else channels, channels, 3, padding=1, bias=norm is None)
            for index in range(convs)
        )
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
        self.norms = make_norms(norm, channels, convs)

    def forward(
        self, pooled: Float[Tensor, "R C S S"], labels: Int64[Tensor, " R"]
    ) -> Float[Tensor, "R M M"]:
        """Mask logits of each region for its own class, in float32."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pooled = F.relu(norm(conv(pooled)), inplace=True)
        hidden = F.relu(self.upsample(pooled), inplace=True)
        # The 1x1 convolution of one class for each region, and not of all for all.
        assert self.logits.bias is not None
        weight, bias = self.logits.weight[labels].flatten(1), self.logits.bias[labels]
        logits = torch.bmm(weight.unsqueeze(1), hidden.flatten(2)).squeeze(1) + bias.unsqueeze(1)
        return logits.unflatten(1, hidden.shape[2:]).float()

    def loss(
        self, logits: Float[Tensor, "R M M"], masks: Bool[Tensor, "R M M"], counts: Bool[Tensor, " R"]
    ) -> dict[str, Tensor]:
        """Mean binary cross-entropy over the regions that count; zero when there is none."""
        weight = counts[:, None, None].to(logits.dtype).expand_as(logits)
        total = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), weight, reduction="sum")
        return {"loss_mask": total / (counts.sum().clamp(min=1) * MASK_SIZE**2)}
