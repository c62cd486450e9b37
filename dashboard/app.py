"""The farm's web server as a value: ``create_app`` puts routes, access and errors together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dashboard.access import Gate
from dashboard.jobs_api import Intake, jobs_router
from dashboard.join_tokens import JoinTokens
from dashboard.nodes_api import nodes_router
from dashboard.schemas import invalid
from farm.coordinator import Coordinator
from farm.errors import FarmError, NotFound
from farm.media import MediaInfo
from farm.membership import Membership

MAX_UPLOAD_BYTES = 4 << 30


def create_app(
    *,
    coordinator: Coordinator,
    normalise: Callable[[Path, Path], MediaInfo],
    access: str | None,
    membership: Membership,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
) -> FastAPI:
    """The app, to be served on the event loop that runs the coordinator.

    Args:
        normalise: (a user's file, folder for the checked copy) -> what it is; called in a thread.
        access: the bearer token that is wanted; None: loopback without one.
        membership: what joining and leaving machines are told.
        max_upload_bytes: largest body of a submit.
    """
    app = FastAPI(
        title="Reelfarm",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Gate, token=access)
    app.add_exception_handler(FarmError, _farm_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    health = APIRouter(tags=["health"])
    health.add_api_route("/health", _health, methods=["GET"])
    join_tokens = JoinTokens()
    app.state.join_tokens = join_tokens
    intake = Intake(coordinator.storage, normalise, max_upload_bytes)
    for router in (
        health,
        jobs_router(coordinator, intake),
        nodes_router(coordinator, join_tokens, membership),
    ):
        app.include_router(router, prefix="/api/v1")
    return app


async def _health() -> dict[str, str]:
    """Whether the server answers; needs no token and tells nothing else."""
    return {"status": "ok"}


async def _farm_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FarmError)
    headers = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else None
    return JSONResponse(error.to_json(), error.http_status, headers)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Where a value stood (query, header, body) is not part of its name.
    return await _farm_error(request, invalid([{**e, "loc": e["loc"][1:]} for e in error.errors()]))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _farm_error(request, NotFound(f"{request.url.path} is no address of this API"))
    if error.status_code == 405:
        code, message = "method_not_allowed", f"{request.url.path} does not take {request.method}"
    else:
        code, message = "invalid_input", str(error.detail)
    return JSONResponse(_shape(code, message), error.status_code, error.headers)


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(_shape("internal", "the farm made a mistake; its log says which"), 500)


def _shape(code: str, message: str) -> dict[str, dict[str, str | None]]:
    return {"error": {"code": code, "message": message, "param": None}}
