"""Memory and file handles of one process over a long training and many predictions, drawn as a PNG.

    python benchmarks/long_run.py [OUT.png] [--iterations 2000] [--images 5000]

The tiny detector, generated images, one reader process. Printed: memory and handles after a tenth, and at the
end, of each part; a leak of a kilobyte an image would show.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gcnet import predict, train
from gcnet.lab.context_shapes import write_context_shapes

EVERY = 0.5  # seconds between two looks


class Watch:
    """Megabytes and open files of this process, looked at in a thread."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes = pages * resource.getpagesize() / 2**20
            self.seen.append((megabytes, len(os.listdir("/proc/self/fd"))))


def main() -> None:
    """Runs both parts and draws them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("long-run.png"))
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--images", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = write_context_shapes(root / "data", train=8, valid=2, seed=0, size=96)
        images = root / "images"
        images.mkdir()
        sources = sorted((data / "train").glob("*.jpg")) + sorted((data / "train").glob("*.png"))
        for number in range(options.images):
            shutil.copy(sources[number % len(sources)], images / f"{number:05}{sources[0].suffix}")
        small = {"image_size": (96, 96), "batch_size": 2, "epochs": options.iterations // 4, "workers": 1}
        quiet = {"loggers": (), "accelerator": "cpu", "validate_every": 10**6}
        run = root / "run"
        parts: dict[str, Callable[[], object]] = {
            f"{options.iterations} iterations of training": lambda: train(
                "mask_rcnn_tiny_gc4", data, out=run, weights="none", **small, **quiet
            ),
            f"{options.images} predicted images": lambda: predict(
                run, images, out=root / "found", device="cpu", overlays=False, progress=False
            ),
        }
        for axes, (title, part) in zip(panels, parts.items(), strict=True):
            with Watch() as watch:
                part()
            megabytes, handles = zip(*watch.seen, strict=True)
            tenth = len(megabytes) // 10
            print(
                f"{title}: {megabytes[tenth]:.0f} MB and {handles[tenth]} files after a tenth, "
                f"{megabytes[-1]:.0f} MB and {handles[-1]} at the end",
                flush=True,
            )
            axes.plot([EVERY * place for place in range(len(megabytes))], megabytes, label="MB")
            axes.plot([EVERY * place for place in range(len(handles))], handles, label="open files")
            axes.set_title(title)
            axes.set_xlabel("seconds")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
