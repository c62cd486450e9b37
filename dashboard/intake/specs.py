"""Specs of models, read beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

from farm.capabilities import EngineSpec


class Specs:
    """One look at a model at a time: the first may fetch its files, and must not take every thread for it."""

    def __init__(self, spec_of: Callable[[str], EngineSpec]) -> None:
        self._spec_of = spec_of
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, model: str) -> EngineSpec:
        """
        Raises:
            NotFound, InvalidInput, CannotRun: as ``spec_of`` says.
        """
        turn = self._turns.setdefault(model, asyncio.Lock())
        async with turn:
            return await asyncio.to_thread(self._spec_of, model)
