"""`gcnet serve`: a model as an HTTP service, and a page to try it on."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING

from gcnet.api.choices import ModelChoice
from gcnet.api.predict import predict
from gcnet.commands.arguments import MODEL, Parser, at_least, model_of
from gcnet.engine.stop import end_by
from gcnet.errors import GCNetError, needs

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gcnet.serve.served import Served

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")  # of the extra
GRACE = 5  # seconds that a stop waits longer than a request may take
WAITING = 2048  # connections that the system holds while the service is busy


def run(argv: list[str]) -> int:
    """Serves until a signal comes, and ends what it has accepted before it goes."""
    options = _parser().parse(argv)
    chosen = model_of(options)
    with _bound(options.host, options.port) as listener:
        for package in PACKAGES:
            needs(package, "serve")
        served = _load(chosen, options.score_threshold)

        from gcnet.serve.app import Limits, make_app

        limits = Limits(
            options.queue, options.batch_size, options.max_bytes, options.max_pixels, options.timeout
        )
        app = make_app(served, limits, allow_urls=options.allow_urls)
        _set_up_log()
        listener.listen(WAITING)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"{served.model.spec.name} at http://{shown}:{port} until Ctrl-C", flush=True)
        _run(app, listener, int(options.timeout) + GRACE)
    return 0


def _load(chosen: ModelChoice, threshold: float | None) -> Served:
    """The model, which has predicted once."""
    from gcnet.serve.served import Served

    served = Served.of(chosen.read(), threshold, precision=chosen.precision, compiled=chosen.compile)
    served.warm_up()
    return served


def _run(app: FastAPI, listener: socket.socket, grace: int) -> None:
    """Serves; a stop waits `grace` seconds for what was accepted."""
    import uvicorn

    # uvicorn ends in good order, and then raises the signal again: the command ends as others do.
    signal.signal(signal.SIGTERM, lambda number, _: end_by(number))
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=grace,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, taken before anything slow is done."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GCNetError(
            f"cannot listen at --host {host} --port {port} ({reason}); give another one"
        ) from None
    return listener


def _set_up_log() -> None:
    """A line a request on stderr, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    log = logging.getLogger("gcnet.serve")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _seconds(word: str) -> float:
    seconds = float(word)
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError(f"give a number of seconds, not {word}")
    return seconds


def _share(word: str) -> float:
    share = float(word)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"give a number from 0 to 1, not {word}")
    return share


def _port(text: str) -> int:
    """A number of 16 bits: the system would cut a larger one, and listen elsewhere."""
    port = at_least(0)(text)
    if port >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{port} is no port; give one up to 65535, or 0 for any free one")
    return port


def _parser() -> Parser:
    parser = Parser(
        "serve",
        "MODEL [--host ADDRESS] [--port N]",
        "A model as an HTTP service: POST /predict with an image gives JSON, / is a page to try it on, /docs "
        "says the rest. Takes detectors, classifiers and .onnx files of gcnet export.",
    )
    parser.add_options(predict, MODEL)
    parser.add_option("--host", str, "address to listen at; the default is this machine alone", "127.0.0.1")
    parser.add_option("--port", _port, "0: any free one", 8000)
    parser.add_option("--queue", at_least(1), "requests held at a time; then 429", 64)
    parser.add_option("--batch-size", at_least(1), "images predicted together", 8)
    parser.add_option("--timeout", _seconds, "that a request may take, half of them to come", 60.0)
    parser.add_option("--max-bytes", at_least(1), "of a request", 20_000_000)
    parser.add_option("--max-pixels", at_least(1), "of an image", 64_000_000)
    urls = "POST /predict/urls: fetch images from public addresses that a request names"
    parser.add_option("--allow-urls", bool, urls, False)
    least = "of a detector: for requests that say none (as for gcnet predict: the model's own, or 0.5)"
    parser.add_option("--score-threshold", _share, least)
    parser.add_options(predict, ("max_detections", "precision", "compile"))
    return parser
