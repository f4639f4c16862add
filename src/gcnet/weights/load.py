"""Loads models from anything: our files, run folders, the hub, published names, others' checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from gcnet.context_spec import ContextSpec, check_change
from gcnet.errors import GCNetError
from gcnet.files import AnyPath, several
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ClassifierSpec, ModelSpec, ResNetSpec
from gcnet.weights.catalog import ClassifierRow, Row, find, find_published, unnamed
from gcnet.weights.checkpoints import Checkpoint, read_checkpoint
from gcnet.weights.class_rows import carry_over, kept_classes
from gcnet.weights.dialects import translate
from gcnet.weights.fetch import LocalFile, find_source, sha256
from gcnet.weights.files import (
    ModelFile,
    build_for,
    build_model,
    building,
    fill_weights,
    read_model_file,
)
from gcnet.weights.identify import identify
from gcnet.weights.mmdet_config import Config
from gcnet.weights.mmdet_keys import our_keys
from gcnet.weights.saved import is_foreign

# In the names of tensors of context blocks, the first and further ones.
OF_CONTEXT = re.compile(r"\.context\d*\.")

Model = TypeVar("Model")


def load_model(
    source: AnyPath,
    *,
    row: str | None = None,
    class_names: Sequence[str] | None = None,
    mirrors: Sequence[str] = (),
) -> Detector | Classifier:
    """Loads a model from a file, on the CPU, in eval mode; its `provenance` says where it comes from.

    Args:
        source: one of our .safetensors files, a run folder, a folder in the Hugging Face hub's layout, a
            repository there ("OWNER/NAME"), a checkpoint of mmdetection, torchvision, detectron2 or the GCNet
            authors, or a catalog name with published weights. With a classifier's `row` also a ResNet of
            torchvision's.
        row: name of the catalog row that the file holds; by default it is recognised.
        class_names: names of its classes, in the order of its labels; by default those in the file.
        mirrors: where else to look for published weights; see `gcnet.weights.fetch.fetch`.

    Raises:
        GCNetError: the file is missing, damaged or cannot be fetched; loading it would run code; it holds
            another model than `row`, or one that cannot be read; or it does not name its classes.
    """
    found = find_source(source)
    names = None if class_names is None else several(class_names)
    return read_model(found.fetch(mirrors), find(row) if row else found.row, names)


def read_model(
    file: LocalFile,
    row: Row | ClassifierRow | None,
    class_names: Sequence[str] | None = None,
    *,
    draw: bool = False,
    told: Config | None = None,
    part: str | None = None,
) -> Detector | Classifier:
    """The model in a file, which is the one of `row` if that is given. Raises GCNetError as `load_model`.

    `told` is what a person says of a foreign model in place of its file, `part` which of two it is
    (`read_checkpoint`). `draw` draws the random numbers of a new model, though the file replaces them all:
    those that are drawn afterwards are what the seed says, whatever was loaded.
    """
    checkpoint = read_checkpoint(file.path, part=part) if is_foreign(file.path) else None
    if checkpoint and not isinstance(row, ClassifierRow):
        return _read_mmdet(file, checkpoint, row, class_names, draw=draw, told=told)
    if told not in (None, Config()) or (part and not checkpoint):
        raise GCNetError(
            f"{file.path} is a file of ours, or of a classifier, which says what it is: leave out --config, "
            "--style, --channel-order, --image-size and --part"
        )
    if checkpoint and isinstance(row, ClassifierRow):
        return _read_torchvision(file.path, checkpoint, row, class_names)
    model = build_saved(read_model_file(file.path), draw=draw)
    if class_names is not None:
        rename_classes(model, class_names, label=str(file.path))
    return with_row(model, row, model.spec.class_names, label=str(file.path)) if row else model


def build_saved(held: ModelFile, *, draw: bool = False) -> Detector | Classifier:
    """The model that one of our files holds. Raises GCNetError if its tensors are not those of its spec."""
    model = build_for(held.spec, held.tensors, source=str(held.path), draw=draw)
    fill_weights(model, held.tensors, source=str(held.path))
    model.provenance = held.provenance
    return model.eval()


def load_pretrained(kind: type[Model], name: str | Path, **options: Any) -> Model:
    """The model in a folder or a repository of the hub; see `Detector.from_pretrained`."""
    from gcnet.weights.hub import FILE, download_model

    path = Path(name) / FILE if Path(name).is_dir() else download_model(str(name), **options)
    model = read_model(LocalFile(path), None)
    if not isinstance(model, kind):
        other = type(model).__name__
        raise GCNetError(
            f"{name} is a {other.lower()} ({model.spec.name}): use gcnet.{other}.from_pretrained"
        )
    return model


def _read_mmdet(
    file: LocalFile,
    checkpoint: Checkpoint,
    row: Row | None,
    class_names: Sequence[str] | None,
    *,
    draw: bool,
    told: Config | None,
) -> Detector | Classifier:
    path = file.path
    digest = file.sha256 or sha256(path)
    dialect = translate(checkpoint.tensors, source=str(path))
    tensors, others = dialect.tensors, {dialect.library: dialect.config, "option": told or Config()}
    if dialect.library == "torchvision" and class_names is None:
        checkpoint = replace(checkpoint, class_names=_torchvision_names(tensors))
    found = identify(path, checkpoint, tensors, digest=digest, row=row, class_names=class_names, told=others)
    tensors, spec = found.converted(tensors), replace(found.spec, resize=dialect.resize)
    if dialect.coordinates is not None:
        spec = replace(spec, coordinates=dialect.coordinates)
    if dialect.library != "mmdetection" and row is None:
        spec = replace(spec, name=path.stem)
    detector = build_for(spec, None if row else tensors, source=str(path), draw=draw)
    fill_weights(detector, our_keys(tensors, detector.state_dict()), source=str(path), take=True)
    detector.provenance = {"file": path.name, **checkpoint.origin, **_published_as(digest)}
    detector.provenance["told_by"] = dict(found.told_by)
    if notes := [note for note in (dialect.note, found.note) if note]:
        detector.provenance["note"] = "; ".join(notes)
    return detector.eval()


def _read_torchvision(
    path: Path, checkpoint: Checkpoint, row: ClassifierRow, class_names: Sequence[str] | None
) -> Classifier:
    """A ResNet of torchvision's in the model of `row`, whose context blocks are new to it."""
    tensors = checkpoint.tensors
    if "fc.weight" not in tensors or tensors["fc.weight"].dim() != 2:
        raise GCNetError(f"{path} has no fc layer: it is no classifier of torchvision's making")
    names = tuple(class_names or _imagenet_names(len(tensors["fc.weight"])))
    classifier = build_model(replace(row.spec, class_names=names))
    assert isinstance(classifier, Classifier)
    ours = {name if name.startswith("fc.") else f"backbone.{name}": value for name, value in tensors.items()}
    fill_known_parts(classifier, ours, source=str(path))
    classifier.provenance = {"file": path.name}
    return classifier.eval()


