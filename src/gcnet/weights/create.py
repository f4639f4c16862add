"""Creates models by name, with random or given weights, and the model that a training starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gcnet.console import listed
from gcnet.context_spec import STAGES
from gcnet.errors import GCNetError
from gcnet.files import several
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ClassifierSpec, LibrarySpec, ResNetSpec
from gcnet.weights.backbones import read_backbone
from gcnet.weights.catalog import ClassifierRow, Row, find, unnamed
from gcnet.weights.class_rows import kept_classes
from gcnet.weights.fetch import fetch, find_weights, source_of, store
from gcnet.weights.files import ModelFile, build_model, read_model_file
from gcnet.weights.imagenet import find_imagenet_weights, imagenet_weights
from gcnet.weights.load import build_saved, fill_known_parts, read_model, with_context, with_row, with_spec
from gcnet.weights.saved import is_foreign
from gcnet.weights.start import Origin


@dataclass(frozen=True)
class Start:
    """A model about to be trained.

    `weights` is what does the same again: "coco", "imagenet", "none" or a file; None where nothing does.
    `report` says in some lines whose weights these are, and which classes are new.
    """

    model: Detector | Classifier
    weights: str | None
    report: tuple[str, ...]


@dataclass(frozen=True)
class Backbone:
    """Weights of a backbone alone, and where they are from."""

    tensors: Mapping[str, Tensor]
    provenance: str | dict[str, Any]


BACKBONE_ALONE = "for the backbone, random for the rest"
Given = Detector | Classifier | Backbone | None  # the weights of a whole model, of a backbone, or none


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    mirrors: Sequence[str] = (),
) -> Detector | Classifier:
    """Creates a model of the catalog by name, in eval mode on the CPU: a detector or a classifier.

    If the classes are not those of the weights, classes of the same name keep their trained weights in the
    output layers, and the others start random (`gcnet.weights.class_rows`). Context blocks that the weights
    of a classifier or a backbone do not have are new, and change nothing until they are trained.

    Args:
        name: our name of the row, or mmdetection's (2.x or 3.x); `gcnet.list_models` gives ours.
        weights: None for random weights, "coco" for the published ones, "imagenet" for a trained backbone, or
            any source of `gcnet.load_model` that holds this row. A detector's backbone also takes a
            classifier's .safetensors.
        num_classes: number of classes; ignored if `class_names` are given. By default that of the weights;
            without weights 80, for a classifier 1000.
        class_names: one name for each class, in the order of the labels. By default those of the weights;
            without weights COCO's.
        mirrors: where else to look for files that have to be fetched; see `gcnet.weights.fetch.fetch`.

    Raises:
        GCNetError: the name is unknown, the weights cannot be fetched, or the file is missing, damaged or of
            another model.
    """
    row = find(name)
    new_classes = class_names is not None or num_classes is not None
    given = None if weights is None else _read(row, str(weights), mirrors, draw=new_classes)[0]
    if class_names is None:
        known = given.spec.class_names if isinstance(given, Detector | Classifier) else row.spec.class_names
        class_names = known if num_classes in (None, len(known)) else unnamed(num_classes)
    return _make(row, given, several(class_names), label=str(weights))


def start_model(origin: Origin, class_names: Sequence[str]) -> Start:
    """A model for `class_names`, ready to be trained. A model in memory is used as it is.

    Raises:
        GCNetError: the weights cannot be fetched or read, or are of another model; or the model has blocks
            already, or none to take out.
    """
    held, file, context = origin.held, origin.file, origin.context
    if isinstance(held, Row | ClassifierRow):
        recorded, given, whose = _choose_weights(held, origin)
        model = _make(held, given, class_names, label=str(origin.backbone or recorded))
    elif file:
        recorded, given, whose = "auto", held, f"{file}, a {held.spec.name}"
        model = with_spec(held, replace(held.spec, class_names=tuple(class_names)), label=file)
    else:
        return Start(held, None, ())
    known = given.spec.class_names if isinstance(given, Detector | Classifier) else ()
    report = [f"weights: {whose}", _describe_classes(known, class_names)]
    if origin.remove_context:
        report.append(f"context blocks: those of {model.spec.name} are taken out")
        model = with_context(model, None)
    if context:
        stages = ", ".join(name for name, has in zip(STAGES, context.stages, strict=True) if has)
        report.append(f"context blocks: {context.block} in {stages}, which change nothing until trained")
        model = with_context(model, context)
    return Start(model, recorded, tuple(report))


def _choose_weights(row: Row | ClassifierRow, origin: Origin) -> tuple[str, Given, str]:
    """The word for recipe.yaml that chooses these weights again, the weights, and their source in words."""
    weights, mirrors = origin.weights, origin.mirrors
    if origin.backbone is not None:
        file = Path(origin.backbone)
        tensors, line = read_backbone(file, row.spec.backbone)
        return "auto", Backbone(tensors, {"file": file.name}), f"{line}; {BACKBONE_ALONE}"
    if weights == "auto" and row.weights is not None:
        return _read_published(row, mirrors)
    if weights == "auto" and find_imagenet_weights(row.spec.backbone):
        weights = "imagenet"
    if weights in (None, "none", "auto"):
        return "none", None, "none, all numbers are random"
    word = str(weights if weights in ("coco", "imagenet") else find_weights(weights))
    return word, *_read(row, word, mirrors)


def load_backbone(backbone: nn.Module, spec: ResNetSpec | LibrarySpec, file: Path | None = None) -> None:
    """Fills a ResNet from a `file`, or with the published ImageNet weights.

    Context blocks and deformable offsets that these do not have keep their initial weights. Raises GCNetError
    if no such weights are published, or they cannot be fetched or read.
    """
    path = file or fetch(imagenet_weights(spec)).path
    fill_known_parts(backbone, read_backbone(path, spec)[0], source=str(path))


def _read(
    row: Row | ClassifierRow, weights: str, mirrors: Sequence[str], *, draw: bool = True
) -> tuple[Detector | Classifier | Backbone, str]:
    """Weights for the model of `row`, and their source in words.

    They are of a whole model with its own classes, or of a backbone alone.
    """
    file = source_of(row, weights).fetch(mirrors)
    if weights == "imagenet" and isinstance(row, Row):
        tensors, _ = read_backbone(file.path, row.spec.backbone)
        return Backbone(tensors, "ImageNet"), f"ImageNet's {BACKBONE_ALONE}"
    if is_foreign(file.path):
        model = read_model(file, row, draw=draw)
    else:
        held = read_model_file(file.path)
        if isinstance(row, Row) and isinstance(held.spec, ClassifierSpec):
            return _backbone_of(held)
        model = build_saved(held, draw=draw)
    if weights == "coco":
        assert isinstance(row, Row)
        return model, f"{row.name} as published (COCO, mask AP {row.mask_ap})"
    if weights == "imagenet":
        return model, "ImageNet's"
    return model, weights if model.spec.name == row.name else f"{weights}, a {model.spec.name}"


def _backbone_of(held: ModelFile) -> tuple[Backbone, str]:
    """The backbone weights of one of our classifiers, and their source in words."""
    own = {name.removeprefix("backbone."): t for name, t in held.tensors.items() if name[:3] != "fc."}
    blocks = " with its context blocks" if held.spec.backbone.context else ""
    origin = {"file": held.path.name, "model": held.spec.name, **held.provenance}
    return Backbone(own, origin), f"{held.path}, a {held.spec.name},{blocks} {BACKBONE_ALONE}"


def _read_published(row: Row | ClassifierRow, mirrors: Sequence[str]) -> tuple[str, Given, str]:
    """The published weights of a row, else ImageNet's: their word, the weights, their source."""
    assert row.weights is not None
    reasons: list[str] = []
    for word in ("coco", "imagenet"):
        try:
            given, whose = _read(row, word, mirrors)
            return word, given, "; those of the whole model: ".join([whose, *reasons])
        except GCNetError as error:
            reasons.append(str(error))
    raise GCNetError(
        f"no weights to start from: neither {row.weights.file} nor those of ImageNet can be had; put the "
        f"file into {store()}, name a mirror (--mirror), or train with --weights none ({'; '.join(reasons)})"
    )


def _make(
    row: Row | ClassifierRow, given: Given, class_names: Sequence[str], *, label: str
) -> Detector | Classifier:
    """The model of `row` for `class_names`, filled with the given weights."""
    if isinstance(given, Detector | Classifier):
        return with_row(given, row, class_names, label=label)
    model = build_model(replace(row.spec, class_names=tuple(class_names)))
    if given is not None:
        fill_known_parts(model.backbone, given.tensors, source=label)
        model.provenance = {"backbone": given.provenance}
    return model.eval()


def _describe_classes(source: Sequence[str], target: Sequence[str]) -> str:
    kept = kept_classes(source, target)
    new = [name for name in target if name not in kept]
    if not kept:
        return f"classes: all {len(new)} are new: {listed(new)}"
    if not new:
        return f"classes: all {len(kept)} keep their trained weights: {listed(kept)}"
    some = f"{len(kept)} of {len(target)} keep their trained weights ({listed(kept)})"
    return f"classes: {some}; new: {listed(new)}"
