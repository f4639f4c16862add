"""The paper's studies as tables of context blocks (arXiv 1904.11492, section 5.1).

No torch here, so that `gcnet ablate --help` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gcnet.console import did_you_mean
from gcnet.errors import GCNetError
from gcnet.models.spec import ContextSpec, ModelSpec

C3 = (False, True, False, False)
C4 = (False, False, True, False)
C5 = (False, False, False, True)
C4_C5 = (False, False, True, True)
ALL = (False, True, True, True)

Change = Mapping[str, Any]  # fields of ContextSpec


@dataclass(frozen=True)
class Grid:
    """One study: for each cell what it changes in the model's own context block; None takes the block out."""

    question: str
    cells: Mapping[str, Change | None]


GRIDS: dict[str, Grid] = {
    "block": Grid(
        "which block, and in one stage or in all",
        {
            "none": None,
            "SE c4": {"block": "se", "stages": C4},
            "SNL c4": {"block": "snl", "stages": C4},
            "NL c4": {"block": "nl", "stages": C4},
            "GC c4": {"block": "gc", "stages": C4},
            "SE all": {"block": "se", "stages": ALL},
            "SNL all": {"block": "snl", "stages": ALL},
            "NL all": {"block": "nl", "stages": ALL},
            "GC all": {"block": "gc", "stages": ALL},
        },
    ),
    "position": Grid(
        "before or after the sum with the shortcut",
        {"none": None, "after1x1": {"position": "after1x1"}, "after_add": {"position": "after_add"}},
    ),
    "stage": Grid(
        "in which stages of the backbone",
        {
            "none": None,
            "c3": {"stages": C3},
            "c4": {"stages": C4},
            "c5": {"stages": C5},
            "c4-c5": {"stages": C4_C5},
            "c3-c5": {"stages": ALL},
        },
    ),
    "ratio": Grid(
        "how narrow the bottleneck may be",
        {
            "none": None,
            "1/4": {"ratio": 1 / 4},
            "1/8": {"ratio": 1 / 8},
            "1/16": {"ratio": 1 / 16},
            "1/32": {"ratio": 1 / 32},
        },
    ),
    "pooling_fusion": Grid(
        "what context modelling and what fusion contribute",
        {
            "none": None,
            "average, scale": {"pooling": "average", "fusion": ("scale",)},
            "average, add": {"pooling": "average", "fusion": ("add",)},
            "attention, scale": {"pooling": "attention", "fusion": ("scale",)},
            "attention, add": {"pooling": "attention", "fusion": ("add",)},
        },
    ),
}


def find_grid(name: str) -> Grid:
    """The grid of that name. Raises GCNetError, with the nearest name, if there is none."""
    if name in GRIDS:
        return GRIDS[name]
    hint = did_you_mean(name, GRIDS, otherwise=f"there are {', '.join(GRIDS)}")
    raise GCNetError(f"there is no ablation {name!r}; {hint}")


def cell_contexts(grid: Grid, base: ContextSpec) -> dict[str, ContextSpec | None]:
    """The context block of each cell: `base` with the cell's changes."""
    return {name: None if change is None else replace(base, **change) for name, change in grid.cells.items()}


def with_context(spec: ModelSpec, context: ContextSpec | None) -> ModelSpec:
    """`spec` with another block, under a name that says so and that no model of the catalog has."""
    name = f"{spec.name}+{context_name(context)}"
    return replace(spec, name=name, backbone=replace(spec.backbone, context=context))


def context_name(context: ContextSpec | None) -> str:
    """A word for a block, fit for a folder: what is equal has the same word, whichever grid it is in."""
    if context is None:
        return "none"
    stages = "".join(f"c{i}" for i, used in enumerate(context.stages, 2) if used)
    words = [context.block, stages, context.position]
    if context.block in ("gc", "se"):
        words.append(f"r{1 / context.ratio:g}")
    if context.block == "gc":
        words += [context.pooling, *context.fusion]
    return "-".join(words)
