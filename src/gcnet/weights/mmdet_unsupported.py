"""Lists in words what a configuration of mmdetection has that no model here supports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gcnet.console import shown
from gcnet.weights import mmdet_places as places
from gcnet.weights.config_text import Computed, computed, dicts, find, first_dict, numbers, word

Options = Mapping[str, tuple[Any, ...]]  # by name, each with all the values that are known of it

BATCH_NORMS = "BN BN2d BatchNorm2d"
SYNC_NORMS = "SyncBN MMSyncBN NaiveSyncBN SyncBatchNorm"


def usual(**options: Any) -> Options:
    """Options with the values that are known of them: one each, or several in a tuple."""
    return {name: value if isinstance(value, tuple) else (value,) for name, value in options.items()}


@dataclass(frozen=True)
class Part:
    """What is known of a part of mmdetection's models.

    Attributes:
        types: its classes that compute the same as the models here, at least in inference; "" if it has none.
        usual: options that change the results, with the values that are supported.
        others: all other options of these classes: read, told by tensors, or of no matter for a prediction.
            What somebody has added to a class may change its results. If "", any option may be there.
    """

    types: str = ""
    usual: Options = field(default_factory=dict)
    others: str = ""


_EXTRACTOR = Part(
    "SingleRoIExtractor GenericRoIExtractor SumGenericRoiExtractor",
    usual(featmap_strides=[4, 8, 16, 32], aggregation="sum"),
    "roi_layer out_channels finest_scale pre_cfg post_cfg",
)
_ATTENTION = usual(spatial_range=-1, position_embedding_dim=-1, position_magnitude=1, q_stride=1)
KNOWN = {
    "model": Part(
        "MaskRCNN FasterRCNN CascadeRCNN TwoStageDetector",
        others="backbone neck rpn_head roi_head bbox_head mask_head bbox_roi_extractor mask_roi_extractor "
        "shared_head num_stages test_cfg data_preprocessor preprocess_cfg",
    ),
    "wrapper": Part("SoftTeacher SemiBaseDetector"),
    "backbone": Part(
        "ResNet ResNeXt ResNetV1c ResNetV1d Res2Net RegNet",
        usual(dilations=[1, 1, 1, 1], num_stages=4, out_indices=[0, 1, 2, 3], style=("pytorch", "caffe")),
        "depth arch strides in_channels stem_channels base_channels groups base_width scales deep_stem "
        "avg_down frozen_stages conv_cfg norm_cfg norm_eval dcn stage_with_dcn plugins plugin "
        "stage_with_plugin gcb stage_with_gcb gen_attention stage_with_gen_attention "
        "with_cp zero_init_residual normalize bn_eval bn_frozen",
    ),
    "neck": Part(
        "FPN PAFPN BFP",
        usual(
            start_level=0,
            num_outs=5,
            num_levels=5,
            add_extra_convs=False,
            no_norm_on_lateral=False,
            act_cfg=None,
            activation=None,
        ),
        "in_channels out_channels end_level extra_convs_on_inputs relu_before_extra_convs refine_level "
        "refine_type conv_cfg norm_cfg upsample_cfg normalize",
    ),
    "rpn_head": Part(
        "RPNHead",
        usual(target_means=[0.0] * 4),
        "in_channels feat_channels num_convs background_label anchor_generator anchor_scales "
        "anchor_ratios anchor_strides anchor_base_sizes bbox_coder target_stds reg_decoded_bbox "
        "use_sigmoid_cls test_cfg",
    ),
    "roi_head": Part(
        "StandardRoIHead CascadeRoIHead DynamicRoIHead PISARoIHead",
        usual(shared_head=None),
        "num_stages stage_loss_weights bbox_roi_extractor bbox_head mask_roi_extractor mask_head test_cfg",
    ),
    "bbox_head": Part(
        "BBoxHead ConvFCBBoxHead SharedFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead",
        usual(target_means=[0.0] * 4),
        "num_shared_convs num_shared_fcs num_cls_convs num_cls_fcs num_reg_convs num_reg_fcs num_fcs "
        "with_avg_pool with_cls with_reg in_channels conv_out_channels fc_out_channels roi_feat_size "
        "bbox_coder target_stds reg_class_agnostic reg_decoded_bbox predict_box_type "
        "cls_predictor_cfg reg_predictor_cfg conv_cfg norm_cfg normalize",
    ),
    "mask_head": Part(
        "FCNMaskHead HTCMaskHead",
        usual(upsample_method="deconv", upsample_ratio=2),
        "num_convs roi_feat_size in_channels conv_kernel_size conv_out_channels class_agnostic "
        "upsample_cfg predictor_cfg conv_cfg norm_cfg with_conv_res normalize",
    ),
    "bbox_roi_extractor": _EXTRACTOR,
    "mask_roi_extractor": _EXTRACTOR,
    "pre_cfg": Part(
        "ConvModule",
        usual(stride=1, dilation=1, norm_cfg=None, act_cfg={"type": "ReLU"}),
        "in_channels out_channels kernel_size padding inplace",
    ),
    "post_cfg": Part("GeneralizedAttention", _ATTENTION, "in_channels num_heads attention_type kv_stride"),
    "roi_layer": Part(
        "RoIAlign",
        usual(pool_mode="avg", aligned=True),
        "output_size out_size sampling_ratio sample_num use_torchvision spatial_scale",
    ),
    "anchor_generator": Part("AnchorGenerator", usual(centers=None, center_offset=0, scale_major=True)),
    "bbox_coder": Part(
        "DeltaXYWHBBoxCoder",
        usual(target_means=[0.0] * 4, clip_border=True, add_ctr_clamp=False),
    ),
    "cls_predictor_cfg": Part("Linear"),
    "reg_predictor_cfg": Part("Linear"),
    "predictor_cfg": Part("Conv Conv2d"),
    "upsample_cfg": Part("deconv", usual(mode="nearest", scale_factor=2)),
    "norm_cfg": Part(f"{BATCH_NORMS} {SYNC_NORMS} GN GroupNorm", usual(num_groups=32, eps=1e-5)),
    "conv_cfg": Part("Conv Conv2d ConvWS"),
    "dcn": Part("DCN DCNv2"),
    "rcnn": Part(others="score_thr nms max_per_img mask_thr_binary"),
    "rpn": Part(
        usual=usual(min_bbox_size=(0, -1), nms_across_levels=False),
        others="nms_pre nms_post max_num max_per_img nms nms_thr deploy_nms_pre",
    ),
    "nms": Part(
        "nms soft_nms",
        usual(class_agnostic=False, max_num=-1, offset=0, score_threshold=0, method=("linear", "gaussian")),
    ),
    "data_preprocessor": Part("DetDataPreprocessor MultiBranchDataPreprocessor", usual(pad_value=0)),
}
STEPS: dict[str, Options] = {  # of a test
    "LoadImageFromFile": usual(
        color_type=(None, "color", "unchanged"), imdecode_backend=(None, "cv2", "turbojpeg")
    ),
    "Pad": usual(
        size=None,
        pad_to_square=False,
        pad_val=(0, {"img": 0}, {"img": 0, "seg": 255}, {"img": 0, "masks": 0, "seg": 255}),
    ),
    "FixShapeResize": usual(width=()),
    "Resize": usual(scale_factor=(None, 1.0), interpolation=(None, "bilinear"), backend=(None, "cv2")),
}
PLUGINS: dict[str, Options] = {
    "ContextBlock": {},
    "NonLocal2d": usual(reduction=2, use_scale=True, mode="embedded_gaussian", sub_sample=False),
    "GeneralizedAttention": _ATTENTION,
}
# A box head scores by softmax whatever its loss is (also with `use_sigmoid`), unless the loss does it itself.
SOFTMAX_LOSSES = ("CrossEntropyLoss", "FocalLoss")
INSTEAD = "give the whole one that a run wrote beside its checkpoints"
# In the places of values that are read; elsewhere one may be computed.
READ = {*KNOWN, "test_cfg", "test_pipelines", "img_norm_cfg"} - {"model", "wrapper"}
# Options of a part that do not matter, or that tensors tell.
UNNEEDED = re.compile(
    r"(^|\.)(loss\w*|init_cfg|pretrained|num_classes|meta_keys|file_client_args|backend_args)(\.|$)"
)


def unsupported(values: dict[str, Any]) -> Iterator[str]:
    """All of it, part by part; `values` are those of `places.used`."""
    for name, part in KNOWN.items():
        for found in dicts(values, name):
            yield from _of_part(name, part, found)
    yield from _unread(values)
    yield from _of_strides(first_dict(values, "backbone"))
    yield from _of_images(values)
    yield from unknown_plugins(values)
    if len(necks := dicts(values, "neck")) > 2:
        yield f"{len(necks)} necks in a row"
    yield from _of_proposals(values)
    yield from _of_boxes(values)


def _of_part(name: str, part: Part, found: Mapping[str, Any]) -> Iterator[str]:
    """Its class, or options of a class that is known."""
    kind = word(found.get("type", ""))
    if part.types and kind not in ("", *part.types.split()):
        yield f"{name} of type {kind}"
        return
    yield from _unusual(found, part.usual, name)
    if part.others and (kind or name != "model"):  # a few names are a model without a class
        known = {"type", "_scope_", *part.usual, *part.others.split()}
        added = [option for option in found if option not in known and not UNNEEDED.search(str(option))]
        yield from (f"{shown(option)}={shown(found[option])} of its {name}" for option in added)


def _unusual(found: Mapping[str, Any], options: Options, what: str) -> Iterator[str]:
    for option, usual in options.items():
        if option in found and found[option] not in usual:
            yield f"{option}={shown(found[option])} of its {what}"


def _unread(values: dict[str, Any]) -> Iterator[str]:
    """What would have to be run, and what stands in other files."""
    if values.get("_base_"):
        yield f"a configuration that builds on others (_base_): {INSTEAD}"
    if "_run_" in values:
        line = values["_run_"]
        yield f"a configuration that does more than name values (line {line}): {INSTEAD}"
    if isinstance(values["model"], Computed):
        yield "a model that is computed, which is not done here"
    for place in computed(values):
        if not READ.isdisjoint(place.split(".")) and not UNNEEDED.search(place):
            yield f"a value that is computed, which is not done here ({shown(place)})"


def _of_strides(backbone: dict[str, Any]) -> Iterator[str]:
    """RegNet's first stage halves its map, where others have halved it by a pooling."""
    usual = [2 if word(backbone.get("type")) == "RegNet" else 1, 2, 2, 2]
    if (strides := backbone.get("strides", usual)) != usual:
        yield f"strides={shown(strides)} of its backbone"


