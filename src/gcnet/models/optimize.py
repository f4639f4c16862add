"""A detector made ready for inference: the same detections, sooner."""

from __future__ import annotations

import copy
import os
import shutil
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gcnet.errors import GCNetError
from gcnet.files import cache_folder
from gcnet.models.detector import Detector
from gcnet.models.fused import FusedConv, FusedResNet
from gcnet.models.resnet import ResNet
from gcnet.models.spec import Precision


def optimize(detector: Detector, *, precision: Precision = "fp32", compiled: bool = False) -> Detector:
    """A copy of `detector` for inference alone.

    Norms are folded into convolutions, sums and ReLUs are done by them, maps are channels-last, and a global
    context block costs next to nothing (`gcnet.models.fused`). In "fp32" the detections are the same up to
    the order of sums. "bf16" and "fp16" compute the network at half the width, but for its last layers and
    the boxes: faster where the hardware has it, and other in the third digit.

    `compiled` has torch.compile fuse what is left, at the first picture and for pictures of all sizes, and
    keeps its work between runs in our cache folder. On a CPU there is nothing left to fuse: it is for GPUs.

    The copy cannot be trained or saved. A backbone with group norm stays as it is.

    Raises:
        GCNetError: `compiled`, and there is no C compiler, which torch.compile needs.
    """
    if compiled and not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang", "cl"))):
        raise GCNetError("compiling needs a C compiler, gcc or clang, and none is found: install one")
    fast = copy.deepcopy(detector).eval().requires_grad_(False)
    if isinstance(fast.backbone, ResNet) and fast.backbone.norm != "group":
        fast.backbone = FusedResNet(fast.backbone)
    rpn = fast.rpn
    rpn.conv, rpn.relu = FusedConv(cast(nn.Conv2d, rpn.conv), relu=True), nn.Identity()
    fast = fast.to(memory_format=torch.channels_last)
    if precision != "fp32":
        _halve(fast, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    if compiled:
        _compile(fast)
    return fast


def _compile(fast: Detector) -> None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    heads = fast.roi_heads
    for module in fast.modules():
        # It is one call already. As a decorator this would load the compiler for those who do not compile.
        if isinstance(module, FusedConv):
            module._onednn = torch.compiler.disable(module._onednn)  # pyright: ignore[reportAttributeAccessIssue]
    # The dense parts alone: how many regions there are depends on the picture.
    for part in (fast.backbone, fast.neck, *heads.box_stages, *heads.mask_stages):
        part.compile(dynamic=True)


def _halve(fast: Detector, dtype: torch.dtype) -> None:
    """Puts the network into `dtype`, but for the layers that say what is an object, which, and where exactly.

    Those are a hundredth of the arithmetic; rounding what they say is most of what half precision costs.
    """
    said: list[tuple[Any, str]] = [(fast.rpn, name) for name in ("objectness", "deltas")]
    said += [(head, name) for head in fast.roi_heads.box_stages for name in ("cls", "deltas")]
    exact = [Float32(copy.deepcopy(getattr(part, name))) for part, name in said]
    fast.compute_dtype = dtype
    for part in (fast.backbone, fast.neck, fast.rpn, fast.roi_heads):
        part.to(dtype)
    for (part, name), layer in zip(said, exact, strict=True):
        setattr(part, name, layer)


class Float32(nn.Module):
    """A layer that computes in full precision inside a network that does not."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
        return self.layer(x.float())
