"""This machine and its part in a cluster: its cards, its addresses, Ray's processes, joining and leaving.

What starts, finds or ends processes enters; Ray itself is not imported.
"""

from __future__ import annotations

from nodes.machine import member, ssh
from nodes.machine.addresses import allowed_hosts, how_to_join, is_loopback, own_addresses, reachable_address
from nodes.machine.head import ensure_head, stop_head
from nodes.machine.member import versions
from nodes.machine.probe import probe
from nodes.machine.ray_node import (
    NAMESPACE,
    OBJECT_STORE_BYTES,
    RESOURCE_PREFIX,
    WORKERS_VARIABLE,
    new_token,
    ray_environment,
    threads_per_worker,
    worker_resources,
)
from nodes.machine.session_folder import new_session_folder

__all__ = [
    "NAMESPACE",
    "OBJECT_STORE_BYTES",
    "RESOURCE_PREFIX",
    "WORKERS_VARIABLE",
    "allowed_hosts",
    "ensure_head",
    "how_to_join",
    "is_loopback",
    "member",
    "new_session_folder",
    "new_token",
    "own_addresses",
    "probe",
    "ray_environment",
    "reachable_address",
    "ssh",
    "stop_head",
    "threads_per_worker",
    "versions",
    "worker_resources",
]
