"""A drained worker finishes what it has, ends, stays listed, and comes back when it is enabled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from farm.errors import NotFound
from farm.planning.render_task import RenderTask
from farm.state.events import TaskAssigned, WorkerDraining, WorkerEnabled, WorkerJoined, WorkerLeft
from farm.state.state import State
from nodes.engines.engine import Report
from nodes.work.local_cluster import LocalCluster

# The state.


def test_a_drained_worker_is_listed_when_its_process_has_ended(make: Any) -> None:
    worker = make.worker("a/0")
    state = make.state([*make.joined(worker), WorkerDraining(worker_id="a/0")])
    assert (state.workers["a/0"].draining, state.drained) == (True, {})
    make.happen(state, WorkerLeft(worker_id="a/0", reason="was released"))
    assert (state.workers, state.drained) == ({}, {"a/0": worker})


def test_a_worker_whose_machine_leaves_is_not_listed(make: Any) -> None:
    state = make.state([*make.joined(make.worker("a/0")), WorkerDraining(worker_id="a/0", leaving=True)])
    make.happen(state, WorkerLeft(worker_id="a/0", reason="was released"))
    assert (state.workers, state.drained) == ({}, {})


def drained(make: Any) -> State:
    events = WorkerDraining(worker_id="a/0"), WorkerLeft(worker_id="a/0", reason="was released")
    state: State = make.state([*make.joined(make.worker("a/0")), *events])
    return state


def test_a_drained_worker_that_comes_up_by_itself_is_still_draining(make: Any) -> None:
    state = make.happen(drained(make), WorkerJoined(worker=make.worker("a/0", 16)))
    assert (state.workers["a/0"].draining, state.drained) == (True, {})
    make.happen(state, WorkerLeft(worker_id="a/0", reason="was released"))
    assert state.drained == {"a/0": make.worker("a/0", 16)}, "as it last was"


def test_an_enabled_worker_may_come_and_work(make: Any) -> None:
    worker = make.worker("a/0")
    state = make.happen(drained(make), WorkerEnabled(worker_id="a/0"))
    assert (state.drained, state.starting) == ({}, {"a/0": worker}), "listed until its process is up"
    make.happen(state, WorkerJoined(worker=worker))
    assert (state.drained, state.starting) == ({}, {})
    assert not state.workers["a/0"].draining


def test_a_worker_that_is_starting_may_be_drained_leave_or_not_come(make: Any) -> None:
    def starting() -> State:
        state: State = make.happen(drained(make), WorkerEnabled(worker_id="a/0"))
        return state

    state = make.happen(starting(), WorkerDraining(worker_id="a/0"))
    assert (set(state.drained), state.starting) == ({"a/0"}, {})
    for gone in (WorkerDraining(worker_id="a/0", leaving=True), WorkerLeft(worker_id="a/0", reason="gone")):
        state = make.happen(starting(), gone)
        assert (state.workers, state.drained, state.starting) == ({}, {}, {})


def test_a_machine_that_leaves_takes_its_drained_workers_off_the_list(make: Any) -> None:
    state = make.happen(drained(make), WorkerDraining(worker_id="a/0", leaving=True))
    assert state.drained == {}


# The farm.


async def gone(farm: Any) -> None:
    await farm.until(lambda: not farm.ledger.state.workers)


async def test_an_idle_worker_that_is_drained_goes_at_once_and_comes_back_enabled(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        state = farm.ledger.state
        await farm.until(lambda: state.workers)
        farm.coordinator.drain("a/0")
        await gone(farm)
        assert set(state.drained) == {"a/0"}
        farm.coordinator.drain("a/0")  # it is already
        assert len(farm.events(WorkerDraining)) == 1
        farm.coordinator.enable("a/0")
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        assert job.status == "succeeded"
        assert state.drained == {}


async def test_a_drain_that_has_not_ended_is_taken_back(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any, held: Any
) -> None:
    async with run_farm("a/0", engine=trouble(held)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=13))
        await farm.until(held.begun.is_set)
        farm.coordinator.drain("a/0")
        farm.coordinator.enable("a/0")
        farm.coordinator.enable("a/0")  # it is already
        held.go_on.set()
        job = await farm.ended(job_id)
        assert job.status == "succeeded"
        assert farm.events(WorkerLeft) == []
        assert len(farm.events(WorkerEnabled)) == 1


async def test_an_idle_worker_drained_and_enabled_in_one_breath_is_still_here(run_farm: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        farm.coordinator.enable("a/0")
        await asyncio.sleep(0.05)
        assert not farm.ledger.state.workers["a/0"].draining
        assert farm.events(WorkerLeft) == []


async def test_a_drained_worker_stays_drained_when_the_coordinator_starts_again(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        await gone(farm)
    async with run_farm("a/0") as farm:  # its machine still offers it
        state = farm.ledger.state
        await farm.until(lambda: len(farm.events(WorkerLeft)) == 2)
        assert (state.workers, set(state.drained)) == ({}, {"a/0"})
        farm.coordinator.enable("a/0")
        job = await farm.ended(farm.coordinator.submit(job_request(photo(), num_frames=8)))
        assert job.status == "succeeded"


async def test_a_worker_that_was_draining_goes_when_the_coordinator_starts_again(
    run_farm: Any, photo: Any, job_request: Any, trouble: Any
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(worker: str, task: RenderTask, report: Report) -> None:
        begun.set()
        while not go_on.is_set():
            report("denoise", 0, 1)

    async with run_farm("a/0", engine=trouble(wait)) as farm:
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(begun.is_set)
        farm.coordinator.drain("a/0")
    go_on.set()
    async with run_farm("a/0", "b/0") as farm:
        assert set(farm.ledger.state.drained) == {"a/0"}
        job = await farm.ended(job_id)
        assert {a.worker_id for a in job.tasks["s0-0"].attempts if a.outcome == "succeeded"} == {"b/0"}
        await farm.until(lambda: set(farm.ledger.state.workers) == {"b/0"})
        assert set(farm.ledger.state.drained) == {"a/0"}


class CannotRelease(LocalCluster):
    """Remembers who was enabled, and loses the word to release."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.enabled: list[str] = []

    async def release(self, worker_id: str) -> None:
        """It stays."""

    def enable(self, worker_id: str) -> None:
        self.enabled.append(worker_id)
        super().enable(worker_id)


