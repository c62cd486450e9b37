"""Whether a task and its inputs fit together, and which frames they give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from farm.capabilities import EngineSpec
from farm.planning import RenderTask
from nodes.engines.engine import Frames, RenderInputs


def check_inputs(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> None:
    """Refuse what this engine cannot render.

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
        state = "missing" if inputs.video is None else "given"
        raise ValueError(f"strength is {task.strength} and the input video is {state}: give both or neither")
    if inputs.video is not None and inputs.video.shape != (task.num_frames, *size, 3):
        raise ValueError(f"video is {inputs.video.shape}, expected {(task.num_frames, *size, 3)}")
    clips_of(spec, task, inputs)
    _check_handover(spec, task, inputs)


def clips_of(spec: EngineSpec, task: RenderTask, inputs: RenderInputs) -> list[tuple[int, Frames]]:
    """The frames that are given, each clip with its first position in the window, (F, H, W, 3) uint8.

    Raises:
        ValueError: a frame is of another size, or stands where no latents are.
    """
    last = task.num_frames - 1
    given: dict[int, NDArray[np.uint8]] = dict(inputs.known)
    if inputs.image is not None:
        given[0] = inputs.image
    if inputs.last_image is not None:
        given[last] = inputs.last_image
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
