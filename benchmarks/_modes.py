"""Carrying out a plan without Ray and without video files, for benchmarks/modes.py.

Inputs are made by the worker's own code (nodes/work/inputs.py), pixels by the engine, joins by the stitcher.
Only the container differs: segments are kept as plain arrays, the same pixels as lossless video, so PyAV is
not needed. A seam that fails its gates is kept and counted; the farm would render its segment again.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from farm.capabilities.engine_spec import EngineSpec, Mode
from farm.planning.plan import FrameRun, Plan, Segment
from farm.planning.planner import plan
from farm.planning.render_task import RenderTask
from farm.request.job import JobRequest
from farm.request.media import MediaInfo
from farm.running.cluster import Blob, Order, Role, SegmentFrame
from nodes.engines.engine import Frames, RenderInputs
from nodes.engines.memory.vram import use_expandable_segments
from nodes.engines.wan.engine import Wan
from nodes.engines.wan.spec import wan_spec
from nodes.work import inputs
from nodes.work.inputs import load_inputs
from nodes.work.output_check import check_output
from stitching import Stitcher


def _read_array(blob: Blob) -> Frames:
    return np.asarray(np.load(blob.path), np.uint8)


# Segments lie here as arrays, not as video.
inputs.read_segment = _read_array

Device = Literal["cpu", "cuda"]
IMAGE_NAME = "image.png"
#: A process that has not loaded its model by then is not waited for.
LOAD_LIMIT_S = 60.0
#: Segments of all the videos made at a time.
SCRATCH_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Asked:
    """What every video of a run has in common."""

    num_frames: int
    fps: int
    side: int


@dataclass(frozen=True)
class Form:
    """A mode, and how much windows share where that is not the model's own."""

    mode: Mode
    overlap_frames: int | None = None


def loaded(model: Path, device: Device, side: int) -> Wan:
    """The engine with its model on the device, and its kernels picked by a short render of each window."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    spec = wan_spec(model, model=model.name).on(device)
    engine = Wan(spec, source=model, device=device)
    engine.load("resident")
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    for window in spec.trained_windows[:2] if device == "cuda" else ():
        task = RenderTask(
            model=spec.model,
            prompt="warm up",
            frame_indices=tuple(range(window)),
            shot_start=0,
            shot_end=window,
            height=side,
            width=side,
            fps=spec.native_fps,
            num_inference_steps=2,
            guidance_scale=spec.default_guidance_scale,
            seed=0,
        )
        engine.render(task, RenderInputs(image=image), lambda *_: None)
    return engine


def planned(
    folder: Path, image: NDArray[np.uint8], prompt: str, form: Form, spec: EngineSpec, asked: Asked, seed: int
) -> Plan:
    """The farm's own plan for one image (H, W, 3), which is stored in the folder."""
    content = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    (folder / IMAGE_NAME).write_bytes(content)
    media = MediaInfo(
        kind="image",
        width=image.shape[1],
        height=image.shape[0],
        num_frames=1,
        sha256=hashlib.sha256(content).hexdigest(),
        path=folder / IMAGE_NAME,
    )
    request = JobRequest(
        inputs=(media,),
        prompts=(prompt,),
        model=spec.model,
        mode=form.mode,
        overlap_frames=form.overlap_frames,
        num_frames=asked.num_frames,
        fps=Fraction(asked.fps),
        width=asked.side,
        height=asked.side,
        seed=seed,
    )
    return plan(request, spec)


def _blob(path: Path) -> Blob:
    return Blob(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), path=path)


def order_of(plan: Plan, segment: Segment, folder: Path) -> Order:
    """What the coordinator sends a worker for this segment; whatever it depends on lies in the folder."""
    files: dict[Role | str, str] = {"image": IMAGE_NAME}
    if segment.handover_from:
        files["handover"] = f"{segment.handover_from}.safetensors"
    if segment.anchor_from:
        files["anchor"] = f"{segment.anchor_from}.safetensors"
    files |= {run.segment: f"{run.segment}.npy" for run in (*segment.sources, *segment.known)}
    indices = {s.id: s.frame_indices for s in plan.segments}

    def frames(runs: Sequence[FrameRun]) -> tuple[SegmentFrame, ...]:
        return tuple(
            SegmentFrame(segment=run.segment, position=at, frame_index=indices[run.segment][at])
            for run in runs
            for at in range(run.first, run.end)
        )

    return Order(
        attempt_id=f"job/{segment.id}/1",
        worker_id="here/0",
        task=plan.render_task(segment),
        rung="resident",
        need_bytes=0,
        inputs={role: _blob(folder / name) for role, name in files.items()},
        segment_frames=frames(segment.sources),
        known_frames=frames(segment.known),
    )


