"""Where the components of a model are at each rung, and how they come to the card when they are not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nodes.engines.i2vgen_xl_loading import Model
from nodes.engines.i2vgen_xl_pieces import set_pieces
from nodes.engines.i2vgen_xl_spec import RING_GROUP_BYTES, RING_SLOTS, Placement
from nodes.weight_ring import WeightRing

_ENCODERS = {"text_encoder", "image_encoder"}


class PlacedModel:
    """A model placed on one device as a rung says; another rung moves only what must move."""

    def __init__(self, model: Model, device: str, placement: Placement) -> None:
        self.model = model
        self.device = device
        self._rings: dict[str, WeightRing] = {}
        self.place(placement)

    def place(self, placement: Placement) -> None:
        """Move to another rung: what leaves the card goes before anything comes."""
        self.placement = placement
        streamed = {"unet"} if placement.unet_streamed else set()
        streamed |= _ENCODERS if placement.encoders == "streamed" else set()
        self._stays = set() if placement.unet_streamed else {"unet", "vae"}
        self._stays |= _ENCODERS if placement.encoders == "resident" else set()
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
        set_pieces(components["unet"], placement.pieces)

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
