"""Tables and plots from stored numbers."""

from __future__ import annotations

import json

import cv2
import pytest

from gcnet.lab.report import Cell, Spread, markdown_table, table_row, write_report
from gcnet.lab.sureness import Difference


def scores(box: float, mask: float) -> dict[str, float]:
    return {"box_AP": box, "box_AP50": 2 * box, "mask_AP": mask, "mask_AP50": 2 * mask}


CELLS = [
    Cell("none", 1_000_000, 2_000_000_000, (scores(0.1, 0.05), scores(0.3, 0.15))),
    Cell("gc", 1_010_000, 2_000_500_000, (scores(0.4, 0.2), scores(0.4, 0.3))),
    Cell("se", 1_009_000, 2_000_500_000, ()),
]
MARKDOWN = markdown_table([table_row(cell, CELLS[0]) for cell in CELLS])


def test_spread_is_the_sample_standard_deviation_and_the_range():
    spread = Spread.of([0.2, 0.4, 0.9])
    assert spread.mean == pytest.approx(0.5)
    assert spread.std == pytest.approx(0.13**0.5)  # (0.09 + 0.01 + 0.16) / (3 - 1)
    assert (spread.low, spread.high) == (0.2, 0.9)
    assert str(spread) == "0.500 ± 0.361"


def test_one_seed_has_no_deviation():
    assert Spread.of([0.25]).std is None
    assert str(Spread.of([0.25])) == "0.250"


def test_the_difference_is_that_of_the_means():
    rows = [table_row(cell, CELLS[0]) for cell in CELLS]
    assert [row["Δ box AP"] for row in rows] == ["+0.000", "+0.200", "-"]
    assert table_row(CELLS[1], CELLS[2])["Δ box AP"] == "-"


def test_markdown_has_a_row_for_each_cell():
    lines = MARKDOWN.splitlines()
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


def test_a_report_is_three_files_and_a_table(tmp_path, capsys):
    write_report(
        tmp_path, "block", CELLS, title="which block", study={"recipe": {"epochs": 12}}, differences={}
    )
    printed = capsys.readouterr().out
    assert "which block" in printed
    assert "0.250 ± 0.071" in printed
    assert "+0.200" in printed
    assert (tmp_path / "block.md").read_text() == f"# which block\n\n{MARKDOWN}"
    stored = json.loads((tmp_path / "block.json").read_text())
    assert stored["study"]["recipe"]["epochs"] == 12
    assert len(stored["cells"]) == 3
    entry = stored["cells"][1]
    assert [run["box_AP"] for run in entry["runs"]] == [0.4, 0.4]
    assert entry["mask_AP"]["low"] == 0.2
    assert entry["flops"] == 2_000_500_000
    picture = cv2.imread(str(tmp_path / "block.png"))
    assert picture is not None
    assert min(picture.shape[:2]) > 300
    assert len(set(map(tuple, picture.reshape(-1, 3)[::7].tolist()))) > 10


def test_what_is_surely_better_is_said(tmp_path, capsys):
    unsure, sure = Difference(0.1, -0.1, 0.3, 3), Difference(0.1, 0.05, 0.15, 3)
    differences = {
        "none": {"gc": unsure},
        "gc": {"none": sure, "se": sure},
        "se": {"none": unsure, "gc": unsure},
    }
    write_report(tmp_path, "x", CELLS, title="x", study={}, differences=differences)
    said = capsys.readouterr().out
    assert "gc beside none: better, +0.100 box AP, 95% between +0.050 and +0.150" in said
    assert "se beside none: not told apart" in said
    assert "gc: surely better than se\n" in said
    assert "- gc: surely better than se" in (tmp_path / "x.md").read_text()
    assert json.loads((tmp_path / "x.json").read_text())["cells"][1]["better by"]["se"]["low"] == 0.05


def test_detectors_of_boxes_alone_have_no_mask_ap(tmp_path, capsys):
    boxes = [Cell(name, 10, 10, ({"box_AP": 0.1, "box_AP50": 0.2},)) for name in ("none", "gc")]
    write_report(tmp_path, "x", boxes, title="x", study={}, differences={})
    assert json.loads((tmp_path / "x.json").read_text())["cells"][1]["mask_AP"] is None
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_the_plot_draws_a_baseline_without_runs(tmp_path, capsys):
    write_report(tmp_path, "x", [CELLS[2], CELLS[1]], title="x", study={}, differences={})
    assert (tmp_path / "x.png").stat().st_size > 5000
