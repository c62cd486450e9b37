"""From an order's files to the pixels and arrays an engine is conditioned on."""

from __future__ import annotations

import cv2
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from farm.capabilities import EngineSpec
from farm.planning import RenderTask
from farm.running import Blob, Order
from nodes.engines import Frames, RenderInputs
from nodes.work.stored import check_content, read_content, read_segment
from stitching.between import frames_between
from stitching.clip import Image
from stitching.video_io import read_frames


def load_inputs(order: Order, spec: EngineSpec) -> RenderInputs:
    """Read and fit everything the order names. Paths in the order are readable on this machine.

    Raises Damaged where a file is missing or is not what was stored.

    The window starts from the frame that another segment rendered for its place; else from the frame that was
    handed over; else from the shot's image. It is rendered over the input video; without one, over the frames
    that other segments rendered, interpolated where there are none.
    """
    task = order.task
    handover = _arrays(order.inputs.get("handover"))
    rendered = _segment_frames(order)
    image = shot_image = _image(order.inputs.get("image"))
    if task.frame_indices[0] in rendered:
        image = rendered[task.frame_indices[0]]
    elif "image" in handover:
        image = np.asarray(handover["image"], dtype=np.uint8)
    last_image = _image(order.inputs.get("last_image"))
    video = None
    if "video" in order.inputs:
        video = _video_frames(order.inputs["video"], task)
    elif rendered:
        if shot_image is not None:  # the first frame of its shot
            rendered[task.shot_start] = cover(shot_image, task.width, task.height)
        video = frames_between(rendered, task.frame_indices)
    if not spec.wants_full_image:
        image = None if image is None else cover(image, task.width, task.height)
    return RenderInputs(
        image=image,
        last_image=None if last_image is None else cover(last_image, task.width, task.height),
        video=video,
        handover=handover,
        anchor=_arrays(order.inputs.get("anchor")),
    )


def _segment_frames(order: Order) -> dict[int, Image]:
    """Frames that other segments rendered, by their number."""
    segments = {frame.segment for frame in order.segment_frames}
    clips = {segment: read_segment(order.inputs[segment]) for segment in segments}
    return {f.frame_index: clips[f.segment][f.position] for f in order.segment_frames}


def _video_frames(blob: Blob, task: RenderTask) -> Frames:
    """The input video's frames at the task's, (F, H, W, 3) at its size."""
    check_content(blob)
    indices = task.frame_indices
    first, last = indices[0], indices[-1]
    if last - first + 1 == len(indices):
        read = list(read_frames(blob.path, first, last + 1))
    else:
        read = [read_frames(blob.path, i, i + 1)[0] for i in indices]
    return np.stack([cover(frame, task.width, task.height) for frame in read])


def cover(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale an image (H, W, 3) to cover width x height and cut what stands over, evenly on both sides."""
    source_height, source_width = image.shape[:2]
    if (source_width, source_height) == (width, height):
        return image
    scale = max(width / source_width, height / source_height)
    scaled_width, scaled_height = (
        max(width, round(source_width * scale)),
        max(height, round(source_height * scale)),
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LANCZOS4
    scaled = cv2.resize(image, (scaled_width, scaled_height), interpolation=method)
    left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width], dtype=np.uint8)


def _image(blob: Blob | None) -> NDArray[np.uint8] | None:
    if blob is None:
        return None
    read = cv2.imdecode(np.frombuffer(read_content(blob), np.uint8), cv2.IMREAD_COLOR)
    if read is None:
        raise ValueError(f"the stored image {blob.sha256} cannot be decoded")
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _arrays(blob: Blob | None) -> dict[str, NDArray[np.generic]]:
    return {} if blob is None else dict(safetensors.numpy.load(read_content(blob)))
