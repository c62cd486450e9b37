"""Who may join under which name, and how a node that leaves proves that it is that node."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from farm.errors import CannotRun, InvalidInput, NotAllowed, NotFound, TooManyRequests
from farm.machines import DEFAULT_PORTS, Ports
from farm.running.coordinator import Coordinator
from farm.running.reach import unreached
from farm.state import NodeAdmitted, NodeRemoved, NodeState, WorkerJoined

#: A name that was given to a machine is kept for it this long, until its workers come up.
JOINING_S = 60.0
#: Machines whose ports are looked at, at a time.
MAX_LOOKS = 4


class Reached(TypedDict):
    """Whether a machine and the farm reach each other."""

    #: The machine's, as the farm sees it.
    address: str
    #: Of the machine's ports that were named.
    unreached: list[int]
    #: The farm's, to be tried from over there.
    listening: list[int]
    #: All that the farm's machine may use.
    ports: str


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
        ports: Ports | None = DEFAULT_PORTS,
    ) -> None:
        """
        Args:
            coordinator: Of the farm.
            cluster: How machines reach the cluster now; raises CannotRun while they cannot.
            secret: The farm's own, which no machine is told: the tokens of machines are made with it.
            versions: What must be the same on every machine.
            ports: Of this machine; None: others do not reach it.
        """
        self._ports = ports
        self._num_looks = 0
        self._coordinator = coordinator
        self._cluster = cluster
        self._secret = secret
        self._versions = dict(versions)
        #: Names that were given out -> (until when they are kept, by the ledger's monotonic clock; its newest
        #: event then).
        self._joining: dict[str, tuple[float, int]] = {}

    def check_reachable(self) -> None:
        """
        Raises:
            CannotRun: other machines do not reach this farm.
        """
        if self._ports is None:
            raise CannotRun(
                "this farm is reached from its own machine alone, and no other can join it; start it with "
                "`farm up --listen ADDRESS`, an address of its machine on the network they share"
            )

    async def reach(self, address: str, ports: Collection[int], word: bytes) -> Reached:
        """Connect to these ports of a machine, and read ``word`` there: nobody learns of ports but their own.

        Raises:
            CannotRun: other machines do not reach this farm.
            TooManyRequests: others are being looked at.
        """
        self.check_reachable()
        assert self._ports is not None
        if self._num_looks >= MAX_LOOKS:
            raise TooManyRequests("other machines are joining; try again in some seconds", retry_after_s=5.0)
        self._num_looks += 1
        try:
            closed = await unreached(address, ports, word)
        finally:
            self._num_looks -= 1
        listening = (
            self._ports.cluster,
            self._ports.link,
            self._ports.node_manager,
            self._ports.object_manager,
        )
        return {
            "address": address,
            "unreached": closed,
            "listening": list(listening),
            "ports": str(self._ports),
        }

    def knows(self, node: str, token: str) -> bool:
        """Whether this is the token that the node was given when it joined, and has not lost."""
        return hmac.compare_digest(token.encode(), self._node_token(node).encode())

    def join(self, node: str, *, key_id: str = "", returning: bool = False) -> dict[str, Any]:
        """What a machine needs to join under this name.

        Args:
            node: The name.
            key_id: Of the key it showed, if it did.
            returning: It has proved that the name is its own; whatever is here under it is a shadow.

        Raises:
            CannotRun: other machines do not reach this farm, or Ray is just being started.
            InvalidInput: the name is taken.
        """
        self.check_reachable()
        if returning:
            return self._offer(node)
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

    def leave(self, node: str, token: str) -> list[str]:
        """As ``remove``, for a node that proves to be it.

        Raises:
            NotAllowed: the token is not this node's.
        """
        if not self.knows(node, token):
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

    def _node_token(self, node: str) -> str:
        """Good for this node and this farm alone, until the node is removed; it is kept nowhere."""
        removals = self._coordinator.ledger.state.nodes.get(node, NodeState()).num_removals
        return hmac.new(self._secret.encode(), f"node {removals} {node}".encode(), hashlib.sha256).hexdigest()
