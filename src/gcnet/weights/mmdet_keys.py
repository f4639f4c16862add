"""The map between the keys of mmdetection's state dicts (2.x and 3.x) and ours; 1.x is modernised first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

Table = Sequence[tuple[str, str]]  # patterns and what takes their place

# Ours to mmdetection's; names of the ResNet itself are the same.
_RENAMED = [
    (r"^(.*context\d*)\.pool\.to_([a-z]+)\.", r"\1.\2_conv."),
    (r"^(.*context\d*)\.pool\.across\.", r"\1.appr_geom_fc_x."),
    (r"^(.*context\d*)\.pool\.down\.", r"\1.appr_geom_fc_y."),
    (r"^(.*context\d*)\.pool\.key_bias$", r"\1.appr_bias"),
    (r"^(.*context\d*)\.pool\.place_bias$", r"\1.geom_bias"),
    (r"^(.*context\d*)\.add\.project\.linear\.", r"\1.proj_conv."),
    (r"^(.*context\d*)\.add\.factor$", r"\1.gamma"),
    (r"^(.*context\d*|neck\.1\.refine)\.pool\.query\.", r"\1.theta.conv."),
    (r"^(.*context\d*|neck\.1\.refine)\.pool\.key\.", r"\1.phi.conv."),
    (r"^(.*context\d*|neck\.1\.refine)\.pool\.value\.", r"\1.g.conv."),
    (r"^(.*context\d*|neck\.1\.refine)\.add\.linear\.", r"\1.conv_out.conv."),
    (r"^(.*context\d*)\.pool\.", r"\1.conv_mask."),
    (r"^(.*context\d*)\.add\.", r"\1.channel_add_conv."),
    (r"^(.*context\d*)\.scale\.", r"\1.channel_mul_conv."),
    (r"^(.*_conv)\.reduce\.", r"\1.0."),
    (r"^(.*_conv)\.norm\.", r"\1.1."),
    (r"^(.*_conv)\.expand\.", r"\1.3."),
    (r"^(backbone\..*)context(\d*)\.", r"\1context_block\2."),
    (r"^(backbone\..*)\.conv2\.convs\.(\d)\.0\.", r"\1.convs.\2."),
    (r"^(backbone\..*)\.conv2\.convs\.(\d)\.1\.", r"\1.bns.\2."),
    (r"^(backbone\..*conv(?:2|s\.\d))\.offset\.", r"\1.conv_offset."),
    (r"^neck\.0\.", "neck."),
    (r"^neck\.1\.refine\.0\.", "neck.1.refine.conv."),
    (r"^neck\.([a-z]+)\.(\d)\.", r"neck.\1_convs.\2.conv."),
    (r"^neck\.([a-z]+)_norms\.(\d)\.", r"neck.\1_convs.\2.bn."),
    (r"^neck\.output_", "neck.fpn_"),
    (r"^neck\.down_", "neck.downsample_"),
    (r"^neck\.final_", "neck.pafpn_"),
    (r"^rpn\.conv\.(\d)\.0\.", r"rpn_head.rpn_conv.\1.conv."),
    (r"^rpn\.conv\.", r"rpn_head.rpn_conv."),
    (r"^rpn\.objectness\.", r"rpn_head.rpn_cls."),
    (r"^rpn\.deltas\.", r"rpn_head.rpn_reg."),
    (r"^roi_heads\.(box|mask)_heads?\.(\d\.)?aggregate\.", r"roi_head.\1_roi_extractor.\2"),
    (r"^(roi_head\.\w+_roi_extractor\..*)\bbefore\.", r"\1pre_module.conv."),
    (r"^(roi_head\.\w+_roi_extractor\..*)\bcontext\.", r"\1post_module."),
    # One head, or the head of each stage of a cascade.
    (r"^roi_heads\.(box|mask)_heads?\.", r"roi_head.\1_head."),
    (r"^(roi_head\..*)\bconvs\.(\d)\.", r"\1convs.\2.conv."),
    (r"^(roi_head\..*)\bnorms\.(\d)\.", r"\1convs.\2.bn."),
    (r"^(roi_head\.mask_head\..*)\blogits\.", r"\1conv_logits."),
    (r"^(roi_head\.box_head\..*)\bconvs\.", r"\1shared_convs."),
    (r"^(roi_head\.box_head\..*)\bfc(\d)\.", r"\1shared_fcs.<\2-1>."),
    (r"^(roi_head\.box_head\..*)\bcls\.", r"\1fc_cls."),
    (r"^(roi_head\.box_head\..*)\bdeltas\.", r"\1fc_reg."),
    (r"^roi_head\.box_", "roi_head.bbox_"),
]
_OLD_HEAD = re.compile(r"(bbox|mask)_(head|roi_extractor)\.")
_SPELLINGS = [
    (r"\.conv2_offset\.", ".conv2.conv_offset."),
    (r"^(backbone\.(?:.*\.)?)gn(\d)\.", r"\1bn\2."),
    (r"^((?:neck|roi_head|bbox_head|mask_head)\..*\.)gn\.", r"\1bn."),
    (r"^backbone\.stem\.7\.", "backbone.bn1."),
    (r"^backbone\.stem\.(\d)\.", r"backbone.conv1.\1."),
    (r"^neck\.0\.", "neck."),
]
CONVOLUTIONS = {  # the weights that mmdetection's `conv_cfg` of a part is for
    "backbone": r"backbone\.(conv1(\.[036])?|layer\d\.\d+\.(conv[123]|convs\.\d|downsample\.[01]))\.weight",
    "neck": r"neck\..*\.conv\.weight",
    "bbox_head": r"roi_head\.bbox_head\..*\.conv\.weight",
    "mask_head": r"roi_head\.mask_head\..*\.conv\.weight",
}
_BLOCK = re.compile(r"(backbone\.layer\d\.\d+\.)((?:context|nonlocal|gen_attention)_block\w*)(?=\.)")


def rename(name: str, table: Table) -> str:
    """A name after all replacements, one after the other; `<2-1>` in one is worked out."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
        name = re.sub(r"<(\d)([+-]\d)>", lambda sum: str(int(sum[1]) + int(sum[2])), name)
    return name


