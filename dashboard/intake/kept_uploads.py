"""Uploads that plans and jobs may name: checked pictures and videos, kept for a day."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from farm.errors import CannotRun, NotFound
from farm.request import MediaInfo
from farm.values import Value

KEEP_S = 24 * 3600.0
#: Between two looks at what is over.
SWEEP_S = 600.0
#: Of all that are kept.
MAX_KEPT_BYTES = 32 << 30
#: What each counts at the least: very many small ones fill a disk, too.
MIN_COUNTED_BYTES = 64 << 10
UPLOAD_ID = re.compile(r"upload-[0-9a-f]{12}")
_ABOUT = "about.json"


class KeptUpload(Value):
    """One checked file. ``media.path`` is where it lies."""

    id: str
    media: MediaInfo
    #: As the client called it; for messages and pages only.
    name: str
    #: Seconds since the epoch.
    expires_at: float


class KeptUploads:
    """A folder with one folder for every upload. Its methods block, but for ``run``."""

    def __init__(
        self, root: Path, clock: Callable[[], float] = time.time, max_bytes: int = MAX_KEPT_BYTES
    ) -> None:
        self._root = root
        self._clock = clock
        self._max_bytes = max_bytes
        self._turn = threading.Lock()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            #: Folder -> bytes it counts.
            self._sizes = {folder.name: _counted_bytes(folder) for folder in root.iterdir()}
        except OSError as error:
            raise CannotRun(f"{root} cannot be made ({error.strerror}); free disk space") from error

    def check_room(self, num_bytes: int) -> None:
        """
        Raises:
            CannotRun: so many bytes more are more than is kept at a time.
        """
        kept = sum(self._sizes.copy().values())
        if kept + max(num_bytes, MIN_COUNTED_BYTES) > self._max_bytes:
            raise CannotRun(
                f"the uploads that are kept have {kept / 1e9:.1f} GB of the {self._max_bytes / 1e9:.1f} GB "
                "they may have; delete some, wait until their day is over, or send the files with the job",
                param="file",
            )

    def keep(self, media: MediaInfo, name: str) -> KeptUpload:
        """Take over a checked file; its old place is empty afterwards.

        Raises:
            CannotRun: as ``check_room`` says, or there is no space.
        """
        upload_id = f"upload-{secrets.token_hex(6)}"
        kept = KeptUpload(
            id=upload_id,
            media=media.model_copy(update={"path": self._root / upload_id / media.path.name}),
            name=name,
            expires_at=self._clock() + KEEP_S,
        )
        folder = self._root / f".writing-{upload_id}"
        try:
            with self._turn:
                num_bytes = media.path.stat().st_size
                self.check_room(num_bytes)
                self._sizes[upload_id] = max(num_bytes, MIN_COUNTED_BYTES)
            # Written aside: an upload is there whole, or not at all.
            folder.mkdir(mode=0o700)
            shutil.move(media.path, folder / media.path.name)
            (folder / _ABOUT).write_text(kept.model_dump_json())
            os.replace(folder, self._root / upload_id)
        except OSError as error:
            self._sizes.pop(upload_id, None)
            shutil.rmtree(folder, ignore_errors=True)
            raise CannotRun(f"the upload cannot be kept ({error.strerror}); free disk space") from error
        return kept

    def get(self, upload_id: str) -> KeptUpload:
        """
        Raises:
            NotFound: no such upload, or its day is over.
        """
        kept = self._read(self._root / upload_id) if UPLOAD_ID.fullmatch(upload_id) else None
        if kept is None or kept.expires_at <= self._clock():
            raise NotFound(
                f"there is no upload {upload_id}; uploads are kept for {KEEP_S / 3600:.0f} hours",
                param="upload_id",
            )
        return kept

    def delete(self, upload_id: str) -> None:
        """
        Raises:
            NotFound: as ``get`` says.
        """
        self._remove(self.get(upload_id).media.path.parent)

    def sweep(self) -> None:
        """Remove what is over, and what a crash left half-written."""
        now = self._clock()
        for folder in list(self._root.iterdir()):
            kept = self._read(folder)
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                ends_at = folder.stat().st_mtime + KEEP_S if kept is None else kept.expires_at
                if ends_at <= now:
                    self._remove(folder)

    async def run(self) -> None:
        """Sweep now and then, until cancelled."""
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(SWEEP_S)

    def _read(self, folder: Path) -> KeptUpload | None:
        try:
            return KeptUpload.model_validate_json((folder / _ABOUT).read_bytes())
        except (OSError, ValidationError):
            return None

    def _remove(self, folder: Path) -> None:
        # The word of it goes first: what is half removed is no upload.
        with contextlib.suppress(OSError):
            (folder / _ABOUT).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        self._sizes.pop(folder.name, None)


def _counted_bytes(folder: Path) -> int:
    num_bytes = sum(path.stat().st_size for path in folder.glob("*"))
    return max(num_bytes, MIN_COUNTED_BYTES)
