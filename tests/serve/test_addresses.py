"""Addresses that a request names: public ones alone, and no more of them than is allowed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from starlette.testclient import TestClient

from gcnet.errors import GCNetError
from gcnet.models.detector import Detector
from gcnet.serve import addresses
from gcnet.serve.addresses import fetch_image, is_public
from gcnet.serve.app import make_app
from gcnet.serve.served import Served


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1"),
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://a/b.jpg",
            "gopher://a",
            "ftp://8.8.8.8:80/b.jpg",
            "",
            "a.jpg",
            "http://",
            "http://[::1",
            "//a/b",
        ),
        *("http://127.0.0.1/", "http://localhost:8000/a.jpg", "http://0x7f000001/", "http://2130706433/"),
        *("http://a:b@127.0.0.1/", "https://[::ffff:127.0.0.1]/", "http://a:99999/", "http://a\nb/"),
        *("http://127.1/", "http://169.254.169.254/latest/meta-data/", "data:image/png;base64,AA=="),
    ],
)
def test_what_is_not_fetched(url: str) -> None:
    with pytest.raises(GCNetError, match="no public http or https address"):
        fetch_image(url, 1000, 1.0)


def test_a_name_with_one_private_address_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(0, 0, 0, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(GCNetError, match="no public"):
        fetch_image("http://rebound.example/", 1000, 1.0)


class Host(BaseHTTPRequestHandler):
    """Answers with what its class holds."""

    image = b""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/slow":
            for _ in range(50):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        elif self.path == "/endless":
            while True:
                self.wfile.write(bytes(100_000))
        else:
            self.wfile.write(self.image)

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, picture: Callable[..., bytes]) -> Iterator[str]:
    """A host that counts as public."""
    monkeypatch.setattr(addresses, "is_public", lambda _: True)
    Host.image = picture()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_a_host_may_answer(host: str) -> None:
    assert fetch_image(f"{host}/a.png", 100_000, 5.0) == Host.image
    for path, words in (
        ("moved", "answers 302"),
        ("endless", "more than 100,000 bytes"),
        ("slow", "in 0.5 s"),
    ):
        started = time.monotonic()
        with pytest.raises(GCNetError, match=words):
            fetch_image(f"{host}/{path}", 100_000, 0.5)
        assert time.monotonic() - started < 3


def test_a_list_of_addresses(host: str, detector: Detector) -> None:
    with TestClient(make_app(Served(detector), allow_urls=True)) as client:
        urls = [f"{host}/a.png", f"{host}/moved", "file:///etc/passwd"]
        answer = client.post("/predict/urls", json={"urls": urls, "score_threshold": 0.3, "masks": "none"})
        first, *others = answer.json()["results"]
        assert (first["width"], first["height"]) == (120, 80)
        assert first["detections"][0]["score"] > 0.3
        assert [list(one) for one in others] == [["detail"], ["detail"]]
        for wrong in ({"urls": []}, {"urls": ["a"] * 17}, {"urls": "a"}, [], {"urls": ["a"], "x": 1}):
            refused = client.post("/predict/urls", json=wrong)
            assert refused.status_code == 422
            assert isinstance(refused.json()["detail"], str)
