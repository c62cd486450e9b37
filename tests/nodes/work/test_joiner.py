"""While a video is joined what is joined so far can be watched, and the video is the same for it."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from farm.planning import Delivery
from farm.running.cluster import SO_FAR_NAME, Blob, Damaged, StitchOrder
from nodes.work import joiner
from nodes.work.joiner import Joiner
from stitching.mp4_codec import codec_string
from stitching.video_io import VideoError, encode_lossless, read_frames

pytestmark = pytest.mark.slow  # encodes videos and sounds

Frames = NDArray[np.uint8]
FPS = Fraction(8)
#: (start, end, frames shared with the one before; None: a new shot).
SEGMENTS = [(0, 12, 0), (9, 21, 3), (18, 30, 3), (27, 39, 3), (60, 72, None), (69, 81, 3)]
NUM_FRAMES = 39 + 21
WIDTH, HEIGHT = 80, 48


def moving(start: int, end: int) -> Frames:
    """Frames of one smooth picture that drifts to the left."""
    noise = np.random.default_rng(1).uniform(40, 220, (HEIGHT, 340, 3)).astype(np.float32)
    wide = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.uint8)
    return np.stack([wide[:, 3 * i : 3 * i + WIDTH] for i in range(start, end)])


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Blob]:
    folder = tmp_path_factory.mktemp("segments")
    blobs = []
    for start, end, _ in SEGMENTS:
        path, content = folder / f"{start}.mkv", encode_lossless(moving(start, end), FPS)
        path.write_bytes(content)
        blobs.append(Blob(sha256=hashlib.sha256(content).hexdigest(), path=path))
    return blobs


@pytest.fixture
def order(tmp_path: Path) -> Callable[[str], StitchOrder]:
    def make(name: str) -> StitchOrder:
        (tmp_path / name).mkdir()
        return StitchOrder(folder=tmp_path / name, fps=FPS, width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES)

    return make


def join(made: Joiner, segments: list[Blob], after_each: Callable[[], None] = lambda: None) -> None:
    """Join every segment; ``finish`` is left to the caller."""
    for path, (start, end, overlap) in zip(segments, SEGMENTS, strict=True):
        if overlap:
            made.propose(path, end - start, overlap)
            made.accept()
        else:
            made.start(path, end - start)
        after_each()


def played(content: bytes) -> list[Frames]:
    """What a player gets of the file as it is now; nothing before its header is there."""
    try:
        with av.open(io.BytesIO(content), format="mov") as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError):
        return []


def test_what_is_joined_so_far_plays_at_every_moment_and_only_grows(
    segments: list[Blob], order: Callable[[str], StitchOrder]
) -> None:
    asked = order("job")
    path, moments, over = asked.folder / SO_FAR_NAME, [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            moments.append(path.read_bytes())
            time.sleep(0.005)

    made = Joiner(asked)
    watcher = threading.Thread(target=watch)
    watcher.start()
    codecs = set()

    def look() -> None:
        time.sleep(0.1)
        codecs.add(codec_string(path))

    join(made, segments, look)
    over.set()
    watcher.join()
    distinct = [content for i, content in enumerate(moments) if i == 0 or content != moments[i - 1]]
    counts = [len(played(content)) for content in distinct]
    assert counts == sorted(counts)
    assert len(set(counts)) >= 5, "it was seen to grow"
    # All is there that can no longer change, but for the last frame, whose length is not known yet.
    assert counts[-1] >= NUM_FRAMES - 12 - 1
    assert len(codecs) == 1

    published = made.finish()
    made.close()
    assert published.num_frames == NUM_FRAMES
    assert sorted(p.name for p in asked.folder.iterdir()) == ["sheet.png", "video.mp4"]
    video = read_frames(asked.folder / "video.mp4")
    for frame, final in zip(played(distinct[-1]), video, strict=False):
        assert cv2.PSNR(frame, final) > 30


def test_frames_are_interpolated_while_they_are_joined_but_not_over_a_new_shot(
    segments: list[Blob], order: Callable[[str], StitchOrder]
) -> None:
    plain, asked = order("plain"), order("delivered")
    asked = asked.model_copy(update={"delivery": Delivery(num_frames=3 * NUM_FRAMES, fps=3 * FPS)})
    published = []
    for one in (plain, asked):
        made = Joiner(one)
        join(made, segments)
        published.append(made.finish())
        made.close()
    assert [p.num_frames for p in published] == [NUM_FRAMES, 3 * NUM_FRAMES]
    rendered, video = (read_frames(one.folder / "video.mp4").astype(int) for one in (plain, asked))
    assert len(video) == 3 * NUM_FRAMES
    own = np.abs(video[::3] - rendered).mean(axis=(1, 2, 3))
    assert own.max() < 3, "encoded twice, the same"
    # The second shot begins at the 39th rendered frame; the one before stays until then.
    for k in (3 * 38 + 1, 3 * 38 + 2):
        assert np.abs(video[k] - rendered[38]).mean() < 3 < np.abs(video[k] - rendered[39]).mean()
    for k in (4, 100, 151):
        near = [np.abs(video[k] - frame).mean() for frame in rendered]
        assert min(near) > 0.5, "a frame of its own between two"


class Nothing:
    """In place of the video so far."""

    def __init__(self, order: StitchOrder) -> None:
        pass

    def write(self, frames: Frames) -> None:
        pass

    def end(self) -> None:
        pass


def test_the_video_and_its_sheet_are_the_same_to_the_byte_without_it(
    segments: list[Blob], order: Callable[[str], StitchOrder], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name in ("with", "again", "without"):
        if name == "without":
            monkeypatch.setattr(joiner, "_SoFar", Nothing)
        asked = order(name)
        made = Joiner(asked)
        join(made, segments)
        assert (asked.folder / SO_FAR_NAME).exists() is (name != "without")
        published = made.finish()
        made.close()
        content = [(asked.folder / file).read_bytes() for file in ("video.mp4", "sheet.png")]
        results.append((published, content))
    assert results[0] == results[1] == results[2]


def test_a_video_so_far_that_fails_costs_the_job_nothing(
    segments: list[Blob],
    order: Callable[[str], StitchOrder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, writers = joiner.VideoWriter, []

    class FullDisk(real):  # type: ignore[misc, valid-type]
        """The real writer, but the growing file's disk is full after some frames."""

        def write(self, frames: Frames) -> None:
            writers.append(self)
            if self._growing and len(writers) > 4:
                raise VideoError("so-far.mp4: No space left on device")
            super().write(frames)

    monkeypatch.setattr(joiner, "VideoWriter", FullDisk)
    asked = order("job")
    made = Joiner(asked)
    join(made, segments)
    assert not (asked.folder / SO_FAR_NAME).exists()
    assert made.finish().num_frames == NUM_FRAMES
    made.close()
    assert [r.message for r in caplog.records] == [
        "the video so far ends: so-far.mp4: No space left on device"
    ]


