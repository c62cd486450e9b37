"""The coordinator's end: where workers connect, prove who they are, and are listened to.

Nobody is let in but a worker that is expected, by the secret that was made for it when it was started.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress

from farm.capabilities import Manifest, Source, Worker
from farm.running import Blob, Failed, Finished, Order, Progress
from farm.state import Telemetry, progress_interval_s, telemetry_interval_s
from nodes.link.frames import (
    LENGTH,
    MAX_GREETING_BYTES,
    MAX_HEADER_BYTES,
    READ_AHEAD_BYTES,
    BadFrame,
    framed,
    header_bytes,
    is_proof,
    new_nonce,
    proof,
    watch_peer,
)
from nodes.link.messages import (
    Challenge,
    GiveBlob,
    GiveCancel,
    GiveModel,
    GiveOrder,
    GiveSecret,
    GiveSources,
    SaidBring,
    SaidBroken,
    SaidFailed,
    SaidFetch,
    SaidFinished,
    SaidModels,
    SaidProgress,
    SaidTelemetry,
    SaidWorker,
    Welcome,
    hello,
    refusal,
    worker_said,
)

log = logging.getLogger(__name__)

#: Whoever has not proved by then who it is, is let go.
GREETING_TIMEOUT_S = 10.0
#: Connections at a time that have not proved who they are.
MAX_STRANGERS = 64
#: A worker's attempts whose late word is still known as its own.
MAX_KNOWN_ORDERS = 64
#: Inputs that one worker may wait for.
MAX_FETCHES = 64

Heard = Worker | Progress | Finished | Failed | Telemetry | SaidModels | SaidBring


class LinkBroken(Exception):
    """A connection has ended, or was ended for what came over it. Says why."""


class Misbehaved(LinkBroken):
    """It was ended for what came over it."""


class Connection:
    """A worker that has proved who it is."""

    def __init__(self, worker_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.worker_id = worker_id
        self._reader = reader
        self._writer = writer
        self._orders: OrderedDict[str, Order] = OrderedDict()
        #: Messages, and inputs that were asked for.
        self._outgoing: asyncio.Queue[bytes | Blob] = asyncio.Queue()
        self._num_fetches = 0
        self._sending = asyncio.ensure_future(self._send())

    def order(self, order: Order, *, num_workers: int = 1) -> None:
        """Give the worker an attempt; of so many it tells of its device and steps. Returns at once."""
        self._orders[order.attempt_id] = order
        while len(self._orders) > MAX_KNOWN_ORDERS:
            self._orders.popitem(last=False)
        given = GiveOrder(
            order=order,
            telemetry_interval_s=telemetry_interval_s(num_workers),
            progress_interval_s=progress_interval_s(num_workers),
        )
        self._outgoing.put_nowait(given.header())

    def cancel(self, attempt_id: str) -> None:
        """Have an attempt stopped; returns at once."""
        self._outgoing.put_nowait(GiveCancel(attempt_id=attempt_id).header())

    def order_of(self, attempt_id: str) -> Order | None:
        """One of the last orders that it was given."""
        return self._orders.get(attempt_id)

    def give_secret(self, secret: str) -> None:
        """Tell by what machines that hand models over know each other; returns at once."""
        self._outgoing.put_nowait(GiveSecret(secret=secret).header())

    def give_model(self, attempt_id: str, manifests: tuple[Manifest, ...], problem: str = "") -> None:
        """Answer a worker that wants the model of an order; returns at once."""
        self._outgoing.put_nowait(
            GiveModel(attempt_id=attempt_id, manifests=manifests, problem=problem).header()
        )

    def give_sources(self, manifest_id: str, sources: tuple[Source, ...]) -> None:
        """Tell which machines give pieces of a model now; returns at once."""
        self._outgoing.put_nowait(GiveSources(manifest_id=manifest_id, sources=sources).header())

    async def heard(self) -> AsyncIterator[Heard]:
        """What the worker says, until the connection ends; first of all the worker itself.

        Raises:
            LinkBroken: always at the end.
        """
        introduced = False
        try:
            while True:
                message = worker_said(await _header(self._reader, MAX_HEADER_BYTES))
                refused = refusal(message, self.worker_id, self._orders)
                if not refused and introduced == isinstance(message, SaidWorker):
                    refused = "a worker introduces itself first, and once"
                if refused and not isinstance(message, SaidBroken):
                    raise BadFrame(refused)
                match message:
                    case SaidWorker(worker=worker):
                        introduced = True
                        yield worker
                    case SaidProgress():
                        yield message.message()
                    case SaidFailed():
                        yield message.told()
                    case SaidTelemetry():
                        yield message.message(self.worker_id)
                    case SaidFinished():
                        content = await self._payload(message.content_bytes)
                        handover = None
                        if message.handover_bytes is not None:
                            handover = await self._payload(message.handover_bytes)
                        yield message.message(content, handover)
                    case SaidModels() | SaidBring():
                        yield message
                    case SaidFetch(sha256=sha256):
                        self._fetched(sha256)
                    case SaidBroken(message=text):
                        raise LinkBroken(text)
        except BadFrame as error:
            log.warning("worker %s is not listened to any more: %s", self.worker_id, error)
            raise Misbehaved(f"said what it may not: {error}") from error
        except (OSError, EOFError) as error:
            raise LinkBroken("its process ended, or its machine is cut off") from error

    def close(self) -> None:
        """End the connection. The worker stops what it does."""
        self._sending.cancel()
        self._writer.close()

    async def _payload(self, size_bytes: int) -> memoryview:
        return memoryview(await self._reader.readexactly(size_bytes))

    def _fetched(self, sha256: str) -> None:
        """
        Raises:
            BadFrame: it asks for more and takes nothing.
        """
        self._num_fetches += 1
        if self._num_fetches > MAX_FETCHES:
            raise BadFrame(f"{self._num_fetches} inputs asked for at a time")
        inputs = (blob for order in self._orders.values() for blob in order.inputs.values())
        self._outgoing.put_nowait(next(blob for blob in inputs if blob.sha256 == sha256))

    async def _send(self) -> None:
        with suppress(OSError):  # whoever reads hears of it
            while True:
                message = await self._outgoing.get()
                if isinstance(message, bytes):
                    self._writer.write(framed(message))
                    await self._writer.drain()
                else:
                    await self._send_blob(message)
                    self._num_fetches -= 1

    async def _send_blob(self, blob: Blob) -> None:
        try:
            file = open(blob.path, "rb")  # noqa: SIM115
        except OSError:
            self._writer.write(framed(GiveBlob(sha256=blob.sha256, content_bytes=None).header()))
            return
        with file:
            size_bytes = os.fstat(file.fileno()).st_size  # what is stored never changes
            self._writer.write(framed(GiveBlob(sha256=blob.sha256, content_bytes=size_bytes).header()))
            if size_bytes:
                await asyncio.get_running_loop().sendfile(self._writer.transport, file)


class Listener:
    """Where workers connect. One that is expected is handed over as a ``Connection``."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        #: By worker: its secret, and who waits for it.
        self._expected: dict[str, tuple[str, bool, asyncio.Future[Connection]]] = {}
        self._strangers: set[asyncio.StreamWriter] = set()
        self.host, self.port = "", 0

    async def open(self, host: str, port: int = 0) -> None:
        """Listen there; port 0: on one that is free.

        Raises:
            OSError: it is no address of this machine.
        """
        self._server = await asyncio.start_server(self._greet, host, port, limit=READ_AHEAD_BYTES)
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    def expect(self, worker_id: str, *, same_machine: bool) -> tuple[str, asyncio.Future[Connection]]:
        """A secret for a worker, and its connection once it has come; who gives up cancels that."""
        secret = secrets.token_hex(32)
        connected: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._expected[worker_id] = (secret, same_machine, connected)
        return secret, connected

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._strangers):
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._strangers) >= MAX_STRANGERS:
            writer.close()
            return
        self._strangers.add(writer)
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                await self._let_in(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()  # so does a machine that joins, which looks whether it reaches this port
        except (BadFrame, OSError, TimeoutError) as error:
            writer.close()
            peer = writer.get_extra_info("peername")
            log.warning("a connection from %s is no worker's: %s", peer, error or "it said nothing")
        finally:
            self._strangers.discard(writer)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = new_nonce()
        writer.write(framed(Challenge(nonce=nonce).header()))
        said = hello(await _header(reader, MAX_GREETING_BYTES))
        secret, same_machine, connected = self._expected.get(said.worker_id, ("", False, None))
        expected = proof(secret or secrets.token_hex(32), "worker", said.worker_id, nonce, said.nonce)
        if not is_proof(said.proof, expected) or connected is None or connected.done():
            raise BadFrame("its proof is wrong, or nobody waits for it")
        connection = writer.get_extra_info("socket")
        if connection is not None:
            watch_peer(connection)
        ours = proof(secret, "coordinator", said.worker_id, nonce, said.nonce)
        writer.write(framed(Welcome(proof=ours, same_machine=same_machine).header()))
        del self._expected[said.worker_id]  # a secret is good for one connection
        connected.set_result(Connection(said.worker_id, reader, writer))


async def _header(reader: asyncio.StreamReader, limit_bytes: int) -> bytes:
    """
    Raises:
        BadFrame: it is too long.
        EOFError, OSError: the connection ended.
    """
    prefix = await reader.readexactly(LENGTH.size)
    return await reader.readexactly(header_bytes(prefix, limit_bytes))
