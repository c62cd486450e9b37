"""The checksums of FFV1's slices (RFC 9043, section 4.9), which libav computes, logs and then ignores.

A slice of version 3 ends in a footer: its size in 3 bytes, and where the stream has checksums a status of one
byte and a CRC-32 of the whole slice, footer included, whose remainder is 0.
"""

from __future__ import annotations

import zlib

_SIZE_BYTES = 3
_FOOTER_BYTES = _SIZE_BYTES + 5
#: zlib's CRC-32 takes the lowest bit of a byte first, FFV1's the highest.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def slices_are_whole(packet: bytes) -> bool:
    """Whether every slice of a frame has the checksum it says; slices without one pass."""
    return _walk(packet, _FOOTER_BYTES) or _walk(packet, _SIZE_BYTES)


def _walk(packet: bytes, footer_bytes: int) -> bool:
    """From the last slice to the first: whether such footers divide the whole packet."""
    end = len(packet)
    while end >= footer_bytes:
        footer = end - footer_bytes
        start = footer - int.from_bytes(packet[footer : footer + _SIZE_BYTES], "big")
        if start < 0 or (footer_bytes == _FOOTER_BYTES and _crc(packet[start:end])):
            return False
        end = start
    return end == 0 and bool(packet)


def _crc(content: bytes) -> int:
    """CRC-32 of polynomial 0x04C11DB7, highest bit first, from 0 on: 0 for content that ends in its own."""
    return zlib.crc32(content.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
