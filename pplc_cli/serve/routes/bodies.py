"""Read the images of a request: multipart files, the bytes of one image, or JSON with base64 or addresses."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Optional, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.predict.inputs.address import read_address
from pplc_cli.predict.inputs.source import ADDRESSES, Source

Data = TypeVar("Data", bytes, str)
Result = TypeVar("Result")
LONG = 1 << 18  # bytes; parsing them takes a millisecond
MOST_IMAGES = 64  # of one request
_FIELDS = ("image", "images", "model", "top_k", "label", "name")


class BadRequest(Exception):
    """A request that cannot be understood; answered with 400."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """The images of a request and what it asks for.

    Attributes:
        images: encoded, with their names.
        model: name of the model; None: the default.
        top_k: labels per image; None: five.
        label: of ``/explain`` and ``/correct``.
    """

    images: list[Source]
    model: Optional[str] = None
    top_k: Optional[int] = None
    label: Optional[str] = None


async def read_upload(request: Request, *, allow_urls: bool, limit: int) -> Upload:
    """Read a request; parameters of the address are overridden by those of the body.

    Args:
        request: its body is bounded already, see :class:`pplc_cli.serve.security.Guard`.
        allow_urls: whether addresses in JSON are fetched, from the public internet only.
        limit: largest number of bytes fetched from an address.

    Raises:
        BadRequest: the body holds no images, too many, or something else.
        ImageError: an address cannot be fetched.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields: dict[str, Any] = {name: value for name, value in request.query_params.items() if name in _FIELDS}
    if kind == "multipart/form-data":
        images = await _read_form(request, fields)
    elif kind == "application/json":
        images = await _read_json(await request.body(), fields, allow_urls, limit)
    elif kind.startswith("image/") or kind in ("application/octet-stream", ""):
        data = await request.body()
        images = [Source(str(fields.get("name", "image")), data)] if data else []
    else:
        raise BadRequest(
            tr("expected an image, multipart/form-data or application/json, got {kind}", kind=repr(kind)[:80])
        )
    if not images:
        raise BadRequest(tr("the request holds no image"))
    return Upload(images, _text(fields, "model"), _count(fields.get("top_k")), _text(fields, "label"))


async def _read_form(request: Request, fields: dict[str, Any]) -> list[Source]:
    images = []
    # Starlette answers a form that it cannot parse with 400 itself.
    async with request.form(max_files=MOST_IMAGES, max_fields=len(_FIELDS)) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                images.append(Source(value.filename or "image", await value.read()))
            else:
                fields[name] = value
    return images


async def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        BadRequest: it is not valid JSON, or no object.
    """
    try:
        content = await _offloaded(json.loads, body)
    except (ValueError, RecursionError):
        raise BadRequest(tr("the body is not valid JSON")) from None
    if not isinstance(content, dict):
        raise BadRequest(tr("expected a JSON object"))
    return content


async def _offloaded(function: Callable[[Data], Result], data: Data) -> Result:
    """Call a function, in a thread if the data are long: the event loop is not blocked."""
    return await run_in_threadpool(function, data) if len(data) > LONG else function(data)


async def _read_json(body: bytes, fields: dict[str, Any], allow_urls: bool, limit: int) -> list[Source]:
    content = await read_object(body)
    fields.update(content)
    texts = [fields["image"]] if "image" in fields else fields.get("images", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadRequest(tr("expected the image as a base64 text in image, or a list of them in images"))
    if len(texts) > MOST_IMAGES:
        raise BadRequest(
            tr("{count} images in one request; expected at most {most}", count=len(texts), most=MOST_IMAGES)
        )
    return [await image_of(text, allow_urls=allow_urls, limit=limit) for text in texts]


async def image_of(text: str, *, allow_urls: bool, limit: int) -> Source:
    """The image of a text in JSON: base64, a data URL, or an address.

    Raises:
        BadRequest: the text is none of these, or an address that may not be fetched.
        ImageError: an address cannot be fetched.
    """
    if text.startswith(ADDRESSES):
        if not allow_urls:
            raise BadRequest(tr("addresses are not fetched; start pplc serve with --allow-urls"))
        data = await run_in_threadpool(read_address, text, limit, public=True)
        return Source(text, data)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = await _offloaded(_decode, text)
    except (binascii.Error, ValueError):
        raise BadRequest(tr("an image is not valid base64")) from None
    if not data:
        raise ImageError(tr("the file is empty"))
    return Source("image", data)


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(fields: Mapping[str, Any], name: str) -> Optional[str]:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(tr("{name}: expected text, got {value}", name=name, value=repr(value)[:80]))
    return value


def _count(value: Any) -> Optional[int]:
    """A whole number from 1, as a number or a text."""
    if value is None:
        return None
    try:
        count = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else 0
    except ValueError:
        count = 0
    if count < 1:
        raise BadRequest(tr("top_k: expected a whole number from 1, got {top_k}", top_k=repr(value)[:80]))
    return count
