"""How detectors and classifiers predict a batch, and what is kept of each image.

H x W images, RGB uint8.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from gcnet.console import one_line
from gcnet.deploy.runtime import own_batch
from gcnet.errors import GCNetError
from gcnet.evaluation.results import ImageResults
from gcnet.files import DiskFullError
from gcnet.models.views import Views
from gcnet.ops.images import together
from gcnet.prediction.beside import Beside
from gcnet.prediction.stream import Done
from gcnet.viz.canvas import at_most
from gcnet.viz.sheet import sheet

SHOWN, COLUMNS = 40, 5  # images on a classifier's sheet, and in one of its rows
THUMBNAIL = 240  # pixels of an image's long side on the sheet
CAPTION = 27  # characters that fit over it


@runtime_checkable
class DetectorLike(Protocol):
    """A `Detector`, or an `ExportedDetector`: PyTorch is not needed here."""

    @property
    def spec(self) -> Any:
        """An object with the `name` of the model and its `class_names`."""
        ...

    def prepare(self, image: Any) -> Any:
        """An image in the form that `predict` takes."""
        ...

    def predict(self, batch: Any, /, *, score_threshold: float) -> Sequence[Any]:
        """The detections in each image of a batch: `Detections` or `Found`."""
        ...


def through_views(model: Any, views: Views, batch_size: int) -> tuple[Any, int]:
    """The model for these views of an image, and how many images it is given at a time.

    An export takes as many as it was made for; of several views, so many are predicted together.
    """
    batch_size = own_batch(model) or batch_size
    return (model, batch_size) if views.plain else (views.through(model, batch_size), 1)


@dataclass(frozen=True)
class Detect:
    """Finds objects, and writes files about each image."""

    detector: DetectorLike
    paths: Sequence[str]
    score_threshold: float
    beside: Beside | None = None

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        return self.detector.prepare(image)

    def frame(self, prepared: Any) -> Hashable:
        return tuple(prepared.images.shape)

    def predict(self, prepared: Sequence[Any]) -> Sequence[Any]:
        found = self.detector.predict(together(prepared), score_threshold=self.score_threshold)
        on_cpu = (one.on_cpu() for one in found)
        return [one[one.scores > self.score_threshold] for one in on_cpu]  # soft NMS may lower scores

    def finish(self, index: int, image: UInt8[np.ndarray, "H W 3"], result: Any) -> Done:
        found = result.arrays()
        results = ImageResults.of(found, index, range(len(self.detector.spec.class_names)))
        height, width = found.image_size
        entry = self._entry(index) | {"height": height, "width": width, "detections": len(found)}
        failure = unwritten = None
        try:
            entry |= self.beside.write(index, image, found, results) if self.beside else {}
        except DiskFullError as error:  # results are more important than drawings
            failure = error
        except GCNetError as error:  # a name that is too long, an image that is too wide for a JPEG
            unwritten = error
        return Done(index, entry, results.as_json(), result, failure, unwritten)

    def failed(self, index: int, error: GCNetError) -> Done:
        return Done(index, self._entry(index) | {"error": str(error)})

    def wants(self, index: int) -> bool:
        """Whether an image is needed though what is in it is known."""
        return False

    def sheet(self) -> None:
        """There is none of a detector."""

    def _entry(self, index: int) -> dict[str, Any]:
        return {"id": index, "file_name": self.paths[index]}


@dataclass(frozen=True)
class Classify:
    """Finds the most probable classes, and keeps the first images for a sheet."""

    classifier: Any
    paths: Sequence[str]
    top: int
    with_sheet: bool
    shown: dict[int, tuple[np.ndarray, str]] = field(default_factory=dict)  # threads finish in any order

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        return self.classifier.prepare(image)

    def frame(self, prepared: Any) -> Hashable:
        return None  # all are squares of one size

    def predict(self, prepared: Sequence[Any]) -> Sequence[Any]:
        return self.classifier.classify(together(prepared), top=self.top)

    def finish(self, index: int, image: UInt8[np.ndarray, "H W 3"], result: Any) -> Done:
        best = [round(p, 5) for p in result.probabilities.tolist()]
        if self.with_sheet and len(self.shown) < SHOWN:
            lines = (PurePosixPath(self.paths[index]).name, f"{result.names[0]} {best[0]:.2f}")
            caption = "\n".join(one_line(line, CAPTION) for line in lines)
            self.shown[index] = at_most(image, THUMBNAIL), caption
        entry = {"file_name": self.paths[index], "predicted": list(result.names), "probabilities": best}
        return Done(index, entry, result=result)

    def failed(self, index: int, error: GCNetError) -> Done:
        return Done(index, {"file_name": self.paths[index], "error": str(error)})

    def wants(self, index: int) -> bool:
        """Whether an image is needed for the sheet though its classes are known."""
        return self.with_sheet and index < SHOWN

    def sheet(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """The first images with their classes; None if there are none."""
        if not self.shown:
            return None
        images, captions = zip(*(self.shown[index] for index in sorted(self.shown)), strict=True)
        return sheet(images, captions, columns=COLUMNS, cell=THUMBNAIL)
