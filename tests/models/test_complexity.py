"""Counted operations against counts by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet50

from gcnet.models.complexity import count_complexity
from gcnet.models.detector import Detector
from gcnet.models.layers import DeformableConv2d
from gcnet.models.spec import AggregateSpec
from gcnet.weights.catalog import find


def test_parts_of_the_published_r50_by_hand():
    flops = count_complexity(find("mask_rcnn_r50").spec, (800, 1216)).flops
    pixels = [200 * 304, 100 * 152, 50 * 76, 25 * 38, 13 * 19]
    lateral = [c * 256 * p for c, p in zip((256, 512, 1024, 2048), pixels, strict=False)]
    output = [9 * 256 * 256 * p for p in pixels[:4]]
    assert flops["neck"] == 2 * (sum(lateral) + sum(output))
    assert flops["rpn"] == 2 * sum((9 * 256 + 3 + 12) * 256 * p for p in pixels)
    assert flops["box head"] == 2 * 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    convs, upsample, logits = 4 * 9 * 256 * 256 * 196, 256 * 256 * 784, 256 * 784  # of its own class
    assert flops["mask head"] == 2 * 100 * (convs + upsample + logits)


def test_backbone_equals_what_a_real_run_does():
    spec = find("mask_rcnn_tiny_gc4").spec
    detector = Detector(spec).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.backbone(torch.zeros(1, 3, 96, 128))
    counted = count_complexity(spec, (96, 128))
    assert counted.flops["backbone"] == counter.get_total_flops()
    assert counted.parameters == sum(p.numel() for p in detector.parameters())


def test_cascade_has_three_times_the_mask_heads():
    plain = count_complexity(find("mask_rcnn_x101_syncbn").spec, (320, 320))
    cascade = count_complexity(find("cascade_mask_rcnn_x101_syncbn").spec, (320, 320))
    assert cascade.flops["mask head"] == 3 * plain.flops["mask head"]
    assert cascade.flops["backbone"] == plain.flops["backbone"]


def test_regions_of_all_levels_are_convolved_each():
    spec = find("mask_rcnn_tiny").spec
    summed = replace(spec, roi=replace(spec.roi, aggregate=AggregateSpec(3)))
    plain, more = (count_complexity(one, (96, 128)).flops for one in (spec, summed))
    regions, channels = spec.rpn.proposals_test, spec.fpn_channels
    assert more["box head"] - plain["box head"] == 2 * 4 * regions * 49 * 9 * channels**2
    assert more["mask head"] - plain["mask head"] == 2 * 4 * spec.roi.detections * 196 * 9 * channels**2


def test_deformable_convolutions_cost_their_offsets_more():
    spec = find("cascade_mask_rcnn_x101_syncbn_dcn").spec
    plain = replace(spec, backbone=replace(spec.backbone, deformable_stages=(False,) * 4))
    with torch.device("meta"):
        modules = [m for m in Detector(spec).backbone.modules() if isinstance(m, DeformableConv2d)]
    strides = [8] * 4 + [16] * 23 + [32] * 3
    offsets = sum(9 * m.in_channels * 18 * (320 // s) ** 2 for m, s in zip(modules, strides, strict=True))
    size = (320, 320)
    difference = count_complexity(spec, size).total_flops - count_complexity(plain, size).total_flops
    assert difference == 2 * offsets


def test_a_classifier_is_torchvisions():
    counted = count_complexity(find("resnet50").spec)
    with torch.device("meta"):
        network = resnet50()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, 3, 224, 224))
    assert counted.total_flops == counter.get_total_flops()
    assert counted.flops["fc"] == 2 * 2048 * 1000
