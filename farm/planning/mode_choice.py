"""Which mode a job is made in, and why not in another; which of several plans. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Literal, TypeAlias

from farm.capabilities import Conditioning, EngineSpec, Mode
from farm.errors import CannotRun
from farm.planning.keyframes import keyframes, reviewed
from farm.planning.plan import BesideChain, Plan, Shot
from farm.planning.predict import critical_path, makespan
from farm.request import JobRequest, Source

#: Seconds until a plan's video would be done on the workers that are here; None: they cannot hold it.
Ends: TypeAlias = Callable[[Plan], float | None]


def mode_of(request: JobRequest, spec: EngineSpec) -> Mode:
    """The mode that is asked for, or that comes first for this input.

    Raises:
        CannotRun: the model cannot run it on this input.
    """
    kind = request.kind
    mode = request.mode
    if request.draft_model is not None:
        _check_draft(request)
        mode = "infill"
    elif mode == "auto":
        mode = "refine" if kind == "video" else "independent" if spec.random_access else "chain"
    refusal = mode_refusal(mode, kind, spec)
    if refusal:
        raise CannotRun(refusal, param="mode")
    return mode


def _check_draft(request: JobRequest) -> None:
    """
    Raises:
        CannotRun: a draft model is asked for, and nothing would be drafted by it.
    """
    if request.kind == "video":
        raise CannotRun(
            f"draft model {request.draft_model} is given, and the input is a video, which needs no draft; "
            "leave it out",
            param="draft_model",
        )
    if request.mode not in ("auto", "infill"):
        raise CannotRun(
            f"draft model {request.draft_model} is given with mode {request.mode}, and infill alone is "
            "drafted by another model; leave one of them out",
            param="draft_model",
        )


def check_beside(request: JobRequest, spec: EngineSpec) -> None:
    """
    Raises:
        CannotRun: a mask or references are given to a model that takes none.
    """
    given: dict[Literal["mask", "references"], bool] = {
        "mask": request.mask is not None,
        "references": bool(request.references),
    }
    beside = {"mask": "", "references": ", or an AnimateDiff with an IP-Adapter"}
    for name, is_given in given.items():
        if is_given and name not in spec.takes:
            raise CannotRun(
                f"{name} {'is' if name == 'mask' else 'are'} given, and model {spec.model} takes none; "
                "leave out what it does not take, or use a VACE" + beside[name],
                param=name,
            )


def mode_refusal(mode: Mode, kind: Source, spec: EngineSpec) -> str | None:
    """Why this model cannot run this mode on this input, or None when it can."""
    if kind == "video":
        if "video" not in spec.takes:
            return f"model {spec.model} takes no input video; give an image, or another model"
        if mode != "refine":
            return f"mode {mode} starts from images, and the input is a video; use refine"
        return None
    if kind == "text" and "text_alone" not in spec.takes:
        return (
            f"no input is given, and model {spec.model} makes no video of words alone; give an image, "
            "several images or a video, or another model: `farm models` tells which take text_alone"
        )
    if kind == "image" and "image" not in spec.takes:
        return f"model {spec.model} takes no image; give a video, or another model"
    if mode == "infill" and kind == "text" and "image" not in spec.takes:
        return f"mode infill drafts keyframes by going on from frames, and {spec.model} takes none; use chain"
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


def untrained(mode: Mode, spec: EngineSpec) -> tuple[Conditioning, ...]:
    """What a mode gives the model that it was not trained for."""
    given: dict[Mode, tuple[Conditioning, ...]] = {"refine": ("video",), "infill": ("last_image",)}
    return tuple(c for c in given.get(mode, ()) if c in spec.untrained)


def mode_notes(
    request: JobRequest,
    spec: EngineSpec,
    mode: Mode,
    shots: Sequence[Shot],
) -> tuple[str, ...]:
    """What a mode does with a model that was not made for it, and with a length that is not its own."""
    notes = [
        f"mode {mode} gives {spec.model} a {given.replace('_', ' ')}, which it was not trained for"
        for given in untrained(mode, spec)
    ]
    last = shots[-1]
    beyond = spec.frames.at_least(last.end - last.start) - (last.end - last.start)
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


def is_drafted(made: Plan) -> bool:
    """Whether something is rendered before a plan's windows, which then do not wait for each other."""
    return any(s.level in ("draft", "keyframes") for s in made.segments)


def refines_untrained(made: Plan, spec: EngineSpec) -> bool:
    """Whether frames are refined by a model that was not trained to be given any."""
    return "video" in spec.untrained and any(s.sources for s in made.segments)


def compared(made: Plan, chained: Plan) -> Plan:
    """A plan with its numbers beside those of a chain."""
    beside = BesideChain(
        critical_path=round(critical_path(made) / critical_path(chained), 4),
        work=round(made.cost_s / chained.cost_s, 4),
    )
    notes = made.notes
    if beside.critical_path >= 1:
        notes = (*notes, f"a chain would end sooner: {made.mode} gains nothing from more workers here")
    return made.model_copy(update={"beside_chain": beside, "notes": notes})


def soonest(chained: Plan, others: Sequence[Plan], workers: int, ends: Ends | None) -> Plan:
    """The first of these plans that ends before the chain does, with a note of why; else the chain.

    ``ends``: when each would; None: on so many equal workers.
    """
    in_parts = [p for p in others if is_drafted(p)]
    if not in_parts:
        return chained
    chained_s = _end(chained, workers, ends)
    shares = {p.mode: _end(p, workers, ends) / chained_s for p in in_parts}
    best = next((p for p in in_parts if shares[p.mode] < 1), min(in_parts, key=lambda p: shares[p.mode]))
    share = shares[best.mode]
    if share < 1:
        note = f"{best.mode} chosen: {workers} workers, about {share:.2f} of chain's time"
        return compared(best.model_copy(update={"notes": (*best.notes, note)}), chained)
    if share == inf:
        note = f"chain chosen: nobody here can hold what {best.mode} takes"
    else:
        note = f"chain chosen: {workers} workers would take about {share:.2f} of its time for {best.mode}"
    return chained.model_copy(update={"notes": (*chained.notes, note)})


def _end(plan: Plan, workers: int, ends: Ends | None) -> float:
    if ends is None:
        return makespan(plan, workers)
    end_s = ends(plan)
    return inf if end_s is None else end_s


def to_review(chained: Plan, others: Sequence[Plan], workers: int, ends: Ends | None) -> Plan:
    """Of the plans with keyframes the one that is done first; ``ends`` as for ``soonest``."""
    in_parts = [p for p in others if keyframes(p)]
    if not in_parts:
        return reviewed(chained)  # says that there are none
    best = min(in_parts, key=lambda p: _end(p, workers, ends))
    note = f"{best.mode} chosen: it has keyframes to look at"
    return reviewed(compared(best.model_copy(update={"notes": (*best.notes, note)}), chained))
