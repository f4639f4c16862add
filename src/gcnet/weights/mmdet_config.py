"""Reads the text of an mmdetection configuration. It is parsed; nothing in it is executed.

2.x keeps its text in a checkpoint as `config`, 3.x as `cfg`; 1.x has older words for some things.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from gcnet.console import shown
from gcnet.weights.config_text import (
    at,
    computed,
    dicts,
    find,
    first_dict,
    nested,
    numbers,
    pair,
    parse,
    plain,
    word,
)

BOX_STDS = (0.1, 0.1, 0.2, 0.2)  # where a box head does not say
# Classes that compute what the models here do, or differ from one that does in training alone.
KNOWN = {
    "model": {"MaskRCNN", "FasterRCNN", "CascadeRCNN", "TwoStageDetector", "SoftTeacher", "SemiBaseDetector"},
    "backbone": {"ResNet", "ResNeXt", "ResNetV1c", "ResNetV1d"},
    "neck": {"FPN", "PAFPN", "BFP"},
    "rpn_head": {"RPNHead"},
    "roi_head": {"StandardRoIHead", "CascadeRoIHead", "DynamicRoIHead", "PISARoIHead"},
    "bbox_head": {
        "BBoxHead",
        "ConvFCBBoxHead",
        "SharedFCBBoxHead",
        "Shared2FCBBoxHead",
        "Shared4Conv1FCBBoxHead",
    },
    "mask_head": {"FCNMaskHead", "HTCMaskHead"},
    "bbox_coder": {"DeltaXYWHBBoxCoder"},
    "bbox_roi_extractor": {"SingleRoIExtractor"},
    "mask_roi_extractor": {"SingleRoIExtractor"},
    "anchor_generator": {"AnchorGenerator"},
    "cls_predictor_cfg": {"Linear"},
    "reg_predictor_cfg": {"Linear"},
}
# Options that change what is computed, and all the values that are known of them.
USUAL: dict[str, dict[str, tuple[Any, ...]]] = {
    "backbone": {
        "strides": ([1, 2, 2, 2],),
        "dilations": ([1, 1, 1, 1],),
        "num_stages": (4,),
        "out_indices": ([0, 1, 2, 3],),
    },
    "neck": {
        "start_level": (0,),
        "num_outs": (5,),
        "num_levels": (5,),
        "add_extra_convs": (False,),
        "no_norm_on_lateral": (False,),
        "act_cfg": (None,),
    },
    "norm_cfg": {"num_groups": (32,), "eps": (1e-5,)},
    "upsample_cfg": {"mode": ("nearest",)},
    "anchor_generator": {
        "base_sizes": (None,),
        "centers": (None,),
        "center_offset": (0,),
        "scale_major": (True,),
    },
    "bbox_coder": {
        "target_means": ([0.0, 0.0, 0.0, 0.0],),
        "clip_border": (True,),
        "add_ctr_clamp": (False,),
    },
    "bbox_roi_extractor": {"featmap_strides": ([4, 8, 16, 32],), "roi_scale_factor": (None,)},
    "mask_roi_extractor": {"featmap_strides": ([4, 8, 16, 32],)},
    # 1.x read two points in each direction of a cell, and ours does for its files.
    "roi_layer": {"type": ("RoIAlign",), "sampling_ratio": (0,), "sample_num": (2,), "aligned": (True,)},
    "roi_head": {"shared_head": (None,)},
    "rpn": {"min_bbox_size": (0, -1), "nms_across_levels": (False,)},
    "nms": {"type": ("nms",), "class_agnostic": (False,), "max_num": (-1,)},
    "data_preprocessor": {"pad_size_divisor": (32,)},
}
# Steps of a test, each with the options that count and what is known of them.
STEPS: dict[str, dict[str, tuple[Any, ...]]] = {
    "LoadImageFromFile": {"color_type": ("color", "unchanged"), "imdecode_backend": ("cv2", "turbojpeg")},
    "Resize": {"scale_factor": (1.0,), "interpolation": ("bilinear",), "backend": ("cv2",)},
    "Normalize": {},
    "Pad": {},
    "MultiScaleFlipAug": {},
    "RandomFlip": {},
}
FORMATTING = re.compile(r"Load|Collect|Pack|DefaultFormatBundle|.*ToTensor|TestTimeAug|FixShapeResize|None")
# Where the size of images in a test stands, the first one counts; and what need not be known of a part.
IMAGE_PLACES = ("test_pipeline", "data.test.pipeline", "test_dataloader.dataset.pipeline", "img_scale")
UNNEEDED = re.compile(
    r"(^|\.)(loss\w*|init_cfg|pretrained|train_cfg|meta_keys|file_client_args|backend_args)(\.|$)"
)
PARTS = ("backbone", "neck", "bbox_head", "mask_head")
PLUGINS: dict[str, dict[str, Any]] = {
    "ContextBlock": {},
    "NonLocal2d": {"reduction": 2, "use_scale": True, "mode": "embedded_gaussian", "sub_sample": False},
}
CAFFE_MEAN, CAFFE_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # in the order blue, green, red


@dataclass(frozen=True)
class Config:
    """What is said of a model beside the shapes of its tensors; None where nothing is.

    Attributes:
        style: of residual blocks, "pytorch" (stride in the 3x3 convolution) or "caffe" (in the first 1x1).
        channels: order of the channels of the network's input, "rgb" or "bgr"; `mean` and `std` follow it.
        image_size: (long, short) side that images are fitted in.
        stds, anchor_stds: of the deltas of each box head, and of those of proposals.
        plugins: positions of the context blocks in a residual block of c2..c5, in the order of their work.
        balance_level: of a balanced feature pyramid.
        standardised: parts of the model whose convolutions standardise their weights.
        score_threshold, mask_threshold: of detections, and of the probabilities of their pixels.
        steps: what its test does to images and is not known here, by name.
        norm, frozen_stages: how the backbone was trained; stages count the stem, as in `ResNetSpec`.
        unsupported: what differs from any model of ours, in words; None if nobody wrote a configuration.
    """

    style: str | None = None
    channels: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None
    anchor_scale: float | tuple[float, ...] | None = None
    anchor_ratios: tuple[float, ...] | None = None
    anchor_strides: tuple[int, ...] | None = None
    anchor_stds: tuple[float, ...] | None = None
    stds: tuple[tuple[float, ...], ...] | None = None
    finest_scale: float | None = None
    nms_threshold: float | None = None
    detections: int | None = None
    score_threshold: float | None = None
    mask_threshold: float | None = None
    rpn_nms_threshold: float | None = None
    pre_nms: int | None = None
    proposals: int | None = None
    plugins: tuple[tuple[str, ...], ...] | None = None
    balance_level: int | None = None
    standardised: tuple[str, ...] | None = None
    steps: tuple[str, ...] | None = None
    norm: str | None = None
    frozen_stages: int | None = None
    unsupported: tuple[str, ...] | None = None

    def said(self) -> dict[str, Any]:
        """The fields that something is said of."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def overruled_by(self, other: Config) -> Config:
        """With what the other says in place of what this one does."""
        return replace(self, **other.said())


