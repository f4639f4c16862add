"""Context modelling: one vector for the whole map (arXiv 1904.11492, section 4.2, step a).

N images, C channels, `...` positions: a sequence, an H x W map or a volume.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context.attend import attend, attention_weights, positions


class AttentionPool(nn.Module):
    """A weighted mean over all positions; the weights are a softmax over one learnt 1x1 convolution.

    The one attention map is shared by all queries: that is the paper's simplification of non-local blocks.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.weight, std=(2 / channels) ** 0.5)  # Kaiming, fan-in

    def attention(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N ..."]:
        """The map of weights; they sum to 1 over the positions of an image."""
        weights = attention_weights(positions(x), self.weight, self.bias)
        return weights.reshape(x.shape[0], *x.shape[2:])

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C"]:
        return attend(positions(x), self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"channels={len(self.weight)}"


class AveragePool(nn.Module):
    """The plain mean over all positions, as in squeeze-excitation (arXiv 1709.01507)."""

    def forward(self, x: Float[Tensor, "N C ..."]) -> Float[Tensor, "N C"]:
        return x.flatten(2).mean(dim=2)