def mmdet_key(ours: str) -> str:
    """mmdetection's name of one of our tensors."""
    return rename(ours, _RENAMED)


def our_keys(tensors: Mapping[str, Tensor], own_names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of mmdetection 2.x and 3.x under our names; names that are none of ours stay as they are."""
    ours = {mmdet_key(name): name for name in own_names}
    return {ours.get(name, name): tensor for name, tensor in tensors.items()}


def is_version_1(tensors: Mapping[str, Tensor]) -> bool:
    """Whether mmdetection 1.x (or 0.x) wrote them: only from 2.0 on are the heads parts of a `roi_head`."""
    two_stage = any(name.startswith("rpn_head.") for name in tensors)
    return two_stage and any(_OLD_HEAD.match(name) for name in tensors)


def modernise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as 2.x and 3.x write those of the commonest models.

    Deformable offsets had another name at first (`conv2_offset`). Group norms are named like batch norms, and
    the first of several necks like the only one. Context blocks of a residual block, whose names a
    configuration can end as it likes, are `context_block`, `context_block2` and so on, in the order in which
    they work. A deep stem is named as here, as timm does. In 1.x background was class 0, also among the
    deltas and masks, where nothing ever used it; since then it is the last class, of the logits alone.
    """
    old = is_version_1(tensors)
    blocks: dict[str, dict[str, int]] = {}  # by residual block, each with its number there
    modern = {}
    for name, tensor in tensors.items():
        new = rename(name, _SPELLINGS)
        if match := _BLOCK.match(new):
            place, block = match.groups()
            numbers = blocks.setdefault(place, {})
            number = numbers.setdefault(block, len(numbers) + 1)
            new = f"{place}context_block{number if number > 1 else ''}{new[match.end() :]}"
        if old and _OLD_HEAD.match(new):
            tensor = without_leading_background(name, tensor)
            new = "roi_head." + new
        modern[new] = tensor
    return modern


def standardise(tensors: Mapping[str, Tensor], parts: Iterable[str]) -> dict[str, Tensor]:
    """The tensors with the weights that the standardised convolutions (arXiv 1903.10520) of `parts` use."""
    theirs = re.compile("|".join(CONVOLUTIONS[part] for part in parts))
    return {
        name: _standardised(tensor) if tensor.dim() == 4 and theirs.fullmatch(name) else tensor
        for name, tensor in tensors.items()
    }


def _standardised(weight: Tensor) -> Tensor:
    flat = weight.flatten(1)
    mean, std = flat.mean(dim=1, keepdim=True), flat.std(dim=1, keepdim=True)
    return ((flat - mean) / (std + 1e-5)).view_as(weight)


def without_leading_background(name: str, tensor: Tensor) -> Tensor:
    """The tensor of a layer where background was the first class: here the last, of the logits alone."""
    layer = name.rpartition(".")[0].rpartition(".")[2] if tensor.dim() else ""
    if layer == "fc_cls":
        return torch.cat([tensor[1:], tensor[:1]])
    if layer == "fc_reg" and len(tensor) > 4:  # four rows are class-agnostic
        return tensor[4:]
    if layer == "conv_logits" and len(tensor) > 1:
        return tensor[1:]
    return tensor
