"""What the shapes of a checkpoint's tensors tell of the model they belong to.

C channels of a block, P of its bottleneck.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.resnet import EXPANSION
from gcnet.models.spec import CascadeSpec, ContextSpec, ModelSpec, ResNetSpec, RoISpec, RPNSpec
from gcnet.weights.catalog import CASCADE_RPN

STAGES = (1, 2, 3, 4)


def read_structure(tensors: Mapping[str, Tensor], *, source: str) -> tuple[ModelSpec, int]:
    """The model and its number of classes, from tensors under mmdetection 2.x's names.

    What shapes do not tell is at its default; norms are "frozen_stats" in the backbone and "sync" elsewhere.

    Raises:
        GCNetError: it is not a Mask R-CNN, or a cascade of three, with a ResNet of bottlenecks and an FPN.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for part in ("backbone.layer1.0.conv3", "neck.lateral_convs", "rpn_head.rpn_conv", "roi_head.mask_head"):
        if not any(name.startswith(part) for name in shapes):
            raise GCNetError(
                f"{source} holds another kind of model: it has no {part}; what can be read are Mask R-CNN "
                "and Cascade Mask R-CNN with a ResNet or ResNeXt of 50 layers or more and an FPN"
            )
    stages = _count(shapes, r"roi_head\.bbox_head\.(\d+)\.fc_cls\.weight")
    if stages not in (0, len(CascadeSpec().ious)):
        raise GCNetError(f"{source} holds a cascade of {stages} stages; only those of 3 can be read")
    head = "0." if stages else ""
    try:
        roi = _roi(shapes, f"roi_head.bbox_head.{head}", f"roi_head.mask_head.{head}")
        spec = ModelSpec(
            "",
            (),
            _backbone(shapes),
            fpn_channels=shapes["neck.lateral_convs.0.conv.weight"][0],
            fpn_norm="sync" if "neck.lateral_convs.0.bn.weight" in shapes else None,
            rpn=CASCADE_RPN if stages else RPNSpec(),
            roi=roi,
            cascade=CascadeSpec() if stages else None,
        )
        return spec, shapes[f"roi_head.bbox_head.{head}fc_cls.weight"][0] - 1
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise GCNetError(f"{source} holds another kind of model, or not all of it: no {error}") from error


def structure_of(spec: ModelSpec) -> ModelSpec:
    """What `read_structure` finds in a checkpoint of this model."""
    backbone, context, roi = spec.backbone, spec.backbone.context, spec.roi
    if context is not None and any(context.stages):
        stage = context.stages.index(True)
        channels = backbone.base_channels * 2**stage * EXPANSION
        found: dict[str, Any] = {"position": ContextSpec.position, "fusion": _in_order(set(context.fusion))}
        if "ratio" in context.options:
            found["ratio"] = int(channels * context.ratio) / channels
        context = replace(context, **found)
    return ModelSpec(
        "",
        (),
        ResNetSpec(
            blocks=backbone.blocks,
            stem_channels=backbone.stem_channels,
            base_channels=backbone.base_channels,
            groups=backbone.groups,
            group_width=backbone.group_width if backbone.groups > 1 else ResNetSpec.group_width,
            deformable_stages=backbone.deformable_stages,
            norm="group" if backbone.norm == "group" else "frozen_stats",
            context=context,
        ),
        fpn_channels=spec.fpn_channels,
        fpn_norm="sync" if spec.fpn_norm else None,
        rpn=CASCADE_RPN if spec.cascade else RPNSpec(),
        roi=RoISpec(
            box_convs=roi.box_convs,
            box_fcs=roi.box_fcs,
            box_channels=roi.box_channels,
            mask_channels=roi.mask_channels,
            mask_convs=roi.mask_convs,
            norm="sync" if roi.norm else None,
        ),
        cascade=CascadeSpec() if spec.cascade else None,
    )


Shapes = Mapping[str, tuple[int, ...]]


def _backbone(shapes: Shapes) -> ResNetSpec:
    blocks: Any = tuple(_count(shapes, rf"backbone\.layer{stage}\.(\d+)\.conv3\.weight") for stage in STAGES)
    deformable: Any = tuple(_has(shapes, rf"backbone\.layer{stage}\..*conv_offset\.") for stage in STAGES)
    base = shapes["backbone.layer1.0.conv3.weight"][0] // EXPANSION
    width, in_group = shapes["backbone.layer1.0.conv2.weight"][:2]
    groups = width // in_group
    return ResNetSpec(
        blocks=blocks,
        stem_channels=shapes["backbone.conv1.weight"][0],
        base_channels=base,
        groups=groups,
        group_width=in_group * 64 // base if groups > 1 else ResNetSpec.group_width,
        deformable_stages=deformable,
        norm="frozen_stats" if "backbone.bn1.running_mean" in shapes else "group",
        context=_context(shapes),
    )


def _context(shapes: Shapes) -> ContextSpec | None:
    stages: Any = tuple(_has(shapes, rf"backbone\.layer{stage}\..*context_block\.") for stage in STAGES)
    if not any(stages):
        return None
    block = f"backbone.layer{STAGES[stages.index(True)]}.0.context_block."
    words = {"channel_add_conv": "add", "channel_mul_conv": "scale"}
    found = [name for name in words if f"{block}{name}.0.weight" in shapes]
    bottleneck, channels = shapes[f"{block}{found[0]}.0.weight"][:2]
    return ContextSpec(
        ratio=bottleneck / channels,
        stages=stages,
        pooling="attention" if f"{block}conv_mask.weight" in shapes else "average",
        fusion=_in_order({words[name] for name in found}),
    )


def _roi(shapes: Shapes, box: str, mask: str) -> RoISpec:
    return RoISpec(
        box_convs=_count(shapes, re.escape(box) + r"shared_convs\.(\d+)\.conv\.weight"),
        box_fcs=_count(shapes, re.escape(box) + r"shared_fcs\.(\d+)\.weight"),
        box_channels=shapes[f"{box}shared_fcs.0.weight"][0],
        mask_channels=shapes[f"{mask}upsample.weight"][0],
        mask_convs=_count(shapes, re.escape(mask) + r"convs\.(\d+)\.conv\.weight"),
        norm="sync" if f"{mask}convs.0.bn.weight" in shapes else None,
    )


def _in_order(fusion: set[str]) -> Any:
    return tuple(word for word in ("add", "scale") if word in fusion)


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})


def _has(shapes: Shapes, pattern: str) -> bool:
    return any(re.match(pattern, name) for name in shapes)
