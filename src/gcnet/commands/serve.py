"""`gcnet serve`: a model as an HTTP service, and a page to try it on."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from pathlib import Path

from gcnet.api import EXPORTS, load_trained
from gcnet.commands.arguments import (
    Parser,
    add_compile,
    add_max_detections,
    add_model,
    add_precision,
    at_least,
)
from gcnet.engine.stop import end_by
from gcnet.errors import GCNetError, needs
from gcnet.weights.fetch import find_source

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")  # of the extra
GRACE = 5  # seconds that a stop waits longer than a request may take
WAITING = 2048  # connections that the system holds while the service is busy


def run(argv: list[str]) -> int:
    """Serves until a signal comes, and ends what it has accepted before it goes."""
    options = _parser().parse(argv)
    is_export = Path(options.model).suffix in EXPORTS
    source = None if is_export else find_source(options.model, options.weights)
    with _bound(options.host, options.port) as listener:
        from gcnet.deploy.runtime import ExportedDetector, load_export

        for package in PACKAGES:
            needs(package, "serve")
        import uvicorn

        from gcnet.models.detector import Detector
        from gcnet.serve.app import Limits, make_app
        from gcnet.serve.served import Served

        limits = Limits(
            options.queue, options.batch_size, options.max_bytes, options.max_pixels, options.timeout
        )
        if source is None:
            exported = load_export(options.model)
            if not isinstance(exported, ExportedDetector):
                raise GCNetError(f"{options.model} is a classifier's export: serve the model itself")
            served = Served.of(exported)
        else:
            model = load_trained(source, options.device, options.mirror)
            if isinstance(model, Detector) and options.max_detections:
                model.limit_detections(options.max_detections)
            served = Served.of(model, precision=options.precision, compiled=options.compile)
        served.warm_up()
        app = make_app(served, limits, allow_urls=options.allow_urls)
        _set_up_log()
        listener.listen(WAITING)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"{served.model.spec.name} at http://{shown}:{port} until Ctrl-C", flush=True)
        # uvicorn ends in good order, and then raises the signal again: then the command ends as others do.
        signal.signal(signal.SIGTERM, lambda number, _: end_by(number))
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=int(options.timeout) + GRACE,
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


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


def _parser() -> Parser:
    parser = Parser(
        "serve",
        "A model as an HTTP service: POST /predict with an image gives JSON, / is a page to try it on, /docs "
        "says the rest. Takes detectors, classifiers and .onnx files of gcnet export.",
    )
    add_model(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=at_least(0), default=8000, help="(8000; 0: any free one)")
    parser.add_argument(
        "--queue", type=at_least(1), default=64, metavar="N", help="requests held at a time; then 429 (64)"
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), default=8, metavar="N", help="images predicted together (8)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds that a request may take, half of them to come (60)",
    )
    parser.add_argument(
        "--max-bytes", type=at_least(1), default=20_000_000, metavar="N", help="of a request (20,000,000)"
    )
    parser.add_argument(
        "--max-pixels", type=at_least(1), default=64_000_000, metavar="N", help="of an image (64,000,000)"
    )
    parser.add_argument(
        "--allow-urls",
        action="store_true",
        help="POST /predict/urls: fetch images from public addresses that a request names",
    )
    add_max_detections(parser)
    add_precision(parser)
    add_compile(parser)
    return parser
