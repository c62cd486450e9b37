"""What coordinator and workers say to each other, and what of it is refused.

A worker's machine is a guest: every number has its range, every text its length, and what is said must be of
an attempt that this very worker was given (``nodes/link/listener.py`` asks ``refusal``).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from farm.capabilities import Manifest, ModelHeld, Source, Worker
from farm.planning import Phase, RenderTask
from farm.running import MAX_LOG_BYTES, Failed, Finished, Models, Order, Progress
from farm.state import FailureKind, Fill, Telemetry
from nodes.link.frames import BadFrame

_MIB = 2**20
#: Lossless video of noise is a little larger than its frames, and a container comes on top.
_CONTENT_SLACK, _CONTENT_EXTRA_BYTES = 1.25, _MIB
#: A frame and the latents behind it, whatever the autoencoder.
_HANDOVER_SLACK, _HANDOVER_EXTRA_BYTES = 8, _MIB


def _printable(text: str) -> str:
    """Without what steers a terminal."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


_Id = Annotated[str, Field(min_length=1, max_length=256)]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
_Log = Annotated[str, Field(max_length=MAX_LOG_BYTES), AfterValidator(_printable)]
_Bytes = Annotated[int, Field(ge=0, lt=2**53)]
_Seconds = Annotated[float, Field(ge=0, lt=1e9)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def header(self) -> bytes:
        return self.model_dump_json().encode()


# Greetings.


class Challenge(_Said):
    """The coordinator's first word to whoever connects."""

    nonce: _Nonce


class Hello(_Said):
    """Who connects, and what shows that it was given this worker's secret."""

    worker_id: _Id
    nonce: _Nonce
    proof: _Hash


class Welcome(_Said):
    """What shows the worker that it talks to its coordinator."""

    proof: _Hash
    #: Whether the coordinator's files are files of the worker's machine too.
    same_machine: bool


# Of a worker.


class SaidWorker(_Said):
    """The worker, its first word."""

    type: Literal["worker"] = "worker"
    worker: Worker


class SaidBroken(_Said):
    """It cannot work, and ends."""

    type: Literal["broken"] = "broken"
    message: _Text


class SaidProgress(_Said):
    type: Literal["progress"] = "progress"
    attempt_id: _Id
    phase: Phase
    done: _Count
    total: Annotated[int, Field(ge=1, lt=2**31)]

    def message(self) -> Progress:
        return Progress(self.attempt_id, self.phase, min(self.done, self.total), self.total)


class SaidFinished(_Said):
    """A result: its video and its hand-over follow."""

    type: Literal["finished"] = "finished"
    attempt_id: _Id
    content_bytes: Annotated[int, Field(gt=0, lt=2**53)]
    handover_bytes: _Bytes | None
    num_frames: _Count
    frames_sha256: _Hash
    content_sha256: _Hash
    handover_sha256: _Hash | None
    wall_s: _Seconds
    load_s: _Seconds
    peak_bytes: _Bytes | None
    fill: Fill | None = None
    log: _Log = ""
    phases_s: dict[Phase, _Seconds] = Field(default_factory=dict)

    def message(self, content: memoryview, handover: memoryview | None) -> Finished:
        fields = self.model_dump(exclude={"type", "content_bytes", "handover_bytes", "fill"})
        return Finished(**fields, fill=self.fill, content=content, handover=handover)


class SaidFailed(_Said):
    type: Literal["failed"] = "failed"
    attempt_id: _Id
    kind: FailureKind
    message: _Text
    log: _Log = ""

    def told(self) -> Failed:
        return Failed(self.attempt_id, self.kind, self.message, self.log)


class SaidTelemetry(_Said):
    type: Literal["telemetry"] = "telemetry"
    vram_used_bytes: _Bytes | None = None
    vram_total_bytes: _Bytes | None = None
    vram_others_bytes: _Bytes | None = None
    load: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature_c: Annotated[float, Field(ge=-300, le=1000)] | None = None
    power_w: Annotated[float, Field(ge=0, le=1e6)] | None = None
    memory_used_bytes: _Bytes | None = None

    def message(self, worker_id: str) -> Telemetry:
        return Telemetry(worker_id, **self.model_dump(exclude={"type"}))


class SaidFetch(_Said):
    """An input is wanted that is not on this machine."""

    type: Literal["fetch"] = "fetch"
    sha256: _Hash


class SaidModels(_Said):
    """What of models is on its machine's disk, and where others get it."""

    type: Literal["models"] = "models"
    held: Annotated[tuple[ModelHeld, ...], Field(max_length=1000)]
    #: Of what it can give to other machines, all of it or parts: the ids of manifests.
    manifests: Annotated[tuple[_Hash, ...], Field(max_length=1000)] = ()
    #: On which it gives them; None: it does not.
    port: Annotated[int, Field(ge=1, le=65535)] | None = None

    def message(self, worker_id: str) -> Models:
        held = tuple(each for each in self.held if _printable(each.model) == each.model)
        return Models(worker_id, tuple(each for each in held if 0 < len(each.model) <= 256))


class SaidBring(_Said):
    """The model of an order is wanted that is not on this machine."""

    type: Literal["bring"] = "bring"
    attempt_id: _Id


WorkerSaid = (
    SaidWorker
    | SaidBroken
    | SaidProgress
    | SaidFinished
    | SaidFailed
    | SaidTelemetry
    | SaidFetch
    | SaidModels
    | SaidBring
)
_worker_said: TypeAdapter[WorkerSaid] = TypeAdapter(Annotated[WorkerSaid, Field(discriminator="type")])


# Of the coordinator, to a worker that trusts it.


class GiveOrder(_Said):
    type: Literal["order"] = "order"
    order: Order
    #: How often the worker tells of its device from now on, and of steps within a phase, at most.
    telemetry_interval_s: float
    progress_interval_s: float = 0.0


class GiveCancel(_Said):
    type: Literal["cancel"] = "cancel"
    attempt_id: str


class GiveBlob(_Said):
    """An input that was asked for follows; None: it is gone."""

    type: Literal["blob"] = "blob"
    sha256: str
    content_bytes: int | None


class GiveModel(_Said):
    """What a model and its weights are made of, as far as they come from the farm."""

    type: Literal["model"] = "model"
    attempt_id: str
    manifests: tuple[Manifest, ...]
    #: Why the farm's machine cannot tell.
    problem: str = ""


class GiveSources(_Said):
    """Which machines give pieces of a manifest now; the farm's own is the first."""

    type: Literal["sources"] = "sources"
    manifest_id: str
    sources: tuple[Source, ...]


class GiveSecret(_Said):
    """What machines of the farm know each other by that hand models over, until there is another one."""

    type: Literal["secret"] = "secret"
    secret: str


Given = GiveOrder | GiveCancel | GiveBlob | GiveModel | GiveSources | GiveSecret
_given: TypeAdapter[Given] = TypeAdapter(Annotated[Given, Field(discriminator="type")])


def worker_said(header: bytes) -> WorkerSaid:
    """
    Raises:
        BadFrame: it is no message of a worker.
    """
    try:
        return _worker_said.validate_json(header)
    except ValidationError as error:
        raise BadFrame(_first_line(error)) from error


def given(header: bytes) -> Given:
    """
    Raises:
        BadFrame: it is no message of a coordinator.
    """
    try:
        return _given.validate_json(header)
    except ValidationError as error:
        raise BadFrame(_first_line(error)) from error


def hello(header: bytes) -> Hello:
    """
    Raises:
        BadFrame: it is no greeting.
    """
    try:
        return Hello.model_validate_json(header)
    except ValidationError as error:
        raise BadFrame(_first_line(error)) from error


def said(message: Progress | Finished | Failed) -> SaidProgress | SaidFinished | SaidFailed:
    """What a worker says of its attempt; a result's bytes are sent behind it."""
    match message:
        case Progress():
            return SaidProgress.model_validate(vars(message))
        case Finished(content=content, handover=handover):
            fields = {k: v for k, v in vars(message).items() if k not in ("content", "handover")}
            handover_bytes = None if handover is None else handover.nbytes
            return SaidFinished(**fields, content_bytes=content.nbytes, handover_bytes=handover_bytes)
        case Failed():
            return SaidFailed.model_validate({**vars(message), "message": message.message[:4096]})


def refusal(message: WorkerSaid, worker_id: str, orders: Mapping[str, Order]) -> str | None:
    """Why a worker may not say this, or None. ``orders`` are those it was given, by attempt."""
    match message:
        case SaidWorker(worker=worker):
            return _not_itself(worker, worker_id)
        case (
            SaidProgress(attempt_id=attempt_id)
            | SaidFailed(attempt_id=attempt_id)
            | SaidBring(attempt_id=attempt_id)
        ):
            return None if attempt_id in orders else f"{attempt_id[:80]!r} is no attempt of {worker_id}"
        case SaidFinished(attempt_id=attempt_id):
            if attempt_id not in orders:
                return f"{attempt_id[:80]!r} is no attempt of {worker_id}"
            return _not_of(message, orders[attempt_id].task)
        case SaidFetch(sha256=sha256):
            wanted = (blob.sha256 for order in orders.values() for blob in order.inputs.values())
            return None if sha256 in wanted else f"{worker_id} was given no input {sha256}"
        case SaidBroken() | SaidTelemetry() | SaidModels():
            return None


def max_content_bytes(task: RenderTask) -> int:
    """The largest lossless video of a task's frames."""
    return int(task.num_frames * task.height * task.width * 3 * _CONTENT_SLACK) + _CONTENT_EXTRA_BYTES


def max_handover_bytes(task: RenderTask) -> int:
    """The largest hand-over of a task."""
    return task.height * task.width * 3 * _HANDOVER_SLACK + _HANDOVER_EXTRA_BYTES


def _not_of(result: SaidFinished, task: RenderTask) -> str | None:
    if result.num_frames != task.num_frames:
        return f"a result of {result.num_frames} frames, {task.num_frames} were ordered"
    if result.content_bytes > max_content_bytes(task):
        return f"a video of {result.content_bytes} bytes, its frames cannot take {max_content_bytes(task)}"
    if (result.handover_bytes or 0) > max_handover_bytes(task):
        return f"a hand-over of {result.handover_bytes} bytes, at most {max_handover_bytes(task)} are taken"
    if (result.handover_bytes is None) != (result.handover_sha256 is None):
        return "a hand-over without its hash, or a hash of none"
    if (result.handover_bytes is None) != (task.handover_index is None):
        return "a hand-over that was not ordered, or none where one was"
    return None


def _not_itself(worker: Worker, worker_id: str) -> str | None:
    texts = [t for t in (worker.address, worker.device_name, worker.device_uuid, worker.driver) if t]
    price = worker.price_per_hour
    if worker.id != worker_id or worker_id.rpartition("/")[0] != worker.node:
        return f"{worker_id} calls itself {worker.id[:80]!r} of {worker.node[:80]!r}"
    if any(len(text) > 200 or _printable(text) != text for text in (*texts, worker.compute_capability or "")):
        return f"{worker_id} describes itself in what is no plain text"
    if not 0 < worker.vram_bytes < 2**53 or (price is not None and not 0 <= price < math.inf):
        return f"{worker_id} has {worker.vram_bytes} bytes at a price of {price}"
    return None


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return f"{where or 'it'}: {first['msg'][:200]}"
