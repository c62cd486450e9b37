"""What people are shown of machines and their workers. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

from typing_extensions import TypedDict

from farm.capabilities import DeviceKind, Worker
from farm.scheduling import explain
from farm.state import State, Telemetry, WorkerState

WorkerStatus = Literal["idle", "busy", "draining", "drained", "starting"]


class RunningTask(TypedDict):
    job_id: str
    task_id: str
    rung: str
    phase: str
    #: Of the denoising steps, 0 to 1.
    done_fraction: float
    started_at: float


class WorkerSummary(TypedDict):
    """One card, or one share of a CPU. What the machine does not tell is null."""

    id: str
    node: str
    address: str
    #: Its machine has joined, and can be removed; the coordinator's own has not.
    joined: bool
    kind: DeviceKind
    device_name: str
    #: What a task may hold.
    vram_bytes: int
    status: WorkerStatus
    draining: bool
    tasks: list[RunningTask]
    warm_model: str | None
    #: Models on its machine's disk, by name, with their bytes; not those that come with the farm. Null: not
    #: told.
    models: dict[str, int] | None
    #: Learned on this worker, per model: seconds per million pixels, frame and step at the resident rung.
    seconds_per_mpixel_step: dict[str, float]
    #: Why it has nothing to do; empty when it has.
    idle_because: str
    price_per_hour: float | None
    compute_capability: str | None
    driver: str | None
    #: Of the whole card, other programs included.
    vram_used_bytes: int | None
    vram_total_bytes: int | None
    #: Of the card, what other programs than the worker hold: what fits then is the less.
    vram_others_bytes: int | None
    #: Resident memory of the worker's process.
    memory_used_bytes: int | None
    #: 0 to 1: of the card, or of the cores a CPU worker may use.
    load: float | None
    temperature_c: float | None
    power_w: float | None
    #: When these were read, in seconds since the epoch.
    telemetry_at: float | None


class NodeSummary(TypedDict):
    """One machine."""

    name: str
    address: str
    #: The first of busy, idle, starting, draining, drained that one of its workers is.
    status: WorkerStatus
    workers: list[WorkerSummary]


def worker_ids(state: State) -> list[str]:
    """Of every worker, also those whose process is not up, in order."""
    return sorted((*state.workers, *state.drained, *state.starting))


def worker_summary_by_id(state: State, worker_id: str) -> WorkerSummary | None:
    """One worker, whether its process is up or not; None when there is none of that id."""
    return next(iter(summaries_of(state, [worker_id])), None)


def summaries_of(state: State, worker_ids: Collection[str]) -> list[WorkerSummary]:
    """Those of these workers that there are; the others are not looked at."""
    waiting = _Waiting(state, worker_ids)
    speeds = _speeds(state, worker_ids)
    found = []
    for worker_id in worker_ids:
        worker_state = state.workers.get(worker_id)
        off = state.drained.get(worker_id) or state.starting.get(worker_id)
        if worker_state is not None:
            found.append(_summary(state, worker_state, waiting, speeds[worker_id]))
        elif off is not None:
            found.append(_off_summary(state, off, speeds[worker_id]))
    return found


def _speeds(state: State, worker_ids: Collection[str]) -> dict[str, dict[str, float]]:
    """What was learned of each of these workers, by model."""
    found: dict[str, dict[str, float]] = {worker_id: {} for worker_id in worker_ids}
    for (worker_id, model), speed in state.profiles.seconds_per_unit.items():
        if worker_id in found:
            found[worker_id][model] = speed
    return found


def _off_summary(state: State, worker: Worker, speeds: dict[str, float]) -> WorkerSummary:
    """A worker whose process has ended after a drain, or is not up yet."""
    summary = _described(state, worker, Telemetry(worker.id), None, speeds)
    if worker.id in state.starting:
        summary["status"] = "starting"
        summary["idle_because"] = "its process is starting"
    else:
        summary["status"] = "drained"
        summary["idle_because"] = f"it is drained; `farm enable {worker.id}` brings it back"
    return summary


def workers_by_node(state: State) -> dict[str, list[str]]:
    """Ids of every machine's workers; names and ids in order."""
    known = (*(w.worker for w in state.workers.values()), *state.drained.values(), *state.starting.values())
    found: dict[str, list[str]] = {}
    for node, worker_id in sorted((worker.node, worker.id) for worker in known):
        found.setdefault(node, []).append(worker_id)
    return found


