"""Loads models for inference on their device, and finds what a training starts from.

This does not import torch, so that mistakes in arguments are reported before slow imports.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gcnet.context_spec import ContextSpec, check_change
from gcnet.device import choose_device, keep_freed_memory
from gcnet.errors import GCNetError
from gcnet.files import AnyPath
from gcnet.weights.catalog import ClassifierRow, Row, find
from gcnet.weights.fetch import Source, find_place, find_source, find_weights

if TYPE_CHECKING:
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector

    AnyModel = AnyPath | Detector | Classifier


@dataclass(frozen=True)
class Origin:
    """What a training starts from, as `find_start` finds it.

    Attributes:
        held: a row, the model that was in `file`, or a caller's.
        mirrors: where else to look for files that have to be fetched.
        weights: of a row, as for `create_model`, or "none", or "auto": the published ones of the row, where
            they cannot be had ImageNet's for the backbone, and none where neither is published.
        backbone: a file with a ResNet, or the network that the row has from a library, in place of `weights`.
        context: blocks to add to a model that has none; `remove_context` takes out those that it has. A
            caller's stay.
    """

    held: Row | ClassifierRow | Detector | Classifier
    weights: AnyPath | None = "auto"
    mirrors: Sequence[str] = ()
    file: str | None = None
    backbone: AnyPath | None = None
    context: ContextSpec | None = None
    remove_context: bool = False


WORDS = (None, "none", "auto", "coco", "imagenet")  # for the weights of a name; others are files


def load_trained(source: Source, device: str, mirrors: Sequence[str] = ()) -> Detector | Classifier:
    """The model that `find_source` found for `MODEL --weights W`, in eval mode on the device of --device.

    Downloads come before slow imports, so that a missing connection is reported at once.
    """
    file = source.fetch(mirrors)
    first = "torch" not in sys.modules
    if first:
        gc.disable()  # imports create a million lasting objects; collection takes a seventh of the time
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


def find_start(
    model: AnyModel,
    weights: AnyPath | None,
    mirrors: Sequence[str],
    backbone: AnyPath | None,
    context: ContextSpec | None = None,
    *,
    remove_context: bool = False,
) -> Origin:
    """What a training starts from; a model in a file has been read.

    Arguments are those of `gcnet.train`. Raises GCNetError for what is not there or does not go together.
    """
    held, file = _find_held(model, weights, mirrors, backbone)
    if (context or remove_context) and held is model:
        raise GCNetError(
            "a model in memory is trained in place, with the context blocks that it has: give a name or a "
            "file to have others"
        )
    has = held.spec.backbone.context
    if remove_context:
        check_change(held.spec.name, has, None)
    if context:
        check_change(held.spec.name, None if remove_context else has, context)
    return Origin(held, weights, mirrors, file, backbone, context, remove_context)


def _find_held(
    model: AnyModel, weights: AnyPath | None, mirrors: Sequence[str], backbone: AnyPath | None
) -> tuple[Row | ClassifierRow | Detector | Classifier, str | None]:
    file = find_file(model, weights)
    if backbone is not None:
        if weights != "auto" or not isinstance(model, str | os.PathLike) or file is not None:
            raise GCNetError("--backbone-weights are for a model by name, in place of its --weights")
        if not Path(backbone).is_file():
            raise GCNetError(f"--backbone-weights: no such file: {backbone}")
    if file is not None:
        return load_trained(file, "cpu", mirrors), str(file.place)
    if not isinstance(model, str | os.PathLike):
        if weights not in (None, "auto"):
            raise GCNetError("weights are for a model that is given by its name; this one has its own")
        return model, None
    if weights not in WORDS:
        find_weights(weights)
    return find(os.fspath(model)), None


def find_file(model: AnyModel, weights: AnyPath | None = "auto") -> Source | None:
    """The file, run folder or repository that a training starts from; None for a catalog name or a model."""
    if not isinstance(model, str | os.PathLike) or not find_place(model):
        return None
    return find_source(model, None if weights == "auto" else weights)
