"""Box head: what a region is, and where exactly (arXiv 1506.01497; two layers as in arXiv 1612.03144).

R regions, C channels, S side of the pooled grid, K classes; class K is background.
"""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 7


class BoxHead(nn.Module):
    """Two fully connected layers, then class logits and four deltas for each class."""

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, *, cls_init_std: float = 0.01
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.fc1 = nn.Linear(in_channels * GRID * GRID, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.cls = nn.Linear(channels, num_classes + 1)
        self.deltas = nn.Linear(channels, num_classes * 4)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.cls.weight, std=cls_init_std)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.fc1, self.fc2, self.cls, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(
        self, pooled: Float[Tensor, "R C S S"]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R K 4"]]:
        """Logits (background last) and deltas, in float32."""
        hidden = F.relu(self.fc1(pooled.flatten(1)), inplace=True)
        hidden = F.relu(self.fc2(hidden), inplace=True)
        return self.cls(hidden).float(), self.deltas(hidden).float().view(-1, self.num_classes, 4)

    def losses(
        self,
        logits: Float[Tensor, "R K1"],
        deltas: Float[Tensor, "R K 4"],
        labels: Int64[Tensor, " R"],
        wanted: Float[Tensor, "P 4"],
    ) -> dict[str, Tensor]:
        """Cross-entropy, and L1 on the positives divided by the number of all regions.

        `wanted` are the target deltas of the regions whose label is not background, in their order.
        """
        positive = (labels < self.num_classes).nonzero().flatten()
        chosen = deltas[positive, labels[positive]]
        return {
            "loss_cls": F.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1),
            "loss_box": F.l1_loss(chosen, wanted, reduction="sum") / max(len(labels), 1),
        }
