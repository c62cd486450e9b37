"""What a worker does with an order: load, render, check, pack. Knows nothing of Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import safetensors.numpy

from farm.capabilities import Rung, Weights, Worker, gib
from farm.errors import FarmError
from farm.planning import Phase
from farm.running import Failed, Finished, Order, Progress, content_hash
from farm.state import FailureKind
from nodes.engines import Cancelled, Engine, OutOfMemory, Report, TextEngine
from nodes.engines.memory import peak_bytes, peak_rss_bytes, reset_peak, reset_peak_rss
from nodes.work.attempt_log import AttemptLog
from nodes.work.inputs import load_inputs
from nodes.work.output_check import InvalidOutput, check_output, frames_sha256, measured_fill
from stitching.video_io import encode_lossless

#: Progress closer together than this is not sent.
PROGRESS_INTERVAL_S = 0.2

Emit = Callable[[Progress | Finished | Failed], None]
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
        self._current: str | None = None
        #: Attempts to stop, among them ones that have not begun.
        self._cancelled: set[str] = set()

    def run(self, order: Order, emit: Emit) -> None:
        """Carry out one order; ``emit`` hears progress and then exactly one end. Never raises."""
        self._current = order.attempt_id
        log = AttemptLog()
        with log.listening():
            end = self._attempt(order, emit, log)
        self._current = None
        self._cancelled.discard(order.attempt_id)
        emit(replace(end, log=log.text()))

    def cancel(self, attempt_id: str | None) -> None:
        """Stop an attempt (None: whatever runs) at its next step; one that is still to come, at its first."""
        stopped = attempt_id or self._current
        if stopped:
            self._cancelled.add(stopped)

    def is_cancelled(self, attempt_id: str) -> bool:
        """Whether an attempt is to be stopped that has not ended."""
        return attempt_id in self._cancelled

    def _attempt(self, order: Order, emit: Emit, log: AttemptLog) -> Finished | Failed:
        """The one end of an order, noted in its log."""

        def failed(kind: FailureKind, message: str) -> Failed:
            log.phase(None)
            log.note(f"{kind}: {message}", logging.INFO if kind == "cancelled" else logging.ERROR)
            return Failed(order.attempt_id, kind, message)

        log.note(_order_line(order, self.worker))
        try:
            finished = self._render(order, emit, log)
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
        log.phase(None)
        peak = "unknown" if finished.peak_bytes is None else gib(finished.peak_bytes)
        log.note(
            f"done: {finished.num_frames} frames in {finished.wall_s:.2f} s, peak {peak}, "
            f"{len(finished.content)} bytes"
        )
        return replace(finished, phases_s=dict(log.phases_s))

    def _render(self, order: Order, emit: Emit, log: AttemptLog) -> Finished:
        if order.need_bytes > self.worker.vram_bytes:
            raise _Refused(
                f"{self.worker.id} holds {gib(self.worker.vram_bytes)}, "
                f"the task needs {gib(order.need_bytes)}"
            )
        started = time.monotonic()
        report = self._reporter(order, emit, log)
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
        check_output(order.task, inputs, rendered)
        fill = measured_fill(order.task, inputs, rendered.frames)
        report("transfer", 0, 1)
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
            wall_s=time.monotonic() - started,
            load_s=load_s,
            peak_bytes=self._peak_bytes(),
            fill=fill,
        )

    def _encode_prompts(self, order: Order, engine: Engine, report: Report, started: float) -> Finished:
        """The prompts of a job, for whoever renders it: arrays by name, no frames."""
        if not isinstance(engine, TextEngine):
            raise _Refused(f"{order.task.model} does not encode prompts apart from its windows")
        self._rung = None  # the encoder takes the place of what was loaded
        self._reset_peak()
        arrays = engine.encode_prompts(order.task, order.rung, report)
        if not all(np.isfinite(a).all() for a in arrays.values() if np.issubdtype(a.dtype, np.floating)):
            raise InvalidOutput("the encoded prompt has values that are not finite")
        report("transfer", 0, 1)
        content = safetensors.numpy.save(dict(arrays))
        return Finished(
            attempt_id=order.attempt_id,
            content=memoryview(content),
            handover=None,
            num_frames=0,
            frames_sha256=content_hash(content),
            content_sha256=content_hash(content),
            handover_sha256=None,
            wall_s=time.monotonic() - started,
            load_s=0.0,
            peak_bytes=self._peak_bytes(),
        )

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
