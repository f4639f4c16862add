"""Recognises the model in a checkpoint of mmdetection by the shapes of its tensors, name and metadata.

C channels of a block, P of its bottleneck.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from torch import Tensor

from gcnet.console import listed, one_line
from gcnet.errors import GCNetError
from gcnet.models.spec import ModelSpec, Norm
from gcnet.weights.catalog import COCO_CLASSES, ROWS, Row, find_published, unnamed
from gcnet.weights.checkpoints import Checkpoint
from gcnet.weights.mmdet_blocks import UNSAID_POSITION, Shapes
from gcnet.weights.mmdet_config import Config, named_config, read_config
from gcnet.weights.mmdet_keys import is_version_1, standardise
from gcnet.weights.mmdet_shapes import class_count, other_parts, read_structure, told_by_shapes

UNTOLD = "it does not say how images were prepared: taken as RGB"
UNTOLD_MEAN = " with ImageNet's mean and deviation"
UNTOLD_STYLE = ', and residual blocks of "pytorch" style'
UNPLACED = (
    "it does not say where in a residual block context blocks are: taken as after the second convolution"
)
UNTRAINED = "it does not say how its norm was trained: taken as frozen, which matters for training only"
UNPARSED = "its configuration is no plain Python and says nothing here"
ASSUMED = "assumed"  # where nothing tells
# Fields of `Config`, and the position of context blocks and the names of classes: what shapes may not tell.
TELLABLE = ("style", "norm", "frozen_stages", "position", "anchor_scale", "anchor_ratios", "anchor_strides")
TELLABLE += ("stds", "class_names", "image_size", "mean", "channels")
FIRST = ("backbone.conv1.weight", "backbone.conv1.0.weight")
STANDARDISED = "its weight standardisation went into the weights: what is trained on goes without"
# The settings that make a model compute otherwise, and those of a test.
COMPUTES: Mapping[str, Callable[[ModelSpec], object]] = {
    "style": lambda spec: getattr(spec.backbone, "style", None),  # none of a library's network
    "mean and deviation of images": attrgetter("image_mean", "image_std"),
    "anchors": attrgetter("rpn.anchor_scales", "rpn.anchor_ratios", "rpn.anchor_strides", "rpn.stds"),
    "deviations of deltas": attrgetter("cascade", "roi.stds"),
    "reading of regions": attrgetter("roi.finest_scale", "roi.sampling", "roi.aggregate"),
}
TESTS: Mapping[str, Callable[[ModelSpec], object]] = {
    "image size": attrgetter("image_size"),
    "NMS": attrgetter("rpn.nms_threshold", "roi.nms_threshold", "roi.soft_nms"),
    "numbers of proposals and detections": attrgetter(
        "rpn.pre_nms_test", "rpn.proposals_test", "roi.detections"
    ),
}


@dataclass(frozen=True)
class Identified:
    """The model that a file holds.

    Attributes:
        spec: the model, with the file's own classes; it has the name of a catalog row, or of the file.
        note: one line on what had to be assumed, or on a name that does not fit; None if there is nothing.
        bgr: whether its first convolution takes blue first; that of `spec` takes red.
        standardised: parts of it whose convolutions standardise their weights; those of `spec` do not.
        told_by: who says each of `TELLABLE`; what is missing is assumed.
    """

    spec: ModelSpec
    note: str | None
    bgr: bool = False
    standardised: tuple[str, ...] = ()
    told_by: Mapping[str, str] = field(default_factory=dict, compare=False)

    def converted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the file, under mmdetection 2.x's names, as `spec` computes with them."""
        ours = standardise(tensors, self.standardised)
        first = next((key for key in FIRST if key in ours and ours[key].dim() == 4), None)
        return ours | {first: ours[first].flip(1)} if self.bgr and first else ours