async def test_the_cluster_hears_of_every_enabled_worker_and_of_no_other(run_farm: Any) -> None:
    async with run_farm("a/0", "b/0", cluster=CannotRelease) as farm:
        await farm.until(lambda: len(farm.ledger.state.workers) == 2)
        farm.coordinator.drain("a/0")
        farm.coordinator.enable("a/0")
        farm.coordinator.enable("b/0")
        assert farm.cluster.enabled == ["a/0"]


async def test_a_worker_enabled_while_its_process_ends_gets_nothing_before_it_is_back(
    run_farm: Any, photo: Any, job_request: Any
) -> None:
    async with run_farm("a/0", cluster=CannotRelease) as farm:
        state = farm.ledger.state
        await farm.until(lambda: state.workers)
        farm.coordinator.drain("a/0")
        await farm.until(lambda: state.drained)  # the cluster has not heard of its end
        farm.coordinator.enable("a/0")
        farm.coordinator.submit(job_request(photo(), num_frames=8))
        assert set(state.starting) == {"a/0"}
        assert farm.events(TaskAssigned) == []


async def test_a_worker_whose_machine_is_gone_is_not_said_to_be_starting(run_farm: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        await farm.until(lambda: farm.ledger.state.drained)
    async with run_farm() as farm:
        state = farm.ledger.state
        farm.coordinator.enable("a/0")
        assert (state.drained, state.starting) == ({}, {})
        farm.cluster.add(farm.events(WorkerJoined)[0].worker)
        await farm.until(lambda: state.workers)
        assert not state.workers["a/0"].draining, "it comes back with its machine"


async def test_a_worker_that_was_starting_is_off_the_list_when_the_coordinator_starts_again(
    run_farm: Any,
) -> None:
    async with run_farm("a/0", cluster=CannotRelease) as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        await farm.until(lambda: farm.ledger.state.drained)
        farm.coordinator.enable("a/0")
    async with run_farm() as farm:
        assert farm.ledger.state.starting == {}
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        assert not farm.ledger.state.workers["a/0"].draining


async def test_an_unknown_worker_is_said(run_farm: Any) -> None:
    async with run_farm() as farm:
        for act in (farm.coordinator.drain, farm.coordinator.enable):
            with pytest.raises(NotFound, match="there is no worker x/0; `farm nodes` lists them"):
                act("x/0")
