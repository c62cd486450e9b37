"""Who may join under which name, and how a node that leaves proves that it is that node."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from farm.errors import InvalidInput, NotAllowed, NotFound
from farm.running.coordinator import Coordinator
from farm.state import NodeAdmitted, NodeRemoved, NodeState, WorkerJoined

#: A name that was given to a machine is kept for it this long, until its workers come up.
JOINING_S = 60.0


class ClusterAccess(NamedTuple):
    """How machines reach the cluster, until Ray is started again."""

    #: host:port
    address: str
    token: str


class Membership:
    """What machines are told that join, leave, come back, or are removed."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        cluster: Callable[[], ClusterAccess],
        secret: str,
        versions: Mapping[str, str],
    ) -> None:
        """
        Args:
            coordinator: Of the farm.
            cluster: How machines reach the cluster now; raises CannotRun while they cannot.
            secret: The farm's own, which no machine is told: the tokens of machines are made with it.
            versions: What must be the same on every machine.
        """
        self._coordinator = coordinator
        self._cluster = cluster
        self._secret = secret
        self._versions = dict(versions)
        #: Names that were given out -> (until when they are kept, by the ledger's monotonic clock; its newest
        #: event then).
        self._joining: dict[str, tuple[float, int]] = {}

    def join(self, node: str, *, key_id: str = "") -> dict[str, Any]:
        """What a machine needs to join under this name. ``key_id``: of the key it showed, if it did.

        Raises:
            InvalidInput: the name is taken.
            CannotRun: Ray is just being started.
        """
        if self._coordinator.has_node(node):
            raise InvalidInput(f"a node called {node} is here already; choose another --name", param="node")
        if self._is_joining(node):
            raise InvalidInput(
                f"a node called {node} is joining just now; choose another --name, or try again in "
                f"{JOINING_S:.0f} s",
                param="node",
            )
        offer = self._offer(node)
        ledger = self._coordinator.ledger
        ledger.record(NodeAdmitted(node=node, key_id=key_id))
        self._joining[node] = (ledger.monotonic() + JOINING_S, ledger.last_seq)
        return offer

    def come_back(self, node: str, token: str) -> dict[str, Any] | None:
        """What a machine needs whose Ray has ended: the token may be another now. None: it is no member.

        Raises:
            CannotRun: Ray is just being started.
        """
        return self._offer(node) if self._is_of(node, token) else None

    def leave(self, node: str, token: str) -> list[str]:
        """As ``remove``, for a node that proves to be it.

        Raises:
            NotAllowed: the token is not this node's.
        """
        if not self._is_of(node, token):
            raise NotAllowed(f"the token is not that of node {node}")
        return self.let_go(node)

    def remove(self, node: str) -> set[str]:
        """Take a machine out for cause, at once. What it was given opens nothing any more.

        Its segments go to others, blamed on nobody.

        Returns:
            Ids of the keys it showed, and still has.

        Raises:
            NotFound: no machine of this name has joined.
            CannotRun: that cannot be written; nothing has happened.
        """
        state = self._coordinator.ledger.state
        member = state.nodes.get(node)
        if member is None:
            raise NotFound(f"no machine called {node} has joined; `farm nodes` lists them", param="node")
        key_ids = set(member.key_ids)
        self._coordinator.cluster.expel(node)
        self._joining.pop(node, None)
        for worker_id in self._worker_ids(node):
            self._coordinator.worker_down(worker_id, "was removed with its machine", "cancelled")
        self._coordinator.ledger.record(NodeRemoved(node=node))
        self._coordinator.dispatch()
        return key_ids

    def let_go(self, node: str) -> list[str]:
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

    def _offer(self, node: str) -> dict[str, Any]:
        cluster = self._cluster()
        return {
            "ray_address": cluster.address,
            "ray_token": cluster.token,
            "versions": self._versions,
            "node_token": self._node_token(node),
        }

    def _is_of(self, node: str, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._node_token(node).encode())

    def _node_token(self, node: str) -> str:
        """Good for this node and this farm alone, until the node is removed; it is kept nowhere."""
        removals = self._coordinator.ledger.state.nodes.get(node, NodeState()).num_removals
        return hmac.new(self._secret.encode(), f"node {removals} {node}".encode(), hashlib.sha256).hexdigest()
