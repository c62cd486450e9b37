"""Routes of workers: what they do, letting them go, letting machines in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from typing_extensions import TypedDict

from dashboard.access import bearer_token
from dashboard.join_tokens import JoinTokens
from dashboard.schemas import DrainRequest, NodeRequest
from farm.coordinator import Coordinator
from farm.engine_spec import DeviceKind
from farm.errors import NotAllowed, NotFound
from farm.membership import Membership
from farm.schedule import explain
from farm.state import State, WorkerState


class RunningTask(TypedDict):
    job_id: str
    task_id: str
    rung: str
    phase: str
    #: Of the denoising steps, 0 to 1.
    done_fraction: float
    started_at: float


class WorkerSummary(TypedDict):
    id: str
    node: str
    address: str
    kind: DeviceKind
    device_name: str
    vram_bytes: int
    draining: bool
    tasks: list[RunningTask]
    warm_model: str | None
    #: Learned on this worker, per model: seconds per million pixels, frame and step at the resident rung.
    seconds_per_mpixel_step: dict[str, float]
    #: Why it has nothing to do; empty when it has.
    idle_because: str


def nodes_router(coordinator: Coordinator, join_tokens: JoinTokens, membership: Membership) -> APIRouter:
    """Routes under which machines and their workers are seen, come and go."""
    router = APIRouter(tags=["nodes"])
    state = coordinator.ledger.state

    @router.get("/nodes")
    async def nodes() -> list[WorkerSummary]:
        """Every worker, in the order of its id."""
        return [worker_summary(state, worker) for _, worker in sorted(state.workers.items())]

    @router.post("/drain")
    async def drain(wanted: DrainRequest) -> dict[str, list[str]]:
        """Let a worker, or all workers of a machine, finish what they have and go."""
        if wanted.worker_id is not None:
            worker_ids = [wanted.worker_id]
        else:
            worker_ids = [w.worker.id for w in state.workers.values() if w.worker.node == wanted.node]
        if not worker_ids:
            raise NotFound(f"there is no node {wanted.node}; `farm nodes` lists them", param="node")
        for worker_id in worker_ids:
            coordinator.drain(worker_id)
        return {"draining": sorted(worker_ids)}

    @router.post("/join-tokens", status_code=201)
    async def join_token() -> dict[str, str]:
        """A token with which one machine may join, within a day."""
        return {"token": join_tokens.create()}

    @router.post("/join")
    async def join_farm(
        wanted: NodeRequest, token: Annotated[str, Depends(_machine_token)]
    ) -> dict[str, Any]:
        """What a joining machine needs; the bearer is a join token, used up by this."""
        if not join_tokens.redeem(token):
            raise NotAllowed("the join token is wrong, used or too old; `farm join-token` makes a new one")
        return membership.join(wanted.node)

    @router.post("/leave")
    async def leave_farm(
        wanted: NodeRequest, token: Annotated[str, Depends(_machine_token)]
    ) -> dict[str, list[str]]:
        """Drain a node; the bearer is the node's own token. Asked again until no worker is left."""
        return {"workers": membership.leave(wanted.node, token)}

    return router


def _machine_token(request: Request) -> str:
    token = bearer_token(request.headers)
    if token is None:
        raise NotAllowed("a machine joins with a join token, and leaves with the one it was given then")
    return token


def worker_summary(state: State, worker_state: WorkerState) -> WorkerSummary:
    """One worker: what it is, what it does, how fast it was found to be, why it idles."""
    worker = worker_state.worker
    running = [(state.jobs[j].tasks[t], a, j) for a, (j, t) in worker_state.attempts.items()]
    return {
        "id": worker.id,
        "node": worker.node,
        "address": worker.address,
        "kind": worker.kind,
        "device_name": worker.device_name,
        "vram_bytes": worker.vram_bytes,
        "draining": worker_state.draining,
        "tasks": [
            {
                "job_id": job_id,
                "task_id": task.id,
                "rung": attempt.rung,
                "phase": attempt.phase,
                "done_fraction": attempt.done_fraction,
                "started_at": attempt.started_at,
            }
            for task, attempt_id, job_id in running
            for attempt in task.attempts
            if attempt.id == attempt_id
        ],
        "warm_model": worker_state.warm_model,
        "seconds_per_mpixel_step": {
            model: speed
            for (worker_id, model), speed in state.profiles.seconds_per_unit.items()
            if worker_id == worker.id
        },
        "idle_because": "" if running else _idle_because(state, worker_state),
    }


def _idle_because(state: State, worker_state: WorkerState) -> str:
    if worker_state.draining:
        return "it is draining"
    running = [job for job in state.jobs.values() if job.status == "running"]
    if not running:
        return "no job is running"
    with_work = [job for job in running if job.ready]
    if not with_work:
        return "every segment left is running, or waits for one that is"
    job = max(with_work, key=lambda job: job.request.priority)
    task = job.tasks[job.order[job.ready[0]]]
    why = explain(state, job, task)[worker_state.worker.id]
    if why.startswith("can take it"):
        return f"another worker will finish segment {task.id} of {job.id} sooner"
    return f"segment {task.id} of {job.id}: {worker_state.worker.id} {why}"
