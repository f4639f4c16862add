"""A model in the service: many threads prepare images, one runs batches, and results are made into JSON.

N images of H x W pixels, h x w map of a context block.
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gcnet.api.choices import SHOW_FROM, shown_from
from gcnet.context.look import attention_pools, block_titles, record
from gcnet.deploy.runtime import Exported, ExportedClassifier
from gcnet.found import Classified, Found
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ModelSpec
from gcnet.ops.images import together
from gcnet.types import Batch, Classification

WARM = (480, 640)  # height and width of the image that a service begins with
Model = Detector | Classifier | Exported


class Asked(NamedTuple):
    """A prepared image, with the score threshold or number of classes of its request."""

    prepared: Any
    limit: float


@dataclass(frozen=True)
class Served:
    """A model for inference.

    Attributes:
        model: a detector, optimised or not, a classifier, or an export.
        threshold: what a detector's scores must be above, where a request says nothing.
        plain: the same detector as papers draw it, where its blocks have attention maps.
    """

    model: Model
    threshold: float = SHOW_FROM
    plain: Detector | None = None

    @classmethod
    def of(cls, model: Model, threshold: float | None = None, **options: Any) -> Served:
        """The model, a detector optimised with `options` (see `Detector.optimize`).

        Without a threshold it is that of `gcnet predict`.
        """
        threshold = shown_from(model, threshold)
        if not isinstance(model, Detector):
            return cls(model, threshold)
        return cls(model.optimize(**options), threshold, model if attention_pools(model) else None)

    @property
    def is_classifier(self) -> bool:
        return isinstance(self.model, Classifier | ExportedClassifier)

    @property
    def has_masks(self) -> bool:
        spec = self.model.spec
        return isinstance(spec, ModelSpec) and spec.roi.masks

    @property
    def blocks(self) -> dict[str, str]:
        """Titles of the blocks that have attention maps, by the module names of their pools."""
        return block_titles(attention_pools(self.plain)) if self.plain is not None else {}

    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> tuple[Any, Hashable]:
        """The prepared image, and a key: images with equal keys can share a batch.

        They are padded to one size: what is found in an image does not depend on the others.
        """
        prepared = self.model.prepare(image)
        return prepared, prepared.images.shape if isinstance(prepared, Batch) else None

    def warm_up(self) -> None:
        """Predicts a blank image: slow first steps are done, and errors show at once."""
        size = None if isinstance(self.model, Detector | Classifier) else self.model.details.size
        prepared, _ = self.prepare(np.zeros((*(size or WARM), 3), np.uint8))
        self.predict([Asked(prepared, 1)])

    def predict(self, asked: Sequence[Asked]) -> list[Found] | list[Classification | Classified]:
        """The results for each of the images, whose keys are equal."""
        limits = [one.limit for one in asked]
        batch = together([one.prepared for one in asked])
        if isinstance(self.model, Classifier | ExportedClassifier):
            named = self.model.classify(batch, top=int(max(limits)))
            return [_first(one, int(top)) for one, top in zip(named, limits, strict=True)]
        found = self.model.predict(batch, score_threshold=min(limits))
        found = [one.on_cpu().arrays() for one in found]
        return [one[one.scores > limit] for one, limit in zip(found, limits, strict=True)]

    def attention(self, batches: Sequence[Batch]) -> list[dict[str, Any]]:
        """The attention maps of each block in the images: see `Attention` in `answers`."""
        assert self.plain is not None
        return [_attention(self.plain, batch, self.blocks) for batch in batches]


def _first(found: Any, top: int) -> Any:
    """The `top` most probable classes, in their own type."""
    return type(found)(found.labels[:top], found.probabilities[:top], found.names[:top])


@torch.no_grad()
def _attention(detector: Detector, batch: Batch, blocks: dict[str, str]) -> dict[str, Any]:
    height, width = batch.images.shape[2:]
    rows, columns = batch.image_sizes[0][0] / height, batch.image_sizes[0][1] / width
    middle = (columns / 2, rows / 2)  # of blocks whose attention depends on the query
    with record(detector, queries=[middle]) as maps:
        detector.features(batch)
    found = [(title, maps[name][0]) for name, title in blocks.items() if name in maps]
    pngs = [(title, _as_png(one if one.dim() == 2 else one[0])) for title, one in found]
    return {"maps": [{"block": title, "png": png} for title, png in pngs], "filled": [columns, rows]}


def _as_png(attention: Float[Tensor, "h w"]) -> str:
    """A map as a gray PNG in base64, whose 255 is the map's largest value, or four times its mean if more.

    So a map that looks everywhere alike stays dim, as in `gcnet.viz.attention_overlay`.
    """
    values = attention.clamp(min=0).numpy()
    peak = max(float(values.max()), 4 * float(values.mean()), 1e-12)
    _, data = cv2.imencode(".png", np.rint(values / peak * 255).clip(0, 255).astype(np.uint8))
    return base64.b64encode(data.data).decode()
