"""What a worker does with an order: load, render, check, pack. Knows nothing of Ray.

Frames are checked, packed and sent by a thread of their own while the next order renders. One segment at a
time is handed over: the next waits with its frames until that is done, so that no more than two are held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from farm.capabilities import Rung, Weights, Worker, gib
from farm.errors import FarmError
from farm.planning import Phase
from farm.running import Failed, Finished, Order, Progress, content_hash
from farm.state import FailureKind
from nodes.engines import Cancelled, Engine, OutOfMemory, Rendered, RenderInputs, Report, TextEngine
from nodes.engines.memory import peak_bytes, peak_rss_bytes, reset_peak, reset_peak_rss
from nodes.work.attempt_log import AttemptLog
from nodes.work.inputs import load_inputs
from nodes.work.output_check import InvalidOutput, check_output, frames_sha256, measured_fill
from stitching.video_io import encode_lossless

#: Progress closer together than this is not sent.
PROGRESS_INTERVAL_S = 0.2

Emit = Callable[[Progress | Finished | Failed], None]
#: A segment that waits for its turn to be handed over says so this often.
WAITING_INTERVAL_S = 10.0

#: Checks and packs what was rendered.
Pack = Callable[[], Finished]
T = TypeVar("T")
CreateEngine = Callable[[str, Worker, Weights], Engine]


class WorkerBody:
    """One accelerator's work, one order at a time. The model of the last order stays loaded."""

    def __init__(self, worker: Worker, create_engine: CreateEngine) -> None:
        self.worker = worker
        self._create_engine = create_engine
        self._engine: Engine | None = None
        #: What it was made of.
        self._engine_of: tuple[str, Weights] | None = None
        #: What the engine last loaded and still holds.
        self._rung: Rung | None = None
        #: Attempts whose end was not told yet.
        self._open: set[str] = set()
        #: Attempts to stop, among them ones that have not begun.
        self._cancelled: set[str] = set()
        #: Held by whatever is handed over.
        self._turn = threading.Semaphore(1)

    def run(self, order: Order, emit: Emit) -> None:
        """Carry out one order; ``emit`` hears progress and then exactly one end, which may come after this
        returns: the next order may be carried out meanwhile. Never raises."""
        self._open.add(order.attempt_id)
        log = AttemptLog()
        report = self._reporter(order, emit, log)
        log.note(_order_line(order, self.worker))
        pack = self._tried(order, log, lambda: self._in_turn(self._render(order, report), report))
        if isinstance(pack, Failed):
            self._end(emit, log, pack)
        else:
            name = f"hand-over {order.attempt_id}"
            threading.Thread(
                target=self._hand_over, args=(order, emit, log, pack), daemon=True, name=name
            ).start()

    def settle(self) -> None:
        """Wait until nothing is handed over any more."""
        with self._turn:
            pass

    def cancel(self, attempt_id: str | None) -> None:
        """Stop an attempt (None: whatever runs) at its next step; one that is still to come, at its first."""
        self._cancelled |= {attempt_id} if attempt_id else set(self._open)

    def is_cancelled(self, attempt_id: str) -> bool:
        """Whether an attempt is to be stopped that has not ended."""
        return attempt_id in self._cancelled

    def _tried(self, order: Order, log: AttemptLog, call: Callable[[], T]) -> T | Failed:
        """What a call returns, or how it failed, noted in the attempt's log."""

        def failed(kind: FailureKind, message: str) -> Failed:
            log.phase(None)
            log.note(f"{kind}: {message}", logging.INFO if kind == "cancelled" else logging.ERROR)
            return Failed(order.attempt_id, kind, message)

        with log.listening():
            try:
                return call()
            except Cancelled:
                return failed("cancelled", "taken back")
            except OutOfMemory as error:
                self._rung = None  # the engine let go of what it held
                return failed("oom", str(error))
            except InvalidOutput as error:
                return failed("invalid_output", str(error))
            except _Refused as error:
                return failed("cannot_start", str(error))
            except Exception as error:  # an engine may fail in any way; the worker lives on
                log.failed(error)
                return failed("error", f"{type(error).__name__}: {error}")

    def _in_turn(self, pack: Pack, report: Report) -> Pack:
        """Wait until what was rendered before is handed over, then tell that this is."""
        while not self._turn.acquire(timeout=WAITING_INTERVAL_S):
            report("decode", 1, 1)  # a sign of life
        try:
            report("transfer", 0, 1)
        except BaseException:
            self._turn.release()
            raise
        return pack

    def _hand_over(self, order: Order, emit: Emit, log: AttemptLog, pack: Pack) -> None:
        """What follows once the frames are there, beside the next order; in its turn."""
        try:
            end = self._tried(order, log, lambda: self._unless_cancelled(order, pack()))
            if isinstance(end, Finished):
                log.phase(None)
                peak = "unknown" if end.peak_bytes is None else gib(end.peak_bytes)
                log.note(
                    f"done: {end.num_frames} frames in {end.wall_s:.2f} s, peak {peak}, "
                    f"{len(end.content)} bytes"
                )
                end = replace(end, phases_s=dict(log.phases_s))
            self._end(emit, log, end)
        finally:
            self._turn.release()

    def _unless_cancelled(self, order: Order, finished: Finished) -> Finished:
        if order.attempt_id in self._cancelled:
            raise Cancelled
        return finished

    def _end(self, emit: Emit, log: AttemptLog, end: Finished | Failed) -> None:
        self._open.discard(end.attempt_id)
        self._cancelled.discard(end.attempt_id)
        emit(replace(end, log=log.text()))

    def _render(self, order: Order, report: Report) -> Pack:
        """Render an order; what is returned checks and packs the frames."""
        if order.need_bytes > self.worker.vram_bytes:
            raise _Refused(
                f"{self.worker.id} holds {gib(self.worker.vram_bytes)}, "
                f"the task needs {gib(order.need_bytes)}"
            )
        started = time.monotonic()
        report("load", 0, 1)
        engine = self._engine_for(order)
        if order.task.level == "text":
            return self._encode_prompts(order, engine, report, started)
        was_loaded = self._rung == order.rung
        self._rung = None
        try:
            engine.load(order.rung)
        except FarmError as error:
            raise _Refused(error.message) from error
        self._rung = order.rung
        load_s = 0.0 if was_loaded else time.monotonic() - started
        report("encode", 0, 1)
        self._reset_peak()
        inputs = load_inputs(order, engine.spec)
        rendered = engine.render(order.task, inputs, report)
        times = _Times(started, load_s, self._peak_bytes())
        return partial(_packed, order, inputs, rendered, times)

    def _encode_prompts(self, order: Order, engine: Engine, report: Report, started: float) -> Pack:
        """The prompts of a job, for whoever renders it: arrays by name, no frames."""
        if not isinstance(engine, TextEngine):
            raise _Refused(f"{order.task.model} does not encode prompts apart from its windows")
        self._rung = None  # the encoder takes the place of what was loaded
        self._reset_peak()
        arrays = engine.encode_prompts(order.task, order.rung, report)
        return partial(_packed_text, order, arrays, _Times(started, 0.0, self._peak_bytes()))

    def _engine_for(self, order: Order) -> Engine:
        """The engine of the order's model with its weights: another LoRA is another engine."""
        wanted = order.task.model, order.task.weights
        if self._engine is None or self._engine_of != wanted:
            if self._engine is not None:
                self._engine.unload()
                self._engine = self._rung = None
            try:
                self._engine = self._create_engine(order.task.model, self.worker, order.task.weights)
            except FarmError as error:
                raise _Refused(error.message) from error
            self._engine_of = wanted
        return self._engine

    def _reset_peak(self) -> None:
        if self.worker.kind == "cuda":
            reset_peak()
        else:
            reset_peak_rss()

    def _peak_bytes(self) -> int | None:
        if self.worker.kind == "cuda":
            return peak_bytes()
        return peak_rss_bytes()

    def _reporter(self, order: Order, emit: Emit, log: AttemptLog) -> Callable[[Phase, int, int], None]:
        sent: tuple[float, str] = (0.0, "")

        def report(phase: Phase, done: int, total: int) -> None:
            nonlocal sent
            if order.attempt_id in self._cancelled:
                raise Cancelled
            log.phase(phase)
            now = time.monotonic()
            if phase != sent[1] or now - sent[0] >= PROGRESS_INTERVAL_S:
                sent = (now, phase)
                emit(Progress(order.attempt_id, phase, done, total))

        return report


