"""A rendered window is looked at before it counts."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np

from farm.planning import RenderTask
from farm.state import Fill
from nodes.engines import Frames, Rendered, RenderInputs
from stitching.fill import fill_report

#: Mean grey level under which a frame counts as black.
BLACK_LEVEL = 2.0


class InvalidOutput(Exception):
    """The engine's result is not what was ordered. Says what was got and what was expected."""


def check_output(task: RenderTask, inputs: RenderInputs, rendered: Rendered) -> None:
    """Refuse a wrong count, size or type, hand-over values that are not finite, and black frames.

    Black frames pass when the input they were made from is black itself.

    Raises:
        InvalidOutput
    """
    frames = rendered.frames
    expected = (task.num_frames, task.height, task.width, 3)
    if frames.shape != expected or frames.dtype != np.uint8:
        raise InvalidOutput(f"got frames {frames.shape} {frames.dtype}, expected {expected} uint8")
    if task.handover_index is not None and "image" not in rendered.handover:
        raise InvalidOutput(f"got no hand-over image, expected frame {task.handover_index} of the window")
    for name, array in rendered.handover.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise InvalidOutput(f"hand-over {name} has values that are not finite")
    levels = frames.mean(axis=(1, 2, 3))
    if levels.min() < BLACK_LEVEL and not _black_input(inputs):
        raise InvalidOutput(f"frame {task.frame_indices[int(levels.argmin())]} is black")


def _black_input(inputs: RenderInputs) -> bool:
    given = [a for a in (inputs.image, inputs.video) if a is not None]
    return any(float(a.reshape(-1, *a.shape[-3:]).mean(axis=(1, 2, 3)).min()) < BLACK_LEVEL for a in given)


def measured_fill(task: RenderTask, inputs: RenderInputs, frames: Frames) -> Fill | None:
    """How a window of the video gets from one given frame to the other; None for one that has no end.

    Where clips are given at its ends, from the last frame of the first to the first of the last.
    """
    if task.level != "final" or inputs.image is None or inputs.last_image is None or inputs.video is not None:
        return None
    first, last = 0, len(frames) - 1
    while first + 1 in inputs.known:
        first += 1
    while last - 1 in inputs.known and last - 1 > first:
        last -= 1
    return Fill(**asdict(fill_report(frames[first : last + 1])))


def frames_sha256(frames: Frames) -> str:
    """Hash of frames (F, H, W, 3) as they are: shape and pixels, no container."""
    digest = hashlib.sha256(str(frames.shape).encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()
