"""A farm that is up for as long as a program wants: ``farm up`` as a child of it."""

from __future__ import annotations

import json
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE, Popen

from farm.client import FarmClient
from farm.endpoint import Endpoint, endpoint_at
from farm.errors import CannotRun

#: A farm that is asked to end has let its workers go by then.
END_S = 60.0
#: Between looks at whether it answers.
ANSWERS_INTERVAL_S = 0.05


def started(workers: str | None, vram_limit: str | None, state: Path | None) -> tuple[Popen[bytes], str, str]:
    """Start ``farm up``; its process, and the URL and the token of the farm once it answers.

    Raises:
        CannotRun: it ended instead; the message is its own.
    """
    given = {"--port": str(_free_port()), "--workers": workers, "--vram-limit": vram_limit, "--state": state}
    options = [str(part) for name, value in given.items() if value is not None for part in (name, value)]
    # -P: a folder of the caller's called like one of our packages is not ours.
    command = [sys.executable, "-P", "-m", "farm", "up", "--json", *options]
    with tempfile.TemporaryFile() as said:
        # A session of its own: Ctrl-C is for this program, which ends it.
        process = Popen(command, stdout=PIPE, stderr=said, start_new_session=True)
        try:
            url = _told_url(process)
            endpoint = _answering(process, url) if url else None
        except BaseException:
            ended(process)
            raise
        if endpoint is None:
            ended(process)
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
            errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            raise CannotRun((errors or lines or ["it said nothing"])[-1])
    return process, endpoint.url, endpoint.token


def ended(process: Popen[bytes]) -> None:
    """Have a farm end, and wait until it has."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_S)
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _told_url(process: Popen[bytes]) -> str | None:
    """Where it says that it is; None: it ended without a word."""
    assert process.stdout is not None
    told = b""
    for line in process.stdout:
        told += line
        if line == b"}\n":
            return str(json.loads(told)["url"])
    return None


def _answering(process: Popen[bytes], url: str) -> Endpoint | None:
    """The farm once it answers, which is soon after it has said where; None: it ended."""
    while process.poll() is None:
        endpoint = endpoint_at(url)
        if endpoint is not None:
            client = FarmClient(endpoint.url, endpoint.token)
            is_up = client.is_up()
            client.close()
            if is_up:
                return endpoint
        time.sleep(ANSWERS_INTERVAL_S)
    return None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
