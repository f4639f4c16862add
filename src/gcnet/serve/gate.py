"""A middleware for all requests: it measures and logs them, and stops bodies that are too large or slow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextvars import ContextVar
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcnet.console import one_line

# What the log adds to the line of the request that is answered here.
note: ContextVar[str] = ContextVar("note", default="")

log = logging.getLogger("gcnet.serve")

LINGER = 5.0  # seconds in which the rest of a refused body is thrown away, so that its sender hears why
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; style-src 'unsafe-inline'",
    ),
)
REFUSED = {408: "slow", 413: "large", 415: "no image", 429: "busy", 503: "stopping", 504: "late"}


class Metrics:
    """The metrics of `/metrics`, for each service its own, so that two in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("gcnet_requests", "Requests", ["path", "status"], registry=self.registry)
        self.refused = Counter("gcnet_refused", "Requests refused", ["reason"], registry=self.registry)
        self.seconds = Histogram(
            "gcnet_request_seconds", "Time from a request to its answer", ["path"], registry=self.registry
        )
        self.images = Counter("gcnet_images", "Images predicted", registry=self.registry)
        self.batches = Histogram(
            "gcnet_batch_images",
            "Images predicted together",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )


class Gate:
    """The middleware. A body of more than `most` bytes gets 413, a slow one 408."""

    def __init__(self, app: ASGIApp, metrics: Metrics, most: int, seconds: float) -> None:
        self.app, self.metrics, self.most, self.seconds = app, metrics, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, method = time.perf_counter(), scope["method"]
        if method == "HEAD":  # the answer to GET, of which the server sends no body
            scope = {**scope, "method": "GET"}
        body = _Body(scope, receive, self.most, self.seconds)
        status = 500
        note.set("")

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = () if body.complete else ((b"connection", b"close"),)
                message = {**message, "headers": [*message["headers"], *HEADERS, *closing]}
            elif not body.complete and not message.get("more_body"):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body"}
            await send(message)

        try:
            await self.app(scope, body.receive, answer)
        finally:
            self._note(scope, method, status, time.perf_counter() - started)

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(path, status).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if status in REFUSED:
            self.metrics.refused.labels(REFUSED[status]).inc()
        client = one_line((scope.get("client") or ("-",))[0], 50)  # what a proxy says
        asked = one_line(f"{method} {scope['path']}", 100)
        log.info("%s %s %d %.0f ms %s", client, asked, status, 1000 * seconds, note.get())


class _Body:
    """The body of a request, counted as it comes."""

    def __init__(self, scope: Scope, receive: Receive, most: int, seconds: float) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        self._receive, self._most, self._came = receive, most, 0
        self._declared = int(length) if length.isdigit() else 0
        self._end = asyncio.get_running_loop().time() + seconds
        self._seconds = seconds
        self.complete = not self._declared and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """Raises HTTPException: the body is too large, known from its length or when it has come, or slow."""
        if self._declared > self._most:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(None if self.complete else self._end):
                message = await self._next()
        except TimeoutError:
            raise HTTPException(408, f"the image did not come within {self._seconds:g} s") from None
        if self._came > self._most:
            raise self._too_large()
        return message

    async def discard(self) -> None:
        """Reads the rest, for a while: a connection that is closed on a sender takes the answer with it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while not self.complete:
                    await self._next()

    async def _next(self) -> Message:
        message: dict[str, Any] = dict(await self._receive())
        self._came += len(message.get("body", b""))
        self.complete = self.complete or not message.get("more_body")
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the request has more than {self._most:,} bytes; shrink the image")
