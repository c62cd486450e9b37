"""The port to the machines: what the coordinator asks of a cluster and what it hears back.

``nodes.ray.cluster`` is the real one; ``nodes.work.local_cluster`` runs workers as threads of this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

from farm.capabilities import ModelHeld, Rung, Worker
from farm.planning import Delivery, Phase, RenderTask
from farm.request import FrameRate, VideoReading
from farm.state import FailureKind, Fill, Telemetry
from farm.values import Value

Role = Literal["image", "last_image", "video", "handover", "anchor", "text", "mask"]


class Blob(Value):
    """Content in the farm's storage: its hash, and its path on the coordinator's machine."""

    sha256: str
    path: Path
    #: Of a segment: hash of its raw frames.
    frames_sha256: str | None = None


class Damaged(Exception):
    """Stored content is missing, or is not what was stored. Says which."""


class SegmentFrame(Value):
    """One frame that another segment has rendered, or a picture that stands for it."""

    #: Under which name its frames, or the picture, are among the order's inputs.
    segment: str
    #: Among the segment's frames; None: it is a picture.
    position: int | None
    #: Global number of the frame.
    frame_index: int


class InputVideo(Value):
    """How the input video is read: frame k shows what the source shows k / ``fps`` s after its start."""

    reading: VideoReading
    #: Frames per second of the source, and of the plan.
    source_fps: FrameRate
    fps: FrameRate


class Order(Value):
    """One attempt at one task, as a worker gets it."""

    attempt_id: str
    worker_id: str
    task: RenderTask
    rung: Rung
    need_bytes: int
    #: By role; frames that another segment has rendered, by its id.
    inputs: dict[Role | str, Blob]
    #: Of the segments among the inputs, the frames this one is made from.
    segment_frames: tuple[SegmentFrame, ...] = ()
    #: And those it is given as they are.
    known_frames: tuple[SegmentFrame, ...] = ()
    #: Where a video is among the inputs, and where the mask is one.
    input_video: InputVideo | None = None
    mask_video: InputVideo | None = None
    #: Under which names pictures of what is to be seen are among the inputs.
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerUp:
    worker: Worker


@dataclass(frozen=True)
class WorkerDown:
    worker_id: str
    reason: str
    #: Of the attempts that end with it; "cancelled" blames nobody.
    kind: FailureKind = "lost"


@dataclass(frozen=True)
class Progress:
    attempt_id: str
    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """A checked result. ``content`` is lossless video, ``handover`` arrays for the next segment."""

    attempt_id: str
    content: memoryview
    handover: memoryview | None
    num_frames: int
    frames_sha256: str
    #: Of the bytes of ``content`` and ``handover`` as they left the worker.
    content_sha256: str
    handover_sha256: str | None
    wall_s: float
    load_s: float
    peak_bytes: int | None
    #: Of a window between two given frames.
    fill: Fill | None = None
    #: What the worker noted meanwhile: lines "time level text", at most ``MAX_LOG_BYTES``.
    log: str = ""
    #: Seconds of each phase that it went through.
    phases_s: Mapping[Phase, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    attempt_id: str
    kind: FailureKind
    message: str
    #: As in ``Finished``.
    log: str = ""


@dataclass(frozen=True)
class Models:
    """What of models is on the disk of a worker's machine, by its own word."""

    worker_id: str
    held: tuple[ModelHeld, ...]


Message = WorkerUp | WorkerDown | Progress | Finished | Failed | Telemetry | Models

#: Of an attempt's log; the middle is left out of a longer one.
MAX_LOG_BYTES = 64 * 1024


VIDEO_NAME = "video.mp4"
SHEET_NAME = "sheet.png"
#: A fragmented MP4 that grows and can be played at any moment; gone when the video is whole.
SO_FAR_NAME = "so-far.mp4"


class StitchOrder(Value):
    """The video a stitcher makes: ``video.mp4`` and ``sheet.png`` in ``folder``.

    While it joins, ``SO_FAR_NAME`` beside them holds what is joined so far.
    """

    folder: Path
    #: Of the segments; the video has others where there is a ``delivery``.
    fps: Fraction
    num_frames: int
    width: int
    height: int
    delivery: Delivery | None = None
    #: The file whose sound the video gets; None: it is silent.
    sound: Blob | None = None
    #: Whether the sound's packets are copied; else it is encoded anew.
    sound_copied: bool = False
    #: The time in that file at which the video begins; None: with the file's pictures, or else its sound.
    sound_zero_s: Fraction | None = None

    @property
    def delivered(self) -> Delivery:
        """What the video has, interpolated or not."""
        return self.delivery or Delivery(num_frames=self.num_frames, fps=self.fps)


class Published(Value):
    num_frames: int
    #: Of the raw frames, before encoding.
    frames_sha256: str
    size_bytes: int
    #: Of the video's bytes.
    sha256: str


class StitchSession(Protocol):
    """One video being joined, in order. Nothing is at its final name before ``finish``.

    ``start`` and ``propose`` raise Damaged for a segment that is not what was rendered, and may be called
    again with another.
    """

    async def start(self, segment: Blob, num_frames: int) -> None:
        """The first segment of a shot. ``num_frames`` of it are kept."""

    async def propose(self, segment: Blob, num_frames: int, overlap: int) -> dict[str, Any]:
        """Join the next segment for a look; returns the seam's report with ``failed_gates``."""

    async def accept(self) -> None:
        """Keep the last proposal."""

    async def finish(self) -> Published: ...

    async def close(self) -> None:
        """Let go; an unfinished video is removed."""


class Cluster(Protocol):
    def messages(self) -> AsyncIterator[Message]:
        """What happens out there, in order, until ``close``."""

    def start(self, order: Order) -> None:
        """Begin an attempt; returns at once. Its end comes as a message."""

    def cancel(self, attempt_id: str) -> None:
        """Stop an attempt at its next step. Its result, if it still comes, is ignored by the fence."""

    def kill(self, worker_id: str) -> None:
        """End a worker that no longer answers; it comes back fresh when its node is alive."""

    async def release(self, worker_id: str) -> None:
        """End a drained worker's process; it stays away until ``enable``."""

    def enable(self, worker_id: str) -> None:
        """Let a released worker come up again, now or when its node is back. Returns at once."""

    def has_place(self, worker_id: str) -> bool:
        """Whether the worker's machine is here, its process up or not."""

    def expel(self, node: str) -> None:
        """Cut a machine off, and make what lets it in worth nothing. Other machines come back by themselves.

        Raises:
            CannotRun: that cannot be remembered; nothing has happened.
        """

    async def open_stitcher(self, order: StitchOrder) -> StitchSession: ...

    async def close(self) -> None: ...
