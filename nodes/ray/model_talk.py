"""What the coordinator and its workers say to each other of models that are handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable

from farm.errors import FarmError
from nodes.link import Connection, SaidModels
from nodes.model_store import House


class ModelTalk:
    """One for a cluster; ``connection_of`` finds the connection to a worker that is here."""

    def __init__(self, house: House, connection_of: Callable[[str], Connection | None]) -> None:
        self._house, self._connection_of = house, connection_of
        #: Workers whose question is being answered: each asks one at a time.
        self._asking: set[str] = set()

    def begins(self, worker_id: str) -> None:
        """A worker is here."""
        if (connection := self._connection_of(worker_id)) is not None:
            connection.give_secret(self._house.secret)

    def here(self, worker_id: str, address: str, said: SaidModels) -> None:
        """It has told what is on its disk; ``address`` is where others reach its machine."""
        self._tell(self._house.heard(worker_id, address, said.port, frozenset(said.manifests)))

    async def wanted(self, worker_id: str, attempt_id: str) -> None:
        """It wants the model of one of its orders: tell it what that is made of, and who gives it."""
        connection = self._connection_of(worker_id)
        order = None if connection is None else connection.order_of(attempt_id)
        if connection is None or order is None or worker_id in self._asking:
            return
        self._asking.add(worker_id)
        try:
            task = order.task
            manifests = await asyncio.to_thread(self._house.manifests, task.model, task.weights)
        except (FarmError, OSError) as error:
            connection.give_model(attempt_id, (), str(error))
            return
        finally:
            self._asking.discard(worker_id)
        for manifest in manifests:
            self._tell(self._house.takes(worker_id, manifest.id))
        connection.give_model(attempt_id, manifests)

    def gone(self, worker_id: str) -> None:
        """It is not here any more."""
        self._tell(self._house.gone(worker_id))

    def expelled(self, others: Iterable[str]) -> None:
        """A machine was taken out that knows the secret: the others get another one."""
        self._house.renew_secret()
        for worker_id in others:
            self.begins(worker_id)

    def close(self) -> None:
        self._house.close()

    def _tell(self, manifest_ids: Collection[str]) -> None:
        """Who gives a model has changed: those that take it are told."""
        for manifest_id in manifest_ids:
            for worker_id in self._house.takers(manifest_id):
                if (connection := self._connection_of(worker_id)) is not None:
                    connection.give_sources(manifest_id, self._house.sources(manifest_id, worker_id))
