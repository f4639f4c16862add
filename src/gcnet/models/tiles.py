"""How a large image is cut into tiles that overlap."""

from __future__ import annotations

from dataclasses import dataclass

from gcnet.errors import GCNetError

LEAST_TILE = 32  # pixels: less is no image to a detector
MOST_OVERLAP = 0.8


@dataclass(frozen=True)
class View:
    """The part of an image that one prediction sees, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Tiles:
    """Squares of `side` pixels that cover an image; neighbours share `overlap` of a side."""

    side: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.side < LEAST_TILE:
            raise GCNetError(f"a tile of {self.side} pixels is too small; give {LEAST_TILE} or more")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise GCNetError(f"an overlap of {self.overlap} is not in [0, {MOST_OVERLAP}]; 0.2 is usual")

    def views(self, size: tuple[int, int]) -> list[View]:
        """The whole image of `size` (height, width), then its tiles; no tiles if it is no larger.

        All tiles are of one size: they lie evenly, so that the last ends where the image does.
        """
        height, width = size
        whole = View(0, 0, width, height)
        if max(size) <= self.side:
            return [whole]
        tall, wide = min(self.side, height), min(self.side, width)
        places = [(top, left) for top in self._starts(height) for left in self._starts(width)]
        return [whole, *(View(left, top, left + wide, top + tall) for top, left in places)]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        step = max(int(self.side * (1 - self.overlap)), 1)
        count = -(-(length - self.side) // step) + 1
        apart = (length - self.side) / (count - 1)
        return [round(index * apart) for index in range(count)]
