"""Which model a checkpoint of mmdetection holds: from the shapes of its tensors, its name and what it says.

C channels of a block, P of its bottleneck.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gcnet.errors import GCNetError
from gcnet.models.resnet import EXPANSION
from gcnet.models.spec import (
    CascadeSpec,
    ContextSpec,
    LibrarySpec,
    ModelSpec,
    Norm,
    ResNetSpec,
    RoISpec,
    RPNSpec,
)
from gcnet.weights.catalog import CASCADE_RPN, COCO_CLASSES, ROWS, Row, unnamed
from gcnet.weights.mmdet_config import BOX_STDS, Config, named_config, read_config
from gcnet.weights.mmdet_keys import is_version_1
from gcnet.weights.pickles import Checkpoint

STAGES = (1, 2, 3, 4)
CLASS_LOGITS = ("roi_head.bbox_head.fc_cls.weight", "roi_head.bbox_head.0.fc_cls.weight")
# Beginnings of names that no model here has, and what they belong to.
OTHER_PARTS = {
    r"neck\.pafpn_convs\.": "a PAFPN neck",
    r"neck\.1\.|neck\.refine\.": "a BFP (Libra) neck",
    r"backbone\.stem\.": "a deep stem (ResNet-C or -D)",
    r"backbone\.layer\d\.\d+\.downsample\.2\.": "average pooling in shortcuts (ResNet-D)",
    r"backbone\..*nonlocal_block": "non-local blocks of mmdetection",
    r"roi_head\.semantic_head\.": "a semantic branch (HTC)",
    r"roi_head\.mask_iou_head\.": "a head for the quality of masks (Mask Scoring)",
    r"roi_head\.point_head\.": "a point head (PointRend)",
}
UNTOLD = (
    "it does not say how images were prepared: taken as RGB with ImageNet's mean and deviation, and residual "
    'blocks of "pytorch" style'
)
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Identified:
    """What a file holds.

    Attributes:
        spec: the model, with the file's own classes.
        row_name: of the catalog row that the model is, or None if it is none of them.
        note: one line on what had to be assumed, or on a name that does not fit; None if there is nothing.
        bgr: whether its first convolution takes blue first; that of `spec` takes red.
    """

    spec: ModelSpec
    row_name: str | None
    note: str | None
    bgr: bool = False


def identify(
    path: Path,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    *,
    digest: str = "",
    row: Row | None = None,
    class_names: Sequence[str] | None = None,
    told: Config | None = None,
) -> Identified:
    """The model that a checkpoint of mmdetection 1.x, 2.x or 3.x, or of the GCNet authors, holds.

    The shapes of its tensors decide, and its configuration what shapes cannot tell. Rows that differ in how
    their norm was trained are told by the file's hash, its name, its configuration and its batch counts, in
    this order. It matters for training on only: the predictions are the same.

    Args:
        tensors: those of `checkpoint` under mmdetection 2.x's names (`mmdet_keys.modernise`).
        digest: the SHA-256 of the file.
        row: the model that it is known to hold.
        class_names: one name for each class, where the file does not say them (or says others).
        told: what a person says of it, in place of what the file does.

    Raises:
        GCNetError: it is another kind of model, or its class names are unknown.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config, told_by = _config(path, checkpoint, told or Config())
    given = row
    if row is not None:
        count = next((shapes[key][0] - 1 for key in CLASS_LOGITS if key in shapes), row.spec.num_classes)
        spec, note, fallback = row.spec, None, unnamed(count)
    else:
        structure, count = read_structure(shapes, source=str(path))
        candidates = [row for row in ROWS if _key(row.spec) == _key(structure)]
        row, norm, note = _choose(path, config, tensors, digest, candidates)
        note = _misnamed(path, candidates) or note
        if not told_by and row is None:
            note = "; ".join(filter(None, [note, UNTOLD]))
        norm = "group" if structure.backbone.norm == "group" else norm
        unlisted = replace(structure, name=path.stem, backbone=replace(structure.backbone, norm=norm))
        spec, fallback = row.spec if row else unlisted, None
    as_said = apply_config(spec, config)
    _refuse_unsupported(path, as_said, config, shapes)
    if given is not None:
        _refuse_another(path, given, as_said)
    elif as_said != spec:
        spec, row = replace(as_said, name=path.stem), None
    if config.score_threshold not in (None, 0.05):
        note = "; ".join(filter(None, [note, f"its own score threshold was {config.score_threshold:g}"]))
    names = _class_names(path, checkpoint, count, class_names, fallback)
    coordinates = "inclusive" if is_version_1(checkpoint.tensors) else spec.coordinates
    spec = replace(spec, class_names=names, coordinates=coordinates)
    return Identified(spec, row.name if row else None, note, config.channels == "bgr")


