"""Specs of models, read beside the event loop."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from farm.capabilities import OWN_WEIGHTS, EngineSpec, SpecOf, Weights


class Specs:
    """One look at a model at a time: the first may fetch its files, and must not take every thread for it."""

    def __init__(self, spec_of: SpecOf) -> None:
        self._spec_of = spec_of
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, model: str, weights: Weights = OWN_WEIGHTS) -> EngineSpec:
        """
        Raises:
            NotFound, InvalidInput, CannotRun: as ``spec_of`` says.
        """
        turn = self._turns.setdefault(model, asyncio.Lock())
        async with turn:
            return await asyncio.to_thread(self._spec_of, model, weights)