def _of_images(values: dict[str, Any]) -> Iterator[str]:
    """How images are normalised, and what is done to them before."""
    found, _ = places.normalisation(values)
    if "mean" in found and not places.mean_and_std(found):
        yield f"images are normalised by {shown(found['mean'])} and {shown(found.get('std'))}"
    pipelines = values["test_pipelines"]
    if any(steps != pipelines[0] for steps in pipelines):
        yield "test data sets whose images are prepared in different ways"
    processor = places.preprocessor(values)
    twice = processor.get("mean") is not None or processor.get("bgr_to_rgb")
    if twice and places.normalising_step(values):
        yield "images are normalised twice"
    if places.are_all(values) and not ("Resize" in places.kinds(values) and places.image_sizes(values)):
        yield "images are not resized to fit in a size"
    if any(divisor != 32 for divisor in places.paddings(values)):
        yield "images are padded to other multiples than of 32 pixels"
    for kind, step in places.steps(values):
        # By default 3.x stretches images, and 2.x, where the size has another name, does not.
        if step.get("keep_ratio", kind != "Resize" or "scale" not in step) is False:
            yield "images are stretched to one size (keep_ratio=False)"
        yield from _unusual(step, STEPS.get(kind, {}), kind)


def unknown_plugins(values: dict[str, Any]) -> Iterator[str]:
    """Layers in residual blocks that are no context blocks of ours, or stand elsewhere."""
    for plugin in places.plugins(values):
        own, position = first_dict(plugin, "cfg"), plugin.get("position", places.POSITIONS[-1])
        kind = word(own.get("type"))
        if kind not in PLUGINS:
            yield f"a plugin of type {kind}"
        if position not in places.POSITIONS:
            yield f"a plugin at {word(position)}"
        yield from _unusual(own, PLUGINS.get(kind, {}), kind)
    kinds = places.attentions(values)
    if len(kinds) > 1:
        yield f"generalized attention of {len(kinds)} kinds"
    for heads, terms, stride in kinds:
        counts = all(isinstance(number, int) and number > 0 for number in (heads, stride))
        if not (counts and re.fullmatch("[01]{4}", str(terms)) and "1" in terms):
            yield f"generalized attention with {shown((heads, terms, stride))} for heads, terms and stride"


