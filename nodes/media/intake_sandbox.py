"""Takes in a user's image or video, decoded in a child process with limits: hostile bytes harm nobody.

The child gets no shell, no inherited environment, no standard input, a ceiling on memory, processor time and
file size, and a folder of its own that is gone afterwards.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from farm.errors import InvalidInput
from farm.request import MediaInfo
from stitching import intake

MEMORY_BYTES = 4 << 30
#: A little more than the largest video that is accepted.
FILE_BYTES = (4 << 30) + (64 << 20)
#: Processor seconds per second of timeout: decoders run on several threads. The clock on the wall stops a
#: child first; this one stops a child whose parent is gone.
_CPU_S_PER_S = 4
#: Processor seconds of a picture: the largest that is accepted takes some five. Files of some KB that take
#: minutes can be made.
PICTURE_CPU_S = 30

# The limits are set inside the child, before the module is imported: code between fork and exec may deadlock
# in a process with threads, and limits set from outside would come a moment late.
_LIMITED_RUN = """
import resource, runpy, sys
memory, cpu, size = map(int, sys.argv[1:4])
for limit, value in (
    (resource.RLIMIT_AS, memory),
    (resource.RLIMIT_CPU, cpu),
    (resource.RLIMIT_FSIZE, size),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (value, value))
sys.argv = ["intake", *sys.argv[4:]]
runpy.run_module("stitching.intake", run_name="__main__")
"""


def normalise(
    path: Path,
    output_dir: Path,
    *,
    timeout_s: float = 120.0,
    memory_bytes: int = MEMORY_BYTES,
    file_bytes: int = FILE_BYTES,
    picture_cpu_s: int = PICTURE_CPU_S,
) -> MediaInfo:
    """Check an image or video and put its normalised copy into ``output_dir``, named by its SHA-256.

    Args:
        path: the user's file, untouched.
        output_dir: an existing folder; on failure nothing is left in it.
        timeout_s: wall-clock seconds the check may take.
        memory_bytes: address space of the child.
        file_bytes: largest file the child may write.
        picture_cpu_s: processor seconds of the child, where the file is a picture.

    Raises:
        InvalidInput: the file is refused, or its decoder crashed or passed a limit; one line says which.
    """
    staging = Path(tempfile.mkdtemp(prefix=".intake-", dir=output_dir.absolute()))
    try:
        cpu_s = math.ceil(timeout_s * _CPU_S_PER_S)
        if _is_picture(path):
            cpu_s = min(cpu_s, picture_cpu_s)
        limits = (memory_bytes, cpu_s, file_bytes)
        found = _described(_run(path, staging, limits=limits, timeout_s=timeout_s), path)
        # A decoder that was taken over may say anything: believe only what lies in its folder.
        staged = staging / f"{found.sha256}{found.path.suffix}"
        if found.path != staged or staged.is_symlink() or _sha256(staged) != found.sha256:
            raise InvalidInput(f"{intake.shown_name(path)} could not be checked: its decoder misbehaved.")
        final = output_dir / staged.name
        staged.replace(final)
        return found.model_copy(update={"path": final})
    finally:
        shutil.rmtree(staging)


def _is_picture(path: Path) -> bool:
    """Whether the file begins as a picture does; what it really is is for the child to say."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return intake.known_suffix(file.read(64) or b"", "") == ".png"
    except (OSError, ValueError, intake.IntakeError):
        return False


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(path: Path, staging: Path, *, limits: tuple[int, ...], timeout_s: float) -> str:
    """What the child printed. Whatever happens, the child is gone when this returns."""
    environment = {
        "PYTHONPATH": str(Path(intake.__file__).parents[1]),
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(staging),
        # Threads reserve address space, on a large machine for every core.
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-s", "-B", "-c", _LIMITED_RUN, *map(str, limits)]
    command += [os.path.abspath(path), str(staging)]
    try:
        child = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
            cwd=staging,
            env=environment,
            start_new_session=True,  # a Ctrl-C meant for the farm is handled here, not in the child
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(
            f"{intake.shown_name(path)} took more than {timeout_s:g} s to check; make it shorter or smaller."
        ) from None
    except ValueError:  # a NUL byte in the path
        raise InvalidInput("The path holds a character no file name can have; check the path.") from None
    if child.returncode not in (0, 2):
        why = f"signal {-child.returncode}" if child.returncode < 0 else f"status {child.returncode}"
        raise InvalidInput(
            f"{intake.shown_name(path)} could not be checked: its decoder crashed or passed a limit ({why});"
            " re-encode it."
        )
    return child.stdout


def _described(printed: str, path: Path) -> MediaInfo:
    """The child's one line as a value."""
    try:
        answer = json.loads(printed)
        if "error" in answer:
            raise InvalidInput(str(answer["error"]))
        return MediaInfo.model_validate(answer)
    except (ValueError, TypeError):
        raise InvalidInput(
            f"{intake.shown_name(path)} could not be checked: its decoder gave no answer; re-encode it."
        ) from None