def apply_config(spec: ModelSpec, config: Config) -> ModelSpec:
    """The model with what a configuration says of it; its input is RGB, whichever order that says."""
    flip = -1 if config.channels == "bgr" else 1
    cascade, backbone = spec.cascade, spec.backbone
    if isinstance(backbone, ResNetSpec):
        backbone = _changed(backbone, style=config.style, frozen_stages=config.frozen_stages)
    if cascade and config.stds and len(config.stds) == len(cascade.ious):
        cascade = _changed(cascade, stds=config.stds)
    return _changed(
        spec,
        backbone=backbone,
        rpn=_changed(
            spec.rpn,
            anchor_scale=config.anchor_scale,
            anchor_ratios=config.anchor_ratios,
            nms_threshold=config.rpn_nms_threshold,
            pre_nms_test=config.pre_nms,
            proposals_test=config.proposals,
        ),
        roi=_changed(
            spec.roi,
            nms_threshold=config.nms_threshold,
            detections=config.detections,
            finest_scale=config.finest_scale,
        ),
        cascade=cascade,
        image_size=config.image_size,
        image_mean=config.mean and config.mean[::flip],
        image_std=config.std and config.std[::flip],
    )


def _changed(part: Any, **values: Any) -> Any:
    """A part of a spec with the values that are not None."""
    return replace(part, **{name: value for name, value in values.items() if value is not None})


def _config(path: Path, checkpoint: Checkpoint, told: Config) -> tuple[Config, bool]:
    """What is said of a model by its file's name, its configuration and a person; and whether any does."""
    own = read_config(checkpoint.config) if checkpoint.config else None
    config = named_config(path.name).overruled_by(own or Config()).overruled_by(told)
    return config, config != Config()


def _refuse_unsupported(path: Path, spec: ModelSpec, config: Config, shapes: Shapes) -> None:
    """Raises for what its configuration or its tensors have and no model of ours does."""
    wrong = [*config.unsupported, *(words for part, words in OTHER_PARTS.items() if _has(shapes, part))]
    wrong += ["modulated deformable convolution (DCNv2)"] if _is_modulated(shapes) else []
    if config.style not in (None, "pytorch", "caffe"):
        wrong.append(f"residual blocks of style {config.style!r}")
    if config.stds and spec.cascade is None and config.stds[0] != BOX_STDS:
        wrong.append(f"deltas of boxes with deviations {list(config.stds[0])}")
    anchors = shapes.get("rpn_head.rpn_cls.weight", (0,))[0]
    if anchors != len(spec.rpn.anchor_ratios) and anchors:
        wrong.append(f"{anchors} anchors at every place, where {len(spec.rpn.anchor_ratios)} are expected")
    if wrong:
        raise GCNetError(f"{path} cannot be read, because it has what no model here has: {'; '.join(wrong)}")


def _is_modulated(shapes: Shapes) -> bool:
    """Whether deformable convolutions have a weight for each of their nine points beside its two offsets."""
    offsets = [shape[0] for name, shape in shapes.items() if name.endswith(".conv_offset.weight")]
    return any(count % 27 == 0 for count in offsets)


def _style(spec: ModelSpec) -> dict[str, Any]:
    return {"style": spec.backbone.style} if isinstance(spec.backbone, ResNetSpec) else {}


def _refuse_another(path: Path, row: Row, as_said: ModelSpec) -> None:
    """Raises if a file that is to fill the model of a row says that it holds one that computes otherwise."""
    ours = row.spec
    differ = {
        "style": ours.backbone != replace(ours.backbone, **_style(as_said)),
        "mean and deviation of images": (ours.image_mean, ours.image_std)
        != (as_said.image_mean, as_said.image_std),
        "anchors": (ours.rpn.anchor_scale, ours.rpn.anchor_ratios)
        != (as_said.rpn.anchor_scale, as_said.rpn.anchor_ratios),
        "deviations of deltas": ours.cascade != as_said.cascade,
    }
    if any(differ.values()):
        words = ", ".join(name for name, other in differ.items() if other)
        raise GCNetError(
            f"{path} says that it is no {row.name}: other {words}; give the file in place of the name"
        )


