"""`gcnet serve` runs a model as an HTTP service: a detector, a classifier or an export.

POST /predict with an image gives JSON, / is a page to try it on, /docs describes all.
"""

from __future__ import annotations

import logging
import socket
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from gcnet.api.predict import predict
from gcnet.commands.arguments import MODEL, Parser, model_of, number
from gcnet.errors import GCNetError, needs
from gcnet.files import check_handles
from gcnet.serve.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")  # of the extra
GRACE = 5  # seconds that a stop waits longer than a request may take
WAITING = 2048  # connections that the system holds while the service is busy


def run(argv: list[str]) -> int:
    """Serves until a signal comes, and then finishes the accepted requests."""
    options = _parser().parse(argv)
    check_handles()  # each connection is one
    chosen = model_of(options)
    with _bound(options.host, options.port) as listener:
        for package in PACKAGES:
            needs(package, "serve")

        from gcnet.serve.app import make_app
        from gcnet.serve.served import Served

        how = {"precision": chosen.precision, "compiled": chosen.compile}
        served = Served.of(chosen.read(), options.score_threshold, **how)
        served.warm_up()
        limits = Limits(**{one.name: getattr(options, one.name) for one in fields(Limits)})
        app = make_app(served, limits, allow_urls=options.allow_urls)
        _set_up_log()
        listener.listen(WAITING)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"{served.model.spec.name} at http://{shown}:{port} until Ctrl-C", flush=True)
        _run(app, listener, int(options.timeout) + GRACE)
    return 0


def _run(app: FastAPI, listener: socket.socket, grace: int) -> None:
    """Serves; after a stop, accepted requests have `grace` seconds to finish."""
    import uvicorn

    # At a signal uvicorn ends in good order, and then raises it again: the command ends as others do.
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
    """A socket at the address, opened before anything slow is done."""
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
    """Logs each request as a line on stderr, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    log = logging.getLogger("gcnet.serve")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _parser() -> Parser:
    parser = Parser("serve", "MODEL [--host ADDRESS] [--port N]", __doc__)
    parser.add_options(predict, MODEL)
    parser.add_option("--host", str, "address to listen on; by default only this machine", "127.0.0.1")
    # The system would cut a larger port to 16 bits, and listen elsewhere.
    parser.add_option("--port", number(int, 0, 65535), "port; 0 takes any free one", 8000)
    whole = {"kind": number(int, 1)}
    parser.add_options(Limits, queue=whole, max_bytes=whole, timeout={"kind": number(float, 0.001, 86400)})
    urls = "add POST /predict/urls, which fetches images from public addresses in a request"
    parser.add_option("--allow-urls", bool, urls, False)
    least = "for detectors: threshold of requests that give none (as in gcnet predict: the model's, or 0.5)"
    parser.add_option("--score-threshold", number(float, 0, 1), least)
    parser.add_options(predict, ("max_detections", "precision", "compile"))
    return parser
