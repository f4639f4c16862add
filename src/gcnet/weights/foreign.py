"""Other people's checkpoints as models of ours, without being told which model they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcnet.models.detector import Detector
from gcnet.weights.checkpoint_files import read_checkpoint
from gcnet.weights.files import fill_weights
from gcnet.weights.identify import identify
from gcnet.weights.mmdet_keys import from_mmdet


def load_foreign(path: str | Path, *, class_names: Sequence[str] | None = None) -> Detector:
    """The model that a .pth file of mmdetection or of the GCNet authors holds, on the CPU, in eval mode.

    Args:
        class_names: one name for each class, in the order of the labels; needed where the file does not say
            them and they are not COCO's 80.

    Raises:
        GCNetError: the file is missing or damaged, wants to run code, holds another kind of model, or does
            not name its classes.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    found = identify(path, checkpoint, class_names=class_names)
    detector = Detector(found.spec)
    fill_weights(detector, from_mmdet(checkpoint.tensors, list(detector.state_dict())), source=str(path))
    detector.provenance = {"file": path.name, **checkpoint.origin}
    if found.note:
        detector.provenance["note"] = found.note
    return detector.eval()
