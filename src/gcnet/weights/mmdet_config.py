"""What the text of an mmdetection configuration says of a model. It is parsed; nothing in it is executed.

2.x keeps its text in a checkpoint as `config`, 3.x as `cfg`; 1.x has older words for some things.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

LONGEST = 1 << 20  # characters; the largest published configuration has 20 thousand
BOX_STDS = (0.1, 0.1, 0.2, 0.2)  # where a box head does not say
STRIDES = ([4, 8, 16, 32, 64], [4, 8, 16, 32])
CAFFE_MEAN, CAFFE_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # in the order blue, green, red


@dataclass(frozen=True)
class Config:
    """What is said of a model beside the shapes of its tensors; None where nothing is.

    Attributes:
        style: of residual blocks, "pytorch" (stride in the 3x3 convolution) or "caffe" (in the first 1x1).
        channels: order of the channels of the network's input, "rgb" or "bgr"; `mean` and `std` follow it.
        image_size: (long, short) side that images are fitted in.
        stds: of the deltas of each box head.
        score_threshold: of detections.
        norm, frozen_stages: how the backbone was trained; stages count the stem, as in `ResNetSpec`.
        unsupported: what differs from any model of ours, in words.
    """

    style: str | None = None
    channels: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None
    anchor_scale: float | None = None
    anchor_ratios: tuple[float, ...] | None = None
    stds: tuple[tuple[float, ...], ...] | None = None
    finest_scale: float | None = None
    nms_threshold: float | None = None
    detections: int | None = None
    score_threshold: float | None = None
    rpn_nms_threshold: float | None = None
    pre_nms: int | None = None
    proposals: int | None = None
    norm: str | None = None
    frozen_stages: int | None = None
    unsupported: tuple[str, ...] = ()

    def overruled_by(self, other: Config) -> Config:
        """With what the other says in place of what this one does."""
        said = {field.name: getattr(other, field.name) for field in fields(other)}
        return replace(
            self, **{name: value for name, value in said.items() if value is not None and value != ()}
        )


def named_config(name: str) -> Config:
    """What the name of a published file tells: those of caffe style, and the ResNeXt 32x8d."""
    words = name.lower().replace("-", "_")
    if "_caffe" in words:
        return Config(style="caffe", channels="bgr", mean=CAFFE_MEAN, std=(1.0, 1.0, 1.0))
    if "32x8d" in words:
        return Config(style="pytorch", channels="bgr", mean=CAFFE_MEAN, std=CAFFE_STD)
    return Config()


def read_config(text: str) -> Config | None:
    """What a configuration says; None if it cannot be parsed."""
    values = _parse(text)
    if values is None:
        return None
    backbone, rpn = _first_dict(values, "backbone"), _first_dict(values, "rpn_head")
    parts = (
        _read_input(values),
        _read_backbone(backbone, values),
        _read_anchors(rpn, values),
        _read_boxes(values),
        _read_test(values),
    )
    found: dict[str, Any] = {}
    unsupported: list[str] = []
    for said in parts:
        unsupported += said.pop("unsupported", [])
        found |= said
    return Config(**found, unsupported=tuple(unsupported))


def _parse(text: str) -> dict[str, Any] | None:
    """The values that are assigned to names. What is no plain value is left out."""
    if len(text) > LONGEST:
        return None
    try:
        values: dict[str, Any] = {}
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                values[statement.targets[0].id] = _value(statement.value, values)
        return values
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """A number, text, list or dictionary; None for what would have to be executed."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple() | ast.List():
            return [_value(entry, names) for entry in node.elts]
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {key.value: _value(entry, names) for key, entry in pairs if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict")):
            return {word.arg: _value(word.value, names) for word in node.keywords if word.arg}
        case ast.Name():
            return names.get(node.id)
        case ast.UnaryOp(op=ast.USub()) | ast.BinOp(op=ast.Div()):
            return _number(node, names)
    return None


def _number(node: ast.UnaryOp | ast.BinOp, names: Mapping[str, Any]) -> float | None:
    operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
    numbers = _numbers([_value(operand, names) for operand in operands])
    if numbers is None or not numbers[-1]:
        return None
    return -numbers[0] if isinstance(node, ast.UnaryOp) else numbers[0] / numbers[1]


def _read_input(values: dict[str, Any]) -> dict[str, Any]:
    """How images become the network's input: normalisation, order of channels, size."""
    said: dict[str, Any] = {"unsupported": []}
    processor = _first_dict(values, "data_preprocessor")
    normalise = processor or _first_dict(values, "img_norm_cfg") or _normalise(values)
    if mean := _numbers(normalise.get("mean"), 3):
        said["mean"], said["std"] = mean, _numbers(normalise.get("std"), 3) or (1.0, 1.0, 1.0)
        rgb = normalise.get("bgr_to_rgb", False) if processor else normalise.get("to_rgb", True)
        said["channels"] = "rgb" if rgb else "bgr"
    places = ("test_pipeline", "data.test.pipeline", "test_dataloader.dataset.pipeline", "img_scale")
    for place in (_at(values, place) for place in places):
        scales = [place] if _pair(place) else [*_find(place, "img_scale"), *_find(place, "scale")]
        sizes = [size for scale in scales if (size := _pair(scale))]
        if sizes:
            said["image_size"] = (int(max(sizes[0])), int(min(sizes[0])))
            if False in _find(place, "keep_ratio"):
                said["unsupported"].append("images are stretched to one size (keep_ratio=False)")
            break
    return said


def _read_backbone(backbone: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"unsupported": []}
    if backbone:
        said["style"] = backbone.get("style", "pytorch")
        for name, usual in (("strides", [1, 2, 2, 2]), ("dilations", [1, 1, 1, 1]), ("num_stages", 4)):
            if backbone.get(name, usual) != usual:
                said["unsupported"].append(f"{name}={backbone[name]} of the backbone")
        if isinstance(frozen := backbone.get("frozen_stages"), int):
            said["frozen_stages"] = min(max(frozen + 1, 0), 5)
    kinds = {kind for norm in _find(backbone or values, "norm_cfg") for kind in _find(norm, "type")}
    if "SyncBN" in kinds:
        said["norm"] = "sync"
    elif True in _find(backbone or values, "norm_eval"):
        said["norm"] = "frozen_stats"
    return said


def _read_anchors(rpn: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"unsupported": []}
    anchors = _first_dict(rpn or values, "anchor_generator")
    old = {name: rpn.get(f"anchor_{name}") for name in ("scales", "ratios", "strides")}
    anchors = anchors or {name: value for name, value in old.items() if value}
    if ratios := _numbers(anchors.get("ratios")):
        said["anchor_ratios"] = ratios
    if scales := _numbers(anchors.get("scales")):
        said["anchor_scale"] = scales[0]
        if len(scales) > 1:
            said["unsupported"].append(f"anchors of {len(scales)} scales at each level")
    if anchors.get("strides", STRIDES[0]) not in STRIDES:
        said["unsupported"].append(f"anchors with strides {anchors['strides']}")
    if anchors.get("octave_base_scale"):
        said["unsupported"].append("anchors of several octaves")
    stds = _numbers(_first_dict(rpn, "bbox_coder").get("target_stds"), 4)
    if stds not in (None, (1.0, 1.0, 1.0, 1.0)):
        said["unsupported"].append(f"deltas of proposals with deviations {list(stds)}")
    return said


def _read_boxes(values: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"unsupported": []}
    heads = next((head for head in _find(values, "bbox_head") if isinstance(head, dict | list)), [])
    heads = [head for head in (heads if isinstance(heads, list) else [heads]) if isinstance(head, dict)]
    if heads:
        coders = [head.get("bbox_coder") or head for head in heads]
        said["stds"] = tuple(_numbers(coder.get("target_stds"), 4) or BOX_STDS for coder in coders)
        kinds = {coder.get("type") for head, coder in zip(heads, coders, strict=True) if coder is not head}
        for kind in sorted(map(str, kinds - {"DeltaXYWHBBoxCoder", "LegacyDeltaXYWHBBoxCoder", None})):
            said["unsupported"].append(f"boxes coded by {kind}")
        if True in _find(_find(heads, "loss_cls"), "use_sigmoid"):
            said["unsupported"].append("classes by sigmoid instead of softmax")
    extractor = _first_dict(values, "bbox_roi_extractor")
    if finest := _numbers([extractor.get("finest_scale")]):
        said["finest_scale"] = finest[0]
    if extractor.get("type", "SingleRoIExtractor") != "SingleRoIExtractor":
        said["unsupported"].append(f"regions read by {extractor['type']}")
    return said


def _read_test(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of inference: of the second stage, and of proposals."""
    said: dict[str, Any] = {"unsupported": []}
    tests = [*_find(values, "rcnn"), *_find(_first_dict(values, "roi_head"), "test_cfg")]
    rcnn = next((test for test in tests if isinstance(test, dict) and "nms" in test), {})
    rpns = [*_find(values, "rpn"), *_find(_first_dict(values, "rpn_head"), "test_cfg")]
    rpn = next((test for test in rpns if isinstance(test, dict) and "nms_pre" in test), {})
    for test, prefix in ((rcnn, ""), (rpn, "rpn_")):
        nms = _first_dict(test, "nms")
        if threshold := _numbers([nms.get("iou_threshold", nms.get("iou_thr", test.get("nms_thr")))]):
            said[f"{prefix}nms_threshold"] = threshold[0]
        if nms.get("type", "nms") != "nms":
            said["unsupported"].append(f"{nms['type']} in place of NMS")
    limits = (
        ("detections", rcnn.get("max_per_img")),
        ("pre_nms", rpn.get("nms_pre")),
        ("proposals", rpn.get("max_per_img", rpn.get("max_num"))),
    )
    said |= {name: value for name, value in limits if isinstance(value, int) and value > 0}
    if threshold := _numbers([rcnn.get("score_thr")]):
        said["score_threshold"] = threshold[0]
    return said


def _normalise(values: dict[str, Any]) -> dict[str, Any]:
    """The transform of a pipeline that normalises."""
    places = (_at(values, place) for place in ("test_pipeline", "data.test.pipeline"))
    steps = (step for place in places for step in _nested(place))
    return next((step for step in steps if step.get("type") == "Normalize" and "mean" in step), {})


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _nested(tree: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries of a tree, outer ones first."""
    if isinstance(tree, dict):
        yield tree
    entries = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for entry in entries:
        yield from _nested(entry)


def _find(tree: Any, name: str) -> list[Any]:
    return [part[name] for part in _nested(tree) if name in part]


def _first_dict(tree: Any, name: str) -> dict[str, Any]:
    return next((value for value in _find(tree, name) if isinstance(value, dict)), {})


def _numbers(value: Any, count: int | None = None) -> tuple[float, ...] | None:
    if not isinstance(value, list) or not value or (count and len(value) != count):
        return None
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
    return tuple(float(number) for number in value) if plain else None


def _pair(value: Any) -> tuple[float, ...] | None:
    numbers = _numbers(value, 2)
    if numbers is None and isinstance(value, list) and value:
        numbers = _numbers(value[0], 2)  # several sizes: the first
    return numbers if numbers and min(numbers) >= 1 else None
