"""The results of a classifier on images, and its accuracy. K classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.errors import GCNetError

TOP = 5


@dataclass(frozen=True)
class ClassMetrics:
    """The accuracy of a classifier.

    Attributes:
        top1: the share of images whose class is the most probable one.
        top5: the share of images whose class is among the five most probable.
        loss: the mean cross-entropy, in nats.
        per_class: by name: `images`, `top1` among them, and the class that they are most often `taken_for`,
            none if they never are.
        images: how many were scored.
    """

    top1: float
    top5: float
    loss: float
    per_class: dict[str, dict[str, Any]]
    images: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ClassResult:
    """The result of a classifier on an image.

    `entry` has the image's `file_name` and `class`, the five most probable classes as `predicted` and their
    `probabilities`; `loss` is the cross-entropy, in nats.
    """

    entry: dict[str, Any]
    loss: float

    @classmethod
    def of(
        cls, dataset: DataSet[LabelledImage], index: int, probabilities: Float[Tensor, " K"]
    ) -> ClassResult:
        """The result of image `index`. Raises GCNetError for NaN."""
        if not probabilities.isfinite().all():
            raise GCNetError("the model predicts NaN: its weights are not usable; train it anew")
        label, names = dataset.records[index].label, dataset.class_names
        best, labels = probabilities.topk(min(TOP, len(probabilities)))
        entry = {
            "file_name": dataset.name(index),
            "class": names[label],
            "predicted": [names[k] for k in labels.tolist()],
            "probabilities": [round(p, 5) for p in best.tolist()],
        }
        return cls(entry, -float(probabilities[label].clamp_min(1e-12).log()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ClassResult:
        """The inverse of `as_json`."""
        return cls(value["entry"], value["loss"])

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {"entry": self.entry, "loss": self.loss}


def class_metrics(found: Sequence[ClassResult], class_names: Sequence[str]) -> ClassMetrics:
    """The metrics of a classifier's results on images of these classes."""
    results, losses = [one.entry for one in found], [one.loss for one in found]
    answers: dict[str, list[str]] = {name: [] for name in class_names}
    for result in results:
        answers[result["class"]].append(result["predicted"][0])
    per_class: dict[str, dict[str, Any]] = {}
    for name, said in answers.items():
        wrong = Counter(best for best in said if best != name).most_common(1)
        share = said.count(name) / len(said) if said else 0.0
        taken_for = wrong[0][0] if wrong else None
        per_class[name] = {"images": len(said), "top1": share, "taken_for": taken_for}
    count = max(len(results), 1)
    top1 = sum(said.count(name) for name, said in answers.items()) / count
    top5 = sum(result["class"] in result["predicted"] for result in results) / count
    return ClassMetrics(top1, top5, sum(losses) / count, per_class, len(results))