def named_config(name: str) -> Config:
    """What the name of a published file tells: those of caffe style, and the ResNeXt 32x8d."""
    words = name.lower().replace("-", "_")
    if "_caffe" in words:
        return Config(style="caffe", channels="bgr", mean=CAFFE_MEAN, std=(1.0, 1.0, 1.0))
    if "32x8d" in words:
        return Config(style="pytorch", channels="bgr", mean=CAFFE_MEAN, std=CAFFE_STD)
    return Config(standardised=PARTS) if re.search(r"gn[_+]ws", words) else Config()


def read_config(given: str | dict[str, Any]) -> Config | None:
    """What a configuration says, as text or values; None if it cannot be parsed."""
    values = parse(given) if isinstance(given, str) else plain(given)
    if values is None:
        return None
    backbone, rpn = first_dict(values, "backbone"), first_dict(values, "rpn_head")
    parts = (
        _read_input(values),
        _read_backbone(backbone, values),
        _read_plugins(backbone),
        _read_necks(values),
        _read_anchors(rpn, values),
        _read_boxes(values),
        _read_test(values),
    )
    found: dict[str, Any] = {}
    unsupported = list(dict.fromkeys((*_unusual(values), *_unread(values))))
    for said in parts:
        unsupported += said.pop("unsupported", [])
        found |= said
    return Config(**found, unsupported=tuple(unsupported))


