"""Feature transform: what the context vector says to each channel (arXiv 1904.11492, section 4.2, step b).

N images, C channels, P bottleneck channels.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class BottleneckTransform(nn.Module):
    """C -> P -> C with LayerNorm and ReLU between (section 4.3). The last layer starts at zero.

    On a single vector a 1x1 convolution is a linear layer.
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, bottleneck)
        self.norm = nn.LayerNorm(bottleneck)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Linear(bottleneck, channels)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, context: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        return self.expand(self.relu(self.norm(self.reduce(context))))
