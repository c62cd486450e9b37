"""Giving pieces of models to other machines of the farm. A thread a connection; no other file is opened."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from nodes.link import MAX_GREETING_BYTES, BadFrame, is_proof, new_nonce, proof, watch_peer
from nodes.model_store.holdings import Holding
from nodes.model_store.peer_messages import (
    Ask,
    Challenge,
    Give,
    Hello,
    Welcome,
    blocking,
    numbers_of,
    receive,
    send,
)
from nodes.model_store.pieces import next_piece

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64


class PieceServer:
    """Listens at an address and gives pieces of what ``find`` finds, to whoever knows the secret."""

    def __init__(self, host: str, port: int, find: Callable[[str], Holding | None]) -> None:
        """``find`` is asked with the id of a manifest; None: nothing of that is here.

        Raises:
            OSError: the port is taken, or it is no address of this machine.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
        self.host, self.port = self._socket.getsockname()[:2]
        self._find = find
        self._secret = ""
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        #: By manifest: how often each piece was given.
        self._served: dict[str, list[int]] = {}
        threading.Thread(target=self._accept, daemon=True, name="models").start()

    def know(self, secret: str) -> None:
        """The secret from now on. Whoever came in with another one is let go."""
        with self._lock:
            if secret == self._secret:
                return
            self._secret = secret
            connections = list(self._connections)
        for connection in connections:
            _end(connection)

    def close(self) -> None:
        self.know("")
        _end(self._socket)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                full = len(self._connections) >= MAX_CONNECTIONS or not self._secret
                if not full:
                    self._connections.add(connection)
            if full:
                _end(connection)
            else:
                threading.Thread(target=self._serve, args=(connection,), daemon=True, name="pieces").start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            blocking(connection)
            watch_peer(connection)
            self._let_in(connection)
            while True:
                self._give(connection, receive(connection, Ask))
        except BadFrame as error:
            log.warning("a machine that asked for models is not listened to any more: %s", error)
        except OSError:
            pass  # it has what it wanted, or is gone
        finally:
            with self._lock:
                self._connections.discard(connection)
            _end(connection)

    def _let_in(self, connection: socket.socket) -> None:
        nonce, secret = new_nonce(), self._secret
        send(connection, Challenge(nonce=nonce))
        hello = receive(connection, Hello, MAX_GREETING_BYTES)
        if not secret or not is_proof(hello.proof, proof(secret, "taker", "", nonce, hello.nonce)):
            raise BadFrame("its proof is wrong")
        send(connection, Welcome(proof=proof(secret, "giver", "", nonce, hello.nonce)))

    def _give(self, connection: socket.socket, ask: Ask) -> None:
        holding = self._find(ask.manifest)
        if holding is None:
            send(connection, Give(number=None))
            return
        with self._lock:
            served = self._served.setdefault(ask.manifest, [0] * len(holding.pieces))
            number = next_piece(numbers_of(ask.wanted), holding.numbers(), served)
            if number is not None:
                served[number] += 1
        if number is None:
            send(connection, Give(number=None))
            return
        piece = holding.pieces[number]
        try:
            file = holding.file_of(piece).open("rb", buffering=0)
        except FileNotFoundError:  # it has just got another place
            file = holding.file_of(piece).open("rb", buffering=0)
        with file:
            send(connection, Give(number=number))
            offset, left = piece.offset, piece.size_bytes
            while left:
                count = os.sendfile(connection.fileno(), file.fileno(), offset, left)
                if not count:
                    raise BadFrame(f"{piece.path} is shorter than its manifest says")
                offset, left = offset + count, left - count


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
