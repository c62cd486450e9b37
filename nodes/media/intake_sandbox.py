"""Takes in a user's image or video, decoded in a child process with limits: hostile bytes harm nobody.

The child gets no shell, no inherited environment, no standard input, a ceiling on memory, processor time and
file size, and a folder of its own that is gone afterwards. How long it takes is not limited, only how long
it may say nothing: a long video is looked at from end to end, and tells how far that is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from farm.errors import InvalidInput
from farm.request import MediaInfo, OnLook
from stitching import intake

MEMORY_BYTES = 4 << 30
#: A little more than the largest video that is accepted.
FILE_BYTES = intake.MAX_VIDEO_BYTES + (64 << 20)
#: A child that says nothing for so long is stopped.
SILENCE_S = 120.0
#: Between two calls of ``on_look``.
_LOOK_S = 1.0
#: Of what a child prints, more than it has to say.
_MAX_LINE_BYTES = 1 << 20
#: Processor seconds per second of silence: decoders run on several threads. The clock on the wall stops a
#: child first; this one stops a child whose parent is gone. A video's child moves it with each word of
#: progress.
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
    (resource.RLIMIT_FSIZE, size),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (value, value))
may_move = sys.argv[4] == "moving"
hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
resource.setrlimit(resource.RLIMIT_CPU, (cpu, hard if may_move else cpu))
sys.argv = ["intake", *sys.argv[5:]]
runpy.run_module("stitching.intake", run_name="__main__")
"""


def normalise(
    path: Path,
    output_dir: Path,
    on_look: OnLook | None = None,
    *,
    silence_s: float = SILENCE_S,
    memory_bytes: int = MEMORY_BYTES,
    file_bytes: int = FILE_BYTES,
    picture_cpu_s: int = PICTURE_CPU_S,
    clip: bool = False,
) -> MediaInfo:
    """Check an image or video and put its normalised copy into ``output_dir``, named by its SHA-256.

    Args:
        path: the user's file, untouched.
        output_dir: an existing folder; on failure nothing is left in it.
        on_look: told about every second how far the look at a video is; what it raises ends the check.
        silence_s: wall-clock seconds for which the check may say nothing.
        memory_bytes: address space of the child.
        file_bytes: largest file the child may write.
        picture_cpu_s: processor seconds of the child, where the file is a picture.
        clip: an animated picture is taken as a video; else its first picture is.

    Raises:
        InvalidInput: the file is refused, or its decoder crashed or passed a limit; one line says which.
    """
    staging = Path(tempfile.mkdtemp(prefix=".intake-", dir=output_dir.absolute()))
    try:
        cpu_s, moving = math.ceil(silence_s * _CPU_S_PER_S), "moving"
        if _is_picture(path) and not clip:
            cpu_s, moving = min(cpu_s, picture_cpu_s), "fixed"
        limits = (memory_bytes, cpu_s, file_bytes, moving)
        printed = _run(
            path, staging, limits=limits, silence_s=silence_s, on_look=on_look or _not_told, clip=clip
        )
        found = _described(printed, path)
        # A decoder that was taken over may say anything: believe only what lies in its folder.
        staged = staging / f"{found.sha256}{found.path.suffix}"
        if found.path != staged or staged.is_symlink() or _sha256(staged) != found.sha256:
            raise InvalidInput(f"{intake.shown_name(path)} could not be checked: its decoder misbehaved.")
        final = output_dir / staged.name
        staged.replace(final)
        return found.model_copy(update={"path": final})
    finally:
        shutil.rmtree(staging)


def _not_told(num_frames: int, share: float | None) -> None:
    pass


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


def _run(
    path: Path,
    staging: Path,
    *,
    limits: tuple[int | str, ...],
    silence_s: float,
    on_look: OnLook,
    clip: bool,
) -> str:
    """The last line that the child printed. Whatever happens, the child is gone when this returns."""
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
    command += [os.path.abspath(path), str(staging), *([intake.CLIP] if clip else [])]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=staging,
            env=environment,
            start_new_session=True,  # a Ctrl-C meant for the farm is handled here, not in the child
        )
    except ValueError:  # a NUL byte in the path
        raise InvalidInput("The path holds a character no file name can have; check the path.") from None
    with child:
        try:
            last = ""
            told: tuple[int, float | None] = (0, None)
            for line in _lines(child, silence_s):
                progress = told if line is None else _progress(line)
                if progress is None:
                    last = line or ""
                else:
                    told = progress
                    on_look(*told)
            returncode = child.wait()
        except TimeoutError:
            raise InvalidInput(
                f"{intake.shown_name(path)} could not be checked: its decoder took more than {silence_s:g} s"
                " for a part of it; re-encode it, or make it smaller."
            ) from None
        finally:
            child.kill()
    if returncode not in (0, 2):
        why = f"signal {-returncode}" if returncode < 0 else f"status {returncode}"
        raise InvalidInput(
            f"{intake.shown_name(path)} could not be checked: its decoder crashed or passed a limit ({why});"
            " re-encode it."
        )
    return last


def _lines(child: subprocess.Popen[bytes], silence_s: float) -> Iterator[str | None]:
    """What the child prints, line by line, to its end; None now and then while it says nothing.

    Raises:
        TimeoutError: it has said nothing for so long, or more than it can have to say.
    """
    assert child.stdout is not None
    pending, heard_at = b"", time.monotonic()
    while True:
        left_s = heard_at + silence_s - time.monotonic()
        if left_s <= 0 or len(pending) > _MAX_LINE_BYTES:
            raise TimeoutError
        if not select.select([child.stdout], [], [], min(left_s, _LOOK_S))[0]:
            yield None
            continue
        block = os.read(child.stdout.fileno(), 1 << 16)
        if not block:
            yield from [pending.decode(errors="replace")] if pending else []
            return
        heard_at = time.monotonic()
        *lines, pending = (pending + block).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _progress(line: str) -> tuple[int, float | None] | None:
    """A line of progress as numbers; None: it is none."""
    try:
        told = json.loads(line)
        if set(told) != {"num_frames", "share"}:
            return None
        share = told["share"]
        return int(told["num_frames"]), None if share is None else min(max(float(share), 0.0), 1.0)
    except (ValueError, TypeError):
        return None


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
