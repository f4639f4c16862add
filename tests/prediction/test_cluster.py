"""A Ray Data pipeline of two workers, of which one is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fakes import Finds, write_photos

import gcnet
from gcnet.errors import GCNetError
from gcnet.image_files import find_images
from gcnet.prediction.cluster import Worker
from gcnet.prediction.files import predict_files

pytest.importorskip("pyarrow")


class Mortal(Finds):
    """Its process is killed at the tenth image, once."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def predict(self, prepared: Any, *, score_threshold: float = 0.05) -> list[Any]:
        if self.calls == 10 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(prepared, score_threshold=score_threshold)


def test_a_worker_gives_the_rows_of_its_images(tmp_path: Path) -> None:
    paths = find_images([write_photos(tmp_path / "photos", 3)])
    Path(paths[1]).write_bytes(b"broken")
    worker = Worker(lambda: (Finds(), 0.3), top=5, max_pixels=10_000)
    by_path = worker({"path": paths, "number": [7, 8, 9]}).to_pylist()
    by_bytes = worker({"bytes": [Path(path).read_bytes() for path in paths]}).to_pylist()
    assert [row["number"] for row in by_path] == [7, 8, 9]
    assert [row["detections"] for row in by_path] == [row["detections"] for row in by_bytes]
    found = predict_files(Finds(), paths, score_threshold=0.3, progress=False)
    boxes = [one["box"] for row in by_path for one in row["detections"] or ()]
    assert [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes] == [one["bbox"] for one in found.results]
    assert "not an image" in by_path[1]["error"]
    assert by_path[0]["error"] is None


def test_columns_of_the_data_set_hide_no_results(tmp_path: Path) -> None:
    paths = find_images([write_photos(tmp_path / "photos", 2)])
    worker = Worker(lambda: (Finds(), 0.3), top=5, max_pixels=10_000)
    table = worker({"path": paths, "width": [1, 2], "detections": [None, None], "id": [7, 8]})
    assert len(set(table.column_names)) == len(table.column_names)
    rows = table.to_pylist()
    assert [(row["id"], row["width"], len(row["detections"])) for row in rows] == [(7, 32, 2), (8, 32, 2)]


def test_a_data_set_without_images(tmp_path: Path) -> None:
    class Numbers:
        def columns(self) -> list[str]:
            return ["id"]

    with pytest.raises(GCNetError, match="has columns id; images are in one called path or bytes"):
        gcnet.predict_dataset(Numbers(), tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    paths = find_images([write_photos(tmp_path / "photos", 100)])
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}
    handler = signal.getsignal(signal.SIGTERM)  # which Ray replaces, and leaves so
    ray.init(num_cpus=3, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    try:
        images = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=10)
        model = Mortal(tmp_path / "mark")
        found = gcnet.predict_dataset(images, model, batch_size=5, workers=2, score_threshold=0.3)
        rows = found.take_all()
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)
    assert model.mark.exists()
    assert sorted(row["path"] for row in rows) == paths
    assert all([one["class_name"] for one in row["detections"]] == ["ring", "star"] for row in rows)
