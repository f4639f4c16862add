"""Reads the image of a request: a multipart field, or the body itself."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gcnet.console import one_line

Kind = TypeVar("Kind", bound=BaseModel)

FIELD = "image"
MOST_FIELDS, LONGEST_FIELD = 20, 1000
FORM, BYTES = "multipart/form-data", "application/octet-stream"
HOW = f"send {FORM} with a field `{FIELD}`, or the bytes of an image with Content-Type: {BYTES} or image/..."


async def read_upload(request: Request, options: Kind) -> tuple[bytes, Kind]:
    """The bytes of the image, and the options: those of the query, with a form's fields over them.

    Raises HTTPException: 400 for a broken form or no image, 415 for another type of content, 422 for options
    that make no sense.
    """
    kind = request.headers.get("content-type", BYTES).partition(";")[0].strip().lower()
    if kind == FORM:
        data, options = await _read_form(request, options)
    elif kind == BYTES or kind.startswith("image/"):
        data = await request.body()
    else:
        raise HTTPException(415, f"the request is {one_line(kind, 60)}: {HOW}")
    if not data:
        raise HTTPException(400, f"there is no image in the request: {HOW}")
    return data, options


class _InMemory(MultiPartParser):
    """Starlette's parser, which would write more than a megabyte to the disk. The gate limits the bytes."""

    spool_max_size = 0  # no limit


async def _read_form(request: Request, options: Kind) -> tuple[bytes, Kind]:
    limits = {"max_files": 1, "max_fields": MOST_FIELDS, "max_part_size": LONGEST_FIELD}
    try:
        form = await _InMemory(request.headers, request.stream(), **limits).parse()
    except MultiPartException as error:
        long = f"a field of the form has more than {LONGEST_FIELD:,} bytes"
        told = f"{long}; an image has to be sent as a file, with a name"
        raise HTTPException(400, told if "maximum size" in error.message else error.message) from None
    images = [value for name, value in form.multi_items() if name == FIELD]
    fields = {name: value for name, value in form.multi_items() if name != FIELD}
    if len(images) != 1 or not isinstance(images[0], UploadFile):
        raise HTTPException(400, f"the form has no file in a field `{FIELD}`: {HOW}")
    try:
        chosen = type(options).model_validate(options.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise HTTPException(422, problem_line(error.errors())) from None
    return await images[0].read(), chosen


def problem_line(errors: Any) -> str:
    """The errors of pydantic in one line."""
    parts = [f"{'.'.join(map(str, error['loc'])) or 'request'}: {error['msg']}" for error in errors]
    return one_line("; ".join(parts).replace("query.", "").replace("body.", ""), 300)


def upload_schema(options: type[BaseModel]) -> dict[str, Any]:
    """The request's body, for the description of the API."""
    image = {"type": "string", "format": "binary", "description": "an image file"}
    fields = options.model_json_schema()["properties"] if options.model_fields else {}
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: image, **fields}}
    kinds = {FORM: form, "image/*": image, BYTES: image}
    content = {kind: {"schema": schema} for kind, schema in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}
