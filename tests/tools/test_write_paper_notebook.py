"""docs/the-paper-in-code.md and its notebook run, and say what came out."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from gcnet.context import GlobalContext, NonLocal, SimplifiedNonLocal, SqueezeExcitation, complexity
from gcnet.weights.catalog import find

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "write_paper_notebook.py"))
NOTEBOOK = ROOT / "docs" / "the-paper-in-code.ipynb"
PAGE = ROOT / "docs" / "the-paper-in-code.md"


def run(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """All names at the end, and the picture that each figure of the page was made from."""
    names: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for after, so_far, value in TOOL["run"](text):
        names = so_far
        if path := TOOL["figure_below"](after):
            figures[path.name] = value
    return names, figures


def test_notebook_is_what_the_tool_writes():
    assert NOTEBOOK.read_text() == TOOL["notebook"](PAGE.read_text()), "run tools/write_paper_notebook.py"


def test_every_cell_runs():
    text = NOTEBOOK.read_text()
    shorter = {
        "ITERATIONS = 200 ": "ITERATIONS = 4 ",
        "draw(0, 240)": "draw(0, 24)",
        "draw(1, 48)": "draw(1, 6)",
    }
    for whole, tiny in shorter.items():
        assert text.count(whole) == 1
        text = text.replace(whole, tiny)
    names, figures = run(text)
    assert set(names["right"]) == {"none", "NL", "SNL", "SE", "GC"}
    assert set(figures) == {"chain-queries.jpg", "chain-shared.jpg"}
    for name, picture in figures.items():
        assert (ROOT / "docs" / "figures" / name).exists()
        assert picture.width > 400


@pytest.mark.slow
def test_claims():
    names, _ = run(NOTEBOOK.read_text())
    right = names["right"]
    assert right["none"] < 0.5 < 0.9 < min(right["SNL"], right["GC"])
    assert right["NL"] > 0.5
    assert names["found"].context < names["found"].input / 2


def test_figures_are_those_of_their_sources():
    page = PAGE.read_text()
    for block in (NonLocal(512), SimplifiedNonLocal(512), SqueezeExcitation(512), GlobalContext(512)):
        cost = complexity(block, (100, 152))
        assert f" {cost.parameters:,} |" in page
        assert f" {cost.flops / 1e9:.3f} |" in page
    for name in ("mask_rcnn_r50_syncbn", "mask_rcnn_r50_syncbn_gc16", "mask_rcnn_r50_syncbn_gc4"):
        assert str(find(name).box_ap) in page
    for source, figures in {
        "looking-in.md": ("0.490", "0.404", "0.118", "0.449", "0.030", "0.432", "0.693"),
        "context-blocks.md": ("27", "0.013"),
        "context-shapes.md": ("0.946", "0.344"),
    }.items():
        for figure in figures:
            assert figure in page
            assert figure in (ROOT / "docs" / source).read_text()
