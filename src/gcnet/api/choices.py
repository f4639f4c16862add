"""How the calls of `gcnet.api` find the model and the data set that they are given."""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcnet.device import choose_device
from gcnet.errors import GCNetError, check_least
from gcnet.files import AnyPath, find_data
from gcnet.models.spec import ClassifierSpec, ModelSpec, Precision
from gcnet.models.views import Views
from gcnet.weights.fetch import Source, find_source
from gcnet.weights.start import load_trained

if TYPE_CHECKING:
    from gcnet.weights.start import AnyModel

log = logging.getLogger(__name__)

EXPORTS = (".onnx", ".xml")  # files of models that other runtimes run
SHOW_FROM = 0.5  # score threshold of drawing and writing, for models whose file has none


@dataclass
class ModelChoice:
    """A model and how it runs, with the arguments of `gcnet.predict`.

    The constructor finds the model's file, and reports mistakes before anything slow is imported. `source`
    is the file that was found; it is None for a model in memory and for an export.

    Raises:
        GCNetError: there is no such model, or an argument does not go with it.
    """

    model: Any
    weights: AnyPath | None = None
    mirror: Sequence[str] = ()
    device: str = "auto"
    precision: Precision = "fp32"
    compile: bool = False
    max_detections: int | None = None
    source: Source | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_least(1, max_detections=self.max_detections)
        if self.is_export:
            self._check_as_exported()
        elif isinstance(self.model, str | os.PathLike):
            self.source = find_source(self.model, self.weights)
        elif self.weights is not None:
            raise GCNetError("weights are for a model that is given by its name; this one has its own")

    @property
    def is_export(self) -> bool:
        """Whether it is a file that `gcnet export` wrote."""
        return isinstance(self.model, str | os.PathLike) and Path(self.model).suffix in EXPORTS

    def views(
        self, tile: int | None, overlap: float, flip: bool, scales: Sequence[float], batch_size: int
    ) -> Views:
        """How it looks at images. Raises GCNetError if it cannot look so, or take `batch_size` at a time."""
        check_least(1, batch_size=batch_size)
        if self.is_export and batch_size != 1:
            raise GCNetError(f"{self.model} runs as it was exported: leave out batch_size")
        views = Views.of(tile, overlap, flip, scales)
        if views.augmented:
            self.refuse_export("--flip and --scales")
        return views

    def refuse_export(self, command: str) -> None:
        """Raises GCNetError if the model is an export, for a `command` that needs its network."""
        if self.is_export:
            raise GCNetError(f"{self.model} is an export; give {command} the model that it was made of")

    def read(self) -> Any:
        """The model as its file holds it, on its device."""
        if self.is_export:
            from gcnet.deploy.runtime import load_export

            return load_export(os.fspath(self.model))
        if self.source is not None:
            model = load_trained(self.source, self.device, self.mirror)
        else:
            model: Any = self.model
            model = model if self.device == "auto" else model.to(choose_device(self.device))

        from gcnet.models.detector import Detector

        if isinstance(model, Detector) and self.max_detections is not None:
            model = copy.deepcopy(model) if model is self.model else model
            model.limit_detections(self.max_detections)
        return model

    def load(self) -> Any:
        """The model for inference. Detectors are optimised; one in memory only if an option asks for it."""
        model = self.read()
        if self.source is None and self.precision == "fp32" and not self.compile:  # as exports always are
            return model

        from gcnet.models.detector import Detector

        if not isinstance(model, Detector):
            return model
        return model.optimize(precision=self.precision, compiled=self.compile)

    def _check_as_exported(self) -> None:
        others = [one for one in fields(self) if one.name not in ("model", "mirror", "source")]
        given = [one.name for one in others if getattr(self, one.name) != one.default]
        if given:
            raise GCNetError(f"{self.model} runs as it was exported: leave out {', '.join(given)}")


def find_data_set(
    data: Any, annotations: AnyPath | None, images: AnyPath | None
) -> tuple[Path, Path | None] | None:
    """The paths of the data set and of its images; None if the data set is given in memory."""
    if data is None or isinstance(data, str | os.PathLike):
        return find_data(data, annotations, images)
    if annotations is not None or images is not None:
        raise GCNetError("annotations and images are for data in files; this data set has its own")
    return None


def held_split(data: Any, split: str) -> Any:
    """A data set in memory: the one that is given, or of several by name its `split`.

    Raises GCNetError for what is none, or if there is no such split.
    """
    if isinstance(data, Mapping):
        from gcnet.data.dataset import pick_split

        data = pick_split("the data", data, split)
    if not hasattr(data, "records"):
        raise GCNetError(f"data is a {type(data).__name__}; give a path, a data set, or a dict of its splits")
    return data


def read_split(
    model: "AnyModel",
    spec: ModelSpec | ClassifierSpec,
    place: tuple[Path, Path | None],
    split: str,
    division: Mapping[str, Any],
) -> Any:
    """A split with a model's classes. By default the data is divided as the model's own run divided it."""
    from gcnet.engine.runfolder import own_split
    from gcnet.engine.task import task_of

    root, folder = place
    file = division["split_file"]
    if not file and isinstance(model, str | os.PathLike):
        file = own_split(Path(model), root) or ""
    division = {**division, "split_file": os.fspath(file)}
    return task_of(spec).load_split(root, folder, split, spec.class_names, **division)


def shown_from(model: Any, given: float | None = None) -> float:
    """The score threshold for showing detections: the one `given`, else the model's own, else 0.5."""
    if given is not None:
        return given
    own = getattr(model, "provenance", {}).get("score_threshold")
    if not isinstance(own, float) or not 0 <= own <= 1:
        return SHOW_FROM
    log.warning("score threshold %.2f, which was best in validation (--score-threshold for another)", own)
    return own
