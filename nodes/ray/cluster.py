"""The real cluster: Ray places, starts and buries, through a driver that is a process of its own.

Every node's Ray advertises one resource ``worker-<id>`` a worker. For each a detached named actor is made, or
found again with its model still loaded, pinned to its node. Whatever a worker says comes over a connection
of its own (``nodes/link``), whose end is the worker's end. Ray itself is watched, and started again when it
ends; workers on other machines that are still connected work on meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from farm.addresses import host_port
from farm.capabilities import Worker
from farm.errors import CannotRun
from farm.running import (
    Failed,
    Finished,
    Message,
    Order,
    StitchOrder,
    StitchSession,
    WorkerDown,
    WorkerUp,
    still_unreached,
)
from nodes.link import Connection, LinkBroken, Listener, Misbehaved, SaidBring, SaidModels
from nodes.machine import WAY_INTERVAL_S, lost_way
from nodes.model_store import House
from nodes.ray.driver_process import DriverProcess, Launch, RayEnded, start_driver
from nodes.ray.model_talk import ModelTalk
from nodes.ray.protocol import Employ, Ended, Kill, Nodes, Place, Told

log = logging.getLogger(__name__)

#: A worker that has not connected by then is tried again at the next look.
ANSWER_TIMEOUT_S = 60.0
#: Between tries: the first, and the longest.
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 8.0
#: Between tries to start Ray again: the first, and the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
#: Machines that lost their Ray have found the new one by then; until then those still connected may work on.
RETURN_GRACE_S = 60.0

OpenStitcher = Callable[[StitchOrder], Awaitable[StitchSession]]


@dataclass
class _Employment:
    """A worker with an actor, or one on its way."""

    place: Place
    number: int
    connected: asyncio.Future[Connection]
    connection: Connection | None = None

    def end(self) -> None:
        if self.connection is not None:
            self.connection.close()
        elif not self.connected.done():
            self.connected.set_exception(LinkBroken("ended before it was connected"))

    def let_go(self) -> None:
        """Of its connection, if there is one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class RayCluster:
    """The port ``Cluster`` over Ray. ``open`` makes one."""

    def __init__(
        self,
        listener: Listener,
        driver: DriverProcess,
        open_stitcher: OpenStitcher,
        spend_token: Callable[[], None],
        house: House | None = None,
    ) -> None:
        self._models = ModelTalk(house or House(lambda *_: []), self._connection)
        self._open_stitcher = open_stitcher
        self._spend_token = spend_token
        #: Machines that still have the token of the Ray that runs, and may not.
        self._expelled: set[str] = set()
        self._listener = listener
        self._driver = driver
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._employed: dict[str, _Employment] = {}
        self._attempts: dict[str, str] = {}
        self._released: set[str] = set()
        #: Workers of the nodes that are alive.
        self._places: dict[str, Place] = {}
        self._numbers = itertools.count(1)
        #: Of machines that are not reached: (address, ports) -> those of them that are closed.
        self._closed: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        #: When a Ray that ended was up again, on the loop's clock.
        self._restarted_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: By worker: how often in a row it has not come up, or said what it may not.
        self._setbacks: Counter[str] = Counter()

    @classmethod
    async def open(
        cls,
        host: str,
        launch: Callable[[bool], Awaitable[Launch]],
        open_stitcher: OpenStitcher,
        spend_token: Callable[[], None] = lambda: None,
        *,
        port: int = 0,
        house: House | None = None,
        models_port: int | None = None,
    ) -> RayCluster:
        """A cluster that is up.

        Args:
            host: Where workers connect.
            launch: Starts Ray, or finds it running; True: what runs is of no use, start it afresh.
            open_stitcher: Starts one, on this machine.
            spend_token: Sees to it that what ``launch`` starts next has another token; raises CannotRun.
            port: Where workers connect; 0: one that is free.
            house: Who has which model; models_port: where it gives them, None: it does not.

        Raises:
            CannotRun: Ray does not start.
        """
        listener = Listener()
        try:
            await listener.open(host, port)
            if house is not None and models_port is not None:
                house.open(host, models_port)
        except OSError as error:
            await listener.close()
            raise CannotRun(
                f"workers cannot connect to {host_port(host, port)}: {error.strerror or error}; choose other "
                "ports with --ports, such as --ports 9471-9599"
            ) from error
        try:
            try:
                driver = await start_driver(await launch(False))
            except CannotRun as error:  # on a busy machine Ray's own thirty seconds may be too few
                log.info("Ray is started once more: %s", error)
                driver = await start_driver(await launch(True))
            cluster = cls(listener, driver, open_stitcher, spend_token, house)
        except BaseException:
            await listener.close()
            raise
        cluster._spawn(cluster._keep_ray(launch))
        cluster._spawn(cluster._watch_ways())
        return cluster

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._messages.get()) is not None:
            yield message

    def start(self, order: Order) -> None:
        connection = self._connection(order.worker_id)
        if connection is None:
            self._say(Failed(order.attempt_id, "lost", f"{order.worker_id}: the worker is gone"))
            return
        self._attempts[order.attempt_id] = order.worker_id
        connection.order(order, num_workers=len(self._employed))

    def cancel(self, attempt_id: str) -> None:
        connection = self._connection(self._attempts.get(attempt_id, ""))
        if connection is not None:
            connection.cancel(attempt_id)

    def kill(self, worker_id: str) -> None:
        if worker_id in self._employed:
            self._driver.ask(Kill(worker_id=worker_id))

    async def release(self, worker_id: str) -> None:
        self._released.add(worker_id)
        self.kill(worker_id)

    def enable(self, worker_id: str) -> None:
        self._released.discard(worker_id)

    def has_place(self, worker_id: str) -> bool:
        return worker_id in self._places

    def expel(self, node: str) -> None:
        self._spend_token()
        self._expelled.add(node)
        for worker_id, employment in self._employed.items():
            if _node_of(worker_id) == node:
                employment.end()
        self._models.expelled(employed for employed in self._employed if _node_of(employed) != node)
        self._driver.give_up("gets another token")

    async def open_stitcher(self, order: StitchOrder) -> StitchSession:
        return await self._open_stitcher(order)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._models.close()
        await self._listener.close()
        await self._driver.stop()
        self._messages.put_nowait(None)

    # Ray, watched.
    async def _keep_ray(self, launch: Callable[[bool], Awaitable[Launch]]) -> None:
        while True:
            try:
                async for told in self._driver.told():
                    self._hear(told)
            except RayEnded as ended:
                log.warning("Ray %s; it is started again", ended)
                afresh = not ended.driver_alone
            await self._driver.kill()
            for employment in self._employed.values():
                if employment.connection is None:
                    employment.end()
            await self._start_again(launch, afresh)

    async def _start_again(self, launch: Callable[[bool], Awaitable[Launch]], afresh: bool) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            expelled = set(self._expelled)
            try:
                self._driver = await start_driver(await launch(afresh))
            except (CannotRun, OSError) as error:
                log.warning("Ray does not start: %s; the next try is in %.0f s", error, pause_s)
                await asyncio.sleep(pause_s)
                pause_s, afresh = min(2 * pause_s, LONGEST_PAUSE_S), True
            else:
                break
        self._restarted_at = asyncio.get_running_loop().time()
        log.warning("Ray is up again")
        self._expelled -= expelled
        if self._expelled:  # while it started: perhaps with the token that they have
            self._spend_token()
            self._driver.give_up("gets another token once more")

    def _returning(self) -> bool:
        """Whether machines may still be on their way to a Ray that was started again."""
        now = asyncio.get_running_loop().time()
        return self._restarted_at is not None and now < self._restarted_at + RETURN_GRACE_S

    def _hear(self, told: Told) -> None:
        match told:
            case Nodes(places=places):
                self._places = self._believed(places)
                self._look()
            case Ended(worker_id=worker_id, number=number):
                employment = self._employed.get(worker_id)
                if employment is not None and employment.number == number and not employment.connection:
                    employment.end()

    def _believed(self, claims: tuple[Place, ...]) -> dict[str, Place]:
        """One place a worker: the one it works at, else the first that claims it."""
        places: dict[str, Place] = {}
        for claim in claims:
            if _node_of(claim.worker_id) in self._expelled:
                continue
            employment = self._employed.get(claim.worker_id)
            here = employment is not None and employment.place.node_id == claim.node_id
            if here or claim.worker_id not in places:
                places[claim.worker_id] = claim
        return places

    def _look(self) -> None:
        """Keep an actor on every worker of every node that is alive."""
        for worker_id, employment in list(self._employed.items()):
            place = self._places.get(worker_id)
            moved = place is not None and place.node_id != employment.place.node_id
            if moved or (place is None and not (employment.connection and self._returning())):
                employment.end()  # its machine is gone, or came back as a new node
        # A machine that left may come back under its name.
        self._released &= self._places.keys()
        for worker_id in self._places.keys() - self._employed.keys() - self._released:
            place = self._places[worker_id]
            if (place.address, place.ports) not in self._closed:
                self._spawn(self._employ(place))

    async def _watch_ways(self) -> None:
        """Name what is closed between here and a machine; none of its workers is started until it is open."""
        while True:
            await asyncio.sleep(WAY_INTERVAL_S)
            ways = {
                (place.address, place.ports): _node_of(place.worker_id)
                for place in self._places.values()
                if place.address and not place.same_machine
            }
            found = await asyncio.gather(*(still_unreached(*way) for way in ways))
            closed = {way: ports for way, ports in zip(ways, found, strict=True) if ports}
            for way in closed.keys() - self._closed.keys():
                for line in lost_way(ways[way], way[0], closed[way], self._listener.host).splitlines():
                    log.warning("%s", line)  # what is typed stands alone in its line
            for way in self._closed.keys() - closed.keys():
                if way in ways:
                    log.warning("%s is reached again", ways[way])
            self._closed = closed

    # Workers.
    async def _employ(self, place: Place) -> None:
        """Make or find a worker's actor, announce it, and pass on what it says until it ends."""
        worker_id = place.worker_id
        secret, connected = self._listener.expect(worker_id, same_machine=place.same_machine)
        employment = _Employment(place, next(self._numbers), connected)
        self._employed[worker_id] = employment
        announced = False
        try:
            self._driver.ask(
                Employ(
                    worker_id=worker_id,
                    number=employment.number,
                    node_id=place.node_id,
                    host=self._listener.host,
                    port=self._listener.port,
                    secret=secret,
                )
            )
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                employment.connection = await connected
            async for heard in employment.connection.heard():
                match heard:
                    case Worker():
                        announced = True
                        del self._setbacks[worker_id]
                        self._say(WorkerUp(heard))
                        self._models.begins(worker_id)
                    case SaidModels():
                        self._models.here(worker_id, place.address, heard)
                        self._say(heard.message(worker_id))
                    case SaidBring():
                        self._spawn(self._models.wanted(worker_id, heard.attempt_id))
                    case _:
                        if isinstance(heard, Finished | Failed):
                            self._attempts.pop(heard.attempt_id, None)
                        self._say(heard)
        except (LinkBroken, TimeoutError) as error:
            if announced:
                self._say(self._down(employment, error))
            else:
                log.warning("worker %s does not come up: %s", worker_id, str(error) or "it did not connect")
                if worker_id not in self._places:
                    self._say(WorkerDown(worker_id, "is gone with its machine"))
            # One that is cut off, not dead, may still hold the name.
            self.kill(worker_id)
            employment.let_go()
            if not announced or isinstance(error, Misbehaved):
                await self._pause(worker_id)
        finally:
            employment.let_go()
            self._models.gone(worker_id)
            for attempt_id in [a for a, by in self._attempts.items() if by == worker_id]:
                del self._attempts[attempt_id]
            del self._employed[worker_id]

    async def _pause(self, worker_id: str) -> None:
        """Before a worker that did not come up is tried again."""
        pause_s = min(FIRST_RETRY_S * 2 ** self._setbacks[worker_id], LONGEST_RETRY_S)
        self._setbacks[worker_id] += 1
        await asyncio.sleep(pause_s)

    def _down(self, employment: _Employment, error: BaseException) -> WorkerDown:
        worker_id = employment.place.worker_id
        if worker_id in self._released:
            return WorkerDown(worker_id, "was released")
        if self._driver.dead() is not None or self._returning():
            # Nobody's failure: the attempt is taken back, as often as Ray ends.
            return WorkerDown(worker_id, "ended with Ray, which is started again", "cancelled")
        if worker_id not in self._places:
            return WorkerDown(worker_id, "is gone with its machine")
        return WorkerDown(worker_id, f"died: {error}")

    def _connection(self, worker_id: str) -> Connection | None:
        employment = self._employed.get(worker_id)
        return employment.connection if employment is not None else None

    def _say(self, message: Message) -> None:
        self._messages.put_nowait(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a watch over Ray or a worker has ended", exc_info=error)


def _node_of(worker_id: str) -> str:
    return worker_id.rpartition("/")[0]
