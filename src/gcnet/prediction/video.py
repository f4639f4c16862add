"""Predicts a video: its objects and their tracks as JSON lines, and drawn as a video."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from gcnet.console import progress_bar
from gcnet.errors import GCNetError, check_threshold
from gcnet.files import alone_in, prepare_folder
from gcnet.found import Found
from gcnet.ops.images import together
from gcnet.prediction.steps import DetectorLike
from gcnet.prediction.tracks import FAINT, UNTRACKED, Tracker
from gcnet.prediction.video_files import Frame, Video, VideoFile
from gcnet.viz.objects import draw_detections

OBJECTS, DRAWN = "objects.jsonl", "drawn.mp4"


@dataclass(frozen=True)
class Seen:
    """The result of a video: counts, remarks, and why it ended early."""

    frames: int
    tracks: int
    remarks: Sequence[str]
    failure: str


def follow(
    detector: DetectorLike,
    video: Video,
    out: str | os.PathLike[str],
    *,
    score_threshold: float = 0.5,
    draw: bool = True,
    batch_size: int = 1,
    progress: bool = True,
) -> Seen:
    """Detects and tracks the objects of a video; writes `objects.jsonl` and `drawn.mp4` in `out`.

    A line is a frame: `frame`, its number; `seconds`; `objects`, each with `track`, `box` (x1, y1, x2, y2),
    `score`, `label`, `class_name` and `mask`, a run-length encoding of COCO's. `track` is null in the first
    frame of a track. What scores above `score_threshold` is written, and fainter ones that go on with a
    track. Lines are on disk as soon as their frame is done, and whatever ends the call leaves whole files.
    `batch_size` frames are predicted at a time: of a camera, they wait for each other.

    Raises GCNetError if the packages for tracks are missing, or `out` cannot be written or holds something
    else under these names.
    """
    check_threshold(score_threshold)
    folder = prepare_folder(out)
    if (folder / DRAWN).exists() and Path(video.source).exists() and (folder / DRAWN).samefile(video.source):
        raise GCNetError(f"the drawn video would replace {video.source}; choose another --out")
    tracker, numbers, count = Tracker(score_threshold), set[int](), 0
    lowest = min(FAINT, score_threshold)
    with alone_in(folder), progress_bar(disable=not progress, rate="frames") as bar:
        _check_own(folder)
        task = bar.add_task("following", total=video.total)
        with _Writer(folder, detector.spec.class_names, draw) as writer:
            frames = video.frames()
            while some := list(itertools.islice(frames, batch_size)):
                prepared = together([detector.prepare(frame.image) for frame in some])
                for frame, found in zip(
                    some, detector.predict(prepared, score_threshold=lowest), strict=True
                ):
                    found = found.on_cpu().arrays()
                    tracks = tracker.update(found, frame.seconds)
                    kept = (found.scores > score_threshold) | (tracks != UNTRACKED)
                    writer.add(frame, found[kept], tracks[kept])
                    numbers.update(tracks[tracks != UNTRACKED].tolist())
                    count += 1
                    bar.advance(task)
    done = video.most is not None and count == video.most
    return Seen(count, len(numbers), video.remarks(), "" if done else video.ended_early)


def _check_own(folder: Path) -> None:
    """Raises GCNetError if there are files under our names that are not of an earlier video.

    A drawn video is one where our lines are beside it, so that a call that does not draw refuses others, too.
    """
    foreign = DRAWN if (folder / DRAWN).exists() else ""
    if (folder / OBJECTS).exists():
        with open(folder / OBJECTS, "rb") as file:
            foreign = "" if file.read(10) in (b"", b'{"frame": ') else OBJECTS
    if foreign:
        raise GCNetError(f"{folder / foreign} would be replaced; remove it or choose another folder")


class _Writer:
    """Writes the results of a frame while the next one is predicted."""

    def __init__(self, folder: Path, class_names: Sequence[str], draw: bool) -> None:
        self.folder, self.class_names, self.draw = folder, class_names, draw
        self.drawing: VideoFile | None = None
        self.pending: Future[None] | None = None

    def __enter__(self) -> _Writer:
        self.pool = ThreadPoolExecutor(1)
        if (self.folder / OBJECTS).exists():  # of an earlier call, which may have drawn
            (self.folder / DRAWN).unlink(missing_ok=True)
        # A line is one call of the system: it is there whole or not at all.
        self.lines = open(self.folder / OBJECTS, "wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.pending is not None:
                self.pending.result()
        finally:
            self.pool.shutdown()
            self.lines.close()
            if self.drawing is not None:
                self.drawing.close()

    def add(self, frame: Frame, found: Found, tracks: Int64[np.ndarray, " D"]) -> None:
        """Adds a frame, after the one before has been written."""
        if self.pending is not None:
            self.pending.result()
        self.pending = self.pool.submit(self._write, frame, found, tracks)

    def _write(self, frame: Frame, found: Found, tracks: Int64[np.ndarray, " D"]) -> None:
        objects = _objects(found, tracks, self.class_names)
        line = {"frame": frame.number, "seconds": round(frame.seconds, 3), "objects": objects}
        self.lines.write(json.dumps(line).encode() + b"\n")
        if self.draw:
            self.drawing = self.drawing or VideoFile(self.folder / DRAWN, frame)
            image = draw_detections(frame.image, found, self.class_names, tracks=tracks)
            self.drawing.add(image, frame.seconds)


def _objects(
    found: Found, tracks: Int64[np.ndarray, " D"], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The objects of a frame as plain values."""
    columns = (tracks, found.boxes, found.scores, found.labels)
    masks = found.encoded() or [None] * len(found)
    objects: list[dict[str, Any]] = []
    for track, box, score, label, counts in zip(*(one.tolist() for one in columns), masks, strict=True):
        one = {"track": None if track == UNTRACKED else track, "box": [round(side, 2) for side in box]}
        one |= {"score": round(score, 5), "label": label, "class_name": class_names[label]}
        if counts is not None:
            one["mask"] = {"size": list(found.image_size), "counts": counts.decode("ascii")}
        objects.append(one)
    return objects
