"""Whether a task and its inputs fit together, and what they say about a window's first frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from farm.capabilities import EngineSpec
from farm.planning import RenderTask
from nodes.engines.common import pulled_to_anchor
from nodes.engines.engine import RenderInputs
from nodes.engines.window_check import check_window


def check_inputs(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    """Refuse what this engine cannot render.

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    size = (task.height, task.width)
    check_window(spec, task, inputs)
    if inputs.last_image is not None:
        raise ValueError(f"last_image is given: {spec.model} takes a first image only")
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


def first_latent(
    task: RenderTask, inputs: RenderInputs, shape: tuple[int, int, int]
) -> NDArray[np.float32] | None:
    """The handed-over latent (C, h, w), pulled to the anchor; None when the image is to be encoded.

    Raises:
        ValueError: the hand-over is of another size.
    """
    if "latent" not in inputs.handover:
        return None
    latent = np.asarray(inputs.handover["latent"], dtype=np.float32)
    if latent.shape != shape:
        raise ValueError(f"handover latent is {latent.shape}, expected {shape}")
    if task.anchor_strength == 0 or not {"mean", "std"} <= inputs.anchor.keys():
        return latent
    mean, std = (np.asarray(inputs.anchor[name], dtype=np.float32) for name in ("mean", "std"))
    return pulled_to_anchor(latent, mean, std, task.anchor_strength)
