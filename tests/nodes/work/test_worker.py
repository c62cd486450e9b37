"""Whatever an engine does, a worker answers every order with exactly one end and lives on."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.numpy

from farm.capabilities.engine_spec import EngineSpec, Rung
from farm.capabilities.weights import Weights
from farm.capabilities.worker import GIB, Worker
from farm.errors import CannotRun, NotFound
from farm.planning.render_task import RenderTask
from farm.running.cluster import MAX_LOG_BYTES, Blob, Failed, Finished, Order, Progress
from nodes.engines.engine import OutOfMemory, Rendered, RenderInputs, Report
from nodes.engines.procedural.engine import Procedural
from nodes.work.attempt_log import AttemptLog
from nodes.work.output_check import frames_sha256
from nodes.work.worker import WorkerBody
from stitching.video_io import probe_video, read_frames

WORKER = Worker(id="a/0", node="a", kind="cpu", device_name="a CPU", vram_bytes=GIB)

Said = list[Progress | Finished | Failed]


def blob_of(path: Path) -> Blob:
    return Blob(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), path=path)


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Order]:
    image = np.random.default_rng(3).integers(60, 200, (48, 64, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), image)

    def make(number: int = 1, *, need_bytes: int = 0, **changes: Any) -> Order:
        default = {
            "model": "procedural",
            "frame_indices": tuple(range(5)),
            "shot_start": 0,
            "shot_end": 20,
            "height": 48,
            "width": 64,
            "fps": 30000 / 1001,
            "num_inference_steps": 1,
            "guidance_scale": 1.0,
            "seed": 0,
        }
        return Order(
            attempt_id=f"job/s0-0/{number}",
            worker_id="a/0",
            task=RenderTask.model_validate(default | changes),
            rung="resident",
            need_bytes=need_bytes,
            inputs={"image": blob_of(tmp_path / "photo.png")},
        )

    return make


class Acting(Procedural):
    """The real engine, with something done before it renders."""

    act: Callable[[Report], Rendered | None]

    def render(self, task: RenderTask, inputs: RenderInputs, report: Report) -> Rendered:
        return self.act(report) or super().render(task, inputs, report)


def body(act: Callable[[Report], Rendered | None] = lambda report: None) -> WorkerBody:
    engine = Acting()
    engine.act = act
    return WorkerBody(WORKER, lambda model, worker, weights: engine)


def run(worker: WorkerBody, order: Order) -> tuple[list[str], Finished | Failed]:
    """The phases that were reported, and the one end."""
    said: Said = []
    worker.run(order, said.append)
    worker.settle()
    *before, end = said
    assert isinstance(end, Finished | Failed)
    phases = []
    for message in before:
        assert isinstance(message, Progress)
        assert message.attempt_id == order.attempt_id
        phases.append(message.phase)
    assert end.attempt_id == order.attempt_id
    return phases, end


def plain(end: Progress | Finished | Failed) -> Progress | Finished | Failed:
    """The message without its log, whose times nobody can foretell."""
    return end if isinstance(end, Progress) else replace(end, log="")


def test_a_result_holds_the_frames_bit_for_bit_with_their_hash(order: Any, tmp_path: Path) -> None:
    _, end = run(body(), order())
    assert isinstance(end, Finished)
    path = tmp_path / "segment.mkv"
    path.write_bytes(end.content)
    frames = read_frames(path)
    assert frames.shape == (5, 48, 64, 3)
    assert (end.num_frames, end.frames_sha256) == (5, frames_sha256(frames))
    assert probe_video(path).fps == Fraction(30000, 1001)
    assert end.handover is None
    assert 0 <= end.load_s <= end.wall_s


def test_a_handover_comes_along_when_one_is_ordered(order: Any, tmp_path: Path) -> None:
    _, end = run(body(), order(handover_index=3))
    assert isinstance(end, Finished)
    assert end.handover is not None
    (tmp_path / "segment.mkv").write_bytes(end.content)
    image = safetensors.numpy.load(bytes(end.handover))["image"]
    assert np.array_equal(image, read_frames(tmp_path / "segment.mkv")[3])


def test_the_phases_come_in_order(order: Any) -> None:
    phases, _ = run(body(), order())
    assert phases == ["load", "encode", "denoise", "transfer"]


def test_the_same_order_gives_the_same_bytes(order: Any) -> None:
    ends = [run(body(), order())[1] for _ in range(2)]
    assert isinstance(ends[0], Finished)
    assert isinstance(ends[1], Finished)
    assert bytes(ends[0].content) == bytes(ends[1].content)


def raising(error: Exception) -> Callable[[Report], None]:
    def act(report: Report) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (raising(ZeroDivisionError("by zero")), "error", "ZeroDivisionError: by zero"),
        (raising(OutOfMemory("2 GiB more were wanted")), "oom", "2 GiB more were wanted"),
        (lambda report: Rendered(np.zeros((5, 48, 64, 3), np.uint8)), "invalid_output", "frame 0 is black"),
        (
            lambda report: Rendered(np.ones((4, 48, 64, 3), np.uint8)),
            "invalid_output",
            "got frames (4, 48, 64, 3) uint8, expected (5, 48, 64, 3) uint8",
        ),
    ],
    ids=["error", "oom", "black", "count"],
)
def test_every_way_to_fail_has_its_kind_and_the_worker_lives_on(
    order: Any, act: Any, kind: str, message: str
) -> None:
    worker = body(act)
    _, end = run(worker, order())
    assert plain(end) == Failed("job/s0-0/1", kind, message)  # type: ignore[arg-type]
    again, end = run(worker, order(2))
    assert again[0] == "load"
    assert isinstance(end, Failed)


def test_an_order_over_the_budget_is_refused_before_anything_is_loaded(order: Any) -> None:
    def no_engine(model: str, worker: Worker, weights: Weights) -> Any:
        raise AssertionError("an engine was made")

    phases, end = run(WorkerBody(WORKER, no_engine), order(need_bytes=GIB + 1))
    assert phases == []
    assert plain(end) == Failed("job/s0-0/1", "cannot_start", "a/0 holds 1.00 GiB, the task needs 1.00 GiB")


def test_an_unknown_model_or_one_that_cannot_be_loaded_is_no_fault_of_the_task(order: Any) -> None:
    def unknown(model: str, worker: Worker, weights: Weights) -> Any:
        raise NotFound(f"there is no model {model}")

    assert plain(run(WorkerBody(WORKER, unknown), order())[1]) == Failed(
        "job/s0-0/1", "cannot_start", "there is no model procedural"
    )

    class Unloadable(Procedural):
        def load(self, rung: Rung) -> None:
            raise CannotRun("the weights are not here")

    _, end = run(WorkerBody(WORKER, lambda model, worker, weights: Unloadable()), order())
    assert plain(end) == Failed("job/s0-0/1", "cannot_start", "the weights are not here")


def test_an_input_that_is_gone_is_an_error_with_its_name(order: Any, tmp_path: Path) -> None:
    asked = order()
    (tmp_path / "photo.png").unlink()
    _, end = run(body(), asked)
    assert isinstance(end, Failed)
    assert end.kind == "error"
    assert asked.inputs["image"].sha256[:12] in end.message


# Handing over.


def test_the_next_order_renders_while_a_segment_is_handed_over_and_waits_for_its_turn(order: Any) -> None:
    sent, rendering, go_on = threading.Event(), threading.Event(), threading.Event()
    said: Said = []

    def emit(message: Progress | Finished | Failed) -> None:
        if message.attempt_id.endswith("/1") and not isinstance(message, Progress):
            sent.set()
            assert go_on.wait(60)  # a slow network
        said.append(message)

    def act(report: Report) -> None:
        if sent.is_set():
            rendering.set()

    worker = body(act)
    worker.run(order(), emit)
    assert sent.wait(60)
    second = threading.Thread(target=worker.run, args=(order(2), emit))
    second.start()
    assert rendering.wait(60), "nothing waits for the network"
    second.join(0.05)
    assert second.is_alive(), "two segments are held, no more"
    assert [m.attempt_id for m in said if isinstance(m, Progress) and m.phase == "transfer"] == ["job/s0-0/1"]
    go_on.set()
    second.join()
    worker.settle()
    ends = [message for message in said if not isinstance(message, Progress)]
    assert [end.attempt_id for end in ends] == ["job/s0-0/1", "job/s0-0/2"]
    assert all(isinstance(end, Finished) for end in ends)


def test_a_segment_taken_back_while_it_is_packed_is_not_sent(order: Any, monkeypatch: Any) -> None:
    worker = body()

    def packed(*_: Any) -> bytes:
        worker.cancel(None)
        return b"frames"

    monkeypatch.setattr("nodes.work.worker.encode_lossless", packed)
    assert plain(run(worker, order())[1]) == Failed("job/s0-0/1", "cancelled", "taken back")
    monkeypatch.undo()
    assert isinstance(run(worker, order(2))[1], Finished)


# Its log.

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) (.*)")


def lines(end: Finished | Failed) -> list[tuple[str, str]]:
    """(level, text) of every line of an attempt's log, each of which has its time."""
    found = [LINE.fullmatch(line) for line in end.log.splitlines()]
    assert None not in found, end.log
    return [(line[1], line[2]) for line in found if line]


