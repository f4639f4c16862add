"""The HTTP service: its routes, and the number of requests that it handles at a time.

A request holds one of a limited number of slots from its first byte to its response. A few threads decode
images and make JSON; the model's thread predicts. If all slots are taken, the response is 429 at once.
"""

# No `from __future__ import annotations`: FastAPI reads the signatures of functions in a function.

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypeVar

import cv2
import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from jaxtyping import UInt8
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gcnet.errors import GCNetError
from gcnet.ops.decode import as_rgb_array
from gcnet.ops.image_header import TooManyPixelsError
from gcnet.serve.addresses import fetch_image
from gcnet.serve.answers import (
    Attention,
    Classes,
    ClassOptions,
    ClassUrls,
    Health,
    Least,
    Nothing,
    Objects,
    Options,
    Problem,
    Results,
    Urls,
)
from gcnet.serve.batching import Batcher
from gcnet.serve.gate import Gate, Metrics, note
from gcnet.serve.limits import Limits
from gcnet.serve.page import add_pages
from gcnet.serve.served import Asked, Served
from gcnet.serve.uploads import problem_line, read_upload, upload_schema
from gcnet.version import __version__
from gcnet.viz import draw_detections

Result = TypeVar("Result")

log = logging.getLogger("gcnet.serve")

THREADS = min(4, os.cpu_count() or 1)  # that decode, and make JSON: each holds an image
LATELY = 0.2  # weight of the last batch in the pace
WORTH_WAITING = 0.5  # share of the time limit: requests that would wait longer are refused at once
SOON = {"Retry-After": "1"}
PROBLEMS = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "no image in the request, or a broken form",
        408: "the request came too slowly",
        413: "too many bytes or pixels",
        415: "not an image that can be read",
        422: "an option that makes no sense",
        429: "all places are taken: come again after Retry-After seconds",
        503: "the service is stopping",
        504: "no answer in time",
    }.items()
}


