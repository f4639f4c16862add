"""A model by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gcnet.errors import GCNetError
from gcnet.models.build import build_detector
from gcnet.models.detector import Detector
from gcnet.models.weights import SUFFIX, fill_weights, load_model
from gcnet.zoo.catalog import find
from gcnet.zoo.checkpoint_files import read_checkpoint
from gcnet.zoo.imagenet import load_imagenet
from gcnet.zoo.mmdet_keys import from_mmdet


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int = 80,
    class_names: Sequence[str] | None = None,
) -> Detector:
    """The model of a row, in eval mode on the CPU.

    Args:
        name: our name of the row, or mmdetection's (2.x or 3.x).
        weights: None for random ones, "imagenet" for a trained backbone, or a file: our .safetensors of
            this row, or an mmdetection .pth of it.
        num_classes: ignored if `class_names` are given; 80 takes COCO's names.
        class_names: one name for each class, in the order of the labels.

    Raises:
        GCNetError: the name is unknown, or the file is missing, damaged or of another model.
    """
    spec = find(name).spec
    if class_names is None and num_classes != spec.num_classes:
        class_names = [f"class {index}" for index in range(num_classes)]
    if class_names is not None:
        spec = replace(spec, class_names=tuple(class_names))
    detector = build_detector(spec)
    if weights == "coco":
        raise GCNetError(
            f"published weights are not fetched yet: download those of {name} and pass the .pth file instead"
        )
    if weights == "imagenet":
        load_imagenet(detector.backbone, spec.backbone)
    elif weights is not None and Path(weights).suffix == SUFFIX:
        fill_weights(detector, load_model(weights).state_dict(), source=str(weights))
    elif weights is not None:
        tensors = from_mmdet(read_checkpoint(weights).tensors, list(detector.state_dict()))
        fill_weights(detector, tensors, source=str(weights))
    return detector.eval()
