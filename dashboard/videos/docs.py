"""How the OpenAPI document describes ``/v1/videos``."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import Response

from dashboard.http import answers, options_schema
from dashboard.videos.schemas import Video
from farm.request import MAX_PROMPT_CHARS
from farm.values import Value

_SAID = {
    404: "There is no such video, or it has no such content yet (code `not_ready`).",
    413: "The body is larger than the farm takes.",
    416: "The file has no such bytes.",
    422: "This farm cannot do it: no worker can hold it, or the model does not take it.",
}

EXAMPLE: Video = {
    "id": "video_0123456789ab",
    "object": "video",
    "model": "tiny_wan",
    "status": "in_progress",
    "progress": 40,
    "created_at": 1795258800,
    "completed_at": None,
    "expires_at": None,
    "prompt": "a boat on a calm sea at sunset",
    "size": "192x128",
    "seconds": "4",
    "remixed_from_video_id": None,
    "error": None,
    "job_id": "job-0123456789ab",
    "num_frames": 32,
    "fps": 8.0,
    "seed": 0,
    "mode": "refine",
    "start_picture": "given",
}
PAGE = {
    "object": "list",
    "data": [EXAMPLE],
    "first_id": EXAMPLE["id"],
    "last_id": EXAMPLE["id"],
    "has_more": False,
}
DELETED = {"id": EXAMPLE["id"], "object": "video.deleted", "deleted": True}

#: What of a schema is said of the field, and not of its value.
_OF_FIELDS = {"title", "description", "default", "examples"}


def _reference(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name],
        "additionalProperties": False,
        "properties": {name: value},
    }


_DATA_URL = {"type": "string", "pattern": r"^data:[^,]*;base64,[A-Za-z0-9+/]+=*$"}
_UPLOAD = {"type": "string", "pattern": "^upload-[0-9a-f]{12}$"}
#: The fields that are not those of a job's options.
_OWN: dict[str, dict[str, Any]] = {
    "prompt": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_PROMPT_CHARS,
        "description": "What is to be seen, and how it moves.",
        "examples": ["A lighthouse at dusk, waves rolling in"],
    },
    "size": {
        "anyOf": [{"type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$"}, {"type": "null"}],
        "description": "WIDTHxHEIGHT; without, the input's shape at the model's own area.",
        "examples": ["192x128"],
    },
    "input_reference": {
        "anyOf": [
            _reference("image_url", _DATA_URL),
            _reference("file_id", _UPLOAD),
            _DATA_URL,
            _UPLOAD,
            {"type": "null"},
        ],
        "description": "The picture the video starts from, or a video to render anew: bytes, or an upload.",
    },
    "video": {
        **_reference("id", {"type": "string", "pattern": "^video_[0-9a-f]{12}$"}),
        "description": "The finished video of this farm that is rendered anew.",
        "examples": [{"id": "video_3f9c2a7b1d05"}],
    },
}
_FILES = {
    "input_reference": "The picture the video starts from, or a video that is rendered anew.",
    "video": "The video that is rendered anew.",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
#: What ``GET /videos/{video_id}/content`` answers.
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"video/mp4": _BINARY, "image/webp": _BINARY}},
    206: {"description": "The range that was asked for.", "content": {"video/mp4": _BINARY}},
    304: {"description": "It is what the client has already."},
}


def documented(
    summary: str,
    answer: Any,
    *,
    body: type[Value] | None = None,
    errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    """What a route's decorator says of it.

    Args:
        answer: an example; ``CONTENT`` for files.
        body: what it takes, as JSON and, where it may hold a file, as a form too.
        errors: what it answers besides what every route may.
    """
    said = {status: _SAID[status] for status in errors}
    if answer is CONTENT:
        responses = CONTENT | {status: {"description": text} for status, text in said.items()}
        return {"summary": summary, "responses": responses, "response_class": Response}
    described = {"summary": summary, "responses": answers(answer, errors=said)}
    if body is not None:
        described["openapi_extra"] = {"requestBody": {"required": True, "content": _contents(body)}}
    return described


@cache
def _contents(body: type[Value]) -> dict[str, Any]:
    shared = options_schema()["properties"]
    schema: dict[str, Any] = {
        "title": body.__name__,
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in ("prompt", "video") if name in body.model_fields],
        "properties": {name: _OWN.get(name) or _also_text(shared[name]) for name in body.model_fields},
    }
    known = {"prompt": EXAMPLE["prompt"], "seed": 7, "video": {"id": EXAMPLE["id"]}}
    example = {name: value for name, value in known.items() if name in body.model_fields}
    found: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    for name, text in _FILES.items():
        if name in body.model_fields:
            file = {"type": "string", "format": "binary", "description": text}
            form = {**schema, "properties": {**schema["properties"], name: file}}
            found["multipart/form-data"] = {"schema": form}
    return found


def _also_text(field: dict[str, Any]) -> dict[str, Any]:
    """A job's option as it may be said here: left out, null, or a number as text."""
    choices = list(field.get("anyOf", [{k: v for k, v in field.items() if k not in _OF_FIELDS}]))
    if any(choice.get("type") in ("integer", "number") for choice in choices):
        choices.append({"type": "string", "pattern": "^[0-9]+([./][0-9]+)?$"})
    if {"type": "null"} not in choices:
        choices.append({"type": "null"})
    return {**{k: v for k, v in field.items() if k in _OF_FIELDS - {"default"}}, "anyOf": choices}
