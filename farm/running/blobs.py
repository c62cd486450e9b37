"""Content that jobs share: stored once under its hash, removed with the last job that uses it.

Removed is what the journal names as dropped, and what was stored here and refused; content that the journal
does not know stays until somebody asks for its removal. Every decision is made on the coordinator's loop,
where events are recorded too, so that nothing is removed between being found in the storage and being
recorded as a result. Bytes are moved in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice

from farm.running.storage import Storage, content_hash
from farm.state import Ledger, RemovalsFinished

log = logging.getLogger(__name__)

#: Files that are taken away between two turns of the loop.
BATCH = 64
#: Names of content that no job has any more, before it is looked whether they still have to be remembered.
MANY_DROPPED = 10_000


class Blobs:
    """Stores results and removes what nobody uses."""

    def __init__(self, storage: Storage, ledger: Ledger) -> None:
        self._storage = storage
        self._ledger = ledger
        self._held: Counter[str] = Counter()
        #: Of what is held, content that was not in the storage before.
        self._new: set[str] = set()
        self._looking = False

    @asynccontextmanager
    async def stored(self, content: bytes | memoryview) -> AsyncIterator[str]:
        """Store bytes and give their SHA-256; after the block they stay if a job uses them by then.

        Raises:
            CannotRun: no space.
        """
        sha256 = await asyncio.to_thread(content_hash, content)
        if not self._held[sha256] and not self._storage.path(sha256).exists():
            self._new.add(sha256)
        self._held[sha256] += 1
        try:
            await asyncio.to_thread(self._storage.put, content)
            yield sha256
        finally:
            self._held[sha256] -= 1
            if not self._held[sha256]:
                del self._held[sha256]
        if not self._held[sha256] and sha256 in self._new:
            self._new.discard(sha256)
            await self._discard([sha256])

    async def remove_dropped(self, hashes: Iterable[str]) -> None:
        """Remove those of them that the journal names as dropped."""
        state = self._ledger.state
        await self._discard(sha256 for sha256 in hashes if sha256 in state.dropped_blobs)
        if len(state.dropped_blobs) >= MANY_DROPPED and not self._looking:
            await self._forget_dropped()

    async def _forget_dropped(self) -> None:
        """Remove all dropped content that is still there; then the journal need not name it any more.

        Where some was dropped meanwhile, or is held, another time.
        """
        state, self._looking = self._ledger.state, True
        try:
            dropped = frozenset(state.dropped_blobs)
            hashes, _ = await asyncio.to_thread(self._storage.contents)
            await self._discard(sha256 for sha256 in hashes if sha256 in dropped)
            if state.dropped_blobs == dropped and not any(map(self._held.__contains__, dropped)):
                self._ledger.record(RemovalsFinished())
        finally:
            self._looking = False

    async def remove_job(self, job_id: str, hashes: Iterable[str]) -> None:
        """Remove what a deleted job had."""
        if job_id in self._ledger.state.deleted:
            self._storage.discard(self._storage.job_path(job_id))
        await self.remove_dropped(hashes)

    async def finish_removals(self) -> None:
        """Remove what a coordinator that was killed between an event and its files has left of them."""
        hashes, job_ids = await asyncio.to_thread(self._storage.contents)
        for job_id in job_ids:
            if job_id in self._ledger.state.deleted:
                self._storage.discard(self._storage.job_path(job_id))
        await self.remove_dropped(hashes)
        state = self._ledger.state
        unknown = sum(s not in state.blob_uses and s not in state.dropped_blobs for s in hashes)
        folders = sum(job_id not in state.jobs and job_id not in state.deleted for job_id in job_ids)
        if unknown or folders:
            said = "the journal knows not of %d stored files and %d job folders; they stay (`farm storage`)"
            log.warning(said, unknown, folders)

    async def remove_unknown(self) -> None:
        """Remove content and job folders that no job has, whether or not the journal ever named them."""
        hashes, job_ids = await asyncio.to_thread(self._storage.contents)
        for job_id in job_ids:
            if job_id not in self._ledger.state.jobs:
                self._storage.discard(self._storage.job_path(job_id))
        await self._discard(hashes)

    async def _discard(self, hashes: Iterable[str]) -> None:
        """Remove those of them that no job uses."""
        rest = iter(hashes)
        while batch := list(islice(rest, BATCH)):
            for sha256 in batch:
                if not self._ledger.state.blob_uses[sha256] and not self._held[sha256]:
                    self._storage.discard(self._storage.path(sha256))
            await asyncio.sleep(0)
        await asyncio.to_thread(self._storage.empty_trash)
