"""The ``farm`` command without its imports: run by ``tests/conftest.py``, which says what for.

What it runs is a fork of a process that has imported the command and has done nothing with it.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile

import typer.rich_utils

import farm.cli.main
import nodes.hosting
import nodes.machine

__all__ = ["farm", "nodes", "typer"]


def serve(listener: socket.socket) -> None:
    """Run a command for every connection, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return answer(connection)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run what is asked in a session of its own; tell its process id and, at its end, its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, (out, err), _, _ = socket.recv_fds(connection, 1 << 20, 2)
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.setsid()
        return run(*json.loads(asked), out, err)
    connection.send(str(pid).encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.send(str(status).encode())


def run(arguments: list[str], folder: str, environment: dict[str, str], out: int, err: int) -> None:
    """What ``python -m farm`` does in a folder of its own."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for given, standard in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(given, standard)
        os.close(given)
    tempfile.tempdir = None
    sys.path.insert(0, folder)
    sys.argv[1:] = arguments
    runpy.run_module("farm", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(sys.argv[1])
        door.listen()
        gc.freeze()  # or a fork would look through all that is here for garbage, at its end
        print("ready", flush=True)
        serve(door)
