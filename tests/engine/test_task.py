"""What a detector is scored by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gcnet.data.dataset import DataSet, ImageRecord, Instance
from gcnet.engine.task import task_of
from gcnet.models.spec import ModelSpec


def test_boxes_say_what_is_best_where_no_object_has_an_outline() -> None:
    item = Instance(1, 0, (0.0, 0.0, 9.0, 9.0), [], 81.0, crowd=False)
    records = [ImageRecord(1, Path("1.png"), 20, 20, (item,))]
    bare = DataSet(Path("none.json"), records, ("square",), (1,))
    outlined = replace(
        bare, records=[replace(records[0], instances=(replace(item, segmentation=[np.eye(3, 2)]),))]
    )
    spec = ModelSpec(name="fake", class_names=("square",))
    assert [task_of(spec, dataset).best_by for dataset in (None, outlined, bare)] == [
        *("mask_AP", "mask_AP", "box_AP")
    ]
