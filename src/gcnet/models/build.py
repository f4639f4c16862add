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
    RoISpec,
    RPNSpec,
)


def build_model(spec: ModelSpec | ClassifierSpec) -> Detector | Classifier:
    """The network that `spec` describes, with random weights."""
    return build_classifier(spec) if isinstance(spec, ClassifierSpec) else build_detector(spec)


def build_detector(spec: ModelSpec) -> Detector:
    """A detector as `spec` describes it, initialised as the reference initialises its own."""
    backbone = build_backbone(spec.backbone)
    if spec.cascade is None:
        roi_heads = _build_roi_heads(spec.roi, spec.fpn_channels, spec.num_classes)
    else:
        roi_heads = _build_cascade(spec.roi, spec.cascade, spec.fpn_channels, spec.num_classes)
    return Detector(
        spec,
        backbone=backbone,
        neck=FPN(backbone.out_channels, spec.fpn_channels),
        rpn=_build_rpn(spec.rpn, spec.fpn_channels),
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


def _build_rpn(spec: RPNSpec, channels: int) -> RPN:
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
        smooth_l1_beta=spec.smooth_l1_beta,
    )


def _build_roi_heads(spec: RoISpec, channels: int, num_classes: int) -> RoIHeads:
    return RoIHeads(
        BoxHead(channels, spec.box_channels, num_classes, cls_init_std=spec.cls_init_std),
        MaskHead(channels, spec.mask_channels, spec.mask_convs, num_classes),
        batch_size=spec.batch_size,
        positive_fraction=spec.positive_fraction,
        nms_threshold=spec.nms_threshold,
        detections=spec.detections,
        finest_scale=spec.finest_scale,
    )


def _build_cascade(spec: RoISpec, cascade: CascadeSpec, channels: int, num_classes: int) -> CascadeRoIHeads:
    stages = range(len(cascade.ious))
    return CascadeRoIHeads(
        [
            BoxHead(
                channels,
                spec.box_channels,
                num_classes,
                class_agnostic=True,
                smooth_l1_beta=1.0,
                cls_init_std=spec.cls_init_std,
            )
            for _ in stages
        ],
        [MaskHead(channels, spec.mask_channels, spec.mask_convs, num_classes) for _ in stages],
        ious=cascade.ious,
        loss_weights=cascade.loss_weights,
        stds=cascade.stds,
        batch_size=spec.batch_size,
        positive_fraction=spec.positive_fraction,
        nms_threshold=spec.nms_threshold,
        detections=spec.detections,
        finest_scale=spec.finest_scale,
    )