def _of_proposals(values: dict[str, Any]) -> Iterator[str]:
    own = places.anchors(values)
    read = {name: numbers(own.get(name)) for name in ("scales", "ratios")}
    for name, found in (read | {"strides": places.anchor_strides(values)}).items():
        if own.get(name) is not None and found is None:
            yield f"anchors with {name} {shown(own[name])}"
    base = own.get("base_sizes")
    if base is not None and base != own.get("strides"):
        yield f"anchors with base sizes {shown(base)}"
    for stds in find(values, "target_stds"):
        if not numbers(stds, 4):
            yield f"deltas with deviations {shown(stds)}"
    if not all(loss.get("use_sigmoid") for loss in dicts(first_dict(values, "rpn_head"), "loss_cls")):
        yield "proposals scored by softmax"
    rpn = places.test_settings(values, "rpn")
    if word(first_dict(rpn, "nms").get("type")) == "soft_nms":
        yield "soft_nms of proposals"
    post, most = rpn.get("nms_post"), rpn.get("max_per_img", rpn.get("max_num"))
    if isinstance(post, int) and isinstance(most, int) and post < most:  # of a level in 1.x, of all in 2.0
        yield f"fewer proposals after NMS (nms_post={post}) than in all ({most})"


def _of_boxes(values: dict[str, Any]) -> Iterator[str]:
    """How classes are scored, how finely regions are read, and soft NMS."""
    nms = first_dict(places.test_settings(values, "rcnn"), "nms")
    for option, least in (("sigma", 1e-6), ("min_score", 0)):
        value = nms.get(option, 1)
        if not (own := numbers([value])) or own[0] < least:
            yield f"NMS with {option}={shown(value)}"
    losses = dicts(dicts(values, "bbox_head"), "loss_cls")
    others = {word(loss.get("type", SOFTMAX_LOSSES[0])) for loss in losses} - {*SOFTMAX_LOSSES}
    yield from (f"classes that are scored as for {kind}" for kind in sorted(others))
    boxes, masks = (dicts(values, f"{part}_roi_extractor") for part in ("bbox", "mask"))
    if boxes and first_dict(values, "mask_head") and not masks:
        yield "masks from the regions of boxes (no mask_roi_extractor)"
    if len({extractor.get("finest_scale", 56) for extractor in [*boxes, *masks]}) > 1:
        yield "some regions that are read at other levels than others (finest_scale)"
    for extractor in [*boxes, *masks]:
        if "Generic" in word(extractor.get("type")) and not (
            extractor.get("pre_cfg") or extractor.get("post_cfg")
        ):
            yield "levels that are summed as they are (GenericRoIExtractor)"
    for part, side in (("bbox_roi_extractor", 7), ("mask_roi_extractor", 14)):
        for layer in dicts(dicts(values, part), "roi_layer"):
            size = layer.get("output_size", layer.get("out_size", side))
            if size not in (side, [side, side]):
                yield f"regions of {shown(size)} cells a side in its {part}"
