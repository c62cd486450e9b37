"""What the API takes in, and how what is wrong with it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model

from farm.complaints import complaint
from farm.errors import InvalidInput
from farm.planning import Plan
from farm.request import (
    MAX_FPS,
    MAX_FRAMES,
    MAX_INPUTS,
    MAX_PROMPT_CHARS,
    MAX_REFERENCES,
    MAX_SIDE,
    MIN_FPS,
    PRESETS,
    JobRequest,
    MediaInfo,
    presets,
)
from farm.state import Event, JobSubmitted, event_adapter
from farm.values import Value

#: An input of a job in JSON.
INPUT_PATTERN = r"^(upload-[0-9a-f]{12}|data:[^,]*;base64,[A-Za-z0-9+/]+=*)$"

#: Of every option, what it means and what it may be, for the API's description.
_OPTION_DOCS: dict[str, dict[str, Any]] = {
    "prompts": {
        "description": "One for the whole video, or one for each input image; with `infill` one between "
        "each two of them.",
        "minItems": 1,
        "items": {"type": "string", "maxLength": MAX_PROMPT_CHARS},
    },
    "negative_prompt": {"description": "What should not be seen.", "maxLength": MAX_PROMPT_CHARS},
    "model": {"description": "As `GET /api/v1/models` names it.", "examples": ["tiny_wan"]},
    "weights": {
        "description": "A transformer in place of the model's own: `[high=|low=]FILE`, GGUF or safetensors. "
        "FILE is a name in the weights folder of the farm's machine; a path only on a farm of one machine.",
        "items": {"type": "string", "pattern": r"^((high|low)=)?.+\.(gguf|safetensors)$"},
    },
    "loras": {
        "description": "What is added to the model, likewise: `[high=|low=]FILE[:SCALE]`, safetensors.",
        "items": {"type": "string", "pattern": r"^((high|low)=)?.+\.safetensors(:-?[0-9.e+-]+)?$"},
    },
    "weight_format": {
        "description": "How weights are kept; null: as the files are, or as the plan proposes."
    },
    "mode": {"description": "How segments relate; `auto` chooses the one that is done soonest."},
    "draft_model": {
        "description": "A lighter model that drafts the keyframes of `infill`; `model` refines them and "
        "renders between them. Goes with `auto` or `infill`."
    },
    "num_frames": {"description": "Length of the video. Not together with `seconds`."},
    "seconds": {"description": "Length of the video, above 0. Not together with `num_frames`."},
    "fps": {
        "description": "Frames a second: 8, 29.97 or 30000/1001.",
        "anyOf": [
            {"type": "number", "minimum": float(MIN_FPS), "maximum": float(MAX_FPS)},
            {"type": "string", "pattern": r"^\d{1,20}(\.\d{1,9}|/\d{1,20})?$"},
            {"type": "null"},
        ],
    },
    "deliver_fps": {
        "description": "Frames a second of the finished video, likewise: those between the rendered ones are "
        "interpolated, but not over cuts. `num_frames` counts them. Null: none are.",
        "anyOf": [
            {"type": "number", "minimum": float(MIN_FPS), "maximum": float(MAX_FPS)},
            {"type": "string", "pattern": r"^\d{1,20}(\.\d{1,9}|/\d{1,20})?$"},
            {"type": "null"},
        ],
    },
    "width": {"description": "Pixels; together with `height`."},
    "height": {"description": "Pixels; together with `width`."},
    "fit": {
        "description": "How an input of another shape fills the frames: its edges are cut off, it lies "
        "between black bars, or it is distorted."
    },
    "audio": {
        "description": "A sound for the video, instead of an input video's own: the id of an upload, or a "
        "data: URL in base64.",
        "anyOf": [{"type": "string", "pattern": INPUT_PATTERN}, {"type": "null"}],
    },
    "mask": {
        "description": "A picture or video of the input video's shape, named as `audio` is: where it is "
        "white the video is changed, elsewhere it stays. For models that take one.",
        "anyOf": [{"type": "string", "pattern": INPUT_PATTERN}, {"type": "null"}],
    },
    "references": {
        "description": "Pictures of what is to be seen, each named as `audio` is. For models that take some.",
        "items": {"type": "string", "pattern": INPUT_PATTERN},
        "maxItems": MAX_REFERENCES,
    },
    "window_frames": {"description": "Frames of a segment."},
    "overlap_frames": {"description": "Frames that neighbouring segments share."},
    "num_inference_steps": {"description": "Denoising steps."},
    "preview": {"description": "A quick look in the model's fewest steps; `num_inference_steps` wins."},
    "guidance_scale": {"description": "How closely the prompt is followed; 1 or less: not at all."},
    "strength": {"description": "How far an input video is changed, above 0 to 1."},
    "seed": {"description": "Same seed, same video."},
    "priority": {"description": "Higher first."},
    "review": {
        "description": "Wait for you after the keyframes: look at them, make some again or replace them, and "
        "approve (`/jobs/{job_id}/keyframes`). Modes `infill` and `refine` have some."
    },
}
#: What ``farm.request.job.check_numbers`` lets through.
_BOUNDS: dict[str, tuple[float, float]] = {
    "num_frames": (1, MAX_FRAMES),
    "width": (16, MAX_SIDE),
    "height": (16, MAX_SIDE),
    "window_frames": (1, 1024),
    "overlap_frames": (0, 1023),
    "num_inference_steps": (1, 1000),
    "guidance_scale": (0, 100),
    "seed": (0, 2**63 - 1),
    "priority": (0, 100),
}

#: The fields of a request that are not files, and the preset they are chosen by.
JobOptions: type[Value] = create_model(
    "JobOptions",
    __base__=Value,
    preset=(str | None, None),
    clip=(bool, False),
    **{  # type: ignore[call-overload]
        name: (field.annotation, field)
        for name, field in JobRequest.model_fields.items()
        if name not in ("inputs", "preset", "audio", "mask", "references")
    },
    audio=(str | None, None),
    mask=(str | None, None),
    references=(tuple[str, ...], ()),
)


class JobBody(JobOptions):
    """A job as JSON: the options, and the inputs by name or with their bytes."""

    inputs: tuple[str, ...] = ()


def options_schema() -> dict[str, Any]:
    """JSON Schema of ``JobOptions`` with the bounds that are checked behind it."""
    schema: dict[str, Any] = JobOptions.model_json_schema()
    properties = schema["properties"]
    for name, described in _OPTION_DOCS.items():
        properties[name] |= described
    for name, (low, high) in _BOUNDS.items():
        for choice in properties[name].get("anyOf", [properties[name]]):
            if choice.get("type") in ("integer", "number"):
                choice |= {"minimum": low, "maximum": high}
    properties["clip"]["description"] = (
        "Of an animated GIF, WebP, PNG or AVIF among the files: a video; else its first picture is taken. "
        "An upload has its own."
    )
    properties["preset"] = {
        "anyOf": [{"type": "string", "enum": [p.name for p in PRESETS]}, {"type": "null"}],
        "default": None,
        "description": "Settings by name, as `GET /api/v1/presets` lists them; what is given besides wins.",
    }
    return schema


def body_schema() -> dict[str, Any]:
    """JSON Schema of ``JobBody``."""
    schema = options_schema()
    schema["title"] = "JobBody"
    schema["properties"]["inputs"] = {
        "type": "array",
        "default": [],
        "maxItems": MAX_INPUTS,
        "items": {"type": "string", "pattern": INPUT_PATTERN},
        "description": "One video, or one or more images: ids of uploads, or data: URLs in base64. Without "
        "any, a model that takes `text_alone` makes the video of the prompt.",
    }
    return schema


class PictureBody(Value):
    """A picture by name or with its bytes."""

    picture: str = Field(
        pattern=INPUT_PATTERN,
        description="The id of an upload, or a data: URL in base64.",
        examples=["upload-5b0d9e21c7af"],
    )


class NodeRequest(Value):
    """A machine by its name."""

    node: str = Field(min_length=1, max_length=32, pattern=r"^[a-z0-9-]+$", examples=["attic"])


class ModelRequest(Value):
    """A model by its name."""

    model: str = Field(min_length=1, max_length=200, examples=["ltx-video-0.9.8-13b-distilled"])


class ReachRequest(Value):
    """TCP ports of whoever asks, and the word, in hex, that whoever connects there is told."""

    ports: tuple[Annotated[int, Field(ge=1024, le=65535)], ...] = Field(
        min_length=1, max_length=1024, examples=[[8473, 8474]]
    )
    word: str = Field(pattern=r"^([0-9a-f]{2}){8,64}$", examples=["9f0c6a528f5e4f0b"])


def job_options(text: bytes) -> dict[str, Any]:
    """The options of an upload's ``request`` field, with what its preset says.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    return _preset(_validated(JobOptions, text))


