"""The model in a file, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcnet.console import listed
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.weights.catalog import find_detector
from gcnet.weights.create import load_weights, published_as, rename_classes, with_classes
from gcnet.weights.files import SUFFIX, load_model, weights_to_come
from gcnet.weights.foreign import load_foreign


def open_model(
    path: str | Path, *, name: str | None = None, class_names: Sequence[str] | None = None
) -> Detector | Classifier:
    """The model in one of our files or in a foreign checkpoint, on the CPU, in eval mode.

    Args:
        name: of the catalog row that it holds; by default it is found out.
        class_names: what its classes are called, in the order of its labels; by default what the file says.

    Raises:
        GCNetError: the file is missing or damaged, holds another model than `name`, cannot be told, or does
            not name its classes.
    """
    path = Path(path)
    if name is None and path.suffix != SUFFIX:
        with weights_to_come():
            detector = load_foreign(path, class_names=class_names)
        detector.provenance |= published_as(path)
        return detector
    row = None if name is None else find_detector(name)
    with weights_to_come():
        model = load_model(path) if row is None else load_weights(path, row)
    if class_names is not None:
        rename_classes(model, class_names, label=str(path))
    if row is None:
        return model
    assert isinstance(model, Detector)
    return with_classes(model, row, model.spec.class_names, label=str(path))


def describe(detector: Detector | Classifier, path: Path) -> list[str]:
    """What `open_model` found in a file, for people: model, classes, and what the file says of itself."""
    names = detector.spec.class_names
    lines = [f"{path}: {detector.spec.name}", f"{len(names)} classes: {listed(names)}"]
    if "note" in detector.provenance:
        lines.append(f"note: {detector.provenance['note']}")
    hidden = ("file", "note", "sha256")
    said = [f"{key} {value}" for key, value in detector.provenance.items() if key not in hidden]
    return lines + ([f"from: {', '.join(said)}"] if said else [])
