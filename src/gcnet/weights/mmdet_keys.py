"""The key map between mmdetection's state dicts (2.x and 3.x) and ours; what 1.x did otherwise is undone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# (ours, mmdetection's); names of the ResNet itself are the same.
_RENAMED = [
    (r"^(backbone\..*)context\.pool\.", r"\1context_block.conv_mask."),
    (r"^(backbone\..*)context\.add\.reduce\.", r"\1context_block.channel_add_conv.0."),
    (r"^(backbone\..*)context\.add\.norm\.", r"\1context_block.channel_add_conv.1."),
    (r"^(backbone\..*)context\.add\.expand\.", r"\1context_block.channel_add_conv.3."),
    (r"^(backbone\..*)context\.scale\.reduce\.", r"\1context_block.channel_mul_conv.0."),
    (r"^(backbone\..*)context\.scale\.norm\.", r"\1context_block.channel_mul_conv.1."),
    (r"^(backbone\..*)context\.scale\.expand\.", r"\1context_block.channel_mul_conv.3."),
    (r"^(backbone\..*conv2)\.offset\.", r"\1.conv_offset."),
    (r"^neck\.lateral\.(\d)\.", r"neck.lateral_convs.\1.conv."),
    (r"^neck\.lateral_norms\.(\d)\.", r"neck.lateral_convs.\1.bn."),
    (r"^neck\.output_norms\.(\d)\.", r"neck.fpn_convs.\1.bn."),
    (r"^neck\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
    (r"^rpn\.conv\.", r"rpn_head.rpn_conv."),
    (r"^rpn\.objectness\.", r"rpn_head.rpn_cls."),
    (r"^rpn\.deltas\.", r"rpn_head.rpn_reg."),
    # One head, or the head of each stage of a cascade.
    (r"^roi_heads\.(box|mask)_heads\.(\d)\.", r"roi_heads.\1_head.\2."),
    (r"^roi_heads\.box_head\.(\d\.)?convs\.(\d)\.", r"roi_head.bbox_head.\1shared_convs.\2.conv."),
    (r"^roi_heads\.box_head\.(\d\.)?norms\.(\d)\.", r"roi_head.bbox_head.\1shared_convs.\2.bn."),
    (r"^roi_heads\.mask_head\.(\d\.)?norms\.(\d)\.", r"roi_head.mask_head.\1convs.\2.bn."),
    (r"^roi_heads\.box_head\.(\d\.)?fc1\.", r"roi_head.bbox_head.\1shared_fcs.0."),
    (r"^roi_heads\.box_head\.(\d\.)?fc2\.", r"roi_head.bbox_head.\1shared_fcs.1."),
    (r"^roi_heads\.box_head\.(\d\.)?cls\.", r"roi_head.bbox_head.\1fc_cls."),
    (r"^roi_heads\.box_head\.(\d\.)?deltas\.", r"roi_head.bbox_head.\1fc_reg."),
    (r"^roi_heads\.mask_head\.(\d\.)?convs\.(\d)\.", r"roi_head.mask_head.\1convs.\2.conv."),
    (r"^roi_heads\.mask_head\.(\d\.)?upsample\.", r"roi_head.mask_head.\1upsample."),
    (r"^roi_heads\.mask_head\.(\d\.)?logits\.", r"roi_head.mask_head.\1conv_logits."),
]
_OLD_HEAD = re.compile(r"(bbox|mask)_head\.")


def mmdet_key(ours: str) -> str:
    """mmdetection's name of one of our tensors."""
    for pattern, replacement in _RENAMED:
        ours = re.sub(pattern, replacement, ours)
    return ours


def our_keys(tensors: Mapping[str, Tensor], own_names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of mmdetection 2.x and 3.x under our names; names that are none of ours stay as they are."""
    ours = {mmdet_key(name): name for name in own_names}
    return {ours.get(name, name): tensor for name, tensor in tensors.items()}


def is_version_1(tensors: Mapping[str, Tensor]) -> bool:
    """Whether mmdetection 1.x (or 0.x) wrote them: only from 2.0 on are the heads parts of a `roi_head`."""
    two_stage = any(name.startswith("rpn_head.") for name in tensors)
    return two_stage and any(_OLD_HEAD.match(name) for name in tensors)


def modernise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as 2.x and 3.x would have written them.

    Deformable offsets had another name at first (`conv2_offset`), and a configuration can give those of
    context blocks an ending. In 1.x background was class 0, also
    among the deltas and masks, where nothing ever used it; since then it is the last class, of the logits
    alone.
    """
    old = is_version_1(tensors)
    modern = {}
    for name, tensor in tensors.items():
        new = re.sub(r"\.conv2_offset\.", ".conv2.conv_offset.", name)
        new = re.sub(r"\.context_block\w+\.", ".context_block.", new)
        if old and _OLD_HEAD.match(new):
            tensor = _without_leading_background(name, tensor)
            new = "roi_head." + new
        modern[new] = tensor
    return modern


def _without_leading_background(name: str, tensor: Tensor) -> Tensor:
    layer = name.rpartition(".")[0].rpartition(".")[2]
    if layer == "fc_cls":
        return torch.cat([tensor[1:], tensor[:1]])
    if layer == "fc_reg" and len(tensor) > 4:  # four are those of all classes together
        return tensor[4:]
    if layer == "conv_logits" and len(tensor) > 1:
        return tensor[1:]
    return tensor