def test_the_log_tells_the_order_every_phase_with_its_seconds_and_the_peak(order: Any) -> None:
    _, end = run(body(), order(need_bytes=GIB // 2))
    first, *phases, last = lines(end)
    assert first == (
        "INFO",
        "job/s0-0/1 on a/0 (a CPU): procedural, 5 frames from 0, 64x48, 1 steps, "
        "rung resident, need 0.50 GiB of 1.00 GiB",
    )
    assert [text.split(":")[0] for _, text in phases] == ["load", "encode", "denoise", "transfer"]
    assert list(end.phases_s) == ["load", "encode", "denoise", "transfer"]
    assert all(re.fullmatch(r"[a-z]+: \d+\.\d\d s", text) for _, text in phases)
    assert isinstance(end, Finished)
    assert re.fullmatch(r"done: 5 frames in \d+\.\d\d s, peak (\d+\.\d\d GiB|unknown), \d+ bytes", last[1])


def test_the_log_has_what_libraries_warn_of_and_nothing_below(order: Any) -> None:
    def warn(report: Report) -> None:
        logging.getLogger("somelib.sub").warning("weights of %s are\nodd", "x")
        logging.getLogger("somelib.sub").info("chatter")

    _, end = run(body(warn), order())
    assert isinstance(end, Finished)
    told = [line for line in lines(end) if line[0] != "INFO"]
    assert told == [("WARNING", "somelib.sub: weights of x are"), ("WARNING", "odd")]
    assert [h for h in logging.getLogger().handlers if type(h).__module__ == AttemptLog.__module__] == []


def test_a_message_that_cannot_be_formatted_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    log = AttemptLog()
    with log.listening():
        record = logging.LogRecord("somelib", logging.ERROR, "lib.py", 1, "%d values", ("none",), None)
        logging.getLogger().handlers[-1].handle(record)
        log.note("went on")
    assert log.text().endswith("INFO went on\n")
    assert "somelib" not in log.text()
    assert "%d format" in capsys.readouterr().err


def test_workers_of_one_process_hear_their_own_libraries_only(order: Any) -> None:
    both = threading.Barrier(2, timeout=60)

    def warner(name: str) -> Callable[[Report], None]:
        def act(report: Report) -> None:
            both.wait()
            logging.getLogger("somelib").warning("from %s", name)
            both.wait()

        return act

    ends: dict[str, Finished | Failed] = {}

    def work(name: str) -> None:
        ends[name] = run(body(warner(name)), order())[1]

    threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, end in ends.items():
        assert [text for level, text in lines(end) if level == "WARNING"] == [f"somelib: from {name}"]


def test_the_log_of_an_attempt_that_raised_says_where(order: Any) -> None:
    _, end = run(body(raising(ZeroDivisionError("by zero"))), order())
    told = lines(end)
    assert told[-1] == ("ERROR", "error: ZeroDivisionError: by zero")
    assert any(level == "ERROR" and "in act" in text for level, text in told)


def test_a_log_that_grows_too_long_keeps_its_beginning_and_its_end(order: Any) -> None:
    def flood(report: Report) -> None:
        for number in range(3000):
            logging.getLogger("somelib").warning("line %d of many ü", number)
        logging.getLogger("somelib").warning("x" * 100_000)

    _, end = run(body(flood), order())
    assert 0.9 * MAX_LOG_BYTES < len(end.log.encode()) <= MAX_LOG_BYTES
    whole = end.log.splitlines()
    assert "rung resident" in whole[0]
    assert "done: 5 frames" in whole[-1]
    assert whole.count("... lines left out ...") == 1
    assert "line 0 of many" in end.log
    assert "line 2999 of many" in end.log


# Taking back.


class Encoding(Procedural):
    """The real engine, and prompts encoded to their lengths."""

    def encode_prompts(self, task: RenderTask, rung: Rung, report: Report) -> dict[str, Any]:
        report("encode", 1, 1)
        return {"prompt_embeds": np.full((1, 4), len(task.prompt) or np.nan, np.float32)}


def test_encoded_prompts_are_a_result_without_frames(order: Any) -> None:
    worker = WorkerBody(WORKER, lambda model, worker, weights: Encoding())
    asked = order(level="text", prompt="pan", frame_indices=())
    phases, end = run(worker, asked.model_copy(update={"inputs": {}}))
    assert isinstance(end, Finished), end
    assert phases == ["load", "encode", "transfer"]
    assert (end.num_frames, end.handover) == (0, None)
    assert safetensors.numpy.load(bytes(end.content))["prompt_embeds"].tolist() == [[3.0] * 4]
    assert hashlib.sha256(end.content).hexdigest() == end.content_sha256 == end.frames_sha256


@pytest.mark.parametrize(
    ("engine", "prompt", "kind"), [(Encoding, "", "invalid_output"), (Procedural, "pan", "cannot_start")]
)
def test_a_prompt_that_cannot_be_encoded_is_a_failure_with_its_kind(
    order: Any, engine: type[Procedural], prompt: str, kind: str
) -> None:
    worker = WorkerBody(WORKER, lambda model, worker, weights: engine())
    _, end = run(worker, order(level="text", prompt=prompt, frame_indices=()))
    assert isinstance(end, Failed)
    assert end.kind == kind


def test_another_lora_is_another_engine_and_the_same_one_stays_loaded(order: Any) -> None:
    made: list[str] = []

    def create(model: str, worker: Worker, weights: Weights) -> Procedural:
        made.append(str(weights))
        return Procedural(model)

    worker = WorkerBody(WORKER, create)
    a, b = (Weights.model_validate({"loras": [f"{name}.safetensors"]}) for name in "ab")
    for number, weights in enumerate((a, a, b, a, Weights())):
        _, end = run(worker, order(number, weights=weights))
        assert isinstance(end, Finished)
    assert made == ["LoRA a.safetensors", "LoRA b.safetensors", "LoRA a.safetensors", ""]


def test_a_cancelled_attempt_stops_at_its_next_step_and_the_next_order_runs(order: Any) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def wait(report: Report) -> None:
        if not begun.is_set():
            begun.set()
            assert cancelled.wait(60)
            report("denoise", 1, 9)
            raise AssertionError("went on after it was cancelled")

    worker = body(wait)
    said: Said = []
    thread = threading.Thread(target=worker.run, args=(order(), said.append))
    thread.start()
    assert begun.wait(60)
    worker.cancel("job/s0-0/9")  # another attempt: nothing happens to this one
    worker.cancel("job/s0-0/1")
    cancelled.set()
    thread.join()
    assert plain(said[-1]) == Failed("job/s0-0/1", "cancelled", "taken back")
    assert isinstance(run(worker, order(2))[1], Finished)


def test_an_attempt_cancelled_before_it_begins_is_not_rendered(order: Any) -> None:
    worker = body(raising(AssertionError("rendered")))
    worker.cancel("job/s0-0/2")
    assert plain(run(worker, order(2))[1]) == Failed("job/s0-0/2", "cancelled", "taken back")


def test_cancelling_whatever_runs_leaves_an_idle_worker_ready(order: Any) -> None:
    worker = body()
    worker.cancel(None)
    assert isinstance(run(worker, order())[1], Finished)


# Models.


def test_a_model_stays_loaded_until_another_is_ordered(order: Any) -> None:
    did: list[str] = []

    class Logged(Procedural):
        def __init__(self, model: str) -> None:
            super().__init__(model)
            did.append(f"make {model}")

        def unload(self) -> None:
            did.append(f"unload {self.spec.model}")

    worker = WorkerBody(WORKER, lambda model, worker, weights: Logged(model))
    for number, model in enumerate(("procedural", "procedural", "procedural-mild")):
        assert isinstance(run(worker, order(number, model=model))[1], Finished)
    assert did == ["make procedural", "unload procedural", "make procedural-mild"]


def test_loading_takes_no_time_where_the_model_is_loaded(order: Any) -> None:
    worker = body()
    load_s = []
    for number in range(2):
        _, end = run(worker, order(number))
        assert isinstance(end, Finished)
        load_s.append(end.load_s)
    assert load_s[0] > 0
    assert load_s[1] == 0.0, "or the farm would learn that loading takes no time"


def test_a_model_that_ran_out_of_memory_is_loaded_again(order: Any) -> None:
    failing = [False, True, False]

    def act(report: Report) -> None:
        if failing.pop(0):
            raise OutOfMemory("no room")

    worker = body(act)
    ends = [run(worker, order(number))[1] for number in range(3)]
    assert isinstance(ends[1], Failed)
    assert isinstance(ends[2], Finished)
    assert ends[2].load_s > 0


def test_a_worker_reports_memory_where_the_system_tells(order: Any) -> None:
    _, end = run(body(), order())
    assert isinstance(end, Finished)
    assert end.peak_bytes is None or end.peak_bytes > 1e6


def test_the_engines_of_the_tests_are_the_real_one() -> None:
    spec: EngineSpec = Acting().spec
    assert spec == Procedural().spec