class Service:
    """The model, its thread, the other threads, and the number of accepted requests."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self.served, self.limits = served, limits
        self.metrics = Metrics()
        self.held = 0
        self.pace = 0.0  # seconds that an image takes the model, lately
        self._pool = ThreadPoolExecutor(THREADS, "images")
        self._batcher = Batcher(limits.batch_size)
        waiting = Gauge("gcnet_requests_held", "Requests not yet answered", registry=self.metrics.registry)
        waiting.set_function(lambda: self.held)

    @property
    def ready(self) -> bool:
        return self._batcher.alive

    def close(self) -> None:
        """Returns when all accepted requests are done."""
        self._batcher.close()
        self._pool.shutdown()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for a request. Raises HTTPException: 429, 503, or 504 when its time is over."""
        if not self.ready:
            raise HTTPException(503, "the service is stopping", SOON)
        wait = self.held * self.pace
        if self.held >= self.limits.queue or wait > WORTH_WAITING * self.limits.timeout:
            again = {"Retry-After": str(max(1, round(wait / 2)))}
            raise HTTPException(429, f"{self.held} requests wait already; come again soon", again)
        self.held += 1
        try:
            async with asyncio.timeout(self.limits.timeout):
                yield
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.limits.timeout:g} s", SOON) from None
        finally:
            self.held -= 1

    async def predict(self, data: bytes, limit: float, finish: Callable[[Any], Result]) -> Result:
        """What `finish` makes of what is found in the image."""
        _, prepared, like = await self._in_pool(self._prepare, data)
        found = await self._by_model(self._count_and_predict, like, Asked(prepared, limit))
        self.metrics.images.inc()
        note.set(f"{len(found)} found")
        return await self._in_pool(finish, found)

    async def attention(self, data: bytes) -> Attention:
        """Where the blocks look in the image."""
        (height, width), prepared, like = await self._in_pool(self._prepare, data)
        looked = await self._by_model(self.served.attention, like, prepared)
        return Attention(width=width, height=height, **looked)

    def decode(self, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """The image in a file. Raises HTTPException: 413 for too many pixels, 415 for what is no image."""
        with _refused():
            return as_rgb_array(data, max_pixels=self.limits.max_pixels)

    def _prepare(self, data: bytes) -> tuple[tuple[int, int], Any, Any]:
        """(height, width), and what `Served.prepare` gives. The image itself is not kept while it waits."""
        image = self.decode(data)
        with _refused():  # by an export of one size
            return (image.shape[0], image.shape[1]), *self.served.prepare(image)

    def _count_and_predict(self, asked: Any) -> Any:
        self.metrics.batches.observe(len(asked))
        started = time.perf_counter()
        found = self.served.predict(asked)
        pace = (time.perf_counter() - started) / len(asked)
        self.pace = pace if not self.pace else self.pace + LATELY * (pace - self.pace)
        return found

    async def _in_pool(self, work: Callable[..., Result], *values: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *values)

    async def _by_model(self, work: Any, like: Any, item: Any) -> Any:
        try:
            return await asyncio.wrap_future(self._batcher.submit(work, like, item))
        except Exception as error:
            log.exception("the model failed")
            raise HTTPException(500, f"the model failed on this image: {type(error).__name__}") from error


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """The HTTP error for a problem with an image."""
    try:
        yield
    except GCNetError as error:
        status = 413 if isinstance(error, TooManyPixelsError) else 415
        raise HTTPException(status, str(error)) from None


def make_app(served: Served, limits: Limits | None = None, *, allow_urls: bool = False) -> FastAPI:
    """The service as an ASGI application, which at its end finishes the accepted requests.

    `allow_urls`: it also fetches images from public addresses that a request names.
    """
    limits = limits or Limits()
    service = Service(served, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    title = f"GCNet: {served.model.spec.name}"
    app = FastAPI(title=title, version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Gate, metrics=service.metrics, most=limits.max_bytes, seconds=limits.timeout / 2)
    app.state.service = service
    _add_predictions(app, service)
    if served.blocks:
        _add_attention(app, service)
    if allow_urls:
        _add_addresses(app, service)
    _add_watching(app, service)
    add_pages(app, served, limits.max_bytes)
    for kind in (HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _problem)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    served = service.served
    names = served.model.spec.class_names
    kind: Any = ClassOptions if served.is_classifier else Options
    described: dict[Any, Any] = {
        200: {"model": Classes if served.is_classifier else Objects, "description": "what is found"},
        **PROBLEMS,
    }

    @app.post("/predict", responses=described, openapi_extra=upload_schema(kind))
    async def predict(request: Request, query: Annotated[kind, Query()]) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        """What is in an image. Options go into the query, or into fields beside the image."""
        async with service.place():
            data, options = await read_upload(request, query)
            return _json(await service.predict(data, *_wanted(served, options)))

    if served.is_classifier:
        return

    drawing: dict[Any, Any] = {200: {"content": {"image/jpeg": {}}, "description": "the drawing"}, **PROBLEMS}

    @app.post("/draw", responses=drawing, openapi_extra=upload_schema(Least), response_class=Response)
    async def draw(request: Request, query: Annotated[Least, Query()]) -> Response:
        """The image, as a JPEG, under what is found in it."""

        def finish(found: Any) -> bytes:
            drawn = draw_detections(service.decode(data), found, names)
            written, jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            if not written:
                raise HTTPException(413, "the image is too wide or too high for a JPEG")
            return jpeg.tobytes()

        async with service.place():
            data, options = await read_upload(request, query)
            jpeg = await service.predict(data, _threshold(served, options), finish)
        return Response(jpeg, media_type="image/jpeg")


def _add_addresses(app: FastAPI, service: Service) -> None:
    served, limits = service.served, service.limits
    kind: Any = ClassUrls if served.is_classifier else Urls
    described: dict[Any, Any] = {200: {"model": Results, "description": "an answer for each"}, **PROBLEMS}

    @app.post("/predict/urls", responses=described)
    async def predict_urls(wanted: kind) -> Response:  # pyright: ignore[reportInvalidTypeForm]
        """What is in images at public http and https addresses; where one fails, why, in its place."""

        async def one(url: str) -> Objects | Classes | Problem:
            try:
                data = await asyncio.to_thread(fetch_image, url, limits.max_bytes, limits.timeout)
                return await service.predict(data, *_wanted(served, wanted))
            except (GCNetError, HTTPException) as error:
                return Problem(detail=str(getattr(error, "detail", error)))

        async with service.place():
            results = [await one(url) for url in wanted.urls]
        return _json(Results(results=results))


def _wanted(served: Served, options: Any) -> tuple[float, Callable[[Any], Objects | Classes]]:
    """What limits the results of the model, and what makes an answer of them."""
    if served.is_classifier:
        return options.top, Classes.of
    names = served.model.spec.class_names
    return _threshold(served, options), partial(Objects.of, class_names=names, masks=options.masks)


def _threshold(served: Served, options: Least) -> float:
    return served.threshold if options.score_threshold is None else options.score_threshold


def _add_attention(app: FastAPI, service: Service) -> None:
    described: dict[Any, Any] = {200: {"model": Attention, "description": "the maps"}, **PROBLEMS}

    @app.post("/attention", responses=described, openapi_extra=upload_schema(Nothing))
    async def attention(request: Request, query: Annotated[Nothing, Query()]) -> Response:
        """Where the context blocks look in an image."""
        async with service.place():
            data, _ = await read_upload(request, query)
            return _json(await service.attention(data))


def _add_watching(app: FastAPI, service: Service) -> None:
    name = service.served.model.spec.name

    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """200 where images are taken, 503 where the service is stopping or the model's thread is gone."""
        answer = Health(live=True, ready=service.ready, model=name)
        return _json(answer, 200 if service.ready else 503)

    @app.get("/health/live", response_model=Health)
    async def live() -> Health:
        """200 as long as the process answers at all."""
        return Health(live=True, ready=service.ready, model=name)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Requests, times, images and what was refused, for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


async def _problem(_: Request, error: Exception) -> JSONResponse:
    """One line for whatever is wrong with a request."""
    if isinstance(error, RequestValidationError):
        return JSONResponse({"detail": problem_line(error.errors())}, 422)
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"detail": "the sender left"}, 499)  # nginx's number; it appears only in the log
    log.error("an error of the service", exc_info=error)
    return JSONResponse({"detail": "an error of the service, see its log"}, 500)
