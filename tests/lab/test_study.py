"""The studies as tables, and a folder of runs: what they share, what is checked before another is added."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gcnet.errors import GCNetError
from gcnet.lab.study import GRIDS, Study, context_name, find_grid, read_recipe, with_context
from gcnet.models.complexity import count_complexity
from gcnet.models.spec import ContextSpec, ModelSpec
from gcnet.recipe import Recipe
from gcnet.weights.catalog import find_detector, list_models

TINY = find_detector("mask_rcnn_tiny_gc4").spec
BASE = ContextSpec(ratio=1 / 4)
RECIPE = Recipe(epochs=2, image_size=(128, 96), seed=5)


def study(out: Path, grid: str = "position", **changes) -> Study:
    """A study of the tiny model."""
    return replace(Study(out, "mask_rcnn_tiny_gc4", RECIPE, grid=grid), **changes)


def with_recipe(out: Path, **changes) -> Study:
    """The same with another recipe."""
    return study(out, recipe=replace(RECIPE, **changes))


def claim(asked: Study) -> None:
    asked.claim(asked.runs())


def contexts(grid: str) -> dict[str, ContextSpec | None]:
    """The block of each cell."""
    return {cell: spec.backbone.context for cell, spec in study(Path(), grid).specs().items()}


def test_every_cell_builds() -> None:
    plain = count_complexity(with_context(TINY, None), (64, 64))
    blocks = [block for grid in GRIDS for block in contexts(grid).values() if block is not None]
    for block in {context_name(block): block for block in blocks}.values():
        size = count_complexity(with_context(TINY, block), (64, 64))
        assert size.parameters > plain.parameters
        assert size.total_flops >= plain.total_flops  # GCT has no matrix products


@pytest.mark.parametrize("grid", GRIDS)
def test_each_grid_compares_different_blocks_with_none(grid: str) -> None:
    first, *others = contexts(grid).values()
    assert first is None
    for one, other in itertools.combinations([first, *others], 2):
        assert one != other
        assert context_name(one) != context_name(other)
        assert re.fullmatch(r"[\w.-]+", context_name(other))


def test_what_a_cell_does_not_change_is_the_models_own() -> None:
    cells = study(Path(), "stage", model="mask_rcnn_r50_gc16").specs()
    context = find_detector("mask_rcnn_r50_gc16").spec.backbone.context
    assert context is not None
    assert cells["c4"].backbone.context == replace(context, stages=(False, False, True, False))


def test_names_are_folders_and_say_what_the_block_is() -> None:
    assert context_name(None) == "none"
    assert context_name(BASE) == "gc-c3c4c5-after1x1-r4-attention-add"
    assert context_name(contexts("block")["NL c4"]) == "nl-c4-after1x1"
    assert context_name(contexts("block")["SE all"]) == "se-c3c4c5-after1x1-r4"


def test_no_cell_has_the_name_of_a_model() -> None:
    assert with_context(TINY, BASE).name not in list_models()
    assert with_context(TINY, BASE) == with_context(TINY, ContextSpec(ratio=0.25))


def test_unknown_grid_gets_the_nearest() -> None:
    with pytest.raises(GCNetError, match='did you mean "position"'):
        find_grid("positon")
    with pytest.raises(GCNetError, match="there are block, position"):
        find_grid("xyz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "was made with epochs 2, not 3"),
        ({"image_size": None}, r"was made with image_size \[128, 96\], not None"),
    ],
)
def test_another_recipe_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    claim(study(tmp_path))
    with pytest.raises(GCNetError, match=message):
        claim(with_recipe(tmp_path, **change))
    with pytest.raises(GCNetError, match=message):  # though none of the runs is the same
        claim(with_recipe(tmp_path, **change, seed=50))


def test_what_changes_no_number_may_differ(tmp_path: Path) -> None:
    claim(study(tmp_path))
    claim(with_recipe(tmp_path, seed=9, workers=7, loggers=()))
    claim(study(tmp_path, "ratio", seeds=9, jobs=2))


def test_other_data_or_another_model_is_refused(tmp_path: Path) -> None:
    claim(study(tmp_path))
    with pytest.raises(GCNetError, match=r"made with data .*, not"):
        claim(study(tmp_path, data=tmp_path))
    with pytest.raises(GCNetError, match="a run of another model"):
        claim(study(tmp_path, model="mask_rcnn_tiny_gc16"))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(GCNetError, match="no study: give another --out"):
        claim(study(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_first_seed_of_all_cells_comes_first() -> None:
    runs = study(Path("out"), seeds=2).runs()
    labels = [run.label for run in runs]
    assert labels[:3] == ["none, seed 5", "after1x1, seed 5", "after_add, seed 5"]
    assert labels[3:] == ["none, seed 6", "after1x1, seed 6", "after_add, seed 6"]
    assert len({run.folder for run in runs}) == 6


def test_studies_share_the_runs_of_equal_blocks() -> None:
    def folders(grid: str) -> dict[str, Path]:
        return {run.cell: run.folder for run in study(Path(), grid, seeds=1).runs()}

    whole = folders("block")["GC all"]
    assert whole == folders("ratio")["1/4"] == folders("stage")["c3-c5"] == folders("position")["after1x1"]
    assert whole == folders("pooling_fusion")["attention, add"]
    assert folders("block")["GC c4"] == folders("stage")["c4"]
    assert folders("block")["none"] == folders("ratio")["none"]


def test_a_run_holds_all_it_needs(tmp_path: Path) -> None:
    ratio = study(tmp_path, "ratio")
    claim(ratio)
    claim(ratio)  # the same: nothing to complain about
    run = ratio.runs()[2]
    values = json.loads((run.folder / "run.json").read_text())
    spec = ModelSpec.from_dict(values["spec"])
    assert spec == ratio.specs()["1/8"]
    assert spec.backbone.context == ContextSpec(ratio=1 / 8)
    assert read_recipe(values["recipe"]) == replace(RECIPE, seed=5, validate_every=2)
    assert values["data"] == str(tmp_path / "data")
    assert not values["imagenet"]
    other = json.dumps(values | {"spec": ratio.runs()[1].values["spec"]})
    (run.folder.parent / "seed-8").mkdir()
    (run.folder.parent / "seed-8" / "run.json").write_text(other)
    with pytest.raises(GCNetError, match="remove it"):
        claim(ratio)
