"""What owners say of their machines: the cluster file, and the words of the command line.

Descriptions and their checks enter; what starts or reaches a machine lives in ``nodes``.
"""

from __future__ import annotations

from farm.machines.cluster_file import ClusterFile, HeadMachine, Machine, read_cluster_file
from farm.machines.options import (
    check_listen,
    check_pages,
    check_price,
    cpu_workers,
    limited,
    node_name,
    parse_bytes,
    parse_limits,
    shared_cpu,
)
from farm.machines.ports import DEFAULT_PORTS, Ports, parse_ports

__all__ = [
    "DEFAULT_PORTS",
    "ClusterFile",
    "HeadMachine",
    "Machine",
    "Ports",
    "check_listen",
    "check_pages",
    "check_price",
    "cpu_workers",
    "limited",
    "node_name",
    "parse_bytes",
    "parse_limits",
    "parse_ports",
    "read_cluster_file",
    "shared_cpu",
]
