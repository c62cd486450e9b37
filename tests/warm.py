"""The ``farm`` command without its imports: run by ``tests/conftest.py``, which says what for.

What it runs is a fork of a process that has imported the command and has done nothing with it.
"""

from __future__ import annotations

import ctypes
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

#: linux/capability.h and linux/prctl.h.
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_CAPBSET_DROP = 24


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


def run(
    arguments: list[str], folder: str, environment: dict[str, str], ordinary: bool, out: int, err: int
) -> None:
    """What ``python -m farm`` does in a folder of its own."""
    if ordinary:
        give_up_privilege()
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


def give_up_privilege() -> None:
    """Root may read and write everything, other users may not: the same for root, in this process and in
    every program that it starts (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    either = 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same of those from 32 on
    libc.capget(header, held)
    held[:3] = [those & ~either for those in held[:3]]
    dropped = [libc.prctl(PR_CAPBSET_DROP, one, 0, 0, 0) for one in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)]
    if os.geteuid() == 0 and (any(dropped) or libc.capset(header, held)):
        raise OSError(ctypes.get_errno(), "root's privilege cannot be given up")


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(sys.argv[1])
        door.listen()
        gc.freeze()  # or a fork would look through all that is here for garbage, at its end
        print("ready", flush=True)
        serve(door)
