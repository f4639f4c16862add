"""`gcnet models` lists the models: size, published AP, and whether their weights are cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gcnet.commands.arguments import Parser
from gcnet.errors import GCNetError
from gcnet.weights.catalog import CLASSIFIERS, ROWS, ClassifierRow, Row
from gcnet.weights.fetch import find_cached, store


def run(argv: list[str]) -> int:
    """Prints the table, or everything known as JSON. It does not import torch, so that it is quick."""
    options = _parser().parse(argv)
    rows = matching_rows(options.words)
    if options.json:
        print(json.dumps([record(row) for row in rows], indent=2))
    else:
        print(table(rows, upstream=bool(options.words)))
    return 0


def _parser() -> Parser:
    parser = Parser("models", "[WORD...]", __doc__)
    words = "only models whose name, ours or mmdetection's, contains all words"
    parser.add_argument("words", nargs="*", metavar="WORD", help=words)
    parser.add_option("--json", bool, "print everything known about each model as JSON", False)
    return parser


def matching_rows(words: Sequence[str]) -> list[Row | ClassifierRow]:
    """The rows whose names, ours and mmdetection's together, contain all words; all rows without words.

    Raises:
        GCNetError: there are none.
    """
    rows = [
        row
        for row in (*ROWS, *CLASSIFIERS)
        if all(word.lower() in " ".join((row.name, *row.upstream)).lower() for word in words)
    ]
    if not rows:
        asked = " and ".join(repr(word) for word in words)
        raise GCNetError(f"no model has {asked} in its names; `gcnet models` lists all")
    return rows


def record(row: Row | ClassifierRow) -> dict[str, Any]:
    """A row as JSON; `weights.cached` is the path of its weights if they have been fetched."""
    values = asdict(row)
    spec, recipe, weights = values.pop("spec"), values.pop("recipe"), values.pop("weights")
    if row.weights:
        cached = find_cached(row.weights)
        weights |= {"file": row.weights.file, "cached": str(cached) if cached else None}
    return {"name": row.name, **values, "weights": weights, "spec": spec, "recipe": recipe}


def table(rows: Sequence[Row | ClassifierRow], *, upstream: bool = False) -> str:
    """Lines of at most 100 characters, but for the `upstream` names below each row."""
    detectors = [_detector(row, upstream) for row in rows if isinstance(row, Row)]
    classifiers = [_classifier(row) for row in rows if isinstance(row, ClassifierRow)]
    lines = []
    if detectors:
        lines += [
            f"{'name':38}{'params':>8}{'box AP':>8}{'mask AP':>9}{'memory':>8}{'img/s':>7}  weights",
            *detectors,
            "",
            "params in millions; as published: AP on COCO val2017, GB to train, images/s on one V100",
            f"weights: published ones are fetched when needed; cached ones are in {store()}",
        ]
    if classifiers:
        lines += [
            *([""] if detectors else []),
            f"{'image classifiers':38}{'params':>8}{'GFLOPs':>8}{'square':>9}",
            *classifiers,
            "",
            "params in millions, with 1000 classes; GFLOPs of one square image of so many pixels",
        ]
    return "\n".join(lines)


def _detector(row: Row, upstream: bool) -> str:
    numbers = (row.params, row.box_ap, row.mask_ap, row.memory_gb, row.fps)
    cells = [
        f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"
        for value, width, digits in zip(numbers, (8, 8, 9, 8, 7), (2, 1, 1, 1, 1), strict=True)
    ]
    weights = "-" if row.weights is None else "cached" if find_cached(row.weights) else "published"
    names = [f"\n    {name}" for name in row.upstream if upstream]
    return f"{row.name:38}{''.join(cells)}  {weights}{''.join(names)}"


def _classifier(row: ClassifierRow) -> str:
    return f"{row.name:38}{row.params:8.2f}{row.gflops:8.2f}{row.spec.image_size[1]:9}"
