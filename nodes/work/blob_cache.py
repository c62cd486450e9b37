"""Inputs kept on a remote machine's disk under their hash, so that each crosses the network once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from farm.running import content_hash, file_hash

#: Oldest files go first past this.
MAX_CACHE_BYTES = 4 * 1024**3


class BlobCache:
    """Belongs to one worker process and goes with it."""

    def __init__(self) -> None:
        self._made: Path | None = None

    def fetch(self, sha256: str, get: Callable[[], bytes | bytearray]) -> Path:
        """The path of this content, fetched with ``get`` when it is not here.

        Raises:
            ValueError: what came is not what was asked for.
        """
        path = self._folder() / sha256
        if path.exists():
            if file_hash(path) == sha256:
                os.utime(path)
                return path
            path.unlink()  # damaged here
        content = get()
        if content_hash(content) != sha256:
            raise ValueError(f"an input arrived damaged: its SHA-256 is not {sha256}")
        self._make_room(len(content))
        temporary = path.with_suffix(".writing")
        temporary.write_bytes(content)
        temporary.replace(path)
        return path

    def _folder(self) -> Path:
        """Made when it is first needed, in the node's own temporary folder, which goes with the node."""
        if self._made is None:
            self._made = Path(tempfile.mkdtemp(prefix="inputs-"))
        return self._made

    def _make_room(self, wanted_bytes: int) -> None:
        files = sorted(self._folder().iterdir(), key=lambda p: p.stat().st_mtime)
        held = sum(p.stat().st_size for p in files)
        while files and held + wanted_bytes > MAX_CACHE_BYTES:
            oldest = files.pop(0)
            held -= oldest.stat().st_size
            oldest.unlink()
