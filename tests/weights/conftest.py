"""A server of files on 127.0.0.1 that can do what real ones do on bad days, and a path to `foreign_files`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@dataclass
class FileServer:
    """Serves `files` by path and keeps a record of what was asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True  # honours Range
    cuts: list[int] = field(default_factory=list)  # bytes after which the next connections are cut
    status: int | None = None  # answers everything with it
    content_type: str = "application/octet-stream"
    seconds: float = 0.0  # before it answers
    drip: float = 0.0  # seconds between its bytes
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each GET
    sent: int = 0  # bytes of bodies


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # a client that has given up
                self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range")
            server.asked.append((self.path, wanted))
            time.sleep(server.seconds)
            body = server.files.get(self.path.lstrip("/"))
            if server.status or body is None:
                self.send_error(server.status or 404)
                return
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and server.ranges else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("Content-Type", server.content_type)
            self.end_headers()
            piece = body[start : start + server.cuts.pop(0)] if server.cuts else body[start:]
            for byte in piece if server.drip else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(server.drip)
            self.wfile.write(b"" if server.drip else piece)
            server.sent += len(piece)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def serve() -> Iterator[FileServer]:
    server = FileServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    yield from serve()


@pytest.fixture
def mirror_server() -> Iterator[FileServer]:
    yield from serve()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no mirrors, no proxy: what lies on this machine does not matter."""
    monkeypatch.setenv("GCNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("GCNET_MIRRORS", raising=False)
    return tmp_path / "home"
