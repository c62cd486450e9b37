"""What the weights of an AnimateDiff folder were trained for, unless its ``farm.json`` says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nodes.engines.folders import FolderFacts


class ModelFacts(FolderFacts):
    """What no config of the folder says; each default is that of the published motion modules."""

    native_width: int = Field(512, gt=0)
    native_height: int = Field(512, gt=0)
    native_fps: int = Field(8, gt=0)
    #: It is told no rate: frames are so far apart as in its training.
    min_fps: float = Field(8.0, gt=0)
    window_frames: int = Field(16, ge=1, le=32)
    default_steps: int = Field(25, ge=1)
    default_guidance_scale: float = Field(7.5, ge=0)
    default_strength: float = Field(0.6, gt=0, le=1)
    #: ``lcm`` for latent consistency models, such as AnimateLCM, whose steps add noise.
    sampler: Literal["ddim", "lcm"] = "ddim"
    #: How strongly an IP-Adapter draws to the references.
    ip_adapter_scale: float = Field(1.0, ge=0, le=2)
    #: Where the steps of a schedule are; None: as the scheduler says. Motion modules for few steps, such as
    #: those of AnimateDiff-Lightning, want ``trailing``.
    timestep_spacing: Literal["linspace", "leading", "trailing"] | None = None
