"""Who may join under which name, and how a node that leaves proves that it is that node."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from farm.errors import InvalidInput, NotAllowed
from farm.running.coordinator import Coordinator
from farm.state import WorkerJoined

#: A name that was given to a machine is kept for it this long, until its workers come up.
JOINING_S = 60.0


class Membership:
    """What joining and leaving machines are told. ``secret`` is what members of the cluster share."""

    def __init__(
        self, coordinator: Coordinator, *, cluster_address: str, secret: str, versions: Mapping[str, str]
    ) -> None:
        self._coordinator = coordinator
        self._cluster_address = cluster_address
        self._secret = secret
        self._versions = dict(versions)
        #: Names that were given out -> (until when they are kept, by the ledger's monotonic clock; its newest
        #: event then).
        self._joining: dict[str, tuple[float, int]] = {}

    def join(self, node: str) -> dict[str, Any]:
        """What a machine needs to join under this name.

        Raises:
            InvalidInput: the name is taken.
        """
        if self._coordinator.has_node(node):
            raise InvalidInput(f"a node called {node} is here already; choose another --name", param="node")
        if self._is_joining(node):
            raise InvalidInput(
                f"a node called {node} is joining just now; choose another --name, or try again in "
                f"{JOINING_S:.0f} s",
                param="node",
            )
        ledger = self._coordinator.ledger
        self._joining[node] = (ledger.monotonic() + JOINING_S, ledger.last_seq)
        return {
            "ray_address": self._cluster_address,
            "ray_token": self._secret,
            "versions": self._versions,
            "node_token": self._node_token(node),
        }

    def leave(self, node: str, token: str) -> list[str]:
        """As ``remove``, for a node that proves to be it.

        Raises:
            NotAllowed: the token is not this node's.
        """
        if not hmac.compare_digest(token.encode(), self._node_token(node).encode()):
            raise NotAllowed(f"the token is not that of node {node}")
        return self.remove(node)

    def remove(self, node: str) -> list[str]:
        """Drain a node's workers and forget those that are not up; returns those that are still here."""
        self._joining.pop(node, None)
        state = self._coordinator.ledger.state
        off = (*state.drained.values(), *state.starting.values())
        for worker_id in (*self._worker_ids(node), *(worker.id for worker in off if worker.node == node)):
            self._coordinator.drain(worker_id, leaving=True)
        return self._worker_ids(node)

    def _is_joining(self, node: str) -> bool:
        """Whether another machine was given this name and has not come up yet."""
        ledger = self._coordinator.ledger
        now = ledger.monotonic()
        self._joining = {name: kept for name, kept in self._joining.items() if kept[0] > now}
        if node not in self._joining:
            return False
        since = ledger.journal.events(after=self._joining[node][1])
        return not any(isinstance(event, WorkerJoined) and event.worker.node == node for _, _, event in since)

    def _worker_ids(self, node: str) -> list[str]:
        return [w.worker.id for w in self._coordinator.ledger.state.workers.values() if w.worker.node == node]

    def _node_token(self, node: str) -> str:
        """Good for this node and this cluster alone, and nothing has to be remembered for it."""
        return hmac.new(self._secret.encode(), node.encode(), hashlib.sha256).hexdigest()
