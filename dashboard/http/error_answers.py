"""Whatever goes wrong, in the one shape of an error answer."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from dashboard.http.schemas import invalid
from dashboard.http.security_headers import SECURITY_HEADERS
from farm.errors import FarmError, NotFound, TooLarge, TooManyRequests, error_json

#: Clients of OpenAI's kind send again what was answered 5xx; a mistake of the farm stays one.
_FINAL = {"x-should-retry": "false"}


def answer_errors(app: FastAPI) -> None:
    """Have the app answer every error in the one shape."""
    app.add_exception_handler(FarmError, _farm_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)


def error_answer(error: FarmError) -> JSONResponse:
    """An error as it is answered."""
    headers = dict(_FINAL) if error.http_status >= 500 else {}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return JSONResponse(error.to_json(), error.http_status, headers)


async def _farm_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FarmError)
    return error_answer(error)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Where a value stood (query, header, body) is not part of its name.
    return error_answer(invalid([{**e, "loc": e["loc"][1:]} for e in error.errors()]))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_answer(NotFound(f"{request.url.path} is no address of this farm"))
    code = {408: "too_slow", 413: TooLarge.code}.get(error.status_code, "invalid_input")
    message = str(error.detail)
    if error.status_code == 405:
        code, message = "method_not_allowed", f"{request.url.path} does not take {request.method}"
        # The router names the methods of the first route it found alone.
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
        return JSONResponse(error_json(405, code, message), 405, headers)
    return JSONResponse(error_json(error.status_code, code, message), error.status_code, error.headers)


def _methods(request: Request) -> set[str]:
    """Every method that this address takes, by the template that says most of it: an id could be any word."""
    matching = [r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE]
    template = min((route.path for route in matching), key=lambda path: path.count("{"))
    return set().union(*(route.methods for route in matching if route.path == template))


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    # The only answer that does not come through the gate.
    return JSONResponse(
        error_json(500, "internal", "the farm made a mistake; its log says which"),
        500,
        SECURITY_HEADERS | _FINAL,
    )
