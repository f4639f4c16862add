from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gcnet.data.readers.coco import CocoDataset
from gcnet.errors import GCNetError
from gcnet.evaluation.coco_ap import CocoEvaluator
from gcnet.evaluation.evaluate import batches_of_one_size, check_classes, evaluate, write_results
from gcnet.evaluation.table import print_metrics
from gcnet.ops.images import fit_size, padded_size

MakeDataset = Callable[..., CocoDataset]


def test_a_detector_that_knows_all_scores_one(make_dataset: MakeDataset, oracle: Any, tmp_path: Path) -> None:
    dataset = make_dataset()
    detector = oracle(dataset).train()
    out = tmp_path / "new" / "out"
    metrics, results = evaluate(detector, dataset, batch_size=2, workers=0, out=out, progress=False)
    assert metrics.mask["AP"] == pytest.approx(1)
    assert detector.training
    assert json.loads((out / "results.json").read_text()) == list(results)
    assert json.loads((out / "metrics.json").read_text()) == metrics.as_dict()
    assert sorted(path.name for path in out.iterdir()) == ["call.json", "metrics.json", "results.json"]


def test_an_evaluation_goes_on_where_it_was_killed(
    make_dataset: MakeDataset, oracle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, out = make_dataset(), tmp_path / "out"
    whole, _ = evaluate(oracle(dataset), dataset, workers=0, progress=False)
    detector = oracle(dataset).eval()
    plain = dataset.read_image
    monkeypatch.setattr(type(dataset), "read_image", lambda self, i: plain(i) if i < 3 else broken(i))
    with pytest.raises(GCNetError, match="image 3 is gone"):
        evaluate(detector, dataset, workers=0, out=out, progress=False)
    monkeypatch.undo()
    before = len(detector.seen)
    assert 0 < before < len(dataset)
    assert [path.name for path in out.iterdir()] == ["unfinished.jsonl"]
    with pytest.raises(GCNetError, match="its score_threshold differs"):
        evaluate(detector, dataset, workers=0, out=out, progress=False, score_threshold=0.1)
    metrics, results = evaluate(detector, dataset, workers=0, out=out, progress=False)
    assert len(detector.seen) == len(dataset)
    assert metrics.as_dict() == whole.as_dict()
    assert json.loads((out / "results.json").read_text()) == list(results)
    assert not (out / "unfinished.jsonl").exists()


def broken(index: int) -> Any:
    raise GCNetError(f"image {index} is gone")


def test_a_folder_is_for_one_model(make_dataset: MakeDataset, oracle: Any, tmp_path: Path) -> None:
    dataset = make_dataset()
    evaluate(oracle(dataset), dataset, workers=0, out=tmp_path, progress=False)
    evaluate(oracle(dataset), dataset, workers=0, out=tmp_path, progress=False)
    before = (tmp_path / "metrics.json").read_bytes()
    other = oracle(dataset)
    other.weight.data += 1
    with pytest.raises(GCNetError, match=r"scores of another evaluation \(its weights differs\)"):
        evaluate(other, dataset, workers=0, out=tmp_path, progress=False)
    (tmp_path / "call.json").unlink()
    with pytest.raises(GCNetError, match=r"results\.json would be replaced"):
        evaluate(other, dataset, workers=0, out=tmp_path, progress=False)
    assert (tmp_path / "metrics.json").read_bytes() == before


def test_results_are_on_disk_before_they_are_scored(
    make_dataset: MakeDataset, oracle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: CocoEvaluator) -> None:
        raise RuntimeError("scoring failed")

    monkeypatch.setattr(CocoEvaluator, "compute", fail)
    dataset = make_dataset()
    with pytest.raises(RuntimeError, match="scoring failed"):
        evaluate(oracle(dataset), dataset, workers=0, out=tmp_path, progress=False)
    assert len(json.loads((tmp_path / "results.json").read_text())) > 10


def test_nothing_to_score_is_said(
    make_dataset: MakeDataset, oracle: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make_dataset(edit=lambda content: [one.update(iscrowd=1) for one in content["annotations"]])
    evaluate(oracle(dataset), dataset, workers=0, progress=False)
    (line,) = caplog.messages
    assert line.startswith(
        f"there is nothing to score: {dataset.source} has only objects marked iscrowd, 20 of"
    )
    assert line.endswith("give --crowd-as-objects true to take them as objects")


def test_classes_that_differ_are_refused(make_dataset: MakeDataset, oracle: Any) -> None:
    dataset = make_dataset()
    with pytest.raises(GCNetError, match=r"model has 2 classes \(a, b\), the data set 3"):
        evaluate(oracle(dataset, ("a", "b")), dataset, workers=0)
    check_classes(("a", "b"), ("x", "y"))
    with pytest.raises(GCNetError, match="'a' is number 0 in the data set, number 1 in the model"):
        check_classes(("b", "a"), ("a", "b"))


def test_a_folder_that_cannot_be_written(make_dataset: MakeDataset, oracle: Any, tmp_path: Path) -> None:
    dataset = make_dataset()
    (tmp_path / "file").write_text("")
    detector = oracle(dataset)
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(GCNetError, match="cannot write in"):
            evaluate(detector, dataset, workers=0, out=folder)
    assert not detector.seen


def test_tables_fit_eighty_columns(make_dataset: MakeDataset, oracle: Any, tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"] = [dict(entry) for entry in content["categories"]]
        content["categories"][0]["name"] = "a name that is much longer than anyone would like"

    dataset = make_dataset(edit=rename)
    metrics, results = evaluate(oracle(dataset), dataset, workers=0, progress=False)
    stream = io.StringIO()
    print_metrics(metrics, Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = stream.getvalue()
    for word in ("AP50", "AR100", "ARl", "mask", "1.000", "a name that is"):
        assert word in text
    absent = next(line for line in lines if line.split()[:1] == ["absent"])
    assert absent.split() == ["absent", "0", *["-"] * 6]
    write_results(tmp_path / "again", metrics, results)
    assert json.loads((tmp_path / "again" / "metrics.json").read_text()) == metrics.as_dict()


def test_batches_hold_images_of_one_padded_size(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    groups = batches_of_one_size(dataset, range(len(dataset)), image_size=(96, 64), batch_size=2)
    assert sorted(index for group in groups for index in group) == list(range(len(dataset)))
    assert max(map(len, groups)) == 2
    for group in groups:
        sizes = [fit_size((dataset.records[i].height, dataset.records[i].width), (96, 64)) for i in group]
        assert len(set(map(padded_size, sizes))) == 1
