"""What kind of picture a file is, by its first bytes, and how large its header says it is."""

from __future__ import annotations

import struct

#: Of a picture as it is stored: the largest that phones and cameras write.
MAX_PIXELS = 210_000_000
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


class PictureError(Exception):
    """The picture is refused; the message goes on from its name and says why and what to do."""


def is_picture(head: bytes) -> bool:
    """Whether a file with these first bytes (16 or more) is of a kind of picture that is read here."""
    return _kind(head) is not None


def formats(head: bytes) -> tuple[str, ...]:
    """The readers of Pillow that may look at a picture with these first bytes."""
    kind = _kind(head)
    assert kind is not None, "is_picture comes first"
    # A TIFF is also how some cameras' raw files begin; Pillow tells them apart.
    return ("AVIF", "HEIF") if kind == "HEIF" else (kind,)


def _kind(head: bytes) -> str | None:
    brand = head[8:12]
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:4] == b"RIFF" and brand == b"WEBP":
        return "WEBP"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    # The size of its header follows, so that no text that begins so is one.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if head[4:8] == b"ftyp" and brand in _HEIF_BRANDS:
        return "HEIF"
    return None


def webp_sides(head: bytes) -> tuple[int, int]:
    """(width, height) from the first chunk of a WebP file (RFC 9649); ``head`` has 30 bytes or more."""
    chunk, body = head[12:16], head[20:30]
    if len(body) == 10 and chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if len(body) == 10 and chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(body) == 10 and chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise PictureError("has a broken header; export it again as PNG or JPEG")
