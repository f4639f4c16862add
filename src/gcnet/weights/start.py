"""Models ready for work: on their device for inference, or with weights and classes to begin a training.

No torch here: mistakes in the words come before slow imports.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.context_spec import STAGES, ContextSpec
from gcnet.device import choose_device, keep_freed_memory
from gcnet.errors import GCNetError
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.weights.catalog import ClassifierRow, Row, find
from gcnet.weights.fetch import Source, find_place, find_source, find_weights

if TYPE_CHECKING:
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector
    from gcnet.weights.create import Start

    AnyPath = str | os.PathLike[str]

WORDS = ("auto", "coco", "imagenet")  # for the weights of a name; other words are files


def load_trained(source: Source, device: str, mirrors: Sequence[str] = ()) -> Detector | Classifier:
    """The model that `find_source` found for `MODEL --weights W`, in eval mode on the device of --device.

    Downloads come before slow imports, so that a missing connection is reported at once.
    """
    file = source.fetch(mirrors)
    first = "torch" not in sys.modules
    if first:
        gc.disable()  # imports make a million objects to keep; to look for garbage is a seventh of their time
    from gcnet.weights.load import read_model

    if first:
        gc.freeze()
        gc.enable()
    device = choose_device(device)
    if device == "cpu":
        keep_freed_memory()  # a command makes the same maps for each image
    trained = read_model(file, source.row)
    try:
        return trained.to(device)
    except (RuntimeError, AssertionError) as error:
        raise GCNetError(f"--device {device}: {str(error).partition(chr(10))[0]}") from error


@dataclass(frozen=True)
class Origin:
    """What a training starts from: a row of the catalog with `weights`, or a model that is at hand.

    `file` is where such a model was read; one without it is the caller's, and is trained as it is.
    """

    held: Row | ClassifierRow | Detector | Classifier
    weights: str | None
    mirrors: Sequence[str]
    file: str | None
    backbone: Path | None
    context: ContextSpec | None
    remove_context: bool

    @property
    def spec(self) -> ModelSpec | ClassifierSpec:
        """The model's, with classes and blocks as they were."""
        return self.held.spec

    def make(self, class_names: Sequence[str], seed: int, *, trained: bool = True) -> Start:
        """The model for these classes; with random weights if not `trained`, where a checkpoint follows."""
        import torch

        from gcnet.weights.create import Start, start_model, start_with
        from gcnet.weights.load import with_context

        if isinstance(self.held, Row | ClassifierRow):
            torch.manual_seed(seed)
            weights, backbone = (self.weights, self.backbone) if trained else (None, None)
            start = start_model(self.held, weights, class_names, mirrors=self.mirrors, backbone=backbone)
            recorded = "auto" if self.backbone else start.weights
        elif self.file:
            torch.manual_seed(seed)
            start = start_with(self.held, class_names, label=self.file)
            recorded = "auto"
        else:
            return Start(self.held, None, ())
        model, report = start.model, start.report
        if self.context or self.remove_context:
            before = model.spec.name
            model = with_context(model, None) if self.remove_context else model
            line = f"context blocks: those of {before} are taken out"
            if self.context:
                model = with_context(model, self.context)
                stages = ", ".join(name for name, has in zip(STAGES, self.context.stages, strict=True) if has)
                block = self.context.block
                line = f"context blocks: {block} in {stages}, the identity until they are trained"
            report = (*report, line)
        return Start(model, recorded, report)


def find_origin(
    model: Any,
    weights: AnyPath | None,
    mirrors: Sequence[str],
    *,
    backbone_weights: AnyPath | None = None,
    context: ContextSpec | None = None,
    remove_context: bool = False,
    resume: bool = False,
) -> Origin:
    """What `gcnet.train` is asked to start from; its arguments are explained there.

    A model in a file is read. Weights of a name are only found, and not even that where a run is resumed.

    Raises:
        GCNetError: something is not there, cannot be read, or does not go with the rest.
    """
    file = find_file(model, weights)
    if backbone_weights is not None:
        if weights != "auto" or not isinstance(model, str | os.PathLike) or file is not None:
            raise GCNetError("--backbone-weights are for a model by name, in place of its --weights")
        if not Path(backbone_weights).is_file():
            raise GCNetError(f"--backbone-weights: no such file: {backbone_weights}")
    if file is not None:
        held = load_trained(file, "cpu", mirrors)
    else:
        held = find(os.fspath(model)) if isinstance(model, str | os.PathLike) else model
    if weights in (None, "none") or resume:  # a run that goes on has them in its checkpoint
        chosen = None
    else:
        word = os.fspath(weights)
        chosen = word if file is not None or word in WORDS else str(find_weights(word))
    return Origin(
        held,
        chosen,
        mirrors,
        None if file is None else str(file.place),
        None if backbone_weights is None else Path(backbone_weights),
        context,
        remove_context,
    )


def find_file(model: Any, weights: AnyPath | None = "auto") -> Source | None:
    """The file, run folder or repository that a training starts from; None for a catalog name or a model."""
    if not isinstance(model, str | os.PathLike) or not find_place(os.fspath(model)):
        return None
    return find_source(os.fspath(model), None if weights in (None, "auto") else os.fspath(weights))
