"""The range of ports on which machines reach each other."""

from __future__ import annotations

import pytest

from farm.errors import InvalidInput
from farm.machines.ports import DEFAULT_PORTS, NUM_FIXED, Ports, parse_ports


def test_every_purpose_has_a_port_of_its_own_before_those_of_workers() -> None:
    ports = parse_ports(str(DEFAULT_PORTS))
    assert ports == DEFAULT_PORTS
    fixed = [
        ports.cluster,
        ports.link,
        ports.node_manager,
        ports.object_manager,
        ports.environment_agent,
        ports.agent_http,
        ports.agent_grpc,
        ports.metrics,
        ports.models,
    ]
    assert fixed == list(range(ports.first, ports.first + NUM_FIXED))
    assert ports.first_worker == fixed[-1] + 1
    assert parse_ports(" 9000 - 9023 ") == Ports(first=9000, last=9023)


@pytest.mark.parametrize(
    "text", ["", "8471", "8599-8471", "8471-8480", "80-8599", "8471-70000", "a-b", "-1-8599"]
)
def test_what_is_no_range_or_too_small_a_one_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput, match="such as 8471-8599") as refused:
        parse_ports(text)
    assert refused.value.param == "ports"
