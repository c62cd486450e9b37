"""Attempts that give no sign of life are taken from their workers."""

from __future__ import annotations

import asyncio
from typing import Protocol

from farm.running.cluster import Cluster, Message, Progress
from farm.scheduling import stall_limit_s
from farm.state import FailureKind, Ledger, Telemetry

CHECK_INTERVAL_S = 1.0


class Dispatcher(Protocol):
    """Told which workers went down; gives their work to others."""

    def worker_down(self, worker_id: str, reason: str, kind: FailureKind = "lost") -> None: ...

    def dispatch(self) -> None: ...


def is_quiet(message: Message) -> bool:
    """Whether the schedule can wait for the watch, which asks every second: nobody is free by it, or gone."""
    told = isinstance(message, Progress) and message.phase != "transfer"  # with that a worker is free
    return told or isinstance(message, Telemetry)


async def watch_for_stalls(cluster: Cluster, ledger: Ledger, dispatcher: Dispatcher) -> None:
    """Kill workers that were silent for too long, until cancelled."""
    state = ledger.state
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        now = ledger.monotonic()
        for worker_id, worker in list(state.workers.items()):
            for found in map(state.find, list(worker.attempts)):
                if found is None or not found[2].running:
                    continue
                attempt = found[2]
                silent_s = now - attempt.heard_at
                if silent_s > stall_limit_s(attempt.phase, attempt.predicted_s):
                    cluster.kill(worker_id)
                    reason = f"was silent for {silent_s:.0f} s in {attempt.phase}"
                    dispatcher.worker_down(worker_id, reason, "stalled")
        dispatcher.dispatch()
