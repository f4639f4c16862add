"""Reads the text of an mmdetection configuration. It is parsed; nothing in it is executed.

2.x keeps its text in a checkpoint as `config`, 3.x as `cfg`; 1.x has other names for some options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gcnet.console import listed
from gcnet.models.spec import ModelSpec, ResNetSpec, RoISpec, SoftNMSSpec
from gcnet.weights import mmdet_places as places
from gcnet.weights.config_text import dicts, find, first_dict, numbers, parse, plain, word
from gcnet.weights.mmdet_keys import CONVOLUTIONS
from gcnet.weights.mmdet_unsupported import BATCH_NORMS, SYNC_NORMS, unknown_plugins, unsupported

BACKBONE = {"style": "pytorch", "frozen_stages": -1, "norm_eval": True}  # where a whole one does not say
# Steps of a test pipeline that are done here too, or that do not change an image.
KNOWN_STEPS = re.compile(
    r"(Resize|Normalize|Pad|MultiScaleFlipAug|RandomFlip)$"
    r"|Load(ImageFrom|\w*Annotations$|\w*Proposals$)|Collect|Pack|DefaultFormatBundle|.*ToTensor"
    r"|TestTimeAug|None$"
)
CAFFE_MEAN, CAFFE_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # in the order blue, green, red


@dataclass(frozen=True)
class Config:
    """What is said of a model beside the shapes of its tensors; None where nothing is.

    Attributes:
        style: of residual blocks, "pytorch" (stride in the 3x3 convolution) or "caffe" (in the first 1x1).
        channels: order of the channels of the network's input, "rgb" or "bgr"; `mean` and `std` follow it.
        image_size: (long, short) side that images are fitted in.
        stds, anchor_stds: of the deltas of each box head, and of those of proposals.
        soft_nms: its options, where NMS is soft.
        plugins: positions of the context blocks in a residual block of c2..c5, in the order of their work.
        attention: number of heads, terms and stride of the keys of generalized attention.
        balance_level: of a balanced feature pyramid.
        standardised: parts of the model whose convolutions standardise their weights.
        sampling: points in each direction of a region's cell that are read, for boxes and for masks; 0 is as
            many as it takes.
        notes: what its test does in another way than here, in words.
        norm, frozen_stages: how the backbone was trained; stages count the stem, as in `ResNetSpec`.
        unsupported: what differs from any model of ours, in words; None if no whole configuration says so.
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
    soft_nms: dict[str, Any] | None = None
    detections: int | None = None
    rpn_nms_threshold: float | None = None
    pre_nms: int | None = None
    proposals: int | None = None
    plugins: tuple[tuple[str, ...], ...] | None = None
    attention: tuple[int, str, int] | None = None
    balance_level: int | None = None
    standardised: tuple[str, ...] | None = None
    sampling: tuple[float, ...] | None = None
    notes: tuple[str, ...] | None = None
    norm: str | None = None
    frozen_stages: int | None = None
    unsupported: tuple[str, ...] | None = None

    def said(self) -> dict[str, Any]:
        """The fields that something is said of."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def overruled_by(self, other: Config) -> Config:
        """With what the other says in place of what this one does."""
        return replace(self, **other.said())

    def applied_to(self, spec: ModelSpec) -> ModelSpec:
        """The model with what is said of it; its input is RGB, whichever order that says."""
        flip = -1 if self.channels == "bgr" else 1
        cascade, backbone = spec.cascade, spec.backbone
        if isinstance(backbone, ResNetSpec):
            backbone = _changed(backbone, style=self.style, frozen_stages=self.frozen_stages)
        stds, stages = self.stds or (), len(cascade.ious) if cascade else 1
        if len(stds) == 1:  # one head is written for all stages
            stds *= stages
        if cascade and len(stds) == stages:
            cascade = replace(cascade, stds=stds)
        rpn = _changed(
            spec.rpn,
            anchor_scale=self.anchor_scale,
            anchor_ratios=self.anchor_ratios,
            anchor_strides=self.anchor_strides,
            stds=self.anchor_stds,
            nms_threshold=self.rpn_nms_threshold,
            pre_nms_test=self.pre_nms,
            proposals_test=self.proposals,
        )
        roi = _changed(
            spec.roi,
            stds=stds[0] if stds and not cascade else None,
            nms_threshold=self.nms_threshold,
            soft_nms=None if self.soft_nms is None else SoftNMSSpec(**self.soft_nms),
            detections=self.detections,
            finest_scale=self.finest_scale,
        )
        spec = replace(spec, backbone=backbone, rpn=rpn, roi=roi, cascade=cascade)
        mean, std = self.mean and self.mean[::flip], self.std and self.std[::flip]
        return _changed(spec, image_size=self.image_size, image_mean=mean, image_std=std)


def _changed(part: Any, **values: Any) -> Any:
    """A part of a spec with the values that are not None."""
    return replace(part, **{name: value for name, value in values.items() if value is not None})


def named_config(name: str) -> Config:
    """What the name of a published file tells of its images and norms."""
    words = name.lower().replace("-", "_")
    norm = "sync" if "syncbn" in words else None
    if "_caffe" in words:
        return Config(style="caffe", channels="bgr", mean=CAFFE_MEAN, std=(1.0, 1.0, 1.0), norm=norm)
    if "32x8d" in words:
        return Config(style="pytorch", channels="bgr", mean=CAFFE_MEAN, std=CAFFE_STD, norm=norm)
    return Config(standardised=tuple(CONVOLUTIONS) if re.search(r"gn[_+]ws", words) else None, norm=norm)


def read_config(given: str | dict[str, Any]) -> Config | None:
    """What a configuration says, as text or values; None if it cannot be parsed."""
    values = parse(given) if isinstance(given, str) else plain(given)
    if values is None:
        return None
    values = places.used(values)
    said: dict[str, Any] = {
        "notes": tuple(_notes(values)),
        "unsupported": tuple(dict.fromkeys(unsupported(values))),
    }
    for read in (_input, _backbone, _plugins, _neck, _anchors, _boxes, _test):
        said |= read(values)
    if not places.is_whole(values):  # of what a few settings leave out they say nothing
        said = {name: value for name, value in said.items() if value != ()}
    return Config(**said)


def _input(values: dict[str, Any]) -> dict[str, Any]:
    """How images become the network's input: normalisation, order of channels, size."""
    said: dict[str, Any] = {}
    found, is_rgb = places.normalisation(values)
    if both := places.mean_and_std(found):
        said |= {"mean": both[0], "std": both[1], "channels": "rgb" if is_rgb else "bgr"}
    if sizes := places.image_sizes(values):
        said["image_size"] = sizes[0]
    return said