def _read_input(values: dict[str, Any]) -> dict[str, Any]:
    """How images become the network's input: normalisation, order of channels, size."""
    said: dict[str, Any] = {"unsupported": []}
    # That of several branches has the one of an image inside.
    processor = next((own for own in dicts(values, "data_preprocessor") if "mean" in own), {})
    normalise = processor or first_dict(values, "img_norm_cfg") or _normalise(values)
    mean, std = numbers(normalise.get("mean"), 3), numbers(normalise.get("std", [1.0] * 3), 3)
    if "mean" in normalise and (mean is None or std is None or min(std) <= 0):
        both = shown(normalise["mean"]), shown(normalise.get("std"))
        said["unsupported"].append(f"images are normalised by {both[0]} and {both[1]}")
    elif mean:
        said["mean"], said["std"] = mean, std
        rgb = normalise.get("bgr_to_rgb", False) if processor else normalise.get("to_rgb", True)
        said["channels"] = "rgb" if rgb else "bgr"
    for place in filter(None, (at(values, place) for place in IMAGE_PLACES)):
        scales = [place] if pair(place) else [*find(place, "img_scale"), *find(place, "scale")]
        sizes = [size for scale in scales if (size := pair(scale))]
        if sizes:
            said["image_size"] = (int(max(sizes[0])), int(min(sizes[0])))
        said["unsupported"] += dict.fromkeys(_other_images(place))
        kinds = dict.fromkeys(word(step.get("type")) for step in nested(place))
        said["steps"] = tuple(kind for kind in kinds if kind not in STEPS and not FORMATTING.match(kind))
        if sizes:
            break
    return said


def _other_images(pipeline: Any) -> Iterator[str]:
    """What a pipeline does to images and ours does not."""
    if False in find(pipeline, "keep_ratio"):
        yield "images are stretched to one size (keep_ratio=False)"
    if any(divisor not in (32, None) for divisor in find(pipeline, "size_divisor")):
        yield "images are padded to other multiples than of 32 pixels"
    for step in nested(pipeline):
        kind = word(step.get("type"))
        for option, usual in STEPS.get(kind, {}).items():
            if step.get(option) not in (None, *usual):
                yield f"{option}={shown(step[option])} of its {kind}"


def _unusual(values: dict[str, Any]) -> Iterator[str]:
    """Parts of other classes, and options that change what is computed."""
    for part, types in KNOWN.items():
        for found in dicts(values, part):
            if (kind := word(found.get("type", ""))) not in ("", *types):
                yield f"{part} of type {kind}"
    for part, options in USUAL.items():
        for found in dicts(values, part):
            for option, usual in options.items():
                if found.get(option, usual[0]) not in usual:
                    yield f"{option}={shown(found[option])} of its {part}"


def _unread(values: dict[str, Any]) -> Iterator[str]:
    """What would have to be run, and what stands in other files."""
    if values.get("_base_"):
        yield "a configuration that builds on others (_base_): take the whole one, as a run prints it"
    if "_run_" in values:
        line = values["_run_"]
        yield f"a configuration that does more than name values (line {line}): give the printed one"
    parts = {name: at(values, name) for name in (*IMAGE_PLACES, "img_norm_cfg", "data_preprocessor")}
    for part in ("backbone", "neck", "rpn_head", "roi_head", "bbox_head", "mask_head", "test_cfg", *parts):
        found = parts[part] if part in parts else find(values.get("model", values), part)
        places = [place for place in computed(found) if not UNNEEDED.search(place)]
        if places:
            place = shown(f"{part}.{places[0]}".rstrip("."))
            yield f"a value that is computed, which is not done here ({place})"


