"""A finished video."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.errors import CannotRun, InvalidInput


@dataclass(frozen=True)
class Video:
    """A video that a farm, or this machine, has made. It stays there until its job is deleted."""

    #: Of the job that made it, for ``Farm().job(...)`` or ``farm report``.
    job_id: str
    #: The job's story, as ``farm report --json`` prints it: settings, segments, seams, workers, totals.
    report: dict[str, Any] = field(repr=False)
    #: Where it was saved first; None: nowhere yet.
    path: Path | None
    _put: Callable[[Path, bool], Path] = field(repr=False, compare=False)

    @property
    def num_frames(self) -> int:
        return int(self.report["num_frames"])

    @property
    def fps(self) -> float:
        return float(self.report["fps"])

    @property
    def width(self) -> int:
        return int(self.report["width"])

    @property
    def height(self) -> int:
        return int(self.report["height"])

    @property
    def seed(self) -> int:
        return int(self.report["settings"]["seed"])

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> Path:
        """Put it at ``path``, an .mp4, whole or not at all; where it is is returned.

        Without ``replace`` a file that is there stays, and the name is numbered.

        Raises:
            InvalidInput: the name does not end in .mp4.
            CannotRun: it cannot be written there, or the farm does not answer.
        """
        place = Path(path).absolute()
        if place.suffix.lower() != ".mp4":
            raise InvalidInput(f"path is {place}, expected a name that ends in .mp4", param="path")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRun(f"{place.parent} cannot be made ({error.strerror})") from error
        return self._put(place, replace)

    def frames(self) -> NDArray[np.uint8]:
        """All frames, (num_frames, height, width, 3), RGB: 650 MB for 10 s of 1280x704 at 24 fps."""
        from stitching.video_io import read_frames

        with tempfile.TemporaryDirectory() as folder:
            return read_frames(self._put(Path(folder) / "video.mp4", False))
