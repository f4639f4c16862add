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
    (r"^neck\.lateral\.(\d)\.", r"neck.lateral_convs.\1.conv."),
    (r"^neck\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
    (r"^rpn\.conv\.", r"rpn_head.rpn_conv."),
    (r"^rpn\.objectness\.", r"rpn_head.rpn_cls."),
    (r"^rpn\.deltas\.", r"rpn_head.rpn_reg."),
    (r"^roi_heads\.box_head\.fc1\.", r"roi_head.bbox_head.shared_fcs.0."),
    (r"^roi_heads\.box_head\.fc2\.", r"roi_head.bbox_head.shared_fcs.1."),
    (r"^roi_heads\.box_head\.cls\.", r"roi_head.bbox_head.fc_cls."),
    (r"^roi_heads\.box_head\.deltas\.", r"roi_head.bbox_head.fc_reg."),
    (r"^roi_heads\.mask_head\.convs\.(\d)\.", r"roi_head.mask_head.convs.\1.conv."),
    (r"^roi_heads\.mask_head\.upsample\.", r"roi_head.mask_head.upsample."),
    (r"^roi_heads\.mask_head\.logits\.", r"roi_head.mask_head.conv_logits."),
]


def mmdet_key(ours: str) -> str:
    """mmdetection's name of one of our tensors."""
    for pattern, replacement in _RENAMED:
        theirs, changed = re.subn(pattern, replacement, ours)
        if changed:
            return theirs
    return ours


def from_mmdet(tensors: Mapping[str, Tensor], own_names: list[str]) -> dict[str, Tensor]:
    """`tensors` under our names; names that no tensor of ours answers to are kept as they are."""
    ours = {mmdet_key(name): name for name in own_names}
    return {ours.get(name, name): tensor for name, tensor in tensors.items()}
