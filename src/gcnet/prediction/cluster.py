"""Predicts the images of a Ray data set. Ray schedules the work, and repeats what a lost worker had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gcnet.errors import needs
from gcnet.prediction.files import is_detector, ready
from gcnet.prediction.formats import ImageFound, image_row, row_schema
from gcnet.prediction.steps import Classify, Detect
from gcnet.prediction.stream import Done, predict_all


class Worker:
    """A model in one of Ray's processes. `load` returns it and its score threshold."""

    def __init__(self, load: Callable[[], tuple[Any, float]], *, top: int, max_pixels: int) -> None:
        model, score_threshold = load()
        self.of_detector = is_detector(model)
        self.model, _ = ready(model)
        self.max_pixels = max_pixels
        if self.of_detector:
            self.steps = partial(Detect, self.model, score_threshold=score_threshold)
        else:
            self.steps = partial(Classify, self.model, top=top, with_sheet=False)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Any:
        """The columns of `row_schema`, and the others of the batch except `bytes`, as an Arrow table."""
        arrow = needs("pyarrow", "ray")
        contents = batch.get("bytes")
        count = len(next(iter(batch.values())))
        paths = list(map(str, batch.get("path", [f"image {number} of a batch" for number in range(count)])))
        done: dict[int, Done] = {}
        predict_all(
            self.steps(paths=paths),
            paths,
            range(count),
            lambda one: done.update({one.index: one}),
            max_pixels=self.max_pixels,
            content=None if contents is None else lambda index: bytes(contents[index]),
        )
        names = self.model.spec.class_names if self.of_detector else ()
        rows = [image_row(ImageFound.of(done[i].entry, done[i].found), names) for i in range(count)]
        table = arrow.Table.from_pylist(rows, schema=row_schema(arrow, of_detector=self.of_detector))
        table = table.drop_columns([name for name in ("id", "file_name") if name in table.column_names])
        for name, values in batch.items():
            if name != "bytes" and name not in table.column_names:
                table = table.append_column(name, arrow.array(list(values)))
        return table
