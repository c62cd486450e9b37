"""A frame: four bytes that say how long its JSON header is, the header, then the bytes the header announces.

Whoever receives knows before it reads how much may come: a header has a limit of its own, and what follows it
is allowed by who parsed it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import struct

#: A header carries an attempt's log (64 KiB of text, six bytes a character at worst) and an order.
MAX_HEADER_BYTES = 1024 * 1024
#: Before anybody has proved who it is.
MAX_GREETING_BYTES = 2048
#: Of a connection, before it is asked for.
READ_AHEAD_BYTES = 1024 * 1024

LENGTH = struct.Struct(">I")

#: A peer that is cut off is noticed by the kernel after some six seconds, busy or idle (seconds).
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 2, 2, 2


class BadFrame(ValueError):
    """What came is no frame, or more than is allowed."""


def framed(header: bytes) -> bytes:
    """A header with its length before it."""
    return LENGTH.pack(len(header)) + header


def header_bytes(prefix: bytes, limit_bytes: int) -> int:
    """How long the header is that follows these four bytes.

    Raises:
        BadFrame: longer than ``limit_bytes``, or empty.
    """
    (length,) = LENGTH.unpack(prefix)
    if not 0 < length <= limit_bytes:
        raise BadFrame(f"a header of {length} bytes, at most {limit_bytes} are taken")
    return int(length)


def new_nonce() -> str:
    return secrets.token_hex(16)


def proof(secret: str, who: str, worker_id: str, coordinator_nonce: str, worker_nonce: str) -> str:
    """What shows that ``who`` ("worker" or "coordinator") knows the secret, without telling it."""
    told = "\n".join((who, worker_id, coordinator_nonce, worker_nonce))
    return hmac.new(secret.encode(), told.encode(), hashlib.sha256).hexdigest()


def is_proof(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def watch_peer(connection: socket.socket) -> None:
    """Have the kernel notice a peer whose plug was pulled, however long this process is busy."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        limit_s = _KEEPALIVE_IDLE_S + _KEEPALIVE_INTERVAL_S * _KEEPALIVE_COUNT
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_s * 1000)
