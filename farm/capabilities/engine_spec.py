"""What a model needs and allows, as plain values the planner reads without importing torch.

``need_bytes`` predicts the memory a task holds on a card, per rung of the memory ladder:

    need = context + reserve_ratio * max over the stages that the task runs of
           (bytes of the components on the card
            + the stage's reserve_ratio * (fixed + b * batch * frames * height * width + a * batch * tokens))

Stages run one after another. Which of them a task runs is told by it: prompts are encoded by a task of their
own, or not at all; a clip is encoded where one is given, else an image. A transformer's activations are
counted in its tokens, latents * height * width / ``pixels_per_token``; what does not grow with
the window (a VAE that streams its latents) has ``frames_at_once``.

The form and the coefficients of the diffusion families come from live-tensor traces of their
graphs, checked against measured peaks; ``reserve_ratio`` is what the allocator reserves over what is
allocated (1.1 to 1.6 measured for I2VGen-XL).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from pydantic import Field

from farm.capabilities.frame_rule import FrameRule
from farm.capabilities.weights import OWN_WEIGHTS, Weights
from farm.values import Value

Rung = Literal["turbo", "resident", "evict", "chunk", "cfg_split", "stream", "stream_cfg_split", "disk"]
#: Fastest first. A spec offers a subset; the scheduler takes the fastest that fits.
RUNG_ORDER: tuple[Rung, ...] = (
    "turbo",
    "resident",
    "evict",
    "chunk",
    "cfg_split",
    "stream",
    "stream_cfg_split",
    "disk",
)

#: ``image`` is a window's first frame, ``last_image`` its last, ``keyframes`` frames within it; ``prefix`` is
#: the latents it shares with the window before, ``video`` the frames it is rendered over, ``mask`` where they
#: are changed, ``references`` pictures of what is to be seen. ``text`` is a prompt beside any of them,
#: ``text_alone`` one without: the model makes a window of words.
Conditioning = Literal[
    "image", "last_image", "keyframes", "prefix", "text", "text_alone", "video", "mask", "references"
]
#: What a worker computes on.
DeviceKind = Literal["cuda", "cpu"]
#: The stage in which prompts are encoded.
TEXT_STAGE = "text_encode"
Mode = Literal["independent", "chain", "refine", "infill", "co_denoise"]
MODES: tuple[Mode, ...] = ("independent", "chain", "refine", "infill", "co_denoise")


class StageCost(Value):
    """One stage of a run on a card (text encoding, denoising, ...)."""

    name: str
    #: Components that must be on the card for this stage, beside the rung's resident ones.
    components: tuple[str, ...] = ()
    fixed_bytes: int = 0
    #: Activation bytes per pixel, frame and batch row.
    bytes_per_pixel: float = 0.0
    #: Activation bytes per token of the window and batch row.
    bytes_per_token: float = 0.0
    #: Batch rows in flight (2 with guidance in one pass).
    batch: int = 1
    #: Frames in flight at once; None means all frames of the window.
    frames_at_once: int | None = None
    #: Reserved over allocated of what the stage allocates beside components, whose blocks are large and stay.
    reserve_ratio: float = 1.0
    #: Only run where more than single frames are encoded.
    clips_only: bool = False


class RungSpec(Value):
    """One named step of the memory ladder."""

    name: Rung
    #: Components that stay on the card from the first to the last stage.
    resident: tuple[str, ...] = ()
    #: Components that wait in their files while they are not on the card: in no memory that is needed.
    in_files: tuple[str, ...] = ()
    stages: tuple[StageCost, ...]
    #: Seconds relative to the ``resident`` rung.
    slowdown: float = 1.0


class EngineSpec(Value):
    """Everything the planner and the scheduler know about a model."""

    model: str
    #: Module under ``nodes/engines`` that runs it.
    engine: str
    #: Pinned revision of a hub repository, or None for a local folder or an embedded engine.
    revision: str | None = None
    #: What its transformer is made of; nothing: the weights of its folder as they are.
    weights: Weights = OWN_WEIGHTS
    #: The same model with its weights in fewer bits, best first: what a plan proposes where no worker has the
    #: memory for 16. Empty: they are kept as they come.
    in_fewer_bits: tuple[EngineSpec, ...] = ()
    #: How near a window with weights in this format is to one in 16 bits, in dB (peak: white); None: not
    #: measured.
    format_db: float | None = None
    #: The LoRA whose header says how many steps it was made for; None: none does.
    steps_from: str | None = None
    #: Words that its textual inversions taught it.
    taught_words: tuple[str, ...] = ()
    #: What its files take of a disk; 0: it has none.
    disk_bytes: int = 0
    takes: frozenset[Conditioning]
    #: Of these, what the model can be given and was not trained for: never chosen, done when asked for.
    untrained: frozenset[Conditioning] = frozenset()
    #: True when a segment can start at any frame without anything from its neighbours.
    random_access: bool = False
    #: True when the engine wants the whole image, not one cut to the frame's size.
    wants_full_image: bool = False
    #: True when windows can be fused between denoising steps.
    fusible: bool = False

    #: Frames of a window unless others are asked for, and the numbers that can be rendered at all.
    window_frames: int = 8
    frames: FrameRule = FrameRule()
    #: Longer windows are denoised in overlapping parts of so many frames, in the memory of one; None: whole.
    context_frames: int | None = None
    #: The windows the weights were trained on, where that is known; the largest that a worker can hold is the
    #: default.
    trained_windows: tuple[int, ...] = ()
    overlap_frames: int = 3
    #: Latents that a window may take over from the one before (``prefix``).
    max_prefix_latents: int = 0
    #: Latents of a clip that may stand at either end of a window between keyframes; 1: a frame.
    max_end_latents: int = 1
    #: Keyframes within a window stand at multiples of it.
    keyframe_stride: int = 1
    #: Frames that are given behind the first stand beside the window, as latents of their own.
    gives_beside: bool = False

    side_multiple: int = 8
    #: Pixels of a frame that one token of a transformer stands for; 0: the engine has no tokens.
    pixels_per_token: int = 0
    native_width: int
    native_height: int
    native_fps: int = 8
    #: The shortest and the longest side of the frames that the weights were trained on, when it is known.
    trained_sides: tuple[int, int] | None = None
    #: The lowest frame rate the model was trained for: a draft's frames are no further apart.
    min_fps: float = 4.0
    #: Whether the model is told the rate of its frames; one that is not has one pace, its own.
    knows_rates: bool = True
    default_steps: int = 1
    #: Of a quick look, where the default has more: the motion and where things are is there after so few.
    preview_steps: int = 3
    #: Of a draft at its own pace: the fewest that reach every expert; None: a share of the video's.
    draft_steps: int | None = None
    default_guidance_scale: float = 1.0
    #: Denoising strength of ``refine`` when none is asked for; None when the engine does not denoise.
    default_strength: float | None = None
    #: What a model that knows few things can be asked for: by the name that people are told, the words and
    #: phrases it reads as that. Empty: any prompt means something to it.
    vocabulary: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    component_bytes: dict[str, int]
    #: Components that encode prompts and do nothing else, where that is a task of its own: done once for a
    #: job by a worker that can hold them, its result given to the others. Empty: every worker encodes itself.
    text_components: tuple[str, ...] = ()
    #: Bytes held whatever runs: driver context, libraries, interpreter.
    context_bytes: int
    #: Reserved over allocated.
    reserve_ratio: float = 1.0
    #: Fastest first.
    rungs: tuple[RungSpec, ...]
    #: Seconds per million pixels, frame and step before anything was measured on a worker; without attention,
    #: where ``attention_per_token`` tells it.
    prior_seconds_per_mpixel_step: float
    #: How much longer attention makes a step for each token of the window, in parts of the rest of the step.
    attention_per_token: float = 0.0
    #: What the VAE takes for a frame, in denoising steps: decoding it, and encoding it where there is one.
    decode_steps: float = 0.0
    encode_steps: float = 0.0
    #: The same model as a CPU worker holds it (other precision, other rungs); None: no different.
    on_cpu: EngineSpec | None = None

    @property
    def has_references_beside(self) -> bool:
        """Whether references are latents beside a window's own, in its size; else they are seen whole."""
        return self.pixels_per_token > 0

    def on(self, kind: DeviceKind) -> EngineSpec:
        """This model as a worker of that kind holds it."""
        return self.on_cpu if kind == "cpu" and self.on_cpu is not None else self


