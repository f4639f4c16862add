"""`gcnet models`: the catalog as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gcnet.cli import main
from gcnet.weights.catalog import ROWS, find, list_models


def lines(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["models", *words]) == 0
    return capsys.readouterr().out.splitlines()


def records(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["models", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_model_is_one_line_of_a_hundred_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table = lines([], capsys)
    assert [line.split()[0] for line in table[1 : 1 + len(ROWS)]] == [row.name for row in ROWS]
    assert max(len(line) for line in table if not line.startswith("weights:")) <= 100
    cells = [" ".join(line.split()) for line in table]
    assert "mask_rcnn_r50_gc4 54.40 39.9 36.0 5.1 15.0 published" in cells
    assert "mask_rcnn_tiny 1.46 - - - - -" in cells
    assert "resnet50_gc4 35.56 8.21 224" in cells


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r101", "gc16"], ["mask_rcnn_r101_gc16", "mask_rcnn_r101_syncbn_gc16"]),
        (["DCONV", "r4_gcb"], ["cascade_mask_rcnn_x101_syncbn_dcn_gc4"]),  # upstream's words
        (["cascade-mask-rcnn", "r16-gcb", "dcn"], ["cascade_mask_rcnn_x101_syncbn_dcn_gc16"]),
        (["mask", "rcnn_tiny"], ["mask_rcnn_tiny", "mask_rcnn_tiny_gc16", "mask_rcnn_tiny_gc4"]),
        (["RESNET", "tiny_gc"], ["resnet_tiny_gc16", "resnet_tiny_gc4"]),
    ],
)
def test_all_words_must_occur(
    words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [record["name"] for record in records(words, capsys)] == expected
    table = lines(words, capsys)
    for name in expected:
        where = next(index for index, line in enumerate(table) if line.startswith(f"{name} "))
        upstream = find(name).upstream
        assert tuple(line.strip() for line in table[where + 1 : where + 1 + len(upstream)]) == upstream


def test_records_are_complete(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = {record["name"]: record for record in records([], capsys)}
    assert list(by_name) == list_models()
    record = by_name["mask_rcnn_r50_gc4"]
    assert record["upstream"] == list(find("mask_rcnn_r50_gc4").upstream)
    numbers = {key: record[key] for key in ("params", "memory_gb", "fps", "box_ap", "mask_ap")}
    assert numbers == {"params": 54.4, "memory_gb": 5.1, "fps": 15.0, "box_ap": 39.9, "mask_ap": 36.0}
    assert record["weights"]["sha256"] == "17235656"
    assert record["weights"]["url"].endswith(record["weights"]["file"])
    assert record["weights"]["cached"] is None
    assert record["spec"]["backbone"]["context"]["ratio"] == 0.25
    assert record["recipe"]["epochs"] == 12
    assert by_name["mask_rcnn_tiny"]["weights"] is None


def test_what_is_at_hand_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("GCNET_HOME", str(home))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    weights = find("mask_rcnn_r101_gc4").weights
    assert weights is not None
    (home / "weights").mkdir(parents=True)
    (home / "weights" / weights.file).write_bytes(b"")
    marked = [line.split()[0] for line in lines([], capsys) if line.endswith(" cached")]
    assert marked == ["mask_rcnn_r101_gc4"]
    (record,) = records(["mask_rcnn_r101_gc4"], capsys)
    assert record["weights"]["cached"] == str(home / "weights" / weights.file)