def read_structure(shapes: Shapes, *, source: str) -> tuple[ModelSpec, int]:
    """The model and its number of classes, from the shapes of tensors under mmdetection 2.x's names.

    What shapes do not tell is at its default; norms are "frozen_stats" in the backbone and "sync" elsewhere.

    Raises:
        GCNetError: it is not a Mask or Faster R-CNN, or a cascade of three stages, with a ResNet of
            bottlenecks and an FPN.
    """
    for part in ("backbone.layer1.0.conv3", "neck.lateral_convs", "rpn_head.rpn_conv", "roi_head.bbox_head"):
        if not any(name.startswith(part) for name in shapes):
            raise GCNetError(
                f"{source} holds another kind of model: it has no {part}; what can be read are Mask, "
                "Faster and Cascade R-CNN with a ResNet or ResNeXt of 50 layers or more and an FPN"
            )
    stages = _count(shapes, r"roi_head\.bbox_head\.(\d+)\.fc_cls\.weight")
    if stages not in (0, len(CascadeSpec().ious)):
        raise GCNetError(f"{source} holds a cascade of {stages} stages; only those of 3 can be read")
    head = "0." if stages else ""
    try:
        roi = _roi(shapes, f"roi_head.bbox_head.{head}", f"roi_head.mask_head.{head}")
        count = shapes[f"roi_head.bbox_head.{head}fc_cls.weight"][0] - 1
        agnostic = count > 1 and shapes[f"roi_head.bbox_head.{head}fc_reg.weight"][0] == 4
        if count > 1 and agnostic != bool(stages):  # of one class, it is the same
            roi = replace(roi, class_agnostic=agnostic)
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
        return spec, count
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise GCNetError(f"{source} holds another kind of model, or not all of it: no {error}") from error


def _key(spec: ModelSpec) -> tuple[object, ...]:
    """What the shapes of its tensors tell of a model: equal for models whose tensors fit each other."""
    backbone, context, roi = spec.backbone, spec.backbone.context, spec.roi
    if isinstance(backbone, LibrarySpec):  # there are no such checkpoints
        return (backbone,)
    block: object = None
    if context is not None:
        channels = backbone.base_channels * EXPANSION * 2 ** context.stages.index(True)
        width = int(channels * context.ratio)
        block = width, context.stages, context.block, context.pooling, frozenset(context.fusion)
    return (
        *(backbone.blocks, backbone.stem_channels, backbone.base_channels, backbone.groups),
        backbone.group_width if backbone.groups > 1 else None,
        *(backbone.deformable_stages, backbone.norm == "group", block),
        *(spec.fpn_channels, spec.fpn_norm is None, spec.cascade is None),
        *(roi.box_convs, roi.box_fcs, roi.box_channels, roi.norm is None, roi.class_agnostic),
        (roi.mask_channels, roi.mask_convs) if roi.masks else None,
    )


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
    """The blocks, which are the same in all residual blocks of their stages. Raises KeyError otherwise."""
    found = {
        match[0] for name in shapes if (match := re.match(r"backbone\.layer\d\.\d+\.context_block\.", name))
    }
    if not found:
        return None
    stages: Any = tuple(any(name.startswith(f"backbone.layer{stage}.") for name in found) for stage in STAGES)
    words = {"channel_add_conv": "add", "channel_mul_conv": "scale"}
    kinds, widths = set(), set()
    for stage in (stage for stage, has in zip(STAGES, stages, strict=True) if has):
        for index in range(_count(shapes, rf"backbone\.layer{stage}\.(\d+)\.conv3\.weight")):
            block = f"backbone.layer{stage}.{index}.context_block."
            if block not in found:
                raise KeyError(f"context block in layer{stage}.{index}, where others of its stage have one")
            branches = [name for name in words if f"{block}{name}.0.weight" in shapes]
            fusion: Any = tuple(words[name] for name in branches)
            kinds.add((f"{block}conv_mask.weight" in shapes, fusion))
            widths |= {shapes[f"{block}{name}.0.weight"][:2] for name in branches}
    if len(kinds) != 1:
        raise KeyError("single kind of context block: some differ in pooling or fusion")
    ((attention, fusion),) = kinds
    pooling = "attention" if attention else "average"
    return ContextSpec(ratio=_ratio(widths), stages=stages, pooling=pooling, fusion=fusion)


