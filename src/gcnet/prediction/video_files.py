"""Reads videos and cameras ahead in a thread, and writes videos.

H x W frames, RGB uint8. Only a few frames are held.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from gcnet.errors import GCNetError, needs
from gcnet.image_files import MAX_PIXELS

AHEAD = 4  # frames that wait to be looked at
TICKS = 1000  # of the written video's clock in a second
UNEVEN = 1.5  # how much faster than the slowest frames the fastest come where that is said
GUESSED_RATE = 30.0  # frames in a second, where a file says neither their times nor how many
GUESSED = 0.02  # some files only tell how long they are, not how many frames they have


@dataclass(frozen=True)
class Frame:
    """A frame: its number in the video from 0 on, when it was taken in seconds, and its pixels."""

    number: int
    seconds: float
    image: UInt8[np.ndarray, "H W 3"]


@dataclass
class Video:
    """A file, a camera by its number ("0"), or a stream's address (rtsp://...), opened.

    A thread reads ahead. Of one that is `live` frames are left out that nobody has time for. Of a file
    `expected` is how many frames it should have, if it says so. `read` are those that came, and `rates` the
    lowest and the highest number of them in a second.

    Raises GCNetError if it is no video that can be read.
    """

    source: str
    every: int = 1
    most: int | None = None
    live: bool = False
    expected: int = 0
    read: int = 0
    rates: tuple[float, float] = (np.inf, 0.0)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its message is in our error
        # Silent, by the name of OpenCV 4 or of 5.
        (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)
        address = self.source.isdecimal() or "://" in self.source
        if not address and not Path(self.source).is_file():
            raise GCNetError(f"{self.source} is no file; give a video, a camera's number or an address")
        if re.search("[\ud800-\udfff]", self.source):  # OpenCV ends the process at a name that is no UTF-8
            raise GCNetError(f"{self.source} has a name that cannot be passed on; rename the video")
        self.capture = (
            cv2.VideoCapture(min(int(self.source), 1 << 30))
            if self.source.isdecimal()
            else cv2.VideoCapture(self.source, cv2.CAP_FFMPEG)
        )
        if not self.capture.isOpened():
            why = "it does not answer" if address else "it is no video, damaged, or cut short"
            raise GCNetError(f"{self.source} cannot be opened: {why}; give another")
        width, height, count = (
            int(self.capture.get(name))
            for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
        )
        if width * height > MAX_PIXELS:
            raise GCNetError(
                f"{self.source} has frames of {width} x {height}: more than {MAX_PIXELS:,} pixels"
            )
        self.expected = max(count, 0)
        self.live = address and not self.expected

    @property
    def total(self) -> int | None:
        """The number of frames, if it is known."""
        count = -(-self.expected // self.every) if self.expected else None
        return min(filter(None, (count, self.most)), default=None)

    def frames(self) -> Iterator[Frame]:
        """Every `every`-th frame, at most `most` of them."""
        ready: queue.Queue[Frame | None] = queue.Queue(AHEAD)
        thread = threading.Thread(target=self._read, args=(ready,), daemon=True)
        thread.start()
        try:
            while (frame := ready.get()) is not None:
                yield frame
        finally:
            self._stop.set()
            thread.join(timeout=5)

    def _read(self, ready: queue.Queue[Frame | None]) -> None:
        with contextlib.suppress(cv2.error, MemoryError):  # ends the video, which is then told as short
            for frame in self._decoded():
                self._hand_over(ready, frame)
        self._hand_over(ready, None, last=True)
        self.capture.release()

    def _decoded(self) -> Iterator[Frame]:
        begin, before, looked = time.monotonic(), None, 0
        rate = self.capture.get(cv2.CAP_PROP_FPS) or GUESSED_RATE
        while not self._stop.is_set() and looked != self.most and self.capture.grab():
            number, self.read = self.read, self.read + 1
            of_file = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 or number / rate  # raw .h264 has none
            seconds = time.monotonic() - begin if self.live else of_file
            if before is not None and seconds > before and not self.live:
                rate = 1 / (seconds - before)
                self.rates = min(self.rates[0], rate), max(self.rates[1], rate)
            before = seconds
            if number % self.every:
                continue
            whole, pixels = self.capture.retrieve()
            if not whole:
                break
            looked += 1
            yield Frame(number, seconds, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))

    def _hand_over(
        self, ready: queue.Queue[Frame | None], frame: Frame | None, *, last: bool = False
    ) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(frame, timeout=0.1)
                return
            if self.live and not last:
                with contextlib.suppress(queue.Empty):
                    ready.get_nowait()

    def remarks(self) -> list[str]:
        """Remarks for the user, after the video has been read."""
        low, high = self.rates
        if high <= UNEVEN * low:
            return []
        return [f"{self.source}: frames come unevenly, {low:.1f} to {high:.1f} in a second"]

    @property
    def ended_early(self) -> str:
        """Why frames are missing at the end; empty if none are."""
        if self.live:
            return f"{self.source} gives no more frames"
        missing = self.expected - self.read
        if missing > max(1, self.expected * GUESSED):
            said = f"{self.source} ends after {self.read} of {self.expected} frames"
            return f"{said}: it is damaged or cut short"
        return ""


class VideoFile:
    """A video that is written, H.264 in MP4, which browsers play. Frames keep their times."""

    def __init__(self, path: Path, frame: Frame) -> None:
        """Raises GCNetError if it cannot be written."""
        av = needs("av", "video")
        height, width = frame.image.shape[:2]
        self.size, self.last, self.frame_of = (height, width), -1, av.VideoFrame.from_ndarray
        self.clock = Fraction(1, TICKS)
        try:
            self.file = av.open(os.fspath(path), "w", format="mp4")
            self.stream = self.file.add_stream("libx264", rate=30)
        except (OSError, ValueError) as error:
            raise GCNetError(f"cannot write {path}: {error}") from None
        self.stream.width, self.stream.height = width + width % 2, height + height % 2
        self.stream.pix_fmt, self.stream.time_base = "yuv420p", self.clock
        self.stream.codec_context.time_base = self.clock

    def add(self, image: UInt8[np.ndarray, "H W 3"], seconds: float) -> None:
        """Adds a frame, resized to the size of the first."""
        if image.shape[:2] != self.size:
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        right, bottom = (side % 2 for side in (self.size[1], self.size[0]))
        even = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        frame = self.frame_of(even, format="rgb24")
        self.last = max(round(seconds * TICKS), self.last + 1)
        frame.pts, frame.time_base = self.last, self.clock
        self.file.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Completes the file."""
        self.file.mux(self.stream.encode(None))
        self.file.close()
