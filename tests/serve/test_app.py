"""The service's answers: those of the model, in JSON; and what is refused, in one line."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import gcnet
from gcnet.models.detector import Detector
from gcnet.serve.app import Limits, Service, make_app
from gcnet.serve.served import Served
from gcnet.weights.create import create_model

Picture = Callable[..., bytes]


def send(client: TestClient, data: bytes, name: str = "a.png", **fields: Any) -> Any:
    return client.post("/predict", files={"image": (name, data)}, data=fields)


def test_the_answer_is_that_of_gcnet_predict(
    client: TestClient, detector: Detector, picture: Picture, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture())
    out = tmp_path / "out"
    gcnet.predict(detector.optimize(), file, out=out, score_threshold=0.3, overlays=False, progress=False)
    results = json.loads((out / "results.json").read_bytes())
    answer = send(client, file.read_bytes(), score_threshold=0.3).json()
    assert (answer["width"], answer["height"]) == (120, 80)
    assert len(answer["detections"]) == len(results) > 5
    for got, wanted in zip(answer["detections"], results, strict=True):
        x, y, width, height = wanted["bbox"]
        np.testing.assert_allclose(got["box"], [x, y, x + width, y + height], atol=2e-3)
        assert (got["score"], got["label"]) == (wanted["score"], wanted["category_id"])
        assert got["class_name"] == "ab"[got["label"]]
        assert got["mask"] == wanted["segmentation"]


def test_bytes_alone_and_options_in_the_query(client: TestClient, picture: Picture) -> None:
    whole = send(client, picture(), score_threshold=0.3, masks="none").json()
    for kind in ("image/png", "application/octet-stream", "image/jpeg"):
        query = {"score_threshold": "0.3", "masks": "none"}
        answer = client.post("/predict", content=picture(), params=query, headers={"Content-Type": kind})
        assert answer.json() == whole
    assert whole["detections"][0]["mask"] is None


def test_outlines_lie_in_the_boxes(client: TestClient, picture: Picture) -> None:
    found = send(client, picture(), masks="polygon", score_threshold=0.3).json()["detections"]
    assert sum(len(one["mask"]) for one in found) > len(found) / 2
    for one in found:
        for outline in one["mask"]:
            points = np.array(outline).reshape(-1, 2)
            assert (points >= np.array(one["box"][:2]) - 1).all()
            assert (points <= np.array(one["box"][2:]) + 1).all()


def test_many_at_once_of_several_sizes_get_what_each_gets_alone(detector: Detector, picture: Picture) -> None:
    sizes = [(120, 80), (80, 120), (120, 80), (100, 100), (121, 80), (120, 80)] * 2
    files = [picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    with TestClient(make_app(Served.of(detector), Limits(queue=100))) as client:
        alone = [send(client, data, masks="none").json() for data in files]
        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda data: send(client, data, masks="none").json(), files))
        metrics = client.get("/metrics").text
    for one, other in zip(alone, together, strict=True):
        assert len(one["detections"]) == len(other["detections"]) > 0
        for a, b in zip(one["detections"], other["detections"], strict=True):
            np.testing.assert_allclose(a["box"], b["box"], atol=2e-3)
            assert abs(a["score"] - b["score"]) < 2e-6
    assert 'gcnet_requests_total{path="/predict",status="200"} 24.0' in metrics
    assert "gcnet_images_total 24.0" in metrics


def test_who_would_wait_too_long_is_refused_at_once(detector: Detector, picture: Picture) -> None:
    app = make_app(Served(detector), Limits(timeout=20.0))
    with TestClient(app) as client:
        assert send(client, picture()).status_code == 200
        service = app.state.service
        assert 0 < service.pace < 10
        service.held, service.pace = 8, 2.0
        answer = send(client, picture())
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "8"
        service.held = 0
        assert send(client, picture()).status_code == 200


def test_the_drawing_has_the_image_s_size(client: TestClient, picture: Picture) -> None:
    answer = client.post("/draw?score_threshold=1", files={"image": picture()})
    plain = np.asarray(Image.open(io.BytesIO(answer.content)), int)
    assert answer.headers["content-type"] == "image/jpeg"
    assert plain.shape == (80, 120, 3)
    drawn = client.post("/draw", files={"image": picture()}).content
    assert np.abs(np.asarray(Image.open(io.BytesIO(drawn)), int) - plain).mean() > 1


def test_attention_maps(client: TestClient, picture: Picture) -> None:
    answer = client.post("/attention", files={"image": picture(200, 100)}).json()
    assert [one["block"][:2] for one in answer["maps"]] == ["c3", "c4", "c5"]
    assert answer["filled"] == [1.0, pytest.approx(64 / 64)]
    for one, side in zip(answer["maps"], (16, 8, 4), strict=True):
        values = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["png"]))))
        assert values.shape == (side // 2, side)
        assert values.max() > 0
    check_refused(client.post("/attention?top=1", content=picture()), 422)


def test_a_classifier(picture: Picture) -> None:
    classifier = create_model("resnet_tiny_gc4", class_names=("a", "b", "c")).eval()
    with TestClient(make_app(Served.of(classifier))) as client:
        answer = send(client, picture(), top=2).json()
        expected = classifier.predict_images(picture(), top=2)[0]
        assert [one["class_name"] for one in answer["classes"]] == list(expected.names)
        assert send(client, picture(), score_threshold=0.5).status_code == 422
        assert client.post("/draw", files={"image": picture()}).status_code == 404


def test_health_and_the_description_of_the_api(client: TestClient) -> None:
    assert client.get("/health").json() == {"live": True, "ready": True, "model": "mask_rcnn_tiny"}
    assert client.get("/health/live").status_code == 200
    api = client.get("/openapi.json").json()
    assert {"/predict", "/draw", "/attention", "/health"} <= set(api["paths"])
    assert "/predict/urls" not in api["paths"]
    assert client.post("/predict/urls", json={"urls": ["http://example.org"]}).status_code in (404, 405)
    form = api["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"image", "score_threshold", "masks"}
    for page in ("/", "/docs"):
        assert not re.findall(r"(?:src|href|url)\W*(?:https?:)?//", client.get(page).text)


# What is refused ------------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../a.jpg"))
    return file.getvalue()


BAD_PICTURES = {
    "empty": (b"", 400),
    "text": (b"this is no picture", 415),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", 415),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415),
    "pdf": (b"%PDF-1.7\n", 415),
    "archive": (archive(), 415),
    "html": (b"<!doctype html><script>alert(1)</script>", 415),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_what_is_no_picture(client: TestClient, kind: str) -> None:
    data, status = BAD_PICTURES[kind]
    check_refused(send(client, data, "a.jpg"), status)


def test_cut_pictures_and_bombs(client: TestClient, picture: Picture) -> None:
    check_refused(send(client, cut(picture(format="JPEG"))), 415)
    check_refused(send(client, cut(picture())), 415)
    for format in ("PNG", "WEBP", "GIF"):
        file = io.BytesIO()
        Image.new("L", (2000, 2000)).save(file, format)
        assert len(file.getvalue()) < 100_000
        check_refused(send(client, file.getvalue()), 413)
    check_refused(send(client, bytes(100_001)), 413)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 5000, "\x00.png", "a\r\nX: y.png", "%2e%2e/"])
def test_a_file_s_name_does_not_matter(client: TestClient, picture: Picture, name: str) -> None:
    answer = send(client, picture(), name)
    assert answer.status_code in (200, 400)
    assert "passwd" not in answer.text


def test_forms_that_are_none(client: TestClient, picture: Picture) -> None:
    image = ("image", ("a.png", picture()))
    many = {f"field{n}": "1" for n in range(1000)}
    check_refused(client.post("/predict", files=[image], data=many), 400)
    check_refused(client.post("/predict", files=[image, image]), 400)
    check_refused(client.post("/predict", data={"image": "a.png"}, files={"other": b"1"}), 400)
    check_refused(client.post("/predict", files=[image], data={"masks": "x" * 100_000}), 413)
    long: Any = {"files": [image], "data": {"masks": "x" * 10_000}}
    for form in (long, {"files": {"image": (None, picture())}}):
        check_refused(answer := client.post("/predict", **form), 400)
        assert "a field of the form has more than 1,000 bytes; an image has to be" in answer.text
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary="):
        check_refused(client.post("/predict", content=b"--y\r\n", headers={"Content-Type": kind}), 400)
    for kind in ("text/plain", "application/json", "x" * 500, "application/x-www-form-urlencoded"):
        check_refused(client.post("/predict", content=picture(), headers={"Content-Type": kind}), 415)
    check_refused(client.post("/predict"), 400)


def test_large_forms_need_no_disk(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with TestClient(make_app(Served.of(detector)), raise_server_exceptions=False) as client:
        check_refused(send(client, bytes(2_000_000)), 415)  # read, and then no image


def test_an_error_of_the_service_is_in_its_log(
    detector: Detector, picture: Picture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Any, data: bytes) -> Any:
        raise ZeroDivisionError("told to the log alone")

    monkeypatch.setattr(Service, "decode", fails)
    with TestClient(make_app(Served.of(detector)), raise_server_exceptions=False) as client:
        check_refused(answer := send(client, picture()), 500)
    assert "told to the log" not in answer.text
    assert "told to the log alone" in caplog.text


def test_what_a_proxy_says_of_a_client_is_printable_in_the_log(
    detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("INFO", "gcnet.serve"),
        TestClient(make_app(Served.of(detector)), client=("\x9b31m", 0)) as client,
    ):
        client.get("/health")
    assert r"\x9b31m GET /health 200" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", "nan"),
        ("score_threshold", "inf"),
        ("score_threshold", "-0.1"),
        ("score_threshold", "1.1"),
        ("score_threshold", "a\nb"),
        ("score_threshold", ""),
        ("masks", "bitmap"),
        ("treshold", "0.5"),
    ],
)
def test_options_that_make_no_sense(client: TestClient, picture: Picture, name: str, value: str) -> None:
    in_form = send(client, picture(), **{name: value})
    in_query = client.post("/predict", content=picture(), params={name: value})
    for answer in (in_form, in_query):
        check_refused(answer, 422)
        assert name in answer.json()["detail"]


def test_other_paths_and_methods(client: TestClient) -> None:
    for path in ("/", "/docs", "/health", "/health/live", "/metrics", "/openapi.json", "/page.js"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    check_refused(client.get("/predict"), 405)
    check_refused(client.get("/../../etc/passwd"), 404)
    check_refused(client.post("/nothing"), 404)


def check_refused(answer: Any, status: int) -> None:
    """One JSON message of one line, which is no traceback."""
    assert answer.status_code == status, answer.text
    message = json.loads(answer.content)
    assert list(message) == ["detail"]
    assert isinstance(message["detail"], str)
    assert 0 < len(message["detail"]) < 400
    assert "\n" not in message["detail"]
    assert "Traceback" not in message["detail"]
