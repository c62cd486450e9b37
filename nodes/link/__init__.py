"""The connection between the coordinator and a worker: bytes of a schema that is parsed, never unpickled.

Framing, messages, proofs and both ends of the connection enter; what is decided about a message does not.
"""

from __future__ import annotations

from nodes.link.listener import Connection, LinkBroken, Listener, Misbehaved
from nodes.link.worker_end import WorkerEnd, connect

__all__ = ["Connection", "LinkBroken", "Listener", "Misbehaved", "WorkerEnd", "connect"]
