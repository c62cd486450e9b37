"""What happens on the farm, to everybody who watches: written once, the same bytes for all."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from dashboard.http import answers, api_router
from dashboard.live.event_stream import HEARTBEAT, StoredEvent, event_message, message, stored_events
from dashboard.live.snapshots import Snapshots, Subject
from farm.state import Ledger, Recorded

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
#: What happened in this time goes out together: watchers cost by the message, not by the event.
FRAME_INTERVAL_S = 0.1
#: And so often the time that a frame took: of a large farm's core it leaves three quarters to others.
PAUSE_OF_WORK = 3.0
#: Frames kept for watchers that read slowly; whoever needs older ones reads the journal.
KEPT_BYTES = 2 << 20
#: What one watcher is sent at a time, and so what the server holds for one that does not read.
CHUNK_BYTES = 256 << 10
REPLAY_EVENTS = 500
#: How soon a browser comes back after a lost connection.
RETRY_MS = 1000
#: The largest number SQLite gives an event.
MAX_SEQ = 2**63 - 1

_RESET = message("reset", b"{}")
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EXAMPLE = """id: 7
event: worker_left
data: {"at":1760000000.5,"type":"worker_left","worker_id":"here/cpu0","reason":"was released"}

"""


@dataclass(frozen=True)
class Part:
    """One message. ``seq`` is None for what is not in the journal."""

    data: bytes
    seq: int | None = None
    job_id: str | None = None
    for_all: bool = False

    def concerns(self, job_id: str | None) -> bool:
        return self.for_all or job_id is None or self.job_id == job_id


class Frame:
    """Messages that go out together."""

    def __init__(self, parts: list[Part], before_seq: int, last_seq: int) -> None:
        self.parts = parts
        #: The newest event that was told before, and the newest that is told with this.
        self.before_seq, self.last_seq = before_seq, last_seq
        self.data = b"".join(part.data for part in parts)
        self._of_jobs: dict[str, bytes] = {}

    def past(self, known: int, job_id: str | None) -> bytes:
        """What a watcher of one job, or of everything, has not had who knows the events up to ``known``."""
        if known > self.before_seq:
            wanted = (p for p in self.parts if p.concerns(job_id) and (p.seq is None or p.seq > known))
            return b"".join(part.data for part in wanted)
        if job_id is None:
            return self.data
        found = self._of_jobs.get(job_id)
        if found is None:
            found = b"".join(part.data for part in self.parts if part.concerns(job_id))
            self._of_jobs[job_id] = found
        return found


class Feed:
    """One task that turns the ledger's events into frames of bytes; watchers send them as they are.

    No watcher has a queue: each knows the number of its next frame. One that reads too slowly finds its
    frame gone and goes on in the journal, and no event is ever lost. Without watchers nothing is done.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._frames: deque[Frame] = deque()
        #: Number of the next frame.
        self._next = 0
        self._kept_bytes = 0
        #: The frames tell of every event past this one.
        self._floor = 0
        #: The newest event they tell of.
        self._told = 0
        self._snapshots = Snapshots(ledger)
        self._turn = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="replay")
        self._closed = False
        self.num_watchers = 0

    def close(self) -> None:
        """End every stream, for good: browsers come back to the next server."""
        self._closed = True
        if self._work is not None:
            self._work.cancel()
        self._readers.shutdown(wait=False)

    async def messages(self, *, after: int | None = None, job_id: str | None = None) -> AsyncIterator[bytes]:
        """Server-sent events past number ``after`` (None: from now on) until the server ends.

        Events of the journal carry their number as ``id`` and come in order, each once. Behind what was
        missed stands how everything looks now. ``reset`` says that ``after`` is of another journal, or so
        old that the journal does not tell of all that followed: it goes on from now.

        Args:
            job_id: only what is about this job.
        """
        with self._watching() as work:
            head = self.ledger.last_seq
            lost = after is not None and (after > head or self._has_lost(after, job_id))
            known = head if after is None or lost else after
            yield b"retry: %d\nid: %d\n\n" % (RETRY_MS, known)
            if lost:
                yield _RESET
            number = -1
            while not work.done():
                if number == self._next:
                    await self._turn.wait()
                elif number < self._next - len(self._frames):
                    while known < self._floor:
                        known, data = await self._past(known, job_id)
                        if data:
                            yield data
                    data, number = self._present(known, job_id), self._next
                    known = max(known, self._told)
                    if data:
                        yield data
                else:
                    frames = self._some_from(number)
                    # One frame is the usual: its bytes are the same ones for all.
                    data = b"".join(frame.past(known, job_id) for frame in frames)
                    known, number = max(known, frames[-1].last_seq), number + len(frames)
                    if data:
                        yield data

    async def _past(self, known: int, job_id: str | None) -> tuple[int, bytes]:
        """The next stored events past ``known``; how far they reach, and their bytes."""
        until = self._floor
        if self._closed:
            return until, b""
        read = partial(
            stored_events,
            self.ledger.journal.path,
            after=known,
            until=until,
            job_id=job_id,
            limit=REPLAY_EVENTS,
        )
        found: list[StoredEvent] = await asyncio.get_running_loop().run_in_executor(self._readers, read)
        if self._has_lost(known, job_id):  # compacted since it began, or while it was read
            return until, b"id: %d\n\n" % until + _RESET
        self._snapshots.show_again(event.job_id for event in found)
        reached = found[-1].seq if len(found) == REPLAY_EVENTS else until
        return reached, b"".join(event.message() for event in found)

    def _has_lost(self, known: int, job_id: str | None) -> bool:
        """Whether something past ``known`` may be what the journal tells no more."""
        job = self.ledger.state.jobs.get(job_id) if job_id else None
        newest = self.ledger.last_seq if job is None else job.last_seq
        return known < min(self.ledger.journal.kept_from, newest)

    def _present(self, known: int, job_id: str | None) -> bytes:
        """The kept events past ``known``, and how everything looks now."""
        kept = (part for frame in self._frames if frame.last_seq > known for part in frame.parts)
        events = [p for p in kept if p.seq is not None and p.seq > known and p.concerns(job_id)]
        self._snapshots.show_again(part.job_id for part in events)
        looks = [p for p in map(_snapshot, self._snapshots.newest()) if p.concerns(job_id)]
        return b"".join(part.data for part in (*events, *looks))

    def _some_from(self, number: int) -> list[Frame]:
        """Frames from ``number`` on, at least one, and no more than fit a chunk."""
        chosen: list[Frame] = []
        num_bytes = 0
        oldest = self._next - len(self._frames)
        for frame in islice(self._frames, number - oldest, None):
            num_bytes += len(frame.data)
            if chosen and num_bytes > CHUNK_BYTES:
                break
            chosen.append(frame)
        return chosen

    @contextmanager
    def _watching(self) -> Iterator[asyncio.Task[None]]:
        """The work runs as long as anybody watches."""
        self.num_watchers += 1
        try:
            if self._work is None or self._work.done():
                self._work = self._start()
            yield self._work
        finally:
            self.num_watchers -= 1
            if not self.num_watchers and self._work is not None:
                self._work.cancel()
                self._work = None

    def _start(self) -> asyncio.Task[None]:
        self._frames.clear()
        self._kept_bytes = 0
        self._floor = self._told = self.ledger.last_seq
        self._snapshots = Snapshots(self.ledger)
        watch = self.ledger.watch()
        work = asyncio.ensure_future(self._run(watch.__enter__()))
        work.add_done_callback(lambda _: watch.__exit__(None, None, None))
        # The end of the work ends the streams; a browser comes back, and the work starts anew.
        work.add_done_callback(self._ended)
        if self._closed:
            work.cancel()
        return work

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._wake()
        if not work.cancelled() and (error := work.exception()):
            log.error("the live feed failed, and starts again", exc_info=error)

    async def _run(self, happened: asyncio.Queue[Recorded]) -> None:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + HEARTBEAT_S
        while True:
            began = loop.time()
            parts = []
            before = self._told
            while not happened.empty():
                seq, at, event = happened.get_nowait()
                self._told = seq
                self._snapshots.note(event)
                parts.append(Part(event_message(seq, at, event), seq, getattr(event, "job_id", None)))
            parts += map(_snapshot, self._snapshots.due(loop.time()))
            if loop.time() >= heartbeat_at:
                heartbeat_at = loop.time() + HEARTBEAT_S
                parts.append(Part(HEARTBEAT, for_all=True))
            if parts:
                self._keep(Frame(parts, before, self._told))
            await asyncio.sleep(max(FRAME_INTERVAL_S, PAUSE_OF_WORK * (loop.time() - began)))

    def _keep(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._next += 1
        self._kept_bytes += len(frame.data)
        while self._kept_bytes > KEPT_BYTES:
            oldest = self._frames.popleft()
            self._kept_bytes -= len(oldest.data)
            self._floor = oldest.last_seq
        self._wake()

    def _wake(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()


def _snapshot(look: tuple[Subject, bytes]) -> Part:
    (kind, name), data = look
    return Part(data, job_id=name if kind == "job" else None)


def events_router(feed: Feed) -> APIRouter:
    """The route of everything that happens on the farm."""
    router = api_router("live")

    @router.get(
        "/events",
        summary="Follow the farm",
        response_class=StreamingResponse,
        responses=answers(
            _EXAMPLE,
            said="Server-sent events, without an end.",
            media_type="text/event-stream",
            errors={404: "There is no such job."},
        ),
    )
    async def events(
        after: Annotated[int | None, Query(ge=0, le=MAX_SEQ, description="Begin behind this event.")] = None,
        job_id: Annotated[str | None, Query(description="Only what is about this job.")] = None,
        last_event_id: Annotated[
            int | None, Header(ge=0, le=MAX_SEQ, description="The same, as a browser says it.")
        ] = None,
    ) -> StreamingResponse:
        """Everything that happens on the farm, as server-sent events; never ends.

        Events of the journal carry a number as `id` and their time as `at`. `job`, `worker` and `worker_gone`
        tell of what has changed between them, at most seven times a second each. `reset` says that `after` is
        of another journal, or too old for all that followed to be told: load everything anew. Without `after`
        it begins now.
        """
        if job_id is not None:
            feed.ledger.job(job_id)
        seen = max((n for n in (after, last_event_id) if n is not None), default=None)
        stream = feed.messages(after=seen, job_id=job_id)
        return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)

    return router
