"""ImageNet weights for the backbone: the published files that mmdetection's rows start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.spec import ResNetSpec
from gcnet.weights.cache import Weights
from gcnet.weights.checkpoint_files import read_checkpoint
from gcnet.weights.download import fetch
from gcnet.weights.files import fill_weights

# By residual blocks of c2..c5 and groups; upstream calls them "torchvision://resnet50",
# "torchvision://resnet101" and "open-mmlab://resnext101_32x4d".
_TORCHVISION = "https://download.pytorch.org/models"
_THIRD_PARTY = "https://download.openmmlab.com/pretrain/third_party"
FILES: dict[tuple[tuple[int, int, int, int], int], Weights] = {
    ((3, 4, 6, 3), 1): Weights(f"{_TORCHVISION}/resnet50-0676ba61.pth", "0676ba61"),
    ((3, 4, 23, 3), 1): Weights(f"{_TORCHVISION}/resnet101-63fe2227.pth", "63fe2227"),
    ((3, 4, 23, 3), 32): Weights(f"{_THIRD_PARTY}/resnext101_32x4d-a5af3160.pth", "a5af3160"),
}
_CLASSIFIER = ("fc.", "last_linear.")


def load_imagenet(
    backbone: torch.nn.Module,
    spec: ResNetSpec,
    file: str | Path | None = None,
    *,
    mirrors: Sequence[str] = (),
) -> None:
    """Fills a ResNet with ImageNet weights, from a local `file` or fetched (see `download.fetch`).

    Context blocks and deformable offsets are not part of these files and keep their initial weights.

    Raises:
        GCNetError: no such weights are published, they cannot be fetched or do not match their hash.
    """
    path = Path(file) if file else imagenet_file(spec, mirrors=mirrors)
    tensors = read_checkpoint(path).tensors
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIER)}
    fresh: dict[str, Tensor] = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if ".context." in name or ".offset." in name
    }
    fill_weights(backbone, fresh | tensors, source=str(path))


def imagenet_file(spec: ResNetSpec, *, mirrors: Sequence[str] = ()) -> Path:
    """The published file for a ResNet, fetched if need be. Raises GCNetError as `load_imagenet` does."""
    return fetch(_published(spec), mirrors=mirrors)


def is_published(spec: ResNetSpec) -> bool:
    """Whether there are ImageNet weights for this ResNet."""
    weights = FILES.get((spec.blocks, spec.groups))
    return weights is not None and spec.base_channels == 64 and (spec.groups == 1 or spec.group_width == 4)


def _published(spec: ResNetSpec) -> Weights:
    if not is_published(spec):
        raise GCNetError("there are no published ImageNet weights for this backbone; leave them out")
    return FILES[spec.blocks, spec.groups]
