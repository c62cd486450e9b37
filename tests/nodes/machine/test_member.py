"""A machine that has joined stays in the farm, whatever ends its Ray, until it leaves."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun, NotAllowed
from nodes.machine import member
from nodes.machine.member import Joined, Member

#: No process has it (kernel.pid_max is at most 2**22).
NOBODY = 2**22 + 1


class EndedRay:
    """A ``ray start`` that has ended; ``before`` runs when it is waited for."""

    pid = NOBODY

    def __init__(self, before: Callable[[], Any] = lambda: None) -> None:
        self.wait = before


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Joined:
    monkeypatch.setattr(member, "RETURN_INTERVAL_S", 0.01)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    return Joined(
        url="http://127.0.0.1:1", node="attic", node_token="t", address="127.0.0.1",
        ray_address=f"127.0.0.1:{port}", ray_token="r", workers=(), state=tmp_path,
    )  # fmt: skip


def is_member(joined: Joined, pid: int = NOBODY) -> None:
    told = Member(pid=pid, url=joined.url, node="attic", node_token="t", temp_dir=joined.state / "rf" / "ray")
    (joined.state / member.MEMBER_NAME).write_text(told.model_dump_json())


def test_a_ray_that_ended_is_started_again_until_the_machine_leaves(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    told: list[tuple[str, ...]] = []

    def as_it_is_now(self: Any, *shown: str) -> dict[str, str]:
        told.append(shown)
        if len(told) == 1:
            raise CannotRun("the farm is on its way up")
        return {"ray_address": joined.ray_address, "ray_token": f"r{len(told)}"}

    def begin(self: Joined) -> EndedRay:
        begun.append(self.ray_token)
        if len(begun) == 1:
            raise CannotRun("the head is on its way up")
        is_member(self)
        if len(begun) < 4:
            return EndedRay()
        return EndedRay(lambda: (self.state / member.MEMBER_NAME).unlink())  # `farm leave`

    monkeypatch.setattr(member.FarmClient, "join", as_it_is_now)
    monkeypatch.setattr(Joined, "begin", begin)
    is_member(joined)
    said: list[str] = []
    host, port = joined.ray_address.split(":")
    with socket.create_server((host, int(port))):
        joined.stay(EndedRay(), said.append)  # type: ignore[arg-type]
    assert set(told) == {("t", "attic")}, "it shows its own token"
    assert begun == ["r2", "r3", "r4", "r5"], "Ray's token may be another each time"
    assert [line.split(";")[0] for line in said] == ["Ray has ended", "attic is in the farm again"] * 3


def test_a_machine_that_was_removed_does_not_come_back_and_says_so(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise NotAllowed("no such token")

    monkeypatch.setattr(member.FarmClient, "join", refuse)
    is_member(joined)
    with pytest.raises(NotAllowed, match="attic was removed from the farm at"):
        joined.stay(EndedRay(), lambda line: None)  # type: ignore[arg-type]


def test_a_farm_that_does_not_come_back_ends_the_membership(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "RETURN_TIMEOUT_S", 0.05)
    is_member(joined)
    with pytest.raises(CannotRun, match="is gone; `farm join` again"):
        joined.stay(EndedRay(), lambda line: None)  # type: ignore[arg-type]


def test_a_machine_whose_ray_runs_is_in_its_farm(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "process_alive", lambda pid, word: pid == os.getpid())
    is_member(joined, os.getpid())
    assert member.current(joined.state)
    assert not member.was_lost(joined.state)


def test_a_farm_of_one_machine_is_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member.FarmClient, "join", lambda *_: {"node_token": "t"})
    with pytest.raises(CannotRun, match="farm up --listen"):
        member.join("http://127.0.0.1:1", "token", node="attic", describe=lambda _: [], state=tmp_path)


def test_a_machine_that_cannot_start_gives_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[tuple[str, str]] = []

    class Client:
        def __init__(self, url: str, token: str | None) -> None: ...

        def join(self, token: str, node: str) -> dict[str, Any]:
            return {"versions": {"ray": "1.0"}, "node_token": "its own"}

        def leave(self, node: str, node_token: str) -> list[str]:
            left.append((node, node_token))
            return []

    monkeypatch.setattr(member, "FarmClient", Client)
    monkeypatch.setattr(member, "is_loopback", lambda address: False)
    with pytest.raises(CannotRun, match=r"the farm has 1\.0; install ray 1\.0 here"):
        member.join(
            "http://127.0.0.1:8321", "once", node="attic", describe=lambda address: [], state=tmp_path
        )
    assert left == [("attic", "its own")]
