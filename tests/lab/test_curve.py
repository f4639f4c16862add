"""A learning curve on runs that cost nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcnet.errors import GCNetError
from gcnet.files import write_json
from gcnet.lab.context_shapes import write_context_shapes
from gcnet.lab.curve import Fit, draw_curve, fit_power_law, verdict
from gcnet.lab.study import Run, Study
from gcnet.weights.catalog import find_detector

ROW = find_detector("mask_rcnn_tiny_gc4")


def test_a_power_law_is_found_again() -> None:
    images = [100, 200, 400] * 2
    error = [0.8 * (n / 100) ** -0.5 for n in images]
    fit = fit_power_law(images, [1 - e for e in error])
    assert fit is not None
    assert fit.exponent == pytest.approx(0.5)
    assert fit.error == pytest.approx(0.4)
    assert fit.doubling == pytest.approx(0.4 * (1 - 2**-0.5))
    assert fit.low == pytest.approx(fit.high)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, images = np.random.default_rng(0), np.array([50, 100, 200] * 3)
    held = 0
    for _ in range(300):
        noise = 2 ** rng.normal(0, 0.05, 9)
        fit = fit_power_law(images.tolist(), (1 - 0.6 * (images / 200) ** -0.3 * noise).tolist())
        assert fit is not None
        held += fit.low <= fit.error * (1 - 2**-0.3) <= fit.high
    assert 275 <= held <= 296


def test_nothing_is_claimed_that_cannot_be_told() -> None:
    assert fit_power_law([10, 20], [0.1, 0.2]) is None
    assert fit_power_law([10] * 5, [0.1] * 5) is None
    assert "cannot be told" in verdict(None, 100)
    assert "cannot be told" in verdict(Fit(0.1, 0.5, 0.03, -0.01, 0.08), 100)
    assert verdict(Fit(0.1, 0.5, 0.03, 0.01, 0.08), 100).startswith("Twice as many images (200)")


class Finished:
    def wait(self) -> int:
        return 0


def test_from_data_to_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_context_shapes(tmp_path / "data", train=8, valid=1)
    recipe = replace(ROW.recipe, epochs=6, devices=1, seed=4)
    study = Study(tmp_path / "out", ROW.name, recipe, data, seeds=2)
    shares: list[float] = []

    def start(run: Run) -> Any:
        values = json.loads((run.folder / "run.json").read_text())
        shares.append(values["share"])
        assert values["recipe"]["epochs"] * values["share"] == 6
        assert values["recipe"]["validate_every"] == values["recipe"]["epochs"]
        ap = 1 - 0.5 * values["share"] ** -0.2 - run.seed / 1000
        names = ("box_AP", "box_AP50", "mask_AP", "mask_AP50")
        write_json(run.folder / "result.json", {"seed": run.seed, "seconds": 1.0, **dict.fromkeys(names, ap)})
        return Finished()

    draw_curve(study, start=start)
    assert shares == [0.25, 0.5, 1.0] * 2
    found = json.loads((tmp_path / "out/curve.json").read_text())
    assert [run["images"] for run in found["runs"]] == [2, 4, 8] * 2
    assert found["fit"]["exponent"] == pytest.approx(0.2, abs=0.01)
    assert "Twice as many images (16) would give about +0.0" in capsys.readouterr().out
    assert (tmp_path / "out/curve.png").stat().st_size > 5000
    draw_curve(study, start=start)
    assert len(shares) == 6  # all are there
    with pytest.raises(GCNetError, match="made with epochs 24, not 48"):
        draw_curve(replace(study, recipe=replace(recipe, epochs=12)), start=start)
