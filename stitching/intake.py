"""Checks and normalises one image or video of a stranger: ``python -m stitching.intake INPUT OUTPUT_DIR``.

Written to run in a child process with limits (it decodes hostile bytes). The kind is decided by the first
bytes, never by the name. An image becomes an RGB PNG: upright, 8 bits, in sRGB, without metadata, with
transparency laid on white as web pages and viewers show it, its sides no longer than a video's. A video is
decoded once from end to end and kept as it is. The result is named by the SHA-256 of its bytes.

One JSON line is printed: kind, width, height, num_frames, fps ("num/den", null for an image), sha256, path
and, of an image, notes of what was changed, with status 0, or {"error": one sentence} with status 2.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from stitching.pictures import is_picture
from stitching.sound import SoundError, probe_sound, sound_suffix

MIN_SIDE, MAX_SIDE = 16, 4096
MAX_IMAGE_BYTES = 1 << 30
MAX_VIDEO_BYTES = 4 << 30
MAX_VIDEO_FRAMES = 200_000
_ACCEPTED = (
    "use a PNG, JPEG, WebP, HEIC, AVIF, GIF, TIFF or BMP image, or an mp4, mov, mkv, webm or avi video"
)

#: Of files that are a sound and no video.
SOUND_SUFFIXES = (".wav", ".aiff", ".flac", ".ogg", ".m4a", ".mp3", ".aac")

Described = dict[str, Any]


class IntakeError(Exception):
    """The file is refused; the message is one sentence that says why and what to do."""


def main(arguments: list[str]) -> int:
    """Print the outcome as one JSON line and return the exit status."""
    warnings.simplefilter("ignore")
    source, output_dir = Path(arguments[0]), Path(arguments[1])
    try:
        described = normalise_file(source, output_dir)
    except IntakeError as error:
        refusal = str(error)
    except MemoryError:
        refusal = f"{shown_name(source)} needs too much memory to decode; make it smaller."
    except OSError as error:
        reason = error.strerror or type(error).__name__
        refusal = f"{shown_name(source)} cannot be copied ({reason}); check the disk and try again."
    else:
        print(json.dumps(described))
        return 0
    print(json.dumps({"error": refusal}))
    return 2


def normalise_file(source: Path, output_dir: Path) -> Described:
    """Check ``source`` and write its normalised copy into ``output_dir``; what was printed is returned.

    Raises:
        IntakeError: the file is refused. A partial file may be left in ``output_dir``.
    """
    name = shown_name(source)
    with _opened(source, name) as file:
        size = os.fstat(file.fileno()).st_size
        suffix = known_suffix(file.read(64), name)
        file.seek(0)
        if suffix == ".png":
            return _normalise_image(file, size, name, output_dir)
        if suffix in SOUND_SUFFIXES:
            return _normalise_sound(file, size, suffix, name, output_dir)
        return _normalise_video(file, size, suffix, name, output_dir)


def shown_name(path: Path) -> str:
    """A file's name made safe for one line of a terminal: no line breaks, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in path.name or str(path))


def _opened(source: Path, name: str) -> BinaryIO:
    """The file, known to be a regular one with something in it."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever
        file = os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except IsADirectoryError:
        raise IntakeError(f"{name} is a folder; give one image or video file.") from None
    except FileNotFoundError:
        raise IntakeError(f"{name} does not exist; check the path.") from None
    except PermissionError:
        raise IntakeError(f"{name} may not be read by this user; change its permissions.") from None
    except OSError as error:
        raise IntakeError(
            f"{name} cannot be opened ({error.strerror}); give an image or video file."
        ) from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        file.close()
        raise IntakeError(f"{name} is a device or a pipe, not a file; save its content to a file first.")
    if status.st_size == 0:
        file.close()
        raise IntakeError(f"{name} is empty (0 bytes); copy or download it again.")
    return file


def known_suffix(head: bytes, name: str) -> str:
    """The suffix of the normalised file by the first bytes: .png for every image.

    Raises:
        IntakeError: no file begins so that is accepted here.
    """
    brand = head[8:12]
    if is_picture(head):
        return ".png"
    if suffix := sound_suffix(head):
        return suffix
    if head[:4] == b"RIFF" and brand == b"AVI ":
        return ".avi"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return ".webm" if b"webm" in head else ".mkv"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return ".mov" if brand == b"qt  " or head[4:8] != b"ftyp" else ".mp4"
    what, advice = _other_type(head)
    raise IntakeError(f"{name} is {what}; {advice}.")


def _other_type(head: bytes) -> tuple[str, str]:
    """What a file is that is not accepted, and what to do about it."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"#extm3u", b"ffconcat", b"v=0", b"[playlist]")):
        return "a playlist, not a video", "give the video file itself"
    if text.startswith((b"<svg", b"<?xml", b"<!doctype")):
        return "an SVG, XML or HTML document, not a picture", "export it as PNG"
    if text.startswith(b"%pdf"):
        return "a PDF document, not a picture", "export the page as PNG"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "a text file, not an image or video", _ACCEPTED
    return "neither an image nor a video of a known type", _ACCEPTED


def _check_sides(width: int, height: int, name: str) -> None:
    if max(width, height) > MAX_SIDE:
        raise IntakeError(f"{name} is {width}x{height}; make it {MAX_SIDE}x{MAX_SIDE} or smaller.")
    if min(width, height) < MIN_SIDE:
        raise IntakeError(f"{name} is {width}x{height}; at least {MIN_SIDE}x{MIN_SIDE} is needed.")


def _check_bytes(size: int, largest: int, name: str) -> None:
    if size > largest:
        raise IntakeError(f"{name} has {size >> 20} MiB; at most {largest >> 20} MiB are accepted.")


