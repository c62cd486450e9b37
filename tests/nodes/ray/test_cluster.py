"""The coordinator's side of Ray, with a driver and workers that are played: who is believed, what goes on."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from farm.capabilities.worker import GIB, Worker
from farm.running.cluster import WorkerDown, WorkerUp
from nodes.link import WorkerEnd, connect
from nodes.ray import Launch, RayCluster, Start, cluster
from nodes.ray.driver_process import RayEnded
from nodes.ray.protocol import Employ, Ended, Kill, Nodes, Place, Told


class PlayedDriver:
    """A driver that says what the test says, and workers that connect when they are employed."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[Told | RayEnded] = asyncio.Queue()
        self.employed: list[Employ] = []
        self.killed: list[str] = []
        self.ends: dict[str, WorkerEnd] = {}
        self.gone: str | None = None
        self.comes_up = True

    def ask(self, message: Employ | Kill) -> None:
        if isinstance(message, Kill):
            self.killed.append(message.worker_id)
            return
        self.employed.append(message)
        if self.comes_up:
            threading.Thread(target=self._serve, args=(message,), daemon=True).start()

    async def told(self) -> AsyncIterator[Told]:
        while True:
            word = await self.words.get()
            if isinstance(word, RayEnded):
                raise word
            yield word

    def dead(self) -> str | None:
        return self.gone

    def give_up(self, reason: str) -> None:
        self.gone = reason
        self.words.put_nowait(RayEnded(reason))

    async def kill(self) -> None: ...

    async def stop(self) -> None: ...

    def say(self, *places: Place) -> None:
        self.words.put_nowait(Nodes(places=places, here=True))

    def _serve(self, asked: Employ) -> None:
        end = self.ends[asked.worker_id] = connect(asked.host, asked.port, asked.worker_id, asked.secret)
        node = asked.worker_id.split("/")[0]
        end.introduce(Worker(id=asked.worker_id, node=node, kind="cpu", device_name="CPU", vram_bytes=GIB))
        end.serve(lambda order: None, lambda attempt_id: None)


class Played:
    """A cluster with its drivers, one after the other."""

    def __init__(self) -> None:
        self.drivers = [PlayedDriver()]
        self.launches: list[bool] = []
        #: Tokens of a Ray that were spent, by how many had been started.
        self.spent: list[int] = []
        self.on_launch: Callable[[], None] = lambda: None
        self.cluster: RayCluster
        self.messages: AsyncIterator[Any]

    @property
    def driver(self) -> PlayedDriver:
        return self.drivers[-1]

    async def launch(self, afresh: bool) -> Launch:
        self.launches.append(afresh)
        self.on_launch()
        if len(self.launches) > 1:
            self.drivers.append(PlayedDriver())
        return Launch(Start(), {}, Path("unused"))

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            return await anext(self.messages)


