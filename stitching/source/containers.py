"""Which container a file is, by its first bytes and never by its name. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Enough of a file to tell: the packets of a transport stream repeat after 192 bytes.
HEAD_BYTES = 512
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heif", b"mif1", b"msf1")


@dataclass(frozen=True)
class Container:
    """suffix: of the stored file. demuxer: libav's name. is_stream: it has no end, and may be cut off."""

    suffix: str
    demuxer: str
    is_stream: bool = False


def container_of(head: bytes) -> Container | None:
    """The container of a video that begins with ``head`` (``HEAD_BYTES`` of it, or all); None: unknown."""
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Container(".webm" if b"webm" in head[:64] else ".mkv", "matroska")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Container(".avi", "avi")
    if head[4:8] in _BOXES and head[8:12] not in _PICTURE_BRANDS:
        is_mov = head[8:12] == b"qt  " or head[4:8] != b"ftyp"
        return Container(".mov" if is_mov else ".mp4", "mov")
    if head[:4] == b"FLV\x01":
        return Container(".flv", "flv", is_stream=True)
    if head[:4] == b"OggS":
        return Container(".ogv", "ogg", is_stream=True)
    if head[:8] == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11":
        return Container(".wmv", "asf")
    if head[:4] == b"\0\0\1\xba":
        return Container(".mpg", "mpeg", is_stream=True)
    # ISO/IEC 13818-1: packets of 188 bytes that begin with 0x47; on discs and cameras 4 bytes of time
    # before each.
    if head[0:1] == head[188:189] == b"\x47":
        return Container(".ts", "mpegts", is_stream=True)
    if head[4:5] == head[196:197] == b"\x47":
        return Container(".mts", "mpegts", is_stream=True)
    return None
