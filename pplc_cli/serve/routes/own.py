"""The routes of pplc's own interface and of the page."""

from __future__ import annotations

import asyncio
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from pplc_cli.base.errors import ImageError
from pplc_cli.base.language.messages import tr
from pplc_cli.predict.prediction import Prediction
from pplc_cli.serve.routes.bodies import BadRequest, Upload, read_upload

if TYPE_CHECKING:
    from pplc_cli.serve.models import ServedModel
    from pplc_cli.serve.service import Service

PAGE = Path(__file__).parents[1] / "page"
TOP_K = 5  # labels in an answer that asks for no number

router = APIRouter()
_BODY = {  # for the interface's description: the routes read their bodies themselves
    "requestBody": {
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "model": {"type": "string"},
                        "top_k": {"type": "integer"},
                        "label": {"type": "string"},
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "description": "base64, or an address with --allow-urls"},
                        "images": {"type": "array", "items": {"type": "string"}},
                        "model": {"type": "string"},
                        "top_k": {"type": "integer"},
                    },
                }
            },
        }
    }
}


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


async def read(request: Request) -> Upload:
    """The images of a request; see :func:`pplc_cli.serve.routes.bodies.read_upload`."""
    options = service_of(request).options
    return await read_upload(request, allow_urls=options.allow_urls, limit=options.max_bytes)


async def predict_upload(service: Service, upload: Upload) -> tuple[ServedModel, list[Prediction]]:
    """Predict the images of a request; see :meth:`pplc_cli.serve.models.Models.submit`."""
    model, futures = service.models.submit(upload.model, upload.images)
    answers = list(map(asyncio.wrap_future, futures))
    predictions = [await answers[0]] if len(answers) == 1 else list(await asyncio.gather(*answers))
    failed = sum(one.error is not None for one in predictions)
    service.metrics.images(model.name, predicted=len(predictions) - failed, unreadable=failed)
    return model, predictions


@router.post("/predict", openapi_extra=_BODY, summary="Classify images")
async def predict(request: Request) -> Response:
    """Answer with the best labels of each image.

    An image that cannot be read has an error instead; if it is the only one, the status is 422.
    """
    began = time.perf_counter()
    upload = await read(request)
    model, predictions = await predict_upload(service_of(request), upload)
    if len(predictions) == 1 and predictions[0].error is not None:
        raise ImageError(predictions[0].error)
    answers = [answer_of(one, upload.top_k or TOP_K) for one in predictions]
    milliseconds = round(1000 * (time.perf_counter() - began), 2)
    return JSONResponse({"model": model.name, "predictions": answers, "ms": milliseconds})


def answer_of(prediction: Prediction, top_k: int) -> dict[str, Any]:
    """The JSON object of a prediction, that of ``pplc predict --json`` with the first ``top_k`` labels."""
    answer = prediction.to_dict()
    answer["name"] = answer.pop("path")
    if "top" in answer:
        answer["top"] = answer["top"][:top_k]
    return answer


@router.post("/explain", openapi_extra=_BODY, summary="Show where the network looks", response_class=Response)
async def explain(request: Request) -> Response:
    """Answer with the heat map of one image, a JPEG; ``label`` chooses the class, by default the predicted one."""
    service = service_of(request)
    upload = await read(request)
    if len(upload.images) != 1:
        raise BadRequest(tr("expected one image"))
    model = service.models.find(upload.model)
    picture, label, score = await service.heat_map(functools.partial(_heat_map, model, upload))
    # Headers are Latin-1, labels are not.
    headers = {"X-Label": label.encode("unicode_escape").decode(), "X-Score": f"{score:.6f}"}
    return Response(picture, media_type="image/jpeg", headers=headers)


def _heat_map(model: ServedModel, upload: Upload) -> tuple[bytes, str, float]:
    from pplc_cli.plots.annotate import jpeg_bytes
    from pplc_cli.plots.heat import overlay

    found = model.explainer().explain(upload.images[0], label=upload.label)
    return jpeg_bytes(overlay(found.image, found.heat), 88), found.label, found.score


@router.post("/correct", openapi_extra=_BODY, summary="Keep an image with its right label")
async def correct(request: Request) -> Response:
    """Keep one image in the folder of ``--collect``; the same image again replaces its label."""
    service = service_of(request)
    upload = await read(request)
    if service.collection is None:
        return JSONResponse({"error": tr("nothing is kept; start pplc serve with --collect FOLDER")}, 409)
    if len(upload.images) != 1 or upload.label is None:
        raise BadRequest(tr("expected one image and its label"))
    file = await run_in_threadpool(service.collection.add, upload.images[0].read(), upload.label)
    known = upload.label.strip() in service.models.find(upload.model).labels
    return JSONResponse(
        {"file": file.name, "label": upload.label.strip(), "new_class": not known, "kept": len(service.collection)}
    )


@router.get("/models", summary="The served models")
async def models(request: Request) -> Response:
    """Labels, network, accuracy on the validation images and SHA-256 of the weights; and whether images are kept."""
    service = service_of(request)
    return JSONResponse(
        {
            "models": [model.describe() for model in service.models],
            "collect": service.collection is not None,
            "max_mb": service.options.max_bytes / 1e6,
        }
    )


@router.post("/reload", summary="Load newly exported models")
async def reload(request: Request) -> Response:
    """Load all models anew. Requests go on meanwhile; if a model cannot be loaded, the old ones stay."""
    service = service_of(request)
    await service.reload()
    return JSONResponse({"models": [model.describe() for model in service.models]})


@router.get("/healthz", summary="Whether the server runs")
async def healthz() -> Response:
    """Answer ``ok`` as long as the server runs."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", summary="Whether requests are taken")
async def readyz(request: Request) -> Response:
    """Answer ``ready``, or 503 while the server stops."""
    ready = service_of(request).ready
    return Response("ready\n" if ready else "stopping\n", 200 if ready else 503, media_type="text/plain")


@router.get("/metrics", summary="Counters for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, time to answer, batch sizes and the queue, in Prometheus's text format."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/favicon.ico", include_in_schema=False)
async def favicon() -> Response:
    """The page's icon."""
    return FileResponse(PAGE / "icon.svg", media_type="image/svg+xml")
