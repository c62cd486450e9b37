"""The port to pictures and videos: what the doors ask to have decoded, drawn or looked at.

``nodes.media.pictures`` does the work; the composition root hands it over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from farm.request.media import MediaInfo

#: Told, about every second, how many frames of a video were looked at, and which share of it that is, where
#: that is known. What it raises ends the look.
OnLook: TypeAlias = Callable[[int, float | None], None]


class SeamPicture(Protocol):
    def __call__(
        self,
        earlier: Path,
        later: Path,
        *,
        overlap: int,
        num_frames_earlier: int,
        joined: Path | None,
        joined_start: int,
        joined_step: Fraction = Fraction(1),
        which: Literal["before", "after"],
    ) -> bytes:
        """A strip (WebP) of the frames around a join, in the order they are shown.

        Args:
            earlier: The stored segment before the join.
            later: The stored segment after it, whose first ``overlap`` frames show the earlier's last.
            overlap: Frames both show; 0 where they only meet.
            num_frames_earlier: Frames kept of the earlier one.
            joined: The video, or what is joined of it so far. Only "after" reads it.
            joined_start: The first shared frame's number among those that were joined.
            joined_step: Frames of ``joined`` for each of them: more than one where some are interpolated.
            which: "before": the raw segments, cut in the middle of what they share. "after": the same
                moments of the joined video.

        Raises:
            InvalidInput: a file is damaged, or does not reach so far (yet).
        """


@dataclass(frozen=True)
class MediaTools:
    """Every function reads files of this machine, blocks while it works, and may run on any thread.

    All raise InvalidInput, with one line, for a file that is missing, damaged or not what it should be.
    """

    #: (path, folder, on_look) -> the checked copy of a user's file, named by its hash in ``folder``: a
    #: picture upright and plain, a video as it is.
    normalise: Callable[[Path, Path, OnLook], MediaInfo]
    #: The same, but of an animated picture a video, where ``normalise`` takes its first picture.
    normalise_clip: Callable[[Path, Path, OnLook], MediaInfo]
    #: (first bytes): nothing, or InvalidInput when no known image or video begins so. Give it 16 bytes or
    #: more; only a file that has fewer may be asked about with fewer.
    refuse_unknown: Callable[[bytes], None]
    #: (path, frame_index, longest_side) -> WebP of one frame of a stored image or video, never enlarged.
    picture: Callable[[Path, int, int], bytes]
    #: (video) -> WebP of its middle frame, longest side at most 640.
    thumbnail: Callable[[Path], bytes]
    #: (video) -> WebP grid, row by row, of at most 25 evenly spaced frames.
    spritesheet: Callable[[Path], bytes]
    seam_picture: SeamPicture
    #: (prompt, seed, width, height) -> PNG, a painted start picture for a request without one.
    backdrop: Callable[[str, int, int, int], bytes]
    #: (mp4) -> its RFC 6381 codec string, such as "avc1.4d401f"; whole or still growing.
    codec: Callable[[Path], str]
