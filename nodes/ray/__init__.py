"""The cluster over Ray: its actors, and the port of ``farm.running`` in front of them.

Everything that imports Ray enters, and nothing else.
"""

from __future__ import annotations

from nodes.ray.cluster import RayCluster, connect, disconnect, start_local, take_back_signals

__all__ = [
    "RayCluster",
    "connect",
    "disconnect",
    "start_local",
    "take_back_signals",
]
