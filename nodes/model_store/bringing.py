"""Taking a model from other machines of the farm: pieces from several at once, each checked by its hash.

Whoever has some pieces already gives them to others while it takes the rest (``nodes.model_store.serving``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from farm.capabilities import Manifest, Source
from farm.errors import CannotRun
from nodes.link import MAX_GREETING_BYTES, BadFrame, is_proof, new_nonce, proof, watch_peer
from nodes.model_store.holdings import SPARSE, InStore, Journal
from nodes.model_store.peer_messages import (
    Ask,
    Challenge,
    Give,
    Hello,
    Welcome,
    bits_of,
    blocking,
    receive,
    receive_into,
    send,
)
from nodes.model_store.pieces import Piece
from nodes.model_store.store import Arrival, arriving, manifest_record

log = logging.getLogger(__name__)

#: Machines that are asked at a time, and connections to each: while a piece is checked the next one comes.
MAX_SOURCES = 6
CONNECTIONS = 2
#: Between looks at how far it is, and for machines that have come.
_LOOK_S = 0.2
#: Before one is asked again that has nothing for us, and one that could not be reached.
_NOTHING_S, _UNREACHED_S = 0.1, 1.0
_CONNECT_S = 5.0
#: Where nothing comes for so long from anybody.
GIVE_UP_S = 90.0
#: Pieces that arrive with another hash, of one machine.
_MAX_DAMAGED = 3


def bring(
    manifest: Manifest,
    sources: Callable[[], Sequence[Source]],
    secret: Callable[[], str],
    *,
    make_room: Callable[[int], None] = lambda _: None,
    on_bytes: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """The folder of a model in this machine's store, taken from those machines that have it, or parts of it.

    Args:
        sources: Who gives, as it is now.
        secret: Of the farm, as it is now.
        make_room: Told how many bytes will come, before any does; raises CannotRun where there is no room.
        on_bytes: Told how many of how many bytes are here, some times a second; what it raises ends it, and
            what has come is kept.

    Raises:
        CannotRun: nobody gives it, or what comes is not it.
    """
    with arriving(manifest.key, waits=lambda: on_bytes(0, manifest.size_bytes)) as arrival:
        record = manifest_record(manifest.key)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(manifest.model_dump_json())  # from now on others may ask
        taking = _Taking(manifest, arrival, sources, secret)
        make_room(taking.missing_bytes)
        try:
            taking.run(on_bytes)
        finally:
            taking.end()
        return arrival.settle("farm")


class _Taking:
    """One model as it comes. Its numbers are changed under a lock; bytes are read and written outside it."""

    def __init__(
        self,
        manifest: Manifest,
        arrival: Arrival,
        sources: Callable[[], Sequence[Source]],
        secret: Callable[[], str],
    ) -> None:
        self._manifest, self._arrival = manifest, arrival
        self._sources, self._secret = sources, secret
        self._id = manifest.id
        holding = InStore(manifest)
        self._pieces = holding.pieces
        self._journal = Journal(manifest.key)
        here = {number for number in holding.numbers() if self._is_right(holding, number)}
        self._journal.begin(sorted(here))
        #: Pieces that are not here yet, those of them on their way, and how many each file still lacks.
        self._missing = set(range(len(self._pieces))) - here
        self._coming: set[int] = set()
        self._left = {file.path: 0 for file in manifest.files}
        for number in self._missing:
            self._left[self._pieces[number].path] += 1
        self._lock = threading.Lock()
        #: One asks at a time: which piece it is given is known before the next one asks.
        self._asking = threading.Lock()
        self._ended = threading.Event()
        self._threads: dict[Source, int] = {}
        self._retry_at: dict[Source, float] = {}
        self._damaged: dict[Source, int] = {}
        self._heard_at = time.monotonic()
        self._error: BaseException | None = None
        self.missing_bytes = sum(self._pieces[number].size_bytes for number in self._missing)

    def run(self, on_bytes: Callable[[int, int], None]) -> None:
        """Until all is here."""
        for file in self._manifest.files:
            if self._left[file.path] or self._arrival.whole(file.path) is None:
                part = self._arrival.part(file.path, SPARSE)
                with part.open("ab") as sparse:
                    sparse.truncate(file.size_bytes)
                if not self._left[file.path]:  # an empty file, or one that only lacked its name
                    self._arrival.finish(part, file.path)
        total = self._manifest.size_bytes
        while True:
            with self._lock:
                left = sum(self._pieces[number].size_bytes for number in self._missing)
                failed = self._error
            if failed is not None:
                raise failed
            on_bytes(total - left, total)
            if not left:
                return
            self._begin_threads()
            self._ended.wait(_LOOK_S)
            if time.monotonic() - self._heard_at > GIVE_UP_S:
                raise CannotRun(
                    f"{self._manifest.key} does not come: no machine of the farm has given a piece of it for "
                    f"{GIVE_UP_S:.0f} s",
                    param="model",
                )

    def end(self) -> None:
        """Let go of everybody. What has come stays."""
        self._ended.set()
        with self._lock:
            if not self._missing:
                self._journal.end()

    def _is_right(self, holding: InStore, number: int) -> bool:
        """Whether a piece that was here before is what it should be: a machine may have lost its power."""
        piece = self._pieces[number]
        file = holding.file_of(piece)
        if file == self._arrival.whole(piece.path):
            return file.stat().st_size == self._size_of(piece.path)
        try:
            with file.open("rb") as part:
                part.seek(piece.offset)
                return hashlib.sha256(part.read(piece.size_bytes)).hexdigest() == piece.sha256
        except OSError:
            return False

    def _size_of(self, path: str) -> int:
        return next(file.size_bytes for file in self._manifest.files if file.path == path)

    def _begin_threads(self) -> None:
        now = time.monotonic()
        offered = [source for source in self._sources() if self._damaged.get(source, 0) < _MAX_DAMAGED]
        with self._lock:
            begun = sum(1 for count in self._threads.values() if count)
            new = [s for s in offered if not self._threads.get(s) and self._retry_at.get(s, 0.0) <= now]
            # Whoever is named first has all of it; of the others, not everybody asks the same ones.
            chosen = [s for s in new if s == offered[0]] + [
                s for s in random.sample(new, len(new)) if s != offered[0]
            ]
            chosen = chosen[: max(0, MAX_SOURCES - begun)]
            for source in chosen:
                self._threads[source] = CONNECTIONS
        for source in chosen:
            for _ in range(CONNECTIONS):
                threading.Thread(target=self._take_from, args=(source,), daemon=True, name="taking").start()

    def _take_from(self, source: Source) -> None:
        try:
            with socket.create_connection((source.host, source.port), _CONNECT_S) as connection:
                blocking(connection)
                watch_peer(connection)
                _introduce(connection, self._secret())
                self._take(connection, source)
        except (OSError, BadFrame) as error:
            log.info("%s gives no more of %s: %s", source.host, self._manifest.key, error)
            self._retry_at[source] = time.monotonic() + _UNREACHED_S
        except BaseException as error:
            with self._lock:
                self._error = error
            self._ended.set()
        finally:
            with self._lock:
                self._threads[source] -= 1

    def _take(self, connection: socket.socket, source: Source) -> None:
        buffer = bytearray(max(piece.size_bytes for piece in self._pieces))
        while not self._ended.is_set():
            number = self._asked(connection)
            if number is None:
                with self._lock:
                    if not self._missing:
                        return
                self._ended.wait(_NOTHING_S)
                continue
            try:
                piece = self._pieces[number]
                view = memoryview(buffer)[: piece.size_bytes]
                receive_into(connection, view)
                if hashlib.sha256(view).hexdigest() != piece.sha256:
                    self._damaged[source] = self._damaged.get(source, 0) + 1
                    raise BadFrame(f"piece {number} of it arrives damaged")
                self._keep(number, piece, view)
            finally:
                with self._lock:
                    self._coming.discard(number)

    def _asked(self, connection: socket.socket) -> int | None:
        """The number of the piece that now comes; None: it has none of those that are still wanted."""
        with self._asking:
            with self._lock:
                wanted = self._missing - self._coming
            if not wanted or self._ended.is_set():
                return None
            send(connection, Ask(manifest=self._id, wanted=bits_of(wanted)))
            number = receive(connection, Give).number
            if number is None:
                return None
            if number not in wanted:
                raise BadFrame(f"piece {number} was not asked for")
            with self._lock:
                self._coming.add(number)
            return number

    def _keep(self, number: int, piece: Piece, content: memoryview) -> None:
        part = self._arrival.part(piece.path, SPARSE)
        descriptor = os.open(part, os.O_WRONLY)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(descriptor, content[written:], piece.offset + written)
        finally:
            os.close(descriptor)
        with self._lock:
            self._heard_at = time.monotonic()
            self._journal.add(number)
            self._missing.discard(number)
            self._left[piece.path] -= 1
            if not self._left[piece.path]:
                self._arrival.finish(part, piece.path)


def _introduce(connection: socket.socket, secret: str) -> None:
    """
    Raises:
        BadFrame: it is no machine of the farm.
    """
    challenge = receive(connection, Challenge, MAX_GREETING_BYTES)
    nonce = new_nonce()
    send(connection, Hello(nonce=nonce, proof=proof(secret, "taker", "", challenge.nonce, nonce)))
    welcome = receive(connection, Welcome, MAX_GREETING_BYTES)
    if not is_proof(welcome.proof, proof(secret, "giver", "", challenge.nonce, nonce)):
        raise BadFrame("its proof is wrong")
