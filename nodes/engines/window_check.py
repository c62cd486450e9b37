"""Whether a task fits a model at all, whatever its family."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def check_first_image(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    """``check_window`` of a model whose windows start from one image and end anywhere.

    Raises:
        ValueError: as ``check_window``; a last image is given, or the first is missing or of another size.
    """
    check_window(spec, task, inputs)
    if inputs.last_image is not None:
        raise ValueError(f"last_image is given: {spec.model} takes a first image only")
    size = (task.height, task.width)
    image = first_image(inputs)
    if image.shape != (*size, 3):
        raise ValueError(f"image is {image.shape}, expected {(*size, 3)}")


def first_image(inputs: RenderInputs) -> NDArray[np.uint8]:
    """The start image or keyframe (H, W, 3); without one, the first frame of the input video.

    Raises:
        ValueError: there is neither.
    """
    if inputs.image is not None:
        return inputs.image
    if inputs.video is not None:
        return np.asarray(inputs.video[0])
    raise ValueError("image is missing: give a start image or an input video")
