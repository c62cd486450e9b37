"""Whether a task and its inputs fit together, and which frames they give."""

from __future__ import annotations

import numpy as np

from farm.capabilities import EngineSpec
from farm.planning import RenderTask
from nodes.engines.engine import Frames, RenderInputs
from nodes.engines.window_check import check_window


def check_inputs(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    """Refuse what this engine cannot render.

    Raises:
        ValueError: naming the argument, what it is and what was expected.
    """
    check_window(spec, task, inputs)
    clips_of(spec, task, inputs)
    _check_handover(spec, task, inputs)


def clips_of(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> list[tuple[int, Frames]]:
    """The frames that are given, each clip with its first position in the window, (F, H, W, 3) uint8.

    Raises:
        ValueError: a frame is of another size, or stands where no latents are.
    """
    last = task.num_frames - 1
    given = inputs.given(task.num_frames)
    clips: list[list[int]] = []
    for position in sorted(given):
        shape = (task.height, task.width, 3)
        if given[position].shape != shape:
            raise ValueError(f"the frame given at {position} is {given[position].shape}, expected {shape}")
        if not 0 <= position <= last:
            raise ValueError(f"a frame is given at {position}: the window has 0 to {last}")
        if clips and clips[-1][-1] == position - 1:
            clips[-1].append(position)
        else:
            clips.append([position])
    stride = spec.keyframe_stride
    for clip in clips:
        if clip[0] % stride or len(clip) % stride != 1:
            where = f"{clip[0]}" if len(clip) == 1 else f"{clip[0]} to {clip[-1]}"
            raise ValueError(
                f"frames are given at {where}: {spec.model} takes single frames at multiples of {stride}, "
                f"and clips of {stride}k+1 frames that start there"
            )
    return [(clip[0], np.stack([given[position] for position in clip])) for clip in clips]


def _check_handover(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    stride = spec.frames.frames_per_latent
    if task.handover_latents and task.handover_index is not None:
        behind = spec.frames.num_latents(task.num_frames) - 1 - task.handover_index // stride
        if task.handover_index % stride or task.handover_latents > behind:
            raise ValueError(
                f"handover_latents is {task.handover_latents} behind frame {task.handover_index}: expected a "
                f"multiple of {stride} with that many latents behind it, of {task.num_frames} frames"
            )
    latents = inputs.handover.get("latents")
    if latents is None:
        return
    if inputs.image is None:
        raise ValueError("handover has latents and image is missing: they stand behind its frame")
    side = spec.side_multiple
    expected = (task.height // side, task.width // side)
    most = min(spec.max_prefix_latents, spec.frames.num_latents(task.num_frames) - 1)
    if latents.ndim != 4 or latents.shape[2:] != expected or not 1 <= latents.shape[1] <= most:
        raise ValueError(
            f"handover latents are {latents.shape}, expected channels x 1 to {most} x "
            f"{expected[0]} x {expected[1]}"
        )
    if any(0 < position <= latents.shape[1] * stride for position in inputs.known):
        raise ValueError("frames are given where the window before handed over latents: give one of the two")
