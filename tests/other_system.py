"""Runs commands as on Windows: without what only Unix has, and with readers that are started anew (`spawn`).

    python tests/other_system.py FOLDER [WORKERS]

Run by `test_other_systems.py` in a process of its own, which it spoils.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import signal
import sys
from pathlib import Path

MODULES = ("resource", "fcntl", "pwd", "grp", "termios")
OF_OS = ("fork", "getuid", "getpgid", "setsid", "killpg", "sched_getaffinity", "statvfs", "mkfifo", "nice")
OF_OS += ("getloadavg",)
SIGNALS = ("SIGHUP", "SIGALRM", "SIGBUS", "SIGKILL", "SIGUSR1")


def spoil(workers: int) -> None:
    """Takes away what this process could do on Unix; libraries that need it are loaded already."""
    import cv2  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch.utils.data  # noqa: F401
    import torchvision.ops  # noqa: F401

    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    signals = SIGNALS if workers else (*SIGNALS, "SIGCHLD")  # PyTorch's loader goes by the name of the system
    for holder, names in ((os, OF_OS), (signal, signals)):
        for name in names:
            if hasattr(holder, name):
                delattr(holder, name)
    plain = os.open

    def open_files(path: str, flags: int, *rest: int, **options: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return plain(path, flags, *rest, **options)

    os.open = open_files  # type: ignore[assignment]
    multiprocessing.set_start_method("spawn", force=True)


def import_everything() -> None:
    import gcnet

    for module in pkgutil.walk_packages(gcnet.__path__, "gcnet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main(folder: Path, workers: int = 0) -> int:
    spoil(workers)
    import_everything()
    from gcnet.cli import main as gcnet
    from gcnet.lab.context_shapes import write_context_shapes

    data = write_context_shapes(folder / "data", train=2, valid=2, seed=0, size=96)
    run, small = folder / "run", ["--image-size", "[96,96]", "--workers", str(workers)]
    train = [
        "train",
        "mask_rcnn_tiny_gc4",
        "--data",
        str(data),
        "--weights",
        "none",
        "--out",
        str(run),
        *small,
    ]
    commands = (
        [*train, "--epochs", "1", "--batch-size", "2"],
        ["train", "--config", str(run / "recipe.yaml"), "--resume", "--epochs", "2"],
        ["eval", str(run), "--data", str(data), "--workers", str(workers), "--out", str(folder / "scores")],
        ["predict", str(run), str(data / "valid"), "--out", str(folder / "found")],
        ["convert", str(run), str(folder / "model.safetensors")],
        ["data", "convert", str(data), str(folder / "yolo"), "--to", "yolo"],
        ["data", str(data), "--out", str(folder / "page.html")],
        ["attention", str(run), str(next((data / "valid").glob("*.png"))), "--out", str(folder / "seen")],
        ["benchmark", str(run), "--size", "96x96", "--repeats", "1", "--out", str(folder / "speed")],
    )
    for command in commands:
        if code := gcnet(command):
            print(f"gcnet {command[0]} ended with {code}")
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
