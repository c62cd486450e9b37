"""The values of a plan: every segment, handle, seed and dependency of a job, decided once at submit."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Self, TypeAlias

from pydantic import Field

from farm.capabilities import OWN_WEIGHTS, DeviceKind, Mode, Need, Rung, Weights
from farm.planning.render_task import Level, RenderTask, num_steps_run
from farm.planning.sound import Sound
from farm.request import Fit, MediaInfo
from farm.values import Value, share_names

#: By what it takes there, work is compared with work. What is expected of a card nobody has measured has
#: parts that are the same for any model, beside which small ones look alike.
_MEASURE: DeviceKind = "cpu"
#: Every level draws noise of its own: the first of its numbers, and how many hops have one to themselves.
#: (A window shares frames with the one before alone, so that the numbers may come round again.)
FIRST_NOISE_LEVEL: dict[Level, int] = {"text": 0, "final": 0, "keyframes": 2048, "draft": 2049}
NUM_HOP_NOISE_LEVELS = 2047


Kind: TypeAlias = tuple[int, int, bool, bool, int]
"""What segments are told apart by: frames, steps, over frames, drafted, latents beside."""


class FrameRun(Value):
    """Frames that another segment has rendered, at its positions [first, end)."""

    segment: str
    first: int
    end: int


class Shot(Value):
    """A run of frames without a cut, from one image (or the input video, or nothing else) and one prompt."""

    index: int
    start: int
    end: int
    mode: Mode
    prompt: str
    #: None: the prompt is all there is.
    media: MediaInfo | None = None
    #: The image the shot ends on (``infill`` only).
    last_media: MediaInfo | None = None

    @property
    def is_over_video(self) -> bool:
        return self.media is not None and self.media.kind == "video"


class Segment(Value):
    """One window: what one render task makes. Frame numbers are global and half-open."""

    id: str
    shot: int
    level: Level
    #: The frames kept of this segment, its handles included; of a draft or keyframes, those it spans.
    start: int
    end: int
    #: What the engine renders; frames past ``end`` are dropped.
    num_frames: int
    #: Handles: frames shared with the segment before and the one after.
    head: int = 0
    tail: int = 0
    #: Frames of the video from one rendered frame to the next.
    frame_stride: int = 1
    #: Where the frames stand when they are not evenly apart (keyframes of a video).
    keyframe_indices: tuple[int, ...] | None = None
    #: Steps of its schedule; None: the plan's.
    num_inference_steps: int | None = None
    depends_on: tuple[str, ...] = ()
    #: Position of the frame the next segment starts from.
    handover_index: int | None = None
    #: Latents that the next segment takes over after that frame; 0: the frame alone.
    handover_latents: int = 0
    #: It is the draft's where ``Plan.draft`` tells of one: so are its prompts.
    drafted: bool = False
    #: The segment whose hand-over this one starts from, and the one whose statistics it is pulled to.
    handover_from: str | None = None
    anchor_from: str | None = None
    #: What this one is made from: its first frame and, where the shot has no video, the frames it is over.
    sources: tuple[FrameRun, ...] = ()
    #: The task that encodes its prompts; None: its worker does.
    text_from: str | None = None
    #: Frames of other segments that it is given as they are, at their places among its own.
    known: tuple[FrameRun, ...] = ()
    #: Latents that stand beside its own: pictures of what is to be seen, and frames that are given so.
    latents_beside: int = 0
    #: Hops since the shot's image; each draws its own noise.
    hop: int = 0
    anchor_strength: float = 0.0

    def model_post_init(self, context: Any, /) -> None:
        share_names(self)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        share_names(copied)
        return copied

    @property
    def frame_indices(self) -> tuple[int, ...]:
        span = self.num_frames * self.frame_stride
        return self.keyframe_indices or tuple(range(self.start, self.start + span, self.frame_stride))


class Footprint(Value):
    """What the plan's largest window, or its prompts, take on one kind of worker."""

    #: Bytes it holds, per rung, fastest first.
    need_bytes: dict[Rung, int]
    #: Bytes of the machine's memory beside a card, likewise; empty: not told.
    host_bytes: dict[Rung, int] = Field(default_factory=dict)
    #: Seconds relative to the resident rung.
    slowdown: dict[Rung, float]
    #: Before anything was measured on a worker.
    prior_seconds_per_mpixel_step: float
    #: Seconds to bring the model there, likewise.
    prior_load_s: float
    #: What the VAE takes for a frame, in denoising steps.
    decode_steps: float = 0.0
    encode_steps: float = 0.0
    #: How much longer attention makes a step for each latent of a window, in parts of the rest of the step; a
    #: window of n frames has (n - 1) / frames_per_latent + 1, rounded down.
    attention_per_latent: float = 0.0
    frames_per_latent: int = 1
    #: Of the model's files, which a machine that lacks them takes from others first.
    disk_bytes: int = 0

    @property
    def needs(self) -> dict[Rung, Need]:
        """All that is held, per rung, fastest first."""
        return {rung: Need(n, self.host_bytes.get(rung, 0)) for rung, n in self.need_bytes.items()}


