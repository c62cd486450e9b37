"""Serving the app on the coordinator's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from farm.errors import CannotRun


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
