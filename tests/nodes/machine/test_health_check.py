"""Whether a farm, or a machine of one, is well: what the health check of a container asks."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from farm.endpoint import Endpoint, write_endpoint
from nodes.machine import health_check, member
from nodes.machine.health_check import health, is_reached

URL = "http://10.0.0.1:8470"


class Answers:
    """What ``FarmClient`` asks: the farms at these URLs answer."""

    up: set[str]

    def __init__(self, url: str) -> None:
        self._url = url

    def is_up(self) -> bool:
        return self._url in self.up


@pytest.fixture(autouse=True)
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Answers]:
    Answers.up = {URL}
    monkeypatch.setattr(health_check, "FarmClient", Answers)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr("farm.endpoint._listening_users", lambda url: None)
    return Answers


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def is_member(state: Path, pid: int) -> None:
    """As `farm join` leaves it; a process whose command line names the folder is taken for its Ray."""
    here = member.Member(
        pid=pid, url=URL, node="attic", node_token="t", ray_address="10.0.0.1:8471", temp_dir=state / "rf"
    )
    (state / member.MEMBER_NAME).write_text(here.model_dump_json())


def test_a_farm_is_well_while_it_answers(state: Path, answers: type[Answers]) -> None:
    write_endpoint(state, Endpoint(url=URL, token="secret"))
    assert health(state).model_dump() == {"is_well": True, "text": f"the farm answers at {URL}"}
    answers.up = set()
    assert health(state).model_dump() == {"is_well": False, "text": f"the farm at {URL} does not answer"}


def test_where_nothing_was_started_nothing_is_well(state: Path) -> None:
    found = health(state)
    assert (found.is_well, found.text) == (False, "no farm is up here, and this machine is in none")


def test_a_machine_is_well_while_its_ray_runs_and_its_farm_answers(
    state: Path, answers: type[Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    rays = {"10.0.0.1:8471"}
    monkeypatch.setattr(health_check, "is_reached", lambda address: address in rays)
    monkeypatch.setattr(member, "process_alive", lambda pid, named: pid == os.getpid())
    is_member(state, os.getpid())
    assert health(state).model_dump() == {"is_well": True, "text": f"attic is in the farm at {URL}"}
    answers.up = set()
    assert health(state).text == f"attic does not reach its farm at {URL}"
    assert not health(state).is_well
    answers.up = {URL}
    rays.clear()  # the farm was started anew, elsewhere
    assert health(state).text == "attic does not reach Ray of its farm at 10.0.0.1:8471"
    assert not health(state).is_well
    rays.add("10.0.0.1:8471")
    is_member(state, 2**22 + 1)  # its Ray has ended: it waits for the farm
    assert not health(state).is_well


def test_a_damaged_word_of_the_farm_is_not_well(state: Path) -> None:
    (state / "endpoint.json").write_text("{")
    found = health(state)
    assert not found.is_well
    assert "endpoint.json cannot be read; remove it" in found.text


def test_a_port_where_somebody_listens_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert is_reached(address)
    assert not is_reached(address)
