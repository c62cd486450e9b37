"""Serving the app on the coordinator's own event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from farm.errors import CannotRun


class _Server(uvicorn.Server):
    """Leaves signals to the farm: Ctrl-C ends everything in order, not the server alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until cancelled.

    Raises:
        CannotRun: the address cannot be listened on.
    """
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", lifespan="off", timeout_graceful_shutdown=2
    )
    server = _Server(config)
    try:
        await server.serve()
    except SystemExit:
        raise CannotRun(f"{host}:{port} cannot be listened on; choose another --port or --listen") from None
    finally:
        server.should_exit = True
