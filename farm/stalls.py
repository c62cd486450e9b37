"""Attempts that give no sign of life are taken from their workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from farm.retry import stall_limit_s

if TYPE_CHECKING:
    from farm.coordinator import Coordinator

CHECK_INTERVAL_S = 1.0


async def watch_for_stalls(coordinator: Coordinator) -> None:
    """Kill workers that were silent for too long, until cancelled."""
    state = coordinator.ledger.state
    while True:
        await asyncio.sleep(CHECK_INTERVAL_S)
        now = coordinator.clock()
        for worker_id, worker in list(state.workers.items()):
            for found in map(state.find, list(worker.attempts)):
                if found is None or not found[2].running:
                    continue
                attempt = found[2]
                silent_s = now - attempt.heard_at
                if silent_s > stall_limit_s(attempt.phase, attempt.predicted_s):
                    coordinator.cluster.kill(worker_id)
                    reason = f"was silent for {silent_s:.0f} s in {attempt.phase}"
                    coordinator.worker_down(worker_id, reason, "stalled")
        coordinator.dispatch()
