"""What a worker is told to render, and what it hands back (diffusers' argument names unchanged)."""

from __future__ import annotations

from typing import Literal

from farm.capabilities import OWN_WEIGHTS, RenderShape, Weights
from farm.request import Fit
from farm.values import Value

#: ``text`` encodes the prompts of the windows that wait for it, and has no frames.
Level = Literal["text", "draft", "keyframes", "final"]
Phase = Literal["fetch", "load", "encode", "denoise", "decode", "transfer"]


def num_steps_run(num_inference_steps: int, strength: float | None) -> int:
    """Denoising steps that are run of a schedule: all of them, or the last ``strength`` of them over a video
    noised to there (SDEdit, Meng et al. 2022), at least one."""
    if strength is None:
        return num_inference_steps
    return min(max(int(num_inference_steps * strength), 1), num_inference_steps)


class RenderTask(Value):
    """One window of frames for one engine. Sizes in pixels, frame numbers global and half-open."""

    model: str
    #: What it runs from, with fingerprints: a worker whose files differ refuses.
    weights: Weights = OWN_WEIGHTS
    level: Level = "final"
    prompt: str = ""
    negative_prompt: str = ""
    #: Global numbers of the frames to render, in order (a window, or a draft's frames far apart).
    frame_indices: tuple[int, ...]
    #: The shot this window belongs to: a camera path or a motion spans the whole shot.
    shot_start: int
    shot_end: int
    height: int
    width: int
    #: How inputs of another shape fill the frames.
    fit: Fit = "crop"
    #: Of these frames: a draft's are further apart than the video's.
    fps: float
    num_inference_steps: int
    guidance_scale: float
    #: The job's seed. Noise is drawn from (seed, noise_level, frame index), the same on any machine.
    seed: int
    noise_level: int = 0
    #: Strength of re-noising an input video, in (0, 1]; None when there is no input video.
    strength: float | None = None
    #: 0 for the first take; a re-render after a failed seam counts up and changes the noise.
    take: int = 0
    #: Position in this window of the frame the next segment starts from; None when none does.
    handover_index: int | None = None
    #: Latents that the next segment takes over after that frame (``prefix``); 0: the frame alone.
    handover_latents: int = 0
    #: How strongly a handed-over latent is pulled to the statistics of the first segment, 0 to 1.
    anchor_strength: float = 0.0

    @property
    def num_frames(self) -> int:
        return len(self.frame_indices)

    @property
    def shape(self) -> RenderShape:
        return RenderShape(
            num_frames=self.num_frames,
            height=self.height,
            width=self.width,
            num_inference_steps=self.num_inference_steps,
            guided=self.guidance_scale > 1.0,
        )