class _Times(NamedTuple):
    """Of an attempt, once its frames are there."""

    #: By the monotonic clock.
    started: float
    load_s: float
    peak_bytes: int | None


def _packed(order: Order, inputs: RenderInputs, rendered: Rendered, times: _Times) -> Finished:
    """A rendered window, checked and packed without loss.

    Raises:
        InvalidOutput: it is not what was ordered.
    """
    check_output(order.task, inputs, rendered)
    fill = measured_fill(order.task, inputs, rendered.frames)
    content = encode_lossless(rendered.frames, Fraction(order.task.fps).limit_denominator(1001))
    handover = safetensors.numpy.save(dict(rendered.handover)) if rendered.handover else None
    return Finished(
        attempt_id=order.attempt_id,
        content=memoryview(content),
        handover=None if handover is None else memoryview(handover),
        num_frames=len(rendered.frames),
        frames_sha256=frames_sha256(rendered.frames),
        content_sha256=content_hash(content),
        handover_sha256=None if handover is None else content_hash(handover),
        wall_s=time.monotonic() - times.started,
        load_s=times.load_s,
        peak_bytes=times.peak_bytes,
        fill=fill,
    )


def _packed_text(order: Order, arrays: Mapping[str, NDArray[np.generic]], times: _Times) -> Finished:
    """Encoded prompts, checked and packed.

    Raises:
        InvalidOutput: a value is not finite.
    """
    if not all(np.isfinite(a).all() for a in arrays.values() if np.issubdtype(a.dtype, np.floating)):
        raise InvalidOutput("the encoded prompt has values that are not finite")
    content = safetensors.numpy.save(dict(arrays))
    return Finished(
        attempt_id=order.attempt_id,
        content=memoryview(content),
        handover=None,
        num_frames=0,
        frames_sha256=content_hash(content),
        content_sha256=content_hash(content),
        handover_sha256=None,
        wall_s=time.monotonic() - times.started,
        load_s=times.load_s,
        peak_bytes=times.peak_bytes,
    )


def _order_line(order: Order, worker: Worker) -> str:
    task = order.task
    work = (
        f"{task.num_frames} frames from {task.frame_indices[0]}, {task.width}x{task.height}, "
        f"{task.num_inference_steps} steps"
        if task.frame_indices
        else "its prompts"
    )
    model = f"{task.model} with {task.weights}" if str(task.weights) else task.model
    return (
        f"{order.attempt_id} on {worker.id} ({worker.device_name}): {model}, {work}, "
        f"rung {order.rung}, need {gib(order.need_bytes)} of {gib(worker.vram_bytes)}"
    )


class _Refused(Exception):
    """The worker cannot begin this order; another may."""
