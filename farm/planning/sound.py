"""What sound a video gets, how, and what of it cannot be kept. Pure."""

from __future__ import annotations

from fractions import Fraction

from farm.request import JobRequest, SoundInfo
from farm.values import Value

#: What mp4 takes and players know in it, as libavformat names it.
MP4_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
#: A sound that ends so much earlier or later than the pictures ends with them.
_SAME_END_S = 0.1


class Sound(Value):
    """The sound of the video, from its first frame on."""

    #: Of the file that it is in.
    sha256: str
    #: Packet by packet as it is; else it is encoded anew as AAC.
    copied: bool
    codec: str
    #: The time in that file at which the video begins, as it is read; None: with the file's pictures.
    zero_s: Fraction | None = None


def sound_of(request: JobRequest, num_frames: int, fps: Fraction) -> tuple[Sound | None, tuple[str, ...]]:
    """The sound that a request's video gets, and what is to be said of it."""
    first = request.source
    media = request.audio or (first if request.kind == "video" else None)
    if media is None or media.sound is None:
        return None, ()
    found = media.sound
    copied = _is_copied(found)
    notes = [_how(found, copied, own=request.audio is None)]
    if request.audio is not None and first is not None and first.sound is not None:
        notes.append("the input video's own sound gives way to it")
    if found.num_tracks > 1:
        notes.append(f"of {found.num_tracks} sound tracks the one that players take is kept, no other")
    length_s = float(num_frames / fps)
    if found.end_s > length_s + _SAME_END_S:
        notes.append(f"the sound is cut at the video's end, after {length_s:.1f} of its {found.end_s:.1f} s")
    elif found.end_s < length_s - _SAME_END_S:
        notes.append(f"the sound ends after {found.end_s:.1f} s, the video after {length_s:.1f} s")
    reading = media.reading
    sound = Sound(
        sha256=media.sha256,
        copied=copied,
        codec=found.codec if copied else "aac",
        zero_s=None if reading is None or reading.counted else reading.start_s,
    )
    return sound, tuple(notes)


def _is_copied(found: SoundInfo) -> bool:
    # mp4 has no mp3 of so low a rate, and one rate for a track.
    is_slow_mp3 = found.codec == "mp3" and found.sample_rate < 16000
    return found.codec in MP4_CODECS and found.is_one_format and not is_slow_mp3


def _how(found: SoundInfo, copied: bool, *, own: bool) -> str:
    whose = "the input's sound" if own else "the sound"
    if copied:
        return f"{whose} ({found.codec}) is kept as it is"
    if not found.is_one_format:
        return f"{whose} is encoded anew as AAC, for its rate or channels change on the way"
    return f"{whose} is encoded anew as AAC, for mp4 takes no {found.codec}"