def identify(
    path: Path,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    *,
    digest: str = "",
    row: Row | None = None,
    class_names: Sequence[str] | None = None,
    told: Mapping[str, Config] | None = None,
) -> Identified:
    """The model that a checkpoint of mmdetection 1.x, 2.x or 3.x, or of the GCNet authors, holds.

    The shapes of its tensors decide, and its configuration what shapes cannot tell. Rows that differ in how
    their norm was trained are told by the file's hash, a row's name in its own, its configuration, "syncbn"
    in its name and its batch counts, in this order. It matters for training on only: predictions are equal.

    Args:
        tensors: those of `checkpoint` under mmdetection 2.x's names (`mmdet_keys.modernise`).
        digest: the SHA-256 of the file.
        row: the model that it is known to hold.
        class_names: one name for each class, where the file does not say them (or says others).
        told: what others say of it in place of what the file does, by who they are; the last one is right.

    Raises:
        GCNetError: it is another kind of model, or its class names are unknown.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config, told_by = _config(path, checkpoint, told or {})
    _refuse(path, [*(config.unsupported or ()), *other_parts(shapes)])
    count = class_count(shapes) or (row.spec.num_classes if row else 0)
    if row is not None:
        own, spec, notes, fallback = row, row.spec, [], unnamed(count)
    else:
        structure, fallback = read_structure(shapes, config, source=str(path)), None
        own, spec, notes = _find_out(path, config, tensors, digest, structure, told_by)
    as_said = config.applied_to(spec)
    version_1 = is_version_1(checkpoint.tensors)
    _refuse(path, _unfitting(as_said, config, shapes, version_1))
    points = int(next(iter(config.sampling or ()), 0))
    if points != (2 if version_1 else 0):
        as_said = replace(as_said, roi=replace(as_said.roi, sampling=points))
    try:
        ModelSpec.from_dict(asdict(as_said))
    except ValueError as error:
        raise GCNetError(
            f"{path} says what no model here can be: {error} (--config FILE says otherwise)"
        ) from None
    if row is not None:
        notes += _held_to(path, row, as_said)
        told_by |= dict.fromkeys(("norm", "frozen_stages", "image_size"), f"as {row.name}")
    elif as_said != spec:
        own, spec = None, replace(as_said, name=path.stem)
    notes += [*([STANDARDISED] if config.standardised else []), *(config.notes or ())]
    names, told_by["class_names"] = _class_names(path, checkpoint, count, class_names, fallback)
    spec = replace(spec, class_names=names, coordinates="inclusive" if version_1 else spec.coordinates)
    bgr, standardised = config.channels == "bgr", config.standardised or ()
    if bgr:
        told_by["channels"] += ": BGR, turned into RGB"
    usual = f"as {own.name}" if own else ASSUMED
    told_by = {name: told_by.get(name, usual) for name in TELLABLE}
    return Identified(spec, "; ".join(notes) or None, bgr, standardised, told_by)


def _find_out(
    path: Path,
    config: Config,
    tensors: Mapping[str, Tensor],
    digest: str,
    structure: ModelSpec,
    told_by: dict[str, str],
) -> tuple[Row | None, ModelSpec, list[str]]:
    """The catalog row of a `structure`, if any, the model, and what had to be assumed.

    Who tells the norm and the place of blocks is added to `told_by`.
    """
    shapes = told_by_shapes(structure)
    candidates = [row for row in ROWS if told_by_shapes(row.spec) == shapes]
    published, named = find_published(digest, candidates), _named(path, candidates)
    counted = _counted_norm(tensors)
    norm: Any = config.norm or counted or "frozen_stats"
    if row := published or named:
        told_by["norm"] = "published file" if published else "name"
    else:
        told_by.setdefault("norm", "batch counts" if counted else ASSUMED)
        row = next((row for row in candidates if row.spec.backbone.norm == norm), None)
    if structure.backbone.norm == "group32":
        norm, told_by["norm"] = "group32", "shapes"
    notes = []
    if (other := _named(path, ROWS)) and other not in candidates:
        notes.append(f"it is named like {other.name}, but holds another model")
    if told_by["norm"] == ASSUMED:
        notes.append(UNTRAINED)
    if row is None and config.channels is None:
        notes.append(UNTOLD + ("" if config.mean else UNTOLD_MEAN) + ("" if config.style else UNTOLD_STYLE))
    told_by["position"] = "configuration" if config.plugins else "shapes"
    positions = [context.position for context in getattr(structure.backbone, "contexts", ())]
    if config.plugins is None and UNSAID_POSITION in positions:
        told_by["position"] = ASSUMED
        notes.append(UNPLACED)
    if row is not None:
        return row, row.spec, notes
    backbone: Any = replace(structure.backbone, norm=norm)
    return None, replace(structure, name=path.stem, backbone=backbone), notes


def _config(path: Path, checkpoint: Checkpoint, told: Mapping[str, Config]) -> tuple[Config, dict[str, str]]:
    """What is said of a model by its file's name, its configuration and others; and by whom each field."""
    own = read_config(checkpoint.config) if checkpoint.config else Config()
    config, told_by = Config(), {}
    layers = {"name": named_config(path.name), "configuration": own or Config(notes=(UNPARSED,)), **told}
    for who, layer in layers.items():
        config = config.overruled_by(layer)
        told_by |= dict.fromkeys(layer.said(), who)
    return config, told_by


