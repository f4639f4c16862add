"""What needs gcnet as users have it: tracers do not see through the tests' checks of arguments."""

from __future__ import annotations

from dataclasses import replace

import torch
import torchvision  # noqa: F401 (its operators' shapes)
from torch import nn

from gcnet.models.detector import Detector
from gcnet.weights.catalog import find_detector


@torch.no_grad()
def check_exported() -> None:
    """A detector is traced on the CPU, with one shape for everything, and gives what it gave."""
    torch.manual_seed(0)
    spec = find_detector("mask_rcnn_tiny_gc4").spec
    detector = Detector(replace(spec, class_names=("a", "b"))).eval()
    for head in detector.roi_heads.box_stages:
        nn.init.normal_(head.cls.weight, std=0.5)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    exported = torch.export.export(detector, (images,)).module()
    for image in (images, 255 - images):
        ours, theirs = detector(image), exported(image)
        assert ours.valid.any()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


if __name__ == "__main__":
    check_exported()