def test_a_joiner_that_is_closed_early_takes_it_along(
    segments: list[Blob], order: Callable[[str], StitchOrder]
) -> None:
    asked = order("job")
    made = Joiner(asked)
    join(made, segments)
    made.close()
    made.close()
    assert list(asked.folder.iterdir()) == []


def test_what_an_earlier_stitcher_left_is_replaced_not_written_into(
    segments: list[Blob], order: Callable[[str], StitchOrder]
) -> None:
    asked = order("job")
    path = asked.folder / SO_FAR_NAME
    path.write_bytes(b"of a stitcher that was killed")
    with path.open("rb") as watched:
        made = Joiner(asked)
        join(made, segments)
        assert watched.read() == b"of a stitcher that was killed"
        assert played(path.read_bytes())
        made.close()


@pytest.mark.parametrize("copied", [True, False])
def test_the_joined_video_and_the_one_so_far_have_the_sound_and_the_same_frames(
    segments: list[Blob], order: Callable[[str], StitchOrder], tmp_path: Path, copied: bool
) -> None:
    song = tmp_path / "song.flac"
    with av.open(str(song), "w") as out:
        track = out.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ones((1, 80_000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    blob = Blob(sha256=hashlib.sha256(song.read_bytes()).hexdigest(), path=song)
    silent, sounding = order("silent"), order("sounding")
    sounding = sounding.model_copy(update={"sound": blob, "sound_copied": copied})
    hashes = []
    for asked in (silent, sounding):
        made = Joiner(asked)
        join(made, segments)
        if asked is sounding:
            assert codec_string(asked.folder / SO_FAR_NAME).endswith(",mp4a.40.2")
        hashes.append(made.finish().frames_sha256)
    assert hashes[0] == hashes[1]
    with av.open(str(sounding.folder / "video.mp4")) as video:
        (heard,) = video.streams.audio
        assert heard.codec_context.name == ("flac" if copied else "aac")
        assert float(heard.duration * heard.time_base) == pytest.approx(NUM_FRAMES / FPS, abs=0.01)


def test_a_sound_that_is_not_what_was_stored_is_not_used(
    order: Callable[[str], StitchOrder], tmp_path: Path
) -> None:
    (tmp_path / "song.flac").write_bytes(b"other bytes")
    asked = order("v").model_copy(update={"sound": Blob(sha256="0" * 64, path=tmp_path / "song.flac")})
    with pytest.raises(Damaged, match="its bytes have another SHA-256"):
        Joiner(asked)
