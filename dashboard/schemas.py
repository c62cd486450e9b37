"""What the API takes in, and how what is wrong with it is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, create_model, model_validator

from farm.errors import InvalidInput
from farm.events import Event, JobSubmitted, event_adapter
from farm.job import JobRequest
from farm.media import MediaInfo
from farm.plan import Plan
from farm.values import Value

#: The fields of a request that are not files.
JobOptions: type[Value] = create_model(
    "JobOptions",
    __base__=Value,
    **{  # type: ignore[call-overload]
        name: (field.annotation, field) for name, field in JobRequest.model_fields.items() if name != "inputs"
    },
)


class DrainRequest(Value):
    """One worker, or all workers of a machine."""

    worker_id: str | None = None
    node: str | None = None

    @model_validator(mode="after")
    def _one(self) -> DrainRequest:
        if (self.worker_id is None) == (self.node is None):
            raise ValueError("give worker_id or node, one of them")
        return self


class NodeRequest(Value):
    """A machine by its name."""

    node: str = Field(min_length=1, max_length=32, pattern=r"^[a-z0-9-]+$")


def job_options(text: bytes) -> dict[str, Any]:
    """The options of an upload's ``request`` field.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    try:
        return JobOptions.model_validate_json(text).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)) from None


def job_request(options: dict[str, Any], inputs: Sequence[MediaInfo]) -> JobRequest:
    """Options and checked files as the request they describe.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    try:
        return JobRequest(**options, inputs=tuple(inputs))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)) from None


def invalid(found: Sequence[Any]) -> InvalidInput:
    """Pydantic's complaints about the first field that is wrong as the farm's own error."""
    first = found[0]
    name = first["loc"][:1]
    # Further parts of a place are positions in a list, or the branches of a choice: each has a complaint.
    param = (
        ".".join(str(part) for part in (*name, *(p for p in first["loc"][1:] if isinstance(p, int)))) or None
    )
    if first["type"] in ("extra_forbidden", "missing"):
        said = "is not known here" if first["type"] == "extra_forbidden" else "is missing"
        return InvalidInput(f"{param} {said}", param=param)
    wrong = dict.fromkeys(
        _lower(e["msg"].removeprefix("Value error, ")) for e in found if e["loc"][:1] == name
    )
    got = "" if isinstance(first["input"], dict) else f"; got {str(first['input'])[:80]!r}"
    return InvalidInput(f"{param or 'request'}: {', or '.join(wrong)}{got}", param=param)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def shown_plan(plan: Plan) -> Plan:
    """A plan without the folders of this machine; it is a whole ``Plan`` still."""
    shots = (
        shot.model_copy(
            update={
                "media": shown_media(shot.media),
                "last_media": shown_media(shot.last_media) if shot.last_media else None,
            }
        )
        for shot in plan.shots
    )
    return plan.model_copy(update={"shots": tuple(shots)})


def shown_event(event: Event) -> dict[str, Any]:
    """An event as JSON, without the folders of this machine; ``event_adapter`` reads it back."""
    if isinstance(event, JobSubmitted):
        request = event.request
        inputs = tuple(shown_media(media) for media in request.inputs)
        request = request.model_copy(update={"inputs": inputs})
        event = event.model_copy(update={"request": request, "plan": shown_plan(event.plan)})
    shown: dict[str, Any] = event_adapter.dump_python(event, mode="json")
    return shown


def shown_media(media: MediaInfo) -> MediaInfo:
    return media.model_copy(update={"path": Path(media.path.name)})
