"""Manifests of what is on this disk: a file is hashed once, which is remembered beside the models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from farm.capabilities import PIECE_BYTES, Manifest, ModelFile
from nodes.model_store.store import models_folder

_HASHES = "hashes"


def manifest_of(
    key: str, root: Path, paths: Iterable[str], hashing: Callable[[int], None] = lambda _: None
) -> Manifest:
    """The manifest of these files of a folder.

    A file that was hashed is not read again while its size and time are the same. ``hashing`` is told the
    bytes as they are read; what it raises ends it.

    Raises:
        OSError: a file cannot be read.
    """
    memory = models_folder() / ".records" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.{_HASHES}.json"
    known = _read(memory)
    files, now = [], {}
    for path in sorted(paths):
        status = (root / path).stat()
        mark = [status.st_size, status.st_mtime_ns, status.st_ino]
        before = known.get(path)
        if isinstance(before, dict) and before.get("mark") == mark:
            pieces = before["pieces"]
        else:
            pieces = _hashes(root / path, hashing)
        now[path] = {"mark": mark, "pieces": pieces}
        files.append(ModelFile(path=path, size_bytes=status.st_size, pieces=tuple(pieces)))
    if any(known.get(path) != told for path, told in now.items()):
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(json.dumps({**known, **now}))
    return Manifest(key=key, files=tuple(files))


def _hashes(path: Path, hashing: Callable[[int], None]) -> list[str]:
    found = []
    buffer = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := _fill(file, buffer):
            found.append(hashlib.sha256(memoryview(buffer)[:count]).hexdigest())
            hashing(count)
    return found


def _fill(file: Any, buffer: bytearray) -> int:
    """As much as there is, up to all of the buffer."""
    view, got = memoryview(buffer), 0
    while got < len(buffer) and (count := file.readinto(view[got:])):
        got += count
    return got


def _read(memory: Path) -> dict[str, Any]:
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
