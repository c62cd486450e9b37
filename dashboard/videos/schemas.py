"""The values of ``/v1/videos``, shaped as the official openai clients send and read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from dashboard.http import invalid
from farm.capabilities import Mode
from farm.errors import FarmError, InvalidInput, NotFound
from farm.reporting import progress
from farm.request import DEFAULT_MODEL, FrameRate, MediaInfo, parse_size, presets
from farm.state import Job, JobStatus
from farm.values import Value

V = TypeVar("V", bound=Value)
VideoStatus = Literal["queued", "in_progress", "completed", "failed"]
Variant = Literal["video", "thumbnail", "spritesheet"]

#: Name of a painted picture among a job's inputs; what clients send is named by its hash.
PAINTED_NAME = "backdrop.png"
#: Names of OpenAI's own models begin so; they mean the farm's default.
_FOREIGN_MODEL = "sora-2"
_VIDEO_ID = re.compile(r"video_([0-9a-f]{12})")
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])+)")
#: What the farm calls a parameter in its errors -> the name it has here.
_PARAMS = {
    "frames": "num_frames",
    "window": "window_frames",
    "overlap": "overlap_frames",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "inputs": "input_reference",
    "upload_id": "input_reference",
    # No other field can be too long.
    "request": "input_reference",
    "prompts": "prompt",
}


class InvalidImage(InvalidInput):
    """The input picture or video is not one, is damaged, or is too large."""

    code = "invalid_image"


class Unsupported(InvalidInput):
    """A part of OpenAI's videos API that this farm does not have."""

    code = "unsupported"


def _a_number(value: object) -> object:
    """Python takes True for 1."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Whole = Annotated[int, BeforeValidator(_a_number)]
Number = Annotated[float, BeforeValidator(_a_number)]
Rate = Annotated[FrameRate, BeforeValidator(_a_number)]


class InputReference(Value):
    """The start picture by what it is called: a ``data:`` URL, or an upload of this farm."""

    image_url: str | None = None
    file_id: str | None = None

    @model_validator(mode="after")
    def _one(self) -> InputReference:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give image_url or file_id, one of them")
        return self


class VideoReference(Value):
    """A video of this farm."""

    id: str


class VideoOptions(Value):
    """What may be said of a video, besides its input. Numbers may come as text: forms have nothing else."""

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    seconds: Number | None = None
    size: str | None = None
    width: Whole | None = None
    height: Whole | None = None
    num_frames: Whole | None = None
    fps: Rate | None = None
    deliver_fps: Rate | None = None
    window_frames: Whole | None = None
    overlap_frames: Whole | None = None
    num_inference_steps: Whole | None = None
    guidance_scale: Number | None = None
    strength: Number | None = None
    negative_prompt: str | None = None
    seed: Whole | None = None
    priority: Whole | None = None
    mode: Mode | Literal["auto"] | None = None
    preset: str | None = None


class CreateRequest(VideoOptions):
    input_reference: InputReference | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, values: Any) -> Any:
        """Some clients send the URL or the id itself."""
        given = values.get("input_reference") if isinstance(values, dict) else None
        if not isinstance(given, str):
            return values
        name = "file_id" if given.startswith("upload-") else "image_url"
        return {**values, "input_reference": {name: given}}


class EditRequest(VideoOptions):
    video: VideoReference | None = None


class RemixRequest(Value):
    prompt: Annotated[str, Field(min_length=1)]


class VideoError(TypedDict):
    code: str
    message: str


class Video(TypedDict):
    """A job in the shape of OpenAI's video object. Times in whole seconds since the epoch."""

    id: str
    object: Literal["video"]
    model: str
    status: VideoStatus
    #: Percent.
    progress: int
    created_at: int
    #: When it ended, well or not.
    completed_at: int | None
    #: Videos stay until they are deleted.
    expires_at: None
    prompt: str | None
    size: str
    seconds: str
    remixed_from_video_id: str | None
    error: VideoError | None
    # The farm's own:
    job_id: str
    num_frames: int
    fps: float
    seed: int
    mode: Mode
    #: "none": no input was given, and the model makes a video of the prompt; "painted": it needs a picture,
    #: and a backdrop was painted from the prompt.
    start_picture: Literal["given", "painted", "none"]


class VideoPage(TypedDict):
    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(TypedDict):
    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


