"""Users' videos: what they are, how they are shown, and any moment of them as a frame.

A video is read by one mechanism, whatever brought it: its frames' own time stamps say what is shown when, a
seek is believed only for the stamps it led to, and libavfilter makes of a stored frame what a player shows.
Bytes of strangers enter; nothing that knows of jobs, workers or models does.
"""

from __future__ import annotations

from stitching.source.animation import animation_as_video
from stitching.source.containers import container_of
from stitching.source.decoding import NoPictures
from stitching.source.look import look
from stitching.source.moments import Reading, first_frame, frames_at
from stitching.source.remux import indexed
from stitching.source.whole import ends_early

__all__ = [
    "NoPictures",
    "Reading",
    "animation_as_video",
    "container_of",
    "ends_early",
    "first_frame",
    "frames_at",
    "indexed",
    "look",
]
