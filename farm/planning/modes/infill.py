"""Mode ``infill``: every window at once, between frames that are there already. Pure.

Several images are keyframes themselves. From one image, and where there are more frames between two images
than a window has, a draft makes the keyframes: frames far apart, in all steps and at full size, so that
nothing of them has to be refined. A draft of another model, or of one that knows no slow motion, is smaller
and in few steps: each of its frames that is to be a keyframe is first rendered over at full size. Windows
share their keyframes; where the overlap is longer than a frame, each keyframe becomes a short clip, which
ends one window and begins the next, so that the motion has no kink there.

    draft      d0 ─────────> d1           a chain of frames ``frame_stride`` apart
               ╱ │ ╲        ╱ │ ╲
    refined    r1 r2 r3    r4 r5 r6       where the draft's frames are not good enough as they are
    keyframes  k1 k2 k3    k4 k5 k6       clips of ``overlap`` frames; none where a frame is enough
    final   s0 s1 s2 s3  s4 s5 s6 s7      each between two of them, the last from one to the end
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from farm.capabilities import FrameRule
from farm.errors import CannotRun
from farm.planning.modes.cutting import Cut, Drafting, draft, final_segments
from farm.planning.modes.windows import cropped_windows
from farm.planning.plan import FrameRun, Segment, Shot


def infill(shot: Shot, cut: Cut) -> list[Segment]:
    """Every window between two keyframes: the shot's images, or frames of a draft."""
    return _from_one_image(shot, cut) if shot.last_media is None else _between_images(shot, cut)