def _notes(values: dict[str, Any]) -> Iterator[str]:
    """What is usual, and its test does otherwise."""
    if places.normalisation(values)[0] is places.NOT_NORMALISED:
        yield "its test does not normalise images"
    if places.are_all(values) and not places.paddings(values):
        yield "its test does not pad images; here they are padded to multiples of 32 pixels"
    flips = True in find(values["test_pipelines"][0], "flip") or "TestTimeAug" in places.kinds(values)
    if flips or len(places.image_sizes(values)) > 1:
        yield "its test joins detections at several sizes or flips; here they are those at the first size"
    if others := [kind for kind in dict.fromkeys(places.kinds(values)) if not KNOWN_STEPS.match(kind)]:
        yield f"not done here, but in its test: {listed(others, 4)}"
    rcnn = places.test_settings(values, "rcnn")
    for what, option, usual in (
        ("score threshold", "score_thr", 0.05),
        ("threshold of masks", "mask_thr_binary", 0.5),
    ):
        if (own := numbers([rcnn.get(option)])) and own != (usual,):
            yield f"its own {what} was {own[0]:g}"


def _backbone(values: dict[str, Any]) -> dict[str, Any]:
    backbone = (BACKBONE if places.is_whole(values) else {}) | first_dict(values, "backbone")
    standardised = (part for part in CONVOLUTIONS if "ConvWS" in _types(dicts(values, part), "conv_cfg"))
    frozen = backbone.get("frozen_stages")
    return {
        "norm": _norm(backbone or values),
        "style": str(backbone["style"]) if "style" in backbone else None,
        "frozen_stages": min(max(frozen + 1, 0), 5) if isinstance(frozen, int) else None,
        "standardised": tuple(standardised),
    }


def _norm(part: dict[str, Any]) -> str | None:
    kinds, frozen = _types(part, "norm_cfg"), find(part, "norm_eval")
    if True in frozen:
        return "frozen_stats"
    if kinds & {*SYNC_NORMS.split()}:
        return "sync"
    if not frozen and not kinds & {*BATCH_NORMS.split()}:
        return None
    return "batch" if frozen else "frozen_stats"


