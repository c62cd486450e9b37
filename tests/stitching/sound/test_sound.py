"""A video's sound: what a file has of it, and that it goes into another in step, cut to length."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stitching.mp4_codec import codec_string
from stitching.sound import SoundError, SoundTrack, probe_sound, sound_suffix
from stitching.video_io import VideoWriter, probe_video

pytestmark = pytest.mark.slow  # encodes videos and sounds

CLICK_HZ, CLICK_S = 1000, 0.01
#: What players notice is 40 ms and more; asked for are 20, over ten minutes.
IN_STEP_S = 0.02


def clicking(seconds: float, rate: int) -> NDArray[np.float32]:
    """A click at 0.25, 0.75, 1.25 s and so on, silence between them."""
    sound = np.zeros(int(seconds * rate), np.float32)
    click = 0.8 * np.sin(2 * np.pi * CLICK_HZ * np.arange(int(CLICK_S * rate)) / rate)
    for k in range(int(seconds * 2)):
        at = int((0.25 + 0.5 * k) * rate)
        sound[at : at + len(click)] = click
    return sound


def write(
    path: Path,
    codec: str,
    *,
    seconds: float = 2.0,
    rate: int = 48000,
    layout: str = "mono",
    pictures: str | None = "mpeg4",
    picture_times_s: Iterable[float] | None = None,
    sound_at_s: float = 0.0,
    gap_at_s: float | None = None,
    tracks: int = 1,
) -> Path:
    """A file with clicks at 0.25, 0.75, ... of the sound's own time, which begins at ``sound_at_s``.

    gap_at_s: from there on a second of the sound is missing from the file.
    """
    with av.open(str(path), "w") as out:
        video: Any = None
        if pictures:
            video = out.add_stream(pictures, rate=30)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
        strict = {"strict": "experimental"}  # as its own encoder of Vorbis is
        sounds = [out.add_stream(codec, rate=rate, layout=layout, options=strict) for _ in range(tracks)]
        for at in np.arange(0, seconds, 1 / 30) if picture_times_s is None else picture_times_s:
            if video is None:
                break
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(at * 1000), Fraction(1, 1000)
            out.mux(video.encode(frame))
        if video is not None:
            out.mux(video.encode(None))
        samples = clicking(seconds, rate)
        for track in sounds:
            resampler = av.AudioResampler(track.codec_context.format.name, layout, rate)
            for i in range(0, len(samples), 1024):
                if gap_at_s is not None and gap_at_s <= i / rate < gap_at_s + 1:
                    continue
                frame = av.AudioFrame.from_ndarray(samples[None, i : i + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, i + round(sound_at_s * rate)
                for ready in resampler.resample(frame):
                    out.mux(track.encode(ready))
            out.mux(track.encode(None))
    return path


def clicks(path: Path) -> list[float]:
    """When the clicks of a file are heard, in seconds after its first frame."""
    with av.open(str(path)) as file:
        first = next(file.decode(video=0))
        zero = float(first.pts * first.time_base)
    starts: list[float] = []
    last = -1.0
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            levels = np.abs(frame.to_ndarray().astype(np.float32)).reshape(-1, frame.samples, order="F")
            loud = levels.max(axis=0) / {"s16": 32768.0, "s32": 2.0**31}.get(frame.format.name[:3], 1.0)
            for index in np.flatnonzero(loud > 0.25):
                at = float(frame.pts * frame.time_base) + index / frame.sample_rate - zero
                if at - last > 0.1:
                    starts.append(at)
                last = at
    return starts


def put(
    source: Path,
    *,
    copied: bool,
    seconds: float = 1.5,
    fps: int = 10,
    growing: bool = False,
    zero_s: Fraction | None = None,
) -> Path:
    """A video of so many seconds with the sound of another file."""
    path = source.with_name(f"out-{'copied' if copied else 'aac'}.mp4")
    num_frames = round(seconds * fps)
    sound = SoundTrack(source, duration_s=Fraction(num_frames, fps), copied=copied, zero_s=zero_s)
    with VideoWriter(
        path, fps=Fraction(fps), width=64, height=48, preset="ultrafast", growing=growing, sound=sound
    ) as writer:
        for _ in range(num_frames):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    return path


def streams(path: Path) -> dict[str, tuple[str, float]]:
    """Of each kind its codec and its length in seconds."""
    with av.open(str(path)) as file:
        return {
            s.type: (s.codec_context.codec.canonical_name, float(s.duration * s.time_base))
            for s in file.streams
        }


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mp4", "aac", {}),
        ("v.mp4", "aac", {"rate": 44100, "layout": "stereo"}),
        ("v.ts", "aac", {}),
        ("v.mkv", "libopus", {}),
        ("v.mkv", "flac", {}),
        ("v.mov", "alac", {}),
        ("v.avi", "libmp3lame", {}),
        ("v.mkv", "ac3", {}),
        ("v.mkv", "aac", {"sound_at_s": 0.1}),
        ("v.mkv", "aac", {"picture_times_s": np.arange(0.1, 2.1, 1 / 30)}),
        ("v.mkv", "libopus", {"picture_times_s": [0.0, 0.01, 0.5, 0.51, 1.9]}),
    ],
)
def test_a_sound_is_in_step_and_ends_with_the_video(
    tmp_path: Path, name: str, codec: str, options: dict[str, Any], copied: bool
) -> None:
    source = write(tmp_path / name, codec, **options)
    made = put(source, copied=copied)
    heard = clicks(made)
    assert heard == pytest.approx([at for at in clicks(source) if 0 <= at < 1.49], abs=IN_STEP_S)
    assert len(heard) == 3
    found = streams(made)
    assert found["audio"][0] == (probe_sound(source).codec if copied else "aac")  # type: ignore[union-attr]
    assert found["audio"][1] <= 1.5 + 0.03
    assert probe_video(made).num_frames == 15


@pytest.mark.parametrize("copied", [True, False])
def test_a_sound_begins_where_the_video_is_read_from(tmp_path: Path, copied: bool) -> None:
    """Not with the first picture that can be decoded, which may not be shown."""
    source = write(tmp_path / "v.mkv", "aac", sound_at_s=0.1)
    shown_from_s = Fraction(2, 5)
    made = put(source, copied=copied, seconds=1.0, zero_s=shown_from_s)
    whole = [at - float(shown_from_s) for at in clicks(source)]
    assert clicks(made) == pytest.approx([at for at in whole if 0 <= at < 0.99], abs=IN_STEP_S)
    told, facts = probe_sound(source), probe_sound(source, shown_from_s)
    assert told is not None
    assert facts is not None
    assert facts.end_s == pytest.approx(told.end_s - float(shown_from_s))


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le", "mp2", "vorbis"])
def test_what_mp4_does_not_take_is_encoded_anew_in_step(tmp_path: Path, codec: str) -> None:
    source = write(tmp_path / "v.mkv", codec, layout="stereo" if codec == "vorbis" else "mono")
    made = put(source, copied=False)
    assert clicks(made) == pytest.approx([at for at in clicks(source) if at < 1.49], abs=IN_STEP_S)
    assert streams(made)["audio"][0] == "aac"


@pytest.mark.parametrize("copied", [True, False])
def test_a_gap_in_the_source_does_not_move_what_follows_it(tmp_path: Path, copied: bool) -> None:
    source = write(tmp_path / "v.mkv", "libopus" if copied else "pcm_s16le", seconds=5.0, gap_at_s=2.0)
    expected = [0.25, 0.75, 1.25, 1.75, 3.25, 3.75, 4.25]
    assert clicks(put(source, copied=copied, seconds=4.5)) == pytest.approx(expected, abs=IN_STEP_S)


@pytest.mark.parametrize("layout", ["stereo", "mono"])
def test_a_sound_that_changes_its_rate_and_channels_on_the_way_goes_on(tmp_path: Path, layout: str) -> None:
    first = write(tmp_path / "a.ts", "mp2", seconds=1.0, layout=layout)
    times_s = np.arange(1.0, 2.0, 1 / 30)
    other = "mono" if layout == "stereo" else "stereo"
    then = write(
        tmp_path / "b.ts",
        "mp2",
        seconds=1.0,
        rate=44100,
        layout=other,
        picture_times_s=times_s,
        sound_at_s=1.0,
    )
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + then.read_bytes())
    facts = [probe_sound(path) for path in (first, both)]
    assert [found and found.is_one_format for found in facts] == [True, False], "one is copied, one is not"
    heard = clicks(put(both, copied=False, seconds=2.0))
    assert heard == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=IN_STEP_S)


@pytest.mark.parametrize("copied", [True, False])
def test_where_another_recording_was_joined_on_the_sound_ends_and_is_told_to(
    tmp_path: Path, copied: bool
) -> None:
    """Its time stamps begin anew there: no container would take them."""
    one = write(tmp_path / "a.ts", "ac3").read_bytes()
    two = tmp_path / "two.ts"
    two.write_bytes(one + one)
    facts = probe_sound(two)
    assert facts is not None
    assert facts.end_s == pytest.approx(2.0, abs=0.05)
    made = put(two, copied=copied, seconds=4.0)
    assert clicks(made) == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=IN_STEP_S)
    assert probe_video(made).num_frames == 40


@pytest.mark.long
@pytest.mark.parametrize(("codec", "copied"), [("aac", True), ("pcm_s16le", False)])
def test_after_ten_minutes_a_sound_is_still_in_step(tmp_path: Path, codec: str, copied: bool) -> None:
    rate = 44100 if codec == "aac" else 8000
    source = write(
        tmp_path / "v.mkv", codec, seconds=600.0, rate=rate, picture_times_s=np.arange(0, 600, 1.0)
    )
    heard = clicks(put(source, copied=copied, seconds=600.0, fps=1))
    assert len(heard) == 1200
    assert heard == pytest.approx(list(np.arange(1200) / 2 + 0.25), abs=IN_STEP_S)


def test_a_growing_video_has_its_sound_as_far_as_it_goes_and_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "v.mkv", "libopus")
    sound = SoundTrack(source, duration_s=Fraction(2), copied=False)
    path = tmp_path / "so-far.mp4"
    with VideoWriter(path, fps=Fraction(10), width=64, height=48, growing=True, sound=sound) as writer:
        for _ in range(20):
            writer.write(np.zeros((48, 64, 3), np.uint8))
        while path.stat().st_size < 3000:
            pass
        assert codec_string(path).endswith(",mp4a.40.2")
    assert clicks(path) == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=IN_STEP_S)
    silent = tmp_path / "silent.mp4"
    with VideoWriter(silent, fps=Fraction(10), width=64, height=48) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert "mp4a" not in codec_string(silent)


def test_the_same_sound_makes_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "v.mkv", "libopus")
    for copied in (True, False):
        assert put(source, copied=copied).read_bytes() == put(source, copied=copied).read_bytes()


def test_a_sound_file_begins_with_the_video(tmp_path: Path) -> None:
    source = write(tmp_path / "song.flac", "flac", pictures=None)
    facts = probe_sound(source)
    assert facts is not None
    assert (facts.codec, facts.sample_rate, facts.channels, facts.start_s) == ("flac", 48000, 1, 0.0)
    assert facts.end_s == pytest.approx(2.0, abs=0.01)
    assert clicks(put(source, copied=True, seconds=3.0)) == pytest.approx(
        [0.25, 0.75, 1.25, 1.75], abs=IN_STEP_S
    )


def test_a_silent_video_has_no_sound_and_several_tracks_are_counted(tmp_path: Path) -> None:
    two = probe_sound(write(tmp_path / "two.mkv", "flac", tracks=2))
    assert two is not None
    assert two.num_tracks == 2
    with VideoWriter(tmp_path / "silent.mp4", fps=Fraction(8), width=64, height=48) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert probe_sound(tmp_path / "silent.mp4") is None
    with pytest.raises(SoundError, match="has no sound"):
        SoundTrack(tmp_path / "silent.mp4", duration_s=Fraction(1), copied=True)


def test_a_sound_that_nothing_can_be_decoded_of_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "v.flac", "flac", pictures=None)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(SoundError, match=r"its sound \(flac\) cannot be decoded|cannot be opened"):
        probe_sound(path)


def test_no_playlist_is_followed_for_a_sound(tmp_path: Path) -> None:
    write(tmp_path / "song.flac", "flac", pictures=None)
    for name, text in (
        ("a.m3u8", "#EXTM3U\n#EXTINF:2,\nsong.flac\n"),
        ("b.txt", "ffconcat version 1.0\nfile song.flac\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(SoundError, match="cannot be opened"):
            probe_sound(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "codec", "suffix"),
    [
        ("s.wav", "pcm_s16le", ".wav"),
        ("s.mp3", "libmp3lame", ".mp3"),
        ("s.flac", "flac", ".flac"),
        ("s.ogg", "libopus", ".ogg"),
        ("s.aiff", "pcm_s16be", ".aiff"),
        ("s.aac", "aac", ".aac"),
        ("s.m4a", "aac", ".m4a"),
        ("v.mp4", "aac", None),
        ("v.mkv", "flac", None),
        ("v.avi", "libmp3lame", None),
    ],
)
def test_a_sound_file_is_known_by_its_first_bytes(
    tmp_path: Path, name: str, codec: str, suffix: str | None
) -> None:
    path = write(tmp_path / name, codec, pictures=None if suffix else "mpeg4")
    head = path.read_bytes()[:64]
    assert sound_suffix(head) == suffix
