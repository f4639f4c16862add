"""Tables and plots from stored numbers."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from gcnet.errors import GCNetError
from gcnet.lab.ablation.report import (
    Cell,
    Spread,
    as_json,
    collect,
    console_table,
    difference,
    markdown_table,
    write_report,
)
from gcnet.lab.ablation.study import Study, cell_folder, grid_specs
from gcnet.models.complexity import count_complexity
from gcnet.recipe import Recipe

STUDY = Study("mask_rcnn_tiny_gc4", None, Recipe())
SPECS = grid_specs(STUDY, "position")
SIZE = (64, 64)


def scores(box: float, mask: float) -> dict[str, float]:
    return {"box_AP": box, "box_AP50": 2 * box, "mask_AP": mask, "mask_AP50": 2 * mask}


CELLS = [
    Cell("none", 1_000_000, 2_000_000_000, (scores(0.1, 0.05), scores(0.3, 0.15))),
    Cell("gc", 1_010_000, 2_000_500_000, (scores(0.4, 0.2), scores(0.4, 0.3))),
    Cell("se", 1_009_000, 2_000_500_000, ()),
]


def test_spread_is_the_sample_standard_deviation_and_the_range():
    spread = Spread.of([0.2, 0.4, 0.9])
    assert spread.mean == pytest.approx(0.5)
    assert spread.std == pytest.approx(0.13**0.5)  # (0.09 + 0.01 + 0.16) / (3 - 1)
    assert (spread.low, spread.high) == (0.2, 0.9)
    assert str(spread) == "0.500 ± 0.361"
    assert spread.range == "0.200 to 0.900"


def test_one_seed_has_no_deviation():
    assert Spread.of([0.25]).std is None
    assert str(Spread.of([0.25])) == "0.250"


def test_the_difference_is_that_of_the_means():
    assert difference(CELLS[1], CELLS[0], "box_AP") == pytest.approx(0.2)
    assert difference(CELLS[2], CELLS[0], "box_AP") is None
    assert difference(CELLS[1], CELLS[2], "box_AP") is None


def test_markdown_has_a_row_for_each_cell():
    lines = markdown_table(CELLS).splitlines()
    table = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in table}) == 1
    row = dict(zip(table[0], table[3], strict=True))
    assert row["cell"] == "gc"
    assert row["seeds"] == "2"
    assert row["mask AP (range)"] == "0.250 ± 0.071 (0.200 to 0.300)"
    assert row["Δ box AP"] == "+0.200"
    assert row["parameters"] == "1,010,000"
    assert (row["added parameters, k"], row["added MFLOP"]) == ("10.0", "0.50")
    assert table[4][:3] == ["se", "0", "-"]


def test_the_table_on_a_terminal_shows_the_same():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(console_table(CELLS, "a title"))
    text = console.export_text()
    assert "a title" in text
    assert "0.250 ± 0.071" in text
    assert "+0.200" in text


def test_json_keeps_every_run():
    entry = json.loads(json.dumps(as_json(CELLS)))[1]
    assert [run["box_AP"] for run in entry["runs"]] == [0.4, 0.4]
    assert entry["mask_AP"]["low"] == 0.2
    assert entry["flops"] == 2_000_500_000


def test_cells_are_collected_from_whatever_runs_are_finished(scored, tmp_path: Path) -> None:
    for seed, score in ((10, 0.3), (9, 0.1)):
        scored(cell_folder(tmp_path, SPECS["after1x1"]) / f"seed-{seed}", seed, score)
    (cell_folder(tmp_path, SPECS["none"]) / "seed-9").mkdir(parents=True)  # begun, not finished
    cells = {cell.name: cell for cell in collect(tmp_path, SPECS, SIZE)}
    assert cells["after1x1"].values("box_AP") == [0.1, 0.3]
    assert cells["none"].seeds == cells["after_add"].seeds == 0
    size = count_complexity(SPECS["after_add"], SIZE)
    assert cells["after_add"].parameters == size.parameters
    assert cells["after_add"].flops == size.total_flops


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="no finished run"):
        collect(tmp_path, SPECS, SIZE)


def test_a_report_is_three_files_and_a_table(tmp_path, capsys):
    write_report(tmp_path, "block", CELLS, title="which block", study=STUDY.as_dict())
    assert "which block" in capsys.readouterr().out
    assert markdown_table(CELLS) in (tmp_path / "block.md").read_text()
    stored = json.loads((tmp_path / "block.json").read_text())
    assert stored["study"]["recipe"]["epochs"] == 12
    assert len(stored["cells"]) == 3
    picture = cv2.imread(str(tmp_path / "block.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 300
    assert len(set(map(tuple, picture.reshape(-1, 3)[::7].tolist()))) > 10


def test_the_plot_draws_a_baseline_without_runs(tmp_path, capsys):
    write_report(tmp_path, "x", [CELLS[2], CELLS[1]], title="x", study={})
    assert (tmp_path / "x.png").stat().st_size > 5000