class Draft(Value):
    """How a draft is rendered where it is not as the video is: by another model, or smaller."""

    model: str
    #: Those of the video where its own model drafts; another model's are its own.
    weights: Weights = OWN_WEIGHTS
    width: int
    height: int
    window_frames: int
    num_inference_steps: int
    guidance_scale: float
    #: What its largest window takes, and its prompts where they are a task of their own, per kind of worker.
    on: dict[DeviceKind, Footprint]
    text_on: dict[DeviceKind, Footprint] = Field(default_factory=dict)

    @property
    def loaded_as(self) -> str:
        """As ``Plan.loaded_as``."""
        return loaded_as(self.model, self.weights)


def loaded_as(model: str, weights: Weights) -> str:
    """A model with these weights, as people are told it."""
    return f"{model} with {weights}" if str(weights) else model


class BesideChain(Value):
    """A plan's numbers as shares of those that mode ``chain`` would have."""

    #: The longest run of segments that must follow each other.
    critical_path: float
    #: All work.
    work: float


class Delivery(Value):
    """The video that is published, where frames are interpolated between the rendered ones."""

    num_frames: int
    fps: Fraction

    @property
    def duration_s(self) -> Fraction:
        return self.num_frames / self.fps


class Plan(Value):
    """The whole job. ``segments`` stand in an order in which each one's dependencies come before it."""

    model: str
    #: What the model runs from on all workers.
    weights: Weights = OWN_WEIGHTS
    mode: Mode
    num_frames: int
    fps: Fraction
    width: int
    height: int
    fit: Fit = "crop"
    window_frames: int
    overlap_frames: int
    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str
    strength: float | None
    seed: int
    shots: tuple[Shot, ...]
    segments: tuple[Segment, ...]
    #: What a window takes, per kind of worker.
    on: dict[DeviceKind, Footprint]
    #: What encoding its prompts takes, where that is a task of its own.
    text_on: dict[DeviceKind, Footprint] = Field(default_factory=dict)
    #: None: what is drafted is rendered as the video is.
    draft: Draft | None = None
    #: Of a mode that drafts; None: the model cannot chain these windows.
    beside_chain: BesideChain | None = None
    #: Where the input video is changed; None: everywhere.
    mask: MediaInfo | None = None
    #: Pictures of what is to be seen.
    references: tuple[MediaInfo, ...] = ()
    #: None: frames are published as they are rendered.
    delivery: Delivery | None = None
    #: None: the video is silent.
    sound: Sound | None = None
    #: Its windows wait until somebody has looked at its keyframes.
    review: bool = False
    notes: tuple[str, ...] = ()

    @property
    def loaded_as(self) -> str:
        """The model with its weights: what workers hold, and of which speeds and needs are learned."""
        return loaded_as(self.model, self.weights)

    @property
    def read(self) -> tuple[MediaInfo, ...]:
        """The files that are decoded for a window."""
        return tuple(media for media in (self.shots[0].media, self.mask) if media is not None)

    @property
    def delivered(self) -> Delivery:
        """What is published, interpolated or not."""
        return self.delivery or Delivery(num_frames=self.num_frames, fps=self.fps)

    @property
    def final_segments(self) -> tuple[Segment, ...]:
        """The segments that are joined into the video, in order."""
        return tuple(s for s in self.segments if s.level == "final")

    @property
    def mpixel_steps(self) -> float:
        """Work of the whole job in million pixels x frames x steps run."""
        return sum(map(self.work_units, self.segments))

    @property
    def cost_s(self) -> float:
        """Work of the whole job, as ``cost_s_of`` one segment."""
        return sum(self.costs_s())

    def rendered_as(self, segment: Segment) -> Plan | Draft:
        """What says by which model, at which size and in which memory a segment is rendered."""
        return self.draft if self.draft and segment.drafted else self

    def footprint(self, segment: Segment, kind: DeviceKind) -> Footprint:
        """What a segment takes on one kind of worker."""
        here = self.rendered_as(segment)
        return here.text_on[kind] if segment.level == "text" else here.on[kind]

    def work_units(self, segment: Segment) -> float:
        """Million pixels x frames x steps run of one segment, by its own model."""
        here = self.rendered_as(segment)
        steps = num_steps_run(self._num_inference_steps(segment), self._strength(segment))
        return segment.num_frames * here.width * here.height * steps / 1e6

    def timed_units(self, segment: Segment, kind: DeviceKind) -> float:
        """``work_units`` of a segment, with what attention makes longer and its VAE does counted as steps."""
        here, rendered_as = self.footprint(segment, kind), self.rendered_as(segment)
        coding_steps = here.decode_steps + (here.encode_steps if self.is_over_frames(segment) else 0.0)
        mpixels = segment.num_frames * rendered_as.width * rendered_as.height / 1e6
        own = max((segment.num_frames - 1) // here.frames_per_latent + 1, 1)
        latents = own + segment.latents_beside
        work = self.work_units(segment) * latents / own
        return work * (1 + here.attention_per_latent * latents) + mpixels * coding_steps

    def costs_s(self) -> list[float]:
        """``cost_s_of`` every segment, in order; those of a kind are counted once."""
        kinds = [(segment.level == "text", *self.kind_of(segment)) for segment in self.segments]
        costs = {kind: self.cost_s_of(s) for kind, s in dict(zip(kinds, self.segments, strict=True)).items()}
        return [costs[kind] for kind in kinds]

    def cost_s_of(self, segment: Segment) -> float:
        """Seconds of a segment on a CPU that nothing is known of: by these, work is compared."""
        per_unit = self.footprint(segment, _MEASURE).prior_seconds_per_mpixel_step
        return per_unit * self.timed_units(segment, _MEASURE)

    def kind_of(self, segment: Segment) -> Kind:
        """Segments of one kind are as much work, and take as long and as many bytes on one worker."""
        steps, over_frames = self._num_inference_steps(segment), self.is_over_frames(segment)
        return segment.num_frames, steps, over_frames, segment.drafted, segment.latents_beside

    def _num_inference_steps(self, segment: Segment) -> int:
        if segment.num_inference_steps:
            return segment.num_inference_steps
        return self.rendered_as(segment).num_inference_steps

    def is_over_frames(self, segment: Segment) -> bool:
        """Whether a segment changes frames that are there, instead of rendering from noise alone."""
        return bool(segment.sources) or self.shots[segment.shot].is_over_video

    def _strength(self, segment: Segment) -> float | None:
        return self.strength if self.is_over_frames(segment) else None

    def render_task(self, segment: Segment, *, take: int = 0, seed: int | None = None) -> RenderTask:
        """The order for one segment of this plan; with a seed of its own, as a job of that seed has it."""
        shot, here = self.shots[segment.shot], self.rendered_as(segment)
        return RenderTask(
            model=here.model,
            weights=here.weights,
            level=segment.level,
            prompt=shot.prompt,
            negative_prompt=self.negative_prompt,
            frame_indices=segment.frame_indices,
            shot_start=shot.start,
            shot_end=shot.end,
            height=here.height,
            width=here.width,
            fit=self.fit,
            fps=float(self.fps / segment.frame_stride),
            num_inference_steps=self._num_inference_steps(segment),
            guidance_scale=here.guidance_scale,
            seed=self.seed if seed is None else seed,
            noise_level=FIRST_NOISE_LEVEL[segment.level] + segment.hop % NUM_HOP_NOISE_LEVELS,
            strength=self._strength(segment),
            take=take if seed is None else 0,
            handover_index=segment.handover_index,
            handover_latents=segment.handover_latents,
            anchor_strength=segment.anchor_strength,
        )
