"""What the weights of an I2VGen-XL folder were trained for, when its ``farm.json`` does not say it."""

from __future__ import annotations

from pydantic import Field

from nodes.engines.folders import FolderFacts


class ModelFacts(FolderFacts):
    """Fields of ``EngineSpec`` that no config of the folder says; each default is the published model's."""

    native_width: int = Field(1280, gt=0)
    native_height: int = Field(704, gt=0)
    native_fps: int = Field(8, gt=0)
    window_frames: int = Field(8, ge=1, le=32)
    default_steps: int = Field(50, ge=1)
    default_guidance_scale: float = Field(9.0, ge=0)
    default_strength: float = Field(0.6, gt=0, le=1)
    #: The lowest frame rate in the training data.
    min_fps: float = Field(4.0, gt=0)
