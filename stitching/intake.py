"""Checks and normalises one image or video of a stranger:
``python -m stitching.intake INPUT OUTPUT_DIR [--clip]``.

Written to run in a child process with limits (it decodes hostile bytes). The kind is decided by the first
bytes, never by the name. An image becomes an RGB PNG: upright, 8 bits, in sRGB, without metadata, with
transparency laid on white as web pages and viewers show it, its sides no longer than a video's. A video is
decoded once from end to end and kept as it is; an animated picture is a video where ``--clip`` is given.
The result is named by the SHA-256 of its bytes.

One JSON line is printed: kind, width, height, num_frames, fps ("num/den", null for an image), sha256, path
and notes of what is changed, with status 0, or {"error": one sentence} with status 2. Of a video it says too
how it is read (``reading``), and of a video or a sound what is heard (``sound``). Lines before it,
{"num_frames", "share"}, tell how far the look at it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import stat
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stitching.pictures import is_picture
from stitching.sound import SoundError, probe_sound, sound_suffix

if TYPE_CHECKING:
    from stitching.source import Reading

MIN_SIDE, MAX_SIDE = 16, 4096
MAX_IMAGE_BYTES = 1 << 30
MAX_VIDEO_SIDE = 8192
MAX_VIDEO_BYTES = 64 << 30
#: Nine hours at 30 frames a second.
MAX_VIDEO_FRAMES = 1_000_000
#: The argument by which an animated picture is a video.
CLIP = "--clip"
#: Of a file, to tell what it is.
HEAD_BYTES = 512
#: Between two lines of progress.
PROGRESS_S = 1.0
_BLOCK_BYTES = 1 << 20
#: A sound in a copy may begin and end so much elsewhere.
_SAME_SOUND_S = 0.01
_COPIED = (
    "a seek into it leads nowhere sure: its pictures and sound are copied as they are into Matroska, with the"
    " times they are shown at"
)
_FROM_BEGINNING = (
    "a seek into it leads nowhere sure: every window is read from its beginning, which takes longer"
)
_ACCEPTED = (
    "use a PNG, JPEG, WebP, HEIC, AVIF, GIF, TIFF or BMP image, or an mp4, mov, mkv, webm, avi, ts, mts, "
    "mpg, wmv, flv or ogv video"
)

#: Of files that are a sound and no video.
SOUND_SUFFIXES = (".wav", ".aiff", ".flac", ".ogg", ".m4a", ".mp3", ".aac")

Described = dict[str, Any]
Progress = Callable[[int, float | None], None]


class IntakeError(Exception):
    """The file is refused; the message is one sentence that says why and what to do."""


def main(arguments: list[str]) -> int:
    """Print the outcome as one JSON line and return the exit status."""
    warnings.simplefilter("ignore")
    source, output_dir = Path(arguments[0]), Path(arguments[1])
    try:
        described = normalise_file(source, output_dir, _Told(), clip=CLIP in arguments[2:])
    except IntakeError as error:
        refusal = str(error)
    except MemoryError:
        refusal = f"{shown_name(source)} needs too much memory to decode; make it smaller."
    except OSError as error:
        why = error.strerror or type(error).__name__
        refusal = f"{shown_name(source)} cannot be copied ({why}); check the disk and try again."
    else:
        print(json.dumps(described))
        return 0
    print(json.dumps({"error": refusal}))
    return 2


class _Told:
    """Prints progress now and then, and allows this process as much more of the processor each time."""

    def __init__(self) -> None:
        self._allowed_s, self._hard_s = resource.getrlimit(resource.RLIMIT_CPU)
        self._at = time.monotonic()

    def __call__(self, num_frames: int, share: float | None) -> None:
        now = time.monotonic()
        if now - self._at < PROGRESS_S:
            return
        self._at = now
        if self._allowed_s not in (resource.RLIM_INFINITY, self._hard_s):
            until_s = math.ceil(time.process_time()) + self._allowed_s
            resource.setrlimit(resource.RLIMIT_CPU, (until_s, self._hard_s))
        print(json.dumps({"num_frames": num_frames, "share": share}), flush=True)


def normalise_file(
    source: Path,
    output_dir: Path,
    on_progress: Progress = lambda num_frames, share: None,
    *,
    clip: bool = False,
) -> Described:
    """Check ``source`` and write its normalised copy into ``output_dir``; what was printed is returned.

    on_progress: told often, while a video is looked at, how many frames were seen and which share that is.
    clip: an animated picture is a video; else its first picture is taken.

    Raises:
        IntakeError: the file is refused. A partial file may be left in ``output_dir``.
    """
    name = shown_name(source)
    with _opened(source, name) as file:
        size = os.fstat(file.fileno()).st_size
        suffix = known_suffix(file.read(HEAD_BYTES), name)
        file.seek(0)
        if suffix == ".png" and clip and (found := _clip(file, size, name, output_dir, on_progress)):
            return found
        if suffix == ".png":
            return _normalise_image(file, size, name, output_dir)
        if suffix in SOUND_SUFFIXES:
            return _normalise_sound(file, size, suffix, name, output_dir, on_progress)
        return _normalise_video(file, size, suffix, name, output_dir, on_progress)


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
    if is_picture(head):
        return ".png"
    if suffix := sound_suffix(head):
        return suffix
    from stitching.source import container_of  # not before a picture is known to be none: it takes its time

    if container := container_of(head):
        return container.suffix
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


def _check_sides(width: int, height: int, name: str, largest: int = MAX_SIDE) -> None:
    if max(width, height) > largest:
        raise IntakeError(f"{name} is {width}x{height}; make it {largest}x{largest} or smaller.")
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


def _clip(file: BinaryIO, size: int, name: str, output_dir: Path, on_progress: Progress) -> Described | None:
    """An animated picture as a video; None: it is none."""
    from stitching.pictures import PictureError
    from stitching.source import animation_as_video

    _check_bytes(size, MAX_IMAGE_BYTES, name)
    path = output_dir / "animation.mkv"
    try:
        count = animation_as_video(file, path, on_progress)
    except PictureError as error:
        raise IntakeError(f"{name} {error}.") from None
    if count is None:
        file.seek(0)
        return None
    with path.open("rb") as written:
        found = _normalise_video(written, path.stat().st_size, ".mkv", name, output_dir, on_progress)
    path.unlink()
    said = f"{name} is animated: its {count} pictures are read as a video, once through"
    return found | {"notes": [said, *found["notes"]]}


# --------------------------------------------------------------------------------------------------- videos


def _normalise_video(
    file: BinaryIO, size: int, suffix: str, name: str, output_dir: Path, on_progress: Progress
) -> Described:
    from stitching.source import NoPictures, ends_early, indexed, look
    from stitching.video_io import VideoError

    _check_bytes(size, MAX_VIDEO_BYTES, name)
    if ends_early(file, size, suffix):
        raise IntakeError(f"{name} is cut off: its end is missing; copy or download it again.")
    # The copy is checked: the original may change in the meantime.
    path, sha256 = _copied(file, output_dir / f"normalised{suffix}", on_progress)
    try:
        looked = look(path, max_frames=MAX_VIDEO_FRAMES, on_progress=on_progress)
    except NoPictures:
        return _normalise_sound(file, size, suffix, name, output_dir, on_progress)
    except VideoError as error:
        reason = str(error).replace(f"{path}: ", "")
        raise IntakeError(f"{name}: {reason}; re-encode it as mp4 or copy it again.") from None
    _check_sides(looked.width, looked.height, name, MAX_VIDEO_SIDE)
    sound = _sound_of(path, name, on_progress, looked.num_frames, _zero_s(looked.reading))
    notes = [*(f"{name}: {change}" for change in looked.changes), *sound["notes"]]
    if looked.reading.counted or not looked.reading.seekable:
        copy = output_dir / "indexed.mkv"
        reading = indexed(path, looked, copy, on_progress)
        if reading is not None and _is_as_long(
            sound["sound"],
            _sound_of(copy, name, on_progress, looked.num_frames, _zero_s(reading))["sound"],
        ):
            path.unlink()
            path, sha256 = copy, _sha256(copy, on_progress)
            looked = replace(looked, reading=reading)
            notes.append(f"{name}: {_COPIED}")
        else:
            copy.unlink(missing_ok=True)
            notes.append(f"{name}: {_FROM_BEGINNING}")
    start_s = looked.reading.start_s
    final = path.with_name(sha256 + path.suffix)
    path.rename(final)
    return {
        "kind": "video",
        "width": looked.width,
        "height": looked.height,
        "num_frames": looked.num_frames,
        "fps": f"{looked.fps.numerator}/{looked.fps.denominator}",
        "sha256": sha256,
        "path": str(final),
        "reading": {
            "start_s": f"{start_s.numerator}/{start_s.denominator}",
            "interlaced": looked.reading.interlaced,
            "counted": looked.reading.counted,
            "seekable": looked.reading.seekable,
        },
        "sound": sound["sound"],
        "notes": notes,
    }


def _copied(file: BinaryIO, path: Path, on_progress: Progress) -> tuple[Path, str]:
    """The copy and its SHA-256."""
    digest = hashlib.sha256()
    file.seek(0)
    with path.open("wb") as copy:
        while block := file.read(_BLOCK_BYTES):
            copy.write(block)
            digest.update(block)
            on_progress(0, None)
    return path, digest.hexdigest()


def _sha256(path: Path, on_progress: Progress) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            on_progress(0, None)
    return digest.hexdigest()


def _zero_s(reading: Reading) -> Fraction | None:
    return None if reading.counted else reading.start_s


def _is_as_long(sound: Described | None, copied: Described | None) -> bool:
    """Whether a sound is the same in a copy, and at the same time."""
    if sound is None or copied is None:
        return sound is copied
    off_s = max(abs(sound[time] - copied[time]) for time in ("start_s", "end_s"))
    return bool(off_s < _SAME_SOUND_S and sound["num_tracks"] == copied["num_tracks"])


# --------------------------------------------------------------------------------------------------- sounds


def _normalise_sound(
    file: BinaryIO, size: int, suffix: str, name: str, output_dir: Path, on_progress: Progress
) -> Described:
    _check_bytes(size, MAX_VIDEO_BYTES, name)
    path, _ = _copied(file, output_dir / f"normalised{suffix}", on_progress)
    found = _sound_of(path, name, on_progress)
    if found["sound"] is None:
        pictures = "" if suffix in SOUND_SUFFIXES else "no video stream and "
        raise IntakeError(f"{name} holds {pictures}no sound that can be decoded; save it as WAV or MP3.")
    return _describe(path, "audio", 0, 0, 0, None) | found


def _sound_of(
    path: Path, name: str, on_progress: Progress, num_frames: int = 0, zero_s: Fraction | None = None
) -> Described:
    """The sound of a video or sound file, as it will be kept."""
    try:
        facts = probe_sound(path, zero_s, lambda: on_progress(num_frames, None))
    except SoundError as error:
        reason = str(error).removeprefix(f"{path.name}: ")
        return {"sound": None, "notes": [f"{name}: {reason} and is not kept"]}
    return {"sound": None if facts is None else asdict(facts), "notes": []}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
