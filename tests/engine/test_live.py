"""The page on a run as it goes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from engine_fakes import FakeDetector, fake_recipe, press_ctrl_c, run_fake

from gcnet.data.dataset import DataSet, ImageRecord, Instance, LabelledImage
from gcnet.engine import live
from gcnet.engine.live import LivePage, as_instances, draw_sample
from gcnet.engine.loggers import MetricsFile
from gcnet.engine.processes import Place
from gcnet.engine.run import Run
from gcnet.engine.schedule import make_optimizer
from gcnet.engine.task import DETECTION
from gcnet.evaluation.classify import ClassResult
from gcnet.evaluation.results import ImageResults
from gcnet.ops.segmentations import segmentation_to_rle

OUTLINE = [np.array([[2.0, 2], [22, 2], [22, 12]])]


def test_a_run_has_a_page_from_beginning_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr(live, "write_bytes", lambda path, data: pages.append(data.decode()))
    monkeypatch.setattr(live, "SHARE", 1e9)
    run_fake(tmp_path)
    assert len(pages) == 1 + 2 * 3 + 1  # at first, each epoch and its validation, at last
    assert "No numbers yet" in pages[0]
    for page in pages[:-1]:
        assert re.search(r'<meta http-equiv="refresh" content="\d+">', page)
    assert "refresh" not in pages[-1]
    assert "The\ntraining is over" in pages[-1]
    assert "<b>0.250</b>best mask AP" in pages[-1]
    assert "<td>loss_box<td>" in pages[-1]
    assert pages[-1].count("<polyline") == 3 + 1 + 3
    assert not re.search(r'(src|href)="(?!data:)', pages[-1])  # it asks nothing of a network


def test_losses_are_their_sum_and_its_largest_parts() -> None:
    nan = float("nan")
    row = {
        "loss": 5.0,
        "s0.loss_cls": 1.0,
        "s1.loss_cls": 3.0,
        "loss_mask": 1.5,
        "lr": 9.0,
        "valid_loss": nan,
    }
    assert live._losses([row]) == ["loss", "s1.loss_cls", "loss_mask", "s0.loss_cls"]
    assert live._losses([{"loss_cls": 2.0, "loss": 2.0}]) == ["loss"]
    assert live._losses([]) == []


def test_a_run_that_is_stopped_says_where(tmp_path: Path) -> None:
    detector = FakeDetector()
    press_ctrl_c(detector, 5)
    with pytest.raises(KeyboardInterrupt):
        run_fake(tmp_path, detector=detector)
    assert "ended after iteration 5 of 9" in (tmp_path / "live.html").read_text()


def test_it_takes_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, written = itertools.count(), []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    monkeypatch.setattr(live, "write_bytes", lambda path, data: written.append(next(seconds)))
    run_fake(tmp_path, epochs=15)  # 30 rows, a second each; a page takes two
    assert len(written) == 2  # the first and the last


def test_a_page_that_fails_is_a_warning_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> bytes:
        raise ValueError("no such template")

    monkeypatch.setattr(live, "render_page", fail)
    assert run_fake(tmp_path).metrics is not None
    said = capsys.readouterr().out
    assert said.count("warning: LivePage did not take the numbers (no such template); training goes on") == 1


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 40, 3), 90, np.uint8))
    return tmp_path / "a.png"


def assert_shown(out: Path, dataset: DataSet, found: Any) -> None:
    """The sample stands on a page."""
    place, model = Place(torch.device("cpu")), FakeDetector()
    state: Any = (model, DETECTION, fake_recipe(), out, place, 3, {}, make_optimizer(model, fake_recipe()))
    page = LivePage(
        Run(*state, torch.amp.GradScaler("cpu", enabled=False)), MetricsFile(out / "m.csv", scores=()), ["x"]
    )
    page.show(dataset, [found], 0.5)
    page.begin()
    figure = draw_sample(dataset, 0, found, 0.5)
    text = (out / "live.html").read_text()
    assert all(address in text for address in figure.images)
    assert figure.text in text


def test_a_sample_of_a_detector(photo: Path) -> None:
    item = Instance(1, 0, (2.0, 2.0, 22.0, 12.0), OUTLINE, 100.0, crowd=False)
    dataset = DataSet(photo, [ImageRecord(7, photo, 40, 30, (item,))], ("nut", "bolt"), (3, 5))
    counts = segmentation_to_rle(OUTLINE, 30, 40)["counts"]
    boxes, scores = np.array([[2.0, 2, 20, 10]] * 3), np.array([0.9, 0.6, 0.3])
    found = ImageResults(7, (30, 40), boxes, scores, np.array([5, 3, 3]), [counts] * 3)
    items, kept = as_instances(found, dataset.category_ids, 0.5)
    assert [(one.label, one.box) for one in items] == [(1, (2, 2, 22, 12)), (0, (2, 2, 22, 12))]
    assert kept == [0.9, 0.6]
    sample = draw_sample(dataset, 0, found, 0.5)
    truth, drawn = sample.images
    assert truth != drawn
    assert (sample.width, sample.height, sample.text) == (400, 300, "a.png")
    assert_shown(photo.parent, dataset, found)
    nothing = ImageResults(7, (30, 40), boxes[:0], scores[:0], np.array([], int), None)
    assert len(draw_sample(dataset, 0, nothing, 0.5).images) == 2


def test_a_sample_of_a_classifier(photo: Path) -> None:
    dataset = DataSet(photo.parent, [LabelledImage(photo, 0)], ("cat", "dog"), (1, 2))
    entry = {"file_name": "a.png", "class": "cat", "predicted": ["dog", "cat"], "probabilities": [0.7, 0.3]}
    found = ClassResult(entry, 1.2)
    sample = draw_sample(dataset, 0, found, 0.5)
    assert (len(sample.images), sample.head, sample.text) == (1, "dog 0.70", "is cat; a.png")
    assert_shown(photo.parent, dataset, found)
