"""From an order's files to the pixels and arrays an engine is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from farm.capabilities import EngineSpec
from farm.planning import RenderTask
from farm.request import Fit
from farm.running import Blob, InputVideo, Order, SegmentFrame
from nodes.engines import Frames, RenderInputs
from nodes.work.stored import check_content, read_content, read_segment
from stitching.clip import Image
from stitching.interpolation import frames_between
from stitching.source import Reading, frames_at

_HALF_WHITE = 127.5


def load_inputs(order: Order, spec: EngineSpec) -> RenderInputs:
    """Read and fit everything the order names. Paths in the order are readable on this machine.

    Raises Damaged where a file is missing or is not what was stored.

    The window starts from the frame that another segment rendered for its place; else from the frame that was
    handed over; else from the shot's image. Frames that are known stand at their places. It is rendered over
    the input video; without one, over the frames that other segments rendered, interpolated where there are
    none.
    """
    task = order.task
    size = task.width, task.height, task.fit
    handover = _arrays(order.inputs.get("handover"))
    rendered = _in_size(task, _frames_of(order, order.segment_frames))
    given = _in_size(task, _frames_of(order, order.known_frames))
    known = {task.frame_indices.index(number): frame for number, frame in given.items()}
    image = shot_image = _image(order.inputs.get("image"))
    last_image = _image(order.inputs.get("last_image"))
    if known:
        image = known.pop(0, image)
        last_image = known.pop(task.num_frames - 1, last_image)
    elif task.frame_indices[0] in rendered:
        image = rendered[task.frame_indices[0]]
    elif "image" in handover:
        image = np.asarray(handover["image"], dtype=np.uint8)
    video = None
    if "video" in order.inputs:
        video = _video_frames(order, order.inputs["video"], order.input_video)
    elif rendered:
        if shot_image is not None:  # the first frame of its shot
            rendered[task.shot_start] = fitted(shot_image, *size)
        video = frames_between(rendered, task.frame_indices)
    if image is not None:
        whole = spec.wants_full_image
        image = in_shape(image, task.width / task.height, task.fit) if whole else fitted(image, *size)
    return RenderInputs(
        image=image,
        last_image=None if last_image is None else fitted(last_image, *size),
        known=known,
        video=video,
        mask=_mask(order),
        references=[_reference(_decoded(order.inputs[name]), task, spec) for name in order.references],
        handover=handover,
        anchor=_arrays(order.inputs.get("anchor")),
        text=_arrays(order.inputs.get("text")),
    )


def _frames_of(order: Order, frames: Sequence[SegmentFrame]) -> dict[int, Image]:
    """These frames that other segments rendered, or pictures that stand for them, by their number."""
    rendered = {f.segment for f in frames if f.position is not None}
    clips = {segment: read_segment(order.inputs[segment]) for segment in rendered}
    return {
        f.frame_index: _picture(order, f.segment) if f.position is None else clips[f.segment][f.position]
        for f in frames
    }


def _picture(order: Order, name: str) -> Image:
    """A picture fitted as the job's inputs are."""
    return fitted(_decoded(order.inputs[name]), order.task.width, order.task.height, order.task.fit)


def _in_size(task: RenderTask, frames: Mapping[int, Image]) -> dict[int, Image]:
    """Frames of a draft of another size in the task's, by their number: its shape is nearly the same."""
    fit: Fit = "stretch" if task.fit == "stretch" else "crop"
    return {number: fitted(frame, task.width, task.height, fit) for number, frame in frames.items()}


def _video_frames(order: Order, blob: Blob, video: InputVideo | None) -> Frames:
    """A video's frames at the task's moments, (F, H, W, 3) at its size."""
    task = order.task
    check_content(blob)
    if video is None:
        raise ValueError(f"the order of {order.attempt_id} does not say how its video is read")
    shown = frames_at(
        blob.path,
        Reading(**dict(video.reading)),
        [index / video.fps for index in task.frame_indices],
        rate=max(video.fps, video.source_fps),
    )
    # Fitted one by one: the frames of a large video are not held together.
    return np.stack([fitted(frame, task.width, task.height, task.fit) for frame in shown])


def _mask(order: Order) -> NDArray[np.bool_] | None:
    """Where the input video is changed, (F, H, W): where the mask is nearer to white than to black."""
    blob, task = order.inputs.get("mask"), order.task
    if blob is None:
        return None
    if order.mask_video is None:
        picture = fitted(_decoded(blob), task.width, task.height, task.fit)
        frames = np.broadcast_to(picture, (task.num_frames, *picture.shape))
    else:
        frames = _video_frames(order, blob, order.mask_video)
    return np.asarray(frames.mean(axis=3) > _HALF_WHITE)


def _reference(image: Image, task: RenderTask, spec: EngineSpec) -> Image:
    return _on_white(image, task.width, task.height) if spec.has_references_beside else image


def _on_white(image: Image, width: int, height: int) -> Image:
    """A picture whole, between white bars: as references are in training."""
    scale = min(width / image.shape[1], height / image.shape[0])
    sides = [
        max(1, min(most, int(side * scale)))
        for side, most in zip(image.shape[1::-1], (width, height), strict=True)
    ]
    canvas = np.full((height, width, 3), 255, np.uint8)
    left, top = (width - sides[0]) // 2, (height - sides[1]) // 2
    canvas[top : top + sides[1], left : left + sides[0]] = _scaled(image, *sides)
    return canvas


def fitted(image: Image, width: int, height: int, fit: Fit) -> Image:
    """An image (H, W, 3) at that size: cut, padded or stretched, evenly on both sides."""
    if image.shape[:2] == (height, width):
        return image
    if fit == "stretch":
        return _scaled(image, width, height)
    across, down = width / image.shape[1], height / image.shape[0]
    scale = min(across, down) if fit == "pad" else max(across, down)
    sides = round(image.shape[1] * scale), round(image.shape[0] * scale)
    if fit == "pad":
        return _padded(
            _scaled(image, max(1, min(width, sides[0])), max(1, min(height, sides[1]))), width, height
        )
    scaled = _scaled(image, max(width, sides[0]), max(height, sides[1]))
    left, top = (scaled.shape[1] - width) // 2, (scaled.shape[0] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def in_shape(image: Image, shape: float, fit: Fit) -> Image:
    """An image at its own scale, padded or stretched to a width over height; one to be cut stays as it is."""
    height, width = image.shape[:2]
    wide, high = max(width, round(height * shape)), max(height, round(width / shape))
    if fit == "crop" or (wide, high) == (width, height):
        return image
    return _padded(image, wide, high) if fit == "pad" else _scaled(image, wide, high)


def _padded(image: Image, width: int, height: int) -> Image:
    """Black around an image, as much on one side as on the other."""
    framed = np.zeros((height, width, 3), np.uint8)
    left, top = (width - image.shape[1]) // 2, (height - image.shape[0]) // 2
    framed[top : top + image.shape[0], left : left + image.shape[1]] = image
    return framed


def _scaled(image: Image, width: int, height: int) -> Image:
    smaller = width * height < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _image(blob: Blob | None) -> NDArray[np.uint8] | None:
    return None if blob is None else _decoded(blob)


def _decoded(blob: Blob) -> NDArray[np.uint8]:
    read = cv2.imdecode(np.frombuffer(read_content(blob), np.uint8), cv2.IMREAD_COLOR)
    if read is None:
        raise ValueError(f"the stored image {blob.sha256} cannot be decoded")
    return np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _arrays(blob: Blob | None) -> dict[str, NDArray[np.generic]]:
    return {} if blob is None else dict(safetensors.numpy.load(read_content(blob)))
