"""PaddleX's serving route for image classification, so that its clients work unchanged.

The schema is that of PaddleX 3.7 (``paddlex/inference/serving/schemas/image_classification.py``): the request has
``image`` (base64 or an address), ``topk`` and ``visualize``; the answer ``logId``, ``errorCode``, ``errorMsg`` and
``result`` with ``categories`` and ``image``.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any, Optional

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from pplc_cli.base.errors import ImageError
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.prediction import Prediction
from pplc_cli.serve.batching import QueueClosed, QueueFull
from pplc_cli.serve.routes.bodies import BadRequest, Upload, image_of, read_object
from pplc_cli.serve.routes.own import predict_upload, service_of
from pplc_cli.serve.security import RETRY

TOP_K = 5  # of PaddleX's pipeline
router = APIRouter()
_BODY = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string"},
                        "topk": {"type": "integer", "minimum": 1},
                        "visualize": {"type": "boolean"},
                    },
                }
            }
        }
    }
}


@router.post("/image-classification", openapi_extra=_BODY, summary="Classify one image, as PaddleX's service does")
async def image_classification(request: Request) -> Response:
    """Answer as ``paddlex --serve`` does for the pipeline image_classification."""
    log_id = str(uuid.uuid4())
    service = service_of(request)
    try:
        content = _checked(await read_object(await request.body()))
        source = await image_of(
            content["image"], allow_urls=service.options.allow_urls, limit=service.options.max_bytes
        )
        model, (prediction,) = await predict_upload(service, Upload([source]))
        if prediction.error is not None:
            raise ImageError(prediction.error)
    except (BadRequest, ImageError) as error:
        return _failure(log_id, 422, str(error))
    except (QueueFull, QueueClosed):
        return _failure(log_id, 503, "the server is busy", RETRY)
    top = prediction.top[: content.get("topk") or TOP_K]
    ids = {label: number for number, label in reversed(list(enumerate(model.labels)))}
    categories = [{"id": ids[label], "name": label, "score": score} for label, score in top]
    image = await run_in_threadpool(_drawn, source, prediction) if content.get("visualize") is not False else None
    result = {"categories": categories, "image": image}
    return JSONResponse({"logId": log_id, "result": result, "errorCode": 0, "errorMsg": "Success"})


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    top_k, visualize = content.get("topk"), content.get("visualize")
    if not isinstance(content.get("image"), str):
        raise BadRequest("image: expected a base64 text or an address")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise BadRequest("topk: expected a whole number from 1")
    if visualize is not None and not isinstance(visualize, bool):
        raise BadRequest("visualize: expected true or false")
    return content


def _drawn(source: Source, prediction: Prediction) -> str:
    """The image with its labels drawn in, JPEG as base64."""
    from pplc_cli.plots.annotate import annotate, jpeg_bytes

    lines = [f"{label}  {score:.2%}" for label, score in prediction.top[:1]]
    return base64.b64encode(jpeg_bytes(annotate(source.decode(), lines), 90)).decode()


def _failure(log_id: str, status: int, reason: str, headers: Optional[dict[str, str]] = None) -> Response:
    return JSONResponse({"logId": log_id, "errorCode": status, "errorMsg": reason}, status, headers)
