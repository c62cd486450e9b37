"""The ``farm`` command without its imports: run by ``tests/conftest.py``, which says what for.

What it runs is a fork of a process that has imported the command and has done nothing with it but to put it
together from its options, and to take in the photo that most commands are given: most of what such a command
does.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import json
import os
import runpy
import select
import shutil
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import typer.main
import typer.rich_utils

import dashboard.app
import nodes.hosting
import nodes.machine
from farm.cli.main import app
from nodes.engines.table import known_models
from nodes.media import intake_sandbox
from stitching import intake

__all__ = ["dashboard", "nodes", "typer"]

#: linux/capability.h and linux/prctl.h.
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
PR_CAPBSET_DROP = 24


PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"


def put_together_once() -> None:
    """The commands and the readers of their options are made of their signatures here."""
    typer.main.get_command = functools.cache(typer.main.get_command)
    group: Any = typer.main.get_command(app)
    for command in (group, *group.commands.values()):
        for parameter in command.params:
            parameter.get_runtime_param()


def take_in_once(photo: Path) -> Path:
    """Of this photo, commands get what the intake's child process has said here; returns where that lies.

    Other files are looked at in the command's own process: tests/nodes/media tests the child that the intake
    runs in, whose imports would cost more than all the rest of a command.
    """
    look, folder = intake_sandbox._run, Path(tempfile.mkdtemp())
    limits = (intake_sandbox.MEMORY_BYTES, intake_sandbox.PICTURE_CPU_S, intake_sandbox.FILE_BYTES, "fixed")
    said = look(
        photo, folder, limits=limits, silence_s=intake_sandbox.SILENCE_S, on_look=lambda *_: None, clip=False
    )

    def remember(path: Path, staging: Path, **how: Any) -> str:
        if path.absolute() != photo:
            return looked_at_here(path, staging, **how)
        with suppress(OSError):  # the disk may be full, which is for the child to say
            for taken in folder.iterdir():
                shutil.copy(taken, staging)
            return said.replace(str(folder), str(staging))
        return look(path, staging, **how)

    intake_sandbox._run = remember
    return folder


def looked_at_here(path: Path, staging: Path, *, clip: bool, **_: Any) -> str:
    """What the intake's child prints at its end."""
    try:
        return json.dumps(intake.normalise_file(path.absolute(), staging, lambda *_: None, clip=clip))
    except intake.IntakeError as error:
        return json.dumps({"error": str(error)})


def serve(listener: socket.socket) -> None:
    """Run a command for every connection, until standard input ends."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor that is ready when the process ended
    while True:
        ready = select.select([listener, sys.stdin, *running], [], [])[0]
        for ended in running.keys() & set(ready):
            pid, connection = running.pop(ended)
            os.close(ended)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with connection, suppress(ConnectionError):  # nobody may wait for it any more
                connection.send(str(status).encode())
        if sys.stdin in ready:
            return
        if listener in ready:
            connection, _ = listener.accept()
            asked, (out, err), _, _ = socket.recv_fds(connection, 1 << 20, 2)
            pid = os.fork()
            if pid == 0:
                for kept in (listener, connection, *(of_other for _, of_other in running.values())):
                    kept.close()
                for of_other in running:
                    os.close(of_other)
                os.setsid()
                run(*json.loads(asked), out, err)
            os.close(out)
            os.close(err)
            connection.send(str(pid).encode())
            running[os.pidfd_open(pid)] = pid, connection


def run(
    arguments: list[str], folder: str, environment: dict[str, str], ordinary: bool, out: int, err: int
) -> NoReturn:
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
    try:
        runpy.run_module("farm", run_name="__main__", alter_sys=True)
        sys.exit()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        # As an interpreter ends, but that it does not take apart what it shares with the others.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)


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
        put_together_once()
        known_models()  # what is known of them is read once in a process
        taken = take_in_once(PHOTO)
        gc.freeze()  # or a fork would look through all that is here for garbage, at its end
        print("ready", flush=True)
        serve(door)
        shutil.rmtree(taken)
