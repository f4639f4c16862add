"""A faster copy of a detector for inference: norms, ReLUs and sums are part of its convolutions.

The context of a block is computed from the input of its last convolution.
N images, C channels, c = C / 4 channels inside a block, H x W map.
"""

from __future__ import annotations

import copy
import os
import shutil
from typing import Any, TypeVar, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.context import AttentionPool, BottleneckTransform, LinearTransform
from gcnet.context.attend import attend, positions
from gcnet.context.insertion import inserted_blocks
from gcnet.errors import GCNetError
from gcnet.files import cache_folder
from gcnet.models.folding import folded
from gcnet.models.fpn import FPN
from gcnet.models.layers import DeformableConv2d
from gcnet.models.light import adds_one_vector, has_hooks
from gcnet.models.packed import ONLY_PREDICTS, Float32, FusedConv, PackedLinear, joined
from gcnet.models.recordings import Recordings
from gcnet.models.resnet import ResidualBlock, ResNet, SplitConv2d, add_context
from gcnet.models.spec import Precision

Model = TypeVar("Model", bound=nn.Module)


def optimize(detector: Model, *, precision: Precision = "fp32", compiled: bool = False) -> Model:
    """A faster copy of a `Detector`, for inference only.

    Convolutions also compute the norms, sums and ReLUs that follow them, maps are channels-last, and a global
    context block costs almost nothing. On a GPU, batches of a shape that comes again are recorded as CUDA
    graphs (`gcnet.models.recordings`), without `compiled`. The copy can be moved, copied and pickled;
    training, saving, loading weights and optimising it again are refused. A backbone with group norm, or with
    blocks that `gcnet.context.insert` added, is not changed. Hooks on other parts that are replaced are gone.

    Args:
        precision: "fp32" gives the same detections up to the order of sums. "bf16" and "fp16" compute the
            network in half precision, except its last layers and the boxes: faster on some hardware, and
            different in the third digit.
        compiled: also use torch.compile, at the first image and for images of all sizes. Its result is kept
            in our cache folder. Meant for GPUs: it gains nothing on a CPU.

    Raises:
        GCNetError: `compiled` without a C compiler, which torch.compile needs; `detector` is such a copy; or
            there is no such `precision`.
    """
    if precision not in (known := get_args(Precision)):
        raise GCNetError(f"there is no precision {precision!r}; give {', '.join(known)}")
    if compiled and not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang", "cl"))):
        raise GCNetError("compiling needs a C compiler, gcc or clang, and none is found: install one")
    if any(isinstance(module, FusedConv) for module in detector.modules()):
        raise GCNetError(ONLY_PREDICTS)
    fast: Any = copy.deepcopy(detector).eval().requires_grad_(False)
    backbone, neck, rpn = fast.backbone, fast.neck, fast.rpn
    grouped = any(isinstance(module, nn.GroupNorm) for module in backbone.modules())
    if isinstance(backbone, ResNet) and not grouped and not inserted_blocks(backbone):
        fast.backbone = FusedResNet(backbone)
    if isinstance(neck, FPN) and not inserted_blocks(neck):
        neck.lateral = nn.ModuleList(FusedConv(cast(nn.Conv2d, conv)) for conv in neck.lateral)
    if not inserted_blocks(rpn):
        if isinstance(rpn.conv, nn.Conv2d):
            rpn.conv, rpn.relu = FusedConv(rpn.conv, relu=True), nn.Identity()
        rpn.outputs = FusedConv(joined(rpn.objectness, rpn.deltas))
        del rpn.objectness, rpn.deltas
    for head in fast.roi_heads.box_stages:
        for name in ("fc1", "fc2"):
            if type(layer := getattr(head, name)) is nn.Linear:
                setattr(head, name, PackedLinear(layer))
    fast = fast.to(memory_format=torch.channels_last)
    if precision != "fp32":
        _halve(fast, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    if compiled:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
        heads = fast.roi_heads
        # The dense parts alone: how many regions there are depends on the image.
        for part in (fast.backbone, fast.neck, *heads.box_stages, *heads.mask_stages):
            part.compile(dynamic=True)
    else:
        fast.recordings = Recordings()
    # New parts begin in training mode, and with one of them each prediction would copy the whole model and
    # pack its weights again.
    return fast.eval()


def _halve(fast: Any, dtype: torch.dtype) -> None:
    """Converts the network to `dtype`, except the layers that give scores, classes and boxes.

    Those are a hundredth of the arithmetic, and rounding their outputs is most of what half precision costs.
    """
    rpn, heads = fast.rpn, fast.roi_heads
    ends = ("objectness", "deltas") if rpn.outputs is None else ("outputs",)
    last: list[tuple[Any, str]] = [(rpn, name) for name in ends]
    last += [(head, name) for head in heads.box_stages for name in ("cls", "deltas")]
    exact = [copy.deepcopy(getattr(part, name)) for part, name in last]
    fast.compute_dtype = dtype
    for part in (fast.backbone, fast.neck, rpn, heads):
        part.to(dtype)
    for (part, name), layer in zip(last, exact, strict=True):
        setattr(part, name, Float32(layer))


class FusedDeformableConv(nn.Module):
    """A deformable convolution with its norm folded in, and ReLU."""

    def __init__(self, conv: DeformableConv2d, norm: nn.Module) -> None:
        super().__init__()
        weight, bias = folded(conv, norm)
        self.conv = copy.deepcopy(conv).requires_grad_(False)
        self.conv.weight = nn.Parameter(weight, requires_grad=False)
        self.conv.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        return self.conv(x).relu_().contiguous(memory_format=torch.channels_last)


class FoldedContext(nn.Module):
    """The bias of a 1x1 convolution W y + b and what a context block adds to its output, from its input y.

    Pooling commutes with the convolution (see `gcnet.models.light`), and so does the block's first linear
    layer, of which a quarter is left: both are folded with W, and the last layer with b.
    """

    key: Tensor | None

    def __init__(self, block: Any, weight: Float[Tensor, "C c"], bias: Float[Tensor, " C"]) -> None:
        super().__init__()
        transform, pool = block.add, block.pool
        self.pool = pool
        key = pool.weight.detach() @ weight if isinstance(pool, AttentionPool) else None
        first = transform.reduce if isinstance(transform, BottleneckTransform) else transform.linear
        into = _linear(first.weight @ weight, first.weight @ bias + first.bias)
        if isinstance(transform, BottleneckTransform):
            out = _linear(transform.expand.weight, transform.expand.bias + bias)
            self.transform = nn.Sequential(into, transform.norm, nn.ReLU(inplace=True), out)
        else:
            self.transform = nn.Sequential(_linear(into.weight, into.bias + bias))
        self.register_buffer("key", key, persistent=False)

    @staticmethod
    def supports(block: nn.Module) -> bool:
        """Whether this block adds one vector, by a transform that is known and that nobody listens to.

        Who listens to the pool is served: see `FusedBlock`.
        """
        if not adds_one_vector(block) or has_hooks(m for m in block.modules() if m is not block.pool):
            return False
        linear = type(block.add) is LinearTransform and isinstance(block.add.norm, nn.Identity)
        return linear or type(block.add) is BottleneckTransform

    def forward(self, y: Float[Tensor, "N c H W"]) -> Float[Tensor, "N C"]:
        flat = positions(y)
        # A constant that is added to all logits does not change the softmax.
        return self.transform(flat.mean(2) if self.key is None else attend(flat, self.key, None))


def _linear(weight: Float[Tensor, "C D"], bias: Float[Tensor, " C"]) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (nn.Parameter(one.detach(), requires_grad=False) for one in (weight, bias))
    return layer


def _fused_with_relu(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """A convolution of a residual block with its norm and ReLU."""
    if isinstance(conv, SplitConv2d):
        split = copy.deepcopy(conv)
        split.convs = nn.ModuleList(_fused_with_relu(conv, norm) for conv, norm, _ in conv.convs)  # type: ignore[misc]
        return split
    if isinstance(conv, DeformableConv2d):
        return FusedDeformableConv(conv, norm)
    return FusedConv(cast(nn.Conv2d, conv), norm, relu=True)


class FusedBlock(nn.Module):
    """A `ResidualBlock` in eval mode: one pass over the map for each convolution, and no more."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        *inner, last = block.layers
        self.inner = nn.ModuleList(_fused_with_relu(conv, norm) for conv, norm in inner)
        self.last = FusedConv(cast(nn.Conv2d, last[0]), last[1], relu=True)
        self.downsample = None
        if isinstance(block.downsample, nn.Sequential):
            *before, conv, norm = block.downsample
            self.downsample = nn.Sequential(*before, FusedConv(cast(nn.Conv2d, conv), norm))
        one = block.contexts == (("context", "after1x1"),) and self.last.is_linear
        self.shift = None
        if one and block.context is not None and FoldedContext.supports(block.context):
            self.shift = FoldedContext(block.context, self.last.weight.flatten(1), self.last.bias)
        self.contexts = () if self.shift else block.contexts
        for name, _ in self.contexts:
            setattr(self, name, getattr(block, name))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D h w"]:
        y = x
        for number, conv in enumerate(self.inner, 1):
            y = add_context(self, conv(y), f"after_conv{number}")
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.shift is not None:
            if has_hooks([self.shift.pool]):
                self.shift.pool(self.last(y, relu=False))  # who listens sees what the block would see
            shift = self.shift(y)
            if len(shift) == 1:
                return self.last(y, add=shortcut, bias=shift[0])
            return self.last(y, add=shortcut + shift[:, :, None, None], bias=torch.zeros_like(self.last.bias))
        if not self.contexts:
            return self.last(y, add=shortcut)
        if any(position == "after1x1" for _, position in self.contexts):
            out = add_context(self, self.last(y, relu=False), "after1x1") + shortcut
        else:
            out = self.last(y, add=shortcut, relu=False)
        return add_context(self, out, "after_add").relu_()


class FusedResNet(nn.Module):
    """A `ResNet` in eval mode, channels-last, with its batch norms folded. For inference only."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        first = resnet.conv1 if isinstance(resnet.conv1, nn.Sequential) else [resnet.conv1]
        layers = [layer for layer in [*first, resnet.bn1] if not isinstance(layer, nn.ReLU)]
        self.stem = nn.Sequential(
            *[
                FusedConv(cast(nn.Conv2d, conv), norm, relu=True)
                for conv, norm in zip(layers[::2], layers[1::2], strict=True)
            ]
        )
        self.maxpool, self.out_channels = resnet.maxpool, resnet.out_channels
        self.stages = nn.ModuleList(
            nn.Sequential(*[FusedBlock(block) for block in getattr(resnet, f"layer{stage}")])
            for stage in range(1, len(resnet.out_channels) + 1)
        )

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> list[Float[Tensor, "N _C _h _w"]]:
        x = self.maxpool(self.stem(x.contiguous(memory_format=torch.channels_last)))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
