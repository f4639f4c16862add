"""The key map between mmdetection's state dicts (2.x and 3.x) and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    (r"^neck\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
    (r"^rpn\.conv\.", r"rpn_head.rpn_conv."),
    (r"^rpn\.objectness\.", r"rpn_head.rpn_cls."),
    (r"^rpn\.deltas\.", r"rpn_head.rpn_reg."),
    # One head, or the head of each stage of a cascade.
    (r"^roi_heads\.(box|mask)_heads\.(\d)\.", r"roi_heads.\1_head.\2."),
    (r"^roi_heads\.box_head\.(\d\.)?fc1\.", r"roi_head.bbox_head.\1shared_fcs.0."),
    (r"^roi_heads\.box_head\.(\d\.)?fc2\.", r"roi_head.bbox_head.\1shared_fcs.1."),
    (r"^roi_heads\.box_head\.(\d\.)?cls\.", r"roi_head.bbox_head.\1fc_cls."),
    (r"^roi_heads\.box_head\.(\d\.)?deltas\.", r"roi_head.bbox_head.\1fc_reg."),
    (r"^roi_heads\.mask_head\.(\d\.)?convs\.(\d)\.", r"roi_head.mask_head.\1convs.\2.conv."),
    (r"^roi_heads\.mask_head\.(\d\.)?upsample\.", r"roi_head.mask_head.\1upsample."),
    (r"^roi_heads\.mask_head\.(\d\.)?logits\.", r"roi_head.mask_head.\1conv_logits."),
]


def mmdet_key(ours: str) -> str:
    """mmdetection's name of one of our tensors."""
    for pattern, replacement in _RENAMED:
        ours = re.sub(pattern, replacement, ours)
    return ours


def from_mmdet(tensors: Mapping[str, Tensor], own_names: list[str]) -> dict[str, Tensor]:
    """`tensors` under our names; names that no tensor of ours answers to are kept as they are."""
    ours = {mmdet_key(name): name for name in own_names}
    return {ours.get(name, name): tensor for name, tensor in tensors.items()}
