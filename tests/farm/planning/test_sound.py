"""Which sound a video gets, how, and what is said of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from farm.errors import InvalidInput
from farm.planning.sound import sound_of
from farm.request import SoundInfo, VideoReading, check


def sound(codec: str = "aac", **changes: Any) -> SoundInfo:
    facts = {"sample_rate": 48000, "channels": 2, "start_s": 0.0, "end_s": 3.0, "num_tracks": 1}
    return SoundInfo(codec=codec, **facts | changes)


OWN = "the input's sound (aac) is kept as it is"
ANEW = "the input's sound is encoded anew as AAC, for mp4 takes no"
ONE = "of 3 sound tracks the one that players take is kept, no other"


@pytest.mark.parametrize(
    ("own", "given", "copied", "notes"),
    [
        (None, None, None, ()),
        (sound(), None, True, (OWN,)),
        (sound("opus"), None, True, ("the input's sound (opus) is kept as it is",)),
        (sound("vorbis"), None, False, (f"{ANEW} vorbis",)),
        (sound("mp3", sample_rate=8000), None, False, (f"{ANEW} mp3",)),
        (sound(num_tracks=3), None, True, (OWN, ONE)),
        (sound(is_one_format=False), None, False,
         ("the input's sound is encoded anew as AAC, for its rate or channels change on the way",)),
        (sound(end_s=9.0), None, True, (OWN, "the sound is cut at the video's end, after 3.0 of its 9.0 s")),
        (sound(end_s=1.0), None, True, (OWN, "the sound ends after 1.0 s, the video after 3.0 s")),
        (None, sound("flac"), True, ("the sound (flac) is kept as it is",)),
        (sound(), sound("pcm_s16le"), False, (
            "the sound is encoded anew as AAC, for mp4 takes no pcm_s16le",
            "the input video's own sound gives way to it",
        )),
    ],
)  # fmt: skip
def test_the_sound_of_a_restyled_video(
    make: Any, own: SoundInfo | None, given: SoundInfo | None, copied: bool | None, notes: tuple[str, ...]
) -> None:
    video = make.video(24).model_copy(update={"sound": own})
    audio = given and make.image().model_copy(update={"kind": "audio", "sound": given, "sha256": "a" * 64})
    found, said = sound_of(make.request(inputs=(video,), audio=audio), 24, Fraction(8))
    assert (None if found is None else found.copied) == copied
    assert said == notes
    if found is not None:
        assert found.sha256 == ("a" * 64 if given else video.sha256)


def test_a_plan_says_what_becomes_of_the_sound(make: Any) -> None:
    audio = make.image().model_copy(
        update={"kind": "audio", "sound": sound("pcm_s16le"), "notes": ("a.wav is odd",)}
    )
    made = make.plan(inputs=(make.image(),), audio=audio, seconds=3)
    assert made.sound is not None
    assert made.sound.codec == "aac"
    assert "a.wav is odd" in made.notes
    assert "the sound is encoded anew as AAC, for mp4 takes no pcm_s16le" in made.notes
    assert make.plan(inputs=(make.image(),)).sound is None


def test_a_sound_is_no_input_and_a_silent_file_no_sound(make: Any) -> None:
    audio = make.image().model_copy(update={"kind": "audio", "sound": sound()})
    with pytest.raises(InvalidInput, match="a sound goes with --audio"):
        check(make.request(inputs=(audio,)))
    with pytest.raises(InvalidInput, match="has no sound that can be decoded"):
        check(make.request(inputs=(make.image(),), audio=make.video(8)))


@pytest.mark.parametrize(
    ("reading", "zero_s"),
    [
        (VideoReading(start_s=Fraction(2, 5)), Fraction(2, 5)),
        (VideoReading(counted=True), None),
        (None, None),
    ],
)
def test_the_sound_begins_where_the_video_is_read_from(
    make: Any, reading: VideoReading | None, zero_s: Fraction | None
) -> None:
    video = make.video(24).model_copy(update={"sound": sound(), "reading": reading})
    found, _ = sound_of(make.request(inputs=(video,)), 24, Fraction(8))
    assert found is not None
    assert found.zero_s == zero_s