#: The spec of a model, by its name, with some weights.
SpecOf: TypeAlias = Callable[[str, Weights], EngineSpec]


class RenderShape(Value):
    """The size of one render task: what its memory and time depend on."""

    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    guided: bool
    #: Whether more than single frames are encoded: a video that is rendered over, or a clip that is given.
    encodes_clips: bool = True
    #: Latents that stand beside the window's own: references, and frames given so.
    latents_beside: int = 0

    @property
    def mpixel_steps(self) -> float:
        """Work units: million pixels x frames x steps."""
        return self.width * self.height * self.num_frames * self.num_inference_steps / 1e6


def need_bytes(spec: EngineSpec, rung: RungSpec, shape: RenderShape, *, text: bool = False) -> int:
    """Bytes a task of this shape holds on a card at this rung (see the module's formula).

    ``text``: the task encodes prompts for the others; where there is one, no window holds an encoder.
    """
    apart = set(spec.text_components)
    pixels = shape.width * shape.height
    latents = spec.frames.num_latents(shape.num_frames) + shape.latents_beside
    tokens = latents * pixels / spec.pixels_per_token if spec.pixels_per_token else 0.0
    peak = 0.0
    for stage in rung.stages:
        if (apart and (stage.name == TEXT_STAGE) != text) or (stage.clips_only and not shape.encodes_clips):
            continue
        components = {*rung.resident, *stage.components}
        held = components & apart if text else components - apart
        on_card = sum(spec.component_bytes[c] for c in held)
        frames = min(shape.num_frames, stage.frames_at_once or shape.num_frames)
        batch = stage.batch if shape.guided else 1
        activations = batch * (stage.bytes_per_pixel * frames * pixels + stage.bytes_per_token * tokens)
        peak = max(peak, on_card + stage.reserve_ratio * (stage.fixed_bytes + activations))
    return round(spec.context_bytes + spec.reserve_ratio * peak)


def host_need_bytes(spec: EngineSpec, rung: RungSpec, *, text: bool = False) -> int:
    """Bytes of a machine's memory that a task keeps beside a card at this rung: components that are not there
    from the first to the last stage, nor in files. ``text`` as for ``need_bytes``."""
    apart = set(spec.text_components)
    mine = {name for name in spec.component_bytes if not apart or (name in apart) == text}
    return sum(spec.component_bytes[name] for name in mine - {*rung.resident, *rung.in_files})
