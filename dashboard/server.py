"""Serving the app on the coordinator's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI

from farm.errors import CannotRun

#: What the farm and its doors do beside the loop. As many as are usual on a small machine, six, are taken
#: by two uploads, two paintings and two pictures; results would wait for them.
THREADS = 32


class _Server(uvicorn.Server):
    """Leaves signals to the farm: Ctrl-C ends everything in order, not the server alone."""

    cancelled = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        try:
            await super().main_loop()
        except asyncio.CancelledError:
            self.cancelled = True  # answers that are under way are ended first

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams of events never end by themselves, and the server waits for what is under way.
        self.config.app.state.feed.close()  # type: ignore[union-attr]
        await super().shutdown()


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until cancelled.

    Raises:
        CannotRun: the address cannot be listened on.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="beside"))
    # What is here by now stays. Looked through again with every large job, it would hold the loop for 0.1 s.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        log_config=None,  # what it says goes where the farm logs
        lifespan="on",
        timeout_graceful_shutdown=2,
        # Anybody may claim to be a proxy: the address is where the connection comes from.
        proxy_headers=False,
    )
    server = _Server(config)
    try:
        await server.serve()
    except SystemExit:
        raise CannotRun(f"{host}:{port} cannot be listened on; choose another --port or --listen") from None
    if server.cancelled:
        raise asyncio.CancelledError
