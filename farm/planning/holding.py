"""What a worker holds for a job beside its model: the decoder of the video that is restyled. Pure."""

from __future__ import annotations

from farm.capabilities import DeviceKind, EngineSpec
from farm.request import MediaInfo

# A decoder keeps up to 16 pictures for others to be made from, the one in hand, and one for each thread, as
# many as fit into so much (``stitching/source/decoding.py``). 4:2:0 at 10 bits has 3 bytes a pixel, and
# the frame becomes RGB twice: as it is shown, and as it is scaled.
_PICTURES = 17
_MAX_THREADS = 16
_THREADS_WITHIN_BYTES = 1 << 30
_BYTES_PER_PIXEL = 3
_RGB_BYTES_PER_PIXEL = 6


def decoder_bytes(media: MediaInfo) -> int:
    """The most that reading a window of this input holds in the worker's process; 0 for an image.

    Checked against processes: H.264 and 10-bit HEVC with B-frames of 2, 8 and 35 megapixels hold 0.4 to 0.8
    of it on two threads (``tests/nodes/work/test_decoder_memory.py``).
    """
    if media.kind != "video":
        return 0
    pixels = media.width * media.height
    spare = _THREADS_WITHIN_BYTES // (pixels * _BYTES_PER_PIXEL) - _PICTURES
    pictures = _PICTURES + max(1, min(spare, _MAX_THREADS))
    return pixels * (pictures * _BYTES_PER_PIXEL + _RGB_BYTES_PER_PIXEL)


def held_on(spec: EngineSpec, kind: DeviceKind, media: MediaInfo) -> EngineSpec:
    """The model as a worker of that kind holds it, for a job over this input.

    A CPU worker's budget is its process' memory, and that is where the decoder is. It has ended when the
    window is rendered, but an allocator may keep what it freed: the two are added, not compared. A card's
    budget is the card's memory, which no decoder takes.
    """
    held = spec.on(kind)
    if kind == "cuda":
        return held
    return held.model_copy(update={"context_bytes": held.context_bytes + decoder_bytes(media)})
