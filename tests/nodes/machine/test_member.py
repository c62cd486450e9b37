"""A machine that has joined stays in the farm, whatever ends its Ray, until it leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from farm.errors import CannotRun, FarmError, InvalidInput, NotAllowed, NotFound, PortClosed, TooManyRequests
from nodes.machine import member
from nodes.machine.member import Joined, Member

#: No process has it (kernel.pid_max is at most 2**22).
NOBODY = 2**22 + 1


class EndedRay:
    """A ``ray start`` that has ended; ``before`` runs when it is waited for."""

    pid = NOBODY

    def __init__(self, before: Callable[[], Any] = lambda: None) -> None:
        self.wait = before


class Farm:
    """What ``FarmClient`` asks; what happens is told by ``answers``, the last of which stays."""

    answers: list[dict[str, Any] | FarmError]
    asked: list[tuple[str, str]]
    left: list[tuple[str, str]]

    def __init__(self, url: str, token: str | None) -> None: ...

    def join(self, token: str, node: str) -> dict[str, Any]:
        self.asked.append((token, node))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, FarmError):
            raise answer
        return answer

    def is_up(self) -> bool:
        return True

    def leave(self, node: str, node_token: str) -> list[str]:
        self.left.append((node, node_token))
        return []


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> type[Farm]:
    """Of another machine, with no firewall on the way."""
    Farm.asked, Farm.left = [], []
    offer = {"ray_address": "10.0.0.1:8471", "ray_token": "r2", "node_token": "t", "versions": {}}
    Farm.answers = [offer]
    monkeypatch.setattr(member, "FarmClient", Farm)
    monkeypatch.setattr(member, "check", lambda url, ports: "10.0.0.2")
    return Farm


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, farm: type[Farm]) -> Joined:
    monkeypatch.setattr(member, "RETURN_INTERVAL_S", 0.0)
    kept = member.Kept(url="http://10.0.0.1:8470", node="attic", node_token="t")
    (tmp_path / member.KEPT_NAME).write_text(kept.model_dump_json())
    return Joined(
        url="http://10.0.0.1:8470", node="attic", node_token="t", address="10.0.0.2",
        ray_address="10.0.0.1:8471", ray_token="r", workers=(), state=tmp_path,
    )  # fmt: skip


def is_member(joined: Joined, pid: int = NOBODY) -> None:
    told = Member(pid=pid, url=joined.url, node="attic", node_token="t", temp_dir=joined.state / "rf" / "ray")
    (joined.state / member.MEMBER_NAME).write_text(told.model_dump_json())


def test_a_ray_that_ended_is_started_again_until_the_machine_leaves(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, farm: type[Farm]
) -> None:
    """However long the farm is away: as the farm is then, by this machine's own token, at its own place."""
    begun: list[Joined] = []
    offer = farm.answers[0]
    farm.answers = [*[CannotRun("no farm answers")] * 3, TooManyRequests("others are joining"), offer]

    def begin(self: Joined) -> EndedRay:
        begun.append(self)
        if len(begun) == 1:
            raise CannotRun("the head is on its way up")
        is_member(self)
        if len(begun) < 4:
            return EndedRay()
        return EndedRay(lambda: (self.state / member.MEMBER_NAME).unlink())  # `farm leave`

    monkeypatch.setattr(Joined, "begin", begin)
    is_member(joined)
    said: list[str] = []
    joined.stay(EndedRay(), said.append)  # type: ignore[arg-type]
    assert len(begun) == 4
    assert {(one.ray_address, one.ray_token, one.node) for one in begun} == {("10.0.0.1:8471", "r2", "attic")}
    assert set(farm.asked) == {("t", "attic")}
    waits = [line for line in said if "waits" in line]
    assert waits == [
        "attic waits for the farm: no farm answers",
        "attic waits for the farm: others are joining",
        "attic waits for the farm: the head is on its way up",
    ]
    rest = [line.split(";")[0] for line in said if line not in waits]
    assert rest == ["Ray has ended", "attic is in the farm again"] * 3


def test_the_way_that_is_watched_is_the_one_to_where_the_farm_is_now(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, farm: type[Farm]
) -> None:
    watched: list[tuple[str, list[int]]] = []

    def watch(whose: str, address: str, ports: Any, own: str, say: Any) -> Any:
        watched.append((address, list(ports)))
        return nullcontext()

    def begin(self: Joined) -> EndedRay:
        is_member(self)
        return EndedRay(lambda: (self.state / member.MEMBER_NAME).unlink())  # `farm leave`

    monkeypatch.setattr(member, "way_watched", watch)
    monkeypatch.setattr(Joined, "begin", begin)
    farm.answers = [{**farm.answers[0], "ray_address": "10.0.0.9:9471"}]
    is_member(joined)
    joined.stay(EndedRay(), lambda line: None)  # type: ignore[arg-type]
    assert watched == [("10.0.0.1", [8471, 8472, 8473, 8474]), ("10.0.0.9", [9471, 9472, 9473, 9474])]


