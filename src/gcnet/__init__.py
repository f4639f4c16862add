"""Mask R-CNN with global context blocks (GCNet, arXiv 1904.11492 and 2012.13375) on today's PyTorch.

The names below are the public API. They are imported on first use (PEP 562): `import gcnet` costs
nothing, and `from gcnet.context import GlobalContext` loads torch and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gcnet.version import __version__

if TYPE_CHECKING:
    from gcnet.api.evaluate import compare, evaluate
    from gcnet.api.export import export
    from gcnet.api.predict import predict, predict_dataset
    from gcnet.api.train import train
    from gcnet.context import GlobalContext, record
    from gcnet.data.dataset import DataSet
    from gcnet.data.image_folder import ImageFolder, load_image_folders
    from gcnet.data.load import load_splits
    from gcnet.data.readers.coco import CocoDataset
    from gcnet.errors import GCNetError
    from gcnet.models.classifier import Classifier
    from gcnet.models.detector import Detector
    from gcnet.models.spec import ClassifierSpec, ModelSpec
    from gcnet.recipe import ClassificationRecipe, Recipe
    from gcnet.types import Batch, Classification, Detections, Targets
    from gcnet.viz.objects import draw_detections
    from gcnet.weights.catalog import list_models
    from gcnet.weights.create import create_model
    from gcnet.weights.files import save_model
    from gcnet.weights.load import load_model

_HOME = {
    "Batch": "gcnet.types",
    "Classification": "gcnet.types",
    "ClassificationRecipe": "gcnet.recipe",
    "Classifier": "gcnet.models.classifier",
    "ClassifierSpec": "gcnet.models.spec",
    "CocoDataset": "gcnet.data.readers.coco",
    "DataSet": "gcnet.data.dataset",
    "Detections": "gcnet.types",
    "Detector": "gcnet.models.detector",
    "GCNetError": "gcnet.errors",
    "GlobalContext": "gcnet.context",
    "ImageFolder": "gcnet.data.image_folder",
    "ModelSpec": "gcnet.models.spec",
    "Recipe": "gcnet.recipe",
    "Targets": "gcnet.types",
    "compare": "gcnet.api.evaluate",
    "create_model": "gcnet.weights.create",
    "draw_detections": "gcnet.viz.objects",
    "evaluate": "gcnet.api.evaluate",
    "export": "gcnet.api.export",
    "list_models": "gcnet.weights.catalog",
    "load_image_folders": "gcnet.data.image_folder",
    "load_model": "gcnet.weights.load",
    "load_splits": "gcnet.data.load",
    "predict": "gcnet.api.predict",
    "predict_dataset": "gcnet.api.predict",
    "record": "gcnet.context",
    "save_model": "gcnet.weights.files",
    "train": "gcnet.api.train",
}

__all__ = [
    "Batch",
    "Classification",
    "ClassificationRecipe",
    "Classifier",
    "ClassifierSpec",
    "CocoDataset",
    "DataSet",
    "Detections",
    "Detector",
    "GCNetError",
    "GlobalContext",
    "ImageFolder",
    "ModelSpec",
    "Recipe",
    "Targets",
    "__version__",
    "compare",
    "create_model",
    "draw_detections",
    "evaluate",
    "export",
    "list_models",
    "load_image_folders",
    "load_model",
    "load_splits",
    "predict",
    "predict_dataset",
    "record",
    "save_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gcnet' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
