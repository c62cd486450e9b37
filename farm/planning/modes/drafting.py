"""How the keyframes of ``infill`` are drafted: by which model, at which size, in how many steps. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from farm.capabilities import OWN_WEIGHTS, EngineSpec, SpecOf
from farm.errors import CannotRun, FarmError
from farm.planning.framing import draft_size, framing
from farm.planning.modes.cutting import Drafting, draft_steps, draft_stride
from farm.planning.plan import Plan, Segment
from farm.request import Fit, JobRequest


class Frames(NamedTuple):
    """What a draft is for: the video's size, rate and windows, as decided before."""

    width: int
    height: int
    fps: Fraction
    window: int
    overlap: int
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True)
class DraftChoice:
    drafting: Drafting
    width: int
    height: int
    guidance_scale: float
    #: Whether the draft is rendered otherwise than the video, in more than its steps.
    is_apart: bool


def draft_spec_of(request: JobRequest, spec_of: SpecOf) -> EngineSpec | None:
    """The spec of the model that is to draft; None where none is asked for.

    Raises:
        FarmError: as ``spec_of`` says, of the draft model.
    """
    if request.draft_model is None:
        return None
    with of_draft():
        return spec_of(request.draft_model, OWN_WEIGHTS)


@contextmanager
def of_draft() -> Iterator[None]:
    """What is wrong with a model that is read within is said of the draft model."""
    try:
        yield
    except FarmError as error:
        raise type(error)(f"draft model: {error.message}", param="draft_model") from error


def draft_choice(
    request: JobRequest, spec: EngineSpec, other: EngineSpec | None, video: Frames, *, between: bool
) -> DraftChoice:
    """How keyframes of this video are drafted.

    A model that is told rates drafts frames as far apart as the keyframes, at full size and in all of its
    steps. One that has a pace of its own drafts at that, at the smallest size it was trained on and in the
    fewest steps that reach every expert. Another model has its own size and steps, unless it drafts at its
    own pace, too.

    Args:
        request: What is asked for.
        spec: Of the model that renders the video.
        other: Of a model asked for to draft; None: the same.
        video: What is decided of it.
        between: The draft goes from an image to the next: its frames stand where a window reaches.

    Raises:
        CannotRun: the other model cannot draft this.
    """
    if other is not None:
        _check(other, between=between, of_words=request.source is None)
    drafter = other or spec
    step = video.window - max(1, video.overlap)
    stride = step if between else draft_stride(step, video.fps, drafter.min_fps)
    at_own_pace = not between and (not drafter.knows_rates or stride == 1 < step)
    can_refine = "video" in spec.takes and spec.default_strength is not None
    if other is None and not (at_own_pace and can_refine):
        steps = video.num_inference_steps
        same = Drafting(
            spec=spec,
            window=video.window,
            num_inference_steps=steps if between else draft_steps(steps, stride),
            stride=stride,
        )
        return DraftChoice(same, video.width, video.height, video.guidance_scale, is_apart=False)
    width, height = draft_size(drafter, video.width, video.height, smallest=at_own_pace)
    steps = video.num_inference_steps
    if other is not None:
        steps = min(other.default_steps, request.num_inference_steps or other.default_steps)
    if at_own_pace:
        steps = min(steps, drafter.draft_steps or draft_steps(steps, stride))
    elif not between:
        steps = draft_steps(steps, stride)
    window = video.window if other is None else other.window_frames
    return DraftChoice(
        Drafting(
            spec=drafter,
            window=window,
            num_inference_steps=steps,
            stride=stride,
            refined=can_refine,
        ),
        width,
        height,
        video.guidance_scale if other is None else other.default_guidance_scale,
        is_apart=other is not None or (width, height) != (video.width, video.height),
    )


def _check(other: EngineSpec, *, between: bool, of_words: bool) -> None:
    """
    Raises:
        CannotRun: this model cannot make a draft.
    """
    if "image" not in other.takes:
        raise CannotRun(
            f"draft model {other.model} cannot start from an image; give another", param="draft_model"
        )
    if of_words and "text_alone" not in other.takes:
        raise CannotRun(
            f"draft model {other.model} makes no video of words alone, and no input is given; give another, "
            "or an image",
            param="draft_model",
        )
    if other.random_access:
        raise CannotRun(
            f"draft model {other.model} starts anywhere instead of going on from a frame; give another",
            param="draft_model",
        )
    if between and "last_image" not in other.takes:
        raise CannotRun(
            f"draft model {other.model} takes no last image, and a draft between two images ends on one; "
            "give another",
            param="draft_model",
        )
    if other.window_frames < 2:
        raise CannotRun(
            f"draft model {other.model} renders single frames, and a draft hands one over; give another",
            param="draft_model",
        )


def draft_notes(
    request: JobRequest, spec: EngineSpec, made: Plan, choice: DraftChoice | None
) -> tuple[str, ...]:
    """What the draft of a plan is, and what becomes of its frames; nothing of one like the video itself."""
    drafts = [s for s in made.segments if s.level == "draft"]
    if choice is None or not drafts:
        return (f"no draft is needed: {request.draft_model} is not used",) if request.draft_model else ()
    by = choice.drafting
    if not by.refined and not choice.is_apart:
        return ()
    notes = [_drafted(spec, made, choice, drafts)]
    keyframes = "its keyframes"
    size = f"{made.width}x{made.height}"
    if (choice.width, choice.height) != (made.width, made.height):
        fit: Fit = "stretch" if made.fit == "stretch" else "crop"
        framed = framing(choice.width, choice.height, made.width, made.height, fit)
        cut = f"; each {framed.said}" if framed.said else ""
        notes.append(f"{keyframes} are scaled from {choice.width}x{choice.height} to {size}{cut}")
    if by.refined:
        notes.append(f"{keyframes} are refined by {spec.model}, at strength {made.strength:g}")
        if "video" in spec.untrained:
            notes.append(f"a draft's frames to refine are a video, which {spec.model} was not trained for")
    if made.references and by.spec.model != spec.model:
        notes.append(f"{by.spec.model} is not shown the references")
    if not by.refined:
        notes.append(f"{keyframes} stay as they are drafted: {spec.model} takes no video to refine")
    return tuple(notes)


def _drafted(spec: EngineSpec, made: Plan, choice: DraftChoice, drafts: Sequence[Segment]) -> str:
    by = choice.drafting
    every = "every frame" if by.stride == 1 else f"one frame in {by.stride}"
    if drafts[0].keyframe_indices is not None:
        every = "the keyframes alone"
    why = f", for {by.spec.model} knows no slower motion" if by.spec.model == spec.model else ""
    size, steps = f"{choice.width}x{choice.height}", by.num_inference_steps
    return f"the draft is by {by.spec.model}, at {size} in {steps} steps: {every}{why}"