def _ratio(widths: set[tuple[int, ...]]) -> float:
    """The ratio of which (bottleneck, channels) of all blocks follow, a simple one if there is."""
    low = max(width / channels for width, channels in widths)
    high = min((width + 1) / channels for width, channels in widths)
    simple = [1 / round(1 / low), round(low, 2), round(high, 2), low, (low + high) / 2]
    for ratio in simple:
        if all(int(channels * ratio) == width for width, channels in widths):
            return ratio
    raise KeyError("single ratio of all context blocks")


def _roi(shapes: Shapes, box: str, mask: str) -> RoISpec:
    normed = {f"{box}shared_convs.0.bn.weight", f"{mask}convs.0.bn.weight"}
    roi = RoISpec(
        box_convs=_count(shapes, re.escape(box) + r"shared_convs\.(\d+)\.conv\.weight"),
        box_fcs=_count(shapes, re.escape(box) + r"shared_fcs\.(\d+)\.weight"),
        box_channels=shapes[f"{box}shared_fcs.0.weight"][0],
        norm="sync" if normed & shapes.keys() else None,
        masks=False,
    )
    if not any(name.startswith(mask) for name in shapes):
        return roi
    convs = _count(shapes, re.escape(mask) + r"convs\.(\d+)\.conv\.weight")
    return replace(roi, masks=True, mask_channels=shapes[f"{mask}upsample.weight"][0], mask_convs=convs)


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.fullmatch(pattern, name))})


def _has(shapes: Shapes, pattern: str) -> bool:
    return any(re.match(pattern, name) for name in shapes)


def _choose(
    path: Path, config: Config, tensors: Mapping[str, Tensor], digest: str, candidates: Sequence[Row]
) -> tuple[Row | None, Norm, str | None]:
    """The row among those of the right structure, the norm where there is none, and what was assumed."""
    if len(candidates) == 1:
        return candidates[0], "frozen_stats", None
    if candidates:
        if row := next((r for r in candidates if r.weights and digest.startswith(r.weights.sha256)), None):
            return row, "frozen_stats", None
        if row := _named(path, candidates):
            return row, "frozen_stats", None
    norm = _said_norm(path, config) or _counted_norm(tensors)
    note = None
    if norm is None:
        norm = "frozen_stats"
        note = "it does not say how its norm was trained: taken as frozen, which matters for training only"
    return next((row for row in candidates if row.spec.backbone.norm == norm), None), norm, note


def _named(path: Path, rows: Sequence[Row]) -> Row | None:
    """The row whose name, ours or upstream's, is the longest in the file's name."""
    found = [
        (len(name), row)
        for row in rows
        for name in (row.name, *row.upstream)
        if re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z0-9]|_gc|_dcn|_syncbn|_4conv)", path.name)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _misnamed(path: Path, candidates: Sequence[Row]) -> str | None:
    row = _named(path, ROWS)
    if row is None or row in candidates:
        return None
    return f"it is named like {row.name}, but holds another model"


def _said_norm(path: Path, config: Config) -> Norm | None:
    """From the file's name or the configuration."""
    if config.norm == "sync" or "syncbn" in path.name.lower():
        return "sync"
    return "frozen_stats" if config.norm else None


def _counted_norm(tensors: Mapping[str, Tensor]) -> Norm | None:
    """A norm that is trained counts its batches; one with frozen statistics stays where ImageNet left it."""
    counts = [
        int(tensor)
        for name, tensor in tensors.items()
        if re.match(r"backbone\.layer[234]\..*num_batches_tracked$", name) and tensor.numel() == 1
    ]
    if not counts:
        return None
    return "sync" if max(counts) > 0 else "frozen_stats"


def _class_names(
    path: Path,
    checkpoint: Checkpoint,
    count: int,
    given: Sequence[str] | None,
    fallback: tuple[str, ...] | None,
) -> tuple[str, ...]:
    if given is not None:
        if len(given) != count:
            raise GCNetError(f"{path} knows {count} classes, but {len(given)} class names were given")
        return tuple(given)
    if checkpoint.class_names is not None and len(checkpoint.class_names) == count:
        return checkpoint.class_names
    if count == len(COCO_CLASSES):
        return COCO_CLASSES
    if fallback is not None:
        return fallback
    said = f"names {len(checkpoint.class_names)}" if checkpoint.class_names else "does not name them"
    raise GCNetError(
        f"{path} knows {count} classes but {said}: say what they are, in the order of its labels, with "
        f"`gcnet convert {path} {path.stem}.safetensors --class-names NAME ...`"
    )
