"""Serving the app on the coordinator's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from dashboard.access import caller
from dashboard.connections import (
    RESERVED_DESCRIPTORS,
    Connections,
    most_connections,
    raise_descriptor_limit,
)
from farm.addresses import host_port
from farm.errors import CannotRun

#: What the farm and its doors do beside the loop. As many as are usual on a small machine, six, are taken
#: by two uploads, two paintings and two pictures; results would wait for them.
THREADS = 32
#: How long a thread that plans or decodes may keep the loop waiting after each of the loop's system calls.
#: Python's own 5 ms, for each of the connections that are accepted at once, are seconds.
SWITCH_INTERVAL_S = 0.0005
#: From the moment a connection waits for a request until the head of the request is there.
HEAD_S = 10.0
#: How long a reader may take nothing of what is sent. One that pauses for longer asks for the rest anew.
STALL_S = 120.0
#: Connections the kernel keeps until they are accepted, and how many of them are at a time: those are open
#: before they are counted.
BACKLOG = 1024
ACCEPTED_AT_ONCE = 64


class _Protocol(H11Protocol):
    """HTTP/1.1 on a connection that is counted, and given up when it says nothing."""

    def __init__(
        self,
        *arguments: Any,
        open_ones: Connections[asyncio.Protocol],
        num_descriptors: int,
        head_s: float,
        stall_s: float,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._open_ones = open_ones
        self._num_descriptors = num_descriptors
        self._head_s = head_s
        self._stall_s = stall_s
        self._waiting: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Descriptors are numbered from the lowest that is free: this tells how many are open, of anybody's.
        number = transport.get_extra_info("socket").fileno()
        scarce = number >= self._num_descriptors - RESERVED_DESCRIPTORS
        whose = caller(self.client[0]) if self.client else "unknown"
        self._wait()
        closed = self._open_ones.enter(self, whose, scarce=scarce)
        if isinstance(closed, _Protocol):
            closed.give_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            # The next request may be here already.
            self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._stall_s, self.give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._go_on()
        self._open_ones.leave(self)
        super().connection_lost(exc)

    def give_up(self) -> None:
        """Close at once, whatever there was still to send."""
        self._open_ones.leave(self)
        self.transport.abort()

    def _look(self) -> None:
        """Whether it waits for a request, or has one that is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            self._open_ones.is_busy(self)
        elif self._waiting is None:
            self._wait()
            self._open_ones.is_silent(self)

    def _wait(self) -> None:
        # Not begun anew with every byte: the whole head has this long.
        self._waiting = self.loop.call_later(self._head_s, self.give_up)

    def _go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Server(uvicorn.Server):
    """Leaves signals to the farm: Ctrl-C ends everything in order, not the server alone."""

    cancelled = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            # asyncio accepts as many at once as wait at most; let more wait.
            listening.listen(BACKLOG)

    async def main_loop(self) -> None:
        try:
            await super().main_loop()
        except asyncio.CancelledError:
            self.cancelled = True  # answers that are under way are ended first

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams of events never end by themselves, and the server waits for what is under way.
        self.config.app.state.feed.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


async def serve(
    app: FastAPI, host: str, port: int, *, head_s: float = HEAD_S, stall_s: float = STALL_S
) -> None:
    """Serve until cancelled.

    Args:
        head_s: how long a connection may take to send the head of a request.
        stall_s: how long it may take nothing of an answer.

    Raises:
        CannotRun: the address cannot be listened on.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="beside"))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What is here by now stays. Looked through again with every large job, it would hold the loop for 0.1 s.
    gc.collect()
    gc.freeze()
    num_descriptors = raise_descriptor_limit()
    most = most_connections(num_descriptors)
    protocol = partial(
        _Protocol,
        open_ones=Connections(most, most * 3 // 4),
        num_descriptors=num_descriptors,
        head_s=head_s,
        stall_s=stall_s,
    )
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        log_level="warning",
        log_config=None,  # what it says goes where the farm logs
        lifespan="on",
        timeout_graceful_shutdown=2,
        # Anybody may claim to be a proxy: the address is where the connection comes from.
        proxy_headers=False,
    )
    server = _Server(config)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotRun(
            f"{host_port(host, port)} cannot be listened on ({error.strerror}); "
            "choose another --port or --listen"
        ) from error
    with listening:
        await server.serve(sockets=[listening])
    if server.cancelled:
        raise asyncio.CancelledError
