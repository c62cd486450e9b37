"""One video being joined from stored segments: the body of a stitch session. Knows nothing of Ray."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from farm.running import SHEET_NAME, SO_FAR_NAME, VIDEO_NAME, Blob, Published, StitchOrder, file_hash
from nodes.interpolation import chosen
from nodes.work.stored import check_content, read_segment
from stitching import Frames, Seam, SeamReport, Stitcher
from stitching.contact_sheet import ContactSheet
from stitching.interpolation import Interpolator
from stitching.sound import SoundError, SoundTrack
from stitching.video_io import VideoError, VideoWriter

log = logging.getLogger(__name__)

#: Of ``so-far.mp4``: good enough to watch.
SO_FAR_CRF = 23


class Joiner:
    """Writes ``video.mp4`` and ``sheet.png`` into the order's folder; neither exists before ``finish``.

    Until then a quickly encoded ``so-far.mp4`` grows there, to be watched.
    """

    def __init__(self, order: StitchOrder) -> None:
        self._order = order
        self._video_path = order.folder / f".writing-{VIDEO_NAME}"
        self._sheet_path = order.folder / f".writing-{SHEET_NAME}"
        if order.sound is not None:
            check_content(order.sound)
        self._writer = VideoWriter(
            self._video_path,
            fps=order.delivered.fps,
            width=order.width,
            height=order.height,
            sound=_sound(order, copied=order.sound_copied),
        )
        self._writer.__enter__()
        self._so_far = _SoFar(order)
        self._sheet = ContactSheet(order.num_frames)
        self._stitcher = Stitcher(self._emit)
        self._interpolator = _interpolator(order, self._deliver)
        self._digest = hashlib.sha256()
        self._num_emitted = 0
        self._num_delivered = 0
        self._num_placed = 0
        self._proposal: tuple[Seam, int] | None = None

    def start(self, segment: Blob, num_frames: int) -> None:
        """The first segment of a shot."""
        frames = read_segment(segment)[:num_frames]
        if self._num_placed:
            if self._interpolator is not None:
                self._interpolator.cut(self._num_placed)
            self._mark(self._stitcher.cut(frames, overlap=0, new_shot=True), overlap=0)
        else:
            self._stitcher.start(frames)
        self._num_placed += num_frames

    def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        """Join for a look; nothing is written."""
        seam = self._stitcher.propose(read_segment(segment)[:num_frames], overlap=overlap)
        self._proposal = (seam, num_frames - overlap)
        return seam.report.to_json()

    def accept(self) -> None:
        """Write the last proposal."""
        assert self._proposal is not None, "propose a segment first"
        seam, num_new = self._proposal
        self._stitcher.accept(seam)
        self._mark(seam.report, overlap=seam.report.overlap)
        self._num_placed += num_new
        self._proposal = None

    def finish(self) -> Published:
        """Write what is held and give both files their names."""
        self._stitcher.finish()
        if self._num_emitted != self._order.num_frames:
            raise ValueError(f"joined {self._num_emitted} frames, expected {self._order.num_frames}")
        if self._interpolator is not None:
            self._interpolator.finish()
        with ThreadPoolExecutor(1, "contact-sheet") as beside:
            sheet = beside.submit(self._sheet.write_png, self._sheet_path)
            self._writer.__exit__(None, None, None)  # the encoder's end takes about as long
            sha256 = file_hash(self._video_path)
            sheet.result()
        os.replace(self._sheet_path, self._order.folder / SHEET_NAME)
        video = self._order.folder / VIDEO_NAME
        os.replace(self._video_path, video)
        self._so_far.end()
        return Published(
            num_frames=self._num_delivered,
            frames_sha256=self._digest.hexdigest(),
            size_bytes=video.stat().st_size,
            sha256=sha256,
        )

    def close(self) -> None:
        """Remove what was not finished."""
        if self._interpolator is not None:
            self._interpolator.close()
        if self._video_path.exists():
            error = InterruptedError("not finished")
            self._writer.__exit__(type(error), error, None)
        self._video_path.unlink(missing_ok=True)
        self._sheet_path.unlink(missing_ok=True)
        self._so_far.end()

    def _emit(self, frames: Frames) -> None:
        for frame in frames:
            self._sheet.add(self._num_emitted, frame)
            self._num_emitted += 1
        if self._interpolator is None:
            self._deliver(frames)
        else:
            self._interpolator.write(frames)

    def _deliver(self, frames: Frames) -> None:
        self._digest.update(frames.tobytes())
        self._writer.write(frames)
        self._so_far.write(frames)
        self._num_delivered += len(frames)

    def _mark(self, report: SeamReport, *, overlap: int) -> None:
        first = self._num_placed - overlap
        last = max(first, self._num_placed - 1)
        self._sheet.mark_seam(first, last, report.passed, kind=report.kind)


def _interpolator(order: StitchOrder, sink: Callable[[Frames], None]) -> Interpolator | None:
    """What makes the frames between the joined ones, where some are to be delivered."""
    if order.delivery is None:
        return None
    return Interpolator(
        sink,
        fps=order.fps,
        deliver_fps=order.delivery.fps,
        num_frames=order.delivery.num_frames,
        between=chosen(),
    )


def _sound(order: StitchOrder, *, copied: bool) -> SoundTrack | None:
    """What the order says of the video's sound, opened anew."""
    if order.sound is None:
        return None
    return SoundTrack(
        order.sound.path,
        duration_s=order.delivered.duration_s,
        copied=copied,
        zero_s=order.sound_zero_s,
    )


class _SoFar:
    """What is joined so far, as a video that is played while it grows. It may fail; the job goes on."""

    def __init__(self, order: StitchOrder) -> None:
        self._path = order.folder / SO_FAR_NAME
        self._writer: VideoWriter | None = None
        try:
            # A new file: whoever still reads the one of an earlier stitcher keeps it whole.
            self._path.unlink(missing_ok=True)
            self._writer = VideoWriter(
                self._path,
                fps=order.delivered.fps,
                width=order.width,
                height=order.height,
                crf=SO_FAR_CRF,
                preset="ultrafast",
                growing=True,
                sound=_sound(order, copied=False),  # AAC: what every browser plays while it grows
            )
            self._writer.__enter__()
        except (VideoError, SoundError, OSError) as error:
            log.warning("there is no video so far: %s", error)

    def write(self, frames: Frames) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(frames)
        except VideoError as error:
            log.warning("the video so far ends: %s", error)
            self.end()

    def end(self) -> None:
        """Remove it."""
        if self._writer is not None:
            with suppress(VideoError):  # no frame was written to it, or it failed before
                self._writer.__exit__(None, None, None)
            self._writer = None
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
