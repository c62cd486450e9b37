"""Reading what the farm has stored: bytes that are not those that were stored are never used.

Files are named by the SHA-256 of their bytes, which notices any flipped bit, in frames, hand-overs and
container alike; the bytes that were checked are the ones that are decoded. The hash of a segment's raw
frames, taken by the worker before it encoded them, is checked behind that: it notices what went wrong before
the bytes were stored.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from farm.running import Blob, Damaged, content_hash, file_hash
from nodes.engines import Frames
from nodes.work.output_check import frames_sha256
from stitching.video_io import VideoError, read_frames


def read_content(blob: Blob) -> bytes:
    """All of a stored file.

    Raises:
        Damaged: it is missing, or is not what was stored.
    """
    try:
        content = blob.path.read_bytes()
    except OSError as error:
        raise _missing(blob, error) from error
    if content_hash(content) != blob.sha256:
        raise _damaged(blob)
    return content


def check_content(blob: Blob) -> None:
    """The same of a file that may be too large to be held: hashed once by a process, and again when it was
    touched.

    Raises:
        Damaged: it is missing, or is not what was stored.
    """
    try:
        status = blob.path.stat()
        right = _hash_of(blob.path, status.st_ino, status.st_size, status.st_mtime_ns) == blob.sha256
    except OSError as error:
        raise _missing(blob, error) from error
    if not right:
        raise _damaged(blob)


@lru_cache(maxsize=8)
def _hash_of(path: Path, inode: int, num_bytes: int, mtime_ns: int) -> str:
    return file_hash(path)


def read_segment(blob: Blob) -> Frames:
    """All frames of a finished segment, (F, H, W, 3).

    Raises:
        Damaged: it is missing, or is not what was rendered.
    """
    try:
        frames = read_frames(read_content(blob))
    except VideoError as error:
        raise Damaged(f"{blob.sha256[:12]} cannot be read: {error}") from error
    if blob.frames_sha256 is not None and frames_sha256(frames) != blob.frames_sha256:
        raise Damaged(f"{blob.sha256[:12]} holds other frames than were rendered")
    return frames


def _missing(blob: Blob, error: OSError) -> Damaged:
    return Damaged(f"{blob.sha256[:12]} cannot be read: {error.strerror}")


def _damaged(blob: Blob) -> Damaged:
    return Damaged(f"{blob.sha256[:12]} is damaged: its bytes have another SHA-256")
