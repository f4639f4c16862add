"""Feature transform: what the context says to each channel (arXiv 1904.11492, section 4.2, step b).

N images, C channels, D channels of the context, `...` positions, or none: one vector for the whole map.
All layers are 1x1 convolutions, that is linear layers on the channels. Each transform's last layer starts
at zero, so that a block that adds its result starts as the identity.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class BottleneckTransform(nn.Module):
    """C -> bottleneck -> C with LayerNorm and ReLU between (section 4.3). One vector for the whole map.

    Without `layer_norm` it is that of squeeze-excitation (arXiv 1709.01507, section 3.2).
    """

    def __init__(self, channels: int, bottleneck: int, *, layer_norm: bool = True) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, bottleneck)
        self.norm = nn.LayerNorm(bottleneck) if layer_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Linear(bottleneck, channels)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, context: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return self.expand(self.relu(self.norm(self.reduce(context))))


class LinearTransform(nn.Module):
    """D -> C by one 1x1 convolution, of one vector or of a map of them.

    With `batch_norm` the convolution has no bias, and it is the norm's scale that starts at zero.
    """

    def __init__(self, in_channels: int, channels: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, channels, bias=not batch_norm)
        self.norm = nn.BatchNorm1d(channels) if batch_norm else nn.Identity()
        last = self.norm if isinstance(self.norm, nn.BatchNorm1d) else self.linear
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, context: Float[Tensor, "N D ..."]) -> Float[Tensor, "N C ..."]:
        if context.dim() == 2:
            return self.norm(self.linear(context))
        out = self.linear(context.flatten(2).transpose(1, 2)).transpose(1, 2)
        return self.norm(out).reshape(out.shape[0], -1, *context.shape[2:])
