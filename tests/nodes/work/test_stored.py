"""No byte of a stored file changes unnoticed, and frames are those that were rendered."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from farm.running import file_hash
from farm.running.cluster import Blob, Damaged
from nodes.work.output_check import frames_sha256
from nodes.work.stored import check_content, read_content, read_segment
from stitching.video_io import encode_lossless

NUM_FLIPS = 200


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)[None, None, :, None]
    levels = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.uint8(20)
    return np.ascontiguousarray(np.broadcast_to(ramp // 2 + levels, (4, 32, 48, 3)))


def stored(tmp_path: Path, content: bytes, frames: NDArray[np.uint8] | None = None) -> Blob:
    path = tmp_path / "blob"
    path.write_bytes(content)
    return Blob(
        sha256=hashlib.sha256(content).hexdigest(),
        path=path,
        frames_sha256=None if frames is None else frames_sha256(frames),
    )


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    bit = int(rng.integers(len(content) * 8))
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_every_flipped_bit_of_a_segment_is_noticed(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    content = encode_lossless(frames, Fraction(8))
    blob, rng = stored(tmp_path, content, frames), np.random.default_rng(2)
    assert np.array_equal(read_segment(blob), frames)
    noticed = 0
    for _ in range(NUM_FLIPS):
        blob.path.write_bytes(flipped(content, rng))
        with pytest.raises(Damaged, match="another SHA-256"):
            read_segment(blob)
        noticed += 1
    assert noticed == NUM_FLIPS


def test_every_flipped_bit_of_a_handover_or_an_input_is_noticed(tmp_path: Path) -> None:
    content = safetensors.numpy.save({"latents": np.ones((4, 8), np.float16)})
    blob, rng = stored(tmp_path, content), np.random.default_rng(3)
    check_content(blob)
    for _ in range(NUM_FLIPS):
        blob.path.write_bytes(flipped(content, rng))
        for read in (read_content, check_content):
            with pytest.raises(Damaged):
                read(blob)


def test_frames_that_changed_before_they_were_stored_are_noticed(
    tmp_path: Path, frames: NDArray[np.uint8]
) -> None:
    other = frames.copy()
    other[2, 3, 4, 1] ^= 1
    blob = stored(tmp_path, encode_lossless(other, Fraction(8)), frames)
    with pytest.raises(Damaged, match="holds other frames than were rendered"):
        read_segment(blob)


def test_what_is_missing_or_cut_short_is_said(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    content = encode_lossless(frames, Fraction(8))
    blob = stored(tmp_path, content, frames)
    blob.path.write_bytes(content[:-100])
    with pytest.raises(Damaged, match="is damaged"):
        read_segment(blob)
    blob.path.unlink()
    for read in (read_content, check_content):
        with pytest.raises(Damaged, match="cannot be read: No such file or directory"):
            read(blob)


def test_a_large_file_is_hashed_once_and_again_when_it_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film"
    path.write_bytes(b"frames")
    blob = Blob(sha256=hashlib.sha256(b"frames").hexdigest(), path=path)
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return file_hash(path)

    monkeypatch.setattr("nodes.work.stored.file_hash", counted)
    for _ in range(3):
        check_content(blob)
    assert hashed == [path]
    path.write_bytes(b"other frames")
    with pytest.raises(Damaged, match="is damaged"):
        check_content(blob)
