"""The sound of a video: what a file has of it, and how it gets into the video that is written.

Paths of files and times enter; nothing here knows of frames' pixels or of jobs.
"""

from __future__ import annotations

from stitching.sound.opening import SoundError, sound_suffix
from stitching.sound.probing import probe_sound
from stitching.sound.track import SoundTrack

__all__ = ["SoundError", "SoundTrack", "probe_sound", "sound_suffix"]
