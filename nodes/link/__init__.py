"""The connection between the coordinator and a worker: bytes of a schema that is parsed, never unpickled.

Framing, messages, proofs and both ends of the connection enter; what is decided about a message does not.
"""

from __future__ import annotations

from nodes.link.frames import (
    LENGTH,
    MAX_GREETING_BYTES,
    MAX_HEADER_BYTES,
    BadFrame,
    framed,
    header_bytes,
    is_proof,
    new_nonce,
    proof,
    watch_peer,
)
from nodes.link.listener import Connection, LinkBroken, Listener, Misbehaved
from nodes.link.messages import SaidBring, SaidModels
from nodes.link.worker_end import WorkerEnd, connect

__all__ = [
    "LENGTH",
    "MAX_GREETING_BYTES",
    "MAX_HEADER_BYTES",
    "BadFrame",
    "Connection",
    "LinkBroken",
    "Listener",
    "Misbehaved",
    "SaidBring",
    "SaidModels",
    "WorkerEnd",
    "connect",
    "framed",
    "header_bytes",
    "is_proof",
    "new_nonce",
    "proof",
    "watch_peer",
]
