"""Translates detectors of torchvision and detectron2 into mmdetection's form.

Layers get mmdetection's names, and background comes last. What the two libraries compute differently is the
same for all their files, and is not written in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.spec import Coordinates, Resize, RPNSpec
from gcnet.weights.mmdet_config import CAFFE_MEAN, CAFFE_STD, Config
from gcnet.weights.mmdet_keys import modernise, rename, without_leading_background

EPS = 1e-5  # of the norms here
OTHER_HEADS = {
    r"roi_heads\.(keypoint|point)_": "a head for keypoints or points",
    r"sem_seg_head\.": "a semantic head",
}


@dataclass(frozen=True)
class Dialect:
    """The library of a file, and its conventions.

    Attributes:
        config: how images are prepared, and what shapes do not tell.
        coordinates: of all its models; None if they depend on the file.
        note: what had to be assumed; None if nothing.
        tensors: the weights under mmdetection's names.
    """

    library: str
    tensors: dict[str, Tensor]
    config: Config = field(default_factory=Config)
    coordinates: Coordinates | None = None
    resize: Resize = "opencv"
    note: str | None = None


def translate(tensors: Mapping[str, Tensor], *, source: str) -> Dialect:
    """The weights of a detector under mmdetection 2.x's names.

    Raises GCNetError if it has a head that no model here has.
    """
    for part, what in OTHER_HEADS.items():
        if any(re.match(part, name) for name in tensors):
            raise GCNetError(f"{source} cannot be read: it has {what}, as no model here")
    if any(name.startswith("rpn.head.") for name in tensors):
        return _torchvision(tensors)
    if any(name.startswith("proposal_generator.rpn_head.") for name in tensors):
        return _detectron2(tensors, source)
    mean, std = (tensors.get(f"data_preprocessor.{name}") for name in ("mean", "std"))
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return Dialect("mmdetection", modernise(tensors))
    named = {name: tensor for name, tensor in tensors.items() if not name.startswith("data_preprocessor.")}
    return Dialect("mmdetection", modernise(named), Config(mean=_three(mean), std=_three(std)))


_BOTH = [  # after the names of either
    (r"^roi_heads\.box_predictor\.cls_score\.", "roi_head.bbox_head.fc_cls."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_head.bbox_head.fc_reg."),
    (r"^roi_heads\.box_head\.convs\.", "roi_head.bbox_head.shared_convs."),
    (r"^roi_heads\.box_head\.(?=shared_fcs\.)", "roi_head.bbox_head."),
    (r"^roi_heads\.mask_head\.(?=convs|upsample|conv_logits)", "roi_head.mask_head."),
    (r"^((?:neck|roi_head)\..*convs\.\d+)\.(1|norm)\.", r"\1.bn."),
    (r"^((?:neck|roi_head)\..*convs\.\d+)\.(0\.)?(?!bn\.)", r"\1.conv."),
]


# torchvision ------------------------------------------------------------------------------------------

_TORCHVISION = [
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.inner_blocks\.", "neck.lateral_convs."),
    (r"^backbone\.fpn\.layer_blocks\.", "neck.fpn_convs."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"rpn_head.rpn_conv.\1.conv."),
    (r"^rpn\.head\.conv\.", "rpn_head.rpn_conv."),
    (r"^rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"^(roi_heads\.box_head)\.fc(\d)\.", r"\1.shared_fcs.<\2-6>."),
    (r"^(roi_heads\.\w+_head)\.(?=\d+\.\d\.)", r"\1.convs."),
    (r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.", r"\1.convs.<\2-1>."),  # until torchvision 0.13
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_head.mask_head.upsample."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_head.mask_head.conv_logits."),
]


def _torchvision(tensors: Mapping[str, Tensor]) -> Dialect:
    """`maskrcnn_resnet50_fpn`, `fasterrcnn_resnet50_fpn`, their `_v2`, and the like on other ResNets."""
    # The numbers of linear layers follow those of the convolutions; there may be several.
    pattern = r"roi_heads\.box_head\.(\d+)\.weight"
    linear = sorted(int(match[1]) for name in tensors if (match := re.fullmatch(pattern, name)))
    fcs = [
        (rf"^roi_heads\.box_head\.{number}\.(?=weight|bias)", f"roi_head.bbox_head.shared_fcs.{index}.")
        for index, number in enumerate(linear)
    ]
    several = "rpn.head.conv.1.0.weight" in tensors
    one_conv = [] if several else [(r"^rpn\.head\.conv\.0\.0\.", "rpn_head.rpn_conv.")]
    named = {rename(name, fcs + one_conv + _TORCHVISION + _BOTH): tensor for name, tensor in tensors.items()}
    named = {name: without_leading_background(name, tensor) for name, tensor in named.items()}
    note = None
    if "backbone.bn1.num_batches_tracked" not in named and "backbone.bn1.running_var" in named:
        note = "its norms are frozen: taken as without an eps, as in torchvision's COCO weights and theirs"
        _put_eps(named)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    config = Config(style="pytorch", channels="rgb", mean=mean, std=std, image_size=(1333, 800))
    return Dialect("torchvision", named, config, "torchvision", "torchvision", note)


def _put_eps(tensors: dict[str, Tensor]) -> None:
    """Weights of the backbone's norms for ours, which have an eps, where they were used without."""
    for name in [name for name in tensors if re.match(r"backbone\..*running_var$", name)]:
        variance, weight = tensors[name].double(), name.replace("running_var", "weight")
        ratio = (variance + EPS) / variance.clamp(min=1e-30)
        if weight in tensors and tensors[weight].shape == ratio.shape:
            tensors[weight] = (tensors[weight].double() * ratio.sqrt()).float()


