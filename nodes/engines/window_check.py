"""Whether a task fits a model at all, whatever its family."""

from __future__ import annotations

from farm.capabilities import EngineSpec
from farm.planning import RenderTask
from nodes.engines.engine import RenderInputs


def check_window(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    """Refuse a size or a length that the model does not render, and a video that does not fit the task.

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    size = (task.height, task.width)
    if any(side % spec.side_multiple for side in size):
        raise ValueError(
            f"height x width is {task.height}x{task.width}: {spec.model} needs multiples of "
            f"{spec.side_multiple}"
        )
    if not spec.frames.allows(task.num_frames):
        raise ValueError(f"num_frames is {task.num_frames}: {spec.model} renders {spec.frames.form()}")
    if (inputs.video is None) != (task.strength is None):
        given = "missing" if inputs.video is None else "given"
        raise ValueError(f"strength is {task.strength} and the input video is {given}: give both or neither")
    if inputs.video is not None and inputs.video.shape != (task.num_frames, *size, 3):
        raise ValueError(f"video is {inputs.video.shape}, expected {(task.num_frames, *size, 3)}")
