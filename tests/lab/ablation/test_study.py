"""A folder of runs: what they share, what is checked before another is added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gcnet.errors import GCNetError
from gcnet.lab.ablation.study import (
    Study,
    claim_folder,
    grid_specs,
    plan_runs,
    read_run,
    read_study,
    write_run,
)
from gcnet.models.spec import ContextSpec
from gcnet.recipe import Recipe

STUDY = Study("mask_rcnn_tiny_gc4", None, Recipe(epochs=2, image_size=(128, 96), seed=5))


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    claim_folder(tmp_path / "a", STUDY)
    assert read_study(tmp_path / "a") == replace(STUDY, recipe=replace(STUDY.recipe, seed=0))
    own = replace(STUDY, data=tmp_path / "photos", imagenet=True)
    claim_folder(tmp_path / "b", own)
    assert read_study(tmp_path / "b").data == tmp_path / "photos"
    assert read_study(tmp_path / "b").imagenet


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "was made with epochs 2, not 3"),
        ({"image_size": None}, r"was made with image_size \[128, 96\], not None"),
    ],
)
def test_another_recipe_is_refused(change, message, tmp_path):
    claim_folder(tmp_path, STUDY)
    with pytest.raises(GCNetError, match=message):
        claim_folder(tmp_path, replace(STUDY, recipe=replace(STUDY.recipe, **change)))


def test_what_changes_no_number_may_differ(tmp_path: Path) -> None:
    claim_folder(tmp_path, STUDY)
    claim_folder(tmp_path, replace(STUDY, recipe=replace(STUDY.recipe, seed=9, workers=7)))


def test_other_data_or_another_model_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path, STUDY)
    with pytest.raises(GCNetError, match="made with data None, not"):
        claim_folder(tmp_path, replace(STUDY, data=tmp_path))
    with pytest.raises(GCNetError, match="made with model mask_rcnn_tiny_gc4"):
        claim_folder(tmp_path, replace(STUDY, model="mask_rcnn_tiny_gc16"))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(GCNetError, match="no ablation: give another --out"):
        claim_folder(tmp_path, STUDY)
    with pytest.raises(GCNetError, match="run it first"):
        read_study(tmp_path)
    (tmp_path / "ablation.json").write_text('{"model": 3}')
    with pytest.raises(GCNetError, match="no readable"):
        read_study(tmp_path)


def test_the_first_seed_of_all_cells_comes_first() -> None:
    runs = plan_runs(Path("out"), grid_specs(STUDY, "position"), [4, 5])
    labels = [run.label for run in runs]
    assert labels[:3] == ["none, seed 4", "after1x1, seed 4", "after_add, seed 4"]
    assert labels[3:] == ["none, seed 5", "after1x1, seed 5", "after_add, seed 5"]
    assert len({run.folder for run in runs}) == 6


def test_grids_share_the_runs_of_equal_blocks() -> None:
    def folders(grid: str) -> dict[str, Path]:
        return {run.cell: run.folder for run in plan_runs(Path(), grid_specs(STUDY, grid), [0])}

    whole = folders("block")["GC all"]
    assert whole == folders("ratio")["1/4"] == folders("stage")["c3-c5"] == folders("position")["after1x1"]
    assert whole == folders("pooling_fusion")["attention, add"]
    assert folders("block")["GC c4"] == folders("stage")["c4"]
    assert folders("block")["none"] == folders("ratio")["none"]


def test_a_run_holds_all_it_needs(tmp_path: Path) -> None:
    specs = grid_specs(STUDY, "ratio")
    run = plan_runs(tmp_path, specs, [7])[2]
    write_run(run, STUDY, specs[run.cell], tmp_path / "data")
    spec, recipe, data, imagenet = read_run(run.folder)
    assert spec == specs["1/8"]
    assert spec.backbone.context == ContextSpec(ratio=1 / 8)
    assert recipe == replace(STUDY.recipe, seed=7, validate_every=2)
    assert data == tmp_path / "data"
    assert not imagenet
    write_run(run, STUDY, specs[run.cell], tmp_path / "data")  # the same: nothing to complain about
    with pytest.raises(GCNetError, match="remove it"):
        write_run(run, STUDY, replace(specs[run.cell], fpn_channels=32), tmp_path / "data")
