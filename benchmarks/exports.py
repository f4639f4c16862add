"""What exports find beside their models, and how long they take: a row for each model, written as it is done.

    python benchmarks/exports.py --out exports.json [NAME ...]
    python benchmarks/exports.py --to torch --out programs.json [NAME ...]

The second compares programs of torch.export with their models, and measures nothing else.

Weights are random: no figure depends on what is found, but that much is. Models take images of --size, by
default so small that a row takes minutes. Seconds are of the processor, on one thread, the median of runs in
turn: other work on the machine changes them little. The same call goes on where an earlier one ended.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gcnet import list_models
from gcnet.deploy.comparing import compare
from gcnet.deploy.exporting import export
from gcnet.deploy.onnx_files import write_openvino
from gcnet.deploy.runtime import ExportedDetector, load_export
from gcnet.device import keep_freed_memory
from gcnet.files import write_json
from gcnet.lab.subjects import busy_detector
from gcnet.models.detector import Detector
from gcnet.models.spec import LibrarySpec

Size = tuple[int, int]  # height and width
ROUNDS = 5
FIRST = (  # one of each kind
    "mask_rcnn_r50_gc4",
    "mask_rcnn_tiny_gc4",
    "mask_rcnn_x101_syncbn_gc4",
    "cascade_mask_rcnn_x101_syncbn_dcn_gc4",
    "faster_rcnn_r50_gc4",
    "mask_rcnn_r101_syncbn_gc16",
    "cascade_mask_rcnn_x101_syncbn_gc4",
    "mask_rcnn_r50_syncbn_gc4_4conv1fc",
    "mask_rcnn_convnext_tiny_gc4",
)


def main() -> None:
    """Measures, and prints the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="(all detectors)")
    parser.add_argument("--to", choices=["runtimes", "torch"], default="runtimes")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--out", type=Path, default=Path("exports.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `gcnet predict` does
    detectors = [name for name in list_models() if not name.startswith("resnet")]
    rows = json.loads(options.out.read_bytes()) if options.out.exists() else {}
    size = (options.size[0], options.size[1])
    way, line = (measure, _line) if options.to == "runtimes" else (compare_program, _line_of_program)
    for name in options.names or sorted(detectors, key=lambda name: (name not in FIRST, *_place(name))):
        if name not in rows:
            rows[name] = way(_detector(name, size), size)
            write_json(options.out, rows)
        print(line(name, rows[name]), flush=True)


def _place(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else 0, name)


def _detector(name: str, size: Size) -> Detector:
    """With blocks and offsets that change something, as those of a trained model do."""
    detector = busy_detector(name)
    torch.manual_seed(1)
    for parameter in detector.backbone.parameters():
        if parameter.dim() == 4 and not parameter.any():
            nn.init.normal_(parameter, std=0.01)
    if isinstance(detector.spec.backbone, LibrarySpec):  # its maps are large: all scores would be 1
        for head in detector.roi_heads.box_stages:
            head.cls.weight.data /= 5
    detector.spec = replace(detector.spec, image_size=(max(size), min(size)))
    return detector


def _image(size: Size) -> np.ndarray:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 200, (size[0] // 16, size[1] // 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    return image + rng.integers(0, 56, image.shape, np.uint8)


def compare_program(detector: Detector, size: Size) -> dict[str, Any]:
    """Differences between a program of torch.export, written and read again, and eager."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        apart = export(detector, Path(folder) / "model.pt2", image=_image(size), size=size)
    return asdict(apart) | {"seconds": time.process_time() - start}


def measure(detector: Detector, size: Size) -> dict[str, Any]:
    """Differences to eager, seconds of the processor, and megabytes, by runtime."""
    image = _image(size)
    with tempfile.TemporaryDirectory() as folder:
        onnx, openvino = Path(folder) / "model.onnx", Path(folder) / "model.xml"
        start = time.process_time()
        export(detector, onnx, size=size)
        seconds = {"export": time.process_time() - start}
        megabytes = onnx.stat().st_size / 1e6
        files: dict[str, ExportedDetector] = {}
        loaded = load_export(onnx, threads=1)
        assert isinstance(loaded, ExportedDetector)
        files["onnxruntime"] = loaded
        failed = ""
        try:
            write_openvino(onnx, openvino, loaded.details)
            read = load_export(openvino, threads=1)
            assert isinstance(read, ExportedDetector)
            files["openvino"] = read
        except Exception as error:
            failed = str(error)[:300]
    apart = {name: asdict(compare(detector, file, image)) for name, file in files.items()}
    ways: dict[str, Callable[[Any], Any]] = {"eager": detector.predict_images}
    ways["optimize"] = detector.optimize().predict_images
    ways |= {name: file.predict_images for name, file in files.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            start = time.process_time()
            way(image)
            taken[name].append(time.process_time() - start)
    seconds |= {name: statistics.median(times[1:]) for name, times in taken.items()}
    return {"apart": apart, "seconds": seconds, "megabytes": megabytes, "openvino_failed": failed}


def _line(name: str, row: dict[str, Any]) -> str:
    """A row of the table in docs/export.md."""
    apart = [_apart(row["apart"].get(runtime)) for runtime in ("onnxruntime", "openvino")]
    seconds = [row["seconds"].get(way) for way in ("eager", "optimize", "onnxruntime", "openvino")]
    times = ["-" if one is None else f"{one:.2f}" for one in seconds]
    return f"| {' | '.join([f'`{name}`', *apart, *times, format(row['megabytes'], '.0f')])} |"


def _line_of_program(name: str, row: dict[str, Any]) -> str:
    return f"| `{name}` | {row['detections']} | {_apart(row)} |"


def _apart(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    alone = found["missing"] + found["added"]
    words = f"{found['box_px']:.0e}, {found['score']:.0e}, {found['mask_share']:.1%}"
    return f"{words}, {alone} alone" if alone else words


if __name__ == "__main__":
    main()
