"""The cluster over Ray: the coordinator's side of it, the driver, and the actor that is a worker.

Everything that imports Ray enters, and who drives it; the coordinator's side imports none.
"""

from __future__ import annotations

from nodes.ray.cluster import RayCluster
from nodes.ray.driver_process import Launch
from nodes.ray.protocol import Start

__all__ = ["Launch", "RayCluster", "Start"]
