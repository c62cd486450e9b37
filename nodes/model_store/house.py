"""The coordinator's view of models in the house: who has which, who takes one, who may give it."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farm.capabilities import Manifest, Source, Weights
from nodes.model_store.holdings import Holding, WholeFolder
from nodes.model_store.manifests import manifest_of
from nodes.model_store.serving import PieceServer

#: Machines that one is told of, beside the farm's own: no more than it needs to be as fast as its network.
MAX_TOLD = 12

#: Of a model and its weights: what each is kept by, its folder on this machine, and files of that.
FilesOf = Callable[[str, Weights], "list[tuple[str, Path, tuple[str, ...]]]"]


@dataclass
class _Machine:
    """Where a worker gives models, and what of."""

    source: Source | None
    manifests: frozenset[str]
    #: What it takes now.
    taking: set[str] = field(default_factory=set)


class House:
    """One for a coordinator. Without a server, as on a farm of one machine, nothing is handed over."""

    def __init__(self, files_of: FilesOf) -> None:
        self._files_of = files_of
        self._server: PieceServer | None = None
        self.secret = secrets.token_hex(32)
        self._machines: dict[str, _Machine] = {}
        self._holdings: dict[str, Holding] = {}
        self._hashing = threading.Lock()

    def open(self, host: str, port: int) -> None:
        """Give what this machine has at that address.

        Raises:
            OSError: the port is taken, or it is no address of this machine.
        """
        self._server = PieceServer(host, port, self._holdings.get)
        self._server.know(self.secret)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def renew_secret(self) -> None:
        """A machine was removed that knows the old one."""
        self.secret = secrets.token_hex(32)
        if self._server is not None:
            self._server.know(self.secret)

    def manifests(self, model: str, weights: Weights) -> tuple[Manifest, ...]:
        """What a model and its weights are made of, as far as they are handed over. Takes a second for each
        GB, the first time.

        Raises:
            FarmError, OSError: one is not here, or cannot be read.
        """
        found = []
        for key, folder, paths in self._files_of(model, weights) if self._server is not None else ():
            with self._hashing:
                manifest = manifest_of(key, folder, paths)
            self._holdings[manifest.id] = WholeFolder(manifest, folder)
            found.append(manifest)
        return tuple(found)

    def heard(self, worker_id: str, address: str, port: int | None, manifests: frozenset[str]) -> set[str]:
        """A worker says what can be had from its machine; the manifests of which others are to be told."""
        before = self._machines.get(worker_id)
        source = Source(host=address, port=port) if port is not None and address else None
        self._machines[worker_id] = _Machine(source, manifests)
        old = before.manifests if before is not None and before.source == source else frozenset()
        return set(manifests ^ old)

    def takes(self, worker_id: str, manifest_id: str) -> set[str]:
        """A worker begins to take a model, and so has parts of it soon."""
        machine = self._machines.setdefault(worker_id, _Machine(None, frozenset()))
        machine.taking.add(manifest_id)
        return {manifest_id}

    def gone(self, worker_id: str) -> set[str]:
        """A worker is gone."""
        machine = self._machines.pop(worker_id, None)
        return set() if machine is None else set(machine.manifests | machine.taking)

    def takers(self, manifest_id: str) -> list[str]:
        """The workers that take it now."""
        return [worker_id for worker_id, m in self._machines.items() if manifest_id in m.taking]

    def sources(self, manifest_id: str, worker_id: str) -> tuple[Source, ...]:
        """From whom a worker may have it: this machine, and others that have all or parts of it."""
        own = self._machines.get(worker_id)
        others = {
            machine.source
            for machine in self._machines.values()
            if machine.source and manifest_id in machine.manifests | machine.taking
        } - {own.source if own else None}
        some = sorted(others, key=lambda source: (source.host, source.port))
        if len(some) > MAX_TOLD:
            some = random.sample(some, MAX_TOLD)
        here = self._server
        return (*([] if here is None else [Source(host=here.host, port=here.port)]), *some)