@pytest.fixture
async def played(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Played]:
    play = Played()

    async def start_driver(launch: Launch) -> PlayedDriver:
        return play.driver

    async def no_stitcher(order: Any) -> Any: ...

    monkeypatch.setattr(cluster, "start_driver", start_driver)
    monkeypatch.setattr(cluster, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(cluster, "WAY_INTERVAL_S", 0.01)
    play.cluster = await RayCluster.open(
        "127.0.0.1", play.launch, no_stitcher, lambda: play.spent.append(len(play.launches))
    )
    play.messages = play.cluster.messages()
    yield play
    await play.cluster.close()


def place(worker_id: str, node_id: str, *, same_machine: bool = False) -> Place:
    return Place(worker_id=worker_id, node_id=node_id, same_machine=same_machine)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_worker_comes_up_and_goes_with_its_connection(played: Played) -> None:
    played.driver.say(place("attic/cpu0", "n1"))
    up = await played.next()
    assert isinstance(up, WorkerUp)
    assert up.worker.id == "attic/cpu0"
    assert played.cluster.has_place("attic/cpu0")
    played.driver.ends["attic/cpu0"].close()
    down = await played.next()
    assert down == WorkerDown("attic/cpu0", "died: its process ended, or its machine is cut off")
    assert played.driver.killed == ["attic/cpu0"]
    played.driver.say(place("attic/cpu0", "n1"))
    assert isinstance(await played.next(), WorkerUp)


async def test_of_two_nodes_that_claim_a_worker_the_first_keeps_it(played: Played) -> None:
    played.driver.say(place("attic/cpu0", "n1"))
    await played.next()
    played.driver.say(place("attic/cpu0", "thief"), place("attic/cpu0", "n1"))
    played.driver.say(place("attic/cpu0", "n1"), place("attic/cpu0", "thief"), place("attic/cpu1", "n1"))
    assert (await played.next()).worker.id == "attic/cpu1"
    assert [each.node_id for each in played.driver.employed] == ["n1", "n1"]


async def test_a_machine_that_came_back_as_a_new_node_gets_its_worker_again(played: Played) -> None:
    played.driver.say(place("attic/cpu0", "n1"))
    await played.next()
    played.driver.say(place("attic/cpu0", "n2"))
    assert isinstance(await played.next(), WorkerDown)
    played.driver.say(place("attic/cpu0", "n2"))
    assert isinstance(await played.next(), WorkerUp)
    assert played.driver.employed[-1].node_id == "n2"


async def test_a_machine_that_is_gone_takes_its_worker_with_it(played: Played) -> None:
    played.driver.say(place("attic/cpu0", "n1"))
    await played.next()
    played.driver.say()
    assert await played.next() == WorkerDown("attic/cpu0", "is gone with its machine")


async def test_a_worker_that_ends_before_it_connects_is_tried_again(played: Played) -> None:
    played.driver.comes_up = False
    played.driver.say(place("attic/cpu0", "n1"))
    await until(lambda: played.driver.employed)
    played.driver.comes_up = True
    played.driver.words.put_nowait(Ended(worker_id="attic/cpu0", number=played.driver.employed[0].number))

    async def look() -> None:
        while True:
            played.driver.say(place("attic/cpu0", "n1"))
            await asyncio.sleep(0.02)

    looking = asyncio.ensure_future(look())
    assert isinstance(await played.next(), WorkerUp)
    looking.cancel()


async def test_what_ends_with_ray_is_nobody_s_failure_and_workers_elsewhere_work_on(played: Played) -> None:
    here, elsewhere = place("head/cpu0", "n1", same_machine=True), place("attic/cpu0", "n2")
    first = played.driver
    first.say(here, elsewhere)
    assert {(await played.next()).worker.id for _ in range(2)} == {"head/cpu0", "attic/cpu0"}
    first.gone = "has ended: its process 1 is gone"
    first.ends["head/cpu0"].close()
    down = await played.next()
    assert down == WorkerDown("head/cpu0", "ended with Ray, which is started again", "cancelled")
    first.words.put_nowait(RayEnded(first.gone))
    await until(lambda: len(played.drivers) == 2)
    assert played.launches == [False, True], "what is left of it is of no use"
    # The new Ray does not know the other machine yet; its worker is still connected and keeps its attempt.
    played.driver.say(place("head/cpu0", "n3", same_machine=True))
    assert (await played.next()).worker.id == "head/cpu0"
    # It comes as a new node once its own Ray was started again.
    played.driver.say(place("head/cpu0", "n3", same_machine=True), place("attic/cpu0", "n4"))
    down = await played.next()
    assert (down.worker_id, down.kind) == ("attic/cpu0", "cancelled")


async def test_a_driver_that_ended_alone_costs_no_worker_and_no_ray(played: Played) -> None:
    played.driver.say(place("attic/cpu0", "n1"))
    await played.next()
    played.driver.words.put_nowait(RayEnded("has lost its driver", driver_alone=True))
    await until(lambda: len(played.drivers) == 2)
    played.driver.say(place("attic/cpu0", "n1"), place("attic/cpu1", "n1"))
    assert (await played.next()).worker.id == "attic/cpu1"
    assert played.launches == [False, False]


async def test_a_released_worker_stays_away_until_it_is_enabled(played: Played) -> None:
    played.driver.say(place("attic/cpu0", "n1"))
    await played.next()
    await played.cluster.release("attic/cpu0")
    assert played.driver.killed == ["attic/cpu0"]
    played.driver.ends["attic/cpu0"].close()
    assert await played.next() == WorkerDown("attic/cpu0", "was released")
    played.driver.say(place("attic/cpu0", "n1"), place("attic/cpu1", "n1"))
    assert (await played.next()).worker.id == "attic/cpu1"
    played.cluster.enable("attic/cpu0")
    played.driver.say(place("attic/cpu0", "n1"), place("attic/cpu1", "n1"))
    assert (await played.next()).worker.id == "attic/cpu0"


async def test_a_ray_that_does_not_start_at_first_is_tried_again(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    start: Callable[[Launch], Awaitable[Any]] = cluster.start_driver

    async def start_driver(launch: Launch) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise cluster.CannotRun("Ray did not start here")
        return await start(launch)

    monkeypatch.setattr(cluster, "start_driver", start_driver)
    monkeypatch.setattr(cluster, "FIRST_PAUSE_S", 0.01)
    played.driver.words.put_nowait(RayEnded("has ended"))
    await until(lambda: len(tries) == 3)
    assert played.launches == [False, True, True, True]


async def test_a_machine_that_is_expelled_is_cut_off_and_ray_starts_again_with_another_token(
    played: Played,
) -> None:
    here, there = place("here/cpu0", "n1", same_machine=True), place("attic/cpu0", "n2")
    played.driver.say(here, there)
    assert {(await played.next()).worker.id for _ in range(2)} == {"here/cpu0", "attic/cpu0"}
    old = played.driver
    played.cluster.expel("attic")
    down = await played.next()
    assert (down.worker_id, down.kind) == ("attic/cpu0", "cancelled")
    old.say(there)
    await until(lambda: played.launches == [False, True])
    assert played.spent == [1]
    assert [each.worker_id for each in old.employed].count("attic/cpu0") == 1, "it is not believed any more"
    # Whoever joins the new Ray under that name was let in anew.
    played.driver.say(place("attic/cpu0", "n3"))
    while not isinstance(said := await played.next(), WorkerUp):
        pass
    assert said.worker.id == "attic/cpu0"


async def test_a_machine_that_is_expelled_while_ray_starts_does_not_know_the_token_that_counts(
    played: Played,
) -> None:
    played.driver.say(place("attic/cpu0", "n2"))
    await played.next()

    def expel_once() -> None:
        played.on_launch = lambda: None
        played.cluster.expel("attic")

    played.on_launch = expel_once
    played.driver.words.put_nowait(RayEnded("has ended"))
    await until(lambda: played.launches == [False, True, True])
    assert played.spent[-1] == 2, "what was started meanwhile may have had the old one"


async def test_a_worker_whose_machine_is_not_reached_is_not_started_and_the_closed_port_is_named(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    there = Place(
        worker_id="attic/cpu0", node_id="n1", same_machine=False, address="127.0.0.1", ports=(port,)
    )
    played.driver.comes_up = False
    played.driver.say(there)  # nothing is known of the way yet
    await until(lambda: f"does not reach port {port}" in caplog.text and "Windows: " in caplog.text)
    assert "of attic, 127.0.0.1, any more" in caplog.text
    ufw = f"  ufw: sudo ufw allow proto tcp from 127.0.0.1 to any port {port}"
    assert ufw in [record.getMessage() for record in caplog.records], "a line that can be pasted"
    played.driver.comes_up = True
    played.driver.words.put_nowait(Ended(worker_id="attic/cpu0", number=played.driver.employed[0].number))
    for _ in range(3):
        played.driver.say(there)
        await asyncio.sleep(0.02)
    assert len(played.driver.employed) == 1
    with socket.create_server(("127.0.0.1", port)):
        await until(lambda: "attic is reached again" in caplog.text)
        played.driver.say(there)
        assert isinstance(await played.next(), WorkerUp)