# detectron2 -------------------------------------------------------------------------------------------

_DETECTRON2 = [
    (r"^backbone\.bottom_up\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^backbone\.bottom_up\.(stem\.)?", "backbone."),
    (r"^(backbone\.res\d\..*)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(backbone\.res\d\..*)\.shortcut\.", r"\1.downsample.0."),
    (r"^(backbone\.res\d\..*)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^(backbone\.res\d\..*)\.conv2_offset\.", r"\1.conv2.conv_offset."),
    (r"^backbone\.res(\d)\.", r"backbone.layer<\1-1>."),
    (r"^backbone\.fpn_lateral(\d)\.", r"neck.lateral_convs.<\1-2>."),
    (r"^backbone\.fpn_output(\d)\.", r"neck.fpn_convs.<\1-2>."),
    (r"^proposal_generator\.rpn_head\.conv\.conv(\d)\.", r"rpn_head.rpn_conv.\1.conv."),
    (r"^proposal_generator\.rpn_head\.conv\.", "rpn_head.rpn_conv."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "rpn_head.rpn_cls."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "rpn_head.rpn_reg."),
    (r"^(roi_heads\.box_head)\.fc(\d)\.", r"\1.shared_fcs.<\2-1>."),
    (r"^(roi_heads\.box_head)\.conv(\d)\.", r"\1.convs.<\2-1>."),
    (r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.", r"\1.convs.<\2-1>."),
    (r"^(roi_heads\.mask_head)\.deconv\.", r"\1.upsample."),
    (r"^(roi_heads\.mask_head)\.predictor\.", r"\1.conv_logits."),
]
# Buffers that are no weights; older files have them.
_CELL = re.compile(r"(proposal_generator\.)?anchor_generator\.cell_anchors\.\d$")
_SETTINGS = re.compile(r"pixel_(mean|std)$|(proposal_generator\.)?anchor_generator\.")


def _detectron2(tensors: Mapping[str, Tensor], source: str) -> Dialect:
    """Mask and Faster R-CNN with an FPN of detectron2's model zoo, or trained from it."""
    if any(re.match(r"roi_heads\.box_head\.\d+\.", name) for name in tensors):
        raise GCNetError(
            f"{source} cannot be read: it is a cascade of detectron2, which averages probabilities and has "
            "one mask head; no model here does"
        )
    weights = {name: tensor for name, tensor in tensors.items() if not _SETTINGS.match(name)}
    named = {rename(name, _DETECTRON2 + _BOTH): tensor for name, tensor in weights.items()}
    # Group norms have no statistics; with them in the backbone its zoo has them in the FPN, too. Those of
    # Caffe2's backbones are in weight and bias already.
    scales = [name for name in named if re.match(r"backbone\..*(bn\d|downsample\.1)\.weight$", name)]
    bare = not any(name.endswith("running_mean") for name in named)
    grouped = bare and "neck.lateral_convs.0.bn.weight" in named
    for name in scales if not grouped else ():
        named.setdefault(name.replace("weight", "running_mean"), torch.zeros_like(named[name]))
        named.setdefault(name.replace("weight", "running_var"), torch.ones_like(named[name]))
    conv = named.get("backbone.layer1.0.conv2.weight", torch.zeros(1, 1))
    is_resnext = conv.shape[:1] != conv.shape[1:2]
    mean, std, channels = CAFFE_MEAN, CAFFE_STD if is_resnext else (1.0, 1.0, 1.0), "bgr"
    if (own := tensors.get("pixel_mean")) is not None and own.numel() == 3:
        mean, std = _three(own), _three(tensors.get("pixel_std", torch.ones(3)))
        channels = "rgb" if mean[0] > mean[2] else "bgr"
    style = "pytorch" if is_resnext or grouped else "caffe"
    images = f"{channels.upper()} images and blocks of {style} style"
    note = f"detectron2's file: taken as its model zoo has them, {images}"
    if bare and not grouped:
        note += "; norms without statistics: taken as frozen, with theirs in the weights"
    config = Config(style=style, channels=channels, mean=mean, std=std, image_size=(1333, 800))
    config = config.overruled_by(_anchors(tensors, source))
    return Dialect("detectron2", named, config, resize="pillow", note=note)


def _anchors(tensors: Mapping[str, Tensor], source: str) -> Config:
    """The anchors, where a file has them around one place of each level: detectron2's did until 2020."""
    cells = [tensors[name] for name in sorted(tensors) if _CELL.match(name)]
    if len(cells) != 5 or len({cell.shape for cell in cells}) != 1 or cells[0].shape[1:] != (4,):
        return Config()
    corners = torch.stack(cells).double() / torch.tensor(RPNSpec.anchor_strides).view(5, 1, 1)
    width, height = (corners[..., 2:] - corners[..., :2]).unbind(-1)
    of_level = torch.stack([(width * height).sqrt(), height / width])  # 2 x level x anchor
    scales, ratios = (tuple(dict.fromkeys(round(float(x), 5) for x in level[0])) for level in of_level)
    if not torch.allclose(of_level, of_level[:, :1], rtol=1e-3) or min(len(scales), len(ratios)) != 1:
        raise GCNetError(
            f"{source} cannot be read: it has anchors of its own, whose sides do not grow with its levels"
        )
    return Config(anchor_scale=scales[0] if len(scales) == 1 else scales, anchor_ratios=ratios)


def _three(tensor: Tensor) -> Any:
    return tuple(round(float(value), 4) for value in tensor.flatten())
