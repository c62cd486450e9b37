"""The OpenAPI document: what FastAPI finds in the routes, and what every operation has in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from typing_extensions import TypedDict

from farm.errors import ErrorType, error_json

API = "/api/v1"

TAGS = {
    "jobs": "One long video each: plan and price it, start it, follow it, stop it, change it, delete it.",
    "segments": "The windows a job is rendered in, and the seams between them.",
    "keyframes": "The pictures that windows are rendered from: looked at, made again, replaced, approved.",
    "artifacts": "Files of a job: the video (so far, too), its contact sheet, its pictures, its report.",
    "uploads": "Pictures and videos that are kept for a day, for plans and jobs to name.",
    "storage": "What lies in the storage, and removing what no job has.",
    "nodes": "Machines and their workers: what they do, letting them rest, letting them in.",
    "models": "What can be rendered, and the settings these workers can hold.",
    "live": "What happens, as server-sent events.",
    "videos": "The same jobs in the shape of OpenAI's videos API.",
    "access": "Keys, sessions and the audit log.",
    "webhooks": "Events sent to other programs, signed.",
    "health": "Whether the farm answers, and figures for monitoring.",
}

SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`farm keys create`), or the owner's token.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "reelfarm_session",
        "description": "The cookie that `POST /api/v1/session` sets for a browser.",
    },
}

#: Only for what machines ask.
_MACHINE = {
    "type": "http",
    "scheme": "bearer",
    "description": "A join token (`farm join-token`); to leave, the one a machine was given when it joined.",
}
#: A route's ``openapi_extra`` when it needs no key.
NO_KEY: dict[str, Any] = {"security": []}
#: When it is asked by machines with tokens of their own.
MACHINE_KEY: dict[str, Any] = {"security": [{"machine": []}, {"bearer": []}]}

#: What any operation may answer, by status.
COMMON_ERRORS = {
    400: "The request is wrong; `error.param` names the part.",
    401: "A key is missing, wrong or used up.",
    403: "The key may not do this, or the request comes from a page of another site.",
    429: "Too many requests; `Retry-After` says when to try again.",
    500: "The farm made a mistake.",
}
_CODES = {
    400: ("invalid_input", "limit: expected a number from 1 to 200; got 'many'", "limit"),
    401: ("not_allowed", "this farm wants its token; send it as `Authorization: Bearer <token>`", None),
    403: ("forbidden", "this key lacks the scope submit", None),
    404: ("not_found", "there is no job job-000000000000; `farm jobs` lists them", "job_id"),
    408: ("too_slow", "nothing of the body came for 30 s; send the request again", None),
    413: ("too_large", "the upload is larger than 4294967296 bytes, the most that is taken", "inputs"),
    416: ("range_not_satisfiable", "the file has 1048576 bytes", "range"),
    422: ("cannot_run", "no worker can hold 1024x1024 in windows of 16 frames", "size"),
    429: ("rate_limited", "more than 20 changes a second; wait a second", None),
    500: ("internal", "the farm made a mistake; its log says which", None),
}


#: Stands for null in an example.
_NULL = "\0null"
_SERVER_SENT_EVENT = {
    "title": "ServerSentEvent",
    "description": "One event of the stream.",
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Sequence number of what is in the journal."},
        "event": {"type": "string", "description": "What happened."},
        "data": {"type": "string", "description": "JSON on one line."},
    },
}


class ErrorDetail(TypedDict):
    #: One line: what was wrong and what to do.
    message: str
    type: ErrorType
    #: The part of the request that was wrong, where one was.
    param: str | None
    #: For programs; does not change.
    code: str


class Error(TypedDict):
    """Every error answer of this API."""

    error: ErrorDetail


def answers(
    example: Any = None,
    *,
    status: int = 200,
    said: str = "Done.",
    media_type: str = "application/json",
    errors: Mapping[int, str] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """A route's ``responses``: what it answers with an example, and its errors besides the common ones."""
    content: dict[str, Any] = {}
    if media_type == "application/json":
        content = {media_type: {"example": _nulls_hidden(example)}}
    elif media_type == "text/event-stream":
        content = {media_type: {"schema": _SERVER_SENT_EVENT, "example": _event(example)}}
    elif example is not None:
        content = {media_type: {"schema": {"type": "string"}, "example": example}}
    else:
        content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    found: dict[int | str, dict[str, Any]] = {status: {"description": said}}
    if status != 204:
        found[status]["content"] = content
    return found | {code: {"description": text} for code, text in (errors or {}).items()}


def _nulls_hidden(value: Any) -> Any:
    """A value whose nulls survive FastAPI, which leaves them out of the whole document."""
    if isinstance(value, Mapping):
        return {name: _nulls_hidden(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls_hidden(part) for part in value]
    return _NULL if value is None else value


def _nulls_shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _nulls_shown(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_nulls_shown(part) for part in value]
    return None if value == _NULL else value


def _event(text: str) -> dict[str, str]:
    """The fields of one server-sent event."""
    return dict(line.split(": ", 1) for line in text.strip().split("\n"))


def describe(app: FastAPI) -> None:
    """Make ``app.openapi`` the whole document: tags, security, and one shape of errors everywhere."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=[{"name": name, "description": text} for name, text in TAGS.items()],
            )
            _complete(made)
            made = _nulls_shown(made)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def document_route(app: FastAPI) -> Callable[[], Awaitable[Response]]:
    """The route of the document: made once, in a thread, for it takes longer than others should wait."""
    turn = asyncio.Lock()
    made: list[bytes] = []

    async def document() -> Response:
        async with turn:
            if not made:
                made.append(await asyncio.to_thread(lambda: json.dumps(app.openapi()).encode()))
        return Response(made[0], media_type="application/json")

    return document


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Error"] = _error_schema()
    components["securitySchemes"] = {**SECURITY_SCHEMES, "machine": _MACHINE}
    document["security"] = [{name: []} for name in SECURITY_SCHEMES]
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete_operation(operation)


def _complete_operation(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    found = responses.get("422", {}).get("content", {}).get("application/json", {})
    if "HTTPValidationError" in str(found.get("schema")):
        del responses["422"]
    for status, text in COMMON_ERRORS.items():
        responses.setdefault(str(status), {"description": text})
    if "requestBody" in operation:
        responses.setdefault("408", {"description": "Nothing of the body came for a while; send it again."})
    for status, response in responses.items():
        if status.isdigit() and int(status) >= 400:
            response["content"] = {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Error"},
                    "example": error_example(int(status)),
                }
            }
    if "429" in responses:
        responses["429"]["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}
        }


def error_example(status: int) -> dict[str, Any]:
    code, message, param = _CODES[status]
    return error_json(status, code, message, param)


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "title": "Error",
        "type": "object",
        "description": "Every error answer of this API.",
        "required": ["error"],
        "additionalProperties": False,
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "additionalProperties": False,
                "properties": {
                    "message": {**text, "description": "One line: what was wrong and what to do."},
                    "type": {**text, "enum": list(get_args(ErrorType))},
                    "param": {
                        "type": ["string", "null"],
                        "description": "The part of the request that was wrong, where one was.",
                    },
                    "code": {**text, "description": "For programs; does not change."},
                },
            }
        },
    }
