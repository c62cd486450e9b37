"""Frames between keyframes: both neighbours moved along their optical flow to meet, then mixed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from stitching.blend import morph
from stitching.clip import Frames, Image, StitchError
from stitching.flow import FlowPair, flow_pair


def frames_between(keyframes: Mapping[int, Image], indices: Sequence[int]) -> Frames:
    """The frames (F, H, W, 3) at `indices`, from keyframes (H, W, 3) uint8 by their frame number.

    A keyframe's own moment gives the keyframe itself. Any other is made from the nearest keyframe on either
    side: each travels its share of the flow between them, at constant speed, and where the flow of one side
    cannot be trusted the other is preferred (see `blend.morph`). The same two keyframes give the same frame
    whatever else is asked for, so neighbours that overlap get equal frames.

    Raises:
        StitchError: a moment lies before the first or after the last keyframe.
    """
    known = sorted(keyframes)
    flows: dict[int, FlowPair] = {}
    frames = []
    for index in indices:
        if index in keyframes:
            frames.append(keyframes[index])
            continue
        following = bisect_right(known, index)
        if not 0 < following < len(known):
            held = f"{known[0]} to {known[-1]}" if known else "none"
            raise StitchError(f"indices: frame {index} is not between keyframes; they are {held}")
        before, after = known[following - 1], known[following]
        if before not in flows:
            flows[before] = flow_pair(keyframes[before], keyframes[after])
        fraction = (index - before) / (after - before)
        frames.append(morph(keyframes[before], keyframes[after], flows[before], fraction))
    return np.stack(frames)
