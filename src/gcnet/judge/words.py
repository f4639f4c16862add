"""The findings of a report in sentences, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcnet.viz.page import Line

FEW = 30  # images: with fewer, intervals say little
GAIN = 0.01  # of AP50, that is worth a sentence
BACKGROUND = "(background)"  # in a confusion matrix
OFF = 0.1  # calibration error that is worth one

SAYS = {
    "class": "the place is right, the class is not",
    "box": "the class is right, the box is off (IoU 0.1 to 0.5)",
    "both": "the class is wrong and the box is off",
    "duplicate": "the object is found already",
    "background": "nothing is annotated there",
    "missed": "an object that is not found",
}
ADVICE = {
    "class": "more images of the classes that are taken for each other, or a look at their labels",
    "box": "a larger --image-size, longer training, or a look at how tightly objects are outlined",
    "both": "longer training",
    "duplicate": "a higher score threshold",
    "background": "images without objects (--keep-empty), and a look at objects that nobody annotated",
    "missed": "more images, or a larger --image-size if they are small",
}


def findings(report: Mapping[str, Any]) -> list[Line]:
    """The findings, the most important first."""
    lines: list[Line] = []
    if count := len(report["also_trained_on"] or ()):
        lines.append(("fix", f"{count} of the images are in the training split too: figures are too good."))
    if (count := report["images"]) < FEW:
        lines.append(("look", f"Only {count} images: intervals are wide, and should be wider still."))
    lines += _of_a_detector(report) if "errors" in report else _of_a_classifier(report)
    error = report["calibration"]["error"]
    if error is not None and error < OFF:
        lines.append(("good", "Scores can be read as probabilities of being right."))
    return lines


def _of_a_detector(report: Mapping[str, Any]) -> Iterator[Line]:
    gained = {name: one["AP50_gain"] for name, one in report["errors"]["box"].items()}
    worst = max(gained, key=lambda name: gained[name])
    if gained[worst] >= GAIN:
        text = f"Most is lost by errors of the kind {worst} ({SAYS[worst]}): box AP50 would rise by "
        yield "look", f"{text}{gained[worst]:.3f}. Try {ADVICE[worst]}."
    if count := len(report["suspects"]):
        yield "look", f"{count} sure detections contradict the ground truth: see which is wrong."
    if best := report["best"]:
        text = f"From score {best['score']:.2f} on, {best['precision']:.0%} of what is found is right and "
        yield "note", f"{text}{best['recall']:.0%} of the objects are found."
    elif report["objects"]:
        yield "fix", f"None of {report['objects']:,} objects is found, at any score (IoU 0.5)."


def _of_a_classifier(report: Mapping[str, Any]) -> Iterator[Line]:
    if count := sum(one["suspect"] for one in report["mistakes"]):
        yield "look", f"{count} mistakes are as sure as right answers are: see if a label is wrong."


def confused(confusion: Mapping[str, Any]) -> list[str]:
    """The five pairs of classes that are most often taken for each other, in words."""
    names = [name for name in confusion["names"] if name != BACKGROUND]
    pairs = [
        (count, names[row], names[column])
        for row, counts in enumerate(confusion["table"][: len(names)])
        for column, count in enumerate(counts[: len(names)])
        if row != column and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return [f"{own} taken for {other} ({count})" for count, own, other in pairs[:5]]
