"""A worker's end: it connects to its coordinator, proves itself, and carries out what it is told.

In threads, not in a loop: what works here is a renderer.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from queue import SimpleQueue

from farm.capabilities import Manifest, ModelHeld, Source, Worker
from farm.errors import CannotRun
from farm.running import Failed, Finished, Order, Progress
from farm.state import TELEMETRY_INTERVAL_S, Telemetry
from nodes.link.frames import (
    LENGTH,
    MAX_GREETING_BYTES,
    MAX_HEADER_BYTES,
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
    Hello,
    SaidBring,
    SaidBroken,
    SaidFetch,
    SaidModels,
    SaidTelemetry,
    SaidWorker,
    Welcome,
    given,
    said,
)

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
#: An order names every input and frame of it.
_MAX_ORDER_BYTES = 64 * MAX_HEADER_BYTES


class WorkerEnd:
    """A connection to the coordinator. Its methods may be called from any thread."""

    def __init__(self, connection: socket.socket, *, same_machine: bool) -> None:
        self._connection = connection
        #: Whether the paths in an order are readable here.
        self.same_machine = same_machine
        #: How often the coordinator wants to be told of the device.
        self.telemetry_interval_s = TELEMETRY_INTERVAL_S
        #: And of steps within a phase, at most.
        self._progress_interval_s = 0.0
        #: Of what was told of steps last: attempt and phase, and when.
        self._told: tuple[tuple[str, str], float] = (("", ""), 0.0)
        self._sending = threading.Lock()
        self._fetching = threading.Lock()
        self._blobs: SimpleQueue[bytearray | OSError | None] = SimpleQueue()
        self._models: SimpleQueue[GiveModel | OSError] = SimpleQueue()
        self._gone = OSError("the coordinator is gone")
        #: By what machines of the farm that hand models over know each other; none yet: "".
        self.secret = ""
        #: Told of it.
        self.on_secret: Callable[[str], None] = lambda _: None
        #: By manifest: which machines give pieces of it now.
        self.sources: dict[str, tuple[Source, ...]] = {}

    def introduce(self, worker: Worker) -> None:
        self._send(SaidWorker(worker=worker).header())

    def tell(self, message: Progress | Finished | Failed) -> None:
        """Say how an attempt goes. To nobody, where the connection has ended: the attempt is lost with it."""
        payloads: tuple[memoryview, ...] = ()
        if isinstance(message, Progress):
            now, where = time.monotonic(), (message.attempt_id, message.phase)
            if where == self._told[0] and now - self._told[1] < self._progress_interval_s:
                return
            self._told = (where, now)
        elif isinstance(message, Finished):
            payloads = tuple(each for each in (message.content, message.handover) if each is not None)
        self._send(said(message).header(), *payloads)

    def tell_device(self, sample: Telemetry) -> None:
        fields = {name: value for name, value in asdict(sample).items() if name != "worker_id"}
        self._send(SaidTelemetry.model_validate(fields).header())

    def tell_broken(self, error: BaseException) -> None:
        """Say that this worker cannot work."""
        self._send(SaidBroken(message=f"{type(error).__name__}: {error}"[:4096]).header())

    def fetch(self, sha256: str) -> bytearray:
        """The content of an input.

        Raises:
            OSError: the coordinator has it no more, or is gone.
        """
        with self._fetching:
            self._send(SaidFetch(sha256=sha256).header())
            content = self._blobs.get()
            if content is None:
                raise OSError(f"the coordinator has the input {sha256} no more")
            if isinstance(content, OSError):
                self._blobs.put(content)  # for whoever asks next
                raise content
            return content

    def tell_models(
        self, held: Sequence[ModelHeld], manifests: Sequence[str] = (), port: int | None = None
    ) -> None:
        """Say which models are whole on this machine's disk, and of which manifests it gives to others."""
        self._send(SaidModels(held=tuple(held), manifests=tuple(manifests), port=port).header())

    def model_of(self, attempt_id: str) -> tuple[Manifest, ...]:
        """What the model of an order and its weights are made of, as far as they come from the farm.

        Raises:
            OSError: the coordinator is gone.
            CannotRun: it cannot tell.
        """
        with self._fetching:
            self._send(SaidBring(attempt_id=attempt_id).header())
            while True:
                told = self._models.get()
                if isinstance(told, OSError):
                    self._models.put(told)  # for whoever asks next
                    raise told
                if told.attempt_id == attempt_id:
                    if told.problem:
                        raise CannotRun(told.problem)
                    return told.manifests

    def serve(self, begin: Callable[[Order], None], cancel: Callable[[str], None]) -> None:
        """Hear what the coordinator says, until the connection ends. Both calls return at once."""
        try:
            while True:
                message = given(self._read_header(_MAX_ORDER_BYTES))
                match message:
                    case GiveOrder(order=order):
                        self.telemetry_interval_s = message.telemetry_interval_s
                        self._progress_interval_s = message.progress_interval_s
                        begin(order)
                    case GiveCancel(attempt_id=attempt_id):
                        cancel(attempt_id)
                    case GiveModel():
                        self._models.put(message)
                    case GiveSources(manifest_id=manifest_id, sources=sources):
                        self.sources[manifest_id] = sources
                    case GiveSecret(secret=secret):
                        self.secret = secret
                        self.on_secret(secret)
                    case GiveBlob(content_bytes=size_bytes):
                        self._blobs.put(
                            None if size_bytes is None else _exactly(self._connection, size_bytes)
                        )
        except (OSError, BadFrame) as error:
            log.info("the connection to the coordinator has ended: %s", error)
        finally:
            self.close()
            self._blobs.put(self._gone)
            self._models.put(self._gone)

    def close(self) -> None:
        """End the connection; ``serve`` returns."""
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read_header(self, limit_bytes: int) -> bytes:
        prefix = _exactly(self._connection, LENGTH.size)
        return bytes(_exactly(self._connection, header_bytes(bytes(prefix), limit_bytes)))

    def _send(self, header: bytes, *payloads: memoryview) -> None:
        try:
            with self._sending:
                self._connection.sendall(framed(header))
                for payload in payloads:
                    self._connection.sendall(payload)
        except OSError as error:
            log.info("the coordinator does not hear: %s", error)


