"""The views of an image in inference: tiles, sizes and mirror images. This does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gcnet.errors import GCNetError
from gcnet.models.tiles import Tiles

LEAST_SCALE, MOST_SCALE = 0.1, 10.0
MOST_SCALES = 10  # maps of all scales are held at once


@dataclass(frozen=True)
class Views:
    """The tiles, sizes and mirroring of an image in inference.

    Each of `scales` is a factor on the size that the model resizes images to; with `flip`, the mirror image
    is looked at in each size too. Raises GCNetError for scales that make no sense.
    """

    tiles: Tiles | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        count = len(self.scales)
        if not 1 <= count <= MOST_SCALES or len(set(self.scales)) < count:
            raise GCNetError(f"{count} scales: give 1 to {MOST_SCALES} that differ, such as 0.8,1,1.25")
        for scale in self.scales:
            if not LEAST_SCALE <= scale <= MOST_SCALE:
                raise GCNetError(
                    f"a scale of {scale:g} is not in [{LEAST_SCALE}, {MOST_SCALE:g}]; 1 is as trained"
                )

    @classmethod
    def of(cls, tile: int | None, overlap: float, flip: bool, scales: Sequence[float]) -> Views:
        """Views from the arguments of `gcnet.predict`."""
        return cls(None if tile is None else Tiles(tile, overlap), flip, tuple(scales))

    @property
    def augmented(self) -> bool:
        """Whether there are several sizes or mirror images."""
        return self.flip or self.scales != (1.0,)

    @property
    def plain(self) -> bool:
        """Whether there is one view, the image itself."""
        return self.tiles is None and not self.augmented

    def as_dict(self) -> dict[str, Any]:
        """The settings for the record of a call; empty for one plain view."""
        tiles = {} if self.tiles is None else {"tile": self.tiles.side, "overlap": self.tiles.overlap}
        flip = {"flip": True} if self.flip else {}
        return tiles | flip | ({} if self.scales == (1.0,) else {"scales": list(self.scales)})

    def check_model(self, name: str, *, is_detector: bool) -> None:
        """Raises GCNetError for a classifier, unless there is one plain view."""
        if not is_detector and not self.plain:
            raise GCNetError(f"{name} is an image classifier; tiles, flip and scales are for detectors")

    def through(self, detector: Any, batch_size: int) -> Any:
        """The `detector`, wrapped so that it predicts these views, `batch_size` at a time.

        The detector is a `Detector`; for tiles alone an `ExportedDetector` will do. Raises GCNetError for an
        export and other views, whose masks need its mask head a second time.
        """
        if self.augmented:
            if not hasattr(detector, "roi_heads"):
                raise GCNetError("flip and scales need a model; an export cannot look at an image twice")
            from gcnet.models.augmented import Augmented

            detector = Augmented(detector, flip=self.flip, scales=self.scales, batch_size=batch_size)
            batch_size = 1
        if self.tiles is None:
            return detector
        from gcnet.models.tiled import Tiled

        return Tiled(detector, self.tiles, batch_size)
