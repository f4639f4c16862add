"""The studies as tables: every cell is a model that can be built, and says in its name what it is."""

from __future__ import annotations

import itertools
import re

import pytest

from gcnet.errors import GCNetError
from gcnet.lab.ablation.grids import GRIDS, cell_contexts, context_name, find_grid, with_context
from gcnet.models.complexity import count_complexity
from gcnet.models.spec import ContextSpec
from gcnet.weights.catalog import find, list_models

TINY = find("mask_rcnn_tiny_gc4").spec
BASE = ContextSpec(ratio=1 / 4)
CELLS = [(grid, cell) for grid in GRIDS for cell in GRIDS[grid].cells]


@pytest.mark.parametrize(("grid", "cell"), CELLS)
def test_every_cell_builds(grid, cell):
    context = cell_contexts(GRIDS[grid], BASE)[cell]
    plain = count_complexity(with_context(TINY, None), (64, 64))
    size = count_complexity(with_context(TINY, context), (64, 64))
    assert (size.parameters > plain.parameters) == (context is not None)
    assert (size.total_flops > plain.total_flops) == (context is not None)


@pytest.mark.parametrize("grid", GRIDS)
def test_each_grid_compares_different_blocks_with_none(grid):
    contexts = cell_contexts(GRIDS[grid], BASE)
    assert next(iter(contexts.values())) is None
    for one, other in itertools.combinations(contexts.values(), 2):
        assert one != other
        assert context_name(one) != context_name(other)


def test_what_a_cell_does_not_change_is_the_models_own():
    contexts = cell_contexts(find_grid("stage"), ContextSpec(ratio=1 / 8, position="after_add"))
    changed = ContextSpec(ratio=1 / 8, position="after_add", stages=(False, False, True, False))
    assert contexts["c4"] == changed


def test_names_are_folders_and_say_what_the_block_is():
    assert context_name(None) == "none"
    assert context_name(BASE) == "gc-c3c4c5-after1x1-r4-attention-add"
    contexts = cell_contexts(GRIDS["block"], BASE)
    assert context_name(contexts["NL c4"]) == "nl-c4-after1x1"
    assert context_name(contexts["SE all"]) == "se-c3c4c5-after1x1-r4"
    for grid, cell in CELLS:
        assert re.fullmatch(r"[\w.-]+", context_name(cell_contexts(GRIDS[grid], BASE)[cell]))


def test_no_cell_has_the_name_of_a_model():
    assert with_context(TINY, BASE).name not in list_models()
    assert with_context(TINY, BASE) == with_context(TINY, ContextSpec(ratio=0.25))


def test_unknown_grid_gets_the_nearest():
    with pytest.raises(GCNetError, match='did you mean "position"'):
        find_grid("positon")
    with pytest.raises(GCNetError, match="there are block, position"):
        find_grid("xyz")
