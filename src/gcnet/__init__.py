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

_NAMES = {
    "gcnet.api.evaluate": ("compare", "evaluate"),
    "gcnet.api.export": ("export",),
    "gcnet.api.predict": ("predict", "predict_dataset"),
    "gcnet.api.train": ("train",),
    "gcnet.context": ("GlobalContext", "record"),
    "gcnet.data.dataset": ("DataSet",),
    "gcnet.data.image_folder": ("ImageFolder", "load_image_folders"),
    "gcnet.data.load": ("load_splits",),
    "gcnet.data.readers.coco": ("CocoDataset",),
    "gcnet.errors": ("GCNetError",),
    "gcnet.models.classifier": ("Classifier",),
    "gcnet.models.detector": ("Detector",),
    "gcnet.models.spec": ("ClassifierSpec", "ModelSpec"),
    "gcnet.recipe": ("ClassificationRecipe", "Recipe"),
    "gcnet.types": ("Batch", "Classification", "Detections", "Targets"),
    "gcnet.viz.objects": ("draw_detections",),
    "gcnet.weights.catalog": ("list_models",),
    "gcnet.weights.create": ("create_model",),
    "gcnet.weights.files": ("save_model",),
    "gcnet.weights.load": ("load_model",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

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