def _unfitting(spec: ModelSpec, config: Config, shapes: Shapes, version_1: bool) -> Iterator[str]:
    """What its configuration says that does not fit its tensors, or the models here of its version."""
    points = {*(config.sampling or ())}
    if len(points) > 1 or (version_1 and 0 in points):
        yield from (f"sampling_ratio={own:g} of its roi_layer" for own in points)
    anchors = shapes.get("rpn_head.rpn_cls.weight", (0,))[0]
    expected = len(spec.rpn.anchor_ratios) * len(spec.rpn.anchor_scales)
    if anchors not in (0, expected):
        yield f"{anchors} anchors at every place, where {expected} are expected (--config says which)"
    if spec.cascade and config.stds and len(config.stds) not in (1, stages := len(spec.cascade.ious)):
        yield f"{len(config.stds)} box heads are written for {stages} stages"


def _refuse(path: Path, wrong: Iterable[str]) -> None:
    """Raises for what its configuration or its tensors have and no model of ours does."""
    if parts := list(wrong):
        words = one_line(listed(parts, 4, "; "), 180)
        raise GCNetError(f"{path} cannot be read, because it has what no model here has: {words}")


def _held_to(path: Path, row: Row, as_said: ModelSpec) -> list[str]:
    """A note on what the model of a row has in place of what its file says.

    Raises GCNetError if the file says that it holds a model that computes otherwise.
    """
    if others := _others(COMPUTES, row.spec, as_said):
        raise GCNetError(
            f"{path} says that it is no {row.name}: other {others}; give the file without the name of a model"
        )
    others = _others(TESTS, row.spec, as_said)
    return [f"as {row.name}, and not as it says: {others}"] if others else []


def _others(settings: Mapping[str, Callable[[ModelSpec], object]], one: ModelSpec, other: ModelSpec) -> str:
    """The names of the settings in which two models differ."""
    return ", ".join(name for name, read in settings.items() if read(one) != read(other))


def _named(path: Path, rows: Sequence[Row]) -> Row | None:
    """The row with the longest name, ours or mmdetection's, that is part of the file's name."""
    found = [
        (len(name), row)
        for row in rows
        for name in (row.name, *row.upstream)
        if re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z0-9]|_gc|_dcn|_syncbn|_4conv)", path.name)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _counted_norm(tensors: Mapping[str, Tensor]) -> Norm | None:
    """A norm that is trained counts its batches; one with frozen statistics stays where ImageNet left it."""
    counts = [
        int(tensor)
        for name, tensor in tensors.items()
        if re.match(r"backbone\.layer[234]\..*num_batches_tracked$", name)
        and tensor.numel() == 1
        and tensor.isfinite().all()
    ]
    if not counts:
        return None
    return "sync" if max(counts) > 0 else "frozen_stats"


def _class_names(
    path: Path,
    checkpoint: Checkpoint,
    count: int,
    given: Sequence[str] | None,
    fallback: tuple[str, ...] | None,
) -> tuple[tuple[str, ...], str]:
    """The class names, and their source."""
    if given is not None:
        if len(given) != count:
            raise GCNetError(f"{path} knows {count} classes, but {len(given)} class names were given")
        return tuple(given), "option"
    if checkpoint.class_names is not None and len(checkpoint.class_names) == count:
        return checkpoint.class_names, "file"
    if count == len(COCO_CLASSES) and not checkpoint.class_names:
        return COCO_CLASSES, ASSUMED
    if fallback is not None:
        return fallback, ASSUMED
    said = f"names {len(checkpoint.class_names)}" if checkpoint.class_names else "does not name them"
    raise GCNetError(
        f"{path} knows {count} classes but {said}: say what they are, in the order of its labels, with "
        f"`gcnet convert {path} OUT.safetensors --class-names NAME ...`"
    )
