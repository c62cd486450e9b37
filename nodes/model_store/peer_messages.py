"""What two machines say to each other that hand a model over: frames as of ``nodes.link``, in threads.

Who gives speaks first. Both prove that they know the farm's secret of the day without telling it. Then
whoever takes asks again and again for one of the pieces it lacks, and is given one, or told that none of them
is here.
"""

from __future__ import annotations

import socket
import struct
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nodes.link import LENGTH, MAX_HEADER_BYTES, BadFrame, framed, header_bytes

#: A machine that says nothing for so long is let go.
SILENCE_S = 20
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Challenge(_Said):
    nonce: _Nonce


class Hello(_Said):
    nonce: _Nonce
    proof: _Hash


class Welcome(_Said):
    proof: _Hash


class Ask(_Said):
    """For one of the pieces whose bits are set, of a manifest."""

    manifest: _Hash
    wanted: Annotated[str, Field(pattern=r"^[0-9a-f]{1,65536}$")]


class Give(_Said):
    """The piece of that number follows; None: none of these is here."""

    number: Annotated[int, Field(ge=0, lt=2**18)] | None


_Message = TypeVar("_Message", bound=_Said)


def send(connection: socket.socket, message: _Said) -> None:
    connection.sendall(framed(message.model_dump_json().encode()))


def receive(connection: socket.socket, kind: type[_Message], limit_bytes: int = MAX_HEADER_BYTES) -> _Message:
    """
    Raises:
        BadFrame: it is no such message.
        OSError: the connection has ended, or is silent.
    """
    prefix = bytearray(LENGTH.size)
    receive_into(connection, memoryview(prefix))
    header = bytearray(header_bytes(bytes(prefix), limit_bytes))
    receive_into(connection, memoryview(header))
    try:
        return kind.model_validate_json(bytes(header))
    except ValidationError as error:
        raise BadFrame(f"it is no {kind.__name__}") from error


def receive_into(connection: socket.socket, view: memoryview) -> None:
    """Fill ``view``, in as few calls as can be: the bytes of a fast network are not for Python to count.

    Raises:
        OSError: the connection has ended, or is silent.
    """
    got = 0
    while got < len(view):
        try:
            count = connection.recv_into(view[got:], 0, socket.MSG_WAITALL)
        except BlockingIOError as error:
            raise TimeoutError(f"nothing came for {SILENCE_S} s") from error
        if not count:
            raise ConnectionResetError("the other side has closed it")
        got += count


def blocking(connection: socket.socket) -> None:
    """Wait in the kernel, so long at most: a socket with a timeout of Python's own returns piecemeal."""
    connection.settimeout(None)
    limit = struct.pack("ll", SILENCE_S, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def bits_of(numbers: set[int]) -> str:
    """A set of small numbers, as ``Ask`` has it."""
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return f"{bits:x}"


def numbers_of(bits: str) -> list[int]:
    """The set again, in order."""
    text = f"{int(bits, 16):b}"[::-1]
    return [number for number, bit in enumerate(text) if bit == "1"]
