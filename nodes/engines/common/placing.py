"""Where the components of a model are at each rung, and how they come to the card when they are not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch

from nodes.engines.common.pieces import set_pieces
from nodes.engines.common.weight_ring import WeightRing
from nodes.engines.placement import RING_GROUP_BYTES, RING_SLOTS, Parts, Placement


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
        self.place(placement)

    def place(self, placement: Placement) -> None:
        """Move to another rung: what leaves the card goes before anything comes."""
        self.placement = placement
        streamed = set(placement.streamed(self.parts))
        self._stays = set(placement.resident(self.parts))
        components = self.model.components
        for name, module in components.items():
            if name not in self._stays:
                module.to("cpu")
        torch.cuda.empty_cache()
        for name in [name for name in self._rings if name not in streamed]:
            self._rings.pop(name).detach()
        for name in sorted(streamed - self._rings.keys()):
            self._rings[name] = WeightRing(
                components[name], self.device, group_bytes=RING_GROUP_BYTES, slots=RING_SLOTS
            )
        for name in sorted(self._stays):
            components[name].to(self.device)
        for name in self.parts.denoisers:
            set_pieces(components[name], placement.pieces)

    @contextmanager
    def on_card(self, name: str) -> Iterator[None]:
        """Have a component compute on the device inside the body."""
        module = self.model.components[name]
        if name in self._rings:
            with self._rings[name]:
                yield
        elif name in self._stays:
            yield
        else:
            module.to(self.device)
            try:
                yield
            finally:
                module.to("cpu")
                torch.cuda.empty_cache()
