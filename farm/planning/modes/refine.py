"""Mode ``refine``: every window at once, over frames that are there already. Pure.

Over an input video the windows' first frames are refined as short clips, then every window on its own.
From an image there is no video yet, so a draft is made first: a chain like any other, but, where the model
allows, of frames far apart, else in few steps. Its clips are refined, all at once, and every window is
rendered over the frames interpolated between the refined ones (after StreamingT2V's enhancer, Henschel et
al., arXiv 2403.14773). The draft has the size of the video: the start image's detail, and motion as the model
has learnt it in pixels, would not survive a smaller one.

    draft      d0 ────────> d1 ────────> d2      one after the other, frames ``frame_stride`` apart
                │            │            │
    keyframes  k0           k1           k2      each over its draft window, neighbours share a frame
              ┌─┼──┐       ┌─┼──┐       ┌─┼──┐
    final    s0 s1 s2     s3 s4 s5     s6 s7 s8  each over the keyframes around its frames
"""

from __future__ import annotations

from collections.abc import Iterator

from farm.planning.modes.cutting import Cut, Drafting, draft, draft_steps, draft_stride, final_segments
from farm.planning.modes.windows import cropped_windows, shifted_windows
from farm.planning.plan import FrameRun, Segment, Shot

#: Of the two passes over a draft, unless one is asked for. Stronger ones make more of their own, each window
#: something else: with an I2VGen-XL of 12 million weights fewer seams pass (97 % at 0.3, 80 % at 0.6, 57 %
#: at 0.9).
DRAFT_STRENGTH = 0.3


def refine(shot: Shot, cut: Cut) -> list[Segment]:
    """Every window at once, over the shot's video or over a draft from its image or its prompt."""
    return _refined_video(shot, cut) if shot.is_over_video else _refined_draft(shot, cut)


def _refined_draft(shot: Shot, cut: Cut) -> list[Segment]:
    """Draft, keyframes and windows from an image, or from words; a shot of one window needs neither draft nor
    keyframes."""
    windows = cropped_windows(shot.end - shot.start, cut.window, cut.overlap)
    finals = final_segments(shot, windows, cut.spec)
    if len(finals) == 1:
        return finals
    stride = draft_stride(cut.window - cut.overlap, cut.fps, cut.spec.min_fps)
    # To the last frame that is rendered, dropped ones included: frames are interpolated, never extrapolated.
    last_frame = windows[-1].start + windows[-1].num_frames - 1
    by = Drafting(
        spec=cut.spec,
        window=cut.window,
        num_inference_steps=draft_steps(cut.num_inference_steps, stride),
        stride=stride,
    )
    drafted = draft(shot, by, num_points=-(-last_frame // stride) + 1)
    # The shot begins with its image, where it has one, which needs no refining.
    begins = 0 if shot.media is None else 1
    keyframes = [
        segment.model_copy(
            update={
                "id": f"k{shot.index}-{i}",
                "level": "keyframes",
                "hop": 0,
                "handover_index": None,
                "handover_from": None,
                "anchor_from": None,
                "anchor_strength": 0.0,
                "num_inference_steps": None,
                "sources": (FrameRun(segment=segment.id, first=0 if i else begins, end=cut.window),),
                "depends_on": (segment.id,),
            }
        )
        for i, segment in enumerate(drafted)
    ]
    return [
        *drafted,
        *keyframes,
        *(_over_keyframes(s, (s.start - shot.start) // stride, begins, keyframes, stride) for s in finals),
    ]


def _over_keyframes(
    final: Segment, first_point: int, begins: int, clips: list[Segment], stride: int
) -> Segment:
    """This window over the refined keyframes from the one it starts with to the first at or past its end.

    ``begins``: the first keyframe of the shot; where its image stands, there is none.
    """
    last_point = first_point - (-(final.num_frames - 1) // stride)
    sources = tuple(_runs(clips, max(first_point, begins), last_point))
    return final.model_copy(update={"sources": sources, "depends_on": tuple(run.segment for run in sources)})


def _runs(clips: list[Segment], first_point: int, last_point: int) -> Iterator[FrameRun]:
    """Where these points of the draft's grid are found among its refined clips.

    The frame that two clips share is taken from the later one, which is conditioned on it: the windows from
    there on see one clip. In the earlier it is the last of a window, the furthest from what that one was
    conditioned on. Both clips start from the same noise there.
    """
    step = clips[0].num_frames - 1
    last_clip = len(clips) - 1
    for i in range(min(first_point // step, last_clip), min(last_point // step, last_clip) + 1):
        num_own = step if i < last_clip else step + 1
        first, end = max(first_point - i * step, 0), min(last_point - i * step + 1, num_own)
        yield FrameRun(segment=clips[i].id, first=first, end=end)


def _refined_video(shot: Shot, cut: Cut) -> list[Segment]:
    """First the windows' first frames as short clips, then every window at once on its refined keyframe."""
    spec, window = cut.spec, cut.window
    windows = shifted_windows(shot.end - shot.start, window, cut.overlap, spec.frames)
    finals = final_segments(shot, windows, spec)
    if spec.random_access or len(finals) == 1:
        return finals
    starts = [s.start for s in finals]
    groups = [starts[i : i + window] for i in range(0, len(starts), window)]
    keyframes = [
        Segment(
            id=f"k{shot.index}-{g}",
            shot=shot.index,
            level="keyframes",
            start=group[0],
            end=group[-1] + 1,
            num_frames=spec.frames.at_least(len(group)),
            # The last again, up to the shortest clip the model renders.
            keyframe_indices=(*group, *group[-1:] * (spec.frames.at_least(len(group)) - len(group))),
        )
        for g, group in enumerate(groups)
    ]
    refined = [
        segment.model_copy(
            update={
                "sources": (FrameRun(segment=clip, first=i % window, end=i % window + 1),),
                "depends_on": (clip,),
            }
        )
        for i, segment in enumerate(finals)
        for clip in (keyframes[i // window].id,)
    ]
    return [*keyframes, *refined]
