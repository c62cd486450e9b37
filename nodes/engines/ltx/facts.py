"""What the weights of an LTX-Video folder were trained for, when its ``farm.json`` does not say it."""

from __future__ import annotations

from pydantic import Field

from nodes.engines.folders import WeightedFacts, model_facts
from nodes.engines.ltx.layout import LtxFolder


class ModelFacts(WeightedFacts):
    """What no config of the folder says; each default is that of LTX-Video 0.9.5 to 0.9.8."""

    native_width: int = Field(704, gt=0)
    native_height: int = Field(480, gt=0)
    native_fps: int = Field(25, gt=0)
    #: The lowest frame rate in the training data.
    min_fps: float = Field(24.0, gt=0)
    window_frames: int = Field(161, ge=9)
    #: Windows the weights were trained on.
    windows: tuple[int, ...] = Field((97, 121, 161), min_length=1)
    default_steps: int = Field(40, ge=1)
    default_guidance_scale: float = Field(3.0, ge=0)
    default_strength: float = Field(0.4, gt=0, le=1)
    #: Noise levels from 1 downwards that a few-step model was trained on; empty: the scheduler's.
    sigmas: tuple[float, ...] = ()
    #: Given frames are shown to the model with this share of noise x (noise level)^2: it keeps motion going.
    condition_noise: float = Field(0.15, ge=0, le=1)
    #: What a decoder that removes the last noise is told, and the share of noise it is given.
    decode_timestep: float = Field(0.05, ge=0, le=1)
    decode_noise: float = Field(0.025, ge=0, le=1)
    #: Tokens a prompt is cut to.
    max_sequence_length: int = Field(256, gt=0)


class DistilledFacts(ModelFacts):
    """Each default is that of the distilled models of 0.9.7 and 0.9.8."""

    default_steps: int = Field(8, ge=1)
    default_guidance_scale: float = Field(1.0, ge=0)
    sigmas: tuple[float, ...] = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875)


class FirstFrameFacts(ModelFacts):
    """Each default is that of 0.9.0, trained to be given its first frame alone, and that without noise."""

    condition_noise: float = Field(0.0, ge=0, le=1)


def facts_of(folder: LtxFolder) -> ModelFacts:
    """The facts of a folder: its farm.json's, else those of its kind.

    Raises:
        CannotRun: its farm.json is wrong.
    """
    if not folder.takes_any_frame:
        return model_facts(folder.path, FirstFrameFacts)
    return model_facts(folder.path, DistilledFacts if folder.distilled else ModelFacts)
