"""Where the components of a model are at each rung, and how they come to the card when they are not there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch

from nodes.engines.common.pieces import set_pieces
from nodes.engines.placement import RING_GROUP_BYTES, RING_SLOTS, Parts, Placement
from nodes.engines.streaming import PinnedWeights, WeightRing, weights_of
from nodes.engines.weights import file_span


class Model(Protocol):
    """A model read onto the host: its components by name, and whatever else its family needs."""

    @property
    def components(self) -> Mapping[str, Any]: ...


AnyModel = TypeVar("AnyModel", bound=Model)


class PlacedModel(Generic[AnyModel]):
    """A model placed on one device as a rung says; another rung moves only what must move."""

    def __init__(self, model: AnyModel, parts: Parts, device: str, placement: Placement) -> None:
        self.model = model
        self.parts = parts
        self.device = device
        self._rings: dict[str, WeightRing] = {}
        #: Of components that visit the card, where there is host memory for it.
        self._pinned: dict[str, PinnedWeights] = {}
        #: Of components on the card, what is mapped from files and needs no copy on the way back.
        self._mapped: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.place(placement)

    def place(self, placement: Placement) -> None:
        """Move to another rung: what leaves the card goes before anything comes."""
        self.placement = placement
        streamed = set(placement.streamed(self.parts))
        self._stays = set(placement.resident(self.parts))
        components = self.model.components
        visiting = set() if placement.from_files else components.keys() - self._stays - streamed
        for name, module in components.items():
            if name not in self._stays:
                for tensor, data in self._mapped.pop(name, ()):
                    tensor.data = data
                module.to("cpu")
        torch.cuda.empty_cache()
        for name in [
            name
            for name, ring in self._rings.items()
            if name not in streamed or ring.from_files != placement.from_files
        ]:
            self._rings.pop(name).detach()
        for name in self._pinned.keys() - visiting:
            self._pinned.pop(name).detach()
        for name in sorted(streamed - self._rings.keys()):
            self._rings[name] = WeightRing(
                components[name],
                self.device,
                group_bytes=RING_GROUP_BYTES,
                slots=RING_SLOTS,
                from_files=placement.from_files,
            )
        for name in sorted(self._stays - self._mapped.keys()):
            weights = weights_of(components[name]).values()
            self._mapped[name] = [(t, t.data) for t in weights if file_span(t) is not None]
            _move(components[name], self.device)
        for name in sorted(visiting - self._pinned.keys()):
            self._pinned[name] = PinnedWeights(components[name], self.device)
        for name in self.parts.denoisers:
            set_pieces(components[name], placement.pieces)

    def close(self) -> None:
        """Let go of the model, for good.

        What placed it refers to it no more. To look for garbage takes as long as encoding a prompt, so it is
        done only where a module refers to itself.
        """
        while self._rings:
            self._rings.popitem()[1].detach()
        while self._pinned:
            self._pinned.popitem()[1].detach()
        self._mapped.clear()
        weights = [
            weakref.ref(t) for module in self.model.components.values() for t in weights_of(module).values()
        ]
        del self.model
        if any(each() is not None for each in weights):
            gc.collect()

    @contextmanager
    def on_card(self, name: str) -> Iterator[None]:
        """Have a component compute on the device inside the body."""
        module = self.model.components[name]
        if name in self._rings:
            with self._rings[name]:
                yield
        elif name in self._pinned:
            with self._pinned[name].on_card():
                yield
            torch.cuda.empty_cache()
        elif name in self._stays:
            yield
        else:
            # Weights do not change: nothing is copied back.
            host = [(tensor, tensor.data) for tensor in weights_of(module).values()]
            try:
                _move(module, self.device)
                yield
            finally:
                for tensor, data in host:
                    tensor.data = data
                torch.cuda.empty_cache()


def _move(module: Any, device: str) -> None:
    for tensor in weights_of(module).values():
        tensor.data = _copied(tensor.data, device)


def _copied(data: torch.Tensor, device: str) -> torch.Tensor:
    return data.to(device)
