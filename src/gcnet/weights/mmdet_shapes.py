"""Reads a model's structure from the shapes in an mmdetection state dict, and finds unsupported parts.

Names are those of `mmdet_keys.modernise`. C channels of a map, P of a block's bottleneck.
"""

from __future__ import annotations

import re
from dataclasses import astuple, replace
from math import ceil
from typing import Any

from gcnet.errors import GCNetError
from gcnet.models.resnet import EXPANSION
from gcnet.models.spec import (
    AggregateSpec,
    BalanceSpec,
    CascadeSpec,
    ContextSpec,
    LibrarySpec,
    ModelSpec,
    Norm,
    ResNetSpec,
    RoISpec,
    RPNSpec,
)
from gcnet.weights.catalog import CASCADE_RPN
from gcnet.weights.mmdet_blocks import (
    STAGES,
    Shapes,
    attention_options,
    count_of,
    read_contexts,
    stage_lengths,
)
from gcnet.weights.mmdet_config import Config

CLASS_LOGITS = ("roi_head.bbox_head.fc_cls.weight", "roi_head.bbox_head.0.fc_cls.weight")
NEEDED = ("backbone.layer1.0.conv1", "neck.lateral_convs", "rpn_head.rpn_conv", "roi_head.bbox_head")
# Prefixes of tensors that no model here has, and the parts that they belong to.
OTHER_PARTS = {
    r"neck\.1\.(?!refine\.)|neck\.[2-9]\.": "a second neck that is no BFP",
    r"neck\.fpn_convs\.[4-9]\.": "convolutions for further levels of the FPN",
    r"neck\..*\.(up_?sample|content_encoder|channel_compressor)": "learnt upsampling in the FPN (CARAFE)",
    r"backbone\..*\.(se_layer|conv2\.(fc|conv|bn)\d?\.)": "attention within residual blocks (SE, ResNeSt)",
    r"backbone\..*\.weight_(gamma|beta|diff)$|backbone\..*\.switch\.": "switchable convolutions (DetectoRS)",
    r"roi_head\.semantic_head\.": "a semantic branch (HTC)",
    r"roi_head\.mask_head\..*conv_res\.": "mask heads that hand on what they saw (HTC)",
    r"roi_head\.mask_iou_head\.": "a head for the quality of masks (Mask Scoring)",
    r"roi_head\.point_head\.": "a point head (PointRend)",
    r"roi_head\.grid_head\.": "a grid head (Grid R-CNN)",
    r"roi_head\.bbox_head\..*((cls|reg)_(convs|fcs)|conv_branch)\.": "two branches in its box head",
    r"rpn_head\.(conv_loc|conv_shape|stages)\b": "anchors that are learnt (Guided Anchoring, Cascade RPN)",
}
CELLS = 7  # of a region, across and down, that a box head takes


def class_count(shapes: Shapes) -> int | None:
    """How many classes its box head knows."""
    return next((shapes[key][0] - 1 for key in CLASS_LOGITS if shapes.get(key)), None)


def other_parts(shapes: Shapes) -> list[str]:
    """What it has and no model here does, in words."""
    return [words for part, words in OTHER_PARTS.items() if _has(shapes, part)]


def read_structure(shapes: Shapes, config: Config, *, source: str) -> ModelSpec:
    """The model without its classes, from the shapes of tensors under mmdetection 2.x's names.

    The configuration says what no tensor belongs to: a plain balanced pyramid, and whether a block stands
    behind the first or the second convolution. All else that shapes do not tell is at its default; norms are
    "frozen_stats" in the backbone and "sync" elsewhere, unless they are group norms.

    Raises GCNetError if it is not a Mask or Faster R-CNN, or a cascade of two or three stages, with a ResNet
    and an FPN.
    """
    for part in NEEDED:
        if not any(name.startswith(part) for name in shapes):
            raise GCNetError(
                f"{source} holds another kind of model: it has no {part}; what can be read are Mask, "
                "Faster and Cascade R-CNN with a ResNet or ResNeXt and an FPN"
            )
    stages = count_of(shapes, r"roi_head\.bbox_head\.(\d+)\.fc_cls\.weight")
    if stages not in (0, 2, 3):
        raise GCNetError(f"{source} holds a cascade of {stages} stages; only those of 2 or 3 can be read")
    head = "0." if stages else ""
    for part in ("bbox_head", "mask_head", "bbox_roi_extractor", "mask_roi_extractor"):
        heads = [_part(shapes, f"roi_head.{part}.{stage}.") for stage in range(stages)]
        if any(other != heads[0] for other in heads):
            raise GCNetError(f"{source} holds a cascade whose stages differ in their {part}; none here does")
    cascade = CascadeSpec(*(values[:stages] for values in astuple(CascadeSpec())))
    rpn_convs = count_of(shapes, r"rpn_head\.rpn_conv\.(\d)\.conv\.weight") or 1
    try:
        return ModelSpec(
            "",
            (),
            _backbone(shapes, config),
            fpn_channels=shapes["neck.lateral_convs.0.conv.weight"][0],
            fpn_norm=_norm(shapes, "neck.lateral_convs.0.bn"),
            fpn_bottom_up=_has(shapes, r"neck\.pafpn_convs\."),
            balance=_balance(shapes, config),
            rpn=replace(CASCADE_RPN if stages else RPNSpec(), convs=rpn_convs),
            roi=replace(
                _roi(shapes, f"roi_head.bbox_head.{head}", f"roi_head.mask_head.{head}", bool(stages)),
                aggregate=_aggregate(shapes, head, config),
            ),
            cascade=cascade if stages else None,
        )
    except KeyError as error:
        raise GCNetError(f"{source} holds another kind of model, or not all of it: no {error}") from error
    except ValueError as error:
        raise GCNetError(f"{source} holds another kind of model: it has {error}") from error
    except (IndexError, ZeroDivisionError) as error:
        raise GCNetError(f"{source} holds tensors whose shapes are those of no model") from error


