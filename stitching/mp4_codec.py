"""What a browser must be told to play an mp4: its codec string, read from the boxes of the file's head.

Box layout: ISO/IEC 14496-12; avc1 and avcC: ISO/IEC 14496-15; the string: RFC 6381, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stitching.video_io import VideoError

#: From the moov box to the sample description of a track.
_PATH = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_STSD_HEADER = 8  # version, flags and the number of entries
_AVC1_HEADER = 78  # of a visual sample entry, before its boxes
_MAX_MOOV_BYTES = 64 << 20  # the index of a video of days; a damaged size is larger


def codec_string(path: Path) -> str:
    """Such as "avc1.42c01e" of the first H.264 track, with ",mp4a.40.2" where there is sound beside it.

    The file may still be growing; its sound is AAC-LC.

    Raises:
        VideoError: it cannot be read, or its head describes no H.264 video (yet).
    """
    try:
        moov = _moov(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror or error})") from None
    for description in _inside(moov, _PATH):
        for entry in _inside(description[_STSD_HEADER:], (b"avc1",)):
            for setup in _inside(entry[_AVC1_HEADER:], (b"avcC",)):
                if len(setup) >= 4:
                    # Profile, what else the stream obeys, level.
                    return f"avc1.{setup[1:4].hex()}" + (",mp4a.40.2" if _has_sound(moov) else "")
    raise VideoError(f"{path}: is not an mp4 file with H.264 video")


def _has_sound(moov: bytes) -> bool:
    descriptions = _inside(moov, _PATH)
    return any(True for d in descriptions for _ in _inside(d[_STSD_HEADER:], (b"mp4a",)))


def _moov(path: Path) -> bytes:
    """What is in the file's moov box; nothing where there is none, or not all of it."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            header = 8
            if size == 1:
                size, header = int.from_bytes(file.read(8), "big"), 16
            if size < header:
                break
            if kind == b"moov" and size <= _MAX_MOOV_BYTES:
                content = file.read(size - header)
                return content if len(content) == size - header else b""
            file.seek(size - header, 1)
    return b""


def _inside(content: bytes, path: tuple[bytes, ...]) -> Iterator[bytes]:
    """The contents of every box that lies at this path of box names."""
    if not path:
        yield content
        return
    position = 0
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size < 8:
            return
        if content[position + 4 : position + 8] == path[0]:
            yield from _inside(content[position + 8 : position + size], path[1:])
        position += size
