"""Disk that uploads under way have claimed, so that slow ones do not hold it near its reserve for all."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from farm.errors import CannotRun, TooManyRequests
from farm.running import RESERVE_BYTES

#: Uploads that are under way at a time, of one caller and of all.
MAX_UPLOADS_OF_ONE = 8
MAX_UPLOADS = 64
#: Of what is free beside the reserve, the most that all of them claim together.
MAX_SHARE = 0.5
#: Claimed at a time by a body that does not say how long it is: the disk is not looked at with every chunk.
STEP_BYTES = 16 << 20


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class UploadSpace:
    """What all uploads under way may write. Blocks for no longer than to look at the disk."""

    def __init__(self, folder: Path, free_bytes: Callable[[Path], int] = _free_bytes) -> None:
        self._folder = folder
        self._free_bytes = free_bytes
        self._uploads: Counter[str] = Counter()
        self._claimed_bytes = 0

    @contextmanager
    def taken(self, who: str) -> Iterator[Claim]:
        """An upload of this caller, until the block ends.

        Raises:
            TooManyRequests: so many are under way already.
        """
        for num, most, whose in (
            (self._uploads[who], MAX_UPLOADS_OF_ONE, "of yours"),
            (self._uploads.total(), MAX_UPLOADS, "here"),
        ):
            if num >= most:
                raise TooManyRequests(
                    f"{most} uploads {whose} are under way, the most there can be; wait for one to end",
                    retry_after_s=5.0,
                )
        self._uploads[who] += 1
        claim = Claim(self)
        try:
            yield claim
        finally:
            self._claimed_bytes -= claim.num_bytes
            self._uploads[who] -= 1
            if not self._uploads[who]:
                del self._uploads[who]

    def claim(self, num_bytes: int) -> None:
        """Claim so many bytes more.

        Raises:
            CannotRun: they are not to be had.
        """
        # What is written of the claims is no longer free: counted twice, it only leaves more to the farm.
        usable = self._free_bytes(self._folder) - RESERVE_BYTES
        if usable <= 0:
            raise CannotRun("the upload cannot be kept: the disk is all but full; free disk space")
        if self._claimed_bytes + num_bytes > usable * MAX_SHARE:
            raise CannotRun(
                f"the disk has {usable / 1e9:.1f} GB for work, of which uploads under way may have "
                f"{MAX_SHARE:.0%}, and {self._claimed_bytes / 1e9:.1f} GB are theirs already; free disk "
                "space, or send it again when others have ended"
            )
        self._claimed_bytes += num_bytes


class Claim:
    """What one upload has claimed."""

    def __init__(self, space: UploadSpace) -> None:
        self._space = space
        self.num_bytes = 0

    def up_to(self, num_bytes: int) -> None:
        """Claim what is missing to so many bytes; in steps, where it grows with what comes.

        Raises:
            CannotRun: as ``UploadSpace.claim`` says.
        """
        if num_bytes > self.num_bytes:
            more = max(num_bytes - self.num_bytes, STEP_BYTES if self.num_bytes else 0)
            self._space.claim(more)
            self.num_bytes += more