def told_by_shapes(spec: ModelSpec) -> tuple[object, ...]:
    """What shapes tell of a model: equal for models whose tensors fit each other."""
    backbone, roi = spec.backbone, spec.roi
    if isinstance(backbone, LibrarySpec):  # there are no such checkpoints
        return (backbone,)
    is_grouped = backbone.groups > 1 or backbone.scales > 1 or backbone.widths
    backbone = replace(
        backbone,
        group_width=backbone.group_width if is_grouped else ResNetSpec.group_width,
        style="pytorch",
        norm=_kind(backbone.norm) or "sync",
        frozen_stages=ResNetSpec.frozen_stages,
        zero_init_residual=ResNetSpec.zero_init_residual,
    )
    neck = (spec.fpn_channels, _kind(spec.fpn_norm), spec.fpn_bottom_up, spec.balance)
    box = (roi.box_convs, roi.box_fcs, roi.box_channels, roi.class_agnostic, _kind(roi.norm), roi.aggregate)
    mask = roi.masks and (roi.mask_channels, roi.mask_convs, roi.class_agnostic_masks)
    return backbone, neck, spec.rpn.convs, box, mask, spec.cascade and len(spec.cascade.ious)


def _kind(norm: Norm | None) -> Norm | None:
    """Batch norms look alike in a file, however they were trained."""
    return norm if norm in (None, "group", "group32") else "sync"


def _norm(shapes: Shapes, name: str) -> Norm | None:
    if f"{name}.weight" not in shapes:
        return None
    return "sync" if f"{name}.running_mean" in shapes else "group32"


def _backbone(shapes: Shapes, config: Config) -> ResNetSpec:
    bottleneck = "backbone.layer1.0.conv3.weight" in shapes
    blocks: Any = tuple(stage_lengths(shapes))
    if not all(blocks):
        raise ValueError(f"{sum(map(bool, blocks))} whole stages in its backbone and not 4")
    if "backbone.bn1.weight" not in shapes:
        raise ValueError("a backbone without norms")
    levels = count_of(shapes, r"neck\.lateral_convs\.(\d+)\.conv\.weight")
    if levels != len(STAGES):
        raise ValueError(f"an FPN on {levels} maps of its backbone")
    deep = "backbone.conv1.0.weight" in shapes
    first = "backbone.conv1.0.weight" if deep else "backbone.conv1.weight"
    if shapes[first][1:2] not in ((), (3,)):
        raise ValueError(f"images of {shapes[first][1]} channels and not 3")
    return ResNetSpec(
        blocks=blocks,
        block="bottleneck" if bottleneck else "basic",
        stem_channels=shapes["backbone.conv1.6.weight" if deep else "backbone.conv1.weight"][0],
        **_widths(shapes, bottleneck=bottleneck, regnet=not deep and shapes[first][2:] == (3, 3)),
        deep_stem=deep,
        avg_down=len(shapes.get("backbone.layer2.0.downsample.1.weight", ())) == 4,
        **_deformable(shapes, blocks),
        norm="frozen_stats" if _norm(shapes, "backbone.bn1") == "sync" else "group32",
        **read_contexts(shapes, config),
    )


