"""The heads of the second stage: the class and box of each region, and its mask.

Box head: arXiv 1506.01497, two linear layers as in arXiv 1612.03144. Mask head: arXiv 1703.06870, section 3.
R regions, L levels, C channels, S side of the pooled grid, M side of a mask, K classes; K is background.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet.context import make_block
from gcnet.models.layers import initialise, kaiming, make_norms
from gcnet.models.spec import AggregateSpec, RoISpec
from gcnet.ops.matching import MISSING

BOX_GRID, MASK_GRID = 7, 14
MASK_SIZE = 2 * MASK_GRID


class Aggregate(nn.Module):
    """The sum over all levels of what was read of each region there (GRoIE, arXiv 2004.13665)."""

    def __init__(self, channels: int, spec: AggregateSpec) -> None:
        super().__init__()
        self.before: nn.Conv2d | None = None
        if spec.kernel is not None:
            if spec.kernel % 2 == 0:
                raise ValueError(
                    f"a convolution of {spec.kernel} cells a side would change the size of regions"
                )
            self.before = nn.Conv2d(channels, channels, spec.kernel, padding=spec.kernel // 2)
            initialise(self.before, kaiming)
        context = spec.context
        self.context = None if context is None else make_block(context.block, channels, **context.options)

    def forward(self, pooled: Float[Tensor, "L R C S S"]) -> Float[Tensor, "R C S S"]:
        if self.before is not None:
            pooled = torch.stack([F.relu(self.before(level), inplace=True) for level in pooled])
        total = pooled.sum(0)
        return total if self.context is None else self.context(total)


def make_aggregate(channels: int, spec: RoISpec) -> nn.Module:
    """What a head does to regions before all else."""
    return nn.Identity() if spec.aggregate is None else Aggregate(channels, spec.aggregate)


class BoxHead(nn.Module):
    """3x3 convolutions, one or two linear layers, then class logits and deltas.

    Convolutions keep the number of channels; with a norm, each is followed by one and has no bias. With
    `class_agnostic` there are four deltas for all classes (B = 1, else K). `class_weights` is how much each
    class counts in the loss, background last; none: all once.
    """

    class_weights: Tensor | None

    def __init__(
        self, channels: int, num_classes: int, spec: RoISpec, *, class_agnostic: bool = False
    ) -> None:
        super().__init__()
        self.spec, self.num_classes, self.class_agnostic = spec, num_classes, class_agnostic
        self.register_buffer("class_weights", None, persistent=False)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=spec.norm is None) for _ in range(spec.box_convs)
        )
        self.norms = make_norms(spec.norm, channels, spec.box_convs)
        self.fc1 = nn.Linear(channels * BOX_GRID**2, spec.box_channels)
        self.fc2 = nn.Linear(spec.box_channels, spec.box_channels) if spec.box_fcs == 2 else None
        self.cls = nn.Linear(spec.box_channels, num_classes + 1)
        self.deltas = nn.Linear(spec.box_channels, 4 if class_agnostic else num_classes * 4)
        for conv in self.convs:
            kaiming(conv.weight)  # type: ignore[arg-type]
        for linear in (self.fc1, self.fc2):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(self.cls.weight, std=spec.cls_init_std)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.aggregate = make_aggregate(channels, spec)

    def forward(
        self, pooled: Float[Tensor, "*L R C S S"]
    ) -> tuple[Float[Tensor, "R K1"], Float[Tensor, "R B 4"]]:
        """Logits (background last) and deltas, in float32."""
        pooled = self.aggregate(pooled)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pooled = F.relu(norm(conv(pooled)), inplace=True)
        hidden = F.relu(self.fc1(pooled.flatten(1)), inplace=True)
        if self.fc2 is not None:
            hidden = F.relu(self.fc2(hidden), inplace=True)
        return self.cls(hidden).float(), self.deltas(hidden).float().unflatten(1, (-1, 4))

    def choose_deltas(
        self,
        logits: Float[Tensor, "R K1"],
        deltas: Float[Tensor, "R B 4"],
        labels: Int64[Tensor, " R"] | None = None,
    ) -> Float[Tensor, "R 1 4"]:
        """The deltas of each region's class: its label's, or the most probable one's if it has none."""
        if self.class_agnostic:
            return deltas
        best = logits[:, :-1].argmax(dim=1)
        if labels is not None:
            best = labels.where((labels >= 0) & (labels < self.num_classes), best)
        return deltas.gather(1, best[:, None, None].expand(-1, 1, 4))

    def losses(
        self,
        logits: Float[Tensor, "R K1"],
        deltas: Float[Tensor, "R B 4"],
        labels: Int64[Tensor, " R"],
        target_deltas: Float[Tensor, "R 4"],
    ) -> dict[str, Tensor]:
        """Cross-entropy, and (smooth) L1 on the positives divided by the number of all regions.

        `target_deltas` count where the label is a class. `MISSING` regions do not count.
        """
        positive = (labels >= 0) & (labels < self.num_classes)
        own = torch.zeros_like(labels) if self.class_agnostic else labels.where(positive, 0)
        chosen = deltas.gather(1, own[:, None, None].expand(-1, 1, 4))[:, 0]
        distance = F.smooth_l1_loss(chosen, target_deltas, reduction="none", beta=self.spec.smooth_l1_beta)
        count = (labels != MISSING).sum().clamp(min=1)
        options = {"weight": self.class_weights, "ignore_index": MISSING}
        loss = F.cross_entropy(logits, labels, reduction="sum", **options)
        return {"loss_cls": loss / count, "loss_box": (distance * positive[:, None]).sum() / count}