def _types(tree: Any, name: str) -> set[str]:
    """The classes of all dictionaries of that name."""
    return {word(found["type"]) for found in dicts(tree, name) if "type" in found}


def _plugins(values: dict[str, Any]) -> dict[str, Any]:
    """Where context blocks stand, and what their shapes do not tell; nothing where some are unknown."""
    if any(unknown_plugins(values)):
        return {}
    said: dict[str, Any] = {"attention": next(iter(places.attentions(values)), None)}
    stages: list[list[str]] = [[], [], [], []]
    for plugin in places.plugins(values):
        where = plugin.get("stages")
        for positions, has in zip(stages, where if isinstance(where, list) else [True] * 4, strict=False):
            if has:
                positions.append(str(plugin.get("position", places.POSITIONS[-1])))
    return said | (
        {"plugins": tuple(tuple(sorted(positions)) for positions in stages)} if any(stages) else {}
    )


def _neck(values: dict[str, Any]) -> dict[str, Any]:
    necks = (neck for neck in dicts(values, "neck") if word(neck.get("type")) == "BFP")
    level = next((neck.get("refine_level", 2) for neck in necks), None)
    return {"balance_level": level} if isinstance(level, int) and 0 <= level < 5 else {}


def _anchors(values: dict[str, Any]) -> dict[str, Any]:
    own = places.anchors(values)
    scales = numbers(own.get("scales"))
    base, each = own.get("octave_base_scale"), own.get("scales_per_octave")
    if isinstance(base, int | float) and isinstance(each, int) and 0 < each < 100:
        scales = tuple(base * 2 ** (i / each) for i in range(each))
    rpn = first_dict(values, "rpn_head")
    return {
        "anchor_scale": scales[0] if scales and len(scales) == 1 else scales,
        "anchor_ratios": numbers(own.get("ratios")),
        "anchor_strides": places.anchor_strides(values),
        "anchor_stds": numbers(first_dict(rpn, "bbox_coder").get("target_stds", rpn.get("target_stds")), 4),
    }


def _boxes(values: dict[str, Any]) -> dict[str, Any]:
    finest = numbers([first_dict(values, "bbox_roi_extractor").get("finest_scale")])
    stds = tuple(map(_box_stds, dicts(values, "bbox_head")))
    layers = dicts(values, "roi_layer")
    points = numbers([layer.get("sampling_ratio", layer.get("sample_num", 0)) for layer in layers])
    sampling = points and tuple(max(count, 0) for count in points)  # -1 is as many as it takes, too
    return {"stds": stds or None, "finest_scale": finest and finest[0], "sampling": sampling}


def _box_stds(head: dict[str, Any]) -> tuple[float, ...]:
    if isinstance(coder := head.get("bbox_coder"), dict):  # one that does not say divides by nothing
        return numbers(coder.get("target_stds"), 4) or (1.0, 1.0, 1.0, 1.0)
    return numbers(head.get("target_stds"), 4) or RoISpec.stds  # also upstream's default


def _test(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of inference: of the second stage, and of proposals."""
    rcnn, rpn = places.test_settings(values, "rcnn"), places.test_settings(values, "rpn")
    thresholds = {"nms_threshold": _nms_threshold(rcnn), "rpn_nms_threshold": _nms_threshold(rpn)}
    limits = {
        "detections": rcnn.get("max_per_img"),
        "pre_nms": rpn.get("nms_pre"),
        "proposals": rpn.get("max_per_img", rpn.get("max_num")),
    }
    said: dict[str, Any] = {name: one[0] for name, given in thresholds.items() if (one := numbers([given]))}
    if word((nms := first_dict(rcnn, "nms")).get("type")) == "soft_nms":
        soft = {name: nms[name] for name in ("method", "sigma", "min_score") if name in nms}
        said = {"nms_threshold": 0.3, "soft_nms": soft} | said  # 0.3 is upstream's default
    return said | {name: value for name, value in limits.items() if isinstance(value, int)}


def _nms_threshold(test: dict[str, Any]) -> Any:
    nms = first_dict(test, "nms")
    return nms.get("iou_threshold", nms.get("iou_thr", test.get("nms_thr")))
