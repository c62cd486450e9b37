"""What a worker holds for a job beside its model: the decoder of the video that is restyled, and what windows
are given. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from farm.capabilities import DeviceKind, EngineSpec, FrameRule
from farm.planning.plan import Segment, Shot
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


def held_on(spec: EngineSpec, kind: DeviceKind, *media: MediaInfo) -> EngineSpec:
    """The model as a worker of that kind holds it, for a job over these files.

    A CPU worker's budget is its process' memory, and that is where the decoder is. It has ended when the
    window is rendered, but an allocator may keep what it freed: the two are added, not compared. A card's
    budget is the card's memory, which no decoder takes.
    """
    held = spec.on(kind)
    if kind == "cuda":
        return held
    return held.model_copy(update={"context_bytes": held.context_bytes + sum(map(decoder_bytes, media))})


def encodes_clips(segments: Sequence[Segment], shots: Sequence[Shot], *, drafted: bool) -> bool:
    """Whether any of the draft's segments, or of the others, is given more than single frames: it is rendered
    over some, or a clip of known ones is encoded."""
    by_id = {segment.id: segment for segment in segments}
    return any(
        bool(s.sources)
        or (s.level != "text" and shots[s.shot].is_over_video)
        or any(len(clip) > 1 for clip in _clips(s, by_id))
        for s in segments
        if s.drafted == drafted
    )


def given_beside(
    segments: Sequence[Segment], shots: Sequence[Shot], spec: EngineSpec, drafter: EngineSpec, references: int
) -> Iterator[Segment]:
    """These segments with the latents that stand beside their own. References are not shown to another model
    that drafts."""
    by_id = {segment.id: segment for segment in segments}
    for segment in segments:
        if segment.level == "text":
            yield segment
            continue
        by = drafter if segment.drafted else spec
        beside = references if by.model == spec.model and by.has_references_beside else 0
        if by.gives_beside:
            beside += _num_given(segment, shots[segment.shot], by_id, by.frames)
        yield segment.model_copy(update={"latents_beside": beside}) if beside else segment


def _num_given(segment: Segment, shot: Shot, by_id: Mapping[str, Segment], rule: FrameRule) -> int:
    """Latents of the frames that are given behind the first: of a clip at most two, the rest replaces the
    window's own."""
    clips = [clip for clip in _clips(segment, by_id) if clip[0] != segment.start]
    ends_on_image = shot.last_media is not None and segment.frame_indices[-1] >= shot.end - 1
    return sum(min(rule.num_latents(len(clip)), 2) for clip in clips) + (1 if ends_on_image else 0)


def _clips(segment: Segment, by_id: Mapping[str, Segment]) -> list[list[int]]:
    """Global numbers of the frames that a segment is given as they are, in runs without a gap."""
    runs = ((by_id[run.segment].frame_indices, run) for run in segment.known)
    frames = sorted(frame for indices, run in runs for frame in indices[run.first : run.end])
    clips = [frames[:1]] if frames else []
    for before, frame in pairwise(frames):
        if frame - before == segment.frame_stride:
            clips[-1].append(frame)
        else:
            clips.append([frame])
    return clips
