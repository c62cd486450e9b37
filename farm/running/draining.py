"""Letting workers go, and taking them back.

A drained worker finishes what it has; then its process ends and its memory is free. It stays listed and comes
back when it is enabled, not with its machine or the coordinator: one that comes up by itself is let go again.
Between ``enable`` and its first word it is starting.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from farm.errors import NotFound
from farm.running.cluster import Cluster
from farm.state import Ledger, WorkerDraining, WorkerEnabled, WorkerLeft


class Draining:
    """``spawn`` runs what the cluster takes time for."""

    def __init__(
        self, cluster: Cluster, ledger: Ledger, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._spawn = spawn

    def drain(self, worker_id: str, *, leaving: bool) -> None:
        """Begin to let a worker go; ``leaving``: it is not kept in the list."""
        worker = self._ledger.state.workers.get(worker_id)
        self._check_known(worker_id)
        begins = worker_id in self._ledger.state.starting or (worker is not None and not worker.draining)
        no_longer_kept = leaving and (worker is None or not worker.leaving)
        if begins or no_longer_kept:
            self._ledger.record(WorkerDraining(worker_id=worker_id, leaving=leaving))
        self.let_go_if_drained(worker_id)

    def enable(self, worker_id: str) -> bool:
        """Take a drain back; False: there was none."""
        state = self._ledger.state
        worker = state.workers.get(worker_id)
        self._check_known(worker_id)
        if worker_id in state.starting or (worker is not None and not worker.draining):
            return False
        self._ledger.record(WorkerEnabled(worker_id=worker_id))
        self._cluster.enable(worker_id)
        if worker is None and not self._cluster.has_place(worker_id):
            self._ledger.record(WorkerLeft(worker_id=worker_id, reason="cannot start: its machine is gone"))
        return True

    def let_go_if_drained(self, worker_id: str) -> None:
        """End a draining worker that has nothing left to do."""
        worker = self._ledger.state.workers.get(worker_id)
        if worker and worker.draining and not worker.attempts:
            self._spawn(self._let_go(worker_id))

    async def _let_go(self, worker_id: str) -> None:
        worker = self._ledger.state.workers.get(worker_id)
        if worker and worker.draining and not worker.attempts:  # still: a drain can be taken back
            # At once: enabled before its process has ended, it must not be given a task.
            self._ledger.record(WorkerLeft(worker_id=worker_id, reason="was released"))
            await self._cluster.release(worker_id)

    def _check_known(self, worker_id: str) -> None:
        state = self._ledger.state
        if not any(worker_id in some for some in (state.workers, state.drained, state.starting)):
            raise NotFound(f"there is no worker {worker_id}; `farm nodes` lists them", param="worker_id")
