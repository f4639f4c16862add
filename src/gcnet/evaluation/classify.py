"""A classifier over a whole picture set, scored; for `gcnet eval` and for validation in training alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gcnet.console import progress_bar
from gcnet.data.dataset import DataSet, LabelledImage
from gcnet.data.image_loader import image_eval_loader
from gcnet.errors import GCNetError
from gcnet.evaluation.evaluate import check_classes, evaluation_in, write_results
from gcnet.journal import Journal
from gcnet.models.classifier import Classifier
from gcnet.models.modes import in_eval_mode

TOP = 5


@dataclass(frozen=True)
class ClassMetrics:
    """How often a classifier is right.

    Attributes:
        top1: the share of pictures whose class is the most probable one.
        top5: the share of pictures whose class is among the five most probable.
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


def evaluate_classifier(
    classifier: Classifier,
    dataset: DataSet[LabelledImage],
    *,
    batch_size: int = 1,
    workers: int = 2,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[ClassMetrics, list[dict[str, Any]]]:
    """Metrics of `classifier` on every picture of `dataset`, and what it says of each.

    Runs on the classifier's device. A result has the
    picture's `file_name` and `class`, the five most probable classes as `predicted` and their
    `probabilities`. With `out`, `results.json` and `metrics.json` are written there, see `evaluation_in`.

    Raises GCNetError if the classes of model and pictures differ, a picture cannot be read or `out` cannot be
    written.
    """
    check_classes(classifier.spec.class_names, dataset.class_names)
    with evaluation_in(out, classifier, dataset) as journal:
        found = classify_all(
            classifier,
            dataset,
            range(len(dataset)),
            batch_size=batch_size,
            workers=workers,
            progress=progress,
            journal=journal,
        )
        metrics, results = score_classes(dataset, found)
        if out is not None:
            write_results(out, metrics, results)
    return metrics, results


def class_metrics(
    results: Sequence[dict[str, Any]], losses: Sequence[float], class_names: Sequence[str]
) -> ClassMetrics:
    """The metrics of results as `evaluate_classifier` makes them."""
    pairs = [(result["class"], result["predicted"][0]) for result in results]
    per_class: dict[str, dict[str, Any]] = {}
    for name in class_names:
        said = [best for true, best in pairs if true == name]
        wrong = Counter(best for best in said if best != name).most_common(1)
        share = said.count(name) / len(said) if said else 0.0
        taken_for = wrong[0][0] if wrong else None
        per_class[name] = {"images": len(said), "top1": share, "taken_for": taken_for}
    count = max(len(results), 1)
    top1 = sum(true == best for true, best in pairs) / count
    top5 = sum(result["class"] in result["predicted"] for result in results) / count
    return ClassMetrics(top1, top5, sum(losses) / count, per_class, len(results))


def print_class_metrics(metrics: ClassMetrics, console: Console | None = None) -> None:
    """Prints the overall line and the table by class."""
    console = console or Console()
    top5 = f"top-5 {metrics.top5:.3f}, " if len(metrics.per_class) > TOP else ""  # else it is 1
    console.print(
        f"{metrics.images} images: top-1 {metrics.top1:.3f}, {top5}cross-entropy {metrics.loss:.3f}",
        highlight=False,
    )
    table = Table(title="by class", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", max_width=32, no_wrap=True, overflow="ellipsis")
    table.add_column("images", justify="right")
    table.add_column("top-1", justify="right")
    table.add_column("most often taken for", max_width=32, no_wrap=True, overflow="ellipsis")
    for name, values in metrics.per_class.items():
        taken_for = Text(values["taken_for"] or "")
        table.add_row(Text(name), str(values["images"]), f"{values['top1']:.3f}", taken_for)
    console.print(table)


def score_classes(
    dataset: DataSet[LabelledImage], found: Sequence[tuple[dict[str, Any], float]]
) -> tuple[ClassMetrics, list[dict[str, Any]]]:
    """The metrics of what `classify_all` gives, and its results without the losses."""
    results, losses = [result for result, _ in found], [loss for _, loss in found]
    return class_metrics(results, losses, dataset.class_names), results


def classify_all(
    classifier: Classifier,
    dataset: DataSet[LabelledImage],
    indices: Sequence[int],
    *,
    batch_size: int = 1,
    workers: int = 2,
    progress: bool = True,
    journal: Journal | None = None,
) -> list[tuple[dict[str, Any], float]]:
    """What `classifier` says of the images `indices` of `dataset`, and the cross-entropy of each.

    With a `journal`, images that are in it are not looked at again, and the others are put there.
    """
    classifier, spec = in_eval_mode(classifier), classifier.spec
    done = {} if journal is None else journal.done
    found = {int(key): (result, loss) for key, (result, loss) in done.items()}
    left = [index for index in indices if index not in found]
    batches = [left[start : start + batch_size] for start in range(0, len(left), batch_size)]
    loader = image_eval_loader(dataset, batches, image_size=spec.image_size, workers=workers)
    with torch.inference_mode(), progress_bar(disable=not progress) as bar:
        task = bar.add_task("evaluating", total=len(indices), completed=len(indices) - len(left))
        for batch in loader:
            probabilities = classifier.predict(batch.to(classifier.mean.device)).cpu()
            if not probabilities.isfinite().all():
                raise GCNetError(f"{spec.name} predicts NaN: its weights are not usable; train it anew")
            for index, row in zip(batch.image_ids, probabilities, strict=True):
                label = dataset.records[index].label
                best, labels = row.topk(min(TOP, len(row)))
                result = {
                    "file_name": dataset.name(index),
                    "class": spec.class_names[label],
                    "predicted": [spec.class_names[k] for k in labels.tolist()],
                    "probabilities": [round(p, 5) for p in best.tolist()],
                }
                found[int(index)] = result, -float(row[label].clamp_min(1e-12).log())
                if journal is not None:
                    journal.add(str(index), found[int(index)])
            bar.advance(task, len(batch))
    return [found[index] for index in indices]