def render_segment(engine: Wan, plan: Plan, segment: Segment, folder: Path) -> float:
    """Render one segment into the folder, as a worker does. Returns its seconds, files included: of the clock
    with a card, of the processor without. Prompts are encoded by the first window that needs them.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    if segment.level == "text":
        return 0.0
    order = order_of(plan, segment, folder)
    given = load_inputs(order, engine.spec)
    rendered = engine.render(order.task, given, lambda *_: None)
    check_output(order.task, given, rendered)
    if rendered.handover:
        (folder / f"{segment.id}.safetensors").write_bytes(safetensors.numpy.save(dict(rendered.handover)))
    np.save(folder / f"{segment.id}.npy", rendered.frames)
    return clock() - started


class Join:
    """One video being joined from the segments of a folder, in order, as nodes/work/joiner.py does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._emitted: list[Frames] = []
        self._stitcher = Stitcher(self._emitted.append)
        #: Reports of the seams so far, as plain values.
        self.seams: list[dict[str, Any]] = []

    def add(self, segment: Segment) -> None:
        frames = np.load(self._folder / f"{segment.id}.npy")[: segment.end - segment.start]
        if segment.head == 0:
            self._stitcher.start(frames)
            return
        seam = self._stitcher.propose(frames, overlap=segment.head)
        self.seams.append(seam.report.to_json())
        self._stitcher.accept(seam)

    def finish(self, num_frames: int) -> Frames:
        """The whole video (F, H, W, 3)."""
        self._stitcher.finish()
        frames = np.concatenate(self._emitted)
        if len(frames) != num_frames:
            raise ValueError(f"joined {len(frames)} frames, expected {num_frames}")
        return frames


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for segments, in memory where the system has one."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > SCRATCH_BYTES
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as folder:
        yield Path(folder)


@dataclass
class Hand:
    """One process with a model of its own."""

    number: int
    gpu: int
    process: Any
    connection: Any
    ready: bool = False
    #: What it was last called with; None while it is idle.
    busy_with: Any = None
    called_at: float = 0.0


@dataclass(frozen=True)
class Heard:
    """``kind``: "ready", "done", "failed" or "died"; ``call`` is what the process was busy with."""

    hand: Hand
    kind: str
    value: Any
    call: Any
    seconds: float


@dataclass
class Crew:
    """Processes that carry out one call at a time, over so many GPUs in turn; all end with the ``with``."""

    model: Path
    device: Device
    processes: int
    gpus: int
    side: int
    hands: list[Hand] = field(default_factory=list)
    device_name: str = ""

    def __enter__(self) -> Crew:
        if self.device == "cuda":
            use_expandable_segments()
        spawn = multiprocessing.get_context("spawn")
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        cards = given.split(",") if given else [str(i) for i in range(self.gpus)]
        for number in range(self.processes):
            ours, theirs = spawn.Pipe()
            gpu = number % self.gpus
            # A process is started with the environment as it is at that moment.
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[gpu % len(cards)] if self.device == "cuda" else ""
            arguments = (theirs, self.model, self.device, self.side)
            process = spawn.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.hands.append(Hand(number, gpu, process, ours))
        if given is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = given
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hand in self.hands:
            hand.process.kill()
        for hand in self.hands:
            hand.process.join(5)

    def wait_until_loaded(self, limit_s: float = LOAD_LIMIT_S) -> None:
        """Until every process is ready or has died, or the limit has passed."""
        until = time.monotonic() + limit_s
        while any(not h.ready for h in self.hands) and time.monotonic() < until:
            for heard in self.hear(until - time.monotonic()):
                if heard.kind != "ready":
                    print(
                        f"process {heard.hand.number} {heard.kind}: {heard.value}",
                        file=sys.stderr,
                        flush=True,
                    )
        if not any(h.ready for h in self.hands):
            raise SystemExit("no process could load the model; see above for why")

    def call(self, hand: Hand, function: Callable[..., Any], *arguments: Any, about: Any) -> None:
        """Have an idle process compute ``function(engine, *arguments)``; the answer comes with ``about``."""
        hand.busy_with, hand.called_at = about, time.monotonic()
        with suppress(OSError):  # it has died, and will be heard of
            hand.connection.send((function, arguments))

    def dismiss(self, hand: Hand) -> None:
        hand.process.kill()
        self.hands.remove(hand)

    def facts(self) -> dict[str, Any]:
        """What the figures depend on."""
        return {"device": self.device_name, "torch": torch.__version__, "opencv": cv2.__version__}

    def idle(self) -> list[Hand]:
        return [h for h in self.hands if h.ready and h.busy_with is None]

    def hear(self, timeout_s: float, *others: Any) -> list[Heard]:
        """What has come in, waiting for it; ``others`` are connections that end the wait as well."""
        by_connection = {hand.connection: hand for hand in self.hands}
        heard = []
        connections: list[Any] = [*by_connection, *others]
        coming: list[Any] = multiprocessing.connection.wait(connections, max(timeout_s, 0.0))
        for connection in coming:
            if connection not in by_connection:
                continue
            hand = by_connection[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, OSError):
                kind, value = "died", "its process ended"
            if kind == "died":
                self.hands.remove(hand)
            elif kind == "ready":
                hand.ready, self.device_name = True, value
            heard.append(Heard(hand, kind, value, hand.busy_with, time.monotonic() - hand.called_at))
            hand.busy_with = None
        return heard


def _serve(connection: Any, model: Path, device: Device, side: int) -> None:
    try:
        engine = loaded(model, device, side)
        connection.send(("ready", torch.cuda.get_device_name() if device == "cuda" else "CPU"))
    except Exception:
        connection.send(("died", traceback.format_exc()))
        return
    while True:
        function, arguments = connection.recv()
        try:
            connection.send(("done", function(engine, *arguments)))
        except Exception:  # the next call may go well
            connection.send(("failed", traceback.format_exc()))
