"""HTML pages for people, each one file that needs no network.

A page is a template that extends `page.html` (head, style) and uses the macros of `parts.html`: tables, bars,
figures. All data is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from gcnet.console import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent

Bar = tuple[str, int]  # of a histogram: a label and a number
# A finding: a fault ("fix"), something to look at, a remark ("note"), or "good"; and what is said of it.
Line = tuple[Literal["fix", "look", "note", "good"], str]


def render_page(template: Path, **values: Any) -> bytes:
    """The page of a template and its values, in UTF-8."""
    return _environment(template.parent).get_template(template.name).render(values).encode()


@cache  # it holds compiled templates, which the page of a training needs again and again
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: (
            printable(str(value)) if type(value) is str or isinstance(value, Path) else value
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": lambda value: f"{value:,}", "percent": percent}
    return environment


def percent(share: float) -> str:
    """A share in [0, 1] as text: `<1%` is more than nothing, `100%` is exactly all."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def embedded(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """A data URL with the image as a JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 82]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return "data:image/jpeg;base64," + base64.b64encode(data.data).decode()


def count_bars(values: Int[np.ndarray, " N"]) -> list[Bar]:
    """How many of the values are 0, 1, 2, 3-4, 5-8, 9-16, ..."""
    if not len(values):
        return []
    starts = [0, 1, 2, 3]
    while starts[-1] <= values.max():
        starts.append(2 * starts[-1] - 1)
    last = int(np.searchsorted(starts, values.max(), "right"))
    labels = [str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in pairwise(starts[: last + 1])]
    return _bars(values, [*starts[:last], np.inf], labels)


def size_bars(values: Float[np.ndarray, " N"]) -> list[Bar]:
    """How many of the values (positive) lie between steps of a factor 2 or, where they are alike, less."""
    if not len(values):
        return []
    low, high = max(float(values.min()), 1.0), max(float(values.max()), 1.0)
    steps = next(steps for steps in (8, 4, 2, 1) if steps * np.log2(high / low) <= 12 or steps == 1)
    first, last = int(np.floor(steps * np.log2(low) + 1e-9)), int(np.floor(steps * np.log2(high) + 1e-9)) + 1
    edges = [2 ** (power / steps) for power in range(first, last + 1)]
    return _bars(values, [0, *edges[1:-1], np.inf], [f"{edge:.0f}" for edge in edges[:-1]])


def _bars(values: np.ndarray, edges: Sequence[float], labels: Sequence[str]) -> list[Bar]:
    counts, _ = np.histogram(values, np.asarray(edges, float))
    return list(zip(labels, counts.tolist(), strict=True))