class MaskHead(nn.Module):
    """3x3 convolutions, one upsampling by two, and one mask for each class.

    With a norm, each convolution but the upsampling and the last is followed by one and has no bias. A head
    with `class_agnostic_masks` has one mask whatever the class.
    """

    def __init__(self, channels: int, num_classes: int, spec: RoISpec) -> None:
        super().__init__()
        self.num_classes = 1 if spec.class_agnostic_masks else num_classes
        inner = spec.mask_channels
        self.convs = nn.ModuleList(
            nn.Conv2d(inner if index else channels, inner, 3, padding=1, bias=spec.norm is None)
            for index in range(spec.mask_convs)
        )
        self.upsample = nn.ConvTranspose2d(inner if spec.mask_convs else channels, inner, 2, stride=2)
        self.logits = nn.Conv2d(inner, self.num_classes, 1)
        initialise(self, kaiming)
        self.norms = make_norms(spec.norm, inner, spec.mask_convs)
        self.aggregate = make_aggregate(channels, spec)

    def forward(
        self, pooled: Float[Tensor, "*L R C S S"], labels: Int64[Tensor, " R"]
    ) -> Float[Tensor, "R M M"]:
        """Mask logits of each region for its own class, in float32."""
        pooled = self.aggregate(pooled)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pooled = F.relu(norm(conv(pooled)), inplace=True)
        hidden = F.relu(self.upsample(pooled), inplace=True)
        # The 1x1 convolution of one class for each region, and not of all for all.
        assert self.logits.bias is not None
        own = labels if self.num_classes > 1 else torch.zeros_like(labels)
        weight, bias = self.logits.weight[own].flatten(1), self.logits.bias[own]
        logits = torch.bmm(weight.unsqueeze(1), hidden.flatten(2)).squeeze(1) + bias.unsqueeze(1)
        return logits.unflatten(1, hidden.shape[2:]).float()

    def loss(
        self, logits: Float[Tensor, "R M M"], masks: Bool[Tensor, "R M M"], counts: Bool[Tensor, " R"]
    ) -> dict[str, Tensor]:
        """Mean binary cross-entropy over the regions that count; zero when there is none."""
        weight = counts[:, None, None].to(logits.dtype).expand_as(logits)
        total = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), weight, reduction="sum")
        return {"loss_mask": total / (counts.sum().clamp(min=1) * MASK_SIZE**2)}