def _torchvision_names(tensors: Mapping[str, Tensor]) -> tuple[str, ...] | None:
    """The 90 categories of COCO's numbering, some of which do not exist; None of other files."""
    logits = tensors.get("roi_head.bbox_head.fc_cls.weight")
    if logits is None or logits.shape[:1] != (91,):
        return None
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    return tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:])


def _imagenet_names(count: int) -> Sequence[str]:
    if count != 1000:
        return unnamed(count)
    from torchvision.models import ResNet50_Weights

    return ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def with_row(
    source: Detector | Classifier, row: Row | ClassifierRow, class_names: Sequence[str], *, label: str
) -> Detector | Classifier:
    """The weights of `source` in the model of `row` with other classes; see `gcnet.weights.class_rows`.

    Classes that `source` does not name are taken to be `class_names` if there are as many. A classifier may
    have context blocks that `source` lacks.

    Raises GCNetError if they differ in more than that; `label` says what `source` is.
    """
    if isinstance(source.spec, ClassifierSpec) != isinstance(row, ClassifierRow):
        kinds = ("a detector", "an image classifier")
        theirs, ours = kinds if isinstance(row, ClassifierRow) else kinds[::-1]
        raise GCNetError(f"{label} is {theirs} ({source.spec.name}), {row.name} is {ours}")
    spec = row.spec
    if isinstance(source, Detector) and isinstance(spec, ModelSpec):
        spec = replace(spec, coordinates=source.spec.coordinates, resize=source.spec.resize)
    return with_spec(source, replace(spec, class_names=tuple(class_names)), label=label)


