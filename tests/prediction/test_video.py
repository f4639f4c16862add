"""Videos: what is read, followed, written and drawn, with a detector that is exact."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from gcnet.errors import GCNetError
from gcnet.found import Found
from gcnet.prediction import video as module
from gcnet.prediction.video import follow
from gcnet.prediction.video_files import AHEAD, Frame, Video, VideoFile

av = pytest.importorskip("av")

SIZE = (90, 120)  # height, width
COLORS = np.array([[230, 30, 30], [30, 60, 230]])  # of a disc and a square


def frame_at(number):
    """A disc that goes right and a square that goes left below it, on gray."""
    image = np.full((*SIZE, 3), 128, np.uint8)
    cv2.circle(image, (15 + 4 * number, 25), 10, COLORS[0].tolist(), -1)
    cv2.rectangle(image, (95 - 4 * number, 55), (110 - 4 * number, 75), COLORS[1].tolist(), -1)
    return image


def write(path, count=20, code="MJPG", rate=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, SIZE[::-1])
    for number in range(count):
        writer.write(frame_at(number)[..., ::-1])
    writer.release()
    return path


class Exact:
    """Finds the shapes by their colours, the square last; after `stop` frames Ctrl-C is pressed."""

    def __init__(self, stop=None):
        self.spec, self.stop, self.seen = SimpleNamespace(class_names=("disc", "square")), stop, 0
        self.batches = []

    def prepare(self, image):
        return image[None]

    def predict(self, images, *, score_threshold):
        self.batches.append(len(images))
        return [self._in(image) for image in images]

    def _in(self, image):
        if self.seen == self.stop:
            raise KeyboardInterrupt
        self.seen += 1
        masks = [np.abs(image.astype(int) - color).sum(-1) < 150 for color in COLORS]
        places = [np.argwhere(mask) for mask in masks]
        boxes = np.array([[*place.min(0)[::-1], *(place.max(0)[::-1] + 1)] for place in places], np.float32)
        ones = np.ones((2, 28, 28), np.float32)
        scores = np.array([0.9, 0.8], np.float32)
        return Found(boxes, scores, np.arange(2), ones, image.shape[:2], boxes)


class Positions:
    """In place of ByteTrack: the place of an object among those of its frame."""

    def __init__(self, score_threshold):
        pass

    def update(self, found, seconds):
        return np.arange(len(found))


@pytest.fixture
def by_place(monkeypatch):
    monkeypatch.setattr(module, "Tracker", Positions)


def lines(folder):
    return [json.loads(line) for line in (folder / "objects.jsonl").read_text().splitlines()]


def times(path):
    with av.open(str(path)) as file:
        return [float(frame.time) for frame in file.decode(video=0)]


def test_objects_are_followed(tmp_path):
    pytest.importorskip("trackers")
    seen = follow(Exact(), Video(str(write(tmp_path / "v.avi"))), tmp_path / "out", progress=False)
    assert (seen.frames, seen.tracks, seen.failure, list(seen.remarks)) == (20, 2, "", [])
    rows = lines(tmp_path / "out")
    assert [row["frame"] for row in rows] == list(range(20))
    assert [one["track"] for one in rows[0]["objects"]] == [None, None]
    assert {one["class_name"]: one["track"] for one in rows[1]["objects"]} == {"disc": 0, "square": 1}
    for row in rows[1:]:
        assert [(one["class_name"], one["track"]) for one in row["objects"]] == [("disc", 0), ("square", 1)]


def test_faint_objects_only_go_on_with_a_track(tmp_path):
    pytest.importorskip("trackers")
    from gcnet.prediction.tracks import Tracker

    tracker = Tracker(0.5)
    boxes = np.array([[10, 10, 30, 30], [60, 60, 80, 80]], np.float32)

    def look(number, scores):
        moved = boxes + np.float32(number)
        found = Found(moved, np.array(scores, np.float32), np.zeros(2, np.int64), None, SIZE, moved)
        return tracker.update(found, number / 10).tolist()

    assert look(0, [0.9, 0.2]) == [-1, -1]
    assert look(1, [0.9, 0.2]) == [0, -1]
    assert look(2, [0.2, 0.2]) == [0, -1]
    assert look(3, [0.9, 0.9]) == [0, -1]
    assert look(4, [0.9, 0.9]) == [0, 1]


def test_a_threshold_may_be_lower_than_that_of_faint_objects(tmp_path, by_place):
    class Faint(Exact):
        def predict(self, images, *, score_threshold):
            found = super().predict(images, score_threshold=score_threshold)
            faint = [replace(one, scores=np.array([0.9, 0.07], np.float32)) for one in found]
            return [one[one.scores > score_threshold] for one in faint]

    video = Video(str(write(tmp_path / "v.avi")), most=1)
    follow(Faint(), video, tmp_path / "out", score_threshold=0.05, draw=False, progress=False)
    assert [one["score"] for one in lines(tmp_path / "out")[0]["objects"]] == [0.9, 0.07]


def test_lines_and_the_drawn_video_have_what_is_found(tmp_path, by_place):
    path = write(tmp_path / "v.avi")
    follow(Exact(), Video(str(path)), tmp_path / "out", progress=False)
    row = lines(tmp_path / "out")[4]
    assert row["seconds"] == pytest.approx(0.4)
    disc, square = row["objects"]
    assert disc["box"] == pytest.approx([21, 15, 42, 36], abs=1)
    assert (square["score"], square["label"], square["track"]) == (0.8, 1, 1)
    from pycocotools import mask as coco_mask

    assert int(coco_mask.decode(square["mask"]).sum()) == pytest.approx(16 * 21, rel=0.1)
    drawn = tmp_path / "out" / "drawn.mp4"
    assert times(drawn) == pytest.approx(np.arange(20) / 10)
    with av.open(str(drawn)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        frames = [one.to_ndarray(format="rgb24") for one in file.decode(video=0)]
    assert frames[4].shape == (*SIZE, 3)
    assert np.abs(frames[4].astype(int) - frame_at(4)).max() > 60  # something is drawn


def test_sides_of_odd_length_are_written_with_a_pixel_more(tmp_path):
    image = np.full((31, 45, 3), 90, np.uint8)
    file = VideoFile(tmp_path / "v.mp4", Frame(0, 0.0, image))
    file.add(image, 0.0)
    file.add(image[:20, :30], 0.1)  # a camera that changes its mind
    file.close()
    with av.open(str(tmp_path / "v.mp4")) as written:
        frames = [one.to_ndarray(format="rgb24") for one in written.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 46, 3)] * 2
    assert np.abs(frames[1].astype(int) - 90).max() < 8


def test_some_frames_can_be_left_out(tmp_path, by_place):
    path = write(tmp_path / "v.avi")
    video = Video(str(path), every=3, most=5)
    assert video.total == 5
    seen = follow(Exact(), video, tmp_path / "out", draw=False, progress=False)
    assert (seen.frames, seen.failure) == (5, "")
    assert [row["frame"] for row in lines(tmp_path / "out")] == [0, 3, 6, 9, 12]
    assert not (tmp_path / "out" / "drawn.mp4").exists()
    assert Video(str(path), every=3).total == 7


def test_a_call_that_draws_nothing_leaves_no_older_drawing(tmp_path, by_place):
    path, drawn = str(write(tmp_path / "v.avi", 4)), tmp_path / "out" / "drawn.mp4"
    follow(Exact(), Video(path), tmp_path / "out", progress=False)
    assert drawn.exists()
    follow(Exact(), Video(path), tmp_path / "out", draw=False, progress=False)
    assert not drawn.exists()


def test_frames_are_predicted_some_at_a_time(tmp_path, by_place):
    path, detector = str(write(tmp_path / "v.avi", 8)), Exact()
    seen = follow(detector, Video(path), tmp_path / "3", batch_size=3, progress=False)
    follow(Exact(), Video(path), tmp_path / "1", progress=False)
    assert (seen.frames, detector.batches) == (8, [3, 3, 2])
    assert lines(tmp_path / "3") == lines(tmp_path / "1")


def test_ctrl_c_leaves_whole_files(tmp_path, by_place):
    path = write(tmp_path / "v.avi")
    with pytest.raises(KeyboardInterrupt):
        follow(Exact(stop=7), Video(str(path)), tmp_path / "out", progress=False)
    assert len(lines(tmp_path / "out")) == 7
    assert len(times(tmp_path / "out" / "drawn.mp4")) == 7


def test_no_more_frames_are_read_than_are_used_soon(tmp_path):
    video = Video(str(write(tmp_path / "v.avi")))
    frames = video.frames()
    for number in range(8):
        assert next(frames).number == number
        assert video.read <= number + AHEAD + 2
    frames.close()
    assert not video.capture.isOpened()


def test_a_video_that_is_cut_short_is_named_and_what_there_is_kept(tmp_path, by_place):
    path = write(tmp_path / "v.avi")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = follow(Exact(), Video(str(path)), tmp_path / "out", progress=False)
    assert 5 < seen.frames < 15
    assert f"v.avi ends after {seen.frames} of 20 frames: it is damaged or cut short" in seen.failure
    assert len(lines(tmp_path / "out")) == seen.frames


def test_a_frame_that_cannot_be_decoded_ends_the_video(tmp_path, by_place, monkeypatch):
    video = Video(str(write(tmp_path / "v.avi")))
    convert = cv2.cvtColor

    def fails_once(image, code):
        if video.read == 4:
            raise cv2.error("out of memory")
        return convert(image, code)

    monkeypatch.setattr(cv2, "cvtColor", fails_once)
    seen = follow(Exact(), video, tmp_path / "out", draw=False, progress=False)
    assert seen.frames == 3
    assert "ends after 4 of 20 frames" in seen.failure


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_one_line(tmp_path, content):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(GCNetError, match=r"v\.mp4 cannot be opened: it is no video, damaged, or cut short"):
        Video(str(tmp_path / "v.mp4"))


def test_an_mp4_without_its_end_is_one_line(tmp_path):
    path = write(tmp_path / "v.mp4", code="mp4v")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(GCNetError, match="damaged, or cut short"):
        Video(str(path))


@pytest.mark.parametrize("source", ["97", "rtsp://127.0.0.1:9/camera"])
def test_a_camera_that_is_not_there_is_one_line(source):
    with pytest.raises(GCNetError, match=f"{source} cannot be opened: it does not answer"):
        Video(source)


def test_a_camera_that_goes_away_is_named(tmp_path, by_place, monkeypatch):
    video = Video(str(write(tmp_path / "v.avi", 6)))
    video.live, video.expected = True, 0
    seen = follow(Exact(), video, tmp_path / "out", progress=False)
    assert seen.failure.endswith("v.avi gives no more frames")
    assert len(lines(tmp_path / "out")) == seen.frames > 0


def test_frames_that_come_unevenly_keep_their_times(tmp_path, by_place):
    given = [0.0, 0.1, 0.2, 0.5, 0.6, 1.4]
    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 122, 90, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, seconds in enumerate(given):
            image = cv2.resize(frame_at(number), (122, 90))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    seen = follow(Exact(), Video(str(tmp_path / "v.mp4")), tmp_path / "out", progress=False)
    assert [row["seconds"] for row in lines(tmp_path / "out")] == pytest.approx(given, abs=0.002)
    assert times(tmp_path / "out" / "drawn.mp4") == pytest.approx(given, abs=0.002)
    assert list(seen.remarks) == [f"{tmp_path / 'v.mp4'}: frames come unevenly, 1.2 to 10.0 in a second"]


def test_frames_of_a_file_without_times_come_at_its_rate(tmp_path):
    with av.open(str(tmp_path / "v.h264"), "w", format="h264") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE[::-1], "yuv420p"
        for number in range(6):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_at(number), format="rgb24")))
        file.mux(stream.encode(None))
    seconds = [frame.seconds for frame in Video(str(tmp_path / "v.h264")).frames()]
    assert len(seconds) == 6
    assert seconds == pytest.approx(np.arange(6) * seconds[1])
    assert 0.01 < seconds[1] < 0.2


def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = write(tmp_path / "v.avi").rename(tmp_path / os.fsdecode(b"\xff.avi"))
    with pytest.raises(GCNetError, match="rename the video"):
        Video(str(path))
    with pytest.raises(GCNetError, match="it does not answer"):
        Video("9" * 20)


def test_the_drawn_video_never_replaces_what_is_read(tmp_path, by_place):
    write(tmp_path / "drawn.mp4", code="mp4v")
    with pytest.raises(GCNetError, match="would replace"):
        follow(Exact(), Video(str(tmp_path / "drawn.mp4")), tmp_path, progress=False)
    assert len(times(tmp_path / "drawn.mp4")) == 20


@pytest.mark.parametrize("name", ["drawn.mp4", "objects.jsonl"])
def test_files_of_others_stay(tmp_path, by_place, name):
    """Also where nothing is drawn: of the second such call the drawn video would be that of the first."""
    path, out = str(write(tmp_path / "v.avi")), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    for draw in (True, False, False):
        with pytest.raises(GCNetError, match=f"{name} would be replaced"):
            follow(Exact(), Video(path), out, draw=draw, progress=False)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "mine")]
