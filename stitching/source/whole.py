"""Whether a video's file is all there, by what its outermost elements say of their length."""

from __future__ import annotations

from typing import BinaryIO


def ends_early(file: BinaryIO, size: int, suffix: str) -> bool:
    """Whether the outermost elements of a video claim more bytes than the file has, or its index is missing.

    Decoders read what is left of such a file and call it whole. Sizes come from ISO/IEC 14496-12 (mp4, mov),
    RFC 8794 (matroska, webm), RIFF (avi) and Microsoft's ASF (wmv). A Matroska segment of unknown size (a
    recorded stream) passes, and so do streams, which have no end: ts, mts, mpg, flv, ogv.
    """
    if suffix in (".ts", ".mts", ".mpg", ".flv", ".ogv"):
        return False
    position, has_index = 0, suffix in (".avi", ".mkv", ".webm", ".wmv")
    while position + 8 <= size:
        file.seek(position)
        head = file.read(24)
        if suffix == ".avi":
            length = 8 + int.from_bytes(head[4:8], "little")
            length += length & 1
        elif suffix == ".wmv":
            length = int.from_bytes(head[16:24], "little")
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
