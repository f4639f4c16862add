"""The published ImageNet weights of backbones. No torch here."""

from __future__ import annotations

from gcnet.errors import GCNetError
from gcnet.models.spec import LibrarySpec, ResNetSpec
from gcnet.weights.catalog import R50, R101, Weights

# Upstream calls them "torchvision://resnet50", "torchvision://resnet101" and "open-mmlab://resnext101_32x4d".
_TORCHVISION = "https://download.pytorch.org/models"
_THIRD_PARTY = "https://download.openmmlab.com/pretrain/third_party"
_X101 = "resnext101_32x4d-a5af3160.pth"
_OLD = "https://s3.ap-northeast-2.amazonaws.com/open-mmlab/pretrain/third_party"  # of mmcv until 2020
# What timm calls resnet50.tv_in1k is torchvision's first ResNet-50, in its own file.
_TIMM_R50 = Weights(
    "https://huggingface.co/timm/resnet50.tv_in1k/resolve/main/model.safetensors",
    "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    name="resnet50.tv_in1k.safetensors",
)
# By the structure of the backbone: blocks of c2 to c5, channels of c2, groups and their width.
IMAGENET: dict[tuple[tuple[int, ...], int, int, int], Weights] = {
    (R50, 64, 1, 4): Weights(f"{_TORCHVISION}/resnet50-0676ba61.pth", "0676ba61", (_TIMM_R50,)),
    (R101, 64, 1, 4): Weights(f"{_TORCHVISION}/resnet101-63fe2227.pth", "63fe2227"),
    (R101, 64, 32, 4): Weights(
        f"{_THIRD_PARTY}/{_X101}", "a5af3160", (Weights(f"{_OLD}/{_X101}", "a5af3160"),)
    ),
}


def find_imagenet_weights(spec: ResNetSpec | LibrarySpec) -> Weights | None:
    """The published ImageNet weights of a backbone, if there are any."""
    if isinstance(spec, LibrarySpec):
        return None
    return IMAGENET.get((spec.blocks, spec.base_channels, spec.groups, spec.group_width))


def imagenet_weights(spec: ResNetSpec | LibrarySpec) -> Weights:
    """The published ImageNet weights of a backbone. Raises GCNetError if there are none."""
    if weights := find_imagenet_weights(spec):
        return weights
    raise GCNetError("there are no published ImageNet weights for this backbone; leave them out")
