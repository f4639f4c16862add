"""The page at `/`, its script, and the description of the API. They make no requests to other hosts."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse

from gcnet.console import listed
from gcnet.serve.served import Served
from gcnet.viz.objects import class_colors
from gcnet.viz.page import render_page

LEAST = 0.05  # lowest threshold of the page

_HERE = Path(__file__).parent


def add_pages(app: FastAPI, served: Served, most: int) -> None:
    """Adds the pages to the application; an upload may have `most` bytes."""
    spec = served.model.spec
    model = {
        "name": spec.name,
        "classes": list(spec.class_names),
        "colors": class_colors(len(spec.class_names)).tolist(),
        "classifier": served.is_classifier,
        "masks": served.has_masks,
        "blocks": list(served.blocks.values()),
        "threshold": max(served.threshold, LEAST),
        "most": most,
    }
    page = render_page(_HERE / "start.html", model=model, least=LEAST, known=listed(spec.class_names, 12))

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return HTMLResponse(page)

    @app.get("/page.js", include_in_schema=False)
    async def script() -> Response:
        return FileResponse(_HERE / "page.js", media_type="text/javascript")

    @app.get("/docs", include_in_schema=False)
    async def describe() -> Response:
        return HTMLResponse(render_page(_HERE / "api.html", api=app.openapi()))
