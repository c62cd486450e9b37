"""This machine and its part in a cluster: its cards, its addresses, Ray's processes, joining and leaving.

What starts, finds or ends processes enters; Ray itself is not imported.
"""

from __future__ import annotations

from nodes.machine import member, ssh
from nodes.machine.addresses import allowed_hosts, how_to_join, own_addresses, reachable_address
from nodes.machine.head import ensure_head, head_pids, remembered_head, restart_head, spend_token, stop_head
from nodes.machine.health_check import health
from nodes.machine.host_cores import threads_per_worker
from nodes.machine.listeners import listening
from nodes.machine.member import versions
from nodes.machine.probe import probe, workers_here
from nodes.machine.ray_node import (
    ESSENTIAL_PROCESSES,
    MODELS_PORT_VARIABLE,
    NAMESPACE,
    OBJECT_STORE_BYTES,
    RESOURCE_PREFIX,
    WORKERS_VARIABLE,
    new_token,
    ray_environment,
)
from nodes.machine.reach import WAY_INTERVAL_S, look, lost_way, problems
from nodes.machine.session_folder import SessionFolder, new_session_folder, scratch_folder

__all__ = [
    "ESSENTIAL_PROCESSES",
    "MODELS_PORT_VARIABLE",
    "NAMESPACE",
    "OBJECT_STORE_BYTES",
    "RESOURCE_PREFIX",
    "WAY_INTERVAL_S",
    "WORKERS_VARIABLE",
    "SessionFolder",
    "allowed_hosts",
    "ensure_head",
    "head_pids",
    "health",
    "how_to_join",
    "listening",
    "look",
    "lost_way",
    "member",
    "new_session_folder",
    "new_token",
    "own_addresses",
    "probe",
    "problems",
    "ray_environment",
    "reachable_address",
    "remembered_head",
    "restart_head",
    "scratch_folder",
    "spend_token",
    "ssh",
    "stop_head",
    "threads_per_worker",
    "versions",
    "workers_here",
]