def test_a_machine_that_was_removed_does_not_come_back_and_says_so(joined: Joined, farm: type[Farm]) -> None:
    farm.answers = [NotAllowed("the join token is wrong")]
    is_member(joined)
    with pytest.raises(NotAllowed, match=r"attic was removed from the farm at .*`farm join-token`"):
        joined.stay(EndedRay(), lambda line: None)  # type: ignore[arg-type]


def test_a_machine_that_was_restarted_comes_back_with_its_own_token_until_it_leaves_for_good(
    tmp_path: Path, farm: type[Farm]
) -> None:
    def join(token: str | None, node: str = "attic") -> Joined:
        return member.join("http://10.0.0.1:8470", token, node=node, describe=lambda _: [], state=tmp_path)

    with pytest.raises(InvalidInput, match="add --token, which `farm join-token` prints"):
        join(None)
    join("once")
    # Ray did not start, or the machine was restarted: it is in no farm, and knows its place.
    assert member.current(tmp_path) is None
    join("once")
    join(None)
    with pytest.raises(InvalidInput):
        join(None, node="cellar")
    assert farm.asked == [("once", "attic"), ("t", "attic"), ("t", "attic")]
    # The farm does not know it any more: then the token that was given counts.
    farm.answers = [NotAllowed("wrong"), farm.answers[0]]
    join("twice")
    assert farm.asked[-2:] == [("t", "attic"), ("twice", "attic")]
    with pytest.raises(NotFound):
        member.leave(tmp_path)  # as Ctrl-C does
    join(None)
    assert member.leave(tmp_path, for_good=True).node == "attic"
    with pytest.raises(InvalidInput):
        join(None)
    with pytest.raises(NotFound):
        member.leave(tmp_path, for_good=True)


def test_a_machine_may_leave_while_it_waits_for_its_farm(joined: Joined, farm: type[Farm]) -> None:
    farm.answers = [CannotRun("no farm answers")]
    is_member(joined)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "waits" in line:
            member.leave(joined.state, for_good=True)

    joined.stay(EndedRay(), say)  # type: ignore[arg-type]
    assert said[-1] == "attic waits for the farm: no farm answers"


def test_a_machine_that_does_not_come_back_for_a_closed_port_says_what_opens_it(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(url: str, ports: Any) -> str:
        raise PortClosed("port 8472 is closed", ("ufw: open it", "nft: open it"))

    monkeypatch.setattr(member, "check", closed)
    is_member(joined)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "waits" in line:
            member.leave(joined.state, for_good=True)

    joined.stay(EndedRay(), say)  # type: ignore[arg-type]
    assert said[-1] == "attic waits for the farm: port 8472 is closed\n  ufw: open it\n  nft: open it"


def test_a_machine_whose_ray_runs_is_in_its_farm(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "process_alive", lambda pid, word: pid == os.getpid())
    is_member(joined, os.getpid())
    assert member.current(joined.state)
    assert not member.was_lost(joined.state)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"])
def test_a_farm_of_one_machine_is_not_joined(url: str, tmp_path: Path, farm: type[Farm]) -> None:
    with pytest.raises(CannotRun, match="farm up --listen"):
        member.join(url, "token", node="attic", describe=lambda _: [], state=tmp_path)
    assert farm.asked == [], "the token is not used up"


def test_a_machine_that_the_farm_does_not_reach_keeps_its_token(
    tmp_path: Path, farm: type[Farm], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(url: str, ports: Any) -> str:
        raise PortClosed("port 8473 is closed", ("ufw: ...",))

    monkeypatch.setattr(member, "check", closed)
    with pytest.raises(PortClosed):
        member.join("http://10.0.0.1:8470", "token", node="attic", describe=lambda _: [], state=tmp_path)
    assert farm.asked == []


def test_a_machine_that_cannot_start_gives_its_name_back(tmp_path: Path, farm: type[Farm]) -> None:
    farm.answers = [{"versions": {"ray": "1.0"}, "node_token": "its own"}]
    with pytest.raises(CannotRun, match=r"the farm has 1\.0; install ray 1\.0 here"):
        member.join("http://10.0.0.1:8470", "once", node="attic", describe=lambda _: [], state=tmp_path)
    assert farm.left == [("attic", "its own")]


ADDRESSES = [
    ("10.0.0.5:8470", "http://10.0.0.5:8470"),
    ("http://10.0.0.5:8470/", "http://10.0.0.5:8470"),
    ("attic.lan:8470", "http://attic.lan:8470"),
    ("[fd00::5]:8470", "http://[fd00::5]:8470"),
]


@pytest.mark.parametrize(("address", "url"), ADDRESSES)
def test_a_farm_s_address_may_be_a_name_or_of_either_family(address: str, url: str) -> None:
    assert member.farm_url(address) == url


@pytest.mark.parametrize("address", ["attic", "fd00::5", "https://a:1", "a:b", "", "[fd00::5]"])
def test_what_is_no_address_is_refused_with_examples(address: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"such as 192\.168\.1\.10:8470, attic\.lan:8470 or \[fd00::5\]:8470"
    ):
        member.farm_url(address)
