"""The service behind a real socket: bodies that are large, slow or never end, full queues, and its stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gcnet.models.detector import Detector
from gcnet.serve.app import Limits, make_app
from gcnet.serve.served import Served
from gcnet.weights.files import save_model

Picture = Callable[..., bytes]


class Held(Served):
    """A model that waits until it may go on."""

    go = threading.Event()

    def predict(self, asked: Sequence[Any]) -> Any:
        assert self.go.wait(20)
        return super().predict(asked)


@pytest.fixture(scope="module")
def served(detector: Detector) -> Served:
    Held.go.set()
    return Held(detector)


class Running:
    """A service in a thread."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(
            uvicorn.Config(make_app(served, limits), log_config=None, log_level="error", ws="none")
        )
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.address = self.listener.getsockname()

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    def post(self, data: Any, path: str = "/predict?masks=none", **headers: str) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        connection.request("POST", path, data, {"Content-Type": "image/png", **headers})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body, answer.headers


@pytest.fixture(scope="module")
def running(served: Served) -> Iterator[Running]:
    with Running(served, Limits(queue=2, max_bytes=1_000_000, timeout=3.0)) as running:
        yield running


def test_a_hundred_megabytes(running: Running) -> None:
    """Declared or not, and without ever holding them."""
    status, body, _ = running.post(bytes(100_000_000))
    assert (status, list(body)) == (413, ["detail"])
    chunks = (bytes(1_000_000) for _ in range(100))
    status, body, _ = running.post(chunks)
    assert (status, list(body)) == (413, ["detail"])


def test_a_body_that_drips(running: Running) -> None:
    started = time.monotonic()
    with socket.create_connection(running.address, timeout=20) as sender:
        head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
        sender.sendall(head.encode())
        sender.settimeout(0.2)
        answer = b""
        while not answer and time.monotonic() - started < 15:
            sender.sendall(b"x")
            try:
                answer = sender.recv(10_000)
            except TimeoutError:
                continue
    assert b" 408 " in answer.splitlines()[0]
    assert 1.4 < time.monotonic() - started < 10


def test_a_sender_that_leaves_frees_its_place(running: Running, picture: Picture) -> None:
    for _ in range(5):
        with socket.create_connection(running.address) as sender:
            sender.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
    deadline = time.monotonic() + 10
    while (status := running.post(picture())[0]) != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 200


def test_what_is_no_http(running: Running) -> None:
    for words in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000):
        with socket.create_connection(running.address, timeout=5) as sender:
            sender.sendall(words + b"\r\n\r\n")
            assert b" 400 " in sender.recv(1000).splitlines()[0]


def test_a_full_queue_and_a_late_answer(running: Running, picture: Picture) -> None:
    Held.go.clear()
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(running.post, picture()) for _ in range(2)]
        while running.server.config.app.state.service.held < 2:  # type: ignore[union-attr]
            time.sleep(0.01)
        status, body, headers = running.post(picture())
        assert (status, list(body)) == (429, ["detail"])
        assert int(headers["Retry-After"]) > 0
        late = [future.result(20) for future in first]
    assert [status for status, _, _ in late] == [504, 504]
    Held.go.set()
    assert running.post(picture())[0] == 200


def test_a_stop_finishes_what_was_accepted(served: Served, picture: Picture) -> None:
    Held.go.clear()
    with ThreadPoolExecutor(3) as pool, Running(served, Limits()) as running:
        service = running.server.config.app.state.service  # type: ignore[union-attr]
        accepted = [pool.submit(running.post, picture(seed=n)) for n in range(3)]
        while service.held < 3:
            time.sleep(0.01)
        running.server.should_exit = True
        time.sleep(0.2)
        with pytest.raises((ConnectionError, TimeoutError)):
            socket.create_connection(running.address, timeout=1).recv(1)
        Held.go.set()
        assert [future.result(20)[0] for future in accepted] == [200, 200, 200]
    assert not service.ready


def get(address: tuple[str, int], path: str) -> str:
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (1, 129)])
def test_the_command_ends_as_others_do(
    detector: Detector, picture: Picture, tmp_path: Path, number: int, code: int
) -> None:
    save_model(detector, tmp_path / "m.safetensors")
    words = [sys.executable, "-m", "gcnet", "serve", str(tmp_path / "m.safetensors"), "--port", "0"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = ("127.0.0.1", int(line.split("127.0.0.1:")[1].split()[0]))
        data = picture()
        with socket.create_connection(address, timeout=60) as sender:
            head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: "
            sender.sendall(f"{head}{len(data)}\r\n\r\n".encode() + data[:100])
            while "gcnet_requests_held 1.0" not in get(address, "/metrics"):
                time.sleep(0.05)
            process.send_signal(number)
            time.sleep(0.5)
            sender.sendall(data[100:])
            assert b" 200 " in sender.recv(1000).splitlines()[0]
        _, log = process.communicate(timeout=60)
    assert process.returncode == code
    assert "POST /predict 200" in log
    assert "Traceback" not in log
