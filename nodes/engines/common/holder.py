"""What every engine does around its own loop: hold a model, and let go of it when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Generic

import torch

from farm.capabilities import EngineSpec, Rung
from nodes.engines.common.cache import TensorCache
from nodes.engines.common.cpu import InTurn, SideBySide, keep_freed_memory, return_freed_memory
from nodes.engines.common.placing import AnyModel, PlacedModel
from nodes.engines.engine import OutOfMemory
from nodes.engines.memory import out_of_memory_is_ours
from nodes.engines.placement import Parts, Placement


class Holder(Generic[AnyModel]):
    """One model on one device: read when first needed, placed as a rung says, dropped when memory runs out.

    An engine has one and calls it; its own verbs take it as their first argument.

    Args:
        spec: As the device holds the model; its rungs are what ``load`` accepts.
        device: "cuda" (the process's card) or "cpu".
        dtype: Of weights and activations.
        parts: Which components do what.
        placements: How each rung runs; of two for one rung, the later.
        read: Reads the model onto the host.
        read_in_files: Reads it so that what a placement streams ``from_files`` can wait there; None where no
            placement does.
        cpu_threads: Cores a CPU may use: ``calls`` run side by side, each in one thread, so the numbers do
            not depend on it.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        device: str,
        dtype: torch.dtype,
        parts: Parts,
        placements: Sequence[Placement],
        read: Callable[[], AnyModel],
        read_in_files: Callable[[], AnyModel] | None = None,
        cpu_threads: int,
    ) -> None:
        self.spec = spec
        self.device = device
        self.on_cpu = torch.device(device).type == "cpu"
        self.dtype = dtype
        self.calls = SideBySide(cpu_threads) if self.on_cpu else InTurn()
        self._parts = parts
        self._placements = {placement.rung: placement for placement in placements}
        self._read = read
        self._read_in_files = read_in_files
        self._is_in_files = False
        self._placed: PlacedModel[AnyModel] | None = None
        self._cache = TensorCache()
        if self.on_cpu:
            keep_freed_memory()

    def load(self, rung: Rung) -> None:
        """Read the model when it is not in memory, and place it as the rung says.

        Raises:
            ValueError: the spec does not offer the rung.
            OutOfMemory: the device cannot hold it at this rung; nothing is held.
        """
        offered = [r.name for r in self.spec.rungs]
        if rung not in offered:
            raise ValueError(f"rung is {rung!r}: {self.spec.model} offers {', '.join(offered)}")
        if self._placed is not None and self._placed.placement.rung == rung:
            return
        placement = self._placements[rung]
        in_files = placement.from_files and self._read_in_files is not None
        if in_files and not self._is_in_files:
            self.unload()  # what was read into memory leaves it
        try:
            with out_of_memory_is_ours():
                if self._placed is None:
                    read = self._read_in_files if in_files and self._read_in_files else self._read
                    self._placed = PlacedModel(read(), self._parts, self.device, placement)
                    self._is_in_files = in_files
                    return_freed_memory()  # of headers and names by the thousand
                else:
                    self._placed.place(placement)
        except OutOfMemory:
            self.unload()
            raise

    @contextmanager
    def rendering(self) -> Iterator[None]:
        """Render inside the body, in a call of its own: a failed call's locals are cleared.

        Raises:
            OutOfMemory: the device could not hold it; nothing is held.
        """
        try:
            with out_of_memory_is_ours():
                yield
        except OutOfMemory:
            self.unload()
            raise
        finally:
            if self.on_cpu:
                return_freed_memory()

    def unload(self) -> None:
        """Drop the model from device and host. What was cached stays."""
        if self._placed is not None:
            self._placed.close()
            self._placed = None
        torch.cuda.empty_cache()

    @property
    def placed(self) -> PlacedModel[AnyModel]:
        """The loaded model. Raises ValueError when there is none."""
        if self._placed is None:
            raise ValueError(f"{self.spec.model} is not loaded: call load(rung) first")
        return self._placed

    def cached(
        self, component: str, wanted: Sequence[tuple[str, Callable[[], torch.Tensor]]]
    ) -> torch.Tensor:
        """One batch of tensors by key; the component comes to the card only when one of them is missing."""
        here = self._cache.holds(*(key for key, _ in wanted))
        with nullcontext() if here else self.placed.on_card(component):
            tensors = [self._cache.get(key, partial(self.made, make)) for key, make in wanted]
        return torch.cat(tensors).to(self.device)

    def kept(self, key: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A tensor by key; ``make`` places what it needs itself, and is called when it is not here."""
        return self._cache.get(key, make).to(self.device)

    def made(self, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What ``make`` gives, computed as every call is here: on a CPU with one thread."""
        return self.calls.map(lambda make: make(), [make])[0]
