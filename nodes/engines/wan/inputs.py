"""Whether a task and its inputs fit together, and which frames of its window are given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from farm.capabilities import Conditioning, EngineSpec
from farm.planning import RenderTask
from nodes.engines.engine import RenderInputs
from nodes.engines.window_check import check_window

#: The name of the latents a window takes over from the one before.
LATENTS = "latents"


def check_inputs(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    """Refuse what this model cannot render.

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    size = (task.height, task.width)
    check_window(spec, task, inputs)
    given: dict[Conditioning, bool] = {
        "last_image": inputs.last_image is not None,
        "keyframes": any(0 < place < task.num_frames - 1 for place in inputs.known),
        "prefix": LATENTS in inputs.handover,
        "mask": inputs.mask is not None,
        "references": len(inputs.references) > 0,
    }
    for kind, is_given in given.items():
        if is_given and kind not in spec.takes:
            raise ValueError(f"{kind} is given: {spec.model} takes {', '.join(sorted(spec.takes))}")
    for place, image in known_frames(task, inputs).items():
        if not 0 <= place < task.num_frames:
            raise ValueError(f"known has frame {place}: the window has {task.num_frames}, from 0")
        if image.shape != (*size, 3):
            raise ValueError(f"the frame given at {place} is {image.shape}, expected {(*size, 3)}")
    for number, image in enumerate(inputs.references):
        if image.shape != (*size, 3):
            raise ValueError(f"reference {number} is {image.shape}, expected {(*size, 3)}")
    if inputs.mask is not None and inputs.video is None:
        raise ValueError("mask is given and video is missing: it says where a video is changed")
    if inputs.mask is not None and inputs.mask.shape != (task.num_frames, *size):
        raise ValueError(f"mask is {inputs.mask.shape}, expected {(task.num_frames, *size)}")
    if task.handover_index is not None:
        _check_handover(spec, task)


def _check_handover(spec: EngineSpec, task: RenderTask) -> None:
    stride, index, count = spec.frames.frames_per_latent, task.handover_index or 0, task.handover_latents
    if count and (index % stride or index + count * stride >= task.num_frames):
        raise ValueError(
            f"handover_index is {index} and handover_latents {count}: latents of {stride} frames begin "
            f"behind multiples of {stride}, and so many have to be left of {task.num_frames} frames"
        )


def known_frames(task: RenderTask, inputs: RenderInputs) -> dict[int, NDArray[np.uint8]]:
    """The frames (H, W, 3) that are given, by position in the window; without any, the first of a video that
    is changed everywhere."""
    known = inputs.given(task.num_frames)
    if not known and inputs.video is not None and inputs.mask is None:
        known[0] = np.asarray(inputs.video[0])
    return known


def prefix_latents(
    spec: EngineSpec, handover: Mapping[str, NDArray[np.generic]], latent_shape: tuple[int, int, int]
) -> NDArray[np.float32] | None:
    """The latents (C, k, h, w) taken over from the window before; None when there are none.

    Raises:
        ValueError: they are of another size, or more than the model takes.
    """
    if LATENTS not in handover:
        return None
    latents = np.asarray(handover[LATENTS], dtype=np.float32)
    channels, *size = latent_shape
    if latents.ndim != 4 or (latents.shape[0], *latents.shape[2:]) != (channels, *size):
        raise ValueError(f"handover latents are {latents.shape}, expected {(channels, 'k', *size)}")
    if not 1 <= latents.shape[1] <= spec.max_prefix_latents:
        raise ValueError(
            f"handover has {latents.shape[1]} latents: {spec.model} takes up to {spec.max_prefix_latents}"
        )
    return latents