def video(job: Job) -> Video:
    """A job as a video."""
    plan = job.plan
    share = 1.0 if job.status == "succeeded" else min(progress(job), 0.99)
    return {
        "id": video_id(job.id),
        "object": "video",
        "model": plan.model,
        "status": _status(job),
        "progress": int(share * 100),
        "created_at": int(job.submitted_at),
        "completed_at": None if job.finished_at is None else int(job.finished_at),
        "expires_at": None,
        "prompt": job.request.prompts[0] or None,
        "size": f"{plan.width}x{plan.height}",
        "seconds": f"{float(plan.delivered.duration_s):.6g}",
        "remixed_from_video_id": video_id(job.remixed_from) if job.remixed_from else None,
        "error": _error(job.status, job.reason),
        "job_id": job.id,
        "num_frames": plan.delivered.num_frames,
        "fps": float(plan.delivered.fps),
        "seed": plan.seed,
        "mode": plan.mode,
        "start_picture": _start_picture(job.request.source),
    }


def _start_picture(source: MediaInfo | None) -> Literal["given", "painted", "none"]:
    if source is None:
        return "none"
    return "painted" if source.path.name == PAINTED_NAME else "given"


def _status(job: Job) -> VideoStatus:
    match job.status:
        case "running":
            begun = job.num_running or job.num_done
            return "in_progress" if begun else "queued"
        case "succeeded":
            return "completed"
    return "failed"


def _error(status: JobStatus, reason: str) -> VideoError | None:
    if status == "failed":
        return {"code": "job_failed", "message": reason}
    if status == "cancelled":
        return {
            "code": "cancelled",
            "message": "it was cancelled; what is done is kept, and it can be retried",
        }
    return None


def video_id(job_id: str) -> str:
    return "video_" + job_id.removeprefix("job-")


def job_id_of(video_id: str) -> str:
    """
    Raises:
        NotFound: no video is called so.
    """
    found = _VIDEO_ID.fullmatch(video_id)
    if found is None:
        raise NotFound(f"{video_id[:80]!r} is no video id (video_ and 12 hex digits)", param="video_id")
    return f"job-{found[1]}"


def nested(fields: Mapping[str, str]) -> dict[str, Any]:
    """Form fields as the object a client made them from: ``a[b]`` is key ``b`` of the object ``a``.

    Raises:
        InvalidInput: a field is a value and an object.
    """
    made: dict[str, Any] = {}
    for name, value in fields.items():
        found = _KEY.fullmatch(name)
        first, *rest = [found[1], *found[2][1:-1].split("][")] if found else [name]
        target, key = made, first
        for deeper in rest:
            target, key = target.setdefault(key, {}), deeper
            if not isinstance(target, dict):
                raise InvalidInput(f"{first} is given as a value and as an object", param=first)
        if key in target:
            raise InvalidInput(f"{first} is given as a value and as an object", param=first)
        target[key] = value
    return made


def validated(model: type[V], values: Mapping[str, Any] | bytes) -> V:
    """A form's values, or JSON, as what they say.

    Raises:
        InvalidInput: names the first field that is wrong.
    """
    try:
        return (
            model.model_validate_json(values) if isinstance(values, bytes) else model.model_validate(values)
        )
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)) from None


def job_options(wanted: VideoOptions, *, default_model: str = DEFAULT_MODEL) -> dict[str, Any]:
    """The options of the ``JobRequest`` that was asked for, with what its preset says.

    Raises:
        InvalidInput: the size is said twice or is no size, or the preset is not known.
    """
    options = wanted.model_dump(exclude_none=True, exclude={"input_reference", "video"})
    options["prompts"] = (options.pop("prompt"),)
    model = options.get("model", _FOREIGN_MODEL)
    options["model"] = default_model if model.startswith(_FOREIGN_MODEL) else model
    size = options.pop("size", None)
    if size is not None:
        if "width" in options or "height" in options:
            raise InvalidInput("size and width and height are all given; give one of them", param="size")
        options["width"], options["height"] = parse_size(size)
    preset = options.pop("preset", None)
    return options if preset is None else presets.apply(preset, options)


def name_here(error: FarmError) -> None:
    """Give an error's parameter the name it has at this door."""
    error.param = _PARAMS.get(error.param or "", error.param)


def poll_after_ms(eta_s: float | None) -> int:
    """How long a client should wait before it looks again; it keeps to the first answer for a whole job."""
    return 1000 if eta_s is None else round(min(max(eta_s / 20, 0.25), 5.0) * 1000)
