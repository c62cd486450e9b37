"""The ports on which the machines of a farm reach each other, beside the API's."""

from __future__ import annotations

import re

from farm.errors import InvalidInput
from farm.values import Value

#: Of the first ports, each has one purpose; the rest are for workers and for what Ray starts ahead of them.
NUM_FIXED = 9
#: Ray starts a process ahead for every worker, and drivers take one each.
MIN_WORKER_PORTS = 15


class Ports(Value):
    """TCP ports ``first`` to ``last`` of a machine."""

    first: int
    last: int

    @property
    def cluster(self) -> int:
        """Of Ray's GCS, on the head."""
        return self.first

    @property
    def link(self) -> int:
        """Where workers connect to the coordinator, on the head."""
        return self.first + 1

    @property
    def node_manager(self) -> int:
        return self.first + 2

    @property
    def object_manager(self) -> int:
        return self.first + 3

    @property
    def environment_agent(self) -> int:
        return self.first + 4

    @property
    def agent_http(self) -> int:
        return self.first + 5

    @property
    def agent_grpc(self) -> int:
        return self.first + 6

    @property
    def metrics(self) -> int:
        return self.first + 7

    @property
    def models(self) -> int:
        """Where machines get models from this one."""
        return self.first + 8

    @property
    def first_worker(self) -> int:
        return self.first + NUM_FIXED

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


DEFAULT_PORTS = Ports(first=8471, last=8599)


def parse_ports(text: str) -> Ports:
    """``8471-8599`` -> the ports.

    Raises:
        InvalidInput: it is no such range, or too small a one.
    """
    found = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", text)
    ports = Ports(first=int(found[1]), last=int(found[2])) if found else DEFAULT_PORTS
    enough = ports.last - ports.first + 1 >= NUM_FIXED + MIN_WORKER_PORTS
    if not found or not enough or ports.first < 1024 or ports.last > 65535:
        raise InvalidInput(
            f"ports is {text!r}, expected a range of at least {NUM_FIXED + MIN_WORKER_PORTS} above 1023, "
            f"such as {DEFAULT_PORTS}",
            param="ports",
        )
    return ports