def _read_backbone(backbone: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"unsupported": []}
    if backbone:
        style = backbone.get("style", "pytorch")
        if style in ("pytorch", "caffe"):
            said["style"] = style
        else:
            said["unsupported"].append(f"residual blocks of style {shown(style)}")
        if isinstance(frozen := backbone.get("frozen_stages"), int):
            said["frozen_stages"] = min(max(frozen + 1, 0), 5)
    kinds = {word(kind) for norm in find(backbone or values, "norm_cfg") for kind in find(norm, "type")}
    frozen = find(backbone or values, "norm_eval")
    if kinds & {"SyncBN", "MMSyncBN", "NaiveSyncBN"}:
        said["norm"] = "sync"
    elif frozen or "BN" in kinds:
        said["norm"] = "frozen_stats" if True in frozen or not frozen else "batch"
    said["standardised"] = ()
    for part in PARTS:
        convs = {word(conv.get("type")) for conv in dicts(dicts(values, part), "conv_cfg")}
        said["standardised"] += (part,) if "ConvWS" in convs else ()
        others = sorted(convs - {"None", "ConvWS", "Conv2d", "Conv"})
        said["unsupported"] += [f"convolutions of type {kind} in its {part}" for kind in others]
    return said


def _read_plugins(backbone: dict[str, Any]) -> dict[str, Any]:
    """Where context blocks stand, stage by stage."""
    unsupported: list[str] = []
    stages: list[list[str]] = [[], [], [], []]
    plugins = backbone.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        plugin = plugin if isinstance(plugin, dict) else {}
        own = first_dict(plugin, "cfg")
        kind, where = word(own.get("type")), plugin.get("stages")
        if kind not in PLUGINS:
            unsupported.append(f"a plugin of type {kind}")
        position = str(plugin.get("position", "after_conv3"))
        if position not in ("after_conv1", "after_conv2", "after_conv3"):
            unsupported.append(f"a plugin at {word(position)}")
        for option, usual in PLUGINS.get(kind, {}).items():
            if own.get(option, usual) != usual:
                unsupported.append(f"{option}={shown(own[option])} of its {kind}")
        for positions, has in zip(stages, where if isinstance(where, list) else [True] * 4, strict=False):
            if has:
                positions.append(position)
    if unsupported or not any(stages):
        return {"unsupported": unsupported}
    return {"plugins": tuple(tuple(sorted(positions)) for positions in stages)}


def _read_necks(values: dict[str, Any]) -> dict[str, Any]:
    necks = dicts(values, "neck")
    if len(necks) > 2:
        return {"unsupported": [f"{len(necks)} necks in a row"]}
    level = next((neck.get("refine_level", 2) for neck in necks if neck.get("type") == "BFP"), None)
    return {"balance_level": level} if isinstance(level, int) and 0 <= level < 5 else {}


