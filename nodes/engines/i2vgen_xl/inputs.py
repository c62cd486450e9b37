"""What a task's inputs say about the latent of a window's first frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from farm.planning import RenderTask
from nodes.engines.common import pulled_to_anchor
from nodes.engines.engine import RenderInputs


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
