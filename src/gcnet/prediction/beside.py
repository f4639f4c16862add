"""Files about an image, written beside the results as soon as it is predicted.

H x W images, RGB uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gcnet.evaluation.results import ImageResults
from gcnet.found import Found
from gcnet.ops.images import write_image
from gcnet.prediction.names import OutputNames
from gcnet.viz.objects import draw_detections


@dataclass(frozen=True)
class Beside:
    """Writes the files of these `kinds`: "overlay"."""

    folder: Path
    kinds: Sequence[str]
    names: OutputNames
    class_names: Sequence[str]
    score_threshold: float

    def __call__(
        self, index: int, image: UInt8[np.ndarray, "H W 3"], found: Found, results: ImageResults
    ) -> dict[str, Any]:
        if "overlay" not in self.kinds:
            return {}
        name = self.names.picture(index)
        overlay = draw_detections(image, found, self.class_names, self.score_threshold)
        write_image(self.folder / name, overlay)
        return {"overlay": name}
