"""Describes a model in a few lines, each fact with its source, for a person to check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from gcnet.console import listed
from gcnet.context_spec import STAGES, ContextSpec
from gcnet.models.spec import ClassifierSpec, LibrarySpec, ModelSpec


def describe_parts(spec: ModelSpec | ClassifierSpec, told_by: object = None) -> list[str]:
    """One line for each part.

    Args:
        told_by: of a foreign file, who says what (`gcnet.weights.identify.TELLABLE`); other facts are from
            its shapes. One of our own files says all itself.
    """
    said = told_by if isinstance(told_by, Mapping) else None
    return [f"{part + ':':<9} {_with_sources(facts, said)}" for part, facts in _parts(spec)]


def _with_sources(facts: list[tuple[str, str]], told_by: Mapping[str, Any] | None) -> str:
    """The facts, and after those that come from one place that place."""
    if told_by is None:
        return "; ".join(text for text, _ in facts)
    groups = groupby(facts, key=lambda fact: told_by.get(fact[1], "shapes"))
    return "; ".join(f"{', '.join(text for text, _ in group)} ({source})" for source, group in groups)


def _parts(spec: ModelSpec | ClassifierSpec) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Parts with their facts: each in words, and the field that says who tells it."""
    yield "backbone", _backbone(spec)
    contexts = [] if isinstance(spec.backbone, LibrarySpec) else spec.backbone.contexts
    if contexts:
        where = "position " + ", ".join(dict.fromkeys(c.position for c in contexts))
        yield "context", [("; ".join(map(_context, contexts)), ""), (where, "position")]
    else:
        yield "context", [("no blocks" if not spec.backbone.context else _context(spec.backbone.context), "")]
    if isinstance(spec, ModelSpec):
        yield from _detector_parts(spec)
    yield "classes", [(f"{spec.num_classes}: {listed(spec.class_names)}", "class_names")]
    size = " x ".join(map(str, spec.image_size))
    mean, std = (_numbers(values) for values in (spec.image_mean, spec.image_std))
    order = ("channels RGB", "channels")
    yield "images", [(f"size {size}", "image_size"), (f"mean {mean}, deviation {std}", "mean"), order]


def _backbone(spec: ModelSpec | ClassifierSpec) -> list[tuple[str, str]]:
    backbone = spec.backbone
    if isinstance(backbone, LibrarySpec):
        return [(f"{backbone.name} of {backbone.library}", "")]
    layers = 2 + sum(backbone.blocks) * (3 if backbone.block == "bottleneck" else 2)
    kind = f"ResNet-{layers}"
    if backbone.groups > 1:
        kind = f"ResNeXt-{layers} {backbone.groups}x{backbone.group_width}d"
    elif backbone.scales > 1:
        kind = f"Res2Net-{layers} {backbone.group_width}w x {backbone.scales}s"
    elif backbone.widths:
        kind = f"RegNetX of widths {_numbers(backbone.widths)} and groups of {backbone.group_width}"
    if any(backbone.deformable_stages):
        kind += f", DCNv{2 if backbone.modulated else 1} in {_stages(backbone.deformable_stages)}"
    return [
        (kind + (", deep stem" if backbone.deep_stem else ""), ""),
        (f"style {backbone.style}", "style"),
        (f"norm {backbone.norm}", "norm"),
        (f"{backbone.frozen_stages} frozen stages with the stem", "frozen_stages"),
    ]


def _detector_parts(spec: ModelSpec) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    neck = "PAFPN" if spec.fpn_bottom_up else "FPN"
    neck += f" of {spec.fpn_channels} channels" + (f", norm {spec.fpn_norm}" if spec.fpn_norm else "")
    yield "neck", [(neck + (", balanced (BFP)" if spec.balance else ""), "")]
    rpn, roi = spec.rpn, spec.roi
    yield (
        "anchors",
        [
            (f"scale {_numbers(rpn.anchor_scales)}", "anchor_scale"),
            (f"ratios {_numbers(rpn.anchor_ratios)}", "anchor_ratios"),
            (f"strides {_numbers(rpn.anchor_strides)}", "anchor_strides"),
        ],
    )
    stages = f"cascade of {len(spec.cascade.ious)} stages" if spec.cascade else "1 stage"
    agnostic = bool(spec.cascade) if roi.class_agnostic is None else roi.class_agnostic
    boxes = f"{stages}, {roi.box_convs} convolutions and {roi.box_fcs} linear layers, boxes {_each(agnostic)}"
    masks = f"masks {_each(roi.class_agnostic_masks)}" if roi.masks else "no masks"
    masks += ", regions of all levels summed" if roi.aggregate else ""
    stds = " | ".join(map(_numbers, spec.cascade.stds if spec.cascade else (roi.stds,)))
    yield "heads", [(f"{boxes}, {masks}", ""), (f"deviations of deltas {stds}", "stds")]


def _context(context: ContextSpec) -> str:
    options = [f"{name} {_option(value)}" for name, value in context.options.items()]
    only = ", in some residual blocks only" if context.only else ""
    return " ".join([context.block, *options]) + f" in {_stages(context.stages)}{only}"


def _option(value: Any) -> str:
    if isinstance(value, float):
        return f"1/{round(1 / value)}" if abs(1 / value - round(1 / value)) < 1e-6 else f"{value:.4g}"
    return "+".join(value) if isinstance(value, tuple) else str(value)


def _stages(has: tuple[bool, ...]) -> str:
    return ", ".join(name for name, there in zip(STAGES, has, strict=True) if there)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _each(agnostic: bool) -> str:
    return "for all classes at once" if agnostic else "for each class"
