"""Ground truth drawn on images: all of a data set, each in a file of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gcnet.console import progress_bar
from gcnet.data.dataset import DataSet, ImageRecord
from gcnet.errors import GCNetError
from gcnet.files import prepare_folder
from gcnet.ops.images import write_image
from gcnet.prediction.names import OutputNames, check_inputs
from gcnet.viz import draw_targets


def draw_all(splits: Mapping[str, DataSet[ImageRecord]], out: Path) -> list[str]:
    """Draws each image with its objects in `out`/SPLIT, under its own name; what could not be read is told.

    Raises GCNetError where nothing can be written, or an image of the data set would be replaced.
    """
    tasks = []
    for split, dataset in splits.items():
        names = OutputNames([record.path for record in dataset.records])
        check_inputs(names, out / split)
        folder = prepare_folder(out / split)
        tasks += [(dataset, index, folder / names.picture(index)) for index in range(len(dataset))]

    def draw(task: tuple[DataSet[ImageRecord], int, Path]) -> str | None:
        dataset, index, target = task
        try:
            image = dataset.read_image(index)
        except GCNetError as error:
            return str(error)
        write_image(target, draw_targets(image, dataset.records[index], dataset.class_names))
        return None

    with progress_bar(transient=True) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = list(bar.track(pool.map(draw, tasks), total=len(tasks), description="drawing"))
    return [problem for problem in failed if problem]