def job_body(text: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options of a job in JSON, with what its preset says, and the inputs as they are named there.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    options = _validated(JobBody, text)
    inputs = options.pop("inputs", ())
    return _preset(options), inputs


def picture_body(text: bytes) -> str:
    """The picture that a JSON body names.

    Raises:
        InvalidInput: it is no such body.
    """
    named: str = _validated(PictureBody, text)["picture"]
    return named


def _validated(model: type[Value], text: bytes) -> dict[str, Any]:
    try:
        return model.model_validate_json(text).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)) from None


def _preset(options: dict[str, Any]) -> dict[str, Any]:
    name = options.pop("preset", None)
    return options if name is None else presets.apply(name, options)


def job_request(
    options: dict[str, Any], inputs: Sequence[MediaInfo], named: Mapping[str, object] | None = None
) -> JobRequest:
    """Options and checked files as the request they describe; ``named``: the files that options name.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    try:
        return JobRequest(**{**options, **(named or {})}, inputs=tuple(inputs))
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
        # Of an object in a list the field is told, too: loras.0.strength.
        if len(first["loc"]) > 2 and isinstance(first["loc"][-2], int):
            param = f"{param}.{first['loc'][-1]}"
        return InvalidInput(f"{param} {complaint(first)}", param=param)
    if first["type"] == "json_invalid":
        return InvalidInput(f"the request {complaint(first)}")
    wrong = dict.fromkeys(complaint(error) for error in found if error["loc"][:1] == name)
    got = "" if isinstance(first["input"], dict) else f"; got {str(first['input'])[:80]!r}"
    return InvalidInput(f"{param or 'request'}: {', or '.join(wrong)}{got}", param=param)


def shown_plan(plan: Plan) -> Plan:
    """A plan without the folders of this machine; it is a whole ``Plan`` still."""
    mask = plan.mask and shown_media(plan.mask)
    references = tuple(map(shown_media, plan.references))
    shots = (
        shot.model_copy(
            update={
                "media": shown_media(shot.media) if shot.media else None,
                "last_media": shown_media(shot.last_media) if shot.last_media else None,
            }
        )
        for shot in plan.shots
    )
    return plan.model_copy(update={"shots": tuple(shots), "mask": mask, "references": references})


def shown_event(event: Event) -> dict[str, Any]:
    """An event as JSON, without the folders of this machine; ``event_adapter`` reads it back."""
    if isinstance(event, JobSubmitted):
        request = event.request.with_files(shown_media)
        event = event.model_copy(update={"request": request, "plan": shown_plan(event.plan)})
    shown: dict[str, Any] = event_adapter.dump_python(event, mode="json")
    return shown


def shown_media(media: MediaInfo) -> MediaInfo:
    return media.model_copy(update={"path": Path(media.path.name)})
