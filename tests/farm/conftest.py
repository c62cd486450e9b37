"""Small farm values with sensible defaults, for the tests of the core."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import pytest

from farm.capabilities.engine_spec import EngineSpec, RungSpec, StageCost
from farm.capabilities.worker import GIB, Worker
from farm.planning.plan import Plan
from farm.planning.planner import plan
from farm.request.job import JobRequest
from farm.request.media import MediaInfo, VideoReading
from farm.state.changes import apply, refusal
from farm.state.events import (
    Artifact,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    FailureKind,
    JobSubmitted,
    SeamMeasured,
    TaskAssigned,
    WorkerJoined,
)
from farm.state.state import State

E = TypeVar("E")


class Make:
    """Builders. ``changes`` replace fields of a default that works."""

    def spec(self, **changes: Any) -> EngineSpec:
        """A model of three rungs that needs about 4.5, 3.5 and 2 GiB at 512x512 in windows of 8."""
        denoise = {"name": "denoise", "bytes_per_pixel": 256.0, "batch": 2}
        default: dict[str, Any] = {
            "model": "synthetic",
            "engine": "synthetic",
            "takes": frozenset({"image", "text", "video"}),
            "native_width": 512,
            "native_height": 512,
            "default_strength": 0.6,
            "default_guidance_scale": 9.0,
            "component_bytes": {"text": GIB, "unet": 2 * GIB},
            "context_bytes": GIB // 2,
            "rungs": (
                RungSpec(name="resident", resident=("text", "unet"), stages=(StageCost(**denoise),)),
                RungSpec(
                    name="evict",
                    stages=(
                        StageCost(name="encode", components=("text",)),
                        StageCost(**denoise, components=("unet",)),
                    ),
                    slowdown=1.2,
                ),
                RungSpec(name="stream", stages=(StageCost(**denoise, fixed_bytes=GIB // 2),), slowdown=3.0),
            ),
            "prior_seconds_per_mpixel_step": 1.0,
        }
        return EngineSpec(**(default | changes))

    def image(self, number: int = 0, *, width: int = 512, height: int = 512) -> MediaInfo:
        sha256 = f"{number:064x}"
        return MediaInfo(
            kind="image", width=width, height=height, num_frames=1, sha256=sha256, path=Path(sha256)
        )

    def video(
        self,
        num_frames: int,
        *,
        fps: Fraction = Fraction(24),
        width: int = 512,
        height: int = 512,
        **changes: Any,
    ) -> MediaInfo:
        sha256 = "f" * 64
        default: dict[str, Any] = {"reading": VideoReading()}
        return MediaInfo(
            kind="video",
            width=width,
            height=height,
            num_frames=num_frames,
            fps=fps,
            sha256=sha256,
            path=Path(sha256),
            **(default | changes),
        )

    def request(self, **changes: Any) -> JobRequest:
        return JobRequest(**({"inputs": (self.image(),), "model": "synthetic"} | changes))

    def plan(self, spec: EngineSpec | None = None, **changes: Any) -> Plan:
        return plan(self.request(**changes), self.spec() if spec is None else spec)

    def worker(self, worker_id: str, vram_gib: float = 8.0, **changes: Any) -> Worker:
        default = {
            "id": worker_id,
            "node": worker_id.split("/")[0],
            "kind": "cuda",
            "device_name": "a card",
            "vram_bytes": round(vram_gib * GIB),
        }
        return Worker(**(default | changes))

    def artifact(self, number: int = 0) -> Artifact:
        sha256 = f"{number:064x}"
        return Artifact(
            sha256=sha256, size_bytes=100, num_frames=8, frames_sha256=sha256, handover_sha256=sha256
        )

    def joined(self, *workers: Worker) -> list[Event]:
        return [WorkerJoined(worker=worker) for worker in workers]

    def submitted(self, job: str = "job", spec: EngineSpec | None = None, **request: Any) -> Event:
        """A job of independent segments unless asked otherwise."""
        spec = self.spec(random_access=True) if spec is None else spec
        asked = self.request(**request)
        return JobSubmitted(job_id=job, request=asked, plan=plan(asked, spec))

    def assigned(
        self, task: str, worker: str, *, attempt: int = 1, job: str = "job", **changes: Any
    ) -> Event:
        default = {
            "job_id": job,
            "task_id": task,
            "attempt_id": f"{job}/{task}/{attempt}",
            "worker_id": worker,
            "rung": "resident",
            "need_bytes": GIB,
            "predicted_s": 10.0,
            "why": "because",
        }
        return TaskAssigned(**(default | changes))

    def succeeded(self, task: str, *, attempt: int = 1, job: str = "job", **changes: Any) -> Event:
        default = {
            "job_id": job,
            "task_id": task,
            "attempt_id": f"{job}/{task}/{attempt}",
            "artifact": self.artifact(),
            "wall_s": 10.0,
            "load_s": 1.0,
            "peak_bytes": None,
        }
        return AttemptSucceeded(**(default | changes))

    def failed(
        self,
        task: str,
        kind: FailureKind = "error",
        *,
        attempt: int = 1,
        job: str = "job",
        message: str = "no",
    ) -> Event:
        return AttemptFailed(
            job_id=job, task_id=task, attempt_id=f"{job}/{task}/{attempt}", kind=kind, message=message
        )

    def measured(self, task: str, take: int, *failed_gates: str, job: str = "job") -> SeamMeasured:
        return SeamMeasured(
            job_id=job,
            task_id=task,
            take=take,
            report={"failed_gates": list(failed_gates)},
            passed=not failed_gates,
        )

    def state(self, events: Sequence[Event], *, now: float = 0.0) -> State:
        """The state after these events, all at one moment; every one of them must be legal."""
        return self.happen(State(), *events, now=now)

    def happen(self, state: State, *events: Event, now: float = 0.0) -> State:
        for event in events:
            assert refusal(state, event) is None, refusal(state, event)
            apply(state, event, now)
        return state


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


@pytest.fixture
def nothing_chosen() -> dict[str, Any]:
    """The command line's options where only the model is given."""
    return {
        "prompts": (),
        "negative_prompt": "",
        "model": "procedural",
        "mode": "auto",
        "seconds": None,
        "frames": None,
        "fps": None,
        "size": None,
        "fit": "crop",
        "audio": None,
        "window": None,
        "overlap": None,
        "steps": None,
        "guidance": None,
        "strength": None,
        "seed": 0,
        "priority": 50,
    }
