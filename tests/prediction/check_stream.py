"""Many small pictures: memory stays flat, and a call that is killed twice ends as an unbroken one does.

    python tests/prediction/check_stream.py FOLDER 20000 [MODEL]

Without a MODEL a stand-in finds two objects in each picture: it shows what the stream takes, not the network.
Pictures that are in FOLDER/photos already are kept. Run by hand, on Linux.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # to `fakes`

EACH = 2500  # images from one reading of the memory that is shown to the next


def make_pictures(folder: Path, count: int) -> None:
    import cv2
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:06}.jpg"
        if not path.exists():
            coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(path), cv2.resize(coarse, (64, 64)))


def find_with_stand_in(photos: Path, out: Path) -> None:
    from fakes import Finds

    from gcnet.image_files import find_images
    from gcnet.prediction.files import predict_files
    from gcnet.prediction.wanted import Wanted

    wanted = Wanted(("coco-results", "jsonl"), overlays=False, images_a_file=1000)
    paths = find_images([photos])
    predict_files(Finds(), paths, out, score_threshold=0.3, wanted=wanted, progress=False)


def run(photos: Path, out: Path, model: str, kill_at: int = 0) -> None:
    """One call, killed when so many images are done: says its memory as it goes, and its processor time."""
    words = [sys.executable, __file__, "--call", str(photos), str(out)]
    if model:
        words = [sys.executable, "-m", "gcnet", "predict", model, str(photos), "--out", str(out)]
        words += ["--format", "coco-results", "jsonl", "--images-a-file", "1000", "--no-overlays"]
        words += ["--device", "cpu", "--score-threshold", "0.2"]
    process = subprocess.Popen(words)
    journal, resident, done = out / "unfinished.jsonl", {}, 0
    ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    while not ended:
        time.sleep(0.2)
        if journal.exists():
            with contextlib.suppress(OSError):  # it is removed at the end
                done = max(done, journal.read_bytes().count(b"\n"))
        kilobytes = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        if kilobytes:  # it still lives
            resident[done // EACH * EACH] = int(kilobytes[1]) // 1024
        if kill_at and done > kill_at:
            os.kill(process.pid, signal.SIGKILL)  # Popen.kill would take the end away from wait4
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -9):
        sys.exit(f"the call ended with {process.returncode}")
    print(
        f"killed after {kill_at} images:" if kill_at else "to the end:",
        f"{usage.ru_maxrss // 1024} MB at most, {usage.ru_utime + usage.ru_stime:.0f} s of a processor;",
        "MB from so many images on:",
        ", ".join(f"{images}: {megabytes}" for images, megabytes in resident.items()),
        flush=True,
    )


def main(folder: Path, count: int, model: str) -> None:
    photos, whole, out = folder / "photos", folder / "whole", folder / "killed"
    make_pictures(photos, count)
    run(photos, whole, model)
    for kill_at in (count // 4, count * 3 // 5, 0):
        run(photos, out, model, kill_at)
    names = sorted(path.name for path in whole.glob("[!.]*"))
    assert names == sorted(path.name for path in out.glob("[!.]*")), names
    for name in names:
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    print(f"{len(names)} files are equal, {sum((whole / name).stat().st_size for name in names):,} bytes")


if __name__ == "__main__":
    if sys.argv[1] == "--call":
        find_with_stand_in(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