def with_spec(
    source: Detector | Classifier, spec: ModelSpec | ClassifierSpec, *, label: str
) -> Detector | Classifier:
    """The weights of `source` in the model of `spec`, which may have other classes. As `with_row`."""
    if source.spec.class_names == unnamed(spec.num_classes):
        rename_classes(source, spec.class_names, label=label)
    if source.spec == spec:
        return source
    whole = isinstance(source, Detector) and source.spec.class_names == spec.class_names
    with building(draw=not whole):
        model = build_model(spec)
    fill = fill_known_parts if isinstance(model, Classifier) else fill_weights
    fill(model, carry_over(source, model), source=label)
    model.provenance = dict(source.provenance)
    if source.spec.class_names != spec.class_names:
        model.provenance["classes_kept"] = kept_classes(source.spec.class_names, spec.class_names)
    return model.eval()


def with_context(model: Detector | Classifier, context: ContextSpec | None) -> Detector | Classifier:
    """The same network with other context blocks, or with none.

    New blocks are the identity until they are trained.

    Raises GCNetError if the model has blocks already and others are to be added, or it has none to be
    removed; the block is never the identity.
    """
    backbone, name = model.spec.backbone, model.spec.name
    check_change(name, backbone.context, context)
    if backbone.context is not None:
        name = re.sub(rf"_{backbone.context.block}[\d.]*(?![a-z\d.])", "", name)
    if context is not None:
        name += f"_{context.block}" + (f"{1 / context.ratio:g}" if context.block == "gc" else "")
    more = {"more_context": ()} if isinstance(backbone, ResNetSpec) else {}
    spec = replace(model.spec, name=name, backbone=replace(backbone, context=context, **more))
    changed = build_model(spec)
    own, theirs = changed.state_dict(), model.state_dict()
    fill_weights(changed, {key: theirs.get(key, tensor) for key, tensor in own.items()}, source=name)
    changed.provenance = dict(model.provenance)
    return changed.eval()


def fill_known_parts(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """As `fill_weights`; what `module` adds to a plain ResNet and `tensors` do not have stays as it is.

    These are deformable offsets, and context blocks, of which `tensors` have all or none.

    Raises GCNetError if `tensors` have blocks and `module` has none.
    """
    own = module.state_dict()
    has_blocks, wants_blocks = (any(map(OF_CONTEXT.search, names)) for names in (tensors, own))
    if has_blocks and not wants_blocks:
        raise GCNetError(
            f"{source} has context blocks, and this model has no place for them: take a model with such "
            "blocks, or weights without"
        )
    new = {n: t for n, t in own.items() if ".offset." in n or (OF_CONTEXT.search(n) and not has_blocks)}
    fill_weights(module, new | dict(tensors), source=source)


def rename_classes(model: Detector | Classifier, class_names: Sequence[str], *, label: str) -> None:
    """Gives the classes of `model` other names, in the order of the labels.

    Raises GCNetError if there are more or fewer names than classes; `label` says what `model` is.
    """
    count = model.spec.num_classes
    if len(class_names) != count:
        raise GCNetError(f"{label} has {count} classes, {len(class_names)} names are given: name each class")
    spec = replace(model.spec, class_names=tuple(class_names))
    model.spec = spec  # pyright: ignore[reportAttributeAccessIssue] (it is of the same kind)


def _published_as(digest: str) -> dict[str, Any]:
    """The SHA-256 of a file, and if it is a published one what was published about it."""
    if (row := find_published(digest)) is None:
        return {"sha256": digest}
    aps = {"published_box_AP": row.box_ap, "published_mask_AP": row.mask_ap}
    return {"sha256": digest, "published_as": row.upstream[0], **aps}
