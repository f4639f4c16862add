"""From a spec to a network with random weights."""

from __future__ import annotations

from functools import partial

from gcnet.context import ContextBlock, GlobalContext, NonLocal, SimplifiedNonLocal, SqueezeExcitation
from gcnet.models.box_head import BoxHead
from gcnet.models.cascade import CascadeRoIHeads
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.fpn import FPN
from gcnet.models.mask_head import MaskHead
from gcnet.models.resnet import ResNet
from gcnet.models.roi_heads import RoIHeads
from gcnet.models.rpn import RPN
from gcnet.models.spec import (
    CascadeSpec,
    ClassifierSpec,
    ContextSpec,
    ModelSpec,
    ResNetSpec,
    RPNSpec,
)


def build_model(spec: ModelSpec | ClassifierSpec) -> Detector | Classifier:
    """The network that `spec` describes, with random weights."""
    return build_classifier(spec) if isinstance(spec, ClassifierSpec) else build_detector(spec)


def build_detector(spec: ModelSpec) -> Detector:
    """A detector as `spec` describes it, initialised as the reference initialises its own."""
    backbone = build_backbone(spec.backbone)
    roi_heads = _build_roi_heads(spec) if spec.cascade is None else _build_cascade(spec, spec.cascade)
    return Detector(
        spec,
        backbone=backbone,
        neck=FPN(backbone.out_channels, spec.fpn_channels, norm=spec.fpn_norm),
        rpn=_build_rpn(spec.rpn, spec.fpn_channels, inclusive=spec.coordinates == "inclusive"),
        roi_heads=roi_heads,
    )


def build_classifier(spec: ClassifierSpec) -> Classifier:
    """A classifier as `spec` describes it; torchvision's ResNet if it has no blocks."""
    return Classifier(spec, backbone=build_backbone(spec.backbone))


def build_backbone(spec: ResNetSpec) -> ResNet:
    """A ResNet, with context blocks where `spec.context` wants them."""
    context = spec.context or ContextSpec(stages=(False, False, False, False))
    return ResNet(
        blocks=spec.blocks,
        stem_channels=spec.stem_channels,
        base_channels=spec.base_channels,
        groups=spec.groups,
        group_width=spec.group_width,
        deformable_stages=spec.deformable_stages,
        norm=spec.norm,
        frozen_stages=spec.frozen_stages,
        zero_init_residual=spec.zero_init_residual,
        make_context=partial(build_context, context),
        context_stages=context.stages,
        context_position=context.position,
    )


def build_context(spec: ContextSpec, channels: int) -> ContextBlock:
    """The context block that `spec` asks for, for a map of `channels`."""
    match spec.block:
        case "gc":
            return GlobalContext(channels, ratio=spec.ratio, pooling=spec.pooling, fusion=spec.fusion)
        case "snl":
            return SimplifiedNonLocal(channels)
        case "nl":
            return NonLocal(channels)
        case "se":
            return SqueezeExcitation(channels, ratio=spec.ratio)


def _build_rpn(spec: RPNSpec, channels: int, *, inclusive: bool) -> RPN:
    return RPN(
        channels,
        anchor_scale=spec.anchor_scale,
        pre_nms_test=spec.pre_nms_test,
        pre_nms_train=spec.pre_nms_train,
        proposals_test=spec.proposals_test,
        proposals_train=spec.proposals_train,
        nms_threshold=spec.nms_threshold,
        batch_size=spec.batch_size,
        anchors_inside=spec.anchors_inside,
        inclusive=inclusive,
        smooth_l1_beta=spec.smooth_l1_beta,
    )


def _build_roi_heads(spec: ModelSpec) -> RoIHeads:
    roi = spec.roi
    return RoIHeads(
        _box_head(spec, smooth_l1_beta=roi.smooth_l1_beta),
        _mask_head(spec),
        batch_size=roi.batch_size,
        positive_fraction=roi.positive_fraction,
        nms_threshold=roi.nms_threshold,
        detections=roi.detections,
        finest_scale=roi.finest_scale,
        inclusive=spec.coordinates == "inclusive",
    )


def _build_cascade(spec: ModelSpec, cascade: CascadeSpec) -> CascadeRoIHeads:
    roi, stages = spec.roi, range(len(cascade.ious))
    return CascadeRoIHeads(
        [_box_head(spec, smooth_l1_beta=1.0, class_agnostic=True) for _ in stages],
        [_mask_head(spec) for _ in stages],
        ious=cascade.ious,
        loss_weights=cascade.loss_weights,
        stds=cascade.stds,
        batch_size=roi.batch_size,
        positive_fraction=roi.positive_fraction,
        nms_threshold=roi.nms_threshold,
        detections=roi.detections,
        finest_scale=roi.finest_scale,
        inclusive=spec.coordinates == "inclusive",
    )


def _box_head(spec: ModelSpec, *, smooth_l1_beta: float, class_agnostic: bool = False) -> BoxHead:
    return BoxHead(
        spec.fpn_channels,
        spec.roi.box_channels,
        spec.num_classes,
        convs=spec.roi.box_convs,
        fcs=spec.roi.box_fcs,
        norm=spec.roi.norm,
        class_agnostic=class_agnostic,
        smooth_l1_beta=smooth_l1_beta,
        cls_init_std=spec.roi.cls_init_std,
    )


def _mask_head(spec: ModelSpec) -> MaskHead:
    roi = spec.roi
    return MaskHead(spec.fpn_channels, roi.mask_channels, roi.mask_convs, spec.num_classes, norm=roi.norm)