def _widths(shapes: Shapes, *, bottleneck: bool, regnet: bool) -> dict[str, Any]:
    """The widths of its stages and of the groups of their 3x3 convolutions."""
    if not bottleneck:
        return {"base_channels": shapes["backbone.layer1.0.conv2.weight"][0]}
    widths = tuple(shapes[f"backbone.layer{stage}.0.conv3.weight"][0] for stage in STAGES)
    base = widths[0] // EXPANSION["bottleneck"]
    if in_part := shapes.get("backbone.layer1.0.convs.0.weight"):
        scales = count_of(shapes, r"backbone\.layer1\.0\.convs\.(\d)\.weight") + 1
        return {"base_channels": base, "scales": scales, "group_width": ceil(in_part[0] * 64 / base)}
    convs = [shapes[f"backbone.layer{stage}.0.conv2.weight"] for stage in STAGES]
    inner, in_group = convs[0][:2]
    if not regnet:
        grouped = {"groups": inner // in_group, "group_width": ceil(in_group * 64 / base)}
        return {"base_channels": base} | (grouped if inner > in_group else {})
    width = max(conv[1] for conv in convs)
    if any(conv[:2] != (own, min(width, own)) for conv, own in zip(convs, widths, strict=True)):
        raise ValueError("a RegNet whose blocks have another width inside")
    return {"widths": widths, "group_width": width}


def _deformable(shapes: Shapes, blocks: tuple[int, ...]) -> dict[str, Any]:
    """Two numbers for each of the nine points of an offset group, or three with a weight."""
    pattern = r"backbone\.layer{}\.(\d+)\.(?:conv2|convs\.0)\.conv_offset\.weight"
    counts = [count_of(shapes, pattern.format(stage)) for stage in STAGES]
    if not any(counts):
        return {}
    if any(count not in (0, whole) for count, whole in zip(counts, blocks, strict=True)):
        raise ValueError("deformable convolution in some residual blocks of a stage")
    numbers, channels = next(shape for name, shape in shapes.items() if ".conv_offset.weight" in name)[:2]
    plain = numbers % 18 == 0 and channels % (numbers // 18) == 0
    return {
        "deformable_stages": tuple(count > 0 for count in counts),
        "modulated": not plain,
        "offset_groups": numbers // (18 if plain else 27),
    }


def _balance(shapes: Shapes, config: Config) -> BalanceSpec | None:
    level = config.balance_level
    if not _has(shapes, r"neck\.1\.refine\."):
        return None if level is None else BalanceSpec(level, None)
    refine = "non_local" if _has(shapes, r"neck\.1\.refine\.theta\.") else "conv"
    return BalanceSpec(BalanceSpec.level if level is None else level, refine)


def _roi(shapes: Shapes, box: str, mask: str, cascade: bool) -> RoISpec:
    classes = shapes[f"{box}fc_cls.weight"][0] - 1
    fcs = count_of(shapes, re.escape(box) + r"shared_fcs\.(\d+)\.weight")
    if fcs not in (1, 2):
        raise ValueError(f"{fcs} linear layers in its box head and not 1 or 2")
    channels = shapes["neck.lateral_convs.0.conv.weight"][0]
    cells = shapes[f"{box}shared_fcs.0.weight"][1] / channels
    if cells != CELLS**2:
        raise ValueError(f"regions of {cells**0.5:.3g} cells a side in its box head and not {CELLS}")
    convs = (f"{box}shared_convs.0", f"{mask}convs.0")
    norms: set[Norm | None] = {_norm(shapes, f"{conv}.bn") for conv in convs if _has(shapes, conv)}
    if len(norms) > 1:
        raise ValueError("another norm in its box head than in its mask head")
    agnostic = shapes[f"{box}fc_reg.weight"][0] == 4  # of one class, it is the same
    roi = RoISpec(
        box_convs=count_of(shapes, re.escape(box) + r"shared_convs\.(\d+)\.conv\.weight"),
        box_fcs=fcs,
        box_channels=shapes[f"{box}shared_fcs.0.weight"][0],
        class_agnostic=agnostic if classes > 1 and agnostic != cascade else None,
        norm=next(iter(norms), None),
        masks=False,
    )
    if not _has(shapes, re.escape(mask)):
        return roi
    doubled, masks = shapes[f"{mask}upsample.weight"][2:], shapes[f"{mask}conv_logits.weight"][0]
    if doubled not in ((), (2, 2)):
        raise ValueError(f"masks that are enlarged {doubled[0]} times and not twice")
    if masks not in (1, classes):
        raise ValueError(f"masks of {masks} classes and boxes of {classes}")
    return replace(
        roi,
        masks=True,
        mask_channels=shapes[f"{mask}upsample.weight"][0],
        mask_convs=count_of(shapes, re.escape(mask) + r"convs\.(\d+)\.conv\.weight"),
        class_agnostic_masks=classes > 1 and masks == 1,
    )


def _aggregate(shapes: Shapes, head: str, config: Config) -> AggregateSpec | None:
    """How levels are summed; `head` is "0." in a cascade."""
    own, of_masks = (_part(shapes, f"roi_head.{part}_roi_extractor.{head}") for part in ("bbox", "mask"))
    if own != of_masks and _has(shapes, r"roi_head\.mask_head\."):
        raise ValueError("regions of masks that are read in another way than those of boxes")
    if not own:
        return None
    before, after = own.get("pre_module.conv.weight"), [name for name in own if "post_module." in name]
    side = before[2] if before else None
    if before and before[2:] != (side, side):
        raise ValueError(f"a convolution of {before[2]} x {before[3]} cells before levels are summed")
    context = ContextSpec(block="ga", **attention_options(after, config)) if after else None
    return AggregateSpec(side, context)


def _part(shapes: Shapes, start: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}


def _has(shapes: Shapes, pattern: str) -> bool:
    return any(re.match(pattern, name) for name in shapes)
