"""What the weights of a Stable Video Diffusion folder were trained for, unless ``farm.json`` says it."""

from __future__ import annotations

from pydantic import Field

from nodes.engines.folders import FolderFacts

#: Attention over time has a place for every frame by a formula: any length runs.
MAX_FRAMES = 32


class ModelFacts(FolderFacts):
    """What no config of the folder says; each default is that of the published models."""

    native_width: int = Field(1024, gt=0)
    native_height: int = Field(576, gt=0)
    trained_sides: tuple[int, int] | None = (576, 1024)
    native_fps: int = Field(7, gt=0)
    #: The lowest frame rate in the training data.
    min_fps: float = Field(3.0, gt=0)
    #: None: as many as its UNet's config says, 14 or 25.
    window_frames: int | None = Field(None, ge=1, le=MAX_FRAMES)
    default_steps: int = Field(25, ge=1)
    #: Of a window's last frame, and of its first: between them it rises evenly.
    default_guidance_scale: float = Field(3.0, ge=0)
    min_guidance_scale: float = Field(1.0, ge=0)
    #: Karras' noise levels fall steeply: the last third of the steps begins where noise is as strong.
    default_strength: float = Field(0.35, gt=0, le=1)
    #: How much is to move, 1 to 255 as in the training data.
    motion_bucket_id: int = Field(127, ge=0)
    #: Of the noise that the picture is given before it is encoded, where white is 1 and black -1.
    noise_aug_strength: float = Field(0.02, ge=0)