def connect(host: str, port: int, worker_id: str, secret: str) -> WorkerEnd:
    """Connect as this worker.

    Raises:
        OSError: nobody is there, or it is not who made the secret.
    """
    connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    try:
        challenge = Challenge.model_validate_json(_greeting(connection))
        nonce = new_nonce()
        ours = proof(secret, "worker", worker_id, challenge.nonce, nonce)
        connection.sendall(framed(Hello(worker_id=worker_id, nonce=nonce, proof=ours).header()))
        welcome = Welcome.model_validate_json(_greeting(connection))
        if not is_proof(welcome.proof, proof(secret, "coordinator", worker_id, challenge.nonce, nonce)):
            raise BadFrame("its proof is wrong")
    except ValueError as error:  # BadFrame and pydantic's
        connection.close()
        raise ConnectionError(f"{host}:{port} is not this worker's coordinator: {error}") from error
    except BaseException:
        connection.close()
        raise
    connection.settimeout(None)
    watch_peer(connection)
    return WorkerEnd(connection, same_machine=welcome.same_machine)


def _greeting(connection: socket.socket) -> bytes:
    prefix = _exactly(connection, LENGTH.size)
    return bytes(_exactly(connection, header_bytes(bytes(prefix), MAX_GREETING_BYTES)))


def _exactly(connection: socket.socket, size_bytes: int) -> bytearray:
    """
    Raises:
        ConnectionError: it ended before.
    """
    content = bytearray(size_bytes)
    view, got = memoryview(content), 0
    while got < size_bytes:
        count = connection.recv_into(view[got:])
        if not count:
            raise ConnectionResetError("the coordinator has closed it")
        got += count
    return content
