"""The engine protocol: what a worker calls, whatever the model family.

An engine is one sub-package under ``nodes/engines`` and has no base class. A latent diffusion engine also
offers its inner verbs (``encode``, ``denoise``, ``decode``) for use alone; the worker needs only these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from farm.capabilities import EngineSpec, Rung
from farm.planning import Phase, RenderTask

#: Attention back-ends a machine's owner may choose from.
Attentions = Literal["sdpa", "xformers"]

Frames = NDArray[np.uint8]
"""RGB frames, shape (F, H, W, 3)."""


class Cancelled(Exception):
    """Raised by ``report`` between steps when the attempt was cancelled; engines let it pass."""


class OutOfMemory(Exception):
    """The card could not hold the task. Carries the engine's message; the worker survives."""


@dataclass(frozen=True)
class RenderInputs:
    """Pixels and arrays a task is conditioned on, already at the task's size.

    ``image`` (H, W, 3) uint8: the start image or the window's keyframe; ``last_image`` its last frame.
    ``known``: further frames (H, W, 3) uint8 that are given, by position in the window: keyframes within it,
    or clips at its ends. ``video`` (F, H, W, 3) uint8: what is rendered over, at the task's frame indices:
    the input video, or the shot's draft; ``mask`` (F, H, W) where the input video is changed, None:
    everywhere. ``references``: pictures (H, W, 3) uint8 of what is to be seen, of any size where the spec has
    none beside the window. ``handover``: arrays by name
    from the segment before. ``anchor``: arrays by name from the first segment of the shot. ``text``: the
    prompts, encoded elsewhere, in arrays by name as the engine's own encoder gives them; empty: the engine
    encodes them itself.
    """

    image: NDArray[np.uint8] | None = None
    last_image: NDArray[np.uint8] | None = None
    known: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    video: Frames | None = None
    mask: NDArray[np.bool_] | None = None
    references: Sequence[NDArray[np.uint8]] = ()
    handover: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    anchor: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    text: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    def given(self, num_frames: int) -> dict[int, NDArray[np.uint8]]:
        """Every frame (H, W, 3) that is given, by its position in a window of so many frames."""
        ends = {0: self.image, num_frames - 1: self.last_image}
        return {**self.known, **{place: frame for place, frame in ends.items() if frame is not None}}


@dataclass(frozen=True)
class Rendered:
    """``frames`` (F, H, W, 3) uint8 for the task's frame indices, and arrays for the next segment.

    ``handover`` is filled when the task has a ``handover_index``; it always holds ``image``
    (H, W, 3) uint8, the frame at that index, and whatever else the engine wants back: of a causal engine
    that was asked for ``handover_latents`` also ``latents`` (C, k, h, w) float32, those of the frames behind
    it, with which the next window begins after its one-frame latent.
    """

    frames: Frames
    handover: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


Report = Callable[[Phase, int, int], None]
"""``report(phase, done, total)``: called between steps; may raise Cancelled."""


def unheard(phase: Phase, done: int, total: int) -> None:
    """A report that nobody hears."""


class Engine(Protocol):
    """A loaded-or-loadable model on one device."""

    spec: EngineSpec

    def load(self, rung: Rung) -> None:
        """Bring the model onto the device at this rung. Cheap when it is already there."""

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        """Render the window. Same task and inputs give the same frames on any worker.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
            ValueError: the task and the inputs do not fit together.
        """

    def unload(self) -> None:
        """Release the device memory."""


@runtime_checkable
class TextEngine(Protocol):
    """An engine whose spec has ``text_components``: its prompts are encoded by a task of its own."""

    def encode_prompts(
        self, task: RenderTask, rung: Rung, report: Report
    ) -> Mapping[str, NDArray[np.generic]]:
        """What ``RenderInputs.text`` of the windows with this task's prompts holds; loads the encoder alone.

        Raises:
            OutOfMemory: the device could not hold it; the engine is unloaded and usable again.
        """