def _describe(path: Path, kind: str, width: int, height: int, num_frames: int, fps: str | None) -> Described:
    """Give the written file its final name, the hash of its bytes, and describe it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    final = path.with_name(digest + path.suffix)
    path.rename(final)
    return {
        "kind": kind,
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "fps": fps,
        "sha256": digest,
        "path": str(final),
    }


# --------------------------------------------------------------------------------------------------- images


def _normalise_image(file: BinaryIO, size: int, name: str, output_dir: Path) -> Described:
    _check_bytes(size, MAX_IMAGE_BYTES, name)
    from stitching.pictures import PictureError, read_picture

    try:
        picture = read_picture(file, MAX_SIDE)
    except PictureError as error:
        raise IntakeError(f"{name} {error}.") from None
    pixels = picture.pixels
    if min(pixels.size) < MIN_SIDE:
        said = "".join(f" ({note})" for note in picture.notes)
        raise IntakeError(
            f"{name} is {pixels.width}x{pixels.height}{said}; at least {MIN_SIDE}x{MIN_SIDE} is needed."
        )
    path = output_dir / "normalised.png"
    pixels.save(path, format="PNG", compress_level=3)
    notes = [f"{name} {note}" for note in picture.notes]
    return _describe(path, "image", pixels.width, pixels.height, 1, None) | {"notes": notes}


# --------------------------------------------------------------------------------------------------- videos


def _normalise_video(file: BinaryIO, size: int, suffix: str, name: str, output_dir: Path) -> Described:
    _check_bytes(size, MAX_VIDEO_BYTES, name)
    if _ends_early(file, size, suffix):
        raise IntakeError(f"{name} is cut off: its end is missing; copy or download it again.")
    path = _copied(file, output_dir / f"normalised{suffix}")
    from stitching.video_io import VideoError, iter_frames, probe_video

    try:
        info = probe_video(path)
        _check_sides(info.width, info.height, name)
        if info.num_frames > MAX_VIDEO_FRAMES:
            raise IntakeError(
                f"{name} has {info.num_frames} frames; at most {MAX_VIDEO_FRAMES} are accepted."
            )
        num_frames = 0
        for frame in iter_frames(path):
            if frame.shape[:2] != (info.height, info.width):
                raise IntakeError(f"{name} changes its size at frame {num_frames}; re-encode it at one size.")
            num_frames += 1
    except VideoError as error:
        reason = str(error).replace(f"{path}: ", "")
        raise IntakeError(f"{name}: {reason}; re-encode it as mp4 or copy it again.") from None
    if num_frames < info.num_frames:
        raise IntakeError(
            f"{name} is cut off or damaged: {num_frames} of {info.num_frames} frames can be decoded;"
            " copy or download it again."
        )
    fps = f"{info.fps.numerator}/{info.fps.denominator}"
    sound = _sound_of(path, name)
    return _describe(path, "video", info.width, info.height, num_frames, fps) | sound


def _copied(file: BinaryIO, path: Path) -> Path:
    """What is checked is a copy: the original may change in the meantime."""
    file.seek(0)
    with path.open("wb") as copy:
        while block := file.read(1 << 20):
            copy.write(block)
    return path


# --------------------------------------------------------------------------------------------------- sounds


def _normalise_sound(file: BinaryIO, size: int, suffix: str, name: str, output_dir: Path) -> Described:
    _check_bytes(size, MAX_VIDEO_BYTES, name)
    path = _copied(file, output_dir / f"normalised{suffix}")
    found = _sound_of(path, name)
    if found["sound"] is None:
        raise IntakeError(f"{name} holds no sound that can be decoded; save it as WAV, MP3 or FLAC.")
    return _describe(path, "audio", 0, 0, 0, None) | found


def _sound_of(path: Path, name: str) -> Described:
    """The sound of a video or sound file, as it will be kept."""
    try:
        facts = probe_sound(path)
    except SoundError as error:
        reason = str(error).removeprefix(f"{path.name}: ")
        return {"sound": None, "notes": [f"{name}: {reason} and is not kept"]}
    return {"sound": None if facts is None else asdict(facts), "notes": []}


def _ends_early(file: BinaryIO, size: int, suffix: str) -> bool:
    """Whether the outermost elements of a video claim more bytes than the file has, or its index is missing.

    Decoders read what is left of such a file and call it whole. Sizes come from ISO/IEC 14496-12 (mp4, mov),
    RFC 8794 (matroska, webm) and RIFF (avi). A Matroska segment of unknown size (a recorded stream) passes.
    """
    position, has_index = 0, suffix in (".avi", ".mkv", ".webm")
    while position + 8 <= size:
        file.seek(position)
        head = file.read(20)
        if suffix == ".avi":
            length = 8 + int.from_bytes(head[4:8], "little")
            length += length & 1
        elif suffix in (".mkv", ".webm"):
            length = _matroska_length(head)
        else:
            has_index = has_index or head[4:8] == b"moov"
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if not head[4:8].isalnum():
                length = 0
        if length < 8:  # to the end of the file, or not an element: padding after the last one
            return not has_index
        position += length
    # The byte that makes an avi's length even is often left out at the very end.
    return not has_index or position > size + (suffix == ".avi")


def _matroska_length(head: bytes) -> int:
    """Bytes of the element that starts with ``head``, its head included; 0 when it does not say."""
    id_bytes = 9 - head[0].bit_length()
    size_bytes = 9 - head[id_bytes].bit_length() if id_bytes <= 4 else 9
    if size_bytes > 8:
        return 0
    unknown = (1 << 7 * size_bytes) - 1
    value = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & unknown
    return 0 if value == unknown else id_bytes + size_bytes + value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
