from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from farm.errors import CannotRun, InvalidInput, NotAllowed, NotFound, TooManyRequests
from farm.running import reach
from farm.running.membership import JOINING_S, ClusterAccess, Membership
from farm.running.reach import unreached

VERSIONS = {"python": "3.11.7", "ray": "2.60.0"}


def membership(farm: Any, secret: str = "the farm's") -> Membership:
    access = ClusterAccess("10.0.0.1:6379", "s3cret")
    return Membership(farm.coordinator, cluster=lambda: access, secret=secret, versions=VERSIONS)


async def test_a_machine_with_a_new_name_is_told_all_it_needs_to_join(run_farm: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        offer = membership(farm).join("attic")
    assert offer.pop("node_token")
    assert offer == {"ray_address": "10.0.0.1:6379", "ray_token": "s3cret", "versions": VERSIONS}


async def test_a_name_that_is_taken_is_refused(run_farm: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        with pytest.raises(InvalidInput, match="a node called a is here already; choose another --name"):
            membership(farm).join("a")


async def test_of_two_machines_that_join_under_one_name_at_once_the_second_is_refused(
    run_farm: Any, make: Any
) -> None:
    late_s = 0.0
    async with run_farm(monotonic=lambda: late_s) as farm:
        members = membership(farm)
        token = members.join("attic")["node_token"]
        members.join("cellar")
        with pytest.raises(InvalidInput, match="a node called attic is joining just now; choose another"):
            members.join("attic")
        members.leave("attic", token)  # it could not start
        members.join("attic")
        late_s = JOINING_S  # it never came
        members.join("attic")
        farm.cluster.add(make.worker("attic/0", kind="cpu"))
        await farm.until(lambda: farm.ledger.state.workers)
        farm.cluster.kill("attic/0")  # it came, and went
        await farm.until(lambda: not farm.ledger.state.workers and not farm.coordinator.has_node("attic"))
        members.join("attic")


async def test_a_machine_that_leaves_has_its_own_workers_drained_and_no_others(run_farm: Any) -> None:
    async with run_farm() as farm:
        own = membership(farm).join("a")["node_token"]  # before its workers come up
    async with run_farm("a/0", "a/1", "b/0") as farm:
        await farm.until(lambda: len(farm.ledger.state.workers) == 3)
        members = membership(farm)
        token = members.join("c")["node_token"]
        with pytest.raises(NotAllowed, match="the token is not that of node a"):
            members.leave("a", token)
        assert not any(worker.draining for worker in farm.ledger.state.workers.values())
        members.leave("a", own)
        await farm.until(lambda: set(farm.ledger.state.workers) == {"b/0"})
        assert not farm.ledger.state.workers["b/0"].draining
        assert members.leave("a", own) == [], "leaving twice is no mistake"
        assert farm.ledger.state.drained == {}


async def test_a_machine_that_leaves_is_forgotten_with_the_workers_that_were_drained_before(
    run_farm: Any,
) -> None:
    async with run_farm() as farm:
        own = membership(farm).join("a")["node_token"]
    async with run_farm("a/0", "b/0") as farm:
        await farm.until(lambda: len(farm.ledger.state.workers) == 2)
        for worker_id in ("a/0", "b/0"):
            farm.coordinator.drain(worker_id)
        await farm.until(lambda: set(farm.ledger.state.drained) == {"a/0", "b/0"})
        members = membership(farm)
        with pytest.raises(InvalidInput, match="a node called a is here already"):
            members.join("a")
        assert members.leave("a", own) == []
        assert set(farm.ledger.state.drained) == {"b/0"}


async def test_the_name_of_a_machine_that_is_gone_is_free_though_its_workers_are_drained(
    run_farm: Any,
) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        await farm.until(lambda: farm.ledger.state.drained)
        assert farm.coordinator.has_node("a")
    async with run_farm("b/0") as farm:
        assert set(farm.ledger.state.drained) == {"a/0"}
        assert not farm.coordinator.has_node("a")
        assert membership(farm).join("a")["node_token"]


async def test_a_machine_at_work_is_told_to_wait_for_its_segment(
    run_farm: Any, make: Any, photo: Any, job_request: Any, trouble: Any, held: Any
) -> None:
    async with run_farm(engine=trouble(held)) as farm:
        members = membership(farm)
        token = members.join("a")["node_token"]
        farm.cluster.add(make.worker("a/0", kind="cpu"))
        farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(held.begun.is_set)
        assert members.leave("a", token) == ["a/0"]
        held.go_on.set()
        await farm.until(lambda: members.leave("a", token) == [])


async def test_a_token_of_another_cluster_lets_nobody_out(run_farm: Any) -> None:
    async with run_farm() as farm:
        foreign = membership(farm, secret="another").join("a")["node_token"]
        for token in (foreign, "", "é"):
            with pytest.raises(NotAllowed):
                membership(farm).leave("a", token)


async def test_a_machine_that_comes_back_shows_its_own_token_and_is_told_how_the_cluster_is_now(
    run_farm: Any,
) -> None:
    async with run_farm("b/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        access = ClusterAccess("10.0.0.1:6379", "old")
        members = Membership(farm.coordinator, cluster=lambda: access, secret="x", versions=VERSIONS)
        own = members.join("attic")["node_token"]
        access = ClusterAccess("10.0.0.1:6380", "new")
        offer = members.join("attic", returning=members.knows("attic", own))
        assert offer == {
            "ray_address": "10.0.0.1:6380",
            "ray_token": "new",
            "versions": VERSIONS,
            "node_token": own,
        }
        assert not members.knows("b", own)
        assert not members.knows("attic", "old"), "nothing that machines know makes such a token"


async def test_a_removed_machine_is_gone_at_once_its_token_opens_nothing_and_its_work_is_done_by_others(
    run_farm: Any, make: Any, photo: Any, job_request: Any, trouble: Any, held: Any
) -> None:
    async with run_farm(engine=trouble(held)) as farm:
        members = membership(farm)
        own = members.join("a", key_id="3f9a1c07")["node_token"]
        farm.cluster.add(make.worker("a/0", kind="cpu"))
        job_id = farm.coordinator.submit(job_request(photo(), num_frames=8))
        await farm.until(held.begun.is_set)
        farm.cluster.add(make.worker("b/0", kind="cpu"))
        await farm.until(lambda: "b/0" in farm.ledger.state.workers)
        assert members.remove("a") == {"3f9a1c07"}
        assert set(farm.ledger.state.workers) == {"b/0"}
        held.go_on.set()
        await farm.until(lambda: farm.ledger.job(job_id).status == "succeeded")
        failures = [f.kind for task in farm.ledger.job(job_id).tasks.values() for f in task.failures]
        assert set(failures) <= {"cancelled"}, "nobody is blamed"
        assert not members.knows("a", own)
        with pytest.raises(NotAllowed):
            members.leave("a", own)
        # It may come again, as any other, with what lets one in.
        again = members.join("a")["node_token"]
        assert again != own
        assert members.knows("a", again)
        assert members.remove("a") == set(), "the key was revoked at the first time"


async def test_a_machine_that_is_away_or_drained_is_removed_too_and_one_that_never_joined_is_not(
    run_farm: Any, make: Any
) -> None:
    async with run_farm() as farm:
        members = membership(farm)
        away = members.join("away")["node_token"]
        members.join("a")
        farm.cluster.add(make.worker("a/0", kind="cpu"))
        await farm.until(lambda: farm.ledger.state.workers)
        farm.coordinator.drain("a/0")
        await farm.until(lambda: farm.ledger.state.drained)
        members.remove("a")
        assert not farm.ledger.state.drained
        members.remove("away")
        with pytest.raises(NotFound, match="no machine called c has joined"):
            members.remove("c")
    async with run_farm() as farm:
        assert not membership(farm).knows("away", away), "a restart forgets no removal"


async def test_a_machine_that_comes_back_has_its_name_though_its_shadow_is_here(run_farm: Any) -> None:
    async with run_farm("a/0") as farm:
        await farm.until(lambda: farm.ledger.state.workers)
        members = membership(farm)
        other = members.join("b")["node_token"]
        own = members.join("a", returning=True)["node_token"]
        assert members.knows("a", own)
        assert not members.knows("a", other)
        assert not members.knows("a", "é")
        with pytest.raises(InvalidInput):
            members.join("a")


async def test_a_farm_of_its_own_machine_alone_lets_nobody_join_and_says_what_to_do(run_farm: Any) -> None:
    async with run_farm() as farm:
        alone = Membership(
            farm.coordinator,
            cluster=lambda: ClusterAccess("127.0.0.1:1", "t"),
            secret="s",
            versions={},
            ports=None,
        )
        with pytest.raises(CannotRun, match="start it with `farm up --listen ADDRESS`"):
            alone.join("a")
        with pytest.raises(CannotRun):
            await alone.reach("127.0.0.1", [8473], b"word")


async def test_a_machine_learns_which_of_its_ports_the_farm_does_not_reach(
    run_farm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def some(address: str, ports: list[int], word: bytes) -> list[int]:
        assert (address, word) == ("10.0.0.2", b"word")
        if ports == [1]:
            with pytest.raises(TooManyRequests):
                await members.reach("10.0.0.3", [1], b"word")
        return ports[1:]

    monkeypatch.setattr("farm.running.membership.unreached", some)
    monkeypatch.setattr("farm.running.membership.MAX_LOOKS", 1)
    async with run_farm() as farm:
        members = membership(farm)
        for _ in range(2):
            assert await members.reach("10.0.0.2", [8473, 8474], b"word") == {
                "address": "10.0.0.2",
                "unreached": [8474],
                "listening": [8471, 8472, 8473, 8474],
                "ports": "8471-8599",
            }
        await members.reach("10.0.0.2", [1], b"word")


async def test_a_port_is_reached_where_the_right_word_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "ANSWER_S", 0.3)

    async def says(stack: AsyncExitStack, word: bytes) -> int:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(word)
            if not word:
                await reader.read()  # until whoever asked has gone: Python 3.12 waits for open connections
            writer.close()

        server = await stack.enter_async_context(await asyncio.start_server(greet, "127.0.0.1", 0))
        port: int = server.sockets[0].getsockname()[1]
        return port

    async with AsyncExitStack() as stack:
        right, wrong, short, silent = [await says(stack, word) for word in (b"word", b"wolf", b"wo", b"")]
        assert await unreached("127.0.0.1", [right, wrong, short, silent], b"word") == [wrong, short, silent]
        assert await unreached("127.0.0.1", [right, silent]) == []
        closed = await says(stack, b"word")
    assert await unreached("127.0.0.1", [closed], b"word") == [closed]
