"""Top-1, top-5 and the table by class."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gcnet.evaluation.classify import ClassResult, class_metrics
from gcnet.evaluation.table import print_metrics

NAMES = ("ant", "bee", "cow", "dog", "elk", "fox")


def result(loss: float, true: str, *predicted: str) -> ClassResult:
    entry = {"file_name": "x", "class": true, "predicted": list(predicted), "probabilities": []}
    return ClassResult(entry, loss)


def test_shares() -> None:
    results = [
        result(0.1, "ant", "ant", "bee", "cow", "dog", "elk"),
        result(0.7, "ant", "bee", "ant", "cow", "dog", "elk"),
        result(2.0, "ant", "bee", "cow", "fox", "dog", "elk"),
        result(0.2, "bee", "bee", "ant", "cow", "dog", "elk"),
    ]
    metrics = class_metrics(results, NAMES)
    assert (metrics.top1, metrics.top5, metrics.images) == (0.5, 0.75, 4)
    assert metrics.loss == pytest.approx(0.75)
    assert metrics.per_class["ant"] == {"images": 3, "top1": pytest.approx(1 / 3), "taken_for": "bee"}
    assert metrics.per_class["bee"] == {"images": 1, "top1": 1.0, "taken_for": None}
    assert metrics.per_class["fox"]["images"] == 0

    console = Console(file=io.StringIO(), width=80)
    print_metrics(metrics, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "4 images: top-1 0.500, top-5 0.750, cross-entropy 0.750" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_classes_with_brackets_are_shown_as_they_are() -> None:
    names = ("nut [/m8]", "[red]")
    stream = io.StringIO()
    print_metrics(class_metrics([result(0.1, *names)], names), Console(file=stream, width=80))
    assert stream.getvalue().count("[red]") == 2  # its own row, and what the other is taken for
    assert "nut [/m8]" in stream.getvalue()
