"""Tracks objects from frame to frame with ByteTrack (arXiv 2110.06864) of the package trackers.

D detections.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from gcnet.errors import needs
from gcnet.found import Found

UNTRACKED = -1
FAINT = 0.1  # lowest score of a detection that can continue a track
LOST_AFTER = 1.0  # seconds without a sight


class Tracker:
    """Assigns track numbers to objects, frame by frame.

    Objects that score above `score_threshold` begin tracks, fainter ones only go on with those that there
    are. A track has its number from its second frame on.
    """

    def __init__(self, score_threshold: float) -> None:
        """Raises GCNetError if the package is missing."""
        self.boxes = needs("supervision", "video").Detections
        self.tracker = needs("trackers", "video").ByteTrackTracker(
            lost_track_buffer=round(30 * LOST_AFTER),  # of a video with 30 frames a second: it goes by time
            track_activation_threshold=score_threshold,
            high_conf_det_threshold=score_threshold,
        )

    def update(self, found: Found, seconds: float) -> Int64[np.ndarray, " D"]:
        """The track of each object in the next frame, from 0 on; `UNTRACKED` where it has none.

        Args:
            found: all that is in the frame, down to scores of `FAINT`, or `score_threshold` if that is lower.
            seconds: when it was taken; frames need not come evenly.
        """
        tracks = np.full(len(found), UNTRACKED, np.int64)
        given = self.boxes(
            xyxy=found.boxes.astype(np.float64),
            confidence=found.scores,
            class_id=found.labels,
            data={"place": np.arange(len(found))},
        )
        followed = self.tracker.update(given, timestamp=seconds)
        if len(found):
            tracks[followed.data["place"].astype(np.int64)] = followed.tracker_id
        return tracks
