"""`gcnet video` finds and tracks the objects of a video.

It writes a line of JSON for each frame, and the video with the objects drawn. The exit code is 1 if the video
or camera ended too early.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gcnet.api.choices import shown_from
from gcnet.api.predict import predict
from gcnet.commands.arguments import MODEL, Parser, model_of, number, only_detector
from gcnet.files import check_writable


def run(argv: list[str]) -> int:
    """Tracks the objects, writes lines and a drawn video. 1 if a video or camera ended early."""
    options = _parser().parse(argv)
    chosen = model_of(options)
    views = chosen.views(options.tile, options.overlap, options.flip, options.scales, options.batch_size)
    check_writable(options.out)

    from gcnet.prediction.steps import through_views
    from gcnet.prediction.video import DRAWN, OBJECTS, follow
    from gcnet.prediction.video_files import Video

    video = Video(options.video, every=options.every, most=options.max_frames)
    detector = only_detector(chosen.load())
    threshold = shown_from(detector, options.score_threshold)
    detector, batch_size = through_views(detector, views, options.batch_size)
    seen = follow(
        detector, video, options.out, score_threshold=threshold, draw=options.draw, batch_size=batch_size
    )
    for line in seen.remarks:
        print(f"note: {line}")
    drawn = f" and {options.out / DRAWN}" if options.draw else ""
    print(f"{seen.tracks} tracks in {seen.frames} frames: {options.out / OBJECTS}{drawn}")
    if seen.failure:
        print(seen.failure, file=sys.stderr)
    return 1 if seen.failure else 0


def _parser() -> Parser:
    parser = Parser("video", "MODEL VIDEO [--out DIR]", __doc__)
    parser.add_options(predict, MODEL)
    parser.add_option("video", str, "a file, a camera's number such as 0, or an address such as rtsp://...")
    parser.add_option("--out", Path, "a folder for the results", Path("video"))
    least = "score from which a detection begins a track; lower ones only continue one (as in gcnet predict)"
    parser.add_option("--score-threshold", number(float, 0, 1), least)
    parser.add_option("--every", number(int, 1), "predict only every N-th frame", 1)
    parser.add_option("--max-frames", number(int, 1), "largest number of frames to predict (all)")
    parser.add_option("--draw", bool, "also write the video with objects drawn", True)
    parser.add_option(
        "--batch-size", number(int, 1), "frames at a time; of a camera, they wait for each other", 1
    )
    parser.add_options(predict, ("precision", "max_detections", "tile", "overlap", "flip", "scales"))
    return parser
