"""Which mode a job is made in, and why not in another. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from farm.capabilities import Conditioning, EngineSpec, Mode
from farm.errors import CannotRun
from farm.planning.plan import Segment, Shot
from farm.request import JobRequest


def mode_of(request: JobRequest, spec: EngineSpec) -> Mode:
    """The mode that is asked for, or that comes first for this input.

    Raises:
        CannotRun: the model cannot run it on this input.
    """
    kind = request.inputs[0].kind
    mode = request.mode
    if mode == "auto":
        mode = "refine" if kind == "video" else "independent" if spec.random_access else "chain"
    refusal = mode_refusal(mode, kind, len(request.inputs), spec)
    if refusal:
        raise CannotRun(refusal, param="mode")
    return mode


def mode_refusal(mode: Mode, kind: str, num_inputs: int, spec: EngineSpec) -> str | None:
    """Why this model cannot run this mode on this input, or None when it can."""
    if kind == "video":
        if "video" not in spec.takes:
            return f"model {spec.model} takes no input video; give an image, or another model"
        if mode != "refine":
            return f"mode {mode} starts from images, and the input is a video; use refine"
        return None
    if "image" not in spec.takes:
        return f"model {spec.model} takes no image; give a video, or another model"
    if mode == "refine" and spec.random_access:
        return f"mode refine drafts a video from an image first, and {spec.model} needs none; use independent"
    if mode == "refine" and "video" not in spec.takes:
        return f"mode refine works over a video, its own draft too, and {spec.model} takes none; use chain"
    if mode == "independent" and not spec.random_access:
        return f"mode independent needs a model that can start at any frame; {spec.model} cannot: use chain"
    if mode == "infill" and "last_image" not in spec.takes:
        return (
            f"mode infill needs a model that takes a last image; {spec.model} does not: "
            "use chain, one shot an image"
        )
    if mode == "co_denoise" and not spec.fusible:
        return (
            f"mode co_denoise needs a model whose windows can be fused between denoising steps; "
            f"{spec.model} is not prepared for that: use chain"
        )
    return None


def untrained(mode: Mode, kind: str, spec: EngineSpec) -> tuple[Conditioning, ...]:
    """What a mode gives the model that it was not trained for."""
    given: dict[Mode, tuple[Conditioning, ...]] = {"refine": ("video",), "infill": ("last_image",)}
    return tuple(c for c in given.get(mode, ()) if c in spec.untrained)


def mode_notes(
    request: JobRequest,
    spec: EngineSpec,
    mode: Mode,
    shots: Sequence[Shot],
    segments: Sequence[Segment],
) -> tuple[str, ...]:
    """What a mode does with a model that was not made for it, and with a length that is not its own."""
    notes = [
        f"mode {mode} gives {spec.model} a {given.replace('_', ' ')}, which it was not trained for"
        for given in untrained(mode, request.inputs[0].kind, spec)
    ]
    last = shots[-1]
    beyond = spec.frames.at_least(last.end - last.start) - (last.end - last.start)
    drafts = [s for s in segments if s.level == "draft"]
    if mode == "infill" and drafts and all(s.frame_stride == 1 for s in drafts):
        notes.append(
            f"the draft has every frame, for {spec.model} knows no slower motion: a chain would end sooner"
        )
    if mode == "infill" and last.last_media and len(request.prompts) == len(request.inputs):
        count = len(request.prompts)
        notes.append(
            f"the last of {count} prompts is not used: between {count} pictures there is room for {count - 1}"
        )
    if mode == "infill" and last.last_media and beyond:
        notes.append(
            f"the last picture stands {beyond} frames past the end, where {spec.model} can be given it; "
            f"{last.end + beyond} frames end on it"
        )
    return tuple(notes)
