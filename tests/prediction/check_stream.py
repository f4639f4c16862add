"""Many small pictures: memory stays flat, and a call that is killed twice ends as an unbroken one does.

    python tests/prediction/check_stream.py FOLDER 20000 [MODEL]

Without a MODEL a stand-in finds two objects in each picture: it shows what the stream takes, not the network.
Run by hand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # to `fakes`


def make_pictures(folder: Path, count: int) -> None:
    import cv2
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        if not path.exists():
            coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(coarse, (64, 64)))


def predict(photos: Path, count: int, out: Path, model: str) -> None:
    from fakes import Finds

    import gcnet
    from gcnet.image_files import find_images
    from gcnet.prediction.files import predict_files
    from gcnet.prediction.wanted import Wanted

    paths = find_images([photos])[:count]
    if not model:
        wanted = Wanted(("coco-results", "jsonl"), overlays=False, images_a_file=1000)
        predict_files(Finds(), paths, out, score_threshold=0.3, wanted=wanted, progress=False)
        return
    formats = ("coco-results", "jsonl")
    gcnet.predict(model, paths, out=out, overlays=False, format=formats, device="cpu", score_threshold=0.55)


def run(photos: Path, count: int, out: Path, model: str, kill_at: int = 0) -> tuple[int, float]:
    """The largest memory [MB] of a call, and its processor time [s]; killed when so many images are done."""
    words = [sys.executable, __file__, "--call", str(photos), str(count), str(out), model]
    process = subprocess.Popen(words)
    journal = out / "unfinished.jsonl"
    ended, status, usage = os.wait4(process.pid, os.WNOHANG if kill_at else 0)
    while not ended:
        time.sleep(0.2)
        if journal.exists() and journal.read_bytes().count(b"\n") > kill_at:
            os.kill(process.pid, signal.SIGKILL)  # Popen.kill would take the end away from wait4
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -9):
        sys.exit(f"the call ended with {process.returncode}")
    return usage.ru_maxrss // 1024, usage.ru_utime + usage.ru_stime


def main(folder: Path, count: int, model: str) -> None:
    photos = folder / "photos"
    make_pictures(photos, count)
    for part in (count // 20, count // 2, count):
        memory, seconds = run(photos, part, folder / f"whole-{part}", model)
        print(f"{part} images: {memory} MB at most, {seconds:.0f} s of a processor", flush=True)
    out = folder / "killed"
    for kill_at in (count // 4, count * 3 // 5, 0):
        memory, _ = run(photos, count, out, model, kill_at)
        print(f"{f'killed after {kill_at} images' if kill_at else 'resumed'}: {memory} MB", flush=True)
    whole = folder / f"whole-{count}"
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in out.iterdir()), names
    for name in names:
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    print(f"{len(names)} files are equal, {sum((whole / name).stat().st_size for name in names):,} bytes")


if __name__ == "__main__":
    if sys.argv[1] == "--call":
        predict(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5])
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