def _read_anchors(rpn: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"unsupported": []}
    anchors = first_dict(rpn or values, "anchor_generator")
    old = {name: rpn.get(f"anchor_{name}") for name in ("scales", "ratios", "strides")}
    anchors = anchors or {name: value for name, value in old.items() if value}
    if ratios := numbers(anchors.get("ratios")):
        said["anchor_ratios"] = ratios
    scales = numbers(anchors.get("scales"))
    base, each = anchors.get("octave_base_scale"), anchors.get("scales_per_octave")
    if isinstance(base, int | float) and isinstance(each, int) and 0 < each < 100:
        scales = tuple(base * 2 ** (i / each) for i in range(each))
    if scales:
        said["anchor_scale"] = scales if scales[1:] else scales[0]
    if (strides := anchors.get("strides")) is not None:
        steps = list(numbers(strides) or ())
        if len(steps) == 5 and all(step >= 1 and step % 1 == 0 for step in steps):
            said["anchor_strides"] = tuple(map(int, steps))
        elif steps != [4, 8, 16, 32]:  # where a configuration was written for other levels
            said["unsupported"].append(f"anchors with strides {shown(strides)}")
    if stds := numbers(first_dict(rpn, "bbox_coder").get("target_stds"), 4):
        said["anchor_stds"] = stds
    if False in [loss.get("use_sigmoid") for loss in dicts(rpn, "loss_cls")]:
        said["unsupported"].append("proposals scored by softmax")
    return said


def _read_boxes(values: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"unsupported": []}
    heads = dicts(values, "bbox_head")
    if heads:
        coders = [head.get("bbox_coder") for head in heads]
        said["stds"] = tuple(
            # A coder that does not say divides by nothing.
            numbers(coder.get("target_stds"), 4) or (1.0, 1.0, 1.0, 1.0)
            if isinstance(coder, dict)
            else numbers(head.get("target_stds"), 4) or BOX_STDS
            for head, coder in zip(heads, coders, strict=True)
        )
        losses = dicts(heads, "loss_cls")
        if True in find(losses, "use_sigmoid"):
            said["unsupported"].append("classes by sigmoid instead of softmax")
        others = {word(loss.get("type", "CrossEntropyLoss")) for loss in losses} - {"CrossEntropyLoss"}
        said["unsupported"] += [f"classes that are scored as for {kind}" for kind in sorted(others)]
    if finest := numbers([first_dict(values, "bbox_roi_extractor").get("finest_scale")]):
        said["finest_scale"] = finest[0]
    for part, side in (("bbox_roi_extractor", 7), ("mask_roi_extractor", 14)):
        for layer in dicts(dicts(values, part), "roi_layer"):
            size = layer.get("output_size", layer.get("out_size", side))
            if size not in (side, [side, side]):
                said["unsupported"].append(f"regions of {shown(size)} cells a side in its {part}")
    return said


def _read_test(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of inference: of the second stage, and of proposals."""
    said: dict[str, Any] = {"unsupported": []}
    tests = [*find(values, "rcnn"), *find(first_dict(values, "roi_head"), "test_cfg")]
    rcnn = next((test for test in tests if isinstance(test, dict) and "nms" in test), {})
    rpns = [*find(values, "rpn"), *find(first_dict(values, "rpn_head"), "test_cfg")]
    rpn = next((test for test in rpns if isinstance(test, dict) and "nms_pre" in test), {})
    for test, prefix in ((rcnn, ""), (rpn, "rpn_")):
        nms = first_dict(test, "nms")
        if threshold := numbers([nms.get("iou_threshold", nms.get("iou_thr", test.get("nms_thr")))]):
            said[f"{prefix}nms_threshold"] = threshold[0]
    limits = (
        ("detections", rcnn.get("max_per_img")),
        ("pre_nms", rpn.get("nms_pre")),
        ("proposals", rpn.get("max_per_img", rpn.get("max_num"))),
    )
    said |= {name: value for name, value in limits if isinstance(value, int) and value > 0}
    if limits[0][1] == -1:
        said["unsupported"].append("any number of objects in an image (max_per_img=-1)")
    for name, theirs in (("score_threshold", "score_thr"), ("mask_threshold", "mask_thr_binary")):
        if threshold := numbers([rcnn.get(theirs)]):
            said[name] = threshold[0]
    return said


def _normalise(values: dict[str, Any]) -> dict[str, Any]:
    """The transform of a pipeline that normalises."""
    places = (at(values, place) for place in ("test_pipeline", "data.test.pipeline"))
    steps = (step for place in places for step in nested(place))
    return next((step for step in steps if step.get("type") == "Normalize" and "mean" in step), {})
