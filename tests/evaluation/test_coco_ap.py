from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_sets import differences
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console

from gcnet.data.readers.coco import CocoDataset
from gcnet.evaluation.coco_ap import CocoEvaluator, Metrics
from gcnet.evaluation.results import ImageResults
from gcnet.evaluation.table import print_metrics
from gcnet.types import Detections

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


MakeDataset = Callable[..., CocoDataset]
LookUp = Callable[..., Detections]
Filled = Callable[..., CocoEvaluator]


@pytest.fixture
def filled(detections: LookUp) -> Filled:
    def fill(dataset: CocoDataset, **kwargs: Any) -> CocoEvaluator:
        ids = [record.id for record in dataset.records]
        return evaluator_of(dataset, {image_id: detections(dataset, image_id, **kwargs) for image_id in ids})

    return fill


def evaluator_of(dataset: CocoDataset, found: dict[int | str, Detections], **options: int) -> CocoEvaluator:
    """What scores the detections in images by their ids."""
    results = [ImageResults.of(one, image_id, dataset.category_ids) for image_id, one in found.items()]
    return CocoEvaluator(dataset, results, **options)


def pycocotools_stats(
    dataset: CocoDataset, results: list[dict[str, Any]], kind: str, category: int | None = None
) -> dict[str, float]:
    content = json.loads(dataset.source.read_text())
    for entry in content["annotations"]:
        entry["id"] += 1  # COCOeval takes an object with id 0 as never found
    truth = COCO()
    truth.dataset = content
    truth.createIndex()
    drop = "bbox" if kind == "segm" else "segmentation"
    entries = [{key: value for key, value in entry.items() if key != drop} for entry in results]
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(entries)), kind)
    if category is not None:
        evaluation.params.catIds = [category]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(NAMES, map(float, evaluation.stats), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_pycocotools(make_dataset: MakeDataset, filled: Filled, seed: int) -> None:
    dataset = make_dataset(seed)
    evaluator = filled(dataset, jitter=6.0, seed=seed)
    metrics = evaluator.compute()
    assert 0.1 < metrics.box["AP"] < 0.95
    for kind, prefix, ours in (("bbox", "box", metrics.box), ("segm", "mask", metrics.mask)):
        assert ours == pytest.approx(pycocotools_stats(dataset, evaluator.results, kind), abs=1e-9)
        for name, category in zip(dataset.class_names, dataset.category_ids, strict=True):
            expected = pycocotools_stats(dataset, evaluator.results, kind, category)
            for metric in (*NAMES[:6], "AR100"):
                value = metrics.per_class[name][f"{prefix}_{metric}"]
                assert value == pytest.approx(expected[metric], abs=1e-9), (name, metric)


def test_perfect_detections_score_one(make_dataset: MakeDataset, filled: Filled) -> None:
    metrics = filled(make_dataset()).compute()
    assert metrics.box["AP"] == metrics.mask["AP"] == pytest.approx(1)
    assert metrics.box["AR100"] == metrics.mask["AR100"] == pytest.approx(1)
    assert metrics.per_class["ring"]["mask_AP"] == pytest.approx(1)
    assert metrics.images == 6


def test_a_class_without_annotations_counts_in_no_average(make_dataset: MakeDataset, filled: Filled) -> None:
    metrics = filled(make_dataset(), jitter=6.0).compute()
    absent = metrics.per_class["absent"]
    assert absent["instances"] == 0
    assert absent["box_AP"] == absent["mask_AP50"] == -1
    assert metrics.as_dict()["per_class"]["absent"]["box_AP"] is None
    mean = (metrics.per_class["star"]["box_AP"] + metrics.per_class["ring"]["box_AP"]) / 2
    assert metrics.box["AP"] == pytest.approx(mean)
    json.dumps(metrics.as_dict(), allow_nan=False)


def test_finding_nothing_scores_zero(make_dataset: MakeDataset, detections: LookUp) -> None:
    dataset = make_dataset()
    assert CocoEvaluator(dataset).compute().mask["AP50"] == 0
    image_id = dataset.records[0].id
    evaluator = evaluator_of(dataset, {image_id: detections(dataset, int(image_id))[:0]})
    metrics = evaluator.compute()
    assert list(evaluator.results) == []
    assert metrics.box["AP"] == metrics.mask["AR100"] == 0


def test_a_data_set_without_annotations(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(edit=lambda content: content["annotations"].clear())
    metrics = CocoEvaluator(dataset).compute()
    assert metrics.box["AP"] == metrics.mask["AR1"] == -1
    assert metrics.as_dict()["mask"]["AP"] is None


def test_absent_areas_are_measured(make_dataset: MakeDataset, filled: Filled) -> None:
    def forget_areas(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            del entry["area"]

    metrics = filled(make_dataset(edit=forget_areas), jitter=4.0).compute()
    assert metrics == filled(make_dataset(), jitter=4.0).compute()


def test_image_ids_may_be_text(make_dataset: MakeDataset, filled: Filled) -> None:
    def name_images(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = f"image {image['id']}"
        for entry in content["annotations"]:
            entry["image_id"] = f"image {entry['image_id']}"

    evaluator = filled(make_dataset(edit=name_images))
    assert evaluator.compute() == filled(make_dataset()).compute()
    assert evaluator.results[0]["image_id"] == "image 10"


def test_an_object_without_a_mask_counts_for_boxes_only(make_dataset: MakeDataset, filled: Filled) -> None:
    def forget_mask(content: dict[str, Any]) -> None:
        next(entry for entry in content["annotations"] if not entry["iscrowd"])["segmentation"] = []

    metrics = filled(make_dataset(edit=forget_mask)).compute()
    assert metrics.box["AR100"] < 1
    assert metrics.mask["AR100"] == pytest.approx(1)


def test_results_are_in_coco_format(make_dataset: MakeDataset, filled: Filled, detections: LookUp) -> None:
    dataset = make_dataset()
    entry = json.loads(json.dumps(filled(dataset, jitter=3.0).results[0]))
    assert sorted(entry) == ["bbox", "category_id", "image_id", "score", "segmentation"]
    assert entry["segmentation"]["size"] == [120, 160]
    assert isinstance(entry["segmentation"]["counts"], str)
    x1, y1, x2, y2 = detections(dataset, 10, jitter=3.0).boxes[0].tolist()
    assert entry["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=5.1e-4)


def test_a_detector_of_boxes_alone_is_scored_by_boxes(make_dataset: MakeDataset, detections: LookUp) -> None:
    def forget_masks(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["segmentation"] = []

    drawn, boxes_only = make_dataset(), make_dataset(edit=forget_masks)
    scored = []
    for dataset in (drawn, boxes_only):
        found = {record.id: detections(drawn, record.id, jitter=6.0) for record in dataset.records}
        evaluator = evaluator_of(dataset, {id: replace(one, mask_probs=None) for id, one in found.items()})
        assert "segmentation" not in evaluator.results[0]
        scored.append(evaluator.compute())
    assert scored[0] == scored[1]
    assert scored[0].mask == {}
    assert 0.1 < scored[0].box["AP"] < 0.95
    stream = io.StringIO()
    print_metrics(scored[0], Console(file=stream, width=80))
    assert "box" in stream.getvalue()
    assert "mask" not in stream.getvalue()


def test_more_than_255_detections_of_an_image(make_dataset: MakeDataset, detections: LookUp) -> None:
    """pycocotools counts the masks whose areas it is asked for in 8 bits."""
    dataset = make_dataset()
    few = detections(dataset, 10, jitter=6.0)
    evaluator = evaluator_of(dataset, {10: few[torch.arange(300) % len(few)]})
    assert len(evaluator.results) == 300
    assert evaluator.compute().mask == pycocotools_stats(dataset, evaluator.results, "segm")


@pytest.mark.parametrize("names", [("bolt [m8]", "bolt [m10]"), ("nut [/m8]", "[red]")])
def test_classes_with_brackets_are_shown_as_they_are(names: tuple[str, str]) -> None:
    values = dict.fromkeys(NAMES, 0.5)
    row = {f"{kind}_{name}": 0.5 for kind in ("box", "mask") for name in NAMES} | {"instances": 3.0}
    stream = io.StringIO()
    print_metrics(Metrics(values, values, dict.fromkeys(names, row), 2), Console(file=stream, width=80))
    assert all(name in stream.getvalue() for name in names)


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_hostile_sets_score_as_pycocotools_has_them(start: int, tmp_path: Path) -> None:
    """All 24 figures and those of each class; `hostile_sets.py 500` compares more."""
    assert [wrong for seed in range(start, start + 10) for wrong in differences(seed, tmp_path)] == []


def test_recall_is_named_by_the_limit(make_dataset: MakeDataset, detections: LookUp) -> None:
    dataset = make_dataset()
    for limit, names in ((300, ["AR1", "AR10", "AR300"]), (5, ["AR1", "AR5"])):
        metrics = evaluator_of(dataset, {10: detections(dataset, 10)}, limit=limit).compute()
        assert [name for name in metrics.box if name[2:].isdecimal() and name[:2] == "AR"] == names
        assert "box_AR100" not in metrics.per_class["star"]
        stream = io.StringIO()
        print_metrics(metrics, Console(file=stream, width=80))
        assert names[-1] in stream.getvalue()