def node_summaries(state: State, workers: Mapping[str, Sequence[str]]) -> list[NodeSummary]:
    """These machines, each with these workers of it."""
    summaries = iter(summaries_of(state, [worker_id for ids in workers.values() for worker_id in ids]))
    return [node_summary(name, list(islice(summaries, len(ids)))) for name, ids in workers.items()]


def node_summary(name: str, workers: list[WorkerSummary]) -> NodeSummary:
    """One machine of its workers."""
    found = {worker["status"] for worker in workers}
    order: tuple[WorkerStatus, ...] = ("busy", "idle", "starting", "draining", "drained")
    status = next(status for status in order if status in found)
    return {"name": name, "address": workers[0]["address"], "status": status, "workers": workers}


def _summary(
    state: State, worker_state: WorkerState, waiting: _Waiting, speeds: dict[str, float]
) -> WorkerSummary:
    worker = worker_state.worker
    telemetry = worker_state.telemetry or Telemetry(worker.id)
    summary = _described(state, worker, telemetry, worker_state.telemetry_at, speeds)
    summary["draining"] = worker_state.draining
    summary["tasks"] = list(_running(state, worker_state))
    summary["warm_model"] = worker_state.warm_model
    if worker_state.models is not None:
        summary["models"] = {name: size for name, size in sorted(worker_state.models.items()) if size}
    if worker_state.draining:
        summary["status"] = "draining"
        summary["idle_because"] = "" if summary["tasks"] else "it is draining"
    elif summary["tasks"]:
        summary["status"] = "busy"
    else:
        summary["idle_because"] = waiting.why(worker.id)
    return summary


def _described(
    state: State,
    worker: Worker,
    telemetry: Telemetry,
    telemetry_at: float | None,
    speeds: dict[str, float],
) -> WorkerSummary:
    return {
        "id": worker.id,
        "node": worker.node,
        "address": worker.address,
        "joined": worker.node in state.nodes,
        "kind": worker.kind,
        "device_name": worker.device_name,
        "vram_bytes": worker.vram_bytes,
        "status": "idle",
        "draining": False,
        "tasks": [],
        "warm_model": None,
        "models": None,
        "seconds_per_mpixel_step": speeds,
        "idle_because": "",
        "price_per_hour": worker.price_per_hour,
        "compute_capability": worker.compute_capability,
        "driver": worker.driver,
        "vram_used_bytes": telemetry.vram_used_bytes,
        "vram_total_bytes": telemetry.vram_total_bytes,
        "vram_others_bytes": telemetry.vram_others_bytes,
        "memory_used_bytes": telemetry.memory_used_bytes,
        "load": telemetry.load,
        "temperature_c": telemetry.temperature_c,
        "power_w": telemetry.power_w,
        "telemetry_at": telemetry_at,
    }


def _running(state: State, worker_state: WorkerState) -> Iterator[RunningTask]:
    for job, task, attempt in state.running_on(worker_state):
        yield {
            "job_id": job.id,
            "task_id": task.id,
            "rung": attempt.rung,
            "phase": attempt.phase,
            "done_fraction": attempt.done_fraction,
            "started_at": attempt.started_at,
        }


class _Waiting:
    """Why these workers idle that do: what is waiting is looked at once for all of them."""

    def __init__(self, state: State, worker_ids: Collection[str]) -> None:
        self._state = state
        self._worker_ids = worker_ids
        self._said: dict[str, str] | None = None
        self._everyone = ""

    def why(self, worker_id: str) -> str:
        if self._said is None:
            self._said = self._look()
        return self._said.get(worker_id, self._everyone)

    def _look(self) -> dict[str, str]:
        """By worker, why it leaves the next segment; what holds for every worker goes to ``_everyone``."""
        running = [job for job in self._state.jobs.values() if job.status == "running"]
        if not running:
            self._everyone = "no job is running"
            return {}
        with_work = [job for job in running if job.ready]
        if not with_work:
            self._everyone = "every segment left is running, or waits for one that is"
            return {}
        workers = self._state.workers
        idle = [i for i in self._worker_ids if i in workers and not workers[i].attempts]
        job = max(with_work, key=lambda job: job.request.priority)
        task = job.tasks[job.order[job.ready[0]]]
        return {
            worker_id: f"another worker will finish segment {task.id} of {job.id} sooner"
            if why.startswith("can take it")
            else f"segment {task.id} of {job.id}: {worker_id} {why}"
            for worker_id, why in explain(self._state, job, task, idle).items()
        }