def _from_one_image(shot: Shot, cut: Cut) -> list[Segment]:
    overlap = max(1, cut.overlap)
    windows = cropped_windows(shot.end - shot.start, cut.window, overlap)
    # Nothing is given at the end of the last: it renders just what is kept.
    last = windows[-1]
    windows[-1] = last._replace(num_frames=cut.spec.frames.at_least(last.end - last.start))
    finals = final_segments(shot, windows, cut.spec)
    if len(finals) == 1:
        return finals
    by = _drafting(cut)
    drafted = draft(shot, by, num_points=windows[-1].start // by.stride + 1, whole_windows=False)
    # Without an image the first window, too, begins with what is drafted.
    starts = [s.start for s in (finals if shot.media is None else finals[1:])]
    refined = _refined(shot, cut, starts, _frames_of(drafted))
    known = _frames_of(drafted) | _last_frames_of(refined)
    clips = _clips(shot, cut, starts, known) if overlap > 1 else []
    known |= _frames_of(clips)
    begun = shot.media is None
    return [*drafted, *refined, *clips, *_between_keyframes(finals, overlap, known, begun=begun)]


def _drafting(cut: Cut) -> Drafting:
    assert cut.drafting is not None, "the planner decides how a mode drafts"
    return cut.drafting


def _refined(shot: Shot, cut: Cut, frames: Sequence[int], drafted: Mapping[int, FrameRun]) -> list[Segment]:
    """These frames of the draft rendered over by the video's own model: none where they are good as they are.

    Each held still for a frame and a whole latent, of which the last frame is the keyframe. (Behind the
    shot's image, whose detail it could take, a model that goes on from that shows it again.)
    """
    if not _drafting(cut).refined:
        return []
    rule = cut.spec.frames
    num_frames = rule.at_least(1 + rule.frames_per_latent)
    return [
        Segment(
            id=f"r{shot.index}-{i}",
            shot=shot.index,
            level="keyframes",
            start=frame,
            end=frame + 1,
            num_frames=num_frames,
            keyframe_indices=(frame,) * num_frames,
            sources=(drafted[frame],),
            depends_on=(drafted[frame].segment,),
        )
        for i, frame in enumerate(frames)
    ]


def _clips(shot: Shot, cut: Cut, starts: list[int], known: Mapping[int, FrameRun]) -> list[Segment]:
    """A clip of the overlap's length from each of these keyframes."""
    return [
        Segment(
            id=f"k{shot.index}-{i}",
            shot=shot.index,
            level="keyframes",
            start=start,
            end=start + cut.overlap,
            num_frames=cut.spec.frames.at_least(cut.overlap),
            known=(known[start],),
            depends_on=(known[start].segment,),
        )
        for i, start in enumerate(starts)
    ]


def _between_images(shot: Shot, cut: Cut) -> list[Segment]:
    """One window from image to image, or a draft from the one to the other and the windows of its frames."""
    rule = cut.spec.frames
    # A last frame that ends no latent is followed by what is dropped.
    length = rule.at_least(shot.end - shot.start)
    points = [0, length - 1] if length <= cut.window else _points(length - 1, cut)
    windows = [(shot.start + a, shot.start + b + 1) for a, b in pairwise(points)]
    finals = [
        Segment(
            id=f"s{shot.index}-{i}",
            shot=shot.index,
            level="final",
            start=start,
            end=min(end, shot.end),
            num_frames=end - start,
            head=0 if shot.index == 0 and i == 0 else 1,
        )
        for i, (start, end) in enumerate(windows)
    ]
    if len(finals) == 1:
        return finals
    by = _drafting(cut)
    drafted = Segment(
        id=f"d{shot.index}-0",
        shot=shot.index,
        level="draft",
        start=shot.start,
        end=shot.end,
        num_frames=len(points),
        frame_stride=(length - 1) // len(finals),
        keyframe_indices=tuple(shot.start + point for point in points),
        num_inference_steps=by.num_inference_steps,
    )
    refined = _refined(shot, cut, [s.start for s in finals[1:]], _frames_of([drafted]))
    known = _frames_of([drafted]) | _last_frames_of(refined)
    return [drafted, *refined, *_between_keyframes(finals, 1, known)]


def _points(last: int, cut: Cut) -> list[int]:
    """Where a draft of one window stands between frame 0 and frame ``last``: both, and whole latents apart.

    Raises:
        CannotRun: they are too far apart for a draft of one window.
    """
    rule, by = cut.spec.frames, _drafting(cut)
    for num_points in by.spec.frames.allowed():
        if num_points > by.window:
            break
        if num_points < 3:
            continue
        points = _spread(last, num_points, rule.frames_per_latent)
        if _fits(points, rule, cut.window):
            return points
    raise CannotRun(
        f"mode infill has {last + 1} frames between two images, and {by.spec.model} drafts windows of "
        f"{by.window} frames to be filled by windows of {cut.window}; give more images, fewer frames or a "
        "longer window",
        param="frames",
    )


def _spread(last: int, num_points: int, frames_per_latent: int) -> list[int]:
    """Frame 0 to frame ``last``, about as far apart, on whole latents."""
    gaps = num_points - 1
    return [frames_per_latent * round(i * last / gaps / frames_per_latent) for i in range(num_points)]


def _fits(points: Sequence[int], rule: FrameRule, window: int) -> bool:
    """Whether a window reaches from each of these points to the next."""
    return all(b - a < window and rule.allows(b - a + 1) for a, b in pairwise(points))


def _frames_of(segments: Sequence[Segment]) -> dict[int, FrameRun]:
    """Where each frame of these segments is found, by its number; the first that has it."""
    found: dict[int, FrameRun] = {}
    for segment in segments:
        for position, frame in enumerate(segment.frame_indices):
            found.setdefault(frame, FrameRun(segment=segment.id, first=position, end=position + 1))
    return found


def _last_frames_of(segments: Sequence[Segment]) -> dict[int, FrameRun]:
    """Where the last frame of each of these segments is found, by its number."""
    return {
        s.frame_indices[-1]: FrameRun(segment=s.id, first=s.num_frames - 1, end=s.num_frames)
        for s in segments
    }


def _between_keyframes(
    finals: list[Segment], overlap: int, known: Mapping[int, FrameRun], *, begun: bool = False
) -> Iterator[Segment]:
    """These windows with their first and last ``overlap`` frames given, but for the shot's last and, unless
    it is ``begun`` by a keyframe, first."""
    for final in finals:
        head = () if final is finals[0] and not begun else final.frame_indices[:overlap]
        tail = () if final is finals[-1] else final.frame_indices[-overlap:]
        runs = [known[frame] for frame in (*head, *tail)]
        depends_on = tuple(dict.fromkeys(run.segment for run in runs))
        yield final.model_copy(update={"known": tuple(_joined(runs)), "depends_on": depends_on})


def _joined(runs: list[FrameRun]) -> list[FrameRun]:
    """Frames that follow each other in one segment as one run."""
    joined: list[FrameRun] = []
    for run in runs:
        before = joined[-1] if joined else None
        if before and before.segment == run.segment and before.end == run.first:
            joined[-1] = before.model_copy(update={"end": run.end})
        else:
            joined.append(run)
    return joined
