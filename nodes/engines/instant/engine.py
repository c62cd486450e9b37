"""An engine that returns at once: what remains of a job's time is the farm's own cost. For benchmarks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from farm.capabilities import Conditioning, EngineSpec, Rung, RungSpec, StageCost
from farm.planning import RenderTask
from nodes.engines.engine import Frames, Rendered, RenderInputs, Report

MODEL = "instant"
TAKES: frozenset[Conditioning] = frozenset({"image", "text", "text_alone", "video"})


def spec(model: str = MODEL) -> EngineSpec:
    """The spec of the only model here. Raises ValueError for any other name."""
    if model != MODEL:
        raise ValueError(f"model: got {model!r}, expected {MODEL!r}.")
    return EngineSpec(
        model=MODEL,
        engine="instant",
        takes=TAKES,
        random_access=True,
        side_multiple=2,
        native_width=512,
        native_height=512,
        default_strength=1.0,
        component_bytes={},
        context_bytes=0,
        rungs=(RungSpec(name="resident", stages=(StageCost(name="return"),)),),
        prior_seconds_per_mpixel_step=1e-5,
    )


@lru_cache(maxsize=4)
def _gradient(num_frames: int, height: int, width: int) -> Frames:
    """Read-only frames (F, H, W, 3), all alike: grey 64 on the left to 192 on the right."""
    row = np.linspace(64, 192, width).astype(np.uint8)
    frames = np.ascontiguousarray(np.broadcast_to(row[None, None, :, None], (num_frames, height, width, 3)))
    frames.flags.writeable = False
    return frames


class Instant:
    """The engine. The frames are the same whatever the inputs, and shared between calls."""

    def __init__(self, model: str = MODEL) -> None:
        self.spec = spec(model)

    def load(self, rung: Rung) -> None:
        """There is nothing to load."""

    def unload(self) -> None:
        """Let the shared frames go."""
        _gradient.cache_clear()

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        """Frames of the size asked for, without a look at the inputs."""
        report("denoise", 1, 1)
        frames = _gradient(task.num_frames, task.height, task.width)
        handover = {} if task.handover_index is None else {"image": frames[task.handover_index]}
        return Rendered(frames=frames, handover=handover)
