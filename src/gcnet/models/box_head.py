"""Box head: what a region is, and where exactly (arXiv 1506.01497; two layers as in arXiv 1612.03144).

R regions, C channels, S side of the pooled grid, K classes; class K is background.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.models.norm import make_norms
from gcnet.models.spec import Norm
from gcnet.ops.matching import MISSING

GRID = 7


class BoxHead(nn.Module):
    """`convs` 3x3 convolutions, `fcs` (1 or 2) linear layers, then class logits and deltas for each class.

    Convolutions keep the number of channels; with a `norm`, each is followed by one and has no bias. With
    `class_agnostic` there are four deltas for all classes (B = 1, else K). The box loss is L1, or smooth L1
    if `smooth_l1_beta` is not zero.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        *,
        convs: int = 0,
        fcs: int = 2,
        norm: Norm | None = None,
        class_agnostic: bool = False,
        smooth_l1_beta: float = 0.0,
        cls_init_std: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_classes, self.class_agnostic = num_classes, class_agnostic
        self.smooth_l1_beta = smooth_l1_beta
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=norm is None) for _ in range(convs)
        )
        self.norms = make_norms(norm, in_channels, convs)
        self.fc1 = nn.Linear(in_channels * GRID * GRID, channels)
        self.fc2 = nn.Linear(channels, channels) if fcs == 2 else None
        self.cls = nn.Linear(channels, num_classes + 1)
        self.deltas = nn.Linear(channels, 4 if class_agnostic else num_classes * 4)
        for module in [*self.convs, self.fc1, *([self.fc2] if self.fc2 else [])]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.normal_(self.cls.weight, std=cls_init_std)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, pooled: Float[Tensor, "R C S S"]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R B 4"]]:
        """Logits (background last) and deltas, in float32."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pooled = F.relu(norm(conv(pooled)), inplace=True)
        hidden = F.relu(self.fc1(pooled.flatten(1)), inplace=True)
        if self.fc2 is not None:
            hidden = F.relu(self.fc2(hidden), inplace=True)
        return self.cls(hidden).float(), self.deltas(hidden).float().unflatten(1, (-1, 4))

    def losses(
        self,
        logits: Float[Tensor, "R K1"],
        deltas: Float[Tensor, "R B 4"],
        labels: Int64[Tensor, " R"],
        wanted: Float[Tensor, "R 4"],
    ) -> dict[str, Tensor]:
        """Cross-entropy, and (smooth) L1 on the positives divided by the number of all regions.

        `wanted` are target deltas; they count where the label is a class. `MISSING` regions do not count.
        """
        positive = (labels >= 0) & (labels < self.num_classes)
        own = torch.zeros_like(labels) if self.class_agnostic else labels.where(positive, 0)
        chosen = deltas.gather(1, own[:, None, None].expand(-1, 1, 4))[:, 0]
        off = F.smooth_l1_loss(chosen, wanted, reduction="none", beta=self.smooth_l1_beta)
        count = (labels != MISSING).sum().clamp(min=1)
        loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=MISSING)
        return {"loss_cls": loss / count, "loss_box": (off * positive[:, None]).sum() / count}
