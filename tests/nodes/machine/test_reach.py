"""Two machines that do not reach each other: what is said, and what opens it."""

from __future__ import annotations

import asyncio
import queue
import socket
from typing import Any

import pytest

from farm.errors import CannotRun, PortClosed
from farm.machines.ports import Ports
from farm.running.reach import still_unreached, unreached
from nodes.machine import reach
from nodes.machine.firewall import listed, opening
from nodes.machine.reach import Reach, answering, check, check_free, look, problems, way_watched

URL, HEAD, OWN = "http://10.0.0.1:8470", "10.0.0.1", "10.0.0.2"


def found(**changes: Any) -> Reach:
    fine = {
        "url": URL,
        "head": HEAD,
        "own": OWN,
        "seen": OWN,
        "head_ports": "8471-8599",
        "own_ports": "8471-8599",
    }
    return Reach(**(fine | changes))


#: what was found -> (what is said, the ports and the machine that the commands open; None: there are none)
LOOKS: list[tuple[Reach, list[tuple[str, tuple[str, str] | None]]]] = [
    (found(), []),
    (found(seen=None), [("does not let this machine in on port 8470", ("8470", OWN))]),
    (
        found(own_closed=(8473, 8474, 8479)),
        [
            (
                "cannot reach this machine, 10.0.0.2, on port 8473-8474, 8479: a firewall here",
                ("8471-8599", HEAD),
            )
        ],
    ),
    (
        found(head_closed=(8471,)),
        [("does not reach port 8471 of the farm's machine 10.0.0.1: a firewall there", ("8471-8599", OWN))],
    ),
    (
        found(head_closed=(8472,), own_closed=(8473,)),
        [
            ("does not reach port 8472", ("8471-8599", OWN)),
            ("cannot reach this machine", ("8471-8599", HEAD)),
        ],
    ),
    # No port of this machine could be found behind another's address: that is the one thing to say.
    (
        found(seen="192.168.1.7", own_closed=(8473,)),
        [("sees this machine as 192.168.1.7, and it is 10.0.0.2 here", None)],
    ),
]


@pytest.mark.parametrize(("look", "said"), LOOKS)
def test_what_keeps_two_machines_apart_is_named_with_what_opens_it(
    look: Reach, said: list[tuple[str, tuple[str, str] | None]]
) -> None:
    told = problems(look)
    assert len(told) == len(said)
    for problem, (words, opens) in zip(told, said, strict=True):
        assert words in problem.message
        assert (problem.commands if isinstance(problem, PortClosed) else None) == (opens and opening(*opens))


def test_every_usual_firewall_has_a_line_for_either_family() -> None:
    for address, family in (("10.0.0.1", "ip saddr 10.0.0.1"), ("fd00::1", "ip6 saddr fd00::1")):
        ufw, firewalld, nft, windows = opening("8471-8599", address)
        assert ufw == f"ufw: sudo ufw allow proto tcp from {address} to any port 8471:8599"
        assert f"source address={address} port port=8471-8599 protocol=tcp accept" in firewalld
        assert f"{family} tcp dport 8471-8599 accept" in nft
        assert windows.endswith(f"-RemoteAddress {address} -LocalPort 8471-8599")


def test_ports_are_listed_as_runs() -> None:
    assert listed([8475, 8471, 8473, 8474]) == "8471, 8473-8475"


def test_the_ports_answer_with_the_word_while_they_are_tried_and_are_free_again() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with answering("127.0.0.1", [port], b"word"):
        assert asyncio.run(unreached("127.0.0.1", [port], b"word")) == []
        with pytest.raises(CannotRun, match=f"port {port} of this machine is taken"):
            check_free("127.0.0.1", Ports(first=port, last=port))
    check_free("127.0.0.1", Ports(first=port, last=port))
    with socket.socket() as ray:  # which takes no port that somebody has just let go
        ray.bind(("127.0.0.1", port))


def test_ports_are_free_at_once_though_a_visitor_stays() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with socket.socket() as visitor:
        with answering("127.0.0.1", [port], b"word"):
            visitor.connect(("127.0.0.1", port))
            assert visitor.recv(4) == b"word"
        with socket.socket() as ray:
            ray.bind(("127.0.0.1", port))


def test_a_farm_that_is_not_up_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert look(url, Ports(first=8471, last=8599)).seen is None
    with pytest.raises(PortClosed, match="nothing answers at"):
        check(url, Ports(first=8471, last=8599))


def test_a_look_asks_the_farm_to_try_every_port_that_ray_will_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """The farm here reaches all but one, and one of its own is closed."""
    tried: list[int] = []

    class Farm:
        def __init__(self, url: str, token: None) -> None: ...

        def reach(self, ports: list[int], word: str) -> dict[str, Any]:
            tried.extend(asyncio.run(unreached("127.0.0.1", ports, bytes.fromhex(word))))
            return {"address": "127.0.0.1", "unreached": ports[:1], "listening": [1], "ports": "1-30"}

    monkeypatch.setattr(reach, "FarmClient", Farm)
    with socket.create_server(("127.0.0.1", 0)) as api:
        found = look(f"http://127.0.0.1:{api.getsockname()[1]}", Ports(first=29871, last=29899))
    assert tried == []
    assert (found.seen, found.own, found.own_closed) == ("127.0.0.1", "127.0.0.1", (29873,))
    assert (found.head_closed, found.head_ports, found.own_ports) == ((1,), "1-30", "29871-29899")


def test_a_port_that_is_closed_later_is_named_with_what_opens_it_and_so_is_its_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reach, "WAY_INTERVAL_S", 0.01)
    said: queue.Queue[str] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as kept, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ports = [kept.getsockname()[1], port]
        with way_watched("the farm's machine", "127.0.0.1", ports, OWN, said.put):
            server.close()
            lines = said.get(timeout=20).splitlines()
            assert f"does not reach port {port} of the farm's machine, 127.0.0.1, any more" in lines[0]
            assert [line.strip() for line in lines[1:]] == list(opening(str(port), OWN))
            with socket.create_server(("127.0.0.1", port)):
                assert said.get(timeout=20) == "the farm's machine is reached again"
    assert said.empty()


def test_one_that_does_not_answer_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[8472, 8473], [8473]]

    async def asked(host: str, ports: list[int]) -> list[int]:
        return answers.pop(0)

    monkeypatch.setattr("farm.running.reach.unreached", asked)
    assert asyncio.run(still_unreached("10.0.0.1", [8471, 8472, 8473])) == [8473]
    answers[:] = [[]]
    assert asyncio.run(still_unreached("10.0.0.1", [8471])) == []
