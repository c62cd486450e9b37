"""What a user asks for: one long video. Everything left None is decided by the planner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Literal, TypeAlias

from pydantic import field_validator

from farm.capabilities import LoraFile, Mode, WeightFile, WeightFormat, Weights, check_weights
from farm.errors import InvalidInput
from farm.request.media import FrameRate, MediaInfo
from farm.values import Value

#: What a video is made from: words alone, pictures, or a video.
Source: TypeAlias = Literal["text", "image", "video"]

#: How an input fills frames of another shape: cut at its edges, between black bars, or distorted.
Fit: TypeAlias = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")

MAX_FRAMES = 200_000
#: A frame for ten seconds: slower is a slide show, and file formats round it.
MIN_FPS, MAX_FPS = Fraction(1, 10), Fraction(240)
MAX_SIDE = 4096
MAX_PROMPT_CHARS = 4000
MAX_INPUTS = 200
#: Each is a latent of every window.
MAX_REFERENCES = 4
#: Shapes that differ by less are the same: sides are whole pixels.
_SAME_SHAPE = 0.01
MAX_SEED = 2**63 - 1


class JobRequest(Value):
    """One image, several images (a storyboard), one video, or words alone, and what to make of them."""

    inputs: tuple[MediaInfo, ...] = ()
    #: A sound for the video, instead of the input video's own.
    audio: MediaInfo | None = None
    #: An image or a video: the input video is changed where it is white, and stays elsewhere.
    mask: MediaInfo | None = None
    #: Pictures of what is to be seen, for a model that takes some.
    references: tuple[MediaInfo, ...] = ()
    #: One for the whole job, one per image, or (``infill``) one between each two; without images one a shot.
    prompts: tuple[str, ...] = ("",)
    negative_prompt: str = ""
    model: str
    #: A transformer in place of the model's own, what is added to it, and the format it is kept in; None: as
    #: it is, or as the plan proposes.
    weights: tuple[WeightFile, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    weight_format: WeightFormat | None = None
    mode: Mode | Literal["auto"] = "auto"
    #: The model that drafts keyframes (``infill``); None: the same.
    draft_model: str | None = None
    num_frames: int | None = None
    seconds: float | None = None
    fps: FrameRate | None = None
    #: Frames a second of what is published: those between the rendered ones are interpolated; None: none are.
    deliver_fps: FrameRate | None = None
    width: int | None = None
    height: int | None = None
    fit: Fit = "crop"
    window_frames: int | None = None
    overlap_frames: int | None = None
    num_inference_steps: int | None = None
    #: The settings by name that it was asked with; what is left open is taken from its ``Level``.
    preset: str | None = None
    #: A quick look, in the model's ``preview_steps``; steps that are asked for win.
    preview: bool = False
    guidance_scale: float | None = None
    strength: float | None = None
    seed: int = 0
    priority: int = 50
    #: Its keyframes are to be looked at before its windows are rendered.
    review: bool = False

    @field_validator("prompts")
    @classmethod
    def _not_empty(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value:
            raise ValueError("expected at least one")
        return value

    @property
    def chosen_weights(self) -> Weights:
        """What the model is to be run with."""
        return Weights(files=self.weights, loras=self.loras, format=self.weight_format)

    @property
    def source(self) -> MediaInfo | None:
        """The input that tells shape and rate; None: there are words alone."""
        return self.inputs[0] if self.inputs else None

    @property
    def kind(self) -> Source:
        if self.source is None:
            return "text"
        return "video" if self.source.kind == "video" else "image"

    @property
    def num_shots(self) -> int:
        """Of a video with cuts: an input each, or a prompt each where there are words alone."""
        return len(self.inputs) or len(self.prompts)

    @property
    def files(self) -> tuple[MediaInfo, ...]:
        """All that it is made from."""
        beside = (media for media in (self.audio, self.mask) if media is not None)
        return (*self.inputs, *beside, *self.references)

    def with_files(self, change: Callable[[MediaInfo], MediaInfo]) -> JobRequest:
        """The same over changed files."""
        return self.model_copy(
            update={
                "inputs": tuple(map(change, self.inputs)),
                "audio": None if self.audio is None else change(self.audio),
                "mask": None if self.mask is None else change(self.mask),
                "references": tuple(map(change, self.references)),
            }
        )


def check(request: JobRequest) -> None:
    """Refuse numbers and combinations that no model could serve.

    Raises:
        InvalidInput: names the parameter, what it was and what it may be.
    """
    check_numbers(dict(request))
    check_weights(request.chosen_weights)
    if request.num_frames is not None and request.seconds is not None:
        raise InvalidInput("frames and seconds are both given; give one of them", param="frames")
    if (request.width is None) != (request.height is None):
        raise InvalidInput("width and height go together; give both or neither", param="size")
    kinds = {media.kind for media in request.inputs}
    if "audio" in kinds:
        raise InvalidInput(
            "a sound is given as an input; a video is made from a picture or a video, a sound goes with "
            "--audio (audio in the API)",
            param="inputs",
        )
    if request.audio is not None and request.audio.sound is None:
        raise InvalidInput("audio: the file has no sound that can be decoded; give another", param="audio")
    _check_mask_and_references(request)
    if "video" in kinds and len(request.inputs) > 1:
        raise InvalidInput(
            f"got {len(request.inputs)} inputs with a video among them; "
            "give one video, or one or more images",
            param="inputs",
        )
    if len(request.inputs) > MAX_INPUTS:
        raise InvalidInput(
            f"got {len(request.inputs)} inputs, at most {MAX_INPUTS} are taken", param="inputs"
        )
    if not request.inputs:
        _check_words(request)
    between = len(request.inputs) - 1 if request.mode == "infill" else 1
    if request.inputs and len(request.prompts) not in (1, between, len(request.inputs)):
        each = "one for each" if between < 2 else f"one between each two, {between} in all"
        raise InvalidInput(
            f"got {len(request.prompts)} prompts for {len(request.inputs)} inputs; "
            f"give one prompt for all or {each}",
            param="prompt",
        )
    for prompt in (*request.prompts, request.negative_prompt):
        if len(prompt) > MAX_PROMPT_CHARS:
            raise InvalidInput(
                f"a prompt has {len(prompt)} characters, at most {MAX_PROMPT_CHARS} are taken",
                param="prompt",
            )
    prompts = [("prompt", text) for text in (*request.prompts, request.negative_prompt)]
    for name, text in (("model", request.model), ("draft_model", request.draft_model or ""), *prompts):
        if not _is_text(text):
            raise InvalidInput(f"{name} holds bytes that are no UTF-8 text; type it again", param=name)


def _check_words(request: JobRequest) -> None:
    """
    Raises:
        InvalidInput: there is neither an input nor a prompt, or a shot without one, or too many of them.
    """
    if not all(prompt.strip() for prompt in request.prompts):
        raise InvalidInput(
            "there is no input, and no prompt to make a video of; give an image, several images or a video, "
            "or say what is to be seen with a prompt",
            param="inputs",
        )
    if len(request.prompts) > MAX_INPUTS:
        raise InvalidInput(
            f"got {len(request.prompts)} prompts, at most {MAX_INPUTS} are taken", param="prompt"
        )


def _check_mask_and_references(request: JobRequest) -> None:
    mask, source = request.mask, request.source
    if mask is not None:
        if source is None or source.kind != "video":
            raise InvalidInput(
                "mask is given, and the input is no video: a mask says where one is changed; leave it out",
                param="mask",
            )
        if mask.kind == "audio":
            raise InvalidInput("mask is a sound; give a picture or a video", param="mask")
        aside = abs(mask.width * source.height - source.width * mask.height)
        if aside > _SAME_SHAPE * mask.width * source.height:
            raise InvalidInput(
                f"mask is {mask.width}x{mask.height} and the video {source.width}x{source.height}; give one "
                "of the video's shape",
                param="mask",
            )
    if len(request.references) > MAX_REFERENCES:
        raise InvalidInput(
            f"got {len(request.references)} references, at most {MAX_REFERENCES} are taken",
            param="references",
        )
    if any(media.kind != "image" for media in request.references):
        raise InvalidInput("references holds what is no picture; give pictures", param="references")


def check_numbers(fields: Mapping[str, Any]) -> None:
    """Refuse numbers out of range, before any file is looked at. ``fields``: of a ``JobRequest``, by name.

    Raises:
        InvalidInput: names the parameter, what it was and what it may be.
    """
    _in_range("seconds", fields["seconds"], 0, MAX_FRAMES, above_low=True)
    _in_range("frames", fields["num_frames"], 1, MAX_FRAMES)
    _in_range("fps", fields["fps"], MIN_FPS, MAX_FPS)
    _in_range("deliver_fps", fields["deliver_fps"], MIN_FPS, MAX_FPS)
    _in_range("width", fields["width"], 16, MAX_SIDE)
    _in_range("height", fields["height"], 16, MAX_SIDE)
    _in_range("window", fields["window_frames"], 1, 1024)
    _in_range("overlap", fields["overlap_frames"], 0, 1023)
    _in_range("steps", fields["num_inference_steps"], 1, 1000)
    _in_range("guidance", fields["guidance_scale"], 0, 100)
    _in_range("strength", fields["strength"], 0, 1, above_low=True)
    check_priority(fields["priority"])
    check_seed(fields["seed"])


def check_priority(priority: int | None) -> None:
    """
    Raises:
        InvalidInput: it is not 0 to 100.
    """
    _in_range("priority", priority, 0, 100)


def check_seed(seed: int | None) -> None:
    """
    Raises:
        InvalidInput: it is no seed.
    """
    _in_range("seed", seed, 0, MAX_SEED)


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; arguments of a command may be any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_range(
    name: str,
    value: float | Fraction | None,
    low: float | Fraction,
    high: float | Fraction,
    *,
    above_low: bool = False,
) -> None:
    if value is None:
        return
    finite = value == value and abs(value) != float("inf")
    if not finite or value > high or value < low or (above_low and value == low):
        bound = f"above {low} and at most {high}" if above_low else f"{low} to {high}"
        raise InvalidInput(f"{name} is {value}, expected {bound}", param=name)
