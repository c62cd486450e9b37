"""The first bytes tell the container."""

from __future__ import annotations

import pytest

from stitching.source.containers import container_of


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\x00\x00\x00\x20ftypisom", ".mp4"),
        (b"\x00\x00\x00\x20ftypqt  ", ".mov"),
        (b"\x00\x00\x00\x20ftyp3gp5", ".mp4"),
        (b"\x00\x00\x00\x08wide\x00\x00\x00\x00", ".mov"),
        (b"\x1a\x45\xdf\xa3....webm", ".webm"),
        (b"\x1a\x45\xdf\xa3....matroska", ".mkv"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", ".avi"),
        (b"FLV\x01\x01\x00\x00\x00\x09", ".flv"),
        (b"OggS\x00\x02", ".ogv"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", ".wmv"),
        (b"\x00\x00\x01\xba\x44\x00", ".mpg"),
        (b"\x47" + bytes(187) + b"\x47" + bytes(187), ".ts"),
        (bytes(4) + b"\x47" + bytes(191) + b"\x47" + bytes(187), ".mts"),
    ],
)
def test_every_container_is_told_by_its_first_bytes(head: bytes, suffix: str) -> None:
    found = container_of(head)
    assert found is not None
    assert found.suffix == suffix


@pytest.mark.parametrize(
    "head", [b"", b"G", b"GIF89a" + bytes(300), b"Good morning" * 40, b"\x00\x00\x00\x20ftypheic", bytes(512)]
)
def test_anything_else_is_none(head: bytes) -> None:
    assert container_of(head) is None
